//! Heads: signed statements "this is revision `n` of the package tree, or of the package cache, so-and-so, and it holds until
//! then".
//!
//! A head is what makes a name that can be pointed elsewhere safe to follow: it counts up, it ends, and it names the whole
//! of what it is a head of by one root, so nobody can hand out an old one, keep back a new one for ever, or mix two. As all
//! statements here it is canonical DAG-CBOR. Several keys may sign one head; whose signatures are enough is the user's rule,
//! see [`TrustPolicy::judge_signers`](crate::TrustPolicy::judge_signers) for trees and
//! [`TrustPolicy::counts`](crate::TrustPolicy::counts) for caches.

use std::collections::BTreeMap;

use base::{Cid, Codec, Multihash, PackageName, PublicKey, SecretKey, Signature};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteArray;

/// Longest encoded head in bytes; one with all its signatures takes below 2600.
pub const HEAD_BYTES_MAX: usize = 4096;
/// Most signatures on one head: as many as a rule of people can ask for, twice.
pub const HEAD_SIGNATURES_MAX: usize = 16;

/// Version of a head's meaning and encoding.
const VERSION: u64 = 1;
/// Each kind separates its signatures from any other use of the same key.
const TREE_CONTEXT: &[u8] = b"p2pkgs-tree-head-1:";
const CACHE_CONTEXT: &[u8] = b"p2pkgs-cache-head-1:";

/// What a head is a head of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HeadKind {
    /// A package tree. The root is that of its UnixFS directory.
    Tree,
    /// A package cache. The root is that of the index of what it holds, see [`CacheIndex`](crate::CacheIndex).
    Cache,
}

/// One revision of a package tree, or of a package cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// Of what.
    pub kind: HeadKind,
    /// What it is called. It has the form of a package's name.
    pub name: PackageName,
    /// Counts up with each head of this name, from 1.
    pub revision: u64,
    /// The first second, since 1970, from which there should be a newer one.
    pub expires_unix_secs: u64,
    /// What it holds, by one identifier.
    pub root: Cid,
}

/// A head with its signatures, at least one. Obtained only by signing or by a successful check of all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedHead {
    head: Head,
    signatures: BTreeMap<PublicKey, Signature>,
}

/// Why bytes are no signed head.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HeadError {
    /// More than [`HEAD_BYTES_MAX`] bytes.
    #[error("a head of {0} bytes is too long")]
    TooLong(usize),
    /// Not the DAG-CBOR of a signed head.
    #[error("malformed head: {0}")]
    Malformed(String),
    /// Valid data in another encoding than the canonical one.
    #[error("head is not in canonical form")]
    NotCanonical,
    /// A version this program does not know.
    #[error("head of version {0}, this program knows version {VERSION}")]
    Version(u64),
    /// The root is of another kind than the head.
    #[error("head that names an unusable root")]
    Root,
    /// Revisions begin with 1.
    #[error("head of revision 0")]
    Revision,
    /// None, or more than [`HEAD_SIGNATURES_MAX`].
    #[error("head with {0} signatures, 1 to {HEAD_SIGNATURES_MAX} are possible")]
    Signatures(usize),
    /// A signature does not fit the head and its key.
    #[error("signature of {0} on the head does not verify")]
    Signature(PublicKey),
}

/// What a head is to somebody who has seen another one of the same name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// A later revision, or the first one.
    Newer,
    /// What was seen before.
    Same,
}

/// Why a head cannot follow one that was seen before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotNext {
    /// It is an older one.
    #[error("rolled back: this is revision {got}, and revision {seen} was seen before")]
    RolledBack {
        /// The highest revision that was seen.
        seen: u64,
        /// This one.
        got: u64,
    },
    /// It has the same revision and another root: its signers say two different things.
    #[error("contradicted: another tree was seen as revision {revision} before")]
    Contradicted {
        /// The revision of both.
        revision: u64,
    },
}

