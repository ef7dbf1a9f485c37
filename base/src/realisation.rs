//! Realisations: small signed statements "building `pkghash` gave me this output".
//!
//! They are the only thing in the system that rests on trust; every byte after them is checked by hash. A statement is
//! canonical DAG-CBOR (IPLD spec), so it has exactly one encoding, its signature covers exactly those bytes, and it can
//! be served as an IPLD block whose link names the output. Whether a signer counts is policy and not decided here.

use cid::Cid;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteArray;

use crate::cid::CidError;
use crate::{Codec, Multihash, PkgHash, PublicKey, SecretKey, Sha256, Signature, block_cid};

/// Longest encoded signed realisation we read, in bytes. Ours take below 500; the rest is room for later versions.
pub const SIGNED_REALISATION_BYTES_MAX: usize = 4096;

/// Version of the statement's meaning and encoding, without and with inputs.
const VERSION: u64 = 1;
const VERSION_WITH_INPUTS: u64 = 2;
/// Separates these signatures from any other use of the same key.
const SIGNING_CONTEXT: &[u8] = b"p2pkgs-realisation-1:";
const SIGNING_CONTEXT_WITH_INPUTS: &[u8] = b"p2pkgs-realisation-2:";

/// What a builder says about one build. Sizes are in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Realisation {
    /// Which package was built.
    pub pkghash: PkgHash,
    /// Root of the UnixFS file that holds the output archive.
    pub output: Cid,
    /// SHA-256 of the output archive as a plain file.
    pub sha256: Sha256,
    /// Length of the output archive.
    pub size: u64,
}

/// A realisation with its signer and signature. Obtained only by signing or by a successful check of the signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedRealisation {
    realisation: Realisation,
    /// Names the block that lists with which outputs of other packages it was built.
    inputs: Option<Cid>,
    signer: PublicKey,
    signature: Signature,
}

/// Why bytes are no signed realisation.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RealisationError {
    /// More than [`SIGNED_REALISATION_BYTES_MAX`] bytes.
    #[error("a signed realisation of {0} bytes is too long")]
    TooLong(usize),
    /// Not the DAG-CBOR of a signed realisation.
    #[error("malformed signed realisation: {0}")]
    Malformed(String),
    /// Valid data in another encoding than the canonical one.
    #[error("signed realisation is not in canonical form")]
    NotCanonical,
    /// A version this program does not know.
    #[error(
        "realisation of version {0}, this program knows versions {VERSION} and {VERSION_WITH_INPUTS}"
    )]
    Version(u64),
    /// The output or the list of inputs is no CID of ours.
    #[error("realisation names an unusable output or list of inputs")]
    Output(#[source] CidError),
    /// The signature does not fit the statement and the key.
    #[error("signature of the realisation does not verify")]
    Signature,
}

impl Realisation {
    /// Whether the other says that the same package gave the same output.
    pub fn agrees_with(&self, other: &Self) -> bool {
        let said = |r: &Self| (r.pkghash, r.sha256, r.size, r.output);
        said(self) == said(other)
    }

    /// Signs the statement: version 1, which says nothing of inputs.
    pub fn sign(self, key: &SecretKey) -> SignedRealisation {
        self.sign_with(key, None)
    }

    /// Signs the statement together with the CID of a block that lists the inputs, if there is one: version 2.
    pub fn sign_with(self, key: &SecretKey, inputs: Option<Cid>) -> SignedRealisation {
        let mut signed = SignedRealisation {
            realisation: self,
            inputs,
            signer: key.public(),
            signature: Signature::from_bytes([0; 64]),
        };
        signed.signature = key.sign(&signed.signed_bytes());
        signed
    }
}

impl SignedRealisation {
    /// The statement. Its signature is valid; whether its signer is trusted is for the caller's policy.
    pub const fn realisation(&self) -> &Realisation {
        &self.realisation
    }

    /// The block that lists with which outputs of other packages it was built; who trusts the signer need not look at it.
    pub const fn inputs(&self) -> Option<&Cid> {
        self.inputs.as_ref()
    }

    /// Who signed.
    pub const fn signer(&self) -> &PublicKey {
        &self.signer
    }

