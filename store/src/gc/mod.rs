//! Collecting what nobody needs: first a plan, then its removal in small batches.
//!
//! Everything that is not pinned is a cache. A batch is one short transaction, so readers never wait and writers wait for
//! one batch at most; between two batches the collector leaves the index to others for half as long as it had it. Each blob is
//! judged again inside the transaction, for what was planned may have been pinned, held or used since.
//!
//! The rows go first and the file afterwards, under the same lock: a process killed in between leaves a file that nobody
//! knows of, and a temporary file whose lock is free, which tells the next opening to look for such.

mod plan;

use std::fs::{self, File};
use std::io;
use std::path::PathBuf;
use std::thread;
use std::time::{Instant, SystemTime};

use base::Sha256;
use rusqlite::Transaction;
use rustix::fs::{FlockOperation, flock};

pub use plan::{Entry, Goal, Order, Plan, Stays, plan};

use crate::blob::BlobRow;
use crate::forget::{forget_blob, forget_keys};
use crate::hold::all_held;
use crate::index::{from_sql, to_sql};
use crate::layout::{locked_file, remove_if_there};
use crate::loose::{forget_loose, parts_of};
use crate::partial::{Unfinished, leaving};
use crate::{Store, StoreError, crash};

/// Most blobs of a batch: tens of milliseconds of work, so that the commit at its end is paid by many.
const BATCH_BLOBS: usize = 256;
/// Most bytes of a batch: what bounds the rows of chunks, one for each MiB.
const BATCH_BYTES: u64 = 4 << 30;

/// What a collection removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// The blobs and loose blocks that went.
    pub removed: Vec<Entry>,
    /// Those that were planned to go and stayed, because somebody needed them meanwhile.
    pub spared: usize,
    /// The unfinished fetches that went.
    pub unfinished: Vec<Unfinished>,
}

impl Collected {
    /// Bytes that were freed.
    pub fn freed_bytes(&self) -> u64 {
        let unfinished: u64 = self.unfinished.iter().map(|gone| gone.bytes).sum();
        self.removed.iter().map(|entry| entry.bytes).sum::<u64>() + unfinished
    }
}

/// A blob on its way out.
struct Leaving {
    entry: Entry,
    /// Its file with the lock that keeps others from relying on it; `None` when the file is not ours or not there.
    file: Option<(PathBuf, File)>,
}

