//! Announcing what we hold: a queue worked off on a schedule of our own.
//!
//! Every process of a home adds keys to the store's queue; the daemon announces them, again every 22 hours, since records
//! live for 48. Only what names a whole thing is announced (package hashes, sources, roots), never every block: a hundred
//! packages are a few hundred keys. The library's republisher is not used: it starts everything at once, and each
//! announcement costs 40 to 60 requests.
//!
//! A record carries our addresses. So after a start, and after our addresses changed, everything is announced once more,
//! whatever the schedule says: records that lead to an old port are worth nothing.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Duration;

use base::Multihash;
use store::Provide;

/// Time between two announcements of a key: the reprovide interval of the public network.
const REPROVIDE: Duration = Duration::from_secs(22 * 3600);
/// Announcements are spread over this time before they are due, so that keys added together do not stay together.
const SPREAD: Duration = Duration::from_secs(2 * 3600);
/// Pause after a failed announcement.
const RETRY: Duration = Duration::from_secs(60);
/// Most keys looked at for renewal after a start; a million take 34 MB for the time of the renewal.
const STALE_MAX: usize = 1_000_000;

/// When a key announced at `at` is due again. `jitter` is any number that differs from key to key.
pub(crate) fn next_unix_secs(at: u64, jitter: u64) -> u64 {
    at + REPROVIDE.as_secs() - jitter % SPREAD.as_secs()
}

/// A number that differs from key to key and is the same in every process: the schedule is deterministic.
pub(crate) fn jitter(key: &Multihash) -> u64 {
    let digest = key.digest();
    let [a, b, c, d, ..] = *digest.as_bytes();
    u64::from(u32::from_be_bytes([a, b, c, d]))
}

/// What is being announced, and what was.
#[derive(Debug)]
pub(crate) struct Announcer {
    in_flight: HashSet<Multihash>,
    in_flight_max: usize,
    /// Failed keys, and when each may be tried again.
    retry: HashMap<Multihash, u64>,
    /// Keys whose records are out of date; `None` while the store has to be asked for them.
    stale: Option<VecDeque<Multihash>>,
    done: u64,
    failed: u64,
    last_unix_secs: Option<u64>,
}

/// How announcing stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) in_flight: usize,
    pub(crate) done: u64,
    pub(crate) failed: u64,
    pub(crate) last_unix_secs: Option<u64>,
}

/// What to ask the store for: keys due at a time, and how many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ask {
    pub(crate) due_unix_secs: u64,
    pub(crate) limit: usize,
}

impl Announcer {
    /// Announces at most `in_flight_max` keys at a time.
    pub(crate) fn new(in_flight_max: usize) -> Self {
        Self {
            in_flight: HashSet::new(),
            in_flight_max,
            retry: HashMap::new(),
            stale: None,
            done: 0,
            failed: 0,
            last_unix_secs: None,
        }
    }

    /// Our addresses have changed: all records are out of date.
    pub(crate) fn restart(&mut self) {
        self.stale = None;
    }

    /// What to ask the store for now; nothing while there is no room for more announcements.
    pub(crate) fn ask(&self, now: u64) -> Option<Ask> {
        if self.stale.is_none() {
            return Some(Ask {
                due_unix_secs: now + 2 * REPROVIDE.as_secs(),
                limit: STALE_MAX,
            });
        }
        // Keys that are in flight or wait after a failure are due as well and must not hide the others.
        let limit = self.in_flight_max + self.in_flight.len() + self.retry.len();
        let room = self.in_flight.len() < self.in_flight_max;
        room.then_some(Ask {
            due_unix_secs: now,
            limit,
        })
    }

    /// Takes the store's answer, and picks the keys to announce now: what is due, then what is out of date.
    pub(crate) fn pick(&mut self, due: &[Provide], now: u64) -> Vec<Multihash> {
        if self.stale.is_none() {
            let announced = due
                .iter()
                .filter(|provide| provide.provided_unix_secs.is_some());
            self.stale = Some(announced.map(|provide| provide.key).collect());
        }
        self.retry.retain(|_, at| *at > now);
        let is_due = |provide: &&Provide| {
            let next = |at| next_unix_secs(at, jitter(&provide.key));
            provide.provided_unix_secs.is_none_or(|at| next(at) <= now)
        };
        let due = due.iter().filter(is_due).map(|provide| provide.key);
        let mut stale = self.stale.take().unwrap_or_default();
        let mut candidates = due.chain(std::iter::from_fn(|| stale.pop_front()));
        let mut picked = Vec::new();
        while self.in_flight.len() < self.in_flight_max {
            let Some(key) = candidates.next() else { break };
            if !self.retry.contains_key(&key) && self.in_flight.insert(key) {
                picked.push(key);
            }
        }
        self.stale = Some(stale);
        picked
    }

