//! IPNS names: the public key whose owner says what the name stands for, by its hash.
//!
//! A name is the peer id of a key that need not belong to any peer. It is printed as people paste it into browsers, a CIDv1
//! in base36, and read in every form that is in use.

use std::fmt;
use std::str::FromStr;

use cid::Cid;
use cid::multibase::Base;
use libp2p::PeerId;
use libp2p::identity::PublicKey;

/// Multicodec of libp2p keys, the codec of names written as CIDs.
const LIBP2P_KEY: u64 = 0x72;
/// Multihash code of a key that stands in its own name.
const IDENTITY: u64 = 0;
/// Longest name that is looked at, in bytes; the longest in use has 65 (base32).
const TEXT_BYTES_MAX: usize = 128;
/// What stands before the name in a DHT key.
const KEY_PREFIX: &[u8] = b"/ipns/";

/// A name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IpnsName(PeerId);

/// A text or a key that is no name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IpnsNameError {
    /// Neither a peer id nor a CID of a key.
    #[error("not a name: it must be a peer id or a CID of a libp2p key")]
    Malformed,
    /// A CID of content.
    #[error("a CID of content (codec 0x{0:x}), not of a key")]
    Codec(u64),
    /// The name of a host, which DNS would have to be asked about.
    #[error("a DNS name, which this version does not resolve")]
    Dns,
}

impl IpnsName {
    /// The name of a key.
    pub fn of(key: &PublicKey) -> Self {
        Self(key.to_peer_id())
    }

    /// The multihash that is the name in binary.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.0.to_bytes()
    }

    /// The key of the name's record in the DHT.
    pub fn dht_key(&self) -> Vec<u8> {
        [KEY_PREFIX, &self.to_bytes()].concat()
    }

    /// The name whose record stands under a DHT key.
    ///
    /// # Errors
    /// [`IpnsNameError::Malformed`] for every other key.
    pub fn of_dht_key(key: &[u8]) -> Result<Self, IpnsNameError> {
        key.strip_prefix(KEY_PREFIX)
            .and_then(|bytes| PeerId::from_bytes(bytes).ok())
            .map(Self)
            .ok_or(IpnsNameError::Malformed)
    }

    /// The public key, where it is short enough to stand in the name itself.
    pub(super) fn inlined_key(&self) -> Option<PublicKey> {
        let hash = self.0.as_ref();
        (hash.code() == IDENTITY)
            .then(|| PublicKey::try_decode_protobuf(hash.digest()).ok())
            .flatten()
    }
}

impl FromStr for IpnsName {
    type Err = IpnsNameError;

    fn from_str(text: &str) -> Result<Self, IpnsNameError> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(IpnsNameError::Malformed);
        }
        if text.starts_with('1') || text.starts_with("Qm") {
            return text.parse().map(Self).map_err(|_| IpnsNameError::Malformed);
        }
        if text.contains('.') {
            return Err(IpnsNameError::Dns);
        }
        let cid: Cid = text.parse().map_err(|_| IpnsNameError::Malformed)?;
        if cid.codec() != LIBP2P_KEY {
            return Err(IpnsNameError::Codec(cid.codec()));
        }
        PeerId::from_multihash(*cid.hash())
            .map(Self)
            .map_err(|_| IpnsNameError::Malformed)
    }
}

impl fmt::Display for IpnsName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cid = Cid::new_v1(LIBP2P_KEY, *self.0.as_ref());
        let text = cid
            .to_string_of_base(Base::Base36Lower)
            .map_err(|_| fmt::Error)?;
        f.write_str(&text)
    }
}

impl fmt::Debug for IpnsName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IpnsName({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_a_name_is_read_and_base36_is_written() {
        let base36 = "k51qzi5uqu5dgy8qsq67hbz73jqkw87l3fgf4a91qb0d9b5173tir7n4vxk1oe";
        for text in [
            base36,
            "12D3KooWBtg3aaRMjxwedh83aGiUkwSxDwUZkzuJcfaqUmo7R3pq",
            "bafzaajaiaejcahwr5d5ofrfbis4l5d6uwr57hu5tjodrypfm6yaq6dsc2r2pzyt6",
        ] {
            assert_eq!(text.parse::<IpnsName>().unwrap().to_string(), base36);
        }
        let rsa = "QmVujd5Vb7moysJj8itnGufN7MEtPRCNHkKpNuA4onsRa3";
        let name: IpnsName = rsa.parse().unwrap();
        assert_eq!(name.to_string().parse(), Ok(name));
    }

    #[test]
    fn the_dht_key_is_that_of_the_specification() {
        let name: IpnsName = "k51qzi5uqu5dit2ku9mutlfgwyz8u730on38kd10m97m36bjt66my99hb6103f"
            .parse()
            .unwrap();
        let key = name.dht_key();
        assert_eq!(key[..6], *b"/ipns/");
        assert_eq!(key[6..12], [0x00, 0x24, 0x08, 0x01, 0x12, 0x20]);
        assert_eq!(key.len(), 44);
        assert_eq!(IpnsName::of_dht_key(&key), Ok(name));
        assert!(IpnsName::of_dht_key(&key[1..]).is_err());
        assert!(IpnsName::of_dht_key(&key[..43]).is_err());
    }

    #[test]
    fn what_is_no_name_is_refused_with_the_reason() {
        let refused = |text: &str| text.parse::<IpnsName>().unwrap_err();
        assert_eq!(refused(""), IpnsNameError::Malformed);
        assert_eq!(refused("1"), IpnsNameError::Malformed);
        assert_eq!(refused("Qm"), IpnsNameError::Malformed);
        assert_eq!(refused(&"1".repeat(200)), IpnsNameError::Malformed);
        assert_eq!(refused("en.wikipedia-on-ipfs.org"), IpnsNameError::Dns);
        assert_eq!(refused("bafkqaaa"), IpnsNameError::Codec(0x55));
    }
}
