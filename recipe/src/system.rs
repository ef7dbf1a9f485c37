//! What a package is built for: `x86_64-linux`. It is part of the derivation, so two systems never share a package hash.

use std::fmt;

/// Longest system name in bytes; the longest of Rust's architectures and systems stay below it together.
const SYSTEM_BYTES_MAX: usize = 64;

/// An architecture and an operating system, `[a-z0-9_]+-[a-z0-9_]+`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct System(Box<str>);

/// A text that names no system.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a system is written like `x86_64-linux`")]
pub struct SystemError;

impl System {
    /// Checks the spelling; whether such a machine exists is not asked.
    ///
    /// # Errors
    /// [`SystemError`] unless it is two words of `a-z0-9_` with a hyphen between.
    pub fn new(text: &str) -> Result<Self, SystemError> {
        let is_word = |w: &str| {
            !w.is_empty()
                && w.bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
        };
        match text.split_once('-') {
            Some((architecture, os))
                if text.len() <= SYSTEM_BYTES_MAX && is_word(architecture) && is_word(os) =>
            {
                Ok(Self(text.into()))
            }
            _ => Err(SystemError),
        }
    }

    /// The system this program was compiled for.
    pub fn host() -> Self {
        let text = format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS);
        Self(text.into())
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for System {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for System {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "System({})", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_has_a_well_formed_name() {
        let host = System::host();
        assert_eq!(System::new(host.as_str()), Ok(host));
    }

    #[test]
    fn texts_that_would_break_a_line_or_a_word_are_no_systems() {
        for text in [
            "",
            "x86_64",
            "-linux",
            "x86_64-",
            "x86-64-linux",
            "a b-c",
            "a-b\n",
            "A-b",
        ] {
            assert_eq!(System::new(text), Err(SystemError), "{text:?}");
        }
        assert_eq!(
            System::new(&format!("a-{}", "b".repeat(63))),
            Err(SystemError)
        );
    }
}
