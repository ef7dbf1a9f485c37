//! A seeded world of many exchanges: virtual clock, links with latency, bandwidth, loss and reordering, partitions, and
//! peers that lie.
//!
//! Everything that happens follows from one seed, so a failure is replayed by its number. Nothing sleeps: the clock jumps
//! to the next thing that happens, and a day passes in milliseconds. Messages travel encoded, so the codec is part of
//! every run; a lost message is a lost connection, since streams do not lose bytes.

mod liar;
mod network;
mod pump;

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::{Duration, Instant};

use base::{Cid, Sha256};

pub use self::liar::Lie;
use self::network::{Downlink, Link, Uplink, Way};
pub use self::network::{LinkConfig, NodeConfig};
use crate::budget::Budget;
use crate::config::Config;
use crate::event::{Event, Lane, LoadId, SessionId, Transmit, TransmitId};
use crate::exchange::Exchange;
use crate::frame::FrameDecoder;
use crate::ledger::SessionStats;
use crate::limits;
use crate::message::{Block, Message, Version};
use crate::rng::Rng;

/// The number of a node in the world.
pub type NodeId = usize;

/// What became of a want.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Its block came.
    Got,
    /// It was reported missing.
    Missing,
}

/// All nodes, links and pending happenings.
#[derive(Debug)]
pub struct World {
    start: Instant,
    now: Instant,
    rng: Rng,
    nodes: Vec<Node>,
    links: BTreeMap<(NodeId, NodeId), Link>,
    /// What all links without a setting of their own are like.
    pub link: LinkConfig,
    link_settings: BTreeMap<(NodeId, NodeId), LinkConfig>,
    /// Nodes on the far side of a partition.
    island: BTreeSet<NodeId>,
    /// Nodes that a search for providers finds.
    pub announced: Vec<NodeId>,
    agenda: BTreeMap<(Instant, u64), Action>,
    planned: u64,
    trace: DefaultHasher,
    steps: u64,
    /// Peers that a node reported as misbehaving.
    pub accused: BTreeSet<NodeId>,
    /// Most block bytes that any node's server held at any time.
    pub response_bytes_most: usize,
}

#[derive(Debug)]
struct Node {
    exchange: Exchange<NodeId>,
    config: NodeConfig,
    store: BTreeMap<Cid, base::Block>,
    /// Outcome by session and CID.
    ended: BTreeMap<(SessionId, Cid), Outcome>,
    open: BTreeSet<(SessionId, Cid)>,
    up: Uplink,
    down: Downlink,
    /// The wake-up that is planned.
    wake: Option<Instant>,
    /// Block bytes that arrived.
    received_bytes: usize,
    lied: usize,
}

#[derive(Clone, Debug, Hash)]
enum Action {
    Piece {
        node: NodeId,
    },
    Arrive {
        way: Way,
        lane: Lane,
        frame: Vec<u8>,
    },
    Deliver {
        way: Way,
        frame: Vec<u8>,
    },
    Receiving {
        way: Way,
        bytes: usize,
    },
    Sent {
        way: Way,
        id: TransmitId,
    },
    Break {
        way: Way,
    },
    Dial {
        from: NodeId,
        to: NodeId,
    },
    Found {
        node: NodeId,
        session: SessionId,
    },
    Sized {
        node: NodeId,
        id: LoadId,
        cid: Cid,
    },
    Loaded {
        node: NodeId,
        id: LoadId,
        cid: Cid,
    },
    Wake {
        node: NodeId,
    },
    Part {
        island: Vec<NodeId>,
    },
    Line {
        node: NodeId,
        up_bytes_per_sec: u64,
    },
}

