//! Listing archives, and merging several into one.

use std::io::{Read, Write};
use std::path::Path;

use base::Hasher;

use super::stream::TarReader;
use super::{ArchiveError, Conflicts, Entry, EntryKind, Summary, UnpackLimits, Unpacker, pack};

/// Piece in which files are hashed, in bytes.
const READ_BYTES: usize = 128 << 10;

/// Lists an archive in its own order, with the digest of every file.
///
/// # Errors
/// [`ArchiveError`] naming the entry and the reason.
pub fn list(reader: impl Read, limits: &UnpackLimits) -> Result<Vec<Entry>, ArchiveError> {
    entries(&mut TarReader::new("archive", reader, limits)?)
}

/// Lists what is in a tar stream, which is read to its end.
pub(super) fn entries(tar: &mut TarReader<'_>) -> Result<Vec<Entry>, ArchiveError> {
    let mut entries = Vec::new();
    let mut buffer = vec![0; READ_BYTES];
    while let Some(entry) = tar.next_entry()? {
        let mut hasher = Hasher::new();
        loop {
            match tar.read(&mut buffer).map_err(|e| tar.read_error(e))? {
                0 => break,
                length => hasher.update(&buffer[..length]),
            }
        }
        let sha256 = (entry.kind == EntryKind::File).then(|| hasher.finish());
        if !entry.path.is_empty() {
            let (path, kind) = (entry.path, entry.kind);
            entries.push(Entry {
                path,
                kind,
                mode: entry.mode,
                size: entry.size,
                sha256,
            });
        }
    }
    Ok(entries)
}

/// Packs the union of several archives as a canonical archive, by way of the empty directory `scratch`. The order of the
/// archives does not change the result.
///
/// # Errors
/// [`ArchiveError`] naming the entry and the reason; two different things under one name are one.
pub fn merge<R: Read>(
    archives: Vec<(String, R)>,
    scratch: &Path,
    limits: &UnpackLimits,
    writer: impl Write,
) -> Result<Summary, ArchiveError> {
    let mut unpacker = Unpacker::new(scratch, limits, Conflicts::Refuse)?;
    for (name, reader) in archives {
        unpacker.unpack(&name, reader)?;
    }
    pack(scratch, writer)
}
