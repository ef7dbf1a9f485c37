//! How messages travel: shared access lines at both ends, a link with latency between, two kinds of streams on it.
//!
//! A node's upload is shared as TCP connections share it: each peer's messages in order, peers in turn, a piece at a time.
//! Control messages are small and find a gap between the pieces of blocks.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::{Action, Lie, NodeId, World, pair};
use crate::event::{Lane, Reach, TransmitId};

/// Bytes that one connection sends before another has its turn.
const PIECE_BYTES: usize = 16 * 1024;

/// A node's access line, store and honesty.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// Upload capacity, shared by all its links.
    pub up_bytes_per_sec: u64,
    /// Download capacity, shared by all its links.
    pub down_bytes_per_sec: u64,
    /// What it limits its own download from far nodes to.
    pub download_bytes_per_sec: Option<u64>,
    /// Longest time its store takes for an answer.
    pub store_delay_max: Duration,
    /// How it lies, if it does.
    pub lie: Option<Lie>,
    /// Whether others can dial it.
    pub reachable: bool,
}

impl Default for NodeConfig {
    fn default() -> Self {
        Self {
            up_bytes_per_sec: 10_000_000,
            down_bytes_per_sec: 100_000_000,
            download_bytes_per_sec: None,
            store_delay_max: Duration::from_millis(1),
            lie: None,
            reachable: true,
        }
    }
}

/// What the way between two nodes is like.
#[derive(Clone, Debug)]
pub struct LinkConfig {
    /// Time from one end to the other.
    pub latency: Duration,
    /// Random time on top; block messages overtake each other by it, as streams do.
    pub jitter: Duration,
    /// One message in this many breaks the connection. 0: none does.
    pub loss_one_in: u64,
    /// What its ends take it for.
    pub reach: Reach,
}

impl Default for LinkConfig {
    fn default() -> Self {
        Self {
            latency: Duration::from_millis(20),
            jitter: Duration::ZERO,
            loss_one_in: 0,
            reach: Reach::Far,
        }
    }
}

/// A connection.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) config: LinkConfig,
    /// Tells this connection from earlier ones of the same pair.
    pub(super) epoch: u64,
    /// When the last control message arrives, in each direction: these keep their order.
    control_until: [Instant; 2],
}

impl Link {
    pub(super) const fn new(config: LinkConfig, epoch: u64, now: Instant) -> Self {
        Self {
            config,
            epoch,
            control_until: [now, now],
        }
    }
}

/// Where a message goes, and on which connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Way {
    pub(super) from: NodeId,
    pub(super) to: NodeId,
    pub(super) epoch: u64,
}

/// A line into the network, shared by connections in turn.
#[derive(Debug)]
pub(super) struct Uplink {
    bytes_per_sec: u64,
    flows: VecDeque<(Way, VecDeque<Outgoing>)>,
    busy: bool,
}

#[derive(Debug)]
struct Outgoing {
    /// What to report once it has left; liars do not care.
    id: Option<TransmitId>,
    frame: Vec<u8>,
    sent: usize,
}

impl Uplink {
    pub(super) const fn new(bytes_per_sec: u64) -> Self {
        Self {
            bytes_per_sec,
            flows: VecDeque::new(),
            busy: false,
        }
    }

    fn push(&mut self, way: Way, outgoing: Outgoing) {
        match self.flows.iter_mut().find(|(flow, _)| *flow == way) {
            Some((_, queue)) => queue.push_back(outgoing),
            None => self.flows.push_back((way, [outgoing].into())),
        }
    }

    /// How long the next piece takes, if there is one.
    fn begin(&mut self) -> Option<Duration> {
        if self.bytes_per_sec == 0 {
            return None;
        }
        let (_, queue) = self.flows.front()?;
        let first = queue.front()?;
        let bytes = (first.frame.len() - first.sent).min(PIECE_BYTES);
        self.busy = true;
        Some(time_for(bytes, self.bytes_per_sec))
    }

    /// The piece begun last has left: its way, its size, and the message if that was its last piece.
    fn end(&mut self) -> Option<(Way, usize, Option<Outgoing>)> {
        self.busy = false;
        let (way, mut queue) = self.flows.pop_front()?;
        let first = queue.front_mut()?;
        let bytes = (first.frame.len() - first.sent).min(PIECE_BYTES);
        first.sent += bytes;
        let finished = first.sent == first.frame.len();
        let message = if finished { queue.pop_front() } else { None };
        if !queue.is_empty() {
            self.flows.push_back((way, queue));
        }
        Some((way, bytes, message))
    }
}

