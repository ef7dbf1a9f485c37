//! The machine: which keys are taken, what is looked up, what is sent to whom.
//!
//! Work goes in rounds. A round takes keys in order for some seconds, looks up what the map does not know, and notes for
//! each peer which records it is to keep; at its end the notes are sent. So a key that comes alone is announced as soon as
//! its one lookup is over, and of a hundred thousand each peer gets hundreds at a time.

use std::collections::{BTreeMap, HashMap, VecDeque};

use base::Multihash;
use libp2p::PeerId;
use store::Provide;

use super::census::{Census, PollId};
use super::map::{Closest, Contact, Map, REPLICAS};
use super::position::{Position, Span};
use super::queue::{Entry, Queue, Urgency};
use super::tally::{Counts, Tally};
use super::target;

/// Most keys that wait here; more stay in the store until these are done. 8 MB.
const QUEUE_MAX: usize = 131_072;
/// Rows of the store's queue that may be read per second on average: a thousandth of a second each thousand.
const ROWS_PER_SEC: usize = 10_000;
/// A round takes keys for so long, in seconds, and so many of them. What was found is then sent, before it gets old.
const ROUND_SECS: u64 = 10;
const ROUND_KEYS_MAX: usize = 4096;
/// Most keys that wait for lookups; after each they are looked at again, which takes some microseconds for each.
const BLOCKED_MAX: usize = 1024;
/// No round begins while so many deliveries wait.
const DELIVERIES_WAITING_MAX: usize = 256;
/// Records sent over one stream. With the usual three addresses each has 200 bytes.
const RECORDS_PER_STREAM_MAX: usize = 1000;
/// Streams to peers at a time. Most of their time is spent on dialling peers that are slow or gone.
const STREAMS_MAX: usize = 32;
/// A key is announced when this part of its peers took the record: half of them may leave within the day, and most of
/// what is left is found by every walk.
const ENOUGH_DIVISOR: u32 = 5;
/// Pause after a failure, in seconds; it doubles with each that follows, so many times.
const RETRY_SECS: u64 = 60;
const RETRY_DOUBLINGS_MAX: u32 = 6;
/// How long a failure is remembered that was not tried again, in seconds: its key has left the store.
const RETRY_FORGOTTEN_SECS: u64 = 24 * 3600;
/// How long an answer with too few peers is not believed to be the whole network, in seconds.
const DOUBT_SECS: u64 = 60;
/// How many keys must gain by it before something is looked up that is no key of ours.
const GAIN_MIN: usize = 3;

/// A lookup of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct LookupId(u64);

/// Something sent to one peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct DeliveryId(u64);

/// What the machine wants done.
#[derive(Debug)]
pub(crate) enum Action {
    /// Look up the peers closest to a key.
    Lookup { id: LookupId, target: Multihash },
    /// Send a peer the records of these keys.
    Deliver {
        id: DeliveryId,
        to: Contact,
        keys: Vec<Multihash>,
    },
    /// Ask a peer, which keeps our records of these keys, how many others provide them.
    Count {
        id: PollId,
        to: Contact,
        keys: Vec<Multihash>,
    },
    /// An attempt to announce a key is over.
    Settled(Settled),
}

/// How announcing a key went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Settled {
    pub(crate) key: Multihash,
    /// How many peers took the record.
    pub(crate) told: u32,
    /// Whether that is to be noted, after which [`Sweeper::noted`] is called. Not so when it failed, or when the records
    /// carry addresses that were ours when it began.
    pub(crate) note: bool,
}

/// What a lookup found.
#[derive(Clone, Debug, Default)]
pub(crate) struct Answer {
    /// At most 20 peers, the closest that answered.
    pub(crate) peers: Vec<Contact>,
    /// Whether the walk went to its end; otherwise there may be closer ones.
    pub(crate) finished: bool,
    /// How many peers our own routing table has.
    pub(crate) table: usize,
}

