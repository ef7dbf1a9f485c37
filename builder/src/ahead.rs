//! Sources are fetched ahead: as soon as it is known that a package will be built, and not only when its turn comes.
//!
//! A build waits for processors, a download for the network; one after the other each would idle. What lies deepest is
//! fetched first, for it is built first. Nothing depends on how it goes: a build fetches what is still missing when it
//! begins, and it is the build that fails if that cannot be had.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::observe::{Event, Observer};

/// Packages whose sources are fetched ahead at the same time; what is wanted now has connections of its own.
const PACKAGES_MAX: usize = 2;

/// Whose sources are to be fetched ahead; packages are told apart by their place in the graph.
#[derive(Debug)]
pub(crate) struct Ahead<Id> {
    waiting: BTreeSet<Id>,
    known: BTreeSet<Id>,
    running: usize,
}

impl<Id: Copy + Ord> Ahead<Id> {
    pub(crate) const fn new() -> Self {
        Self {
            waiting: BTreeSet::new(),
            known: BTreeSet::new(),
            running: 0,
        }
    }

    /// A package will be built.
    pub(crate) fn expect(&mut self, id: Id) {
        if self.known.insert(id) {
            self.waiting.insert(id);
        }
    }

    /// A package's build begins: it gets what it needs itself.
    pub(crate) fn forget(&mut self, id: Id) {
        self.waiting.remove(&id);
    }

    /// The next to be fetched for, if there is room.
    pub(crate) fn start(&mut self) -> Option<Id> {
        let has_room = self.running < PACKAGES_MAX;
        let id = has_room.then(|| self.waiting.pop_first()).flatten()?;
        self.running += 1;
        Some(id)
    }

    /// One of those that were started has ended.
    pub(crate) fn end(&mut self) {
        self.running -= 1;
    }
}

/// Watches what is fetched ahead, and stops it when there is nothing left to fetch it for.
pub(crate) struct UntilOver<'a> {
    pub observer: &'a dyn Observer,
    pub over: &'a AtomicBool,
}

impl Observer for UntilOver<'_> {
    fn event(&self, event: &Event<'_>) {
        self.observer.event(event);
    }

    fn cancelled(&self) -> bool {
        self.over.load(Ordering::Relaxed) || self.observer.cancelled()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deepest_come_first_some_at_a_time_and_each_once() {
        let mut ahead = Ahead::new();
        for id in [3, 1, 2, 0, 1] {
            ahead.expect(id);
        }
        ahead.forget(1);
        assert_eq!((ahead.start(), ahead.start()), (Some(0), Some(2)));
        assert_eq!(ahead.start(), None);
        ahead.end();
        ahead.expect(1);
        assert_eq!(ahead.start(), Some(3));
        ahead.end();
        assert_eq!(ahead.start(), None);
    }
}
