//! What one peer has been told that we want, and what it is to be told next.
//!
//! The list is the remote's state as we know it, so it can tell a patch (what changed since the last message) from the
//! whole (after a reconnect or a lost message), and needs no cancel for a want the remote never heard of or has already
//! answered. Nothing here scans the list; the two queues beside the map may hold entries that the map has outlived, which
//! are passed over when met.

use std::collections::{HashMap, VecDeque};
use std::time::Instant;

use base::Cid;

use crate::limits::{ENTRIES_PER_MESSAGE_MAX, WANTS_PER_PEER_MAX};
use crate::message::{Entry, WantType};
use crate::rng::Seeded;

/// Stale entries tolerated in `order` beside twice the live ones before it is rebuilt.
const ORDER_SLACK: usize = 64;

#[derive(Debug)]
pub(crate) struct Wantlist {
    told: HashMap<Cid, Told, Seeded>,
    /// CIDs whose entry the remote does not know yet.
    outbox: VecDeque<Cid>,
    /// CIDs by the time they were asked for, oldest first.
    order: VecDeque<(Instant, Cid)>,
    full: Full,
}

/// Whether the next message replaces what the remote knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Full {
    /// It is a patch.
    No,
    /// The next message that there is reason for replaces everything: the connection is new.
    WithNext,
    /// A message must be sent even if it is empty: the remote may hold wants that we think cancelled.
    Now,
}

#[derive(Clone, Copy, Debug)]
struct Told {
    want_type: WantType,
    priority: i32,
    since: Instant,
    /// The remote has been sent the want.
    sent: bool,
    /// The remote does not know the latest state; the CID is in `outbox`.
    dirty: bool,
    /// To be cancelled, then forgotten.
    cancelled: bool,
}

impl Wantlist {
    pub(crate) fn new(hasher: Seeded) -> Self {
        Self {
            told: HashMap::with_hasher(hasher),
            outbox: VecDeque::new(),
            order: VecDeque::new(),
            full: Full::WithNext,
        }
    }

    /// Wants that occupy a place in the remote's list, cancels not yet sent included.
    pub(crate) fn len(&self) -> usize {
        self.told.len()
    }

    pub(crate) fn has_room(&self) -> bool {
        self.told.len() < WANTS_PER_PEER_MAX
    }

    /// Whether the remote is to be told something.
    pub(crate) fn is_dirty(&self) -> bool {
        !self.outbox.is_empty() || self.full == Full::Now
    }

    /// Asks for a CID, or for more than before, or once more.
    pub(crate) fn want(&mut self, cid: Cid, want_type: WantType, priority: i32, now: Instant) {
        let told = self.told.entry(cid).or_insert(Told {
            want_type,
            priority,
            since: now,
            sent: false,
            dirty: false,
            cancelled: false,
        });
        told.want_type = want_type;
        told.priority = priority;
        told.since = now;
        told.cancelled = false;
        self.order.push_back((now, cid));
        self.mark(cid);
        self.compact();
    }

    /// Takes a want back. The remote hears of it only if it heard of the want.
    pub(crate) fn cancel(&mut self, cid: &Cid) {
        match self.told.get_mut(cid) {
            Some(told) if told.sent => {
                told.cancelled = true;
                self.mark(*cid);
            }
            Some(_) => drop(self.told.remove(cid)),
            None => {}
        }
    }

    /// The remote has dropped the want by itself, having answered it.
    pub(crate) fn answered(&mut self, cid: &Cid) {
        self.told.remove(cid);
    }

    /// Forgets everything: the connection is gone, and with it what the remote knew.
    pub(crate) fn reset(&mut self) {
        self.told.clear();
        self.outbox.clear();
        self.order.clear();
        self.full = Full::WithNext;
    }

