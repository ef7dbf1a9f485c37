//! The keys a user named, and what follows from that: which key speaks for which place, for what and until when.
//!
//! A **place** is what a rule counts: one for each key that was named, and one for all of the user's own keys together. A
//! key speaks for one place only.

use std::collections::BTreeMap;

use base::{PackageName, PublicKey};

use crate::book::Book;
use crate::rule::{Node, Rule, RuleError, RuleProblem, Who};
use crate::{Day, Discount, Scope, SignedKeyStatement};

/// Rotations of one place that are followed one after the other: decades of yearly ones.
const ROTATIONS_MAX: usize = 64;

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

    fn grant(&self) -> Grant {
        Grant {
            scopes: vec![self.scope.clone()],
            until_unix_secs: self.until.map(Day::end_unix_secs),
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
    /// What keys said of keys.
    pub statements: Vec<SignedKeyStatement>,
}

/// What a key may speak for: it counts where all scopes cover the package, before `until`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Grant {
    pub scopes: Vec<Scope>,
    pub until_unix_secs: Option<u64>,
}

/// How a key came to have a voice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It is one of the user's own.
    Own,
    /// The user named it.
    Named,
    /// It took the place of a key that the user named.
    Follows,
    /// A key that the user named has named it.
    Delegated,
}

/// A key that speaks for a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Voice {
    pub place: usize,
    pub standing: Standing,
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
    fn new(place: usize, standing: Standing, grant: Grant) -> Self {
        Self {
            place,
            standing,
            grants: vec![grant],
        }
    }

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
        let mut scopes = lasting.flat_map(|grant| &grant.scopes);
        let is_outside = |scope: &&Scope| package.is_some_and(|package| !scope.covers(package));
        if let Some(scope) = scopes.find(is_outside) {
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
    /// The key that holds the place now, after rotations; `None` when it is empty.
    pub holder: Option<PublicKey>,
    pub name: Option<String>,
}

/// A ring, with everything said and done.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seating {
    pub places: Vec<Place>,
    pub voices: BTreeMap<PublicKey, Voice>,
    /// Keys that lost their voice, or never had one and were revoked: the place that they spoke for, and why they do not.
    pub silenced: BTreeMap<PublicKey, (Option<usize>, Discount)>,
}

impl Seating {
    pub(crate) fn of(ring: &Ring) -> Self {
        let book = Book::of(&ring.statements);
        let mut seating = Self::default();
        let mut seated: Vec<&Member> = Vec::new();
        for member in &ring.members {
            if seated.iter().all(|known| known.key != member.key) {
                seating.add_place(&book, member);
                seated.push(member);
            }
        }
        // A key has one place: that under which it was named goes before one that it has from another key.
        for follows in [false, true] {
            for (place, member) in seated.iter().enumerate() {
                seating.seat(place, member, follows);
            }
        }
        seating.seat_own(&ring.own, &book);
        for (place, member) in seated.iter().enumerate() {
            seating.seat_delegates(place, member, &book);
        }
        seating.silence_taken_back(&book);
        for key in &book.revoked {
            let silenced = seating.silenced.entry(*key);
            silenced.or_insert((None, Discount::Revoked));
        }
        seating
    }

    /// Makes a member's place, and finds who holds it now.
    fn add_place(&mut self, book: &Book<'_>, member: &Member) {
        let place = self.places.len();
        let mut holder = Some(member.key);
        // The bound ends circles, too.
        for _ in 0..ROTATIONS_MAX {
            let Some(key) = holder else { break };
            let Some((next, why)) = book.end_of(&key) else {
                break;
            };
            self.silenced.entry(key).or_insert((Some(place), why));
            holder = next;
        }
        let still = holder.filter(|key| book.end_of(key).is_none());
        self.places.push(Place {
            named: Some(member.key),
            holder: still,
            name: member.name.clone(),
        });
    }

    fn seat(&mut self, place: usize, member: &Member, follows: bool) {
        let Some(holder) = self.places[place].holder else {
            return;
        };
        if (holder != member.key) == follows {
            let standing = if follows {
                Standing::Follows
            } else {
                Standing::Named
            };
            self.add_voice(holder, Voice::new(place, standing, member.grant()));
        }
    }

    /// All own keys have one place: they are in one hand. Rotation takes nothing from them: what was built here stays one's own.
    fn seat_own(&mut self, own: &[PublicKey], book: &Book<'_>) {
        let place = self.places.len();
        self.places.push(Place {
            named: None,
            holder: None,
            name: None,
        });
        for key in own {
            if book.revoked.contains(key) {
                self.silenced
                    .entry(*key)
                    .or_insert((Some(place), Discount::Revoked));
            } else {
                let grant = Grant {
                    scopes: Vec::new(),
                    until_unix_secs: None,
                };
                self.add_voice(*key, Voice::new(place, Standing::Own, grant));
            }
        }
    }

    /// Gives a voice to the keys that the holder of a place has named.
    fn seat_delegates(&mut self, place: usize, member: &Member, book: &Book<'_>) {
        let Some(holder) = self.places[place].holder else {
            return;
        };
        for (key, scope, until_unix_secs) in book.delegations(&holder) {
            if book.revoked.contains(&key) || book.revoked_by.contains(&(holder, key)) {
                self.silenced
                    .entry(key)
                    .or_insert((Some(place), Discount::Revoked));
                continue;
            }
            let mut grant = member.grant();
            grant.scopes.push(scope.clone());
            let ends = [grant.until_unix_secs, until_unix_secs];
            grant.until_unix_secs = ends.into_iter().flatten().min();
            match self.voices.get_mut(&key) {
                Some(voice) if voice.place == place && voice.standing == Standing::Delegated => {
                    voice.grants.push(grant);
                }
                Some(_) => {}
                None => self.add_voice(key, Voice::new(place, Standing::Delegated, grant)),
            }
        }
    }

    /// A key that a root took back, and that nobody else named, is no stranger, even where it was never heard that the root had
    /// named it.
    fn silence_taken_back(&mut self, book: &Book<'_>) {
        for (by, key) in &book.revoked_by {
            let place = self.places.iter().position(|p| p.holder == Some(*by));
            if place.is_some() && !self.voices.contains_key(key) {
                let silenced = self.silenced.entry(*key);
                silenced.or_insert((place, Discount::Revoked));
            }
        }
    }

    fn add_voice(&mut self, key: PublicKey, voice: Voice) {
        self.voices.entry(key).or_insert(voice);
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
