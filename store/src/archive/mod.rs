//! Package archives: canonical `.tar.zst` out, hostile-safe extraction in.
//!
//! **Packing**, archive format 1: the bytes depend on paths, contents, link targets and the executable bit, and on
//! nothing else. Entries are sorted bytewise by path; times, owners and permissions are normalised; hard links become
//! copies, as in Nix archives, because which files share an inode is an accident of the build. Long paths use GNU's
//! extension and not PAX: it carries any bytes, and the small tars (BusyBox) read it too. The compressor, its level
//! and its exact version belong to the format; a golden test holds the bytes.
//!
//! **Unpacking** trusts nothing: not the archive's paths, links, sizes, nor what lies in the destination already.

mod beneath;
mod compress;
mod error;
mod inner;
mod list;
mod pack;
mod path;
mod raw;
mod stream;
#[cfg(test)]
mod tests;
mod unpack;

use base::Sha256;

pub use error::ArchiveError;
pub use inner::{Compression, Inner, inner};
pub use list::{list, merge};
pub use pack::pack;
pub(crate) use raw::{packer, unpack_tar};
pub use unpack::{Conflicts, Unpacker, unpack};

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
    /// Its path, relative, without `.` components and trailing slash; otherwise the bytes of the archive.
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

/// Bounds on what an archive may make of our disk and memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnpackLimits {
    /// Most entries.
    pub entries_max: u64,
    /// Most bytes in all files together.
    pub bytes_max: u64,
    /// Most unpacked bytes for one packed byte, judged once the archive has grown beyond 64 MiB.
    pub ratio_max: u64,
    /// Longest path or link target in bytes.
    pub path_bytes_max: usize,
    /// Most components of a path.
    pub depth_max: usize,
    /// Whether symbolic links may have absolute targets. They are right in a tree that will be seen as a root
    /// (libc's loader is one in every distribution) and lead out of the destination everywhere else. Unpacking
    /// itself follows no link, so this is about what the files will be used for.
    pub allow_absolute_links: bool,
}

impl Default for UnpackLimits {
    fn default() -> Self {
        Self {
            // Ten times the largest package of the field (a TeX tree), and 100 MB of our memory.
            entries_max: 1_000_000,
            // Four times the largest unpacked package of the field (a GPU toolkit, 16 GiB).
            bytes_max: 64 << 30,
            // Zstandard reaches about 30 000 on zeros and 100 on the most repetitive text; sparse images are no packages.
            ratio_max: 1000,
            // Linux's PATH_MAX.
            path_bytes_max: 4096,
            // Twice the deepest source tree in the field (nested JavaScript dependencies).
            depth_max: 64,
            allow_absolute_links: false,
        }
    }
}