impl Head {
    /// Signs the head with one key. [`SignedHead::sign`] adds others.
    ///
    /// # Errors
    /// [`HeadError`] when it is none that [`SignedHead::from_bytes`] would read.
    pub fn sign(self, key: &SecretKey) -> Result<SignedHead, HeadError> {
        self.check()?;
        let signature = key.sign(&self.signed_bytes());
        Ok(SignedHead {
            head: self,
            signatures: BTreeMap::from([(key.public(), signature)]),
        })
    }

    /// What this head is to who has seen `seen` of the same name.
    ///
    /// # Errors
    /// [`NotNext`] when it is older, or contradicts what was seen.
    pub fn follows(&self, seen: Option<&Self>) -> Result<News, NotNext> {
        let (revision, got) = (self.revision, self.revision);
        match seen {
            None => Ok(News::Newer),
            Some(seen) if seen.revision < got => Ok(News::Newer),
            Some(seen) if seen.revision > got => {
                let seen = seen.revision;
                Err(NotNext::RolledBack { seen, got })
            }
            Some(seen) if seen.root == self.root => Ok(News::Same),
            Some(_) => Err(NotNext::Contradicted { revision }),
        }
    }

    /// For how many seconds there should have been a newer one.
    pub fn stale_secs(&self, now_unix_secs: u64) -> Option<u64> {
        now_unix_secs.checked_sub(self.expires_unix_secs)
    }

    fn check(&self) -> Result<(), HeadError> {
        let codec = match self.kind {
            HeadKind::Tree => Codec::DagPb,
            HeadKind::Cache => Codec::Raw,
        };
        let is_ours = Codec::of(&self.root) == Ok(codec) && Multihash::of(&self.root).is_ok();
        if !is_ours || self.root.to_bytes().first() != Some(&1) {
            return Err(HeadError::Root);
        }
        if self.revision == 0 {
            return Err(HeadError::Revision);
        }
        Ok(())
    }

    fn signed_bytes(&self) -> Vec<u8> {
        let context = match self.kind {
            HeadKind::Tree => TREE_CONTEXT,
            HeadKind::Cache => CACHE_CONTEXT,
        };
        [context, &encode(&Encoded::from(self))].concat()
    }
}

impl SignedHead {
    /// The head. Its signatures are valid; whether they are enough is for the caller's policy.
    pub const fn head(&self) -> &Head {
        &self.head
    }

