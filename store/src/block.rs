//! Blocks: the units that have a CID and travel between peers.
//!
//! A [`Block`] is bytes together with a multihash that was checked against them; there is no other way to make one.
//! Identity CIDs carry their bytes inside and are decoded by [`crate::dag::inline_block`]; they never become blocks.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use base::{Cid, Codec, Multihash, Sha256, block_cid};
use bytes::Bytes;

use crate::StoreError;

/// Largest block in bytes: what Bitswap peers accept (2 MiB, the limit of Kubo since 0.40).
pub const BLOCK_BYTES_MAX: usize = 2 << 20;

/// SHA-256 of nothing; a test compares it with the computed one.
const EMPTY_SHA256: Sha256 = Sha256::from_bytes([
    0xe3, 0xb0, 0xc4, 0x42, 0x98, 0xfc, 0x1c, 0x14, 0x9a, 0xfb, 0xf4, 0xc8, 0x99, 0x6f, 0xb9, 0x24,
    0x27, 0xae, 0x41, 0xe4, 0x64, 0x9b, 0x93, 0x4c, 0xa4, 0x95, 0x99, 0x1b, 0x78, 0x52, 0xb8, 0x55,
]);

/// Bytes and the multihash they were verified against.
#[derive(Clone, PartialEq, Eq)]
pub struct Block {
    hash: Multihash,
    bytes: Bytes,
}

/// Bytes that do not have the hash under which they came.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("block does not match: expected `{expected}`, got `{got}`")]
pub struct BlockMismatch {
    /// The digest that was asked for.
    pub expected: Sha256,
    /// The digest of the bytes.
    pub got: Sha256,
}

impl Block {
    /// Checks bytes against the hash under which they came.
    ///
    /// # Errors
    /// [`BlockMismatch`] when they are other bytes.
    pub fn verify(hash: Multihash, bytes: Bytes) -> Result<Self, BlockMismatch> {
        let got = Sha256::of(&bytes);
        let expected = hash.digest();
        if got != expected {
            return Err(BlockMismatch { expected, got });
        }
        Ok(Self { hash, bytes })
    }

    /// The block that these bytes are.
    pub fn of(bytes: Bytes) -> Self {
        Self {
            hash: Multihash::sha2_256(&Sha256::of(&bytes)),
            bytes,
        }
    }

    /// The empty block, which exists everywhere without being stored: peers cannot even send it.
    pub fn empty() -> Self {
        Self {
            hash: Multihash::sha2_256(&EMPTY_SHA256),
            bytes: Bytes::new(),
        }
    }

    /// Whether this is the hash of [`Self::empty`].
    pub fn is_empty_hash(hash: &Multihash) -> bool {
        hash.as_bytes()[2..] == *EMPTY_SHA256.as_bytes()
    }

    /// Its multihash.
    pub const fn hash(&self) -> &Multihash {
        &self.hash
    }

    /// Its bytes.
    pub const fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Its bytes, without the hash.
    pub fn into_bytes(self) -> Bytes {
        self.bytes
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether this is the empty block.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The CIDv1 under which this block is read as `codec`.
    pub fn cid(&self, codec: Codec) -> Cid {
        block_cid(codec, &self.hash.digest())
    }
}

impl std::fmt::Debug for Block {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Block({}, {} bytes)",
            self.hash.digest(),
            self.bytes.len()
        )
    }
}

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
        blocks.insert(block.hash, block.clone());
        Ok(())
    }
}
