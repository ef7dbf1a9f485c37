//! Who keeps blocks.
//!
//! Identity CIDs carry their bytes inside and are decoded by [`crate::dag::inline_block`]; they never become blocks.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use base::{BLOCK_BYTES_MAX, Block, Cid, Multihash};
use bytes::Bytes;

use crate::StoreError;

/// Blocks by multihash. Every implementation knows the empty block, and never returns bytes it did not verify.
pub trait BlockStore: Send + Sync {
    /// Whether [`Self::get`] is expected to find the block.
    ///
    /// # Errors
    /// [`StoreError`] when the question could not be answered.
    fn has(&self, hash: &Multihash) -> Result<bool, StoreError> {
        Ok(self.size(hash)?.is_some())
    }

    /// Length of the block in bytes, without reading it; `None` when it is missing.
    ///
    /// # Errors
    /// [`StoreError`] when the question could not be answered.
    fn size(&self, hash: &Multihash) -> Result<Option<u64>, StoreError>;

    /// The block; `None` when it is missing.
    ///
    /// # Errors
    /// [`StoreError`] when it could not be read.
    fn get(&self, hash: &Multihash) -> Result<Option<Block>, StoreError>;

    /// The bytes of a block for a peer, who hashes what it gets. Here they need not be hashed where nobody can have
    /// changed them since they were; `None` when the block is missing.
    ///
    /// # Errors
    /// As [`Self::get`].
    fn serve(&self, hash: &Multihash) -> Result<Option<Bytes>, StoreError> {
        Ok(self.get(hash)?.map(Block::into_bytes))
    }

    /// Length in bytes of a block that [`Self::serve`] is expected to find. What is served may be more than what is kept:
    /// parts of a file that is still being fetched go to peers, but nobody else relies on them.
    ///
    /// # Errors
    /// As [`Self::size`].
    fn served_size(&self, hash: &Multihash) -> Result<Option<u64>, StoreError> {
        self.size(hash)
    }

    /// Keeps a block; keeping it twice changes nothing.
    ///
    /// # Errors
    /// [`StoreError`] when it could not be kept, [`StoreError::TooLarge`] above [`BLOCK_BYTES_MAX`].
    fn put(&self, block: &Block) -> Result<(), StoreError>;

    /// [`Self::get`] by CID.
    ///
    /// # Errors
    /// As [`Self::get`]. A CID with another hash than sha2-256 is simply missing.
    fn get_cid(&self, cid: &Cid) -> Result<Option<Block>, StoreError> {
        Multihash::of(cid).map_or(Ok(None), |hash| self.get(&hash))
    }
}

/// Refuses blocks that no peer would take.
pub(crate) fn check_block_size(block: &Block) -> Result<(), StoreError> {
    if block.len() > BLOCK_BYTES_MAX {
        let (size, max) = (block.len() as u64, BLOCK_BYTES_MAX as u64);
        return Err(StoreError::TooLarge {
            what: "block",
            size,
            max,
        });
    }
    Ok(())
}

/// A block store without a disk, for tests, simulations and small caches.
#[derive(Debug, Default)]
pub struct MemoryBlockStore(Mutex<HashMap<Multihash, Block>>);

impl MemoryBlockStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    fn find(&self, hash: &Multihash) -> Option<Block> {
        if Block::is_empty_hash(hash) {
            return Some(Block::empty());
        }
        // Every update is one insertion, so a panic elsewhere leaves the map whole.
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(hash)
            .cloned()
    }
}

impl BlockStore for MemoryBlockStore {
    fn size(&self, hash: &Multihash) -> Result<Option<u64>, StoreError> {
        Ok(self.find(hash).map(|block| block.len() as u64))
    }

    fn get(&self, hash: &Multihash) -> Result<Option<Block>, StoreError> {
        Ok(self.find(hash))
    }

    fn put(&self, block: &Block) -> Result<(), StoreError> {
        check_block_size(block)?;
        let mut blocks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        blocks.insert(*block.hash(), block.clone());
        Ok(())
    }
}
