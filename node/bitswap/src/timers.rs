//! When to look at what next: one pending wake-up per key, the earliest first.
//!
//! A wake-up only says "look now": whoever is woken checks its real deadlines and arms itself again. So progress need
//! not move a deadline each time a block arrives; it is enough that the old wake-up finds nothing due.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

#[derive(Debug)]
pub(crate) struct Timers<K> {
    by_time: BTreeSet<(Instant, K)>,
    by_key: BTreeMap<K, Instant>,
}

impl<K: Copy + Ord> Timers<K> {
    pub(crate) const fn new() -> Self {
        Self {
            by_time: BTreeSet::new(),
            by_key: BTreeMap::new(),
        }
    }

    /// Wakes `key` at `at`, or earlier if that was asked for before.
    pub(crate) fn arm(&mut self, key: K, at: Instant) {
        match self.by_key.get(&key) {
            Some(armed) if *armed <= at => return,
            Some(armed) => self.by_time.remove(&(*armed, key)),
            None => false,
        };
        self.by_key.insert(key, at);
        self.by_time.insert((at, key));
    }

    pub(crate) fn disarm(&mut self, key: K) {
        if let Some(at) = self.by_key.remove(&key) {
            self.by_time.remove(&(at, key));
        }
    }

    /// Takes one key whose time has come.
    pub(crate) fn pop_due(&mut self, now: Instant) -> Option<K> {
        let (at, key) = *self.by_time.first()?;
        if at > now {
            return None;
        }
        self.disarm(key);
        Some(key)
    }

    pub(crate) fn next(&self) -> Option<Instant> {
        self.by_time.first().map(|(at, _)| *at)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_earliest_wish_of_each_key_counts_and_each_fires_once() {
        let start = crate::testing::start();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut timers = Timers::new();
        timers.arm('a', at(5));
        timers.arm('a', at(9));
        timers.arm('b', at(4));
        timers.arm('b', at(2));
        timers.arm('c', at(1));
        timers.disarm('c');
        assert_eq!(timers.next(), Some(at(2)));
        assert_eq!(timers.pop_due(at(1)), None);
        assert_eq!(timers.pop_due(at(6)), Some('b'));
        assert_eq!(timers.pop_due(at(6)), Some('a'));
        assert_eq!((timers.pop_due(at(60)), timers.next()), (None, None));
    }
}