    /// An announcement is over.
    pub(crate) fn settle(&mut self, key: &Multihash, success: bool, now: u64) {
        self.in_flight.remove(key);
        if success {
            self.done += 1;
            self.last_unix_secs = Some(now);
        } else {
            self.failed += 1;
            self.retry.insert(*key, now + RETRY.as_secs());
        }
    }

    /// How it stands.
    pub(crate) fn counts(&self) -> Counts {
        let Self {
            done,
            failed,
            last_unix_secs,
            ..
        } = *self;
        Counts {
            in_flight: self.in_flight.len(),
            done,
            failed,
            last_unix_secs,
        }
    }
}

#[cfg(test)]
mod tests {
    use base::Sha256;
    use store::ProvideKind;

    use super::*;

    const START: u64 = 1_800_000_000;

    fn provide(name: u8, provided_unix_secs: Option<u64>) -> Provide {
        let key = Multihash::sha2_256(&Sha256::of(&[name]));
        Provide {
            key,
            kind: ProvideKind::Source,
            provided_unix_secs,
        }
    }

    fn keys(provides: &[Provide]) -> Vec<Multihash> {
        provides.iter().map(|provide| provide.key).collect()
    }

    #[test]
    fn a_key_is_due_again_within_two_hours_before_its_22_hours() {
        for name in 0..=255 {
            let wait = next_unix_secs(START, jitter(&provide(name, None).key)) - START;
            assert!((20 * 3600..=22 * 3600).contains(&wait));
        }
        let one = next_unix_secs(START, jitter(&provide(1, None).key));
        assert_ne!(one, next_unix_secs(START, jitter(&provide(2, None).key)));
    }

    #[test]
    fn after_a_start_or_a_new_address_every_old_record_is_renewed_once() {
        let mut announcer = Announcer::new(8);
        let old: Vec<_> = (0..20)
            .map(|name| provide(name, Some(START - 60)))
            .collect();
        let first = announcer.ask(START).unwrap();
        assert!(first.due_unix_secs > START + 22 * 3600 && first.limit > 1000);
        assert_eq!(announcer.pick(&old, START), keys(&old[..8]));
        for provide in &old[..8] {
            announcer.settle(&provide.key, true, START + 1);
        }
        let then = announcer.ask(START + 2).unwrap();
        assert_eq!((then.due_unix_secs, then.limit), (START + 2, 8));
        assert_eq!(announcer.pick(&[], START + 2), keys(&old[8..16]));
        announcer.restart();
        assert!(announcer.ask(START + 3).unwrap().due_unix_secs > START + 22 * 3600);
    }

    #[test]
    fn new_keys_go_before_old_records() {
        let mut announcer = Announcer::new(2);
        let (old, new) = (provide(1, Some(START - 60)), provide(2, None));
        let picked = announcer.pick(&[old.clone(), new.clone()], START);
        assert_eq!(picked, keys(&[new, old]));
    }

    #[test]
    fn never_more_than_the_limit_is_in_flight_and_a_failed_key_waits() {
        let mut announcer = Announcer::new(3);
        let due: Vec<_> = (0..10).map(|name| provide(name, None)).collect();
        assert_eq!(announcer.pick(&due, START), keys(&due[..3]));
        assert_eq!(announcer.ask(START), None);
        announcer.settle(&due[1].key, false, START);
        assert_eq!(announcer.pick(&due, START), keys(&due[3..4]));
        announcer.settle(&due[0].key, true, START);
        assert_eq!(announcer.pick(&due[1..2], START + 1), []);
        assert_eq!(
            announcer.pick(&due[1..2], START + RETRY.as_secs()),
            keys(&due[1..2])
        );
        let counts = announcer.counts();
        assert_eq!((counts.in_flight, counts.done, counts.failed), (3, 1, 1));
    }
}