/// A key on its way from the store's queue to its peers and back.
#[derive(Clone, Copy, Debug)]
struct Job {
    /// Peers that are to be told, that have not been so far, and that were.
    peers: u32,
    left: u32,
    told: u32,
    epoch: u64,
}

#[derive(Clone, Copy, Debug)]
struct Failure {
    again_at: u64,
    times: u32,
}

#[derive(Debug)]
struct Lookup {
    target: Position,
    /// The key that it is for; without, it is to fill a gap of the map.
    entry: Option<Entry>,
}

#[derive(Debug)]
struct Delivery {
    peer: PeerId,
    keys: Vec<Multihash>,
}

#[derive(Clone, Copy, Debug)]
struct Round {
    until: u64,
    keys: usize,
}

/// The machine.
#[derive(Debug)]
pub(crate) struct Sweeper {
    lookups_max: usize,
    map: Map,
    queue: Queue,
    /// Keys whose surroundings are being looked up.
    blocked: Vec<Entry>,
    /// Keys in any stage beyond the queue.
    jobs: HashMap<Multihash, Job>,
    lookups: HashMap<LookupId, Lookup>,
    round: Option<Round>,
    /// What this round has for each peer.
    outbox: BTreeMap<PeerId, Vec<Multihash>>,
    deliveries: VecDeque<Delivery>,
    sending: HashMap<DeliveryId, Delivery>,
    settled: VecDeque<Settled>,
    census: Census,
    failures: HashMap<Multihash, Failure>,
    tally: Tally,
    next_id: u64,
    /// How many first bits what a lookup covers has in common, by the last one.
    bits: u32,
    epoch: u64,
    ask_at: u64,
    /// Until when nothing is taken, because nobody was found.
    pause_until: u64,
    /// Until when no gaps are looked up, because that did not end.
    no_gaps_until: u64,
    /// Since when answers have had too few peers.
    short_since: Option<u64>,
}

impl Sweeper {
    /// Makes at most `lookups_max` lookups at a time.
    pub(crate) fn new(lookups_max: usize) -> Self {
        Self {
            lookups_max,
            map: Map::default(),
            queue: Queue::default(),
            blocked: Vec::new(),
            jobs: HashMap::new(),
            lookups: HashMap::new(),
            round: None,
            outbox: BTreeMap::new(),
            deliveries: VecDeque::new(),
            sending: HashMap::new(),
            settled: VecDeque::new(),
            census: Census::default(),
            failures: HashMap::new(),
            tally: Tally::new(),
            next_id: 0,
            bits: 0,
            epoch: 0,
            ask_at: 0,
            pause_until: 0,
            no_gaps_until: 0,
            short_since: None,
        }
    }

    /// Also asks how many others provide our keys: some peers, once for each key and cycle, as far as that goes without haste.
    pub(crate) const fn counting_others(mut self, counts_others: bool) -> Self {
        self.census.enable(counts_others);
        self
    }

    /// Our addresses have changed: what is on its way now has to be announced again.
    pub(crate) fn restart(&mut self) {
        self.epoch += 1;
        self.ask_at = 0;
    }

    /// A peer has come that was not known before: a small network is not what it was.
    pub(crate) fn newcomer(&mut self) {
        self.map.doubt_if_small();
    }

    /// How many keys to ask the store for; `None` while it need not be asked.
    pub(crate) fn ask(&self, now: u64) -> Option<usize> {
        (now >= self.ask_at && now >= self.pause_until).then_some(QUEUE_MAX)
    }

