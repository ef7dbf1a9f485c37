//! The compression around a tar stream: fixed when writing, recognised and bounded when reading.

use std::cell::Cell;
use std::io::{self, BufReader, Read, Write};
use std::rc::Rc;

use flate2::bufread::MultiGzDecoder;
use zstd::stream::raw::CParameter;

use super::{ArchiveError, Compression, UnpackLimits};

/// Compression level of archive format 1. 326 MB of compilers, manuals and headers on one core: level 3 107 MB in 3.5 s,
/// 6 101 MB in 7.6 s, 9 92 MB in 13 s, 12 91 MB in 25 s, 15 91 MB in 82 s, 17 87 MB in 168 s.
const LEVEL: i32 = 9;
/// The zstd release whose encoder belongs to archive format 1; store/Cargo.toml pins the same one.
const ZSTD_VERSION: u32 = 10507;
/// Largest window we decode with, as a power of two: the default limit of the `zstd` program, 128 MiB.
const WINDOW_LOG_MAX: u32 = 27;
/// Below this size in bytes no ratio is suspicious: a small archive may well be all zeros.
const RATIO_FREE_BYTES: u64 = 64 << 20;

const ZSTD_MAGIC: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];
const GZIP_MAGIC: &[u8] = &[0x1f, 0x8b];
/// So many of an archive's first bytes tell how it is compressed.
pub(super) const MAGIC_BYTES: usize = ZSTD_MAGIC.len();

/// An encoder with the parameters of archive format 1.
pub(super) fn encoder<W: Write>(writer: W) -> Result<zstd::Encoder<'static, W>, ArchiveError> {
    let found = zstd::zstd_safe::version_number();
    if found != ZSTD_VERSION {
        return Err(ArchiveError::Compressor {
            found,
            needed: ZSTD_VERSION,
        });
    }
    let mut encoder = zstd::Encoder::new(writer, LEVEL).map_err(ArchiveError::Write)?;
    // The checksum costs four bytes and lets `zstd -t` tell a damaged download; the length is unknown beforehand.
    for parameter in [
        CParameter::ChecksumFlag(true),
        CParameter::ContentSizeFlag(false),
        CParameter::EnableLongDistanceMatching(false),
    ] {
        encoder
            .set_parameter(parameter)
            .map_err(ArchiveError::Write)?;
    }
    Ok(encoder)
}

/// How an archive is compressed, by its first [`MAGIC_BYTES`] bytes.
pub(super) fn compression(magic: &[u8]) -> Compression {
    if magic == ZSTD_MAGIC {
        Compression::Zstd
    } else if magic.starts_with(GZIP_MAGIC) {
        Compression::Gzip
    } else {
        Compression::None
    }
}

/// The tar stream inside: zstd, gzip or plain, by its first bytes. Reading it fails when it grows out of proportion.
pub(super) fn decoder<'a>(
    reader: impl Read + 'a,
    limits: &UnpackLimits,
) -> io::Result<Box<dyn Read + 'a>> {
    let packed = Rc::new(Cell::new(0));
    let mut counted = Counted {
        reader,
        count: Rc::clone(&packed),
    };
    let mut magic = Vec::new();
    counted
        .by_ref()
        .take(MAGIC_BYTES as u64)
        .read_to_end(&mut magic)?;
    let compression = compression(&magic);
    let whole = BufReader::new(io::Cursor::new(magic).chain(counted));
    let unpacked: Box<dyn Read + 'a> = match compression {
        Compression::Zstd => {
            let mut decoder = zstd::Decoder::with_buffer(whole)?;
            decoder.window_log_max(WINDOW_LOG_MAX)?;
            Box::new(decoder)
        }
        Compression::Gzip => Box::new(MultiGzDecoder::new(whole)),
        Compression::None => return Ok(Box::new(whole)),
    };
    Ok(Box::new(Proportionate {
        reader: unpacked,
        packed,
        unpacked: 0,
        ratio_max: limits.ratio_max,
    }))
}

/// Marks the error of [`Proportionate`], for [`super::stream`] to give it its own name.
#[derive(Debug, thiserror::Error)]
#[error("unpacks to more than {0} times its size")]
pub(super) struct OutOfProportion(pub(super) u64);

/// Counts the bytes read.
struct Counted<R> {
    reader: R,
    count: Rc<Cell<u64>>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let length = self.reader.read(buf)?;
        self.count.set(self.count.get() + length as u64);
        Ok(length)
    }
}

/// Fails when far more comes out than went in.
struct Proportionate<R> {
    reader: R,
    packed: Rc<Cell<u64>>,
    unpacked: u64,
    ratio_max: u64,
}

impl<R: Read> Read for Proportionate<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let length = self.reader.read(buf)?;
        self.unpacked += length as u64;
        let proportionate = self.packed.get().saturating_mul(self.ratio_max);
        if self.unpacked > proportionate.saturating_add(RATIO_FREE_BYTES) {
            return Err(io::Error::other(OutOfProportion(self.ratio_max)));
        }
        Ok(length)
    }
}
