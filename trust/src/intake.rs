//! What to keep of statements about keys that came along with something else, from whoever.
//!
//! A user's book of keys is worth keeping small and cannot be allowed to be filled by others. So a statement is kept only when it
//! is about a key that has a place already, and only so many of a kind: a key that was stolen can name and take back keys
//! without end. Nobody gets a place by it that no key with a place gave. What ends trust is kept before what gives it.

use base::PublicKey;

use crate::book::Book;
use crate::ring::{Ring, Seating};
use crate::{KeyStatement, STATEMENTS_MAX, SignedKeyStatement};

/// Delegations of one root: machines that a project builds with, and their next keys.
const DELEGATIONS_OF_ROOT_MAX: usize = 32;
/// Delegations in all; half of the book stays free for what ends trust.
const DELEGATIONS_MAX: usize = STATEMENTS_MAX / 2;
/// Keys that one root took back without having named them, as far as is known here: the delegation may come later.
const REVOCATIONS_AHEAD_MAX: usize = 32;

/// What came of statements that were offered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Intake {
    /// All that is to be kept from now on, in place of what was.
    pub kept: Vec<SignedKeyStatement>,
    /// What is new in it.
    pub new: Vec<SignedKeyStatement>,
    /// Rotations of a key that was rotated to another one already. They are not kept: what was known first stays.
    pub torn: Vec<SignedKeyStatement>,
}

impl Intake {
    /// What a user with this ring, whose statements are those that are known, keeps of those that are offered.
    pub fn of(ring: &Ring, offered: &[SignedKeyStatement], now_unix_secs: u64) -> Self {
        let mut ring = ring.clone();
        let mut intake = Self::default();
        let mut rest: Vec<_> = offered.iter().collect();
        // What one statement gives a place, another one may take away: until nothing changes any more.
        loop {
            let seating = Seating::of(&ring);
            let before = rest.len();
            rest.retain(|signed| {
                let decision = Known {
                    seating: &seating,
                    statements: &ring.statements,
                    now_unix_secs,
                }
                .decide(signed);
                match decision {
                    Decision::NotNow => return true,
                    Decision::Never => {}
                    Decision::Torn => intake.torn.push((*signed).clone()),
                    Decision::Keep => {
                        make_room(&mut ring.statements, signed, now_unix_secs);
                        ring.statements.push((*signed).clone());
                        intake.new.push((*signed).clone());
                    }
                }
                false
            });
            if rest.len() == before {
                break;
            }
        }
        intake.new.retain(|signed| ring.statements.contains(signed));
        intake.kept = ring.statements;
        intake
    }
}

enum Decision {
    Keep,
    /// It may be worth keeping when others were.
    NotNow,
    Never,
    Torn,
}

struct Known<'a> {
    seating: &'a Seating,
    statements: &'a [SignedKeyStatement],
    now_unix_secs: u64,
}

