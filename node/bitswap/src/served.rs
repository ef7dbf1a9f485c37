//! What one peer wants from us, and how far each want has come.
//!
//! A want is first *sized* (one look-up in the store's index tells presence and size), then either answered at once (HAVE,
//! DONT_HAVE), remembered until the block appears, or queued by priority. It is *loaded* only when the peer's stream can
//! take it, so a slow reader holds a queue of CIDs and not of blocks.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use base::Cid;

use crate::event::TransmitId;
use crate::ledger::Ledger;
use crate::limits::{
    RAREST_SCAN_MAX, RESPONSE_BYTES_PER_PEER_MAX, RESPONSES_PER_PEER_MAX, SENT_REMEMBERED_MAX,
    SERVED_WANTS_PER_PEER_MAX,
};
use crate::message::{Block, Presence, WantType};
use crate::rng::Seeded;

/// Answers without a block that wait for the control lane. More than one per want is waste of the peer's own making.
const PRESENCES_MAX: usize = 2 * SERVED_WANTS_PER_PEER_MAX;

/// Place in the queue: larger priority first, then first come.
pub(crate) type Rank = (Reverse<i32>, u64);

#[derive(Clone, Copy, Debug)]
pub(crate) struct ServedWant {
    pub(crate) priority: i32,
    pub(crate) want_type: WantType,
    pub(crate) send_dont_have: bool,
    pub(crate) stage: Stage,
    /// How often its block was handed to the transport and not written.
    pub(crate) failures: u8,
}

/// How far a want has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Its size is to be asked for, or (`asked`) has been. `again`: the block may have appeared since.
    Sizing { asked: bool, again: bool },
    /// We have it not; it is remembered in case it appears.
    Missing,
    /// We have it; it waits for its turn.
    Queued { rank: Rank, size: usize },
    /// It is being read, or is read and not yet written.
    Sending,
}

/// Blocks being read for one message.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) id: u64,
    /// Reads not answered yet.
    pub(crate) awaited: usize,
    /// Bytes of all its blocks, those being read included.
    pub(crate) bytes: usize,
    pub(crate) blocks: Vec<Block>,
}

/// A message of blocks that the transport has and has not written yet.
#[derive(Debug)]
pub(crate) struct InTransit {
    pub(crate) id: TransmitId,
    pub(crate) bytes: usize,
    pub(crate) cids: Vec<(Cid, usize)>,
}

/// How often blocks were sent of late.
///
/// Where several peers want the same blocks, each gets first what the others got least: then they have something to give to
/// each other, and we need not send it all to each. One peer alone gets its blocks in the order it asked for.
#[derive(Debug)]
pub(crate) struct Sent {
    times: HashMap<Cid, u32, Seeded>,
    order: VecDeque<Cid>,
}

impl Sent {
    pub(crate) fn new(hasher: Seeded) -> Self {
        Self {
            times: HashMap::with_hasher(hasher),
            order: VecDeque::new(),
        }
    }

    pub(crate) fn add(&mut self, cid: Cid) {
        *self.times.entry(cid).or_default() += 1;
        self.order.push_back(cid);
        if self.order.len() > SENT_REMEMBERED_MAX
            && let Some(oldest) = self.order.pop_front()
            && let Some(times) = self.times.get_mut(&oldest)
        {
            *times -= 1;
            if *times == 0 {
                self.times.remove(&oldest);
            }
        }
    }

    /// With nobody left who could want the same.
    pub(crate) fn clear(&mut self) {
        self.times.clear();
        self.order.clear();
    }

    fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    fn times(&self, cid: &Cid) -> u32 {
        self.times.get(cid).copied().unwrap_or(0)
    }
}

#[derive(Debug)]
pub(crate) struct ServedPeer {
    pub(crate) wants: HashMap<Cid, ServedWant, Seeded>,
    /// Answered as by somebody who has nothing.
    pub(crate) is_stranger: bool,
    /// Wants to ask the size of; may hold CIDs that are wanted no longer.
    pub(crate) to_size: VecDeque<Cid>,
    missing: BTreeSet<(i32, Cid)>,
    queue: BTreeMap<Rank, Cid>,
    queued_bytes: usize,
    arrivals: u64,
    pub(crate) presences: VecDeque<(Cid, Presence)>,
    pub(crate) batch: Option<Batch>,
    pub(crate) in_transit: Vec<InTransit>,
    /// Bytes it may still take before others have their turn.
    pub(crate) deficit: usize,
    /// Whether it is in the round of peers with queued blocks and room for more.
    pub(crate) in_round: bool,
    /// Whether it is in the round of peers with sizes to ask for.
    pub(crate) in_sizing: bool,
    pub(crate) ledger: Ledger,
}