    /// Takes what the store says is due, and forgets what is too old. Returns those keys that were never announced and
    /// have not been seen before.
    pub(crate) fn offer(&mut self, due: &[Provide], now: u64) -> Vec<Multihash> {
        self.map.expire(now);
        self.failures
            .retain(|_, failure| failure.again_at + RETRY_FORGOTTEN_SECS > now);
        self.ask_at = now + (due.len() / ROWS_PER_SEC) as u64;
        let mut new = Vec::new();
        for provide in due {
            if self.queue.len() >= QUEUE_MAX {
                break;
            }
            let waits = |failure: &Failure| failure.again_at > now;
            if self.jobs.contains_key(&provide.key)
                || self.failures.get(&provide.key).is_some_and(waits)
            {
                continue;
            }
            let urgency = match provide.provided_unix_secs {
                None => Urgency::New,
                Some(_) => Urgency::Due,
            };
            let is_new = self.queue.insert(Entry::new(urgency, provide.key));
            if is_new && urgency == Urgency::New {
                new.push(provide.key);
            }
        }
        new
    }

    /// Announces a key out of turn.
    pub(crate) fn announce_now(&mut self, key: Multihash) {
        if self.jobs.contains_key(&key) {
            // It is on its way already.
            return;
        }
        for urgency in [Urgency::New, Urgency::Due] {
            self.queue.remove(&Entry::new(urgency, key));
        }
        self.queue.insert(Entry::new(Urgency::Asked, key));
    }

    /// What to do next; called again until there is nothing.
    pub(crate) fn poll(&mut self, now: u64) -> Option<Action> {
        loop {
            if let Some(settled) = self.settled.pop_front() {
                return Some(Action::Settled(settled));
            }
            if let Some((id, to, keys)) = self.census.next() {
                return Some(Action::Count { id, to, keys });
            }
            if let Some(deliver) = self.deliver(now) {
                return Some(deliver);
            }
            if let Some(lookup) = self.explore(now) {
                return Some(lookup);
            }
            if self.settled.is_empty() && !self.end_round() {
                return None;
            }
        }
    }

    fn deliver(&mut self, now: u64) -> Option<Action> {
        if self.sending.len() >= STREAMS_MAX {
            return None;
        }
        let mut delivery = self.deliveries.pop_front()?;
        while self.map.is_shunned(&delivery.peer, now) {
            // It did not take what came before this.
            self.ended(&delivery.keys, false, now);
            delivery = self.deliveries.pop_front()?;
        }
        let id = DeliveryId(self.new_id());
        let (peer, keys) = (delivery.peer, delivery.keys.clone());
        let addresses = self.map.addresses(&peer).to_vec();
        self.sending.insert(id, delivery);
        self.tally.sent();
        let to = Contact { peer, addresses };
        Some(Action::Deliver { id, to, keys })
    }

    fn new_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    /// Takes keys until one needs a lookup.
    fn explore(&mut self, now: u64) -> Option<Action> {
        while let Some(entry) = self.take(now) {
            let (target, entry) = match self.map.closest(entry.position) {
                Closest::Certain(peers) if !peers.is_empty() => {
                    self.allocate(&entry, peers, now);
                    continue;
                }
                // Those who are known do not take records.
                Closest::Certain(_) => (entry.key, Some(entry)),
                Closest::Gap(gap) => match self.choose_target(entry, gap, now) {
                    Some(chosen) => chosen,
                    None => {
                        self.blocked.push(entry);
                        continue;
                    }
                },
            };
            return Some(self.look_up(target, entry, now));
        }
        None
    }

    /// The next key whose turn it is, unless enough is in work.
    fn take(&mut self, now: u64) -> Option<Entry> {
        let first = self.queue.first()?;
        if first.urgency != Urgency::Asked {
            let is_busy =
                self.lookups.len() >= self.lookups_max || self.blocked.len() >= BLOCKED_MAX;
            if is_busy || now < self.pause_until {
                return None;
            }
            let is_full = self.deliveries.len() >= DELIVERIES_WAITING_MAX;
            let new = Round {
                until: now + ROUND_SECS,
                keys: 0,
            };
            let round = match &mut self.round {
                Some(round) if round.until <= now || round.keys >= ROUND_KEYS_MAX => return None,
                Some(round) => round,
                None if is_full => return None,
                none => none.insert(new),
            };
            round.keys += 1;
        }
        let entry = self.queue.pop()?;
        self.begin(&entry);
        Some(entry)
    }

