//! The sweep in a network of a thousand simulated nodes. Everything comes from a seed; nothing waits.

use std::collections::{BTreeSet, HashMap, HashSet};

use base::{Multihash, Sha256};
use libp2p::PeerId;
use store::{Provide, ProvideKind};

use super::map::REPLICAS;
use super::*;

const START: u64 = 1_800_000_000;
const LOOKUPS_MAX: usize = 16;
/// How long a lookup and a delivery take, in seconds.
const LOOKUP_SECS: u64 = 3;
const DELIVERY_SECS: u64 = 2;
/// How many others provide each key.
const OTHERS: u32 = 2;

fn last() -> Multihash {
    Multihash::sha2_256(&Sha256::from_bytes([u8::MAX; 32]))
}

/// A peer id that only its number decides.
pub(super) fn peer(name: u32) -> PeerId {
    let key = Sha256::of(&name.to_be_bytes());
    let mut bytes = vec![0, 36, 8, 1, 18, 32];
    bytes.extend_from_slice(key.as_bytes());
    PeerId::from_bytes(&bytes).unwrap()
}

fn key(name: u32) -> Multihash {
    Multihash::sha2_256(&Sha256::of(&(u64::from(name) << 32).to_be_bytes()))
}

fn provide(key: Multihash, provided_unix_secs: Option<u64>) -> Provide {
    Provide {
        key,
        kind: ProvideKind::Source,
        provided_unix_secs,
    }
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn percent(&mut self, percent: u64) -> bool {
        self.next() % 100 < percent
    }
}

struct Node {
    position: Position,
    peer: PeerId,
    /// Whether lookups find it, and whether it takes records.
    alive: bool,
    deaf: bool,
    /// Says that everybody provides everything.
    liar: bool,
    records: HashSet<Multihash>,
}

enum Event {
    LookedUp(LookupId, Multihash),
    Delivered(DeliveryId, PeerId, Vec<Multihash>),
}

/// The network, the store's table, and a machine between them.
struct World {
    random: Random,
    nodes: Vec<Node>,
    of_peer: HashMap<PeerId, usize>,
    /// A lookup misses each node with this probability, in percent.
    missed_percent: u64,
    schedule: Schedule,
    /// When each key was announced last, and when it is due; and all keys in the order in which they are due.
    table: HashMap<Multihash, (Option<u64>, u64)>,
    by_due: BTreeSet<(u64, Multihash)>,
    sweeper: Sweeper,
    now: u64,
    pending: Vec<(u64, Event)>,
    /// Announcements that succeeded, by key.
    announced: HashMap<Multihash, u32>,
    lookups: u64,
    streams: u64,
    /// What is believed of how many others provide keys.
    counted: HashMap<Multihash, u32>,
    /// How many liars each poll asked.
    polls: HashMap<PollId, usize>,
}

impl World {
    fn new(seed: u64, nodes: u32) -> Self {
        let node = |name| Node {
            position: Position::of(&peer(name).to_bytes()),
            peer: peer(name),
            alive: true,
            deaf: false,
            liar: false,
            records: HashSet::new(),
        };
        let nodes: Vec<_> = (0..nodes).map(|n| node(n + 1000 * seed as u32)).collect();
        Self {
            random: Random(seed),
            of_peer: nodes.iter().enumerate().map(|(i, n)| (n.peer, i)).collect(),
            nodes,
            missed_percent: 2,
            schedule: Schedule::of(Position(seed)),
            table: HashMap::new(),
            by_due: BTreeSet::new(),
            sweeper: Sweeper::new(LOOKUPS_MAX),
            now: START,
            pending: Vec::new(),
            announced: HashMap::new(),
            lookups: 0,
            streams: 0,
            counted: HashMap::new(),
            polls: HashMap::new(),
        }
    }

    fn add_keys(&mut self, names: std::ops::Range<u32>) {
        for key in names.map(key) {
            self.note(key, None, 0);
        }
    }

    fn note(&mut self, key: Multihash, provided: Option<u64>, due: u64) {
        if let Some((_, before)) = self.table.insert(key, (provided, due)) {
            self.by_due.remove(&(before, key));
        }
        self.by_due.insert((due, key));
    }

