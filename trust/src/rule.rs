//! The rule that says how many of whom must agree: thresholds that may be nested.
//!
//! ```text
//! rule  = count "of" "trusted"                 any so many of the trusted keys: what `--threshold` sets
//!       | term
//! term  = who | ["any"] count "of" "{" term ("," term)* [","] "}"
//! who   = NAME | ed25519:KEY | "own"
//! ```
//!
//! Nobody stands in a rule twice, so what is counted on two sides is never the same signature.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use base::PublicKey;

/// Longest rule in bytes: room for some fifty keys written out.
pub const RULE_BYTES_MAX: usize = 4096;
/// Deepest nesting of thresholds. People stop understanding a rule long before.
pub const RULE_DEPTH_MAX: usize = 8;
/// Words of the language, which name nobody.
const WORDS: [&str; 4] = ["of", "any", "own", "trusted"];

/// Whether a rule can name a key by this text; others are named by the key itself.
pub fn is_rule_name(text: &str) -> bool {
    let in_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    // What begins with a digit would be read as a count by people, too.
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(in_name)
        && !WORDS.contains(&text)
}

/// A rule, as it was written.
#[derive(Clone, Debug)]
pub enum Rule {
    /// So many of all trusted keys.
    Flat(usize),
    /// Named keys, by thresholds.
    Nested(Term),
}

/// A part of a rule.
#[derive(Clone, Debug)]
pub enum Term {
    /// One who must vouch, and the character of the rule where that stands, counted from 1.
    Who(Who, usize),
    /// At least `need` of several, at least 1 and at most all.
    AtLeast {
        /// How many.
        need: usize,
        /// Of whom.
        of: Vec<Term>,
    },
}

/// Who is named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Who {
    /// The user's own keys, which count as one.
    Own,
    /// By the name that the user gave.
    Name(String),
    /// By the key.
    Key(PublicKey),
}

/// Why a text is no rule, or none for these keys.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("character {at} of the rule: {problem}")]
pub struct RuleError {
    /// Where, in characters counted from 1.
    pub at: usize,
    /// What is wrong.
    pub problem: RuleProblem,
}

/// What is wrong with a rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RuleProblem {
    /// Longer than [`RULE_BYTES_MAX`].
    #[error("a rule has at most {RULE_BYTES_MAX} bytes")]
    TooLong,
    /// Nested deeper than [`RULE_DEPTH_MAX`].
    #[error("thresholds are nested deeper than {RULE_DEPTH_MAX}")]
    TooDeep,
    /// Something else was to come.
    #[error("expected {expected}, found {found}")]
    Unexpected {
        /// What could have stood here.
        expected: &'static str,
        /// What stands here.
        found: String,
    },
    /// A count that can never or always be met.
    #[error("{need} of {of} is no threshold")]
    Threshold {
        /// The count.
        need: usize,
        /// Of how many.
        of: usize,
    },
    /// `trusted` inside a rule: it would count those again whom the rule names.
    #[error("`trusted` stands alone in a rule, as in `2 of trusted`")]
    TrustedInside,
    /// A key that is no key.
    #[error("a key is written as `ed25519:` and 64 hexadecimal digits")]
    Key,
    /// Nobody has this name.
    #[error("no trusted key is called `{0}`")]
    Nobody(String),
    /// Several have this name.
    #[error("several trusted keys are called `{0}`; name them by their keys")]
    Several(String),
    /// A key that is not trusted.
    #[error("`{0}` is no trusted key")]
    NotTrusted(PublicKey),
    /// Somebody stands in the rule a second time.
    #[error("`{0}` stands in the rule twice")]
    Twice(String),
}

impl Rule {
    /// The keys that it writes out.
    pub fn keys(&self) -> Vec<PublicKey> {
        let mut keys = Vec::new();
        if let Self::Nested(term) = self {
            term.add_keys(&mut keys);
        }
        keys
    }
}

impl Term {
    fn add_keys(&self, keys: &mut Vec<PublicKey>) {
        match self {
            Self::Who(Who::Key(key), _) => keys.push(*key),
            Self::Who(..) => {}
            Self::AtLeast { of, .. } => of.iter().for_each(|term| term.add_keys(keys)),
        }
    }
}

