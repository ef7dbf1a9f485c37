//! Everything that can go wrong in the store, told apart by what the user can do about it.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

/// Why the store could not do what it was asked to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Another process held the index longer than we wait. Trying again later helps.
    #[error("store is busy: its index stayed locked for {waited_secs} seconds")]
    Busy {
        /// How long was waited, in seconds.
        waited_secs: u64,
    },
    /// No space or no quota left. Freeing space helps.
    #[error("no space left for `{}`{}", path.display(), available_note(*needed, *available))]
    DiskFull {
        /// What could not be written.
        path: PathBuf,
        /// How many bytes were needed, where that is known.
        needed: Option<u64>,
        /// How many bytes were free, where that is known.
        available: Option<u64>,
    },
    /// The store's own files contradict each other or cannot be read as what they are.
    #[error("store is corrupt: {what}")]
    Corrupt {
        /// What is wrong, and where.
        what: String,
        /// What found it.
        #[source]
        source: Option<Box<dyn Error + Send + Sync>>,
    },
    /// The store was made by another version of this program.
    #[error("store `{}` has layout {found}, this program knows layout {known}", root.display())]
    Layout {
        /// The store's directory.
        root: PathBuf,
        /// Layout version found on disk.
        found: i64,
        /// Layout version this program reads and writes.
        known: i64,
    },
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
    /// The index refused an operation for a reason that is none of the above.
    #[error("cannot use the index of the store")]
    Index(#[source] rusqlite::Error),
    /// Content is not what was expected. Nothing was stored.
    #[error("{what} does not match: expected `{expected}`, got `{got}`")]
    Mismatch {
        /// Which property: `sha256`, `size`, `root`.
        what: &'static str,
        /// What was asked for.
        expected: String,
        /// What came.
        got: String,
    },
    /// The store may not grow so far. Pinning less, or another quota, helps.
    #[error(
        "store is over its quota of {quota} bytes: {needed} needed, {kept} are pinned or in use"
    )]
    QuotaExceeded {
        /// The limit in bytes.
        quota: u64,
        /// How many bytes were to be added.
        needed: u64,
        /// How many bytes cannot go.
        kept: u64,
    },
    /// Somebody wrote to a file while it was read. Nothing was stored.
    #[error("`{}` changed while it was read", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// An object is larger, or more numerous, than the store takes.
    #[error("{what} of {size} is over the limit of {max}")]
    TooLarge {
        /// Which object.
        what: &'static str,
        /// Its size or number.
        size: u64,
        /// The limit.
        max: u64,
    },
}

impl StoreError {
    /// Wraps an answer of the operating system, recognising a full disk.
    pub(crate) fn io(op: &'static str, path: &Path, source: io::Error) -> Self {
        if is_disk_full(&source) {
            return Self::DiskFull {
                path: path.to_owned(),
                needed: None,
                available: None,
            };
        }
        Self::Io {
            op,
            path: path.to_owned(),
            source,
        }
    }

    pub(crate) fn corrupt(what: impl Into<String>) -> Self {
        Self::Corrupt {
            what: what.into(),
            source: None,
        }
    }
}

/// Whether an error means that the disk or the quota is used up.
pub(crate) fn is_disk_full(error: &io::Error) -> bool {
    [Errno::NOSPC, Errno::DQUOT]
        .iter()
        .any(|full| error.raw_os_error() == Some(full.raw_os_error()))
}

fn available_note(needed: Option<u64>, available: Option<u64>) -> String {
    match (needed, available) {
        (Some(needed), Some(available)) => format!(": {needed} bytes needed, {available} free"),
        _ => String::new(),
    }
}