    /// Canonical DAG-CBOR.
    pub fn to_bytes(&self) -> Vec<u8> {
        encode(&Envelope::from(self))
    }

    /// Decodes and verifies a signed realisation.
    ///
    /// # Errors
    /// [`RealisationError`] for every byte string that [`Self::to_bytes`] could not have made from a valid signature.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, RealisationError> {
        let signed = Self::from_verified_bytes(bytes)?;
        if signed.to_bytes() != bytes {
            return Err(RealisationError::NotCanonical);
        }
        if !signed
            .signer
            .verify(&signed.signed_bytes(), &signed.signature)
        {
            return Err(RealisationError::Signature);
        }
        Ok(signed)
    }

    /// Decodes what was verified before it was put where it was read from: a tenth of a millisecond counts where there are
    /// thousands. Nothing that came from elsewhere may take this way: neither the signature is checked nor the form.
    ///
    /// # Errors
    /// [`RealisationError`] for bytes that are no signed realisation.
    pub fn from_verified_bytes(bytes: &[u8]) -> Result<Self, RealisationError> {
        if bytes.len() > SIGNED_REALISATION_BYTES_MAX {
            return Err(RealisationError::TooLong(bytes.len()));
        }
        let envelope: Envelope = serde_ipld_dagcbor::from_slice(bytes)
            .map_err(|e| RealisationError::Malformed(e.to_string()))?;
        Ok(Self {
            inputs: envelope.statement.inputs,
            realisation: envelope.statement.try_into()?,
            signer: PublicKey::from_bytes(*envelope.signer),
            signature: Signature::from_bytes(*envelope.signature),
        })
    }

    /// The CID of the signed statement as the IPLD block that it is: dag-cbor, sha2-256.
    pub fn cid(&self) -> Cid {
        block_cid(Codec::DagCbor, &Sha256::of(&self.to_bytes()))
    }

    fn signed_bytes(&self) -> Vec<u8> {
        let context = match self.inputs {
            None => SIGNING_CONTEXT,
            Some(_) => SIGNING_CONTEXT_WITH_INPUTS,
        };
        [context, &encode(&Statement::from(self))].concat()
    }
}

/// The statement as encoded.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Statement {
    version: u64,
    pkghash: ByteArray<32>,
    output: Cid,
    sha256: ByteArray<32>,
    size: u64,
    /// Version 2 has it, version 1 has not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    inputs: Option<Cid>,
}

/// The signed statement as encoded.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope {
    statement: Statement,
    signer: ByteArray<32>,
    signature: ByteArray<64>,
}

impl From<&SignedRealisation> for Statement {
    fn from(signed: &SignedRealisation) -> Self {
        let SignedRealisation {
            realisation,
            inputs,
            ..
        } = signed;
        Self {
            version: match inputs {
                None => VERSION,
                Some(_) => VERSION_WITH_INPUTS,
            },
            pkghash: ByteArray::new(*realisation.pkghash.digest().as_bytes()),
            output: realisation.output,
            sha256: ByteArray::new(*realisation.sha256.as_bytes()),
            size: realisation.size,
            inputs: *inputs,
        }
    }
}

impl TryFrom<Statement> for Realisation {
    type Error = RealisationError;

    fn try_from(statement: Statement) -> Result<Self, RealisationError> {
        match (statement.version, &statement.inputs) {
            (VERSION, None) | (VERSION_WITH_INPUTS, Some(_)) => {}
            (VERSION | VERSION_WITH_INPUTS, _) => {
                let text = "inputs do not go with the version".into();
                return Err(RealisationError::Malformed(text));
            }
            (other, _) => return Err(RealisationError::Version(other)),
        }
        for cid in [Some(&statement.output), statement.inputs.as_ref()] {
            let Some(cid) = cid else { continue };
            Codec::of(cid).map_err(RealisationError::Output)?;
            Multihash::of(cid).map_err(RealisationError::Output)?;
        }
        Ok(Self {
            pkghash: PkgHash::from_digest(Sha256::from_bytes(*statement.pkghash)),
            output: statement.output,
            sha256: Sha256::from_bytes(*statement.sha256),
            size: statement.size,
        })
    }
}

