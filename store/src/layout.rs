//! Where things lie below the store's directory, and the few file operations that must survive a crash.
//!
//! `index.sqlite` knows everything; `blobs/<sha256>` are the files it speaks of, read-only; `tmp/` holds files on their
//! way in, each locked by its writer; `partial/` what was fetched of files that are not complete; `holds/` what living processes need, likewise; `damaged/` what failed a check; `lock`
//! keeps two openings apart.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use base::Sha256;
use rustix::fs::{FileType, FlockOperation, Stat, flock};
use tempfile::NamedTempFile;

use crate::StoreError;

/// How often making a locked file is tried when a cleaner catches it between creation and lock.
const CREATE_ATTEMPTS: usize = 16;

/// How the journal of a partial is told from its bytes.
pub(crate) const JOURNAL_SUFFIX: &str = ".blocks";

/// Paths of a store.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    pub(crate) root: PathBuf,
    pub(crate) blobs: PathBuf,
    pub(crate) temporary: PathBuf,
    pub(crate) damaged: PathBuf,
    pub(crate) holds: PathBuf,
    pub(crate) partials: PathBuf,
}

impl Layout {
    pub(crate) fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            blobs: root.join("blobs"),
            temporary: root.join("tmp"),
            damaged: root.join("damaged"),
            holds: root.join("holds"),
            partials: root.join("partial"),
        }
    }

    pub(crate) fn index(&self) -> PathBuf {
        self.root.join("index.sqlite")
    }

    pub(crate) fn lock(&self) -> PathBuf {
        self.root.join("lock")
    }

    pub(crate) fn blob(&self, sha256: &Sha256) -> PathBuf {
        self.blobs.join(sha256.to_hex())
    }

    pub(crate) fn damaged(&self, sha256: &Sha256) -> PathBuf {
        self.damaged.join(sha256.to_hex())
    }

    /// The bytes of a partial.
    pub(crate) fn partial(&self, name: &str) -> PathBuf {
        self.partials.join(name)
    }

    /// What a partial has.
    pub(crate) fn journal(&self, name: &str) -> PathBuf {
        self.partials.join(format!("{name}{JOURNAL_SUFFIX}"))
    }

    /// Makes the directories that are missing.
    pub(crate) fn create(&self) -> Result<(), StoreError> {
        let parts = [
            &self.blobs,
            &self.temporary,
            &self.damaged,
            &self.holds,
            &self.partials,
        ];
        for dir in [&self.root].into_iter().chain(parts) {
            fs::create_dir_all(dir).map_err(|e| StoreError::io("create", dir, e))?;
        }
        sync_dir(&self.root)
    }

    /// The files of a directory whose writers are dead, each locked as long as it is returned.
    ///
    /// A writer holds a lock on its file, which the system drops with the process: no process ids, which are used again
    /// and mean different things in different containers.
    pub(crate) fn stale(dir: &Path) -> Result<Vec<(PathBuf, File)>, StoreError> {
        let failed = |e| StoreError::io("read", dir, e);
        let mut stale = Vec::new();
        for entry in fs::read_dir(dir).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            // Gone since it was listed, or not a file that a writer could have made: not ours to judge.
            let Ok(file) = File::open(&path) else {
                continue;
            };
            if flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() {
                stale.push((path, file));
            }
        }
        Ok(stale)
    }
}

/// Removes a file that may be gone already.
pub(crate) fn remove_if_there(path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(StoreError::io("remove", path, e)),
        _ => Ok(()),
    }
}

/// A new file in a directory, with the lock that says its writer lives. It goes when it is dropped.
pub(crate) fn locked_file(dir: &Path, prefix: &str) -> Result<NamedTempFile, StoreError> {
    for _ in 0..CREATE_ATTEMPTS {
        let file = tempfile::Builder::new()
            .prefix(prefix)
            .tempfile_in(dir)
            .map_err(|e| StoreError::io("create a file in", dir, e))?;
        // A cleaner that saw the file before it was locked holds the lock now, or has removed the file.
        let is_locked = flock(file.as_file(), FlockOperation::NonBlockingLockExclusive).is_ok();
        if is_locked && file.path().exists() {
            return Ok(file);
        }
    }
    Err(StoreError::Busy { waited_secs: 0 })
}

/// What tells that a file was not touched since it was checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) size: u64,
    pub(crate) mtime_ns: i64,
    pub(crate) inode: u64,
}

impl Stamp {
    /// As [`Self::of`]; `None` for what is no file.
    pub(crate) fn of_stat(stat: &Stat) -> Option<Self> {
        let is_file = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
        is_file.then(|| Self {
            size: stat.st_size.unsigned_abs(),
            mtime_ns: stat
                .st_mtime
                .saturating_mul(1_000_000_000)
                .saturating_add_unsigned(stat.st_mtime_nsec),
            inode: stat.st_ino,
        })
    }

    pub(crate) fn of(metadata: &fs::Metadata) -> Self {
        let mtime_ns = metadata
            .mtime()
            .saturating_mul(1_000_000_000)
            .saturating_add(metadata.mtime_nsec());
        Self {
            size: metadata.len(),
            mtime_ns,
            inode: metadata.ino(),
        }
    }
}

/// Makes names in a directory durable.
pub(crate) fn sync_dir(dir: &Path) -> Result<(), StoreError> {
    File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(|e| StoreError::io("synchronise", dir, e))
}
