//! Blocks: the units that have a CID and travel between peers.
//!
//! A [`Block`] is bytes together with a multihash that was checked against them; there is no other way to make one. So
//! what one crate has verified, the next need not hash again.
//! Identity CIDs carry their bytes inside and never become blocks.

use bytes::Bytes;

use crate::{Cid, Codec, Multihash, Sha256, block_cid};

/// Largest block in bytes: what Bitswap peers accept (2 MiB, the limit of Kubo since 0.40).
pub const BLOCK_BYTES_MAX: usize = 2 << 20;

/// SHA-256 of nothing; a test compares it with the computed one.
const EMPTY_SHA256: Sha256 = Sha256::from_bytes([
    0xe3, 0xb0, 0xc4, 0x42, 0x98, 0xfc, 0x1c, 0x14, 0x9a, 0xfb, 0xf4, 0xc8, 0x99, 0x6f, 0xb9, 0x24,
    0x27, 0xae, 0x41, 0xe4, 0x64, 0x9b, 0x93, 0x4c, 0xa4, 0x95, 0x99, 0x1b, 0x78, 0x52, 0xb8, 0x55,
]);

/// Bytes and the multihash they were verified against. Nothing outside this module can put the two together unchecked:
///
/// ```compile_fail,E0451
/// let hash = *base::Block::of("these".into()).hash();
/// base::Block { hash, bytes: "those".into() };
/// ```
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

    /// The empty block, which exists everywhere without being stored: peers cannot even send it. It alone is not hashed.
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_empty_block_has_the_hash_of_nothing() {
        assert_eq!(Block::empty(), Block::of(Bytes::new()));
        assert!(Block::is_empty_hash(Block::empty().hash()));
        assert!(!Block::is_empty_hash(Block::of("a".into()).hash()));
    }

    proptest! {
        #[test]
        fn a_block_has_the_hash_of_its_bytes_or_does_not_exist(bytes: Vec<u8>, other: [u8; 32]) {
            let (got, bytes) = (Sha256::of(&bytes), Bytes::from(bytes));
            let block = Block::of(bytes.clone());
            prop_assert_eq!(block.hash().digest(), got);
            prop_assert_eq!(Block::verify(*block.hash(), bytes.clone()), Ok(block));
            let expected = Sha256::from_bytes(other);
            prop_assert_eq!(
                Block::verify(Multihash::sha2_256(&expected), bytes),
                Err(BlockMismatch { expected, got })
            );
        }
    }
}
