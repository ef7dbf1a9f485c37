//! Why a tree could not be packed, or an archive not be unpacked.

use std::io;
use std::path::{Path, PathBuf};

use crate::error::is_disk_full;

/// Every variant names the path or entry it is about. Names from archives are shown without control characters.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArchiveError {
    /// The operating system refused an operation.
    #[error("cannot {op} `{}`", path.display())]
    Io {
        /// Verb for what was tried.
        op: &'static str,
        /// On which path.
        path: PathBuf,
        /// The operating system's answer.
        #[source]
        source: io::Error,
    },
    /// No space or no quota left.
    #[error("no space left for `{}`", path.display())]
    DiskFull {
        /// What could not be written.
        path: PathBuf,
    },
    /// The archive's stream ended with an error, such as a failed decompression.
    #[error("cannot read `{archive}`")]
    Read {
        /// Which archive.
        archive: String,
        /// What went wrong.
        #[source]
        source: io::Error,
    },
    /// The archive could not be written to where the caller wanted it.
    #[error("cannot write the archive")]
    Write(#[source] io::Error),
    /// Not a tar archive, or one that is cut short or has something after its end.
    #[error("`{archive}` is malformed: {reason}")]
    Malformed {
        /// Which archive.
        archive: String,
        /// What is wrong.
        reason: &'static str,
    },
    /// An entry that we do not put on any disk.
    #[error("`{archive}` has the entry `{entry}`, which is refused: {reason}")]
    Refused {
        /// Which archive.
        archive: String,
        /// Which entry.
        entry: String,
        /// Why.
        reason: &'static str,
    },
    /// An archive larger than the caller's limits.
    #[error("`{archive}` is refused: {what} is over the limit of {max}")]
    TooLarge {
        /// Which archive.
        archive: String,
        /// Which measure.
        what: &'static str,
        /// The limit.
        max: u64,
    },
    /// Two archives have different things under one name.
    #[error("`{entry}` is in `{first}` and, differently, in `{second}`")]
    Conflict {
        /// The path.
        entry: String,
        /// Who brought it first.
        first: String,
        /// Who brought the other.
        second: String,
    },
    /// A file that has no place in a package.
    #[error("cannot pack `{}`: {reason}", path.display())]
    Unpackable {
        /// The file, relative to the packed directory.
        path: PathBuf,
        /// Why.
        reason: &'static str,
    },
    /// This program was linked with another compressor than the archive format demands.
    #[error("this program has zstd {found}, packing needs exactly {needed}")]
    Compressor {
        /// Version linked, as zstd writes it in one number.
        found: u32,
        /// Version of the format.
        needed: u32,
    },
}

impl ArchiveError {
    pub(super) fn io(op: &'static str, path: &Path, source: impl Into<io::Error>) -> Self {
        let source = source.into();
        if is_disk_full(&source) {
            return Self::DiskFull {
                path: path.to_owned(),
            };
        }
        Self::Io {
            op,
            path: path.to_owned(),
            source,
        }
    }
}

/// A name from an archive, fit for a terminal.
pub(super) fn shown(name: &[u8]) -> String {
    let mut text = String::new();
    for character in String::from_utf8_lossy(name).chars() {
        if character.is_control() {
            text.extend(character.escape_default());
        } else {
            text.push(character);
        }
    }
    text
}
