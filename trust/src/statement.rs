//! Statements about keys: delegations, rotations and revocations, signed by the keys whose business it is.
//!
//! As realisations they are canonical DAG-CBOR, so each has exactly one encoding and its signatures cover exactly those
//! bytes. Who signs is part of the statement: a delegation is signed by its root, a rotation by the old and the new key, a
//! revocation by the key itself or by a root that named it. Whether anybody listens is decided in `ring`.

use base::{PublicKey, SecretKey, Signature};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteArray;

use crate::{Pattern, Scope};

/// Longest encoded statement in bytes; a delegation with all its patterns takes below 1400.
pub const STATEMENT_BYTES_MAX: usize = 2048;
/// Most patterns of a delegation.
pub const STATEMENT_PATTERNS_MAX: usize = 16;
/// Most statements in one file: what a large project makes in years.
pub const STATEMENTS_MAX: usize = 256;

/// Version of the statements' meaning and encoding.
const VERSION: u64 = 1;
/// Each kind separates its signatures from any other use of the same key.
const DELEGATION_CONTEXT: &[u8] = b"p2pkgs-delegation-1:";
const ROTATION_CONTEXT: &[u8] = b"p2pkgs-rotation-1:";
const REVOCATION_CONTEXT: &[u8] = b"p2pkgs-revocation-1:";

/// What is said about keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyStatement {
    /// What `key` signs counts as if `root` had signed it.
    Delegation {
        /// Who names the key; its secret half can stay offline.
        root: PublicKey,
        /// Who signs builds.
        key: PublicKey,
        /// For which packages.
        scope: Scope,
        /// The first second, since 1970, in which it no longer counts; for ever without one.
        until_unix_secs: Option<u64>,
    },
    /// `new` takes the place of `old`, which signs no more.
    Rotation {
        /// Who goes.
        old: PublicKey,
        /// Who comes.
        new: PublicKey,
    },
    /// Nothing that `key` signed counts any more.
    Revocation {
        /// Which key.
        key: PublicKey,
        /// Who says so: the key itself, or a root that had named it.
        by: PublicKey,
    },
}

/// A statement with its signatures. Obtained only by signing or by a successful check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedKeyStatement {
    statement: KeyStatement,
    signatures: Vec<Signature>,
}

/// Why bytes are no signed statements about keys, or why one cannot be signed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StatementError {
    /// More than [`STATEMENT_BYTES_MAX`] for each of [`STATEMENTS_MAX`], or too many of them.
    #[error("statements about keys of {0} bytes are too long")]
    TooLong(usize),
    /// Not the DAG-CBOR of statements.
    #[error("malformed statement about keys: {0}")]
    Malformed(String),
    /// Valid data in another encoding than the canonical one.
    #[error("statement about keys is not in canonical form")]
    NotCanonical,
    /// A version this program does not know.
    #[error("statement about keys of version {0}, this program knows version {VERSION}")]
    Version(u64),
    /// A pattern that is none, or too many of them.
    #[error("statement about keys with unusable patterns of package names")]
    Patterns,
    /// A key that delegates to itself or rotates to itself says nothing.
    #[error("statement about keys that names one key on both sides")]
    OneKey,
    /// A signature is missing, or does not fit the statement and its key.
    #[error("signature of the statement about keys does not verify")]
    Signature,
}

impl KeyStatement {
    /// Who must sign, in the order of the signatures.
    pub fn signers(&self) -> Vec<PublicKey> {
        match self {
            Self::Delegation { root, .. } => vec![*root],
            Self::Rotation { old, new } => vec![*old, *new],
            Self::Revocation { by, .. } => vec![*by],
        }
    }

    /// Signs the statement with the keys that it names.
    ///
    /// # Errors
    /// [`StatementError`] when a key is missing, or the statement is none that [`SignedKeyStatement::from_bytes`] would read.
    pub fn sign(self, keys: &[&SecretKey]) -> Result<SignedKeyStatement, StatementError> {
        self.check()?;
        let message = self.signed_bytes();
        let sign = |signer: PublicKey| {
            let key = keys.iter().find(|key| key.public() == signer);
            key.map(|key| key.sign(&message))
                .ok_or(StatementError::Signature)
        };
        let signatures = self.signers().into_iter().map(sign);
        Ok(SignedKeyStatement {
            signatures: signatures.collect::<Result<_, _>>()?,
            statement: self,
        })
    }