    /// Runs for so long, or until nothing is due and the machine has nothing to do.
    fn run(&mut self, secs: u64, until_idle: bool) {
        let end = self.now + secs;
        while self.now < end {
            self.ask();
            self.act();
            let next_due = self.by_due.first().map_or(end, |(due, _)| *due);
            let is_idle = self.pending.is_empty() && self.in_work() == 0;
            if until_idle && is_idle && next_due > self.now {
                return;
            }
            self.now = if is_idle {
                next_due.clamp(self.now + 1, end)
            } else {
                self.now + 1
            };
            let (over, pending) = std::mem::take(&mut self.pending)
                .into_iter()
                .partition(|(at, _)| *at <= self.now);
            self.pending = pending;
            for (_, event) in over {
                self.happen(event);
                self.act();
            }
        }
    }

    fn in_work(&self) -> usize {
        self.sweeper.counts(self.now).in_flight
    }

    fn ask(&mut self) {
        if let Some(limit) = self.sweeper.ask(self.now) {
            let due = self.by_due.range(..=(self.now, last()));
            let due: Vec<_> = due
                .take(limit)
                .map(|(_, key)| provide(*key, self.table[key].0))
                .collect();
            self.sweeper.offer(&due, self.now);
        }
    }

    fn act(&mut self) {
        while let Some(action) = self.sweeper.poll(self.now) {
            match action {
                Action::Lookup { id, target } => {
                    self.lookups += 1;
                    let over = (self.now + LOOKUP_SECS, Event::LookedUp(id, target));
                    self.pending.push(over);
                }
                Action::Deliver { id, to, keys } => {
                    self.streams += 1;
                    assert!(keys.len() <= 1000 && !to.addresses.is_empty());
                    let over = Event::Delivered(id, to.peer, keys);
                    self.pending.push((self.now + DELIVERY_SECS, over));
                }
                Action::Settled(settled) if settled.note => {
                    let next = self
                        .schedule
                        .next_unix_secs(self.now, Position::of(settled.key.as_bytes()));
                    self.note(settled.key, Some(self.now), next);
                    *self.announced.entry(settled.key).or_default() += 1;
                    self.sweeper.noted(&[settled.key], true, self.now);
                }
                Action::Settled(_) => {}
                Action::Count { id, to, keys } => {
                    assert!(keys.len() <= 32 && !to.addresses.is_empty());
                    let node = &self.nodes[self.of_peer[&to.peer]];
                    let others = |key: &Multihash| match (node.liar, node.records.contains(key)) {
                        (true, _) => 1_000_000,
                        (false, true) => OTHERS,
                        (false, false) => 0,
                    };
                    let counts: Vec<_> = keys.iter().map(|key| (*key, others(key))).collect();
                    let answers = if node.alive { &counts[..] } else { &[] };
                    let liars = self.polls.entry(id).or_default();
                    *liars += usize::from(node.liar);
                    let believed = self.sweeper.counted(id, answers);
                    let is_fooled = believed.iter().any(|(_, others)| *others > OTHERS);
                    assert!(!is_fooled || *liars > 1, "by {liars} of three");
                    self.counted.extend(believed);
                }
            }
        }
        assert!(self.pending.len() <= LOOKUPS_MAX + 64, "bounded");
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::LookedUp(id, target) => {
                let answer = self.look_up(Position::of(target.as_bytes()));
                self.sweeper.looked_up(id, answer, self.now);
            }
            Event::Delivered(id, peer, keys) => {
                let node = &mut self.nodes[self.of_peer[&peer]];
                let arrives = node.alive && !node.deaf;
                if arrives {
                    node.records.extend(keys);
                }
                self.sweeper.delivered(id, arrives, self.now);
            }
        }
    }

    fn look_up(&mut self, target: Position) -> Answer {
        let Self {
            random,
            nodes,
            missed_percent,
            ..
        } = self;
        let mut found: Vec<_> = nodes
            .iter()
            .filter(|node| node.alive && !random.percent(*missed_percent))
            .collect();
        found.sort_unstable_by_key(|node| node.position.distance(target));
        found.truncate(REPLICAS);
        let contact = |node: &&Node| Contact {
            peer: node.peer,
            addresses: vec!["/ip4/1.2.3.4/tcp/1".parse().unwrap()],
        };
        Answer {
            peers: found.iter().map(contact).collect(),
            finished: true,
            table: 200.min(nodes.len()),
        }
    }

    /// Which part of the records that should be at the 20 closest living nodes is there, of every `step`th key.
    fn placed(&self, keys: std::ops::Range<u32>, step: usize) -> f64 {
        let (mut right, mut all) = (0, 0);
        for name in keys.step_by(step) {
            let key = key(name);
            let position = Position::of(key.as_bytes());
            let mut nodes: Vec<_> = self.nodes.iter().filter(|node| node.alive).collect();
            nodes.sort_unstable_by_key(|node| node.position.distance(position));
            nodes.truncate(REPLICAS);
            all += nodes.len();
            right += nodes.iter().filter(|n| n.records.contains(&key)).count();
        }
        right as f64 / all as f64
    }

    fn announced_times(&self, times: u32) -> usize {
        self.announced.values().filter(|n| **n == times).count()
    }
}

