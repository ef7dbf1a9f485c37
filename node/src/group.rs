//! A group in an open network: who shares its key finds each other, and nobody else learns what is looked for.
//!
//! The DHT is asked for `HMAC(key, what is meant)` instead of what is meant, so its nodes see a number that means nothing to
//! them. But whoever sees the number may announce it, or ask who announced it. So members speak about what is meant only
//! with members: each proves to the other that it has the key, by an HMAC over both names. The connection proves the names,
//! so a proof is worth nothing to anybody else, and a recorded one nothing at all.

use base::{Multihash, Sha256};
use hmac::{Hmac, KeyInit as _, Mac as _};
use libp2p::PeerId;
use libp2p::StreamProtocol;
use sha2::Sha256 as Sha2;

use crate::framed::{Body, FramedCodec};
use crate::wire::{Reader, WireError};

/// The protocol by which two peers prove to each other that they have the key.
pub(crate) const PROTOCOL: StreamProtocol = StreamProtocol::new("/p2pkgs/group/1.0.0");

/// Keeps the uses of the key apart.
const LOOKUP: &[u8] = b"p2pkgs group lookup\0";
const MEMBER: &[u8] = b"p2pkgs group member\0";

/// The key that the members of a group share. `Debug` never shows it.
#[derive(Clone, PartialEq, Eq)]
pub struct GroupKey([u8; 32]);

impl GroupKey {
    /// A key from 32 bytes of secret randomness.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Under what the group announces and looks for `key` in the DHT.
    pub(crate) fn lookup_key(&self, key: &Multihash) -> Multihash {
        let mut mac = self.mac(LOOKUP);
        mac.update(key.as_bytes());
        let digest: [u8; 32] = mac.finalize().into_bytes().into();
        Multihash::sha2_256(&Sha256::from_bytes(digest))
    }

    /// What `prover` says to `verifier` to be taken for a member.
    pub(crate) fn prove(&self, prover: &PeerId, verifier: &PeerId) -> Proof {
        Proof(
            self.statement(prover, verifier)
                .finalize()
                .into_bytes()
                .into(),
        )
    }

    /// Whether that was said by a member. Takes the same time for every wrong proof.
    pub(crate) fn verify(&self, prover: &PeerId, verifier: &PeerId, proof: &Proof) -> bool {
        let statement = self.statement(prover, verifier);
        statement.verify_slice(&proof.0).is_ok()
    }

    fn statement(&self, prover: &PeerId, verifier: &PeerId) -> Hmac<Sha2> {
        let mut mac = self.mac(MEMBER);
        for peer in [prover, verifier] {
            let bytes = peer.to_bytes();
            mac.update(&(bytes.len() as u64).to_be_bytes());
            mac.update(&bytes);
        }
        mac
    }

    fn mac(&self, purpose: &[u8]) -> Hmac<Sha2> {
        let mut mac = Hmac::<Sha2>::new_from_slice(&self.0).expect("any length is a key for HMAC");
        mac.update(purpose);
        mac
    }
}

impl std::fmt::Debug for GroupKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("GroupKey(..)")
    }
}

/// Says "I have the key" from one peer to one other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof([u8; 32]);

/// The answer to a proof: the other's own, if the first was right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer(pub(crate) Option<Proof>);

impl Body for Proof {
    const BYTES_MAX: usize = 32;

    fn encode(&self) -> Vec<u8> {
        self.0.to_vec()
    }

    fn decode(body: &[u8]) -> Result<Self, WireError> {
        body.try_into().map(Self).map_err(|_| WireError::Short)
    }
}

impl Body for Answer {
    const BYTES_MAX: usize = 1 + Proof::BYTES_MAX;

    fn encode(&self) -> Vec<u8> {
        match &self.0 {
            None => vec![0],
            Some(proof) => [&[1], &proof.0[..]].concat(),
        }
    }

    fn decode(body: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader(body);
        match reader.byte()? {
            0 => reader.end().map(|()| Self(None)),
            1 => Proof::decode(reader.0).map(|proof| Self(Some(proof))),
            _ => Err(WireError::Range("answer")),
        }
    }
}

/// Reads and writes the messages for libp2p.
pub(crate) type GroupCodec = FramedCodec<Proof, Answer>;

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u8) -> GroupKey {
        GroupKey::from_bytes([n; 32])
    }

    fn peer(n: u8) -> PeerId {
        libp2p::identity::Keypair::ed25519_from_bytes([n; 32])
            .unwrap()
            .public()
            .to_peer_id()
    }

    #[test]
    fn what_the_dht_is_asked_for_depends_on_the_key_and_is_pinned() {
        let meant = Multihash::sha2_256(&Sha256::of(b"make"));
        let asked = key(1).lookup_key(&meant);
        assert_eq!(asked, key(1).lookup_key(&meant));
        assert_ne!(asked, key(2).lookup_key(&meant));
        assert_ne!(asked, meant);
        assert_eq!(
            asked.digest().to_string(),
            "ae7eec3a0bd4cd81597d051610ebc1ab1a01e0ff0eedcbd19c43fb7541d897db"
        );
    }

    #[test]
    fn a_proof_is_good_from_one_peer_to_one_other() {
        let proof = key(1).prove(&peer(1), &peer(2));
        assert!(key(1).verify(&peer(1), &peer(2), &proof));
        assert!(!key(2).verify(&peer(1), &peer(2), &proof));
        assert!(!key(1).verify(&peer(2), &peer(1), &proof));
        assert!(!key(1).verify(&peer(1), &peer(3), &proof));
    }

    #[test]
    fn answers_survive_and_odd_ones_are_refused() {
        for answer in [Answer(None), Answer(Some(Proof([7; 32])))] {
            assert_eq!(Answer::decode(&answer.encode()), Ok(answer));
        }
        for odd in [&[][..], &[0, 0], &[1, 2, 3], &[2], &[1; 34]] {
            assert!(Answer::decode(odd).is_err());
        }
    }
}