impl Known<'_> {
    fn decide(&self, signed: &SignedKeyStatement) -> Decision {
        if self.statements.contains(signed) {
            return Decision::Never;
        }
        match signed.statement() {
            KeyStatement::Delegation { root, key, .. } => self.delegation(signed, root, key),
            KeyStatement::Rotation { old, .. } => self.rotation(old),
            KeyStatement::Revocation { key, by } if key == by => self.revocation_of_itself(key),
            KeyStatement::Revocation { key, by } => self.revocation(key, by),
        }
    }

    fn delegation(
        &self,
        signed: &SignedKeyStatement,
        root: &PublicKey,
        key: &PublicKey,
    ) -> Decision {
        if is_over(signed, self.now_unix_secs) {
            return Decision::Never;
        }
        if !self.holds_a_place(root) {
            return Decision::NotNow;
        }
        let book = Book::of(self.statements);
        // One that is given out again after it was taken back.
        let is_taken_back = book.revoked.contains(key) || book.revoked_by.contains(&(*root, *key));
        let others = || {
            self.statements
                .iter()
                .filter(|known| !replaces(signed, known))
        };
        let has_more = self.statements.iter().any(|known| replaces(known, signed));
        let of_root = others().filter(|known| is_delegation_of(known, Some(root)));
        let of_all = others().filter(|known| is_delegation_of(known, None));
        let is_full =
            of_root.count() >= DELEGATIONS_OF_ROOT_MAX || of_all.count() >= DELEGATIONS_MAX;
        if is_taken_back || has_more || is_full {
            Decision::Never
        } else {
            Decision::Keep
        }
    }

    fn rotation(&self, old: &PublicKey) -> Decision {
        let is_of_old = |known: &SignedKeyStatement| matches!(known.statement(), KeyStatement::Rotation { old: other, .. } if other == old);
        if self.statements.iter().any(is_of_old) {
            // Only a key that has a place is worth a word.
            return match self.has_place(old) {
                true => Decision::Torn,
                false => Decision::Never,
            };
        }
        match self.holds_a_place(old) {
            true => Decision::Keep,
            false => Decision::NotNow,
        }
    }

    fn revocation_of_itself(&self, key: &PublicKey) -> Decision {
        match self.has_place(key) {
            true => Decision::Keep,
            false => Decision::NotNow,
        }
    }

    fn revocation(&self, key: &PublicKey, by: &PublicKey) -> Decision {
        if !self.holds_a_place(by) {
            return Decision::NotNow;
        }
        let named = |key: &PublicKey| {
            self.statements.iter().any(|known| matches!(known.statement(), KeyStatement::Delegation { root, key: other, .. } if root == by && other == key))
        };
        let ahead = |known: &&SignedKeyStatement| matches!(known.statement(), KeyStatement::Revocation { key, by: other } if other == by && key != by && !named(key));
        if named(key) || self.statements.iter().filter(ahead).count() < REVOCATIONS_AHEAD_MAX {
            Decision::Keep
        } else {
            Decision::Never
        }
    }

    /// Whether the key speaks for a place in its own name: the user named it, or it took the place of one that he named.
    fn holds_a_place(&self, key: &PublicKey) -> bool {
        let places = &self.seating.places;
        places
            .iter()
            .any(|place| place.holder.as_ref() == Some(key))
    }

    /// Whether the key speaks for a place, or did. Of the user's own keys everything but their end is his own business.
    fn has_place(&self, key: &PublicKey) -> bool {
        let Seating {
            voices, silenced, ..
        } = self.seating;
        voices.contains_key(key) || matches!(silenced.get(key), Some((Some(_), _)))
    }
}

fn is_over(signed: &SignedKeyStatement, now_unix_secs: u64) -> bool {
    matches!(signed.statement(), KeyStatement::Delegation { until_unix_secs: Some(until), .. } if *until <= now_unix_secs)
}

fn is_delegation_of(signed: &SignedKeyStatement, by: Option<&PublicKey>) -> bool {
    matches!(signed.statement(), KeyStatement::Delegation { root, .. } if by.is_none_or(|by| by == root))
}

/// Whether one says all that the other does: a delegation that is renewed.
fn replaces(new: &SignedKeyStatement, old: &SignedKeyStatement) -> bool {
    match (new.statement(), old.statement()) {
        (
            KeyStatement::Delegation {
                root,
                key,
                scope,
                until_unix_secs,
            },
            KeyStatement::Delegation {
                root: old_root,
                key: old_key,
                scope: old_scope,
                until_unix_secs: old_until,
            },
        ) => {
            let lasts_as_long = match (until_unix_secs, old_until) {
                (None, _) => true,
                (Some(_), None) => false,
                (Some(new), Some(old)) => new >= old,
            };
            (root, key, scope) == (old_root, old_key, old_scope) && lasts_as_long
        }
        _ => false,
    }
}

/// Removes what a new statement replaces, and where there is no room, what gives trust: first what gives none any more.
fn make_room(known: &mut Vec<SignedKeyStatement>, new: &SignedKeyStatement, now_unix_secs: u64) {
    known.retain(|old| !replaces(new, old));
    if known.len() >= STATEMENTS_MAX {
        known.retain(|old| !is_over(old, now_unix_secs));
    }
    while known.len() >= STATEMENTS_MAX {
        let last = known.iter().rposition(|old| is_delegation_of(old, None));
        known.remove(last.unwrap_or(known.len() - 1));
    }
}
