//! For which packages a key counts: patterns of package names, with `*` for any text and `?` for any one character.

use std::fmt;
use std::str::FromStr;

use base::{NAME_BYTES_MAX, PackageName};

/// Longest pattern in bytes: the longest name, with a star at either end.
pub const PATTERN_BYTES_MAX: usize = NAME_BYTES_MAX + 2;

/// A pattern of package names.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pattern(Box<str>);

/// Why a text is no pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PatternError {
    /// The text is empty: it would match nothing.
    #[error("a pattern of package names cannot be empty")]
    Empty,
    /// The text is longer than [`PATTERN_BYTES_MAX`].
    #[error("a pattern of package names has at most {PATTERN_BYTES_MAX} bytes, this has {0}")]
    TooLong(usize),
    /// A character that is in no name.
    #[error("a pattern of package names is made of `a-z`, `0-9`, `+._-`, `*` and `?`, found {0:?}")]
    Character(char),
}

impl Pattern {
    /// The pattern as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the pattern covers the whole name. Takes at most pattern × name steps: a mismatch goes back to the last star
    /// only.
    pub fn matches(&self, name: &PackageName) -> bool {
        let (pattern, name) = (self.0.as_bytes(), name.as_str().as_bytes());
        let (mut p, mut n) = (0, 0);
        let mut star: Option<(usize, usize)> = None;
        while n < name.len() {
            match pattern.get(p) {
                Some(b'*') => {
                    star = Some((p, n));
                    p += 1;
                }
                Some(c) if *c == b'?' || *c == name[n] => {
                    p += 1;
                    n += 1;
                }
                _ => match star {
                    // The last star takes one more character.
                    Some((at, taken)) => {
                        star = Some((at, taken + 1));
                        p = at + 1;
                        n = taken + 1;
                    }
                    None => return false,
                },
            }
        }
        pattern[p..].iter().all(|c| *c == b'*')
    }
}

impl FromStr for Pattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        let allowed = |c: &char| {
            c.is_ascii_lowercase()
                || c.is_ascii_digit()
                || matches!(c, '+' | '.' | '_' | '-' | '*' | '?')
        };
        if text.is_empty() {
            return Err(PatternError::Empty);
        }
        if text.len() > PATTERN_BYTES_MAX {
            return Err(PatternError::TooLong(text.len()));
        }
        match text.chars().find(|c| !allowed(c)) {
            Some(other) => Err(PatternError::Character(other)),
            None => Ok(Self(text.into())),
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pattern({})", self.0)
    }
}

/// The packages that a key counts for: those that one of the patterns matches, all of them if there is no pattern.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope(Vec<Pattern>);

impl Scope {
    /// The packages of these patterns.
    pub const fn new(patterns: Vec<Pattern>) -> Self {
        Self(patterns)
    }

    /// The patterns; none for all packages.
    pub fn patterns(&self) -> &[Pattern] {
        &self.0
    }

    /// Whether the package is among them.
    pub fn covers(&self, package: &PackageName) -> bool {
        self.0.is_empty() || self.0.iter().any(|pattern| pattern.matches(package))
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("all packages");
        }
        for (position, pattern) in self.0.iter().enumerate() {
            let comma = if position > 0 { ", " } else { "" };
            write!(f, "{comma}`{pattern}`")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn matches(pattern: &str, name: &str) -> bool {
        pattern
            .parse::<Pattern>()
            .unwrap()
            .matches(&name.parse().unwrap())
    }

    #[test]
    fn stars_and_question_marks_match_what_they_say() {
        for (pattern, name, expected) in [
            ("make", "make", true),
            ("make", "cmake", false),
            ("*", "anything", true),
            ("gcc-*", "gcc-libs", true),
            ("gcc-*", "gcc", false),
            ("*make", "cmake", true),
            ("l*a5.?", "lua5.4", true),
            ("a*b*c", "axbxc", true),
            ("a*b*c", "acb", false),
            ("a*b*c", "aabbcc", true),
            ("?", "ab", false),
            ("ab**", "ab", true),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn what_can_match_no_name_is_refused() {
        for text in [
            "",
            "A*",
            "a b",
            "a/b",
            "é",
            &"a".repeat(PATTERN_BYTES_MAX + 1),
        ] {
            assert!(text.parse::<Pattern>().is_err(), "{text:?}");
        }
    }

    /// The same by trying everything, as the definition says.
    fn slowly(pattern: &[u8], name: &[u8]) -> bool {
        match pattern.split_first() {
            None => name.is_empty(),
            Some((b'*', rest)) => (0..=name.len()).any(|n| slowly(rest, &name[n..])),
            Some((c, rest)) => name
                .split_first()
                .is_some_and(|(first, name)| (*c == b'?' || c == first) && slowly(rest, name)),
        }
    }

    proptest! {
        #[test]
        fn matching_is_what_trying_everything_finds(pattern in "[ab*?]{1,8}", name in "[ab]{1,10}") {
            prop_assert_eq!(matches(&pattern, &name), slowly(pattern.as_bytes(), name.as_bytes()));
        }
    }
}