impl World {
    /// An empty world.
    pub fn new(seed: u64) -> Self {
        let start = crate::testing::start();
        Self {
            start,
            now: start,
            rng: Rng::new(seed),
            nodes: Vec::new(),
            links: BTreeMap::new(),
            link: LinkConfig::default(),
            link_settings: BTreeMap::new(),
            island: BTreeSet::new(),
            announced: Vec::new(),
            agenda: BTreeMap::new(),
            planned: 0,
            trace: DefaultHasher::new(),
            steps: 0,
            accused: BTreeSet::new(),
            response_bytes_most: 0,
        }
    }

    // ---- building ----

    /// Adds a node that holds the given blocks.
    pub fn add_node(&mut self, config: NodeConfig, blocks: &[Block]) -> NodeId {
        let download = Budget::new(config.download_bytes_per_sec, self.now);
        let settings = Config {
            download,
            ..Config::default()
        };
        let exchange = Exchange::new(settings, self.rng.next());
        self.nodes.push(Node {
            exchange,
            store: blocks
                .iter()
                .map(|block| (*block.cid(), block.clone().into_verified()))
                .collect(),
            ended: BTreeMap::new(),
            open: BTreeSet::new(),
            up: Uplink::new(config.up_bytes_per_sec),
            down: Downlink::new(config.down_bytes_per_sec, self.start),
            config,
            wake: None,
            received_bytes: 0,
            lied: 0,
        });
        self.nodes.len() - 1
    }

    /// Gives one pair of nodes a link unlike the others.
    pub fn set_link(&mut self, a: NodeId, b: NodeId, config: LinkConfig) {
        self.link_settings.insert(pair(a, b), config);
    }

    /// Connects two nodes now.
    pub fn connect(&mut self, a: NodeId, b: NodeId) {
        if self.is_connected(a, b) || self.island.contains(&a) != self.island.contains(&b) {
            return;
        }
        let config = self
            .link_settings
            .get(&pair(a, b))
            .unwrap_or(&self.link)
            .clone();
        let (epoch, reach) = (self.rng.next(), config.reach);
        self.links
            .insert(pair(a, b), Link::new(config, epoch, self.now));
        for (node, peer) in [(a, b), (b, a)] {
            self.nodes[node]
                .exchange
                .handle_connected(peer, reach, self.now);
            self.lie_on_connect(node, peer);
            self.pump(node);
        }
    }

    /// Cuts the connection of two nodes now.
    pub fn disconnect(&mut self, a: NodeId, b: NodeId) {
        if self.links.remove(&pair(a, b)).is_none() {
            return;
        }
        for (node, peer) in [(a, b), (b, a)] {
            self.nodes[node]
                .exchange
                .handle_disconnected(peer, self.now);
            self.pump(node);
        }
    }

    /// Cuts every connection.
    pub fn disconnect_all(&mut self) {
        for (a, b) in self.links.keys().copied().collect::<Vec<_>>() {
            self.disconnect(a, b);
        }
    }

    /// After `delay`, these nodes can reach each other only, and the others each other only. Empty: all can again.
    pub fn part_after(&mut self, delay: Duration, island: Vec<NodeId>) {
        self.plan(delay, Action::Part { island });
    }

    /// After `delay`, a node has another line; with 0 bytes per second it sends no block, though its connections stay.
    pub fn line_after(&mut self, delay: Duration, node: NodeId, up_bytes_per_sec: u64) {
        let action = Action::Line {
            node,
            up_bytes_per_sec,
        };
        self.plan(delay, action);
    }

    /// Opens a session and wants these CIDs in it; `providers` are named to it at once.
    pub fn fetch(&mut self, node: NodeId, cids: &[Cid], providers: &[NodeId]) -> SessionId {
        let now = self.now;
        let session = self.nodes[node].exchange.open_session(now);
        for provider in providers {
            self.nodes[node]
                .exchange
                .add_provider(session, *provider, now);
        }
        self.want(node, session, cids);
        session
    }

