//! One segment, compressed with its reference: a zstd frame whose prefix both sides have.

use zstd::zstd_safe::{CCtx, CParameter, DCtx, compress_bound, get_error_name};

use super::{DeltaError, REFERENCE_BYTES_MAX, SEGMENT_BYTES};

/// Compression level of a segment. Level 3 took 0.9 s for the 56 MB of a large package and left 38 to 50 % of four packages' archives,
/// level 5 2.3 s for 37 to 49 %, level 9 7 s for 32 to 48 %: most comes of the reference, and whoever sends works for others.
const LEVEL: i32 = 3;
/// The compressor reaches back over a whole reference from the end of a segment: 16 MiB, as a power of two.
const WINDOW_LOG: u32 = 24;
const _: () = assert!(REFERENCE_BYTES_MAX + SEGMENT_BYTES <= 1 << WINDOW_LOG);

/// Compresses a segment for somebody who has `reference`.
pub(super) fn compress(reference: &[u8], segment: &[u8]) -> Result<Vec<u8>, DeltaError> {
    let failed = |code| {
        tracing::warn!(error = get_error_name(code), "cannot compress a segment");
        DeltaError::Invalid("the compressor failed")
    };
    let mut context = CCtx::create();
    for parameter in [
        CParameter::CompressionLevel(LEVEL),
        CParameter::WindowLog(WINDOW_LOG),
        // Finds what lies megabytes back without searching for it.
        CParameter::EnableLongDistanceMatching(true),
    ] {
        context.set_parameter(parameter).map_err(failed)?;
    }
    context.ref_prefix(reference).map_err(failed)?;
    let mut packed = Vec::with_capacity(compress_bound(segment.len()));
    context.compress2(&mut packed, segment).map_err(failed)?;
    Ok(packed)
}

/// Expands a segment, which must have exactly `length` bytes; no more are ever written.
pub(super) fn expand(
    reference: &[u8],
    packed: &[u8],
    length: usize,
) -> Result<Vec<u8>, DeltaError> {
    let mut context = DCtx::create();
    let refused = |_| DeltaError::Invalid("a segment cannot be expanded");
    context.ref_prefix(reference).map_err(refused)?;
    let mut segment = vec![0; length];
    let written = context
        .decompress(&mut segment[..], packed)
        .map_err(refused)?;
    if written != length {
        return Err(DeltaError::Invalid("a segment is too short"));
    }
    Ok(segment)
}
