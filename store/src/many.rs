//! Questions about many things at once: of ten thousand packages that are all here, each costs one look at its file and no
//! locks.
//!
//! What is asked for is looked up in the order of the index, in one transaction, so each page of it is read once. An answer
//! means what the one to a single question means: the index has a row, and the file is as it was when it was hashed. Where it
//! is not, the single question is asked, which hashes the file, or moves it aside.

use std::fs::File;
use std::path::PathBuf;
use std::thread;

use base::{PkgHash, Sha256, SignedRealisation};
use rusqlite::Connection;
use rustix::fs::{AtFlags, statat};

use crate::blob::BlobRow;
use crate::layout::Stamp;
use crate::records::{decode, realisations};
use crate::{Blob, Store, StoreError};

/// Threads that look at files at the same time; disks take more, but gain little by it.
const THREADS: usize = 8;
/// Files for which a thread is not worth its while.
const FILES_PER_THREAD: usize = 256;

impl Store {
    /// As [`Store::blob`] for each of these, in their order; those that are here count as used now.
    ///
    /// # Errors
    /// [`StoreError`] when the index or a file could not be read.
    pub fn blobs_of(&self, digests: &[Sha256]) -> Result<Vec<Option<Blob>>, StoreError> {
        // Held first, looked for then, and so that a collector is waited for: see the hold's own text.
        let rows = if self.hold_all(digests)? {
            self.index
                .write(|transaction| Ok(rows(transaction, digests)?))?
        } else {
            self.index
                .read_together(|connection| rows(connection, digests))?
        };
        let dir = self.open_blobs()?;
        let unchanged = all_unchanged(&dir, &rows);
        let check = |(row, unchanged): (Option<BlobRow>, bool)| match row {
            None => Ok(None),
            Some(row) if unchanged => {
                self.index.note_use(row.id, row.used);
                Ok(Some(row.blob))
            }
            Some(row) => self.blob(&row.blob.sha256),
        };
        rows.into_iter().zip(unchanged).map(check).collect()
    }

    /// Where the files of these blobs lie, in their order; `None` for one that is not here. That they are right is not asked:
    /// whoever wants to know has found them before.
    ///
    /// # Errors
    /// [`StoreError`] when the index or the folder could not be read.
    pub fn paths_of(&self, digests: &[Sha256]) -> Result<Vec<Option<PathBuf>>, StoreError> {
        let dir = self.open_blobs()?;
        let own = |sha256: &Sha256| stamp(&dir, sha256).map(|_| self.layout.blob(sha256));
        let path = |sha256: &Sha256| match own(sha256) {
            Some(path) => Ok(Some(path)),
            None => self.reference(sha256),
        };
        digests.iter().map(path).collect()
    }

    fn open_blobs(&self) -> Result<File, StoreError> {
        let dir = &self.layout.blobs;
        File::open(dir).map_err(|e| StoreError::io("open", dir, e))
    }

    /// As [`Store::realisations`] for each of these packages, in their order.
    ///
    /// # Errors
    /// [`StoreError`] when the index could not be read.
    pub fn realisations_of(
        &self,
        packages: &[PkgHash],
    ) -> Result<Vec<Vec<SignedRealisation>>, StoreError> {
        let found = self.index.read_together(|connection| {
            in_order(packages, |pkghash| realisations(connection, pkghash))
        })?;
        let decode = |(rows, pkghash)| decode(rows, pkghash);
        found.into_iter().zip(packages).map(decode).collect()
    }
}

fn rows(connection: &Connection, digests: &[Sha256]) -> rusqlite::Result<Vec<Option<BlobRow>>> {
    in_order(digests, |sha256| BlobRow::find(connection, sha256))
}

/// The answers in the order of the questions, which are asked in the order of the index.
fn in_order<K: Ord, T: Default, E>(
    keys: &[K],
    mut ask: impl FnMut(&K) -> Result<T, E>,
) -> Result<Vec<T>, E> {
    let mut order: Vec<usize> = (0..keys.len()).collect();
    order.sort_unstable_by_key(|at| &keys[*at]);
    let mut answers: Vec<T> = keys.iter().map(|_| T::default()).collect();
    for at in order {
        answers[at] = ask(&keys[at])?;
    }
    Ok(answers)
}

/// Which files are what they were. Several threads look: a disk that has to be asked answers many in the time of one.
fn all_unchanged(dir: &File, rows: &[Option<BlobRow>]) -> Vec<bool> {
    let look = |rows: &[Option<BlobRow>]| -> Vec<bool> {
        let rows = rows.iter().map(Option::as_ref);
        rows.map(|row| row.is_some_and(|row| is_unchanged(dir, row)))
            .collect()
    };
    let each = rows.len().div_ceil(THREADS).max(FILES_PER_THREAD);
    if rows.len() <= each {
        return look(rows);
    }
    thread::scope(|scope| {
        let chunks = rows.chunks(each);
        let looks: Vec<_> = chunks.map(|rows| scope.spawn(|| look(rows))).collect();
        let found = looks.into_iter().map(thread::ScopedJoinHandle::join);
        found
            .flat_map(|found| found.expect("looking at a file does not panic"))
            .collect()
    })
}

/// Whether the file of a row is what it was, by its stamp alone. Where its owner keeps it, it is opened.
fn is_unchanged(dir: &File, row: &BlobRow) -> bool {
    let is_right = |stamp: Stamp| stamp == row.stamp && stamp.size == row.blob.size;
    row.reference.is_none() && stamp(dir, &row.blob.sha256).is_some_and(is_right)
}

/// The stamp of a file among the blobs.
fn stamp(dir: &File, sha256: &Sha256) -> Option<Stamp> {
    let stat = statat(dir, sha256.to_hex().as_str(), AtFlags::empty()).ok()?;
    Stamp::of_stat(&stat)
}
