//! Names of packages: what may stand in a dependency list, in a directory listing and in a path.

use std::fmt;
use std::str::FromStr;

/// The longest package name in bytes: room for every name in the field, and far below any file system's limit.
pub const NAME_BYTES_MAX: usize = 64;

/// A package's name: `[a-z0-9][a-z0-9+._-]*`, at most [`NAME_BYTES_MAX`] bytes.
///
/// It is the name of a folder of the package tree, so it can hold no path separator and never is `.` or `..`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PackageName(Box<str>);

impl PackageName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Why a text is no package name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// The text is empty.
    #[error("a package name cannot be empty")]
    Empty,
    /// The text is longer than [`NAME_BYTES_MAX`].
    #[error("a package name has at most {NAME_BYTES_MAX} bytes, this has {0}")]
    TooLong(usize),
    /// The first character is not a lower-case letter or digit.
    #[error("a package name starts with a lower-case letter or a digit, not with {0:?}")]
    Start(char),
    /// A character outside the allowed set.
    #[error("a package name is made of `a-z`, `0-9` and `+._-`, found {0:?}")]
    Character(char),
}

impl FromStr for PackageName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let first = text.chars().next().ok_or(NameError::Empty)?;
        if text.len() > NAME_BYTES_MAX {
            return Err(NameError::TooLong(text.len()));
        }
        if !first.is_ascii_lowercase() && !first.is_ascii_digit() {
            return Err(NameError::Start(first));
        }
        match text.chars().find(|c| !is_name_character(*c)) {
            Some(other) => Err(NameError::Character(other)),
            None => Ok(Self(text.into())),
        }
    }
}

impl fmt::Display for PackageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for PackageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PackageName({})", self.0)
    }
}

fn is_name_character(c: char) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '+' | '.' | '_' | '-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_of_the_field_are_names() {
        for name in ["make", "gtk+3.0", "lua5.4", "linux-headers", "7zip", "a_b"] {
            assert_eq!(
                name.parse::<PackageName>().map(|n| n.to_string()),
                Ok(name.into())
            );
        }
    }

    #[test]
    fn paths_and_odd_characters_are_no_names() {
        for text in [
            "", ".", "..", "../make", "a/b", "Make", "-x", "a b", "a\n", "é", "a\0",
        ] {
            assert!(
                text.parse::<PackageName>().is_err(),
                "{text:?} must be refused"
            );
        }
        assert_eq!(
            "a".repeat(65).parse::<PackageName>(),
            Err(NameError::TooLong(65))
        );
    }
}
