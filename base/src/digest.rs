//! SHA-256 as a value: the one digest this system trusts for sources, blocks, outputs and package hashes.

use std::fmt;
use std::str::FromStr;

use sha2::Digest as _;

/// A SHA-256 digest (FIPS 180-4), 32 bytes, printed as 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sha256([u8; 32]);

impl Sha256 {
    /// Length of a digest in bytes.
    pub const LEN: usize = 32;

    /// Wraps digest bytes that were computed or received elsewhere.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The digest of `data` in one call.
    pub fn of(data: &[u8]) -> Self {
        Self(sha2::Sha256::digest(data).into())
    }

    /// The raw digest bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Lower-case hexadecimal form, 64 characters.
    pub fn to_hex(&self) -> String {
        let mut hex = Vec::with_capacity(2 * Self::LEN);
        for byte in self.0 {
            hex.push(hex_digit(byte >> 4));
            hex.push(hex_digit(byte & 15));
        }
        String::from_utf8(hex).expect("digits are ASCII")
    }
}

impl fmt::Display for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_hex())
    }
}

impl fmt::Debug for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sha256({self})")
    }
}

/// Why a text is no SHA-256 digest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseDigestError {
    /// Not 64 characters long.
    #[error("a sha256 has 64 hexadecimal digits, this has {0} characters")]
    Length(usize),
    /// A character outside `0-9a-f`; upper case is refused so that every digest has one spelling.
    #[error("a sha256 is written in lower-case hexadecimal digits, found {0:?}")]
    Digit(char),
}

impl FromStr for Sha256 {
    type Err = ParseDigestError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let length = text.chars().count();
        if length != 2 * Self::LEN {
            return Err(ParseDigestError::Length(length));
        }
        let mut bytes = [0; Self::LEN];
        for (position, character) in text.chars().enumerate() {
            let value = hex_value(character).ok_or(ParseDigestError::Digit(character))?;
            bytes[position / 2] = (bytes[position / 2] << 4) | value;
        }
        Ok(Self(bytes))
    }
}

/// Hashes a stream piece by piece.
#[derive(Clone, Default)]
pub struct Hasher(sha2::Sha256);

impl Hasher {
    /// A hasher that has seen no bytes yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes in the next bytes of the stream.
    pub fn update(&mut self, data: &[u8]) {
        self.0.update(data);
    }

    /// The digest of all bytes taken in.
    pub fn finish(self) -> Sha256 {
        Sha256(self.0.finalize().into())
    }
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hasher")
    }
}

/// The digit for a value below 16.
const fn hex_digit(value: u8) -> u8 {
    if value < 10 {
        b'0' + value
    } else {
        b'a' + value - 10
    }
}

fn hex_value(character: char) -> Option<u8> {
    match character {
        '0'..='9' => Some(character as u8 - b'0'),
        'a'..='f' => Some(character as u8 - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_digest_of_abc_is_the_one_of_the_standard() {
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(Sha256::of(b"abc").to_hex(), expected);
    }

    #[test]
    fn upper_case_and_wrong_lengths_are_refused() {
        assert_eq!("ab".parse::<Sha256>(), Err(ParseDigestError::Length(2)));
        assert_eq!(
            "A".repeat(64).parse::<Sha256>(),
            Err(ParseDigestError::Digit('A'))
        );
        assert_eq!(
            "é".repeat(64).parse::<Sha256>(),
            Err(ParseDigestError::Digit('é'))
        );
    }

    proptest! {
        #[test]
        fn printing_and_parsing_give_the_same_digest(bytes: [u8; 32]) {
            let digest = Sha256::from_bytes(bytes);
            prop_assert_eq!(digest.to_hex().parse::<Sha256>(), Ok(digest));
        }

        #[test]
        fn hashing_in_pieces_equals_hashing_at_once(data: Vec<u8>, cut: usize) {
            let (head, tail) = data.split_at(cut % (data.len() + 1));
            let mut hasher = Hasher::new();
            hasher.update(head);
            hasher.update(tail);
            prop_assert_eq!(hasher.finish(), Sha256::of(&data));
        }
    }
}
