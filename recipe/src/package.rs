//! A package directory as bytes: what the caller read from disk (or made up in a test), not yet looked at.
//!
//! Content of `files/` enters by digest and size only, so that nobody must hold 64 MiB in memory to hash a tree.
//! Names come as bytes: that they are UTF-8 and harmless is decided here, in [`crate::Recipe::parse`], once for all callers.

use base::Sha256;

/// The files of one `pkg/<name>/`, unparsed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PackageFiles {
    /// `build`, the script; `None` makes the package a seed.
    pub build: Option<FileBytes>,
    /// `build-deps`.
    pub build_deps: Option<Vec<u8>>,
    /// `run-deps`.
    pub run_deps: Option<Vec<u8>>,
    /// `fetch`.
    pub fetch: Option<Vec<u8>>,
    /// `check`, the script that tries the built package.
    pub check: Option<FileBytes>,
    /// `check-deps`.
    pub check_deps: Option<Vec<u8>>,
    /// Everything below `files/` that is no directory, in any order. Empty directories are not part of a recipe.
    pub files: Vec<FileEntry>,
    /// Names of whatever else lies in the directory. Hidden ones are ignored, the others become warnings.
    pub other: Vec<String>,
}

/// A file's bytes and whether its owner may execute it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileBytes {
    /// The execute bit of the owner.
    pub executable: bool,
    /// The content. Of a file above its limit in [`crate::limits`] only the first byte too many need be read.
    pub bytes: Vec<u8>,
}

/// One entry below `files/`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileEntry {
    /// The path below `files/`, with `/` between components.
    pub path: Vec<u8>,
    /// What lies there.
    pub content: FileContent,
}

/// What an entry below `files/` is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileContent {
    /// A regular file.
    Regular {
        /// The execute bit of the owner; no other permission counts.
        executable: bool,
        /// Digest of its bytes.
        digest: Sha256,
        /// Number of its bytes.
        size: u64,
    },
    /// A symbolic link, not followed.
    Symlink {
        /// Where it points.
        target: Vec<u8>,
    },
}

impl FileEntry {
    /// A regular file whose bytes are at hand.
    pub fn regular(path: impl Into<Vec<u8>>, executable: bool, bytes: &[u8]) -> Self {
        let digest = Sha256::of(bytes);
        let content = FileContent::Regular {
            executable,
            digest,
            size: bytes.len() as u64,
        };
        Self {
            path: path.into(),
            content,
        }
    }

    /// A symbolic link.
    pub fn symlink(path: impl Into<Vec<u8>>, target: impl Into<Vec<u8>>) -> Self {
        Self {
            path: path.into(),
            content: FileContent::Symlink {
                target: target.into(),
            },
        }
    }
}