/// A line out of the network: one message after the other.
#[derive(Debug)]
pub(super) struct Downlink {
    bytes_per_sec: u64,
    free_at: Instant,
}

impl Downlink {
    pub(super) const fn new(bytes_per_sec: u64, now: Instant) -> Self {
        Self {
            bytes_per_sec,
            free_at: now,
        }
    }

    /// When `bytes` that come at `at` are through.
    fn carry(&mut self, bytes: usize, at: Instant) -> Instant {
        self.free_at = self.free_at.max(at) + time_for(bytes, self.bytes_per_sec);
        self.free_at
    }
}

fn time_for(bytes: usize, bytes_per_sec: u64) -> Duration {
    Duration::from_nanos(bytes as u64 * 1_000_000_000 / bytes_per_sec)
}

impl World {
    /// Sends a message on its way, if there is a connection.
    pub(super) fn travel(
        &mut self,
        (from, to): (NodeId, NodeId),
        lane: Lane,
        id: Option<TransmitId>,
        frame: Vec<u8>,
    ) {
        let Some(link) = self.links.get(&pair(from, to)) else {
            return;
        };
        let way = Way {
            from,
            to,
            epoch: link.epoch,
        };
        match lane {
            Lane::Control => self.depart(way, lane, id, frame),
            Lane::Blocks => {
                self.nodes[from]
                    .up
                    .push(way, Outgoing { id, frame, sent: 0 });
                self.begin_piece(from);
            }
        }
    }

    pub(super) fn set_line(&mut self, node: NodeId, up_bytes_per_sec: u64) {
        self.nodes[node].up.bytes_per_sec = up_bytes_per_sec;
        self.begin_piece(node);
    }

    fn begin_piece(&mut self, node: NodeId) {
        let up = &mut self.nodes[node].up;
        if up.busy {
            return;
        }
        if let Some(time) = up.begin() {
            self.plan(time, Action::Piece { node });
        }
    }

    /// A piece of a message has left its sender.
    pub(super) fn end_piece(&mut self, node: NodeId) {
        let Some((way, bytes, message)) = self.nodes[node].up.end() else {
            return;
        };
        if let Some(link) = self
            .links
            .get(&pair(way.from, way.to))
            .filter(|l| l.epoch == way.epoch)
        {
            let latency = link.config.latency;
            match message {
                Some(message) => self.depart(way, Lane::Blocks, message.id, message.frame),
                None => self.plan(latency, Action::Receiving { way, bytes }),
            }
        }
        self.begin_piece(node);
    }

    /// A whole message has left its sender.
    fn depart(&mut self, way: Way, lane: Lane, id: Option<TransmitId>, frame: Vec<u8>) {
        let now = self.now;
        let Some(link) = self.links.get_mut(&pair(way.from, way.to)) else {
            return;
        };
        let jitter = self.rng.between(0, link.config.jitter.as_micros() as u64);
        let mut arrival = now + link.config.latency + Duration::from_micros(jitter);
        if lane == Lane::Control {
            let until = &mut link.control_until[usize::from(way.from < way.to)];
            arrival = arrival.max(*until);
            *until = arrival;
        }
        let loss = link.config.loss_one_in;
        if loss > 0 && self.rng.one_in(loss) {
            let micros = self.rng.between(0, (arrival - now).as_micros() as u64);
            self.plan(Duration::from_micros(micros), Action::Break { way });
        }
        self.plan(arrival - now, Action::Arrive { way, lane, frame });
        if let Some(id) = id {
            self.plan(Duration::ZERO, Action::Sent { way, id });
        }
    }

    /// A message is at the receiver's end of the link and has yet to come down its line.
    pub(super) fn arrive(&mut self, way: Way, lane: Lane, frame: Vec<u8>) {
        let through = match lane {
            Lane::Control => self.now,
            Lane::Blocks => self.nodes[way.to].down.carry(frame.len(), self.now),
        };
        self.plan(through - self.now, Action::Deliver { way, frame });
    }
}
