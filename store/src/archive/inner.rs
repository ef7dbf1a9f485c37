//! What lies within an archive's compression: how it is packed, and the digest of the tar stream inside.

use std::io::{self, Read};

use base::{Hasher, Sha256};

use super::{ArchiveError, UnpackLimits, compress};

/// How an archive is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Zstandard, as all that is built is packed.
    Zstd,
    /// Gzip, as some seeds are.
    Gzip,
    /// Not at all.
    None,
}

/// The tar stream inside an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inner {
    /// How it was packed.
    pub compression: Compression,
    /// Its SHA-256: what an OCI image calls the layer's `diff_id`.
    pub sha256: Sha256,
    /// Its length in bytes.
    pub size: u64,
}

/// Reads an archive to its end and tells of the tar stream inside; that it is one is not looked at.
///
/// # Errors
/// [`ArchiveError`] when it cannot be read, or unpacks to more than the limits allow.
pub fn inner(mut reader: impl Read, limits: &UnpackLimits) -> Result<Inner, ArchiveError> {
    let read_error = |source| ArchiveError::Read {
        archive: "archive".to_owned(),
        source,
    };
    let mut magic = Vec::new();
    let head = compress::MAGIC_BYTES as u64;
    reader
        .by_ref()
        .take(head)
        .read_to_end(&mut magic)
        .map_err(read_error)?;
    let compression = compress::compression(&magic);
    let whole = io::Cursor::new(magic).chain(reader);
    let tar = compress::decoder(whole, limits).map_err(read_error)?;
    let mut hasher = Hashing(Hasher::new());
    let mut bounded = tar.take(limits.bytes_max.saturating_add(1));
    let size = io::copy(&mut bounded, &mut hasher).map_err(read_error)?;
    if size > limits.bytes_max {
        return Err(ArchiveError::TooLarge {
            archive: "archive".to_owned(),
            what: "unpacked size in bytes",
            max: limits.bytes_max,
        });
    }
    let sha256 = hasher.0.finish();
    Ok(Inner {
        compression,
        sha256,
        size,
    })
}

struct Hashing(Hasher);

impl io::Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
