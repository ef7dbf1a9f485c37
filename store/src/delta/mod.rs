//! Outputs as what changed since an earlier output of the same package.
//!
//! A canonical archive of version N + 1 shares hardly a byte with that of version N: one changed byte early in a compressed
//! stream changes all that follow. The tars inside are alike, and both sides have the earlier one. So the new tar is cut into
//! **segments**, and each is compressed with a piece of the old tar, its **reference**, as what the compressor has seen
//! before (what `zstd --patch-from` does). The receiver expands the segments and compresses the tar again. Archive format 1
//! has one encoding of every tar, so that gives the archive byte for byte; its signed SHA-256 has the last word.
//!
//! Measured (`benches/dedup.rs`, docs/measurements.md): content-defined chunks, be it of the tar or of a stream that
//! resynchronises, save little in compiled code, where every address moves with the first changed function. A
//! match of sixteen bytes in a reference survives that, a chunk of kilobytes does not.
//!
//! * Nothing is stored for it: tars are unpacked to temporary files when they are asked for.
//! * Nobody needs it: the ordinary archive and its DAG are what they were, and whatever goes wrong here ends in fetching it.
//! * Memory is bounded by a segment and its reference on either side, whatever the package's size.

mod align;
mod assembly;
mod earlier;
mod segment;
#[cfg(test)]
mod tests;
mod unpacked;

use std::ops::Range;

pub use assembly::Assembly;
pub use earlier::EARLIER_MAX;
pub use unpacked::Unpacked;

use crate::archive::ArchiveError;
use crate::{Store, StoreError};

/// Bytes of the tar in one segment: small enough that an answer comes within seconds over a slow line, large enough that
/// reading the reference into the compressor does not dominate.
pub const SEGMENT_BYTES: u64 = 4 << 20;
/// Largest reference in bytes: the segment's own place in the old tar, and as much on both sides.
pub const REFERENCE_BYTES_MAX: u64 = 3 * SEGMENT_BYTES;
/// Largest tar in bytes that is taken apart this way: what both sides spend on temporary files. Larger packages are rare, and
/// fetched as ever.
pub const TAR_BYTES_MAX: u64 = 1 << 30;
/// Most bytes of tar for one byte of archive. Packages have 3 to 10; what is beyond it is no package.
const RATIO_MAX: u64 = 64;
/// Below this size in bytes no ratio is suspicious.
const RATIO_FREE_BYTES: u64 = 1 << 20;

/// Largest tar that belongs into an archive of so many bytes, as far as deltas go.
pub fn tar_bytes_max(archive_bytes: u64) -> u64 {
    archive_bytes
        .saturating_mul(RATIO_MAX)
        .saturating_add(RATIO_FREE_BYTES)
        .min(TAR_BYTES_MAX)
}

/// How many segments a tar of so many bytes has.
pub const fn segments(tar_bytes: u64) -> u64 {
    tar_bytes.div_ceil(SEGMENT_BYTES)
}

/// Where a segment lies in a tar of so many bytes; `None` behind its end.
pub fn segment_range(index: u64, tar_bytes: u64) -> Option<Range<u64>> {
    let from = index.checked_mul(SEGMENT_BYTES)?;
    (from < tar_bytes).then(|| from..tar_bytes.min(from.saturating_add(SEGMENT_BYTES)))
}

/// Why a delta could not be made or used. The archive can be fetched as a whole in every case.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeltaError {
    /// What came cannot be right.
    #[error("not a usable delta: {0}")]
    Invalid(&'static str),
    /// One of the archives cannot be used for it.
    #[error("cannot read an output")]
    Archive(#[from] ArchiveError),
    /// The store failed, or is not what it should be.
    #[error("cannot use the store for a delta")]
    Store(#[from] StoreError),
}

/// A segment as it travels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Length of the whole new tar in bytes.
    pub tar_bytes: u64,
    /// Where its reference begins in the old tar.
    pub from: u64,
    /// Length of the reference in bytes.
    pub length: u64,
    /// The compressed bytes.
    pub packed: Vec<u8>,
}

/// Compresses one segment of `new` for somebody who has `old`; `None` behind the end.
///
/// # Errors
/// [`DeltaError`] when a file could not be read or the compressor fails.
pub fn make_segment(
    old: &Unpacked,
    new: &Unpacked,
    index: u64,
) -> Result<Option<Segment>, DeltaError> {
    let Some(range) = segment_range(index, new.size()) else {
        return Ok(None);
    };
    let reference = align::reference(old.map(), new.map(), range.start);
    let length = reference.end - reference.start;
    let packed = segment::compress(&old.read(reference.clone())?, &new.read(range)?)?;
    Ok(Some(Segment {
        tar_bytes: new.size(),
        from: reference.start,
        length,
        packed,
    }))
}

impl Store {
    /// The tar inside an output of the store, in a temporary file; `None` when no such output is here, it is too large, or
    /// there is no space beside it.
    ///
    /// # Errors
    /// [`DeltaError`] when it cannot be read or written.
    pub fn unpack_output(&self, sha256: &base::Sha256) -> Result<Option<Unpacked>, DeltaError> {
        if !self.is_output(sha256)? {
            return Ok(None);
        }
        let Some(blob) = self.open_blob(sha256)? else {
            return Ok(None);
        };
        let most = tar_bytes_max(blob.size());
        if !self.has_space(most)? {
            return Ok(None);
        }
        Unpacked::of(self, blob, most).map(Some)
    }
}