    fn begin(&mut self, entry: &Entry) {
        let job = Job {
            peers: 0,
            left: 0,
            told: 0,
            epoch: self.epoch,
        };
        self.jobs.insert(entry.key, job);
    }

    /// What to look up for a key with a gap in its surroundings: the key itself, another key of ours in the gap, or
    /// something else in it; `None` when that is being looked up already.
    fn choose_target(
        &mut self,
        entry: Entry,
        gap: Span,
        now: u64,
    ) -> Option<(Multihash, Option<Entry>)> {
        let itself = Some((entry.key, Some(entry)));
        if entry.urgency == Urgency::Asked {
            return itself;
        }
        let near = |position: Position| {
            let shares = |lookup: &Lookup| lookup.target.shared_bits(position) >= self.bits;
            self.lookups.values().any(shares)
        };
        let is_covered = self.map.covers(entry.position);
        if near(entry.position) || (is_covered && near(Position(gap.first))) {
            return None;
        }
        if !is_covered || now < self.no_gaps_until {
            return itself;
        }
        let other = self.queue.within(gap).next().copied();
        if let Some(other) = other {
            self.queue.remove(&other);
            self.blocked.push(entry);
            self.begin(&other);
            return Some((other.key, Some(other)));
        }
        let neighbours = entry.position.span(self.bits);
        if self.queue.within(neighbours).take(GAIN_MIN).count() < GAIN_MIN {
            return itself;
        }
        match target::key_in(gap) {
            Some(target) => {
                self.blocked.push(entry);
                Some((target, None))
            }
            None => itself,
        }
    }

    fn look_up(&mut self, target: Multihash, entry: Option<Entry>, now: u64) -> Action {
        let id = LookupId(self.new_id());
        let position = Position::of(target.as_bytes());
        self.tally.looked_up(now);
        let lookup = Lookup {
            target: position,
            entry,
        };
        self.lookups.insert(id, lookup);
        Action::Lookup { id, target }
    }

    /// A lookup is over.
    pub(crate) fn looked_up(&mut self, id: LookupId, answer: Answer, now: u64) {
        let Some(Lookup { target, entry }) = self.lookups.remove(&id) else {
            return;
        };
        self.release_blocked();
        if answer.peers.is_empty() {
            self.pause_until = now + RETRY_SECS;
        }
        let is_whole = answer.finished && self.believes(&answer, now);
        let peers: Vec<_> = answer.peers.iter().map(|contact| contact.peer).collect();
        if is_whole {
            self.bits = self.map.learn(target, answer.peers, now);
        } else {
            self.map.add_peers(answer.peers, now);
            self.no_gaps_until = match entry {
                None => now + DOUBT_SECS,
                Some(_) => self.no_gaps_until,
            };
        }
        if let Some(entry) = entry {
            let doubtful = answer.finished && !is_whole && entry.urgency != Urgency::Asked;
            let peers = if doubtful { Vec::new() } else { peers };
            self.allocate(&entry, peers, now);
        }
    }

    fn release_blocked(&mut self) {
        if let Some(round) = &mut self.round {
            round.keys = round.keys.saturating_sub(self.blocked.len());
        }
        for entry in std::mem::take(&mut self.blocked) {
            self.jobs.remove(&entry.key);
            self.queue.insert(entry);
        }
    }

    /// Whether an answer is what the network looks like. Fewer than 20 peers are the whole network if our own routing table
    /// knows no more; otherwise the connection may have failed us, and only time tells.
    fn believes(&mut self, answer: &Answer, now: u64) -> bool {
        if answer.peers.len() >= REPLICAS {
            self.short_since = None;
            return true;
        }
        let since = *self.short_since.get_or_insert(now);
        let is_known_small = answer.table <= REPLICAS || now >= since + DOUBT_SECS;
        !answer.peers.is_empty() && is_known_small
    }