    /// A message was lost: the remote is to be told everything anew.
    pub(crate) fn lost(&mut self) {
        self.told.retain(|_, told| !told.cancelled);
        self.outbox.clear();
        let mut cids: Vec<(i32, Cid)> = self
            .told
            .iter()
            .map(|(cid, told)| (told.priority, *cid))
            .collect();
        cids.sort_unstable_by(|a, b| b.cmp(a));
        for (_, cid) in cids {
            if let Some(told) = self.told.get_mut(&cid) {
                (told.dirty, told.sent) = (true, false);
            }
            self.outbox.push_back(cid);
        }
        self.full = Full::Now;
    }

    /// The next entries to send, and whether they replace what the remote knows.
    pub(crate) fn next_entries(&mut self) -> (Vec<Entry>, bool) {
        let mut entries = Vec::with_capacity(self.outbox.len().min(ENTRIES_PER_MESSAGE_MAX));
        while entries.len() < ENTRIES_PER_MESSAGE_MAX {
            let Some(cid) = self.outbox.pop_front() else {
                break;
            };
            let Some(told) = self.told.get_mut(&cid).filter(|told| told.dirty) else {
                continue;
            };
            told.dirty = false;
            if told.cancelled {
                self.told.remove(&cid);
                entries.push(Entry::Cancel(cid));
            } else {
                told.sent = true;
                let Told {
                    want_type,
                    priority,
                    ..
                } = *told;
                entries.push(Entry::Want {
                    cid,
                    priority,
                    want_type,
                    send_dont_have: true,
                });
            }
        }
        let full = self.full == Full::Now || (self.full == Full::WithNext && !entries.is_empty());
        if full {
            self.full = Full::No;
        }
        (entries, full)
    }

    /// The want that has waited longest since it was (last) asked for.
    pub(crate) fn oldest(&mut self) -> Option<(Instant, Cid)> {
        while let Some((since, cid)) = self.order.front() {
            match self.told.get(cid) {
                Some(told) if told.since == *since && !told.cancelled => {
                    return Some((*since, *cid));
                }
                _ => self.order.pop_front(),
            };
        }
        None
    }

    /// Takes the oldest want out of the waiting order; it stays told.
    pub(crate) fn pass_oldest(&mut self) {
        self.order.pop_front();
    }

    /// Up to `count` wants, the latest asked for first. Some may be cancelled or answered by now.
    pub(crate) fn latest(&self, count: usize) -> impl Iterator<Item = Cid> {
        self.order.iter().rev().take(count).map(|(_, cid)| *cid)
    }

    /// When something was asked for last.
    pub(crate) fn latest_since(&self) -> Option<Instant> {
        self.order.back().map(|(since, _)| *since)
    }

    /// Every CID told, the most important first.
    pub(crate) fn cids(&self) -> Vec<Cid> {
        let mut cids: Vec<(i32, Cid)> = self
            .told
            .iter()
            .map(|(cid, told)| (told.priority, *cid))
            .collect();
        cids.sort_unstable_by(|a, b| b.cmp(a));
        cids.into_iter().map(|(_, cid)| cid).collect()
    }

    fn mark(&mut self, cid: Cid) {
        if let Some(told) = self.told.get_mut(&cid).filter(|told| !told.dirty) {
            told.dirty = true;
            self.outbox.push_back(cid);
        }
    }