impl Store {
    /// What a collection would remove now. `rarity` tells how many others have a blob, where that is known; where it says
    /// nothing, what was heard of the blob's keys counts, of the rarer one.
    ///
    /// # Errors
    /// [`StoreError`] when the index or the holds could not be read.
    pub fn plan_collection(
        &self,
        goal: &Goal,
        rarity: &dyn Fn(&Sha256) -> Option<u32>,
    ) -> Result<Plan, StoreError> {
        self.index.write_uses();
        let mut held = all_held(&self.layout)?;
        held.extend(self.index.read(|c| parts_of(c, &held))?);
        let entry = |row: &rusqlite::Row<'_>| {
            let sha256 = Sha256::from_bytes(row.get(0)?);
            Ok(Entry {
                sha256,
                is_block: row.get(5)?,
                bytes: from_sql(row.get(1)?),
                used_unix_hours: from_sql(row.get(2)?),
                providers: rarity(&sha256).or(row.get(4)?),
                is_pinned: row.get(3)?,
                is_in_use: held.contains(&sha256),
            })
        };
        let entries = self.index.read(|connection| {
            connection
                .prepare_cached(
                    "SELECT sha256, iif(path IS NULL, size, 0), used,
                     EXISTS (SELECT 1 FROM pin WHERE pin.sha256 = blob.sha256),
                     (SELECT min(others) FROM provide WHERE hash IN (blob.sha256, blob.root)),
                     0
                     FROM blob
                     UNION ALL SELECT hash, size, used,
                     EXISTS (SELECT 1 FROM loose_part JOIN pin ON pin.sha256 = whole
                             WHERE loose_part.hash = loose.hash),
                     (SELECT min(others) FROM provide WHERE provide.hash = loose.hash),
                     1
                     FROM loose",
                )?
                .query_map([], entry)?
                .collect()
        })?;
        let unfinished = leaving(self.unfinished(), goal, SystemTime::now());
        let freed: u64 = unfinished.iter().map(|gone| gone.bytes).sum();
        let rest = Goal {
            free_bytes: goal.free_bytes.map(|wanted| wanted.saturating_sub(freed)),
            ..*goal
        };
        Ok(Plan {
            unfinished,
            ..plan(entries, &rest)
        })
    }

    /// Removes what a plan says, except for what somebody needs by now. Stops between two batches when it is cancelled.
    ///
    /// # Errors
    /// [`StoreError`] when the index or a file could not be changed; what was removed until then stays removed.
    pub fn collect(
        &self,
        plan: &Plan,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Collected, StoreError> {
        let mut unfinished = Vec::new();
        for gone in &plan.unfinished {
            if self.remove_unfinished(gone)? {
                unfinished.push(gone.clone());
            }
        }
        if plan.remove.is_empty() {
            return Ok(Collected {
                unfinished,
                ..Collected::default()
            });
        }
        // Its presence without its lock tells the next opening that a collection was cut short.
        let trace = locked_file(&self.layout.temporary, "gc-")?;
        let result = self.remove_in_batches(plan, cancelled);
        if result.is_err() {
            // Files may lie there that the index does not know any more.
            let _ = trace.keep();
        }
        result.map(|collected| Collected {
            unfinished,
            ..collected
        })
    }

    fn remove_in_batches(
        &self,
        plan: &Plan,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Collected, StoreError> {
        let mut collected = Collected::default();
        let mut rest = &plan.remove[..];
        while !rest.is_empty() && !cancelled() {
            let (batch, more) = rest.split_at(batch_length(rest));
            let started = Instant::now();
            let gone = self.remove_batch(batch)?;
            let had_it = started.elapsed();
            collected.spared += batch.len() - gone.len();
            collected.removed.extend(gone);
            rest = more;
            if !rest.is_empty() {
                // Waiting for SQLite's lock is a lottery: who takes it again at once always wins.
                thread::sleep(had_it / 2);
            }
        }
        Ok(collected)
    }

    fn remove_batch(&self, batch: &[Entry]) -> Result<Vec<Entry>, StoreError> {
        let leaving = self.index.write(|transaction| {
            let mut held = all_held(&self.layout)?;
            held.extend(parts_of(transaction, &held)?);
            let mut leaving = Vec::new();
            for entry in batch.iter().filter(|entry| !held.contains(&entry.sha256)) {
                leaving.extend(self.forget(transaction, entry)?);
            }
            crash::point("forgetting");
            Ok(leaving)
        })?;
        crash::point("forgotten");
        let moved = self.move_out(&leaving)?;
        crash::point("moved");
        for path in moved {
            remove_if_there(&path)?;
        }
        Ok(leaving.into_iter().map(|leaving| leaving.entry).collect())
    }

    /// Removes the rows of a blob or a loose block unless it is needed.
    fn forget(
        &self,
        transaction: &Transaction<'_>,
        entry: &Entry,
    ) -> Result<Option<Leaving>, StoreError> {
        if entry.is_block {
            let is_gone = forget_loose(transaction, entry)?;
            let file = None;
            return Ok(is_gone.then_some(Leaving {
                entry: *entry,
                file,
            }));
        }
        let Some(row) = BlobRow::find(transaction, &entry.sha256)? else {
            return Ok(None);
        };
        let is_pinned = transaction
            .prepare_cached("SELECT 1 FROM pin WHERE sha256 = ?1")?
            .exists([entry.sha256.as_bytes()])?;
        if is_pinned || row.used > to_sql(entry.used_unix_hours) {
            return Ok(None);
        }
        let mut file = None;
        if row.reference.is_none() {
            let path = row.file(&self.layout);
            match File::open(&path) {
                Ok(open) => {
                    // Readers have a shared lock on it, and who takes it in an exclusive one.
                    if flock(&open, FlockOperation::NonBlockingLockExclusive).is_err() {
                        return Ok(None);
                    }
                    file = Some((path, open));
                }
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(StoreError::io("open", &path, e)),
            }
        }
        forget_blob(transaction, &row)?;
        forget_keys(transaction, &row.blob)?;
        transaction
            .prepare_cached("DELETE FROM note WHERE sha256 = ?1")?
            .execute([entry.sha256.as_bytes()])?;
        Ok(Some(Leaving {
            entry: *entry,
            file,
        }))
    }

    /// Takes the files from among the blobs, unless the same content was taken in again since its rows went. Removing a
    /// large file takes the file system a while, so that comes later, outside the lock.
    fn move_out(&self, leaving: &[Leaving]) -> Result<Vec<PathBuf>, StoreError> {
        self.index.write(|transaction| {
            let mut moved = Vec::new();
            for leaving in leaving {
                let Some((path, _lock)) = &leaving.file else {
                    continue;
                };
                let sha256 = &leaving.entry.sha256;
                if BlobRow::find(transaction, sha256)?.is_some() {
                    continue;
                }
                let to = self.layout.temporary.join(format!("gone-{sha256}"));
                match fs::rename(path, &to) {
                    Ok(()) => moved.push(to),
                    Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                    Err(e) => return Err(StoreError::io("move", path, e)),
                }
            }
            Ok(moved)
        })
    }
}

/// How many of these make a batch.
fn batch_length(entries: &[Entry]) -> usize {
    let mut bytes = 0u64;
    let fitting = entries.iter().take(BATCH_BLOBS).take_while(|entry| {
        bytes = bytes.saturating_add(entry.bytes);
        bytes <= BATCH_BYTES
    });
    fitting.count().max(1)
}