impl ServedPeer {
    pub(crate) fn new(hasher: Seeded) -> Self {
        Self {
            wants: HashMap::with_hasher(hasher),
            is_stranger: false,
            to_size: VecDeque::new(),
            missing: BTreeSet::new(),
            queue: BTreeMap::new(),
            queued_bytes: 0,
            arrivals: 0,
            presences: VecDeque::new(),
            batch: None,
            in_transit: Vec::new(),
            deficit: 0,
            in_round: false,
            in_sizing: false,
            ledger: Ledger::default(),
        }
    }

    /// Wants that could not be served when last looked.
    pub(crate) fn missing(&self) -> Vec<Cid> {
        self.missing.iter().map(|(_, cid)| *cid).collect()
    }

    /// Makes room for one more want of this priority in a full list: a want we cannot serve goes first, then a less
    /// important one (boxo's rule). Returns what was pushed out, or `None` if the new one is the one to drop.
    pub(crate) fn evict_for(&mut self, priority: i32) -> Option<Cid> {
        if let Some((_, cid)) = self.missing.first() {
            return Some(*cid);
        }
        let ((Reverse(least), _), cid) = self.queue.last_key_value()?;
        (*least < priority).then_some(*cid)
    }

    pub(crate) fn is_full(&self) -> bool {
        self.wants.len() >= SERVED_WANTS_PER_PEER_MAX
    }

    /// Moves a want to another stage, keeping the indexes by stage in step. `None` ends the want.
    pub(crate) fn set_stage(&mut self, cid: &Cid, stage: Option<Stage>) {
        let Some(want) = self.wants.get_mut(cid) else {
            return;
        };
        match want.stage {
            Stage::Missing => drop(self.missing.remove(&(want.priority, *cid))),
            Stage::Queued { rank, size } => {
                self.queue.remove(&rank);
                self.queued_bytes -= size;
            }
            Stage::Sizing { .. } | Stage::Sending => {}
        }
        let Some(stage) = stage else {
            self.wants.remove(cid);
            return;
        };
        want.stage = stage;
        match stage {
            Stage::Missing => drop(self.missing.insert((want.priority, *cid))),
            Stage::Queued { rank, size } => {
                self.queue.insert(rank, *cid);
                self.queued_bytes += size;
            }
            Stage::Sizing { .. } | Stage::Sending => {}
        }
    }

    /// The stage of a want that is ready to be sent.
    pub(crate) fn queued(&mut self, priority: i32, size: usize) -> Stage {
        self.arrivals += 1;
        Stage::Queued {
            rank: (Reverse(priority), self.arrivals),
            size,
        }
    }

    /// Of the next blocks, the one that went out least of late, and its size.
    pub(crate) fn rarest_queued(&self, sent: &Sent) -> Option<(Cid, usize)> {
        if sent.is_empty() {
            return self.next_queued();
        }
        let next = self.queue.values().take(RAREST_SCAN_MAX);
        // Of equals the first is the minimum.
        let cid = next.min_by_key(|cid| sent.times(cid))?;
        match self.wants.get(cid)?.stage {
            Stage::Queued { size, .. } => Some((*cid, size)),
            Stage::Sizing { .. } | Stage::Missing | Stage::Sending => None,
        }
    }

    /// The next block to send and its size.
    pub(crate) fn next_queued(&self) -> Option<(Cid, usize)> {
        let (_, cid) = self.queue.first_key_value()?;
        match self.wants.get(cid)?.stage {
            Stage::Queued { size, .. } => Some((*cid, size)),
            Stage::Sizing { .. } | Stage::Missing | Stage::Sending => None,
        }
    }

    /// Bytes that wait for their turn.
    pub(crate) const fn queued_bytes(&self) -> usize {
        self.queued_bytes
    }

    /// Whether another batch may be read for it: one is on its way to the stream at most, and its bytes are bounded.
    pub(crate) fn has_room(&self) -> bool {
        let bytes: usize = self.in_transit.iter().map(|message| message.bytes).sum();
        self.batch.is_none()
            && self.in_transit.len() < RESPONSES_PER_PEER_MAX
            && bytes < RESPONSE_BYTES_PER_PEER_MAX
    }

    pub(crate) fn answer(&mut self, cid: Cid, presence: Presence) {
        if self.presences.len() < PRESENCES_MAX {
            self.presences.push_back((cid, presence));
        }
    }

    /// Bytes read, or being read and already counted, that its departure sets free at once.
    pub(crate) fn bytes_held(&self) -> usize {
        let batch = self.batch.as_ref().map_or(0, |batch| {
            batch.blocks.iter().map(|block| block.data().len()).sum()
        });
        batch
            + self
                .in_transit
                .iter()
                .map(|message| message.bytes)
                .sum::<usize>()
    }
}