#[test]
fn a_hundred_thousand_keys_take_a_thirtieth_of_the_lookups_and_land_where_they_belong() {
    let mut world = World::new(1, 1000);
    world.add_keys(0..100_000);
    world.run(3600, true);
    let (first, took) = (world.lookups, world.now - START);
    let placed = world.placed(0..100_000, 97);
    assert_eq!(world.announced_times(1), 100_000);
    // 76 lookups and 99.2 % when this was written, though each lookup misses 2 % of the nodes.
    assert!(first <= 150, "{first} lookups");
    assert!(placed >= 0.97, "{placed}");
    // Most peers get their hundreds of records a few times, never one by one.
    assert!(world.streams <= 5000, "{} streams", world.streams);
    assert!(took <= 600, "{took} seconds");
    // Within the first day every key takes its place in the cycle, and then each comes once a cycle.
    world.run(24 * 3600, false);
    let (lookups, before) = (world.lookups, world.announced.clone());
    world.run(22 * 3600, false);
    let cycle = world.lookups - lookups;
    assert!(
        cycle <= 500,
        "{cycle} lookups; 97 % fewer than one for each would be 3000"
    );
    let moved = |(key, times): (&Multihash, &u32)| world.announced[key] - *times == 1;
    let once = before.iter().filter(|row| moved(*row)).count();
    assert!(once >= 99_000, "{once} keys came once");
    let counts = world.sweeper.counts(world.now);
    assert_eq!((counts.cycle_regions, counts.failed), (256, 0));
    assert!(
        (100_000..105_000).contains(&counts.cycle_keys),
        "{counts:?}"
    );
}

#[test]
fn nodes_that_take_nothing_and_nodes_that_leave_cost_retries_and_no_keys() {
    let mut world = World::new(2, 1000);
    for index in 0..100 {
        world.nodes[index * 10].deaf = true;
    }
    world.add_keys(0..20_000);
    // While it runs, a fifth of the others leaves.
    for step in 0..200 {
        world.run(2, false);
        world.nodes[step * 5 + 1].alive = false;
    }
    world.run(4 * 3600, true);
    assert_eq!(world.announced_times(1), 20_000);
    let placed = world.placed(0..20_000, 37);
    // Deaf nodes are among the closest and have nothing: a tenth can never be right. What came before a node left is
    // where it belonged then.
    assert!(placed >= 0.68, "{placed}");
    let lookups = world.lookups;
    assert!(lookups <= 600, "{lookups} lookups");
    // A day later all is in order again.
    world.run(24 * 3600, false);
    let placed = world.placed(0..20_000, 37);
    assert!(placed >= 0.87, "{placed}");
}

#[test]
fn after_a_restart_in_the_middle_nothing_is_forgotten_and_nothing_done_twice() {
    let mut world = World::new(3, 1000);
    world.add_keys(0..10_000);
    world.run(40, false);
    let done = world.announced.len();
    assert!(
        (1..10_000).contains(&done),
        "{done} keys at the time of the restart"
    );
    world.sweeper = Sweeper::new(LOOKUPS_MAX);
    world.pending.clear();
    world.run(3600, true);
    assert_eq!(
        (world.announced.len(), world.announced_times(1)),
        (10_000, 10_000)
    );
    world.sweeper = Sweeper::new(LOOKUPS_MAX);
    let lookups = world.lookups;
    world.run(60, false);
    assert_eq!(world.announced.len(), world.announced_times(1));
    assert!(world.lookups <= lookups + 2, "only what has come due");
}

#[test]
fn what_was_on_its_way_when_the_addresses_changed_is_announced_again() {
    let mut world = World::new(4, 200);
    world.add_keys(0..100);
    world.run(LOOKUP_SECS + 1, false);
    assert!(world.announced.is_empty());
    world.sweeper.restart();
    world.run(3600, true);
    assert_eq!(world.announced_times(1), 100);
    assert!(
        world.sweeper.counts(world.now).done > 100,
        "some went out twice"
    );
}

