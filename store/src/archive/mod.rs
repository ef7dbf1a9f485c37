//! Package archives.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use base::Sha256;

/// Seconds since 1970 that every entry of a canonical archive carries: 2021-01-01T00:00:00Z, as upstream sets it.
pub const MTIME_UNIX_SECS: u64 = 1_609_459_200;

/// What an archive holds, in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// How many entries.
    pub entries: u64,
    /// Sum of the sizes of all regular files, in bytes.
    pub unpacked_bytes: u64,
}

/// One entry of an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its path, relative, bytes as they stand in the archive without a trailing slash.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: EntryKind,
    /// Permission bits.
    pub mode: u32,
    /// Length in bytes; 0 for everything but regular files.
    pub size: u64,
    /// SHA-256 of a regular file's bytes.
    pub sha256: Option<Sha256>,
}

/// Kinds of entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link to this target.
    Symlink(Vec<u8>),
    /// A hard link to this earlier entry.
    HardLink(Vec<u8>),
}

/// Bounds on what an archive may make of our disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnpackLimits {
    /// Most entries.
    pub entries_max: u64,
    /// Most bytes in all files together.
    pub bytes_max: u64,
    /// Most unpacked bytes for one packed byte, judged once the archive has grown beyond a small allowance.
    pub ratio_max: u64,
    /// Longest path or link target in bytes.
    pub path_bytes_max: usize,
    /// Most path components.
    pub depth_max: usize,
}

impl Default for UnpackLimits {
    fn default() -> Self {
        Self {
            entries_max: 1_000_000,
            bytes_max: 64 << 30,
            ratio_max: 1000,
            path_bytes_max: 4096,
            depth_max: 64,
        }
    }
}

/// Why a tree could not be packed or an archive not be unpacked.
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
        source: std::io::Error,
    },
}

/// What happens when two archives unpacked into one directory hold different files under one name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Conflicts {
    /// An error that names both archives. The same bytes twice are no conflict.
    #[default]
    Refuse,
    /// The later archive wins, as upstream's overlays do.
    Overlay,
}

/// Unpacks archives into one directory, hostile-safe.
#[derive(Debug)]
pub struct Unpacker {
    dest: PathBuf,
}

impl Unpacker {
    /// Unpacks below `dest`, which must exist.
    ///
    /// # Errors
    /// [`ArchiveError`] when `dest` cannot be opened.
    pub fn new(
        dest: &Path,
        limits: &UnpackLimits,
        conflicts: Conflicts,
    ) -> Result<Self, ArchiveError> {
        let _ = (limits, conflicts);
        Ok(Self {
            dest: dest.to_owned(),
        })
    }

    /// Unpacks one archive (`.tar.zst`, `.tar.gz` or `.tar`, told by its first bytes); `name` is for error messages.
    ///
    /// # Errors
    /// [`ArchiveError`] naming the entry and the reason.
    pub fn unpack(&mut self, name: &str, reader: impl Read) -> Result<Summary, ArchiveError> {
        let _ = (name, reader, &self.dest);
        Ok(Summary::default())
    }
}

/// Unpacks one archive below `dest`, which must exist.
///
/// # Errors
/// [`ArchiveError`] naming the entry and the reason.
pub fn unpack(
    reader: impl Read,
    dest: &Path,
    limits: &UnpackLimits,
) -> Result<Summary, ArchiveError> {
    Unpacker::new(dest, limits, Conflicts::Refuse)?.unpack("archive", reader)
}

/// Packs a directory as a canonical `.tar.zst`.
///
/// # Errors
/// [`ArchiveError`] naming the path and the reason.
pub fn pack(dir: &Path, writer: impl Write) -> Result<Summary, ArchiveError> {
    let _ = (dir, writer);
    Ok(Summary::default())
}

/// Lists an archive.
///
/// # Errors
/// [`ArchiveError`] naming the entry and the reason.
pub fn list(reader: impl Read, limits: &UnpackLimits) -> Result<Vec<Entry>, ArchiveError> {
    let _ = (reader, limits);
    Ok(Vec::new())
}

/// Packs the union of several archives as a canonical archive, by way of the empty directory `scratch`.
///
/// # Errors
/// [`ArchiveError`] naming the entry and the reason; two different files under one name are one.
pub fn merge<R: Read>(
    archives: Vec<(String, R)>,
    scratch: &Path,
    limits: &UnpackLimits,
    writer: impl Write,
) -> Result<Summary, ArchiveError> {
    let _ = (archives, scratch, limits, writer);
    Ok(Summary::default())
}