    /// Rebuilds `order` once most of it is stale, so that it grows with the list and not with time.
    fn compact(&mut self) {
        if self.order.len() > 2 * self.told.len() + ORDER_SLACK {
            let told = &self.told;
            self.order
                .retain(|(since, cid)| told.get(cid).is_some_and(|told| told.since == *since));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::rng::Rng;
    use crate::testing::{cid, start};

    fn list() -> Wantlist {
        Wantlist::new(Rng::new(1).hasher())
    }

    fn want_block(n: u64, priority: i32) -> Entry {
        let want_type = WantType::Block;
        Entry::Want {
            cid: cid(n),
            priority,
            want_type,
            send_dont_have: true,
        }
    }

    #[test]
    fn the_first_message_is_full_and_the_next_are_patches() {
        let (mut list, now) = (list(), start());
        list.want(cid(1), WantType::Block, 9, now);
        list.want(cid(2), WantType::Block, 8, now);
        assert_eq!(
            list.next_entries(),
            (vec![want_block(1, 9), want_block(2, 8)], true)
        );
        assert!(!list.is_dirty());
        list.want(cid(3), WantType::Block, 7, now);
        list.cancel(&cid(1));
        assert_eq!(
            list.next_entries(),
            (vec![want_block(3, 7), Entry::Cancel(cid(1))], false)
        );
        assert_eq!(list.len(), 2);
    }

    #[test]
    fn a_want_taken_back_before_it_was_sent_is_never_mentioned() {
        let (mut list, now) = (list(), start());
        list.want(cid(1), WantType::Have, 9, now);
        list.cancel(&cid(1));
        assert_eq!(list.next_entries(), (vec![], false));
        assert_eq!(list.len(), 0);
    }

    #[test]
    fn an_answered_want_needs_no_cancel() {
        let (mut list, now) = (list(), start());
        list.want(cid(1), WantType::Block, 9, now);
        list.next_entries();
        list.cancel(&cid(1));
        list.answered(&cid(1));
        assert_eq!(list.next_entries(), (vec![], false));
    }

    #[test]
    fn a_want_that_returns_before_its_cancel_left_stays_wanted() {
        let (mut list, now) = (list(), start());
        list.want(cid(1), WantType::Block, 9, now);
        list.next_entries();
        list.cancel(&cid(1));
        list.want(cid(1), WantType::Block, 9, now);
        assert_eq!(list.next_entries(), (vec![want_block(1, 9)], false));
        assert_eq!(list.len(), 1);
    }

    #[test]
    fn after_a_lost_message_everything_is_told_anew_even_if_that_is_nothing() {
        let (mut list, now) = (list(), start());
        list.want(cid(1), WantType::Block, 1, now);
        list.want(cid(2), WantType::Block, 2, now);
        list.next_entries();
        list.cancel(&cid(1));
        list.lost();
        assert_eq!(list.next_entries(), (vec![want_block(2, 2)], true));
        list.answered(&cid(2));
        list.lost();
        assert!(list.is_dirty());
        assert_eq!(list.next_entries(), (vec![], true));
        assert!(!list.is_dirty());
    }

    #[test]
    fn a_long_list_is_cut_into_messages() {
        let (mut list, now) = (list(), start());
        for n in 0..300 {
            list.want(cid(n), WantType::Block, 300 - n as i32, now);
        }
        let (first, full) = list.next_entries();
        assert_eq!((first.len(), full), (ENTRIES_PER_MESSAGE_MAX, true));
        let (second, full) = list.next_entries();
        assert_eq!((second.len(), full), (300 - ENTRIES_PER_MESSAGE_MAX, false));
    }

    #[test]
    fn the_oldest_want_is_the_one_asked_for_longest_ago() {
        let (mut list, now) = (list(), start());
        let later = now + Duration::from_secs(1);
        list.want(cid(1), WantType::Block, 1, now);
        list.want(cid(2), WantType::Block, 1, now);
        list.answered(&cid(1));
        assert_eq!(list.oldest(), Some((now, cid(2))));
        list.want(cid(2), WantType::Block, 1, later);
        assert_eq!(list.oldest(), Some((later, cid(2))));
        list.cancel(&cid(2));
        assert_eq!(list.oldest(), None);
    }

    #[test]
    fn bookkeeping_does_not_grow_with_time() {
        let (mut list, now) = (list(), start());
        list.want(cid(0), WantType::Block, 1, now);
        for n in 1..10_000 {
            list.want(cid(n), WantType::Block, 1, now);
            list.next_entries();
            list.answered(&cid(n));
        }
        assert!(list.order.len() <= 2 * list.len() + ORDER_SLACK + 1);
        assert!(list.outbox.is_empty());
    }
}
