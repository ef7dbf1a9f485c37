//! The answering half: wants of others in, HAVE, DONT_HAVE and blocks out, fairly and within fixed memory.
//!
//! Peers with queued blocks take turns by deficit round-robin over bytes (Shreedhar, Varghese 1996): each turn grants a
//! peer one message's worth, so whoever asks for many small blocks and whoever asks for few large ones get the same
//! bytes. A turn reads blocks only if the peer's stream can take them and the bytes held for all peers stay within a fixed
//! total. There is no debt and no credit: everybody who asks is served.

mod blocks;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use base::{Cid, Multihash, Sha256};

use crate::config::Config;
use crate::event::{Event, LoadId, TransmitId};
use crate::ledger::Ledger;
use crate::limits::{
    BLOCK_BYTES_MAX, HAVE_REPLACE_BYTES_MAX, LOADS_MAX, RESPONSE_BYTES_TARGET,
    SERVED_WANTS_PER_PEER_MAX, SIZE_LOADS_MAX,
};
use crate::message::{Block, Entry, Message, Presence, WantType};
use crate::peer::PeerIx;
use crate::rng::{Rng, Seeded};
use crate::served::{Batch, InTransit, Sent, ServedPeer, ServedWant, Stage};

/// Times a block is handed to the transport again after it could not be written.
const SEND_FAILURES_MAX: u8 = 2;
/// Most HAVEs and DONT_HAVEs in one message; the same bound as for wants, and for the same reason.
const PRESENCES_PER_MESSAGE_MAX: usize = 1024;

/// Most that a peer may save up: enough for the largest block after any number of smaller ones.
const DEFICIT_BYTES_MAX: usize = RESPONSE_BYTES_TARGET + BLOCK_BYTES_MAX;

#[derive(Debug)]
pub(crate) struct Server {
    config: Config,
    rng: Rng,
    peers: BTreeMap<PeerIx, ServedPeer>,
    /// Who waits for a block that was not there when last looked, or is being looked for.
    waiting: HashMap<Multihash, Vec<(PeerIx, Cid)>, Seeded>,
    loads: BTreeMap<LoadId, Load>,
    block_loads: usize,
    /// Peers with queued blocks and room for more, in turn.
    round: VecDeque<PeerIx>,
    /// Peers with sizes to ask for, in turn.
    sizing: VecDeque<PeerIx>,
    /// Peers with a batch that is read.
    ready: VecDeque<PeerIx>,
    /// Block bytes being read, read, or with the transport.
    bytes_held: usize,
    loads_asked: u64,
    batches: u64,
    events: VecDeque<Event<PeerIx>>,
    /// What went out of late, where several peers could want it.
    sent: Sent,
    /// Peers with HAVEs or DONT_HAVEs to send.
    dirty: BTreeSet<PeerIx>,
    past: Ledger,
    empty_digest: Sha256,
}

/// What an answer of the store is for.
#[derive(Clone, Copy, Debug)]
struct Load {
    peer: PeerIx,
    cid: Cid,
    /// The batch it is read for and the bytes it is counted with; without one, only its size is asked.
    batch: Option<(u64, usize)>,
}

impl Server {
    pub(crate) fn new(config: Config, mut rng: Rng) -> Self {
        Self {
            config,
            waiting: HashMap::with_hasher(rng.hasher()),
            sent: Sent::new(rng.hasher()),
            rng,
            peers: BTreeMap::new(),
            loads: BTreeMap::new(),
            block_loads: 0,
            round: VecDeque::new(),
            sizing: VecDeque::new(),
            ready: VecDeque::new(),
            bytes_held: 0,
            loads_asked: 0,
            batches: 0,
            events: VecDeque::new(),
            dirty: BTreeSet::new(),
            past: Ledger::default(),
            empty_digest: Sha256::of(b""),
        }
    }

