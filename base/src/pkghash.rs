//! The name of a package: the SHA-256 of its derivation text, which makes it a content identifier as well.

use std::fmt;
use std::str::FromStr;

use cid::Cid;

use crate::cid::{Codec, Multihash, block_cid};
use crate::{ParseDigestError, Sha256};

/// SHA-256 of a derivation text. It covers the recipe and, through the hashes of its dependencies, the whole graph below it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PkgHash(Sha256);

impl PkgHash {
    /// Hashes a derivation text. Only `recipe::Derivation` should need to call this.
    pub fn of_derivation(text: &[u8]) -> Self {
        Self(Sha256::of(text))
    }

    /// Wraps a digest that is known to be a package hash.
    pub const fn from_digest(digest: Sha256) -> Self {
        Self(digest)
    }

    /// The digest behind the name.
    pub const fn digest(&self) -> &Sha256 {
        &self.0
    }

    /// The CID under which the derivation text itself is an ordinary raw block.
    pub fn to_cid(&self) -> Cid {
        block_cid(Codec::Raw, &self.0)
    }

    /// The key under which holders of a realisation announce themselves in the DHT: the multihash of [`Self::to_cid`].
    pub fn dht_key(&self) -> Multihash {
        Multihash::sha2_256(&self.0)
    }
}

impl fmt::Display for PkgHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for PkgHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PkgHash({self})")
    }
}

impl FromStr for PkgHash {
    type Err = ParseDigestError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_hash_is_the_raw_cid_of_its_derivation() {
        let hash = PkgHash::of_derivation(b"hello world\n");
        assert_eq!(
            hash.to_cid().to_string(),
            "bafkreifjjcie6lypi6ny7amxnfftagclbuxndqonfipmb64f2km2devei4"
        );
        assert_eq!(
            hash.dht_key().as_bytes().to_vec(),
            hash.to_cid().hash().to_bytes()
        );
    }
}
