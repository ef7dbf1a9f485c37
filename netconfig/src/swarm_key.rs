//! Keys of private swarms: the file `swarm.key` that every member of a private network shares.
//!
//! The format is that of the IPFS tools: three lines, `/key/swarm/psk/1.0.0/`, `/base16/`, 64 hexadecimal digits. The
//! other encodings some tools accept (`/base64/`, `/bin/`) are refused by name, since not every implementation reads them.

use std::fmt;
use std::str::FromStr;

use base::Sha256;

const HEADER: &str = "/key/swarm/psk/1.0.0/";
const ENCODING: &str = "/base16/";

/// A pre-shared key of 32 bytes. `Debug` never shows it.
#[derive(Clone, PartialEq, Eq)]
pub struct SwarmKey([u8; 32]);

impl SwarmKey {
    /// A key from 32 bytes of secret randomness.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The key's bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The text of a key file. Not `Display`: a key must not slip into a message.
    pub fn to_text(&self) -> String {
        format!("{HEADER}\n{ENCODING}\n{}\n", Sha256::from_bytes(self.0))
    }
}

impl fmt::Debug for SwarmKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SwarmKey(..)")
    }
}

/// Why a text is no swarm key. The text itself is a secret and never repeated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SwarmKeyError {
    /// The first line is another one.
    #[error("a swarm key starts with the line `{HEADER}`")]
    Header,
    /// The second line is another one.
    #[error("a swarm key is written in `{ENCODING}`, other encodings are not read")]
    Encoding,
    /// The third line is no key.
    #[error("the third line of a swarm key has 64 hexadecimal digits")]
    Digits,
    /// Something follows the key.
    #[error("a swarm key has three lines")]
    Trailing,
}

impl FromStr for SwarmKey {
    type Err = SwarmKeyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut lines = text.lines().map(str::trim_end);
        if lines.next() != Some(HEADER) {
            return Err(SwarmKeyError::Header);
        }
        if lines.next() != Some(ENCODING) {
            return Err(SwarmKeyError::Encoding);
        }
        let digits = lines.next().unwrap_or_default().to_ascii_lowercase();
        let key: Sha256 = digits.parse().map_err(|_| SwarmKeyError::Digits)?;
        match lines.find(|line| !line.is_empty()) {
            Some(_) => Err(SwarmKeyError::Trailing),
            None => Ok(Self(*key.as_bytes())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_survives_its_file() {
        let key = SwarmKey::from_bytes([7; 32]);
        assert_eq!(key.to_text().parse(), Ok(key.clone()));
        assert_eq!(key.to_text().replace('\n', "\r\n").parse(), Ok(key.clone()));
        assert!(!format!("{key:?}").contains("07"));
    }

    #[test]
    fn each_broken_line_is_named() {
        let digits = "ab".repeat(32);
        let parse = |text: String| text.parse::<SwarmKey>().unwrap_err();
        assert_eq!(parse(String::new()), SwarmKeyError::Header);
        assert_eq!(
            parse(format!("{HEADER}\n/base64/\n{digits}\n")),
            SwarmKeyError::Encoding
        );
        assert_eq!(
            parse(format!("{HEADER}\n{ENCODING}\n{}\n", &digits[1..])),
            SwarmKeyError::Digits
        );
        assert_eq!(
            parse(format!("{HEADER}\n{ENCODING}\n{digits}\nx\n")),
            SwarmKeyError::Trailing
        );
    }
}