impl Default for Rule {
    fn default() -> Self {
        Self::Flat(1)
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flat(need) => write!(f, "{need} of trusted"),
            Self::Nested(term) => term.fmt(f),
        }
    }
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Who(who, _) => who.fmt(f),
            Self::AtLeast { need, of } => {
                write!(f, "{need} of {{")?;
                for (position, term) in of.iter().enumerate() {
                    let comma = if position > 0 { ", " } else { "" };
                    write!(f, "{comma}{term}")?;
                }
                f.write_str("}")
            }
        }
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Own => f.write_str("own"),
            Self::Name(name) => f.write_str(name),
            Self::Key(key) => key.fmt(f),
        }
    }
}

/// A rule whose terms are places.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Node {
    Place(usize),
    AtLeast { need: usize, of: Vec<Node> },
}

impl Node {
    /// So many of the first `places`; the count may be one that so few can never reach.
    pub(crate) fn flat(need: usize, places: usize) -> Self {
        Self::AtLeast {
            need: need.max(1),
            of: (0..places).map(Self::Place).collect(),
        }
    }

    /// A written rule, with the place of each who is named.
    ///
    /// # Errors
    /// [`RuleError`] for who has none, and for who stands in it twice.
    pub(crate) fn of(
        term: &Term,
        place: &impl Fn(&Who) -> Result<usize, RuleProblem>,
    ) -> Result<Self, RuleError> {
        Self::resolve(term, place, &mut BTreeMap::new())
    }

    fn resolve(
        term: &Term,
        place: &impl Fn(&Who) -> Result<usize, RuleProblem>,
        taken: &mut BTreeMap<usize, ()>,
    ) -> Result<Self, RuleError> {
        match term {
            Term::Who(who, at) => {
                let wrong = |problem| RuleError { at: *at, problem };
                let place = place(who).map_err(wrong)?;
                match taken.insert(place, ()) {
                    None => Ok(Self::Place(place)),
                    Some(()) => Err(wrong(RuleProblem::Twice(who.to_string()))),
                }
            }
            Term::AtLeast { need, of } => {
                let of = of.iter().map(|term| Self::resolve(term, place, taken));
                Ok(Self::AtLeast {
                    need: *need,
                    of: of.collect::<Result<_, _>>()?,
                })
            }
        }
    }

    /// How many of its parts these places satisfy, and how many must be.
    pub(crate) fn have(&self, places: &BTreeSet<usize>) -> (usize, usize) {
        match self {
            Self::Place(place) => (usize::from(places.contains(place)), 1),
            Self::AtLeast { need, of } => {
                (of.iter().filter(|part| part.is_met(places)).count(), *need)
            }
        }
    }

    /// Whether these places satisfy it.
    pub(crate) fn is_met(&self, places: &BTreeSet<usize>) -> bool {
        let (have, need) = self.have(places);
        have >= need
    }

    /// Whether a place stands in it.
    pub(crate) fn names(&self, place: usize) -> bool {
        match self {
            Self::Place(named) => *named == place,
            Self::AtLeast { of, .. } => of.iter().any(|part| part.names(place)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn node() -> impl Strategy<Value = Node> {
        let leaf = (0usize..6).prop_map(Node::Place);
        leaf.prop_recursive(4, 24, 4, |inner| {
            (proptest::collection::vec(inner, 1..4), 1usize..4).prop_map(|(of, need)| {
                Node::AtLeast {
                    need: need.min(of.len()),
                    of,
                }
            })
        })
    }

    proptest! {
        #[test]
        fn more_who_agree_never_spoil_a_rule(
            node in node(),
            few in proptest::collection::btree_set(0usize..6, 0..4),
            more in proptest::collection::btree_set(0usize..6, 0..4),
        ) {
            let all: BTreeSet<_> = few.union(&more).copied().collect();
            prop_assert!(!node.is_met(&few) || node.is_met(&all));
        }

        #[test]
        fn nobody_satisfies_no_rule_and_everybody_every_one(node in node()) {
            prop_assert!(!node.is_met(&BTreeSet::new()));
            prop_assert!(node.is_met(&(0..6).collect()));
        }

        #[test]
        fn whom_the_rule_does_not_name_changes_nothing(
            node in node(),
            places in proptest::collection::btree_set(0usize..6, 0..6),
        ) {
            let named: BTreeSet<_> = places.iter().copied().filter(|p| node.names(*p)).collect();
            prop_assert_eq!(node.have(&places), node.have(&named));
        }
    }
}