    pub(crate) fn handle_connected(&mut self, ix: PeerIx) {
        let rng = &mut self.rng;
        let peer = self
            .peers
            .entry(ix)
            .or_insert_with(|| ServedPeer::new(rng.hasher()));
        if std::mem::take(&mut peer.is_stranger) {
            // It was told that we have none of these.
            for cid in peer.missing() {
                self.size_again(ix, cid);
            }
            self.ask_sizes();
        }
    }

    /// A peer is connected that must not learn what we have, unless it is served already.
    pub(crate) fn handle_stranger(&mut self, ix: PeerIx) {
        let rng = &mut self.rng;
        self.peers.entry(ix).or_insert_with(|| {
            let mut peer = ServedPeer::new(rng.hasher());
            peer.is_stranger = true;
            peer
        });
    }

    pub(crate) fn is_stranger(&self, ix: PeerIx) -> bool {
        self.peers.get(&ix).is_some_and(|peer| peer.is_stranger)
    }

    pub(crate) fn knows(&self, ix: PeerIx) -> bool {
        self.peers.contains_key(&ix)
    }

    pub(crate) fn handle_disconnected(&mut self, ix: PeerIx) {
        let Some(peer) = self.peers.remove(&ix) else {
            return;
        };
        for (cid, want) in &peer.wants {
            if matches!(want.stage, Stage::Sizing { .. } | Stage::Missing) {
                forget_waiting(&mut self.waiting, ix, cid);
            }
        }
        self.bytes_held -= peer.bytes_held();
        self.past.add(&peer.ledger);
        self.dirty.remove(&ix);
        self.round.retain(|other| *other != ix);
        self.sizing.retain(|other| *other != ix);
        self.ready.retain(|other| *other != ix);
        if self.peers.len() <= 1 {
            self.sent.clear();
        }
        self.read_blocks();
    }

    // ---- wants ----

    pub(crate) fn handle_wantlist(&mut self, from: PeerIx, entries: Vec<Entry>, full: bool) {
        if !self.peers.contains_key(&from) {
            return;
        }
        let merged = merge(entries);
        if full {
            self.replace(from, &merged);
        }
        for (cid, change) in merged {
            match change {
                Change::Cancel => self.end(from, &cid),
                Change::Want {
                    priority,
                    want_type,
                    send_dont_have,
                } => {
                    let stage = Stage::Sizing {
                        asked: false,
                        again: false,
                    };
                    let want = ServedWant {
                        priority,
                        want_type,
                        send_dont_have,
                        stage,
                        failures: 0,
                    };
                    self.handle_want(from, cid, want);
                }
            }
        }
        self.ask_sizes();
        self.read_blocks();
    }

    /// A full wantlist: what is not in it is wanted no longer.
    fn replace(&mut self, from: PeerIx, merged: &[(Cid, Change)]) {
        let Some(peer) = self.peers.get(&from) else {
            return;
        };
        let kept: BTreeSet<&Cid> = merged.iter().map(|(cid, _)| cid).collect();
        let mut gone: Vec<Cid> = peer
            .wants
            .keys()
            .filter(|cid| !kept.contains(cid))
            .copied()
            .collect();
        gone.sort_unstable();
        for cid in gone {
            self.end(from, &cid);
        }
    }

    fn handle_want(&mut self, from: PeerIx, cid: Cid, want: ServedWant) {
        let Some(peer) = self.peers.get_mut(&from) else {
            return;
        };
        let Some(hash) = Multihash::of(&cid).ok().filter(|_| self.config.serve) else {
            if want.send_dont_have {
                peer.answer(cid, Presence::DontHave);
                self.dirty.insert(from);
            }
            return;
        };
        if let Some(known) = peer.wants.get(&cid).copied() {
            return self.update(from, cid, known, want);
        }
        if peer.is_full() {
            let Some(out) = peer.evict_for(want.priority) else {
                return;
            };
            self.end(from, &out);
        }
        let Some(peer) = self.peers.get_mut(&from) else {
            return;
        };
        peer.wants.insert(cid, want);
        if hash.digest() == self.empty_digest {
            return self.enqueue(from, cid, want.priority, 0);
        }
        self.waiting.entry(hash).or_default().push((from, cid));
        self.size(from, cid);
    }

