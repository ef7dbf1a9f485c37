//! Files that are served where their owner keeps them: a mirror of what is on the disk already needs no second copy.
//!
//! Nobody can keep the owner from changing such a file. A stamp of size, modification time and inode tells when that may
//! have happened, and then the bytes are hashed before they are relied on. Blocks for others are hashed each time anyway.
//! A file that is not what it was is forgotten and left alone.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base::Sha256;

use crate::beside::each_piece;
use crate::blob::{BlobRow, open_file};
use crate::digest::{Digested, FileDigest};
use crate::forget::forget_blob;
use crate::ingest::check_blob_size;
use crate::layout::Stamp;
use crate::{Blob, Store, StoreError};

/// How long after a change a file can change again without another modification time: file systems count in ticks, the
/// coarsest of them (FAT) in two seconds.
const TICK: Duration = Duration::from_secs(2);

impl Store {
    /// Takes a file in without copying it. It must stay where it is; what happens to it is noticed.
    ///
    /// # Errors
    /// [`StoreError::Changed`] when somebody writes to it meanwhile, other [`StoreError`]s when it cannot be read.
    pub fn add_reference(&self, path: &Path) -> Result<Blob, StoreError> {
        let path = fs::canonicalize(path).map_err(|e| StoreError::io("find", path, e))?;
        let (digested, stamp) = digest_at_rest(&path)?;
        let blob = &digested.blob;
        self.hold(&blob.sha256)?;
        self.index.write(|transaction| {
            if let Some(row) = BlobRow::find(transaction, &blob.sha256)? {
                let file = fs::metadata(row.file(&self.layout));
                if file.is_ok_and(|found| Stamp::of(&found).size == row.stamp.size) {
                    return Ok(());
                }
                forget_blob(transaction, &row)?;
            }
            Ok(digested.insert(transaction, &settled(stamp), Some(&path))?)
        })?;
        Ok(digested.blob)
    }

    /// Where the owner keeps a blob that is not a file of the store's own.
    ///
    /// # Errors
    /// [`StoreError`] when the index could not be read.
    pub fn reference(&self, sha256: &Sha256) -> Result<Option<PathBuf>, StoreError> {
        let row = self
            .index
            .read(|connection| BlobRow::find(connection, sha256))?;
        Ok(row.and_then(|row| row.reference))
    }
}

/// Reads a file that nobody writes to.
fn digest_at_rest(path: &Path) -> Result<(Digested, Stamp), StoreError> {
    let failed = |e| StoreError::io("read", path, e);
    let mut file = open_file(path).map_err(failed)?;
    let before = file.metadata().map_err(failed)?;
    if !before.is_file() {
        return Err(failed(io::ErrorKind::InvalidInput.into()));
    }
    let mut digest = FileDigest::new();
    each_piece(&mut file, failed, |piece| {
        digest.update_shared(&piece);
        check_blob_size(digest.size())
    })?;
    let stamp = Stamp::of(&before);
    let after = fs::metadata(path).map_err(failed)?;
    if Stamp::of(&after) != stamp || digest.size() != stamp.size {
        return Err(StoreError::Changed {
            path: path.to_owned(),
        });
    }
    Ok((digest.finish(), stamp))
}

/// A stamp that can be relied on: one that is too fresh for that is made to differ from every real one, so that the file
/// is hashed again when it is opened next.
pub(crate) fn settled(stamp: Stamp) -> Stamp {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now_ns = now.map_or(0, |since| since.saturating_sub(TICK).as_nanos());
    if i128::from(stamp.mtime_ns) < i128::try_from(now_ns).unwrap_or(0) {
        stamp
    } else {
        Stamp {
            mtime_ns: i64::MIN,
            ..stamp
        }
    }
}