    /// Adds wants to a session.
    pub fn want(&mut self, node: NodeId, session: SessionId, cids: &[Cid]) {
        self.nodes[node]
            .open
            .extend(cids.iter().map(|cid| (session, *cid)));
        self.nodes[node].exchange.want(session, cids, self.now);
        self.pump(node);
    }

    /// Withdraws wants of a session.
    pub fn cancel(&mut self, node: NodeId, session: SessionId, cids: &[Cid]) {
        for cid in cids {
            self.nodes[node].open.remove(&(session, *cid));
        }
        self.nodes[node].exchange.cancel(session, cids, self.now);
        self.pump(node);
    }

    /// Ends a session.
    pub fn close(&mut self, node: NodeId, session: SessionId) -> Option<SessionStats<NodeId>> {
        self.nodes[node].open.retain(|(open, _)| *open != session);
        let stats = self.nodes[node].exchange.close_session(session, self.now);
        self.pump(node);
        stats
    }

    // ---- looking ----

    /// Virtual time since the world began.
    pub fn elapsed(&self) -> Duration {
        self.now - self.start
    }

    /// Wants that have not ended, of all nodes.
    pub fn open_wants(&self) -> usize {
        self.nodes.iter().map(|node| node.open.len()).sum()
    }

    /// What became of a want.
    pub fn outcome(&self, node: NodeId, session: SessionId, cid: &Cid) -> Option<Outcome> {
        self.nodes[node].ended.get(&(session, *cid)).copied()
    }

    /// A node's machine.
    pub fn exchange(&self, node: NodeId) -> &Exchange<NodeId> {
        &self.nodes[node].exchange
    }

    /// Bytes of wanted blocks that a node got.
    pub fn received_bytes(&self, node: NodeId) -> usize {
        self.nodes[node].received_bytes
    }

    /// What a node's machine still holds that a machine at rest should not.
    pub fn residue(&self, node: NodeId) -> usize {
        self.nodes[node].exchange.residue()
    }

    /// A digest of everything that happened so far, and when.
    pub fn trace(&self) -> u64 {
        self.trace.finish()
    }

