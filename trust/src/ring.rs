//! The keys a user named, and what follows from that: which key speaks for which place, for what and until when.
//!
//! A **place** is what a rule counts: one for each key that was named, and one for all of the user's own keys together. A
//! key speaks for one place only.

use std::collections::BTreeMap;

use base::{PackageName, PublicKey};

use crate::rule::{Node, Rule, RuleError, RuleProblem, Who};
use crate::{Day, Discount, Scope};

/// A key that the user named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The key.
    pub key: PublicKey,
    /// What the user calls it.
    pub name: Option<String>,
    /// For which packages it counts.
    pub scope: Scope,
    /// The last day on which it counts; for ever without one.
    pub until: Option<Day>,
}

impl Member {
    /// A key that counts for everything and for ever.
    pub fn new(key: PublicKey) -> Self {
        Self {
            key,
            name: None,
            scope: Scope::default(),
            until: None,
        }
    }
}

/// All that a policy is made from.
#[derive(Clone, Debug, Default)]
pub struct Ring {
    /// The user's own keys.
    pub own: Vec<PublicKey>,
    /// The keys that the user named; of a key that occurs twice the first counts.
    pub members: Vec<Member>,
}

/// What a key may speak for: it counts where all scopes cover the package, before `until`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Grant {
    pub scopes: Vec<Scope>,
    pub until_unix_secs: Option<u64>,
}

/// A key that speaks for a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Voice {
    pub place: usize,
    /// One that covers package and time is enough.
    pub grants: Vec<Grant>,
}

impl Grant {
    fn covers(&self, package: Option<&PackageName>) -> bool {
        package.is_none_or(|package| self.scopes.iter().all(|scope| scope.covers(package)))
    }

    fn lasts(&self, now_unix_secs: u64) -> bool {
        self.until_unix_secs
            .is_none_or(|until| now_unix_secs < until)
    }
}

impl Voice {
    /// Why it does not count for a package at a time; every package is covered as long as none is named.
    pub(crate) fn discount(&self, package: Option<&PackageName>, now: u64) -> Option<Discount> {
        if self
            .grants
            .iter()
            .any(|grant| grant.covers(package) && grant.lasts(now))
        {
            return None;
        }
        let lasting = self.grants.iter().filter(|grant| grant.lasts(now));
        let uncovered = lasting.flat_map(|grant| &grant.scopes);
        if let Some(scope) = uncovered
            .filter(|scope| package.is_some_and(|package| !scope.covers(package)))
            .last()
        {
            return Some(Discount::OutOfScope(scope.clone()));
        }
        let until = self
            .grants
            .iter()
            .filter_map(|grant| grant.until_unix_secs)
            .max();
        Some(Discount::Expired(until.and_then(Day::before)))
    }
}

/// One who can vouch, as a rule counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// The key that the user named; `None` for the user's own keys.
    pub named: Option<PublicKey>,
    pub name: Option<String>,
}

/// A ring, with everything said and done.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seating {
    pub places: Vec<Place>,
    pub voices: BTreeMap<PublicKey, Voice>,
}

impl Seating {
    pub(crate) fn of(ring: &Ring) -> Self {
        let mut seating = Self::default();
        for member in &ring.members {
            if seating
                .places
                .iter()
                .all(|place| place.named != Some(member.key))
            {
                seating.seat(member);
            }
        }
        seating.seat_own(&ring.own);
        seating
    }

    fn seat(&mut self, member: &Member) {
        let place = self.add_place(Some(member.key), member.name.clone());
        let grant = Grant {
            scopes: vec![member.scope.clone()],
            until_unix_secs: member.until.map(Day::end_unix_secs),
        };
        self.voices.entry(member.key).or_insert(Voice {
            place,
            grants: vec![grant],
        });
    }

    /// All own keys have one place: they are in one hand.
    fn seat_own(&mut self, own: &[PublicKey]) {
        let place = self.add_place(None, None);
        for key in own {
            let grant = Grant {
                scopes: Vec::new(),
                until_unix_secs: None,
            };
            self.voices.entry(*key).or_insert(Voice {
                place,
                grants: vec![grant],
            });
        }
    }

    fn add_place(&mut self, named: Option<PublicKey>, name: Option<String>) -> usize {
        self.places.push(Place { named, name });
        self.places.len() - 1
    }

    /// The rule in terms of places.
    ///
    /// # Errors
    /// [`RuleError`] when it names somebody who has no place.
    pub(crate) fn rule(&self, rule: &Rule) -> Result<Node, RuleError> {
        match rule {
            Rule::Flat(need) => Ok(Node::flat(*need, self.places.len())),
            Rule::Nested(term) => Node::of(term, &|who| self.place(who)),
        }
    }

    fn place(&self, who: &Who) -> Result<usize, RuleProblem> {
        match who {
            Who::Own => (self.places.iter().position(|place| place.named.is_none()))
                .ok_or_else(|| RuleProblem::Nobody("own".into())),
            Who::Key(key) => (self
                .places
                .iter()
                .position(|place| place.named == Some(*key)))
            .ok_or(RuleProblem::NotTrusted(*key)),
            Who::Name(name) => {
                let mut called = (0..self.places.len())
                    .filter(|place| self.places[*place].name.as_deref() == Some(name));
                match (called.next(), called.next()) {
                    (Some(place), None) => Ok(place),
                    (None, _) => Err(RuleProblem::Nobody(name.clone())),
                    _ => Err(RuleProblem::Several(name.clone())),
                }
            }
        }
    }
}