#[test]
fn a_small_network_takes_one_lookup_for_everything_and_each_peer_one_stream() {
    let mut world = World::new(5, 6);
    world.missed_percent = 0;
    world.add_keys(0..900);
    world.run(60, true);
    assert_eq!(
        (world.announced_times(1), world.lookups, world.streams),
        (900, 1, 6)
    );
    assert_eq!(world.placed(0..900, 1), 1.0);
    // Somebody joins: what comes now reaches it too.
    world.nodes.push(Node {
        peer: peer(7),
        position: Position::of(&peer(7).to_bytes()),
        alive: true,
        deaf: false,
        liar: false,
        records: HashSet::new(),
    });
    world.of_peer.insert(peer(7), 6);
    world.sweeper.newcomer();
    world.add_keys(900..901);
    let start = world.now;
    world.run(60, true);
    assert_eq!(world.nodes[6].records.len(), 1);
    assert!(world.now - start <= LOOKUP_SECS + DELIVERY_SECS + 1);
}

#[test]
fn a_key_that_somebody_waits_for_does_not_wait_for_the_others() {
    let mut world = World::new(6, 1000);
    world.add_keys(0..50_000);
    world.run(20, false);
    let wanted = key(70_000);
    world.sweeper.announce_now(wanted);
    world.sweeper.announce_now(wanted);
    world.run(2 * (LOOKUP_SECS + DELIVERY_SECS), false);
    assert_eq!(world.announced.get(&wanted), Some(&1));
    // So does one that another process has just put into the queue, within a round or two.
    world.add_keys(80_000..80_001);
    world.run(60, false);
    assert_eq!(world.announced.get(&key(80_000)), Some(&1));
}

#[test]
fn without_anybody_it_stops_and_comes_back_later() {
    let mut world = World::new(7, 50);
    world.nodes.iter_mut().for_each(|node| node.alive = false);
    world.add_keys(0..1000);
    world.run(600, false);
    assert!(
        world.lookups <= 12,
        "{} lookups in ten minutes",
        world.lookups
    );
    world.nodes.iter_mut().for_each(|node| node.alive = true);
    world.run(2 * 3600, true);
    assert_eq!(world.announced_times(1), 1000);
}

#[test]
fn a_bad_moment_of_a_large_network_is_not_taken_for_a_small_one() {
    let mut world = World::new(8, 1000);
    for node in &mut world.nodes[5..] {
        node.alive = false;
    }
    world.add_keys(0..1000);
    world.run(30, false);
    assert_eq!(world.announced.len(), 0, "our own table knows better");
    for node in &mut world.nodes {
        node.alive = true;
    }
    world.run(3600, true);
    assert_eq!(world.announced_times(1), 1000);
    assert!(world.placed(0..1000, 1) > 0.95);
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let run = || {
        let mut world = World::new(9, 300);
        world.add_keys(0..2000);
        world.run(3600, true);
        (world.lookups, world.streams, world.now)
    };
    assert_eq!(run(), run());
}

#[test]
fn others_are_counted_by_asking_peers_that_keep_the_record() {
    let mut world = World::new(10, 300);
    world.add_keys(0..200);
    world.run(3600, true);
    assert!(world.counted.is_empty(), "only where it is of use");
    world.sweeper = Sweeper::new(LOOKUPS_MAX).counting_others(true);
    world.run(24 * 3600, false);
    let counted = world.counted.len();
    assert!(
        counted >= 150,
        "{counted} of 200 keys were asked for within a day"
    );
    let right = world.counted.values().filter(|n| **n == OTHERS).count();
    assert!(right * 10 >= counted * 9, "{right} of {counted}");
}

#[test]
fn a_liar_cannot_make_rare_keys_look_common() {
    let mut world = World::new(11, 300);
    // Of three neighbours in the keyspace mostly one lies, or none.
    let mut order: Vec<usize> = (0..world.nodes.len()).collect();
    order.sort_unstable_by_key(|node| world.nodes[*node].position);
    for node in order.into_iter().step_by(4) {
        world.nodes[node].liar = true;
    }
    world.add_keys(0..200);
    world.sweeper = Sweeper::new(LOOKUPS_MAX).counting_others(true);
    world.run(24 * 3600, false);
    assert!(world.counted.len() >= 100, "{}", world.counted.len());
    let liars: Vec<_> = world.polls.values().copied().collect();
    assert!(liars.iter().filter(|liars| **liars == 1).count() > 5);
}
