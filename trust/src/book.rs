//! Statements about keys, sorted by what they are about.

use std::collections::{BTreeMap, BTreeSet};

use base::PublicKey;

use crate::{Discount, KeyStatement, Scope, SignedKeyStatement};

/// What keys said of keys.
#[derive(Debug, Default)]
pub(crate) struct Book<'a> {
    /// Keys that said of themselves that nothing they signed counts.
    pub revoked: BTreeSet<PublicKey>,
    /// Roots that said so of a key. It ends what this root gave the key, and nothing else: a root has no say over keys that
    /// others named.
    pub revoked_by: BTreeSet<(PublicKey, PublicKey)>,
    rotations: BTreeMap<PublicKey, BTreeSet<PublicKey>>,
    delegations: Vec<(PublicKey, PublicKey, &'a Scope, Option<u64>)>,
}

impl<'a> Book<'a> {
    pub(crate) fn of(statements: &'a [SignedKeyStatement]) -> Self {
        let mut book = Self::default();
        for signed in statements {
            match signed.statement() {
                KeyStatement::Revocation { key, by } if key == by => {
                    book.revoked.insert(*key);
                }
                KeyStatement::Revocation { key, by } => {
                    book.revoked_by.insert((*by, *key));
                }
                KeyStatement::Rotation { old, new } => {
                    book.rotations.entry(*old).or_default().insert(*new);
                }
                KeyStatement::Delegation {
                    root,
                    key,
                    scope,
                    until_unix_secs,
                } => book
                    .delegations
                    .push((*root, *key, scope, *until_unix_secs)),
            }
        }
        book
    }

    /// Why a key no longer holds a place of its own, and who follows; `None` while it holds it. A revoked key names no
    /// successor: whoever stole it could do that as well.
    pub(crate) fn end_of(&self, key: &PublicKey) -> Option<(Option<PublicKey>, Discount)> {
        if self.revoked.contains(key) {
            return Some((None, Discount::Revoked));
        }
        let mut successors = self.rotations.get(key)?.iter();
        match (successors.next(), successors.next()) {
            (Some(new), None) => Some((Some(*new), Discount::ReplacedBy(*new))),
            (Some(_), Some(_)) => Some((None, Discount::Torn)),
            (None, _) => None,
        }
    }

    /// The keys that a root named, for which packages, and before which second.
    pub(crate) fn delegations(
        &self,
        root: &PublicKey,
    ) -> impl Iterator<Item = (PublicKey, &'a Scope, Option<u64>)> {
        let root = *root;
        self.delegations
            .iter()
            .filter(move |(by, ..)| *by == root)
            .map(|(_, key, scope, until)| (*key, *scope, *until))
    }
}