    /// How many things happened so far.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    fn is_connected(&self, a: NodeId, b: NodeId) -> bool {
        self.links.contains_key(&pair(a, b))
    }

    // ---- running ----

    /// Runs until every want has ended; false if `time_max` passed first.
    pub fn run(&mut self, time_max: Duration) -> bool {
        self.run_until(time_max, |world| world.open_wants() == 0)
    }

    /// Runs until `done`; false if `time_max` passed or nothing is left to happen first.
    pub fn run_until(&mut self, time_max: Duration, done: impl Fn(&Self) -> bool) -> bool {
        let end = self.now + time_max;
        while !done(self) {
            match self.agenda.first_key_value() {
                Some(((at, _), _)) if *at <= end => self.step(),
                _ => {
                    self.now = end;
                    return done(self);
                }
            }
        }
        true
    }

    fn step(&mut self) {
        let Some(((at, _), action)) = self.agenda.pop_first() else {
            return;
        };
        self.now = self.now.max(at);
        self.steps += 1;
        ((at - self.start), &action).hash(&mut self.trace);
        match action {
            Action::Piece { node } => self.end_piece(node),
            Action::Arrive { way, lane, frame } if self.is_current(way) => {
                self.arrive(way, lane, frame);
            }
            Action::Deliver { way, frame } if self.is_current(way) => self.deliver(way, &frame),
            Action::Receiving { way, bytes } if self.is_current(way) => {
                self.nodes[way.to]
                    .exchange
                    .handle_receiving(way.from, bytes, self.now);
            }
            Action::Sent { way, id } if self.is_current(way) => {
                self.nodes[way.from]
                    .exchange
                    .handle_sent(way.to, id, self.now);
                self.pump(way.from);
            }
            Action::Break { way } if self.is_current(way) => self.disconnect(way.from, way.to),
            // Of a connection that is gone.
            Action::Arrive { .. }
            | Action::Deliver { .. }
            | Action::Receiving { .. }
            | Action::Sent { .. }
            | Action::Break { .. } => {}
            Action::Dial { from, to } => self.dial(from, to),
            Action::Found { node, session } => self.found(node, session),
            Action::Sized { node, id, cid } => {
                let size = self.nodes[node]
                    .store
                    .get(&cid)
                    .map(|block| block.len() as u64);
                self.nodes[node].exchange.handle_size(id, size);
                self.pump(node);
            }
            Action::Loaded { node, id, cid } => {
                let block = self.nodes[node].store.get(&cid);
                let data = block.map(|block| block.bytes().clone());
                self.nodes[node].exchange.handle_loaded(id, data);
                self.pump(node);
            }
            Action::Wake { node } => self.wake(node),
            Action::Part { island } => self.part(&island),
            Action::Line {
                node,
                up_bytes_per_sec,
            } => self.set_line(node, up_bytes_per_sec),
        }
    }

    fn plan(&mut self, delay: Duration, action: Action) {
        self.planned += 1;
        self.agenda.insert((self.now + delay, self.planned), action);
    }

    fn is_current(&self, way: Way) -> bool {
        self.links
            .get(&pair(way.from, way.to))
            .is_some_and(|link| link.epoch == way.epoch)
    }

    fn deliver(&mut self, Way { from, to, .. }: Way, frame: &[u8]) {
        for message in decode(frame) {
            if self.nodes[to].config.lie.is_some() {
                self.lie(to, from, &message);
            } else {
                self.nodes[to]
                    .exchange
                    .handle_message(from, message, self.now);
            }
        }
        self.pump(to);
    }

    fn dial(&mut self, from: NodeId, to: NodeId) {
        if self.nodes[to].config.reachable {
            self.connect(from, to);
        }
        if !self.is_connected(from, to) {
            self.nodes[from].exchange.handle_disconnected(to, self.now);
            self.pump(from);
        }
    }

    fn found(&mut self, node: NodeId, session: SessionId) {
        let mut providers = self.announced.clone();
        for last in (1..providers.len()).rev() {
            providers.swap(last, self.rng.below(last as u64 + 1) as usize);
        }
        for provider in providers.into_iter().filter(|provider| *provider != node) {
            self.nodes[node]
                .exchange
                .add_provider(session, provider, self.now);
        }
        self.nodes[node].exchange.search_ended(session, self.now);
        self.pump(node);
    }

    fn wake(&mut self, node: NodeId) {
        if self.nodes[node].wake.is_some_and(|at| at <= self.now) {
            self.nodes[node].wake = None;
            self.nodes[node].exchange.handle_timeout(self.now);
            self.pump(node);
        }
    }

    fn part(&mut self, island: &[NodeId]) {
        self.island = island.iter().copied().collect();
        for (a, b) in self.links.keys().copied().collect::<Vec<_>>() {
            if self.island.contains(&a) != self.island.contains(&b) {
                self.disconnect(a, b);
            }
        }
    }
}

fn pair(a: NodeId, b: NodeId) -> (NodeId, NodeId) {
    (a.min(b), a.max(b))
}

/// Reads a frame as a receiver does; what is malformed is dropped with its stream.
fn decode(wire: &[u8]) -> Vec<Message> {
    let (mut decoder, mut rest, mut messages) = (FrameDecoder::default(), wire, Vec::new());
    while !rest.is_empty() {
        let space = decoder.space();
        let (head, tail) = rest.split_at(space.len().min(rest.len()));
        space[..head.len()].copy_from_slice(head);
        decoder.filled(head.len());
        rest = tail;
        while let Ok(Some(frame)) = decoder.next_frame() {
            match Message::decode(&frame) {
                Ok(message) => messages.push(message),
                Err(_) => return messages,
            }
        }
    }
    messages
}

#[cfg(test)]
mod swarm_tests;
#[cfg(test)]
mod tests;