    /// A want that is known is wanted again, perhaps otherwise: Block beats Have, and sendDontHave stays.
    fn update(&mut self, from: PeerIx, cid: Cid, known: ServedWant, new: ServedWant) {
        let Some(peer) = self.peers.get_mut(&from) else {
            return;
        };
        peer.set_stage(&cid, Some(Stage::Sending)); // Takes it out of the indexes while its priority changes.
        let Some(want) = peer.wants.get_mut(&cid) else {
            return;
        };
        want.priority = new.priority;
        want.want_type = known.want_type.max(new.want_type);
        want.send_dont_have = known.send_dont_have || new.send_dont_have;
        match known.stage {
            // Asked again: look again.
            Stage::Missing => self.size_again(from, cid),
            Stage::Queued { size, .. } => {
                let stage = peer.queued(new.priority, size);
                peer.set_stage(&cid, Some(stage));
            }
            // On its way; asking twice does not make it come twice.
            stage @ (Stage::Sizing { .. } | Stage::Sending) => peer.set_stage(&cid, Some(stage)),
        }
    }

    /// Ends a want, whatever its stage.
    fn end(&mut self, from: PeerIx, cid: &Cid) {
        let Some(peer) = self.peers.get_mut(&from) else {
            return;
        };
        let Some(want) = peer.wants.get(cid) else {
            return;
        };
        if matches!(want.stage, Stage::Sizing { .. } | Stage::Missing) {
            forget_waiting(&mut self.waiting, from, cid);
        }
        peer.set_stage(cid, None);
    }

    /// A block appeared in the store: whoever waits for it is answered.
    pub(crate) fn notify_new_block(&mut self, cid: &Cid) {
        let Ok(hash) = Multihash::of(cid) else { return };
        for (ix, cid) in self.waiting.get(&hash).cloned().unwrap_or_default() {
            // A stranger hears nothing of it, or it would know that something has changed.
            let Some(peer) = self.peers.get_mut(&ix).filter(|peer| !peer.is_stranger) else {
                continue;
            };
            match peer.wants.get_mut(&cid).map(|want| &mut want.stage) {
                Some(Stage::Missing) => self.size_again(ix, cid),
                Some(Stage::Sizing { again, .. }) => *again = true,
                Some(Stage::Queued { .. } | Stage::Sending) | None => {}
            }
        }
        self.ask_sizes();
    }

    // ---- sizes ----

    fn size_again(&mut self, ix: PeerIx, cid: Cid) {
        if let Some(peer) = self.peers.get_mut(&ix) {
            let stage = Stage::Sizing {
                asked: false,
                again: false,
            };
            peer.set_stage(&cid, Some(stage));
            self.size(ix, cid);
        }
    }

    fn size(&mut self, ix: PeerIx, cid: Cid) {
        let Some(peer) = self.peers.get_mut(&ix) else {
            return;
        };
        if peer.is_stranger {
            return self.refuse(ix, cid);
        }
        if peer.to_size.len() >= 2 * SERVED_WANTS_PER_PEER_MAX {
            // Wants that were cancelled and repeated over and over; none of them is served any sooner for it.
            let wants = &peer.wants;
            peer.to_size.retain(|cid| wants.contains_key(cid));
            peer.to_size.truncate(SERVED_WANTS_PER_PEER_MAX);
        }
        peer.to_size.push_back(cid);
        if !std::mem::replace(&mut peer.in_sizing, true) {
            self.sizing.push_back(ix);
        }
    }

