//! Builder keys: Ed25519 keys that sign realisations, and their one textual form, `ed25519:<64 hexadecimal digits>`.
//!
//! A builder's key is not the node's identity: the identity names a machine on the network, the key vouches for outputs.

use std::fmt;
use std::str::FromStr;

use ed25519_dalek::{Signer as _, SigningKey, VerifyingKey};

use crate::{ParseDigestError, Sha256};

const PREFIX: &str = "ed25519:";
const SECRET_PREFIX: &str = "ed25519-secret:";

/// An Ed25519 signature (RFC 8032), 64 bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Signature([u8; 64]);

impl Signature {
    /// Wraps signature bytes that were received; they prove nothing until [`PublicKey::verify`] says so.
    pub const fn from_bytes(bytes: [u8; 64]) -> Self {
        Self(bytes)
    }

    /// The wire form.
    pub const fn as_bytes(&self) -> &[u8; 64] {
        &self.0
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Signature(..)")
    }
}

/// The public half of a builder key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey([u8; 32]);

impl PublicKey {
    /// Wraps key bytes; a point that is not on the curve simply never verifies anything.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The wire form.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Checks a signature strictly: no malleable or small-order forms, so one statement has one valid signature shape.
    pub fn verify(&self, message: &[u8], signature: &Signature) -> bool {
        let signature = ed25519_dalek::Signature::from_bytes(&signature.0);
        VerifyingKey::from_bytes(&self.0)
            .is_ok_and(|key| key.verify_strict(message, &signature).is_ok())
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", Sha256::from_bytes(self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

impl FromStr for PublicKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse_prefixed(text, PREFIX).map(Self)
    }
}

/// The secret half of a builder key. Never printed by `Debug`; [`Self::to_text`] is for the key file only.
#[derive(Clone)]
pub struct SecretKey(SigningKey);

impl SecretKey {
    /// Makes a key from 32 bytes of secret randomness.
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(SigningKey::from_bytes(seed))
    }

    /// The half that others may know.
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key().to_bytes())
    }

    /// Signs a message.
    pub fn sign(&self, message: &[u8]) -> Signature {
        Signature(self.0.sign(message).to_bytes())
    }

    /// The text a key file holds.
    pub fn to_text(&self) -> String {
        format!("{SECRET_PREFIX}{}", Sha256::from_bytes(self.0.to_bytes()))
    }

    /// Reads the text of a key file.
    ///
    /// # Errors
    /// [`KeyError`] when the text is not of the form [`Self::to_text`] writes.
    pub fn from_text(text: &str) -> Result<Self, KeyError> {
        parse_prefixed(text, SECRET_PREFIX).map(|seed| Self::from_seed(&seed))
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretKey(of {})", self.public())
    }
}

/// Why a text is no key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The text does not start with the expected prefix.
    #[error("a key is written as `{0}` and 64 hexadecimal digits")]
    Prefix(&'static str),
    /// The rest is not 32 bytes in hexadecimal.
    #[error("malformed key")]
    Digits(#[source] ParseDigestError),
}

fn parse_prefixed(text: &str, prefix: &'static str) -> Result<[u8; 32], KeyError> {
    let digits = text.strip_prefix(prefix).ok_or(KeyError::Prefix(prefix))?;
    digits
        .parse::<Sha256>()
        .map(|bytes| *bytes.as_bytes())
        .map_err(KeyError::Digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_verifies_only_its_own_message_and_key() {
        let key = SecretKey::from_seed(&[7; 32]);
        let signature = key.sign(b"message");
        assert!(key.public().verify(b"message", &signature));
        assert!(!key.public().verify(b"massage", &signature));
        assert!(
            !SecretKey::from_seed(&[8; 32])
                .public()
                .verify(b"message", &signature)
        );
        assert!(!PublicKey::from_bytes([0; 32]).verify(b"message", &signature));
    }

    #[test]
    fn keys_survive_their_textual_form_and_secrets_stay_out_of_debug() {
        let key = SecretKey::from_seed(&[7; 32]);
        assert_eq!(key.public().to_string().parse(), Ok(key.public()));
        assert_eq!(
            SecretKey::from_text(&key.to_text()).unwrap().public(),
            key.public()
        );
        assert!(!format!("{key:?}").contains(&Sha256::from_bytes([7; 32]).to_hex()));
        assert!(matches!(
            "ed25519:12".parse::<PublicKey>(),
            Err(KeyError::Digits(_))
        ));
        assert!(matches!(
            "12".parse::<PublicKey>(),
            Err(KeyError::Prefix(_))
        ));
    }
}
