//! Keys that wait, in the order in which they are worth taking: what somebody waits for, what was never announced, what is
//! due; within each of these from one end of the keyspace to the other, so that neighbours go together.

use std::collections::BTreeSet;

use base::{Multihash, Sha256};

use super::position::{Position, Span};

/// Why a key is announced; the more urgent first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Urgency {
    /// Somebody waits for it.
    Asked,
    /// It was never announced.
    New,
    /// Its time has come again.
    Due,
}

impl Urgency {
    const ALL: [Self; 3] = [Self::Asked, Self::New, Self::Due];
}

/// A key that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Entry {
    pub(super) urgency: Urgency,
    pub(super) position: Position,
    pub(super) key: Multihash,
}

impl Entry {
    pub(super) fn new(urgency: Urgency, key: Multihash) -> Self {
        Self {
            urgency,
            position: Position::of(key.as_bytes()),
            key,
        }
    }
}

/// All keys that wait, 60 bytes each.
#[derive(Debug, Default)]
pub(super) struct Queue(BTreeSet<Entry>);

impl Queue {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns whether it was not there.
    pub(super) fn insert(&mut self, entry: Entry) -> bool {
        self.0.insert(entry)
    }

    pub(super) fn remove(&mut self, entry: &Entry) -> bool {
        self.0.remove(entry)
    }

    pub(super) fn first(&self) -> Option<&Entry> {
        self.0.first()
    }

    pub(super) fn pop(&mut self) -> Option<Entry> {
        self.0.pop_first()
    }

    /// The keys that stand in a part of the keyspace.
    pub(super) fn within(&self, span: Span) -> impl Iterator<Item = &Entry> {
        let end = |urgency, position, digest| Entry {
            urgency,
            position: Position(position),
            key: Multihash::sha2_256(&Sha256::from_bytes(digest)),
        };
        let of = move |urgency| {
            let first = end(urgency, span.first, [0; Sha256::LEN]);
            first..=end(urgency, span.last, [u8::MAX; Sha256::LEN])
        };
        Urgency::ALL
            .into_iter()
            .flat_map(move |urgency| self.0.range(of(urgency)))
    }
}