    fn check(&self) -> Result<(), StatementError> {
        match self {
            Self::Delegation {
                root: a, key: b, ..
            }
            | Self::Rotation { old: a, new: b }
                if a == b =>
            {
                Err(StatementError::OneKey)
            }
            Self::Delegation { scope, .. } if scope.patterns().len() > STATEMENT_PATTERNS_MAX => {
                Err(StatementError::Patterns)
            }
            _ => Ok(()),
        }
    }

    fn signed_bytes(&self) -> Vec<u8> {
        let context = match self {
            Self::Delegation { .. } => DELEGATION_CONTEXT,
            Self::Rotation { .. } => ROTATION_CONTEXT,
            Self::Revocation { .. } => REVOCATION_CONTEXT,
        };
        [context, &encode(&Encoded::from(self))].concat()
    }
}

impl SignedKeyStatement {
    /// The statement. Its signatures are valid; whether anybody listens is for the caller's policy.
    pub const fn statement(&self) -> &KeyStatement {
        &self.statement
    }

    /// Canonical DAG-CBOR.
    pub fn to_bytes(&self) -> Vec<u8> {
        encode(&Envelope::from(self))
    }

    /// Decodes and verifies a statement.
    ///
    /// # Errors
    /// [`StatementError`] for every byte string that [`Self::to_bytes`] could not have made from valid signatures.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, StatementError> {
        if bytes.len() > STATEMENT_BYTES_MAX {
            return Err(StatementError::TooLong(bytes.len()));
        }
        let signed = Self::verified(decode(bytes)?)?;
        canonical(bytes, &signed.to_bytes())?;
        Ok(signed)
    }

    /// A file of statements: a DAG-CBOR list of them.
    pub fn print_file(statements: &[Self]) -> Vec<u8> {
        encode(&statements.iter().map(Envelope::from).collect::<Vec<_>>())
    }

    /// Reads a file of statements and verifies each.
    ///
    /// # Errors
    /// As [`Self::from_bytes`], for the first that cannot be used.
    pub fn parse_file(bytes: &[u8]) -> Result<Vec<Self>, StatementError> {
        if bytes.len() > STATEMENT_BYTES_MAX * STATEMENTS_MAX {
            return Err(StatementError::TooLong(bytes.len()));
        }
        let envelopes: Vec<Envelope> = decode(bytes)?;
        if envelopes.len() > STATEMENTS_MAX {
            return Err(StatementError::TooLong(bytes.len()));
        }
        let statements: Result<Vec<_>, _> = envelopes.into_iter().map(Self::verified).collect();
        let statements = statements?;
        canonical(bytes, &Self::print_file(&statements))?;
        let longest = statements.iter().map(|one| one.to_bytes().len()).max();
        match longest {
            Some(longest) if longest > STATEMENT_BYTES_MAX => Err(StatementError::TooLong(longest)),
            _ => Ok(statements),
        }
    }

    fn verified(envelope: Envelope) -> Result<Self, StatementError> {
        let statement = KeyStatement::try_from(envelope.statement)?;
        statement.check()?;
        let signers = statement.signers();
        let signatures: Vec<_> = envelope
            .signatures
            .into_iter()
            .map(|bytes| Signature::from_bytes(*bytes))
            .collect();
        let message = statement.signed_bytes();
        let verify = |(key, signature): (&PublicKey, &Signature)| key.verify(&message, signature);
        let all_fit = signers.iter().zip(&signatures).all(verify);
        if signers.len() != signatures.len() || !all_fit {
            return Err(StatementError::Signature);
        }
        Ok(Self {
            statement,
            signatures,
        })
    }
}

