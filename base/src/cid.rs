//! Content identifiers: a thin facade over the `cid` crate that says which of them this system deals in.
//!
//! We accept CIDv0 and CIDv1 over sha2-256 with the codecs raw, dag-pb and dag-cbor, and nothing else: one hash function
//! means one multihash per content, and the store is indexed by multihash (two CIDs over one multihash are one block).

use std::fmt;

use cid::{Cid, Version};

use crate::Sha256;

/// Multicodec code of sha2-256.
const SHA2_256: u64 = 0x12;
/// The multicodec number of the hash that is the content itself.
const IDENTITY: u64 = 0;
/// Longest textual CID we look at, in bytes; the longest of ours (base32 CIDv1) has 59.
const CID_TEXT_BYTES_MAX: usize = 256;

/// The block formats this system reads (multicodec table).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Codec {
    /// 0x55: plain bytes.
    Raw,
    /// 0x70: a Merkle DAG node in protobuf, the carrier of UnixFS.
    DagPb,
    /// 0x71: canonical CBOR with links.
    DagCbor,
}

impl Codec {
    /// The multicodec code.
    pub const fn code(self) -> u64 {
        match self {
            Self::Raw => 0x55,
            Self::DagPb => 0x70,
            Self::DagCbor => 0x71,
        }
    }

    /// The codec of a CID.
    ///
    /// # Errors
    /// [`CidError::Codec`] for every codec we do not read.
    pub fn of(cid: &Cid) -> Result<Self, CidError> {
        match cid.codec() {
            0x55 => Ok(Self::Raw),
            0x70 => Ok(Self::DagPb),
            0x71 => Ok(Self::DagCbor),
            other => Err(CidError::Codec(other)),
        }
    }
}

/// A sha2-256 multihash, 34 bytes: the key of blocks in the store and of providers in the DHT.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Multihash([u8; 34]);

impl Multihash {
    /// The multihash of a known digest.
    pub fn sha2_256(digest: &Sha256) -> Self {
        let mut bytes = [0; 34];
        bytes[0] = 0x12;
        bytes[1] = 0x20;
        bytes[2..].copy_from_slice(digest.as_bytes());
        Self(bytes)
    }

    /// The multihash inside a CID.
    ///
    /// # Errors
    /// [`CidError::Hash`] unless it is a full sha2-256.
    pub fn of(cid: &Cid) -> Result<Self, CidError> {
        let hash = cid.hash();
        let digest: [u8; 32] = match hash.code() {
            SHA2_256 => hash
                .digest()
                .try_into()
                .map_err(|_| CidError::Hash(SHA2_256))?,
            other => return Err(CidError::Hash(other)),
        };
        Ok(Self::sha2_256(&Sha256::from_bytes(digest)))
    }

    /// The wire form: `12 20` and the digest.
    pub const fn as_bytes(&self) -> &[u8; 34] {
        &self.0
    }

    /// The digest inside.
    pub fn digest(&self) -> Sha256 {
        let mut digest = [0; 32];
        digest.copy_from_slice(&self.0[2..]);
        Sha256::from_bytes(digest)
    }
}

impl fmt::Debug for Multihash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Multihash({})", self.digest())
    }
}

/// Why a CID is not one of ours.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CidError {
    /// The text is longer than any CID.
    #[error("a CID of {0} characters is too long")]
    TooLong(usize),
    /// The text or bytes are no CID at all.
    #[error("not a CID: {0}")]
    Malformed(String),
    /// A codec other than raw, dag-pb and dag-cbor.
    #[error("codec 0x{0:x} is not supported")]
    Codec(u64),
    /// A hash other than a full sha2-256.
    #[error("hash function 0x{0:x} is not supported, only sha2-256 is")]
    Hash(u64),
}

/// The CIDv1 of a block with the given codec and digest.
pub fn block_cid(codec: Codec, digest: &Sha256) -> Cid {
    let hash = multihash::Multihash::wrap(SHA2_256, digest.as_bytes())
        .expect("a sha2-256 digest fits a multihash");
    Cid::new_v1(codec.code(), hash)
}

/// Parses a CID, version 0 or 1, of a codec and hash that we read.
///
/// # Errors
/// [`CidError`] naming what is wrong with the text.
pub fn parse_cid(text: &str) -> Result<Cid, CidError> {
    let cid = parse_root(text)?;
    Multihash::of(&cid)?;
    Ok(cid)
}

/// Parses a CID that content may have: as [`parse_cid`], or an identity CID, which carries the content inside and never
/// becomes a block.
///
/// # Errors
/// [`CidError`] naming what is wrong with the text.
pub fn parse_root(text: &str) -> Result<Cid, CidError> {
    if text.len() > CID_TEXT_BYTES_MAX {
        return Err(CidError::TooLong(text.len()));
    }
    let cid: Cid = text
        .parse()
        .map_err(|e: cid::Error| CidError::Malformed(e.to_string()))?;
    Codec::of(&cid)?;
    if cid.hash().code() != IDENTITY {
        Multihash::of(&cid)?;
    }
    debug_assert!(cid.version() == Version::V1 || cid.codec() == Codec::DagPb.code());
    Ok(cid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_of_a_cid_share_a_multihash() {
        let v0 = parse_cid("QmbFMke1KXqnYyBBWxB74N4c5SBnJMVAiMNRcGu6x1AwQH").unwrap();
        let v1 = parse_cid("bafybeif7ztnhq65lumvvtr4ekcwd2ifwgm3awq4zfr3srh462rwyinlb4y").unwrap();
        assert_ne!(v0, v1);
        assert_eq!(Multihash::of(&v0), Multihash::of(&v1));
        assert_eq!(
            block_cid(Codec::DagPb, &Multihash::of(&v0).unwrap().digest()),
            v1
        );
    }

    #[test]
    fn foreign_hashes_codecs_and_garbage_are_refused_by_name() {
        // libp2p-key, an identity hash.
        let key = "bafzaajaiaejcahwr5d5ofrfbis4l5d6uwr57hu5tjodrypfm6yaq6dsc2r2pzyt6";
        assert_eq!(parse_cid(key), Err(CidError::Codec(0x72)));
        assert_eq!(parse_cid("bafkqaaa"), Err(CidError::Hash(0)));
        assert!(parse_root("bafkqaaa").is_ok_and(|cid| cid.hash().digest().is_empty()));
        assert_eq!(parse_root(key), Err(CidError::Codec(0x72)));
        assert!(matches!(parse_cid("hello"), Err(CidError::Malformed(_))));
        assert_eq!(parse_cid(&"b".repeat(300)), Err(CidError::TooLong(300)));
    }
}