    /// What this head is to who has seen others, and which of them stands against it. It is compared with heads of its kind and
    /// name that one of its own signers signed, if that signer counts: other people may call other things by the same name.
    ///
    /// # Errors
    /// [`NotNext`] when one of them is newer, or of the same revision with another root.
    pub fn follows_all<'a>(
        &self,
        seen: impl IntoIterator<Item = &'a Self>,
        counts: impl Fn(&PublicKey) -> bool,
    ) -> Result<News, (NotNext, &'a Self)> {
        let mut news = News::Newer;
        for other in seen {
            let is_same_thing =
                other.head.kind == self.head.kind && other.head.name == self.head.name;
            let is_by_one = |key: &PublicKey| other.signatures.contains_key(key) && counts(key);
            if is_same_thing && self.signers().any(is_by_one) {
                match self.head.follows(Some(&other.head)) {
                    Ok(News::Same) => news = News::Same,
                    Ok(News::Newer) => {}
                    Err(why) => return Err((why, other)),
                }
            }
        }
        Ok(news)
    }

    /// Who signed, each once.
    pub fn signers(&self) -> impl Iterator<Item = &PublicKey> {
        self.signatures.keys()
    }

    /// Adds a signature; signing twice changes nothing.
    ///
    /// # Errors
    /// [`HeadError::Signatures`] when there is no room for one more.
    pub fn sign(&mut self, key: &SecretKey) -> Result<(), HeadError> {
        let signature = key.sign(&self.head.signed_bytes());
        self.signatures.insert(key.public(), signature);
        check_count(self.signatures.len())
    }

    /// Canonical DAG-CBOR.
    pub fn to_bytes(&self) -> Vec<u8> {
        let sign = |(signer, signature): (&PublicKey, &Signature)| EncodedSignature {
            signer: ByteArray::new(*signer.as_bytes()),
            signature: ByteArray::new(*signature.as_bytes()),
        };
        encode(&Envelope {
            head: Encoded::from(&self.head),
            signatures: self.signatures.iter().map(sign).collect(),
        })
    }

    /// Decodes a head and verifies all its signatures.
    ///
    /// # Errors
    /// [`HeadError`] for every byte string that [`Self::to_bytes`] could not have made from valid signatures.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, HeadError> {
        if bytes.len() > HEAD_BYTES_MAX {
            return Err(HeadError::TooLong(bytes.len()));
        }
        let envelope: Envelope = serde_ipld_dagcbor::from_slice(bytes)
            .map_err(|e| HeadError::Malformed(e.to_string()))?;
        check_count(envelope.signatures.len())?;
        let head = Head::try_from(envelope.head)?;
        head.check()?;
        let read = |one: EncodedSignature| {
            let signer = PublicKey::from_bytes(*one.signer);
            (signer, Signature::from_bytes(*one.signature))
        };
        let signed = Self {
            head,
            signatures: envelope.signatures.into_iter().map(read).collect(),
        };
        // Also what is out of order or there twice.
        if signed.to_bytes() != bytes {
            return Err(HeadError::NotCanonical);
        }
        let message = signed.head.signed_bytes();
        let wrong = signed
            .signatures
            .iter()
            .find(|(key, signature)| !key.verify(&message, signature));
        match wrong {
            Some((key, _)) => Err(HeadError::Signature(*key)),
            None => Ok(signed),
        }
    }
}

const fn check_count(signatures: usize) -> Result<(), HeadError> {
    if signatures == 0 || signatures > HEAD_SIGNATURES_MAX {
        return Err(HeadError::Signatures(signatures));
    }
    Ok(())
}

/// The head as encoded: a map of one entry, whose key is the kind.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
enum Encoded {
    Tree(EncodedHead),
    Cache(EncodedHead),
}

/// What is the same for all kinds.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct EncodedHead {
    version: u64,
    name: String,
    revision: u64,
    expires: u64,
    root: Cid,
}

/// One signature as encoded.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct EncodedSignature {
    signer: ByteArray<32>,
    signature: ByteArray<64>,
}

/// The signed head as encoded.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope {
    head: Encoded,
    signatures: Vec<EncodedSignature>,
}

impl From<&Head> for Encoded {
    fn from(head: &Head) -> Self {
        let encoded = EncodedHead {
            version: VERSION,
            name: head.name.to_string(),
            revision: head.revision,
            expires: head.expires_unix_secs,
            root: head.root,
        };
        match head.kind {
            HeadKind::Tree => Self::Tree(encoded),
            HeadKind::Cache => Self::Cache(encoded),
        }
    }
}

impl TryFrom<Encoded> for Head {
    type Error = HeadError;

    fn try_from(encoded: Encoded) -> Result<Self, HeadError> {
        let (kind, encoded) = match encoded {
            Encoded::Tree(encoded) => (HeadKind::Tree, encoded),
            Encoded::Cache(encoded) => (HeadKind::Cache, encoded),
        };
        if encoded.version != VERSION {
            return Err(HeadError::Version(encoded.version));
        }
        Ok(Self {
            kind,
            name: (encoded.name.parse())
                .map_err(|e: base::NameError| HeadError::Malformed(e.to_string()))?,
            revision: encoded.revision,
            expires_unix_secs: encoded.expires,
            root: encoded.root,
        })
    }
}

fn encode(value: &impl Serialize) -> Vec<u8> {
    serde_ipld_dagcbor::to_vec(value).expect("fixed structures of integers, texts, bytes and links")
}

#[cfg(test)]
mod tests {
    use base::{Sha256, block_cid};
    use proptest::prelude::*;

    use super::*;

