//! Holds: what a living process needs is not collected, though nobody has pinned it.
//!
//! A build finds its inputs, works for an hour and then opens them; what it fetched meanwhile is nobody's but its own. Such
//! a process works with a handle of [`Store::holding`], which writes the digest of everything it looks up, opens or takes
//! in to a file of its own. The file is locked, and the system drops the lock with the process: a hold cannot outlive its
//! owner, be it killed. Rows of the index would need a commit for each and somebody to tell whether their owner lives.
//!
//! The collector reads these files inside its transaction. Who holds a blob writes the file first and then looks into the
//! index inside a transaction: one of the two sees the other.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::sync::{Arc, Mutex, PoisonError};

use base::Sha256;
use rustix::fs::{FlockOperation, flock};
use tempfile::NamedTempFile;

use crate::layout::{Layout, locked_file};
use crate::{Store, StoreError};

/// What one handle holds, with its clones.
#[derive(Debug)]
pub(crate) struct Hold(Mutex<Held>);

#[derive(Debug)]
struct Held {
    file: NamedTempFile,
    known: HashSet<Sha256>,
}

impl Store {
    /// A handle for work that takes its time: whatever it looks up, opens or takes in stays until it and its clones are
    /// dropped, or their process ends.
    ///
    /// # Errors
    /// [`StoreError`] when the file that says so cannot be made.
    pub fn holding(&self) -> Result<Self, StoreError> {
        let file = locked_file(&self.layout.holds, "hold-")?;
        let known = HashSet::new();
        Ok(Self {
            hold: Some(Arc::new(Hold(Mutex::new(Held { file, known })))),
            ..self.clone()
        })
    }

    /// Holds a blob; `true` when this handle holds things and did not hold this one before.
    pub(crate) fn hold(&self, sha256: &Sha256) -> Result<bool, StoreError> {
        self.hold_all(std::slice::from_ref(sha256))
    }

    /// Holds blobs; `true` when this handle holds things and did not hold all of these before.
    pub(crate) fn hold_all(&self, digests: &[Sha256]) -> Result<bool, StoreError> {
        let Some(hold) = &self.hold else {
            return Ok(false);
        };
        // A panic between the two changes below leaves a line too many, which harms nobody.
        let mut held = hold.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new = |sha256: &&Sha256| !held.known.contains(*sha256);
        let mut lines = String::new();
        for sha256 in digests.iter().filter(is_new) {
            lines.push_str(&sha256.to_hex());
            lines.push('\n');
        }
        if lines.is_empty() {
            return Ok(false);
        }
        let written = held.file.as_file_mut().write_all(lines.as_bytes());
        written.map_err(|e| StoreError::io("write", held.file.path(), e))?;
        held.known.extend(digests);
        Ok(true)
    }
}

/// Everything that living processes hold. Files of dead ones are removed.
pub(crate) fn all_held(layout: &Layout) -> Result<HashSet<Sha256>, StoreError> {
    let failed = |e| StoreError::io("read", &layout.holds, e);
    let mut held = HashSet::new();
    for entry in fs::read_dir(&layout.holds).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            Err(e) => return Err(StoreError::io("open", &path, e)),
        };
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() {
            let _ = fs::remove_file(&path);
            continue;
        }
        let mut text = String::new();
        file.read_to_string(&mut text)
            .map_err(|e| StoreError::io("read", &path, e))?;
        // A line that is being written is no hold yet: its owner has still to look into the index.
        held.extend(text.lines().filter_map(|line| line.parse::<Sha256>().ok()));
    }
    Ok(held)
}
