//! What lies within an archive's compression: how it is packed, the digest of the tar stream inside, and what is in it.

use std::io::{self, Read};

use base::{Hasher, Sha256};

use super::list::entries;
use super::stream::TarReader;
use super::{ArchiveError, Entry, UnpackLimits, compress};

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
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inner {
    /// How it was packed.
    pub compression: Compression,
    /// Its SHA-256: what an OCI image calls the layer's `diff_id`.
    pub sha256: Sha256,
    /// Its entries.
    pub entries: Vec<Entry>,
}

/// Reads an archive to its end, once, and tells of the tar stream inside.
///
/// # Errors
/// [`ArchiveError`] naming the entry and the reason, as of [`super::list`].
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
    let mut tar = Hashing {
        reader: compress::decoder(whole, limits).map_err(read_error)?,
        hasher: Hasher::new(),
    };
    let entries = entries(&mut TarReader::of_tar("archive", &mut tar, limits))?;
    Ok(Inner {
        compression,
        sha256: tar.hasher.finish(),
        entries,
    })
}

struct Hashing<R> {
    reader: R,
    hasher: Hasher,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.reader.read(buffer)?;
        self.hasher.update(&buffer[..n]);
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use crate::archive::pack;

    fn packed() -> Vec<u8> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("file"), "bytes").unwrap();
        let mut archive = Vec::new();
        pack(dir.path(), &mut archive).unwrap();
        archive
    }

    fn of(archive: &[u8]) -> Result<Inner, ArchiveError> {
        inner(archive, &UnpackLimits::default())
    }

    #[test]
    fn the_same_tar_is_inside_however_it_is_compressed() {
        let zstd = packed();
        let tar = zstd::decode_all(&zstd[..]).unwrap();
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&tar).unwrap();
        let gzip = gzip.finish().unwrap();
        for (archive, compression) in [
            (&zstd, Compression::Zstd),
            (&gzip, Compression::Gzip),
            (&tar, Compression::None),
        ] {
            let inner = of(archive).unwrap();
            assert_eq!(inner.compression, compression);
            assert_eq!(inner.sha256, Sha256::of(&tar));
            assert_eq!(inner.entries[0].path, b"file");
        }
    }

    #[test]
    fn what_is_compressed_twice_or_cut_is_no_archive() {
        let zstd = packed();
        assert!(of(&zstd::encode_all(&zstd[..], 1).unwrap()).is_err());
        let tar = zstd::decode_all(&zstd[..]).unwrap();
        assert!(of(&tar[..tar.len() / 2]).is_err());
        assert!(of(b"no tar").is_err());
    }
}