    fn secret(n: u8) -> SecretKey {
        SecretKey::from_seed(&[n; 32])
    }

    fn head(revision: u64, tree: &[u8]) -> Head {
        Head {
            kind: HeadKind::Tree,
            name: "main".parse().unwrap(),
            revision,
            expires_unix_secs: 1_800_000_000,
            root: block_cid(Codec::DagPb, &Sha256::of(tree)),
        }
    }

    fn example() -> SignedHead {
        let mut signed = head(7, b"tree").sign(&secret(2)).unwrap();
        signed.sign(&secret(1)).unwrap();
        signed
    }

    #[test]
    fn a_head_survives_its_encoding_which_is_pinned() {
        let bytes = example().to_bytes();
        assert_eq!(SignedHead::from_bytes(&bytes), Ok(example()));
        assert_eq!(
            Sha256::of(&bytes).to_hex(),
            "88393a7a5223042e99593b5faddc9048669c3677327127f97780091b441c5fbf"
        );
    }

    #[test]
    fn the_largest_head_fits_and_has_no_room_for_one_more_signature() {
        let mut signed = Head {
            name: "a".repeat(base::NAME_BYTES_MAX).parse().unwrap(),
            revision: u64::MAX,
            expires_unix_secs: u64::MAX,
            ..head(1, b"")
        }
        .sign(&secret(0))
        .unwrap();
        for n in 1..16 {
            signed.sign(&secret(n)).unwrap();
        }
        let bytes = signed.to_bytes();
        assert!(bytes.len() < 2600, "{}", bytes.len());
        assert_eq!(SignedHead::from_bytes(&bytes), Ok(signed.clone()));
        signed.sign(&secret(1)).unwrap();
        assert_eq!(signed.sign(&secret(16)), Err(HeadError::Signatures(17)));
        let bytes = signed.to_bytes();
        assert_eq!(
            SignedHead::from_bytes(&bytes),
            Err(HeadError::Signatures(17))
        );
    }

    #[test]
    fn what_is_no_head_cannot_be_signed() {
        let raw = block_cid(Codec::Raw, &Sha256::of(b""));
        let v0: Cid = "QmbFMke1KXqnYyBBWxB74N4c5SBnJMVAiMNRcGu6x1AwQH"
            .parse()
            .unwrap();
        for root in [raw, v0] {
            let head = Head {
                root,
                ..head(1, b"")
            };
            assert_eq!(head.sign(&secret(1)), Err(HeadError::Root));
        }
        assert_eq!(head(0, b"").sign(&secret(1)), Err(HeadError::Revision));
    }

    #[test]
    fn one_wrong_signature_spoils_the_head_and_none_is_not_enough() {
        let mut moved = example();
        moved.head.revision = 8;
        let refused = SignedHead::from_bytes(&moved.to_bytes());
        assert!(matches!(refused, Err(HeadError::Signature(_))));
        moved.signatures.clear();
        assert_eq!(
            SignedHead::from_bytes(&moved.to_bytes()),
            Err(HeadError::Signatures(0))
        );
        let long = vec![0; HEAD_BYTES_MAX + 1];
        assert_eq!(
            SignedHead::from_bytes(&long),
            Err(HeadError::TooLong(long.len()))
        );
    }

    #[test]
    fn revisions_only_go_forward_and_one_revision_is_one_tree() {
        let seen = head(7, b"tree");
        let next = |revision, tree: &[u8]| head(revision, tree).follows(Some(&seen));
        assert_eq!(head(1, b"any").follows(None), Ok(News::Newer));
        assert_eq!(next(8, b"tree"), Ok(News::Newer));
        assert_eq!(next(9, b"other"), Ok(News::Newer));
        assert_eq!(next(7, b"tree"), Ok(News::Same));
        let rolled_back = NotNext::RolledBack { seen: 7, got: 6 };
        assert_eq!(next(6, b"tree"), Err(rolled_back));
        let contradicted = NotNext::Contradicted { revision: 7 };
        assert_eq!(next(7, b"other"), Err(contradicted));
    }