impl From<&SignedRealisation> for Envelope {
    fn from(signed: &SignedRealisation) -> Self {
        Self {
            statement: Statement::from(signed),
            signer: ByteArray::new(*signed.signer.as_bytes()),
            signature: ByteArray::new(*signed.signature.as_bytes()),
        }
    }
}

fn encode(value: &impl Serialize) -> Vec<u8> {
    serde_ipld_dagcbor::to_vec(value).expect("fixed structures of integers, bytes and links encode")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn example() -> SignedRealisation {
        let archive = b"archive";
        Realisation {
            pkghash: PkgHash::of_derivation(b"derivation"),
            output: block_cid(Codec::Raw, &Sha256::of(archive)),
            sha256: Sha256::of(archive),
            size: 7,
        }
        .sign(&SecretKey::from_seed(&[1; 32]))
    }

    #[test]
    fn a_signed_realisation_survives_its_encoding() {
        let signed = example();
        let bytes = signed.to_bytes();
        assert!(bytes.len() < 400, "{} bytes", bytes.len());
        assert_eq!(SignedRealisation::from_bytes(&bytes), Ok(signed));
    }

    #[test]
    fn the_encoding_is_pinned() {
        let digest = Sha256::of(&example().to_bytes()).to_hex();
        assert_eq!(
            digest,
            "2087faa289c170ce4dfebc2f77da8fc06e686c6345d73a5a148add7f19326347"
        );
    }

    /// Version 2 of the example.
    fn with_inputs() -> SignedRealisation {
        let inputs = block_cid(Codec::Raw, &Sha256::of(b"inputs"));
        let said = example().realisation().clone();
        said.sign_with(&SecretKey::from_seed(&[1; 32]), Some(inputs))
    }

    #[test]
    fn a_realisation_with_inputs_survives_agrees_and_is_pinned() {
        let signed = with_inputs();
        let bytes = signed.to_bytes();
        assert!(bytes.len() < 500, "{} bytes", bytes.len());
        assert_eq!(SignedRealisation::from_bytes(&bytes), Ok(signed.clone()));
        assert!(signed.realisation().agrees_with(example().realisation()));
        assert_eq!(
            Sha256::of(&bytes).to_hex(),
            "0c163d9ff057c93881330fe202e816ec33afe6f0f2839a28179593ab3cf8b3b7"
        );
    }

    #[test]
    fn inputs_can_neither_be_taken_away_nor_added_nor_exchanged() {
        let other = block_cid(Codec::Raw, &Sha256::of(b"other"));
        for (mut signed, inputs) in [
            (with_inputs(), None),
            (with_inputs(), Some(other)),
            (example(), Some(other)),
        ] {
            signed.inputs = inputs;
            let read = SignedRealisation::from_bytes(&signed.to_bytes());
            assert_eq!(read, Err(RealisationError::Signature));
        }
    }

    #[test]
    fn a_statement_moved_to_another_package_does_not_verify() {
        let mut signed = example();
        signed.realisation.pkghash = PkgHash::of_derivation(b"other");
        let bytes = signed.to_bytes();
        assert_eq!(
            SignedRealisation::from_bytes(&bytes),
            Err(RealisationError::Signature)
        );
    }

    #[test]
    fn longer_texts_and_trailing_bytes_are_refused() {
        let mut bytes = example().to_bytes();
        bytes.push(0);
        assert!(matches!(
            SignedRealisation::from_bytes(&bytes),
            Err(RealisationError::Malformed(_) | RealisationError::NotCanonical)
        ));
        assert_eq!(
            SignedRealisation::from_bytes(&vec![0; 5000]),
            Err(RealisationError::TooLong(5000))
        );
    }

    proptest! {
        #[test]
        fn no_single_changed_byte_goes_unnoticed(position in 0usize..400, change in 1u8..) {
            let mut bytes = example().to_bytes();
            let position = position % bytes.len();
            bytes[position] ^= change;
            prop_assert!(SignedRealisation::from_bytes(&bytes).is_err());
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            prop_assert!(SignedRealisation::from_bytes(&bytes).is_err());
        }
    }
}
