//! How messages travel: shared access lines at both ends, a link with latency between, two kinds of streams on it.

use std::time::{Duration, Instant};

use super::{Action, Lie, NodeId, World, pair};
use crate::event::Lane;

/// Frames shorter than this arrive at once; longer ones in pieces, as from a socket.
const PIECE_BYTES: usize = 16 * 1024;
/// Most pieces a frame is shown in.
const PIECES_MAX: usize = 16;

/// A node's access line, store and honesty.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// Upload capacity, shared by all its links.
    pub up_bytes_per_sec: u64,
    /// Download capacity, shared by all its links.
    pub down_bytes_per_sec: u64,
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
}

impl Default for LinkConfig {
    fn default() -> Self {
        Self {
            latency: Duration::from_millis(20),
            jitter: Duration::ZERO,
            loss_one_in: 0,
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

/// A line that carries one byte after the other.
#[derive(Debug)]
pub(super) struct Pipe {
    bytes_per_sec: u64,
    free_at: Instant,
}

impl Pipe {
    pub(super) const fn new(bytes_per_sec: u64, now: Instant) -> Self {
        Self {
            bytes_per_sec,
            free_at: now,
        }
    }

    /// When `bytes` that come at `at` are through.
    fn carry(&mut self, bytes: usize, at: Instant) -> Instant {
        let nanos = bytes as u64 * 1_000_000_000 / self.bytes_per_sec;
        self.free_at = self.free_at.max(at) + Duration::from_nanos(nanos);
        self.free_at
    }
}

impl World {
    /// Sends bytes on their way. When they have left and on which connection, or `None` if there is none.
    pub(super) fn travel(
        &mut self,
        from: NodeId,
        to: NodeId,
        lane: Lane,
        frame: Vec<u8>,
    ) -> Option<(Instant, u64)> {
        let now = self.now;
        let link = self.links.get_mut(&pair(from, to))?;
        let jitter = self.rng.between(0, link.config.jitter.as_micros() as u64);
        let begin = now.max(self.nodes[from].up.free_at);
        // Control messages are small and find a gap between the packets of blocks.
        let departure = match lane {
            Lane::Control => now,
            Lane::Blocks => self.nodes[from].up.carry(frame.len(), now),
        };
        let mut arrival = departure + link.config.latency + Duration::from_micros(jitter);
        if lane == Lane::Control {
            let until = &mut link.control_until[usize::from(from < to)];
            arrival = arrival.max(*until);
            *until = arrival;
        }
        let (epoch, loss, latency) = (link.epoch, link.config.loss_one_in, link.config.latency);
        if loss > 0 && self.rng.one_in(loss) {
            let micros = self.rng.between(0, (arrival - now).as_micros() as u64);
            self.plan(
                Duration::from_micros(micros),
                Action::Break {
                    a: from,
                    b: to,
                    epoch,
                },
            );
        }
        self.arrive_in_pieces(from, to, epoch, frame.len(), (begin + latency)..arrival);
        self.plan(
            arrival - now,
            Action::Deliver {
                from,
                to,
                epoch,
                frame,
            },
        );
        Some((departure, epoch))
    }

    fn arrive_in_pieces(
        &mut self,
        from: NodeId,
        to: NodeId,
        epoch: u64,
        bytes: usize,
        time: std::ops::Range<Instant>,
    ) {
        let pieces = (bytes / PIECE_BYTES).min(PIECES_MAX);
        let span = time.end.saturating_duration_since(time.start);
        for piece in 1..pieces {
            let at = time.start + span * piece as u32 / pieces as u32;
            let delay = at.saturating_duration_since(self.now);
            self.plan(
                delay,
                Action::Receiving {
                    from,
                    to,
                    epoch,
                    bytes: bytes / pieces,
                },
            );
        }
    }
}