    /// Notes which peers are to keep a key's record.
    fn allocate(&mut self, entry: &Entry, mut peers: Vec<PeerId>, now: u64) {
        peers.retain(|peer| !self.map.is_shunned(peer, now));
        let Some(job) = self.jobs.get_mut(&entry.key) else {
            return;
        };
        job.peers = peers.len() as u32;
        job.left = job.peers;
        if peers.is_empty() {
            return self.settle(entry.key, now);
        }
        for peer in peers {
            if entry.urgency == Urgency::Asked {
                let keys = vec![entry.key];
                self.deliveries.push_front(Delivery { peer, keys });
            } else {
                self.outbox.entry(peer).or_default().push(entry.key);
            }
        }
    }

    /// Sends what the round has come to, once nothing is being looked up; false while there is nothing.
    fn end_round(&mut self) -> bool {
        if !self.lookups.is_empty() {
            return false;
        }
        self.round = None;
        for (peer, keys) in std::mem::take(&mut self.outbox) {
            for keys in keys.chunks(RECORDS_PER_STREAM_MAX) {
                let keys = keys.to_vec();
                self.deliveries.push_back(Delivery { peer, keys });
            }
        }
        !self.deliveries.is_empty() && self.sending.len() < STREAMS_MAX
    }

    /// A delivery has arrived, or has not.
    pub(crate) fn delivered(&mut self, id: DeliveryId, arrived: bool, now: u64) {
        let Some(Delivery { peer, keys }) = self.sending.remove(&id) else {
            return;
        };
        if arrived {
            self.tally.arrived(keys.len());
        } else {
            self.map.shun(peer, now);
        }
        let settled = self.settled.len();
        self.ended(&keys, arrived, now);
        if arrived && self.census.has_room() {
            // This peer was the last of theirs.
            let done = self.settled.range(settled..).filter(|key| key.note);
            let keys = done.map(|settled| settled.key).collect();
            self.census.ask(&self.map, keys, now);
        }
    }

    /// A question how many others provide keys is answered, or never will be; what is to be believed of it.
    pub(crate) fn counted(
        &mut self,
        id: PollId,
        counts: &[(Multihash, u32)],
    ) -> Vec<(Multihash, u32)> {
        self.census.answered(id, counts)
    }

    fn ended(&mut self, keys: &[Multihash], arrived: bool, now: u64) {
        for key in keys {
            if let Some(job) = self.jobs.get_mut(key) {
                job.left -= 1;
                job.told += u32::from(arrived);
                if job.left == 0 {
                    self.settle(*key, now);
                }
            }
        }
    }

    fn settle(&mut self, key: Multihash, now: u64) {
        let Some(job) = self.jobs.get(&key).copied() else {
            return;
        };
        let success = job.told > 0 && job.told * ENOUGH_DIVISOR >= job.peers;
        let note = success && job.epoch == self.epoch;
        if success {
            self.tally.announced(Position::of(key.as_bytes()), now);
        } else {
            self.tally.failed();
            self.fail(key, now);
        }
        if !note {
            self.jobs.remove(&key);
        }
        let told = job.told;
        self.settled.push_back(Settled { key, told, note });
    }

    fn fail(&mut self, key: Multihash, now: u64) {
        let failure = self.failures.entry(key).or_insert(Failure {
            again_at: 0,
            times: 0,
        });
        failure.again_at = now + (RETRY_SECS << failure.times.min(RETRY_DOUBLINGS_MAX));
        failure.times += 1;
    }

    /// The store knows now that keys were announced, or could not be told.
    pub(crate) fn noted(&mut self, keys: &[Multihash], success: bool, now: u64) {
        for key in keys {
            self.jobs.remove(key);
            if success {
                self.failures.remove(key);
            } else {
                self.fail(*key, now);
            }
        }
    }

    /// How it stands.
    pub(crate) fn counts(&self, now: u64) -> Counts {
        self.tally.counts(self.jobs.len() + self.queue.len(), now)
    }
}