    fn cache(revision: u64, index: &[u8], signers: &[u8]) -> SignedHead {
        let head = Head {
            kind: HeadKind::Cache,
            root: block_cid(Codec::Raw, &Sha256::of(index)),
            ..head(revision, b"")
        };
        let mut signed = head.sign(&secret(signers[0])).unwrap();
        for signer in &signers[1..] {
            signed.sign(&secret(*signer)).unwrap();
        }
        signed
    }

    #[test]
    fn a_head_of_one_kind_is_none_of_another() {
        let signed = cache(7, b"index", &[1]);
        let bytes = signed.to_bytes();
        assert_eq!(SignedHead::from_bytes(&bytes), Ok(signed.clone()));
        assert_eq!(
            Sha256::of(&bytes).to_hex(),
            "eb94e36e2a48f2e00477e7cd3e71d3e47fe255a795054a3db855a72ce1f182ca"
        );
        let mut moved = signed;
        moved.head.kind = HeadKind::Tree;
        assert_eq!(
            SignedHead::from_bytes(&moved.to_bytes()),
            Err(HeadError::Root)
        );
        moved.head.root = head(7, b"index").root;
        assert!(matches!(
            SignedHead::from_bytes(&moved.to_bytes()),
            Err(HeadError::Signature(_))
        ));
    }

    #[test]
    fn a_head_is_held_against_what_its_own_signers_signed_if_they_count() {
        let seen = [
            cache(7, b"seven", &[1, 2]),
            cache(9, b"other's", &[3]),
            example(),
        ];
        let against = |got: &SignedHead, counting: &[u8]| {
            let counting: Vec<_> = counting.iter().map(|n| secret(*n).public()).collect();
            got.follows_all(&seen, |key| counting.contains(key))
                .map_err(|(why, _)| why)
        };
        assert_eq!(
            against(&cache(8, b"eight", &[1]), &[1, 2, 3]),
            Ok(News::Newer)
        );
        assert_eq!(
            against(&cache(7, b"seven", &[2, 4]), &[1, 2, 3]),
            Ok(News::Same)
        );
        let rolled_back = Err(NotNext::RolledBack { seen: 7, got: 6 });
        assert_eq!(against(&cache(6, b"six", &[2, 4]), &[2]), rolled_back);
        let contradicted = Err(NotNext::Contradicted { revision: 7 });
        assert_eq!(against(&cache(7, b"six", &[1]), &[1]), contradicted);
        // By one who does not count any more, and by one who never signed the other.
        assert_eq!(against(&cache(6, b"six", &[2]), &[1]), Ok(News::Newer));
        assert_eq!(against(&cache(6, b"six", &[4]), &[4]), Ok(News::Newer));
    }

    #[test]
    fn a_head_is_stale_from_the_second_it_names() {
        let head = head(1, b"");
        assert_eq!(head.stale_secs(1_799_999_999), None);
        assert_eq!(head.stale_secs(1_800_000_000), Some(0));
        assert_eq!(head.stale_secs(1_800_000_060), Some(60));
    }

    proptest! {
        #[test]
        fn no_single_changed_byte_goes_unnoticed(position in 0usize..4096, change in 1u8..) {
            let mut bytes = example().to_bytes();
            let position = position % bytes.len();
            bytes[position] ^= change;
            prop_assert!(SignedHead::from_bytes(&bytes).is_err());
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            prop_assert!(SignedHead::from_bytes(&bytes).is_err());
        }

        #[test]
        fn whoever_follows_accepted_heads_never_goes_back(revisions in proptest::collection::vec((1u64..6, 0u8..3), 1..20)) {
            let mut seen: Option<Head> = None;
            for (revision, tree) in revisions {
                let got = head(revision, &[tree]);
                if got.follows(seen.as_ref()).is_ok() {
                    prop_assert!(seen.is_none_or(|seen| seen.revision < got.revision || seen.root == got.root));
                    seen = Some(got);
                }
            }
        }
    }
}