/// The statement as encoded: a map of one entry, whose key is the kind.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
enum Encoded {
    Delegation {
        version: u64,
        root: ByteArray<32>,
        key: ByteArray<32>,
        r#for: Vec<String>,
        until: Option<u64>,
    },
    Rotation {
        version: u64,
        old: ByteArray<32>,
        new: ByteArray<32>,
    },
    Revocation {
        version: u64,
        key: ByteArray<32>,
        by: ByteArray<32>,
    },
}

/// The signed statement as encoded.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope {
    statement: Encoded,
    signatures: Vec<ByteArray<64>>,
}

impl From<&KeyStatement> for Encoded {
    fn from(statement: &KeyStatement) -> Self {
        let bytes = |key: &PublicKey| ByteArray::new(*key.as_bytes());
        let version = VERSION;
        match statement {
            KeyStatement::Delegation {
                root,
                key,
                scope,
                until_unix_secs,
            } => Self::Delegation {
                version,
                root: bytes(root),
                key: bytes(key),
                r#for: scope.patterns().iter().map(ToString::to_string).collect(),
                until: *until_unix_secs,
            },
            KeyStatement::Rotation { old, new } => Self::Rotation {
                version,
                old: bytes(old),
                new: bytes(new),
            },
            KeyStatement::Revocation { key, by } => Self::Revocation {
                version,
                key: bytes(key),
                by: bytes(by),
            },
        }
    }
}

impl TryFrom<Encoded> for KeyStatement {
    type Error = StatementError;

    fn try_from(encoded: Encoded) -> Result<Self, StatementError> {
        let (Encoded::Delegation { version, .. }
        | Encoded::Rotation { version, .. }
        | Encoded::Revocation { version, .. }) = encoded;
        if version != VERSION {
            return Err(StatementError::Version(version));
        }
        let key = |bytes: ByteArray<32>| PublicKey::from_bytes(*bytes);
        Ok(match encoded {
            Encoded::Delegation {
                root,
                key: named,
                r#for,
                until,
                ..
            } => {
                let patterns: Result<Vec<Pattern>, _> =
                    r#for.iter().map(|text| text.parse()).collect();
                Self::Delegation {
                    root: key(root),
                    key: key(named),
                    scope: Scope::new(patterns.map_err(|_| StatementError::Patterns)?),
                    until_unix_secs: until,
                }
            }
            Encoded::Rotation { old, new, .. } => Self::Rotation {
                old: key(old),
                new: key(new),
            },
            Encoded::Revocation {
                key: revoked, by, ..
            } => Self::Revocation {
                key: key(revoked),
                by: key(by),
            },
        })
    }
}

impl From<&SignedKeyStatement> for Envelope {
    fn from(signed: &SignedKeyStatement) -> Self {
        let bytes = |signature: &Signature| ByteArray::new(*signature.as_bytes());
        Self {
            statement: Encoded::from(&signed.statement),
            signatures: signed.signatures.iter().map(bytes).collect(),
        }
    }
}

fn encode(value: &impl Serialize) -> Vec<u8> {
    serde_ipld_dagcbor::to_vec(value).expect("fixed structures of integers, texts and bytes encode")
}

fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, StatementError> {
    serde_ipld_dagcbor::from_slice(bytes).map_err(|e| StatementError::Malformed(e.to_string()))
}

fn canonical(bytes: &[u8], again: &[u8]) -> Result<(), StatementError> {
    if bytes == again {
        Ok(())
    } else {
        Err(StatementError::NotCanonical)
    }
}

#[cfg(test)]
mod tests {
    use base::Sha256;
    use proptest::prelude::*;

    use super::*;

    fn secret(n: u8) -> SecretKey {
        SecretKey::from_seed(&[n; 32])
    }

    /// One of each kind.
    fn examples() -> Vec<SignedKeyStatement> {
        let [a, b] = [secret(1), secret(2)];
        let patterns = vec!["gcc-*".parse().unwrap(), "make".parse().unwrap()];
        let delegation = KeyStatement::Delegation {
            root: a.public(),
            key: b.public(),
            scope: Scope::new(patterns),
            until_unix_secs: Some(1_800_000_000),
        };
        let (old, new) = (a.public(), b.public());
        let rotation = KeyStatement::Rotation { old, new };
        let revocation = KeyStatement::Revocation { key: old, by: old };
        [delegation, rotation, revocation]
            .map(|statement| statement.sign(&[&a, &b]).unwrap())
            .to_vec()
    }