    /// Asks the store for sizes, peer by peer in turn, while not too many are on their way.
    fn ask_sizes(&mut self) {
        while self.loads.len() - self.block_loads < SIZE_LOADS_MAX {
            let Some(ix) = self.sizing.pop_front() else {
                return;
            };
            let Some(peer) = self.peers.get_mut(&ix) else {
                continue;
            };
            let cid = peer.to_size.pop_front();
            peer.in_sizing = !peer.to_size.is_empty();
            if peer.in_sizing {
                self.sizing.push_back(ix);
            }
            let Some(cid) = cid else { continue };
            if let Some(Stage::Sizing { asked, .. }) =
                peer.wants.get_mut(&cid).map(|w| &mut w.stage)
                && !std::mem::replace(asked, true)
            {
                let id = self.load(Load {
                    peer: ix,
                    cid,
                    batch: None,
                });
                self.events.push_back(Event::LoadSize { id, cid });
            }
        }
    }

    pub(crate) fn handle_size(&mut self, id: LoadId, size: Option<u64>) {
        let Some(Load { peer: ix, cid, .. }) = self
            .loads
            .get(&id)
            .filter(|load| load.batch.is_none())
            .copied()
        else {
            return;
        };
        self.loads.remove(&id);
        // A block above the limit must not be sent, so we have as good as nothing. So too with size 0: it is not a
        // block of this hash.
        let size = size.filter(|size| (1..=BLOCK_BYTES_MAX as u64).contains(size));
        self.sized(ix, cid, size.map(|size| size as usize));
        self.ask_sizes();
        self.read_blocks();
    }

    fn sized(&mut self, ix: PeerIx, cid: Cid, size: Option<usize>) {
        let Some(peer) = self.peers.get_mut(&ix) else {
            return;
        };
        let Some(want) = peer.wants.get(&cid).copied() else {
            return;
        };
        let Stage::Sizing { asked: true, again } = want.stage else {
            return;
        };
        match size {
            None if again => self.size_again(ix, cid),
            None => self.refuse(ix, cid),
            Some(size) => {
                forget_waiting(&mut self.waiting, ix, &cid);
                if want.want_type == WantType::Have && size > HAVE_REPLACE_BYTES_MAX {
                    peer.answer(cid, Presence::Have);
                    peer.set_stage(&cid, None);
                    self.dirty.insert(ix);
                } else {
                    self.enqueue(ix, cid, want.priority, size);
                }
            }
        }
    }

    /// We have it not: say so if asked to, and remember.
    fn refuse(&mut self, ix: PeerIx, cid: Cid) {
        let Some(peer) = self.peers.get_mut(&ix) else {
            return;
        };
        peer.set_stage(&cid, Some(Stage::Missing));
        if peer.wants.get(&cid).is_some_and(|want| want.send_dont_have) {
            peer.answer(cid, Presence::DontHave);
            self.dirty.insert(ix);
        }
    }

    // ---- blocks ----

    fn enqueue(&mut self, ix: PeerIx, cid: Cid, priority: i32, size: usize) {
        let Some(peer) = self.peers.get_mut(&ix) else {
            return;
        };
        let stage = peer.queued(priority, size);
        peer.set_stage(&cid, Some(stage));
        self.enter_round(ix);
    }

    fn enter_round(&mut self, ix: PeerIx) {
        let Some(peer) = self.peers.get_mut(&ix) else {
            return;
        };
        if peer.next_queued().is_some() && peer.has_room() && !peer.in_round {
            peer.in_round = true;
            self.round.push_back(ix);
        }
    }

    pub(crate) fn poll_event(&mut self) -> Option<Event<PeerIx>> {
        self.events.pop_front()
    }

    pub(crate) fn pop_dirty(&mut self) -> Option<PeerIx> {
        self.dirty.pop_first()
    }

