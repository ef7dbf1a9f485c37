//! The store itself: opening it, and its blocks.

use std::fs::{self, File, OpenOptions};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use base::{Multihash, Sha256};
use bytes::Bytes;
use rusqlite::{OptionalExtension as _, Transaction};
use rustix::fs::{FlockOperation, flock};

use crate::blob::BlobRow;
use crate::block::check_block_size;
use crate::hold::Hold;
use crate::index::{BUSY_SECS, Index, from_sql};
use crate::layout::{Layout, remove_if_there};
use crate::loose::insert_loose;
use crate::partial::Partials;
use crate::room::Room;
use crate::{Block, BlockStore, StoreError};

/// How often a held lock is tried again, in milliseconds; openings take a few of them.
const LOCK_RETRY_MILLIS: u64 = 10;

/// A store on disk. Clones share it; several processes may have it open.
#[derive(Clone, Debug)]
pub struct Store {
    pub(crate) layout: Arc<Layout>,
    pub(crate) index: Arc<Index>,
    /// Where this handle notes what must not be collected, if it does.
    pub(crate) hold: Option<Arc<Hold>>,
    pub(crate) room: Room,
    /// What is being fetched, here and by others.
    pub(crate) partials: Arc<Partials>,
}

impl Store {
    /// Opens the store in a directory, creating it when it is missing, and clears away what dead processes left.
    ///
    /// # Errors
    /// [`StoreError::Layout`] when another version made it, other [`StoreError`]s when it cannot be read or made.
    pub fn open(root: &Path) -> Result<Self, StoreError> {
        let layout = Layout::new(root);
        layout.create()?;
        let lock = lock(&layout.lock())?;
        let index = Index::open(&layout.index(), root)?;
        let store = Self {
            layout: Arc::new(layout),
            index: Arc::new(index),
            hold: None,
            room: Room::default(),
            partials: Arc::default(),
        };
        // A stale temporary file is the trace of a process that died while it took a file in or collected, perhaps
        // between a change of the files and of the rows. Without one there is nothing to look for. It goes last, so
        // that it is still there if we die meanwhile.
        let stale = Layout::stale(&store.layout.temporary)?;
        if !stale.is_empty() {
            store.remove_orphans()?;
        }
        let dead_holds = Layout::stale(&store.layout.holds)?;
        for (path, _lock) in stale.iter().chain(&dead_holds) {
            remove_if_there(path)?;
        }
        drop(lock);
        Ok(store)
    }

    /// The store's directory.
    pub fn root(&self) -> &Path {
        &self.layout.root
    }

    /// Removes files among the blobs that the index does not know. Files are named and their rows committed under
    /// one lock, so while we hold it such a file is a dead process's, or one that a collector is about to remove.
    fn remove_orphans(&self) -> Result<(), StoreError> {
        let blobs = &self.layout.blobs;
        self.index.write(|transaction| {
            for entry in fs::read_dir(blobs).map_err(|e| StoreError::io("read", blobs, e))? {
                let entry = entry.map_err(|e| StoreError::io("read", blobs, e))?;
                let name = entry.file_name();
                let Some(Ok(sha256)) = name.to_str().map(str::parse::<Sha256>) else { continue };
                if BlobRow::find(transaction, &sha256)?.is_none() {
                    let path = entry.path();
                    tracing::info!(path = %path.display(), "removing a file that was never completed");
                    fs::remove_file(&path).map_err(|e| StoreError::io("remove", &path, e))?;
                }
            }
            Ok(())
        })
    }

    fn small_block(&self, hash: &Multihash) -> Result<Option<Block>, StoreError> {
        let digest = hash.digest();
        let bytes = self.index.read(|connection| {
            connection
                .prepare_cached(
                    "SELECT bytes FROM block WHERE hash = ?1
                     UNION ALL SELECT bytes FROM realisation WHERE hash = ?1 LIMIT 1",
                )?
                .query_row([digest.as_bytes()], |row| row.get::<_, Vec<u8>>(0))
                .optional()
        })?;
        let Some(bytes) = bytes else { return Ok(None) };
        match Block::verify(*hash, bytes.into()) {
            Ok(block) => Ok(Some(block)),
            Err(mismatch) => {
                tracing::warn!(%mismatch, "dropping a damaged block of the index");
                self.index.write(|transaction| {
                    transaction
                        .execute("DELETE FROM block WHERE hash = ?1", [digest.as_bytes()])?;
                    Ok(())
                })?;
                Ok(None)
            }
        }
    }
}

impl BlockStore for Store {
    fn size(&self, hash: &Multihash) -> Result<Option<u64>, StoreError> {
        if Block::is_empty_hash(hash) {
            return Ok(Some(0));
        }
        let digest = hash.digest();
        self.index.read(|connection| {
            connection
                .prepare_cached(
                    "SELECT length FROM leaf WHERE hash = ?1
                     UNION ALL SELECT length(bytes) FROM block WHERE hash = ?1
                     UNION ALL SELECT length(bytes) FROM realisation WHERE hash = ?1 LIMIT 1",
                )?
                .query_row([digest.as_bytes()], |row| row.get(0).map(from_sql))
                .optional()
        })
    }

    fn get(&self, hash: &Multihash) -> Result<Option<Block>, StoreError> {
        if Block::is_empty_hash(hash) {
            return Ok(Some(Block::empty()));
        }
        match self.leaf_block(hash)? {
            Some(block) => Ok(Some(block)),
            None => self.small_block(hash),
        }
    }

    fn serve(&self, hash: &Multihash) -> Result<Option<Bytes>, StoreError> {
        let indexed = || match self.leaf_bytes(hash)? {
            Some(bytes) => Ok(Some(bytes)),
            None => Ok(self.get(hash)?.map(Block::into_bytes)),
        };
        let partial = || self.partial_block(hash).map(Block::into_bytes);
        self.anywhere(indexed, partial)
    }

    fn served_size(&self, hash: &Multihash) -> Result<Option<u64>, StoreError> {
        self.anywhere(|| self.size(hash), || self.partial_size(hash))
    }

    fn put(&self, block: &Block) -> Result<(), StoreError> {
        check_block_size(block)?;
        if self.has(block.hash())? {
            return Ok(());
        }
        let size = block.len() as u64;
        self.make_room(size, size, None)?;
        self.index
            .write(|transaction| Ok(insert_loose(transaction, block, None)?))
    }
}

/// Keeps a block in the index itself; `false` if it was there.
pub(crate) fn insert_block(transaction: &Transaction<'_>, block: &Block) -> rusqlite::Result<bool> {
    let inserted = transaction
        .prepare_cached("INSERT OR IGNORE INTO block (hash, bytes) VALUES (?1, ?2)")?
        .execute((block.hash().digest().as_bytes(), &block.bytes()[..]))?;
    Ok(inserted > 0)
}

/// Keeps other processes from opening the store at the same time: making a database is no transaction.
fn lock(path: &Path) -> Result<File, StoreError> {
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .map_err(|e| StoreError::io("create", path, e))?;
    for _ in 0..BUSY_SECS * 1000 / LOCK_RETRY_MILLIS {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(file),
            Err(e) if e == rustix::io::Errno::WOULDBLOCK || e == rustix::io::Errno::INTR => {
                thread::sleep(Duration::from_millis(LOCK_RETRY_MILLIS));
            }
            Err(e) => return Err(StoreError::io("lock", path, e.into())),
        }
    }
    Err(StoreError::Busy {
        waited_secs: BUSY_SECS,
    })
}