    #[test]
    fn statements_survive_their_encoding_one_by_one_and_in_a_file() {
        for signed in examples() {
            let bytes = signed.to_bytes();
            assert_eq!(SignedKeyStatement::from_bytes(&bytes), Ok(signed));
        }
        let file = SignedKeyStatement::print_file(&examples());
        assert_eq!(SignedKeyStatement::parse_file(&file), Ok(examples()));
    }

    #[test]
    fn the_encodings_are_pinned() {
        let pins: Vec<_> = examples()
            .iter()
            .map(|signed| Sha256::of(&signed.to_bytes()).to_hex())
            .collect();
        let expected = [
            "19a281d90d5fd2642be9cff87d1c7d94132493b1127b84e1caf273eae6911122",
            "893d9bba2aab8371e61ce77e235524672590056d3ab2d5db612c0126d4385645",
            "849990b7d8daff39f19103719ac7809e81d1025fa3cc1737f71293af345775ae",
        ];
        assert_eq!(pins, expected);
    }

    #[test]
    fn the_largest_delegation_fits() {
        let pattern: Pattern = "a".repeat(crate::PATTERN_BYTES_MAX).parse().unwrap();
        let [a, b] = [secret(1), secret(2)];
        let delegation = |count: usize| KeyStatement::Delegation {
            root: a.public(),
            key: b.public(),
            scope: Scope::new(vec![pattern.clone(); count]),
            until_unix_secs: Some(u64::MAX),
        };
        let signed = delegation(STATEMENT_PATTERNS_MAX).sign(&[&a]).unwrap();
        assert!(signed.to_bytes().len() <= STATEMENT_BYTES_MAX);
        let more = delegation(STATEMENT_PATTERNS_MAX + 1).sign(&[&a]);
        assert_eq!(more, Err(StatementError::Patterns));
    }

    #[test]
    fn who_is_named_must_sign_and_nobody_is_named_twice() {
        let [a, b] = [secret(1), secret(2)];
        let (old, new) = (a.public(), b.public());
        let rotation = KeyStatement::Rotation { old, new };
        assert_eq!(rotation.sign(&[&a]), Err(StatementError::Signature));
        let standing = KeyStatement::Rotation { old, new: old };
        assert_eq!(standing.sign(&[&a]), Err(StatementError::OneKey));
        let revocation = KeyStatement::Revocation { key: old, by: new };
        assert_eq!(
            revocation.clone().sign(&[&a]),
            Err(StatementError::Signature)
        );
        assert!(revocation.sign(&[&b]).is_ok());
    }

    #[test]
    fn a_signature_for_one_kind_is_none_for_another_statement() {
        let mut examples = examples();
        examples[1].signatures = vec![examples[0].signatures[0], examples[1].signatures[1]];
        let bytes = examples[1].to_bytes();
        assert_eq!(
            SignedKeyStatement::from_bytes(&bytes),
            Err(StatementError::Signature)
        );
        examples[2].signatures.clear();
        let bytes = examples[2].to_bytes();
        assert_eq!(
            SignedKeyStatement::from_bytes(&bytes),
            Err(StatementError::Signature)
        );
        let long = vec![0; STATEMENT_BYTES_MAX + 1];
        assert_eq!(
            SignedKeyStatement::from_bytes(&long),
            Err(StatementError::TooLong(long.len()))
        );
    }

    proptest! {
        #[test]
        fn no_single_changed_byte_goes_unnoticed(which in 0usize..3, position in 0usize..2048, change in 1u8..) {
            let mut bytes = examples()[which].to_bytes();
            let position = position % bytes.len();
            bytes[position] ^= change;
            prop_assert!(SignedKeyStatement::from_bytes(&bytes).is_err());
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let _ = SignedKeyStatement::from_bytes(&bytes);
            let _ = SignedKeyStatement::parse_file(&bytes);
        }
    }
}