    /// HAVEs and DONT_HAVEs for a peer; marks it again if there are more.
    pub(crate) fn next_presences(&mut self, ix: PeerIx) -> Vec<(Cid, Presence)> {
        let Some(peer) = self.peers.get_mut(&ix) else {
            return Vec::new();
        };
        let count = peer.presences.len().min(PRESENCES_PER_MESSAGE_MAX);
        let presences = peer.presences.drain(..count).collect();
        if !peer.presences.is_empty() {
            self.dirty.insert(ix);
        }
        presences
    }

    pub(crate) fn ledger(&self, ix: PeerIx) -> Option<Ledger> {
        self.peers.get(&ix).map(|peer| peer.ledger)
    }

    pub(crate) fn total(&self) -> Ledger {
        let mut total = self.past;
        self.peers.values().for_each(|peer| total.add(&peer.ledger));
        total
    }

    /// Wants of all peers, loads in flight, bytes held.
    pub(crate) fn counts(&self) -> (usize, usize, usize) {
        let wants = self.peers.values().map(|peer| peer.wants.len()).sum();
        (wants, self.loads.len(), self.bytes_held)
    }

    /// Most wants kept for one peer.
    #[cfg(any(test, feature = "sim"))]
    pub(crate) fn most_wants(&self) -> usize {
        self.peers
            .values()
            .map(|peer| peer.wants.len())
            .max()
            .unwrap_or(0)
    }

    /// Everything that a machine at rest should not hold.
    #[cfg(any(test, feature = "sim"))]
    pub(crate) fn residue(&self) -> usize {
        let peers = self.peers.values().map(|peer| {
            peer.wants.len() + peer.to_size.len() + peer.presences.len() + peer.in_transit.len()
        });
        let queues = self.round.len() + self.sizing.len() + self.ready.len() + self.waiting.len();
        peers.sum::<usize>() + queues + self.loads.len() + self.bytes_held + self.events.len()
    }

    fn load(&mut self, load: Load) -> LoadId {
        self.loads_asked += 1;
        let id = LoadId(self.loads_asked);
        self.loads.insert(id, load);
        id
    }
}

fn forget_waiting(
    waiting: &mut HashMap<Multihash, Vec<(PeerIx, Cid)>, Seeded>,
    ix: PeerIx,
    cid: &Cid,
) {
    let Ok(hash) = Multihash::of(cid) else { return };
    if let Some(peers) = waiting.get_mut(&hash) {
        peers.retain(|entry| *entry != (ix, *cid));
        if peers.is_empty() {
            waiting.remove(&hash);
        }
    }
}

/// What one message wants of one CID.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    Cancel,
    Want {
        priority: i32,
        want_type: WantType,
        send_dont_have: bool,
    },
}

/// Makes one entry of several for the same CID, as boxo does: cancel and sendDontHave stick, Block beats Have.
fn merge(entries: Vec<Entry>) -> Vec<(Cid, Change)> {
    let mut merged: Vec<(Cid, Change)> = Vec::with_capacity(entries.len());
    let mut positions: BTreeMap<Cid, usize> = BTreeMap::new();
    for entry in entries {
        let cid = *entry.cid();
        let change = match entry {
            Entry::Cancel(_) => Change::Cancel,
            Entry::Want {
                priority,
                want_type,
                send_dont_have,
                ..
            } => Change::Want {
                priority,
                want_type,
                send_dont_have,
            },
        };
        let position = *positions.entry(cid).or_insert(merged.len());
        let Some((_, known)) = merged.get_mut(position) else {
            merged.push((cid, change));
            continue;
        };
        *known = match (*known, change) {
            (
                Change::Want {
                    want_type: first,
                    send_dont_have: sticky,
                    ..
                },
                Change::Want {
                    priority,
                    want_type,
                    send_dont_have,
                },
            ) => Change::Want {
                priority,
                want_type: want_type.max(first),
                send_dont_have: send_dont_have || sticky,
            },
            _ => Change::Cancel,
        };
    }
    merged
}

#[cfg(test)]
mod tests;
