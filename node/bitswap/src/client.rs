//! The asking half: all sessions, their wants, and the peers they ask.
//!
//! A want is asked for once however many sessions share it. It is always in one of three places ([`Place`]): queued for a
//! peer with room, asked of a peer, or orphaned with nobody left to ask. Every step that ends an ask (block, DONT_HAVE,
//! stall, disconnect, misbehaviour) either ends the want or moves it on from one place to the next, and each place has a
//! deadline, so every want ends.
//!
//! This file holds the state and what the caller asks for. `assign.rs` decides whom to ask, `receive.rs` takes in
//! answers, `swarm.rs` deals with peers that have parts, `clock.rs` with what time does.

mod assign;
mod clock;
mod download;
mod receive;
mod swarm;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::Instant;

use base::{Cid, Multihash, Sha256};

use crate::config::Config;
use crate::event::{Event, Reach, SessionId};
use crate::ledger::Ledger;
use crate::limits::{CONNECT_TIMEOUT, SEARCH_DELAY, SESSION_PEERS_MAX};
use crate::message::{Entry, WantType};
use crate::peer::{Link, Peer, PeerIx};
use crate::rng::{Rng, Seeded};
use crate::session::{Session, SessionPeer};
use crate::timers::Timers;
use crate::want::{Ask, Place, Want};

#[derive(Debug)]
pub(crate) struct Client {
    config: Config,
    rng: Rng,
    peers: BTreeMap<PeerIx, Peer>,
    sessions: BTreeMap<SessionId, Session>,
    wants: HashMap<Cid, Want, Seeded>,
    timers: Timers<Wake>,
    events: VecDeque<Event<PeerIx>>,
    /// Peers whose wantlist has something to tell.
    dirty: BTreeSet<PeerIx>,
    /// Whose turn at the download limit was last.
    download_turn: PeerIx,
    /// Peers that nothing here refers to any more.
    forgotten: Vec<PeerIx>,
    sessions_opened: u64,
    next_priority: i32,
    /// Sum of the ledgers of peers that left.
    past: Ledger,
    empty_digest: Sha256,
}

/// What a timer is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Wake {
    Peer(PeerIx),
    Session(SessionId),
    /// The download limit lets something come again.
    Download,
}

impl Client {
    pub(crate) fn new(config: Config, mut rng: Rng) -> Self {
        Self {
            config,
            wants: HashMap::with_hasher(rng.hasher()),
            rng,
            peers: BTreeMap::new(),
            sessions: BTreeMap::new(),
            timers: Timers::new(),
            events: VecDeque::new(),
            dirty: BTreeSet::new(),
            download_turn: PeerIx(0),
            forgotten: Vec::new(),
            sessions_opened: 0,
            next_priority: crate::limits::PRIORITY_FIRST,
            past: Ledger::default(),
            empty_digest: Sha256::of(b""),
        }
    }

    // ---- sessions ----

    pub(crate) fn open_session(&mut self, now: Instant) -> SessionId {
        self.sessions_opened += 1;
        let id = SessionId(self.sessions_opened);
        self.sessions
            .insert(id, Session::new(self.rng.hasher(), now));
        for peer in self.best_peers() {
            self.join(id, peer);
        }
        id
    }

    /// Connected peers that served us before, the fastest first.
    fn best_peers(&self) -> Vec<PeerIx> {
        let mut rated: Vec<(u64, PeerIx)> = self
            .peers
            .iter()
            .filter(|(_, peer)| peer.is_usable())
            .filter(|(_, peer)| peer.ledger.blocks_received > 0)
            .map(|(ix, peer)| (peer.pace.rate().unwrap_or_default() as u64, *ix))
            .collect();
        rated.sort_unstable_by(|a, b| b.cmp(a));
        rated.truncate(self.config.session_peers_inherited);
        rated.into_iter().map(|(_, ix)| ix).collect()
    }

    pub(crate) fn close_session(&mut self, id: SessionId, now: Instant) -> Option<Session> {
        let mut session = self.sessions.remove(&id)?;
        self.timers.disarm(Wake::Session(id));
        for cid in session.wants.drain().collect::<Vec<_>>() {
            self.unwant(&cid, id, now);
        }
        for ix in session.peers.keys() {
            if let Some(peer) = self.peers.get_mut(ix) {
                peer.sessions.remove(&id);
            }
        }
        for ix in session.peers.keys() {
            self.refill(*ix, now);
            self.forget_if_unused(*ix);
        }
        Some(session)
    }

    pub(crate) fn want(&mut self, id: SessionId, cids: &[Cid], now: Instant) {
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        if session.wants.is_empty() {
            session.wanting_since = now;
            self.timers.arm(Wake::Session(id), now + SEARCH_DELAY);
        }
        for cid in cids {
            self.want_one(id, *cid);
        }
        self.dial_idle(id, now);
        self.dispatch(id, usize::MAX, now);
        self.canvass(id, cids, now);
    }

    fn want_one(&mut self, id: SessionId, cid: Cid) {
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        match Multihash::of(&cid).map(|hash| hash.digest()) {
            // A block whose bytes follow from its name. Kubo cannot even serve it: it takes size 0 for absence.
            Ok(digest) if digest == self.empty_digest => {
                let (sessions, block) = (vec![id], base::Block::empty());
                return self.events.push_back(Event::Block {
                    sessions,
                    cid,
                    block,
                    from: None,
                });
            }
            Ok(_) => {}
            // Under a hash we cannot verify nothing can be accepted.
            Err(_) => {
                session.missing += 1;
                return self.events.push_back(Event::Missing { session: id, cid });
            }
        }
        if !session.wants.insert(cid) {
            return;
        }
        session.fresh.push_back(cid);
        if let Some(want) = self.wants.get_mut(&cid) {
            want.sessions.push(id);
            if matches!(want.place, Place::Orphaned { .. }) {
                // This session may know peers that the others do not.
                want.place = Place::Queued;
            }
            return;
        }
        self.wants.insert(cid, Want::new(self.next_priority, id));
        self.next_priority = (self.next_priority - 1).max(1);
    }

    pub(crate) fn cancel(&mut self, id: SessionId, cids: &[Cid], now: Instant) {
        for cid in cids {
            let Some(session) = self.sessions.get_mut(&id) else {
                return;
            };
            if session.wants.contains(cid) {
                session.remove(cid);
                self.unwant(cid, id, now);
            }
        }
        self.refill_session(id, now);
    }

    /// Takes one session's interest out of a want; without any left, the want ends and whoever was told is told again.
    fn unwant(&mut self, cid: &Cid, id: SessionId, now: Instant) {
        let Some(want) = self.wants.get_mut(cid) else {
            return;
        };
        want.sessions.retain(|session| *session != id);
        if want.sessions.is_empty() {
            let asks = std::mem::take(&mut want.asks);
            self.wants.remove(cid);
            for ask in asks {
                self.withdraw(&ask, cid, id, now);
            }
            if self.wants.is_empty() {
                self.next_priority = crate::limits::PRIORITY_FIRST;
            }
        } else if want.place == Place::Queued {
            // It may have been in the leaving session's queue only.
            for other in want.sessions.clone() {
                if let Some(session) = self.sessions.get_mut(&other) {
                    session.retry.push_back(*cid);
                }
            }
        }
    }

    /// Takes a want back from one peer; what crosses the cancel will be excused.
    fn withdraw(&mut self, ask: &Ask, cid: &Cid, id: SessionId, now: Instant) {
        let Some(peer) = self.peers.get_mut(&ask.peer) else {
            return;
        };
        if ask.answer == crate::want::Answer::Waiting {
            peer.drop_waiting(ask.want_type);
        }
        if !ask.is_told() {
            return;
        }
        peer.list.cancel(cid);
        peer.withdrawn.add(*cid, id, now);
        self.dirty.insert(ask.peer);
        self.timers
            .arm(Wake::Peer(ask.peer), now + crate::limits::WITHDRAWN_FOR);
    }

    fn clear_probe(&mut self, ix: PeerIx, cid: &Cid) {
        let Some(peer) = self.peers.get(&ix) else {
            return;
        };
        for id in &peer.sessions {
            let session = self.sessions.get_mut(id);
            if let Some(member) = session.and_then(|session| session.peers.get_mut(&ix)) {
                member.probe.take_if(|(probe, _)| probe == cid);
            }
        }
    }

    // ---- peers ----

    pub(crate) fn add_provider(&mut self, id: SessionId, ix: PeerIx, now: Instant) {
        let Some(session) = self.sessions.get(&id) else {
            return self.forget_if_unused(ix);
        };
        let known = session.peers.contains_key(&ix);
        if !known && session.peers.len() >= SESSION_PEERS_MAX && !self.drop_worst(id) {
            return self.forget_if_unused(ix);
        }
        if !self.peers.contains_key(&ix) {
            self.peers.insert(ix, Peer::new(&mut self.rng, now));
        }
        self.join(id, ix);
        let Some(peer) = self.peers.get_mut(&ix) else {
            return;
        };
        match peer.link {
            Link::Up => {
                self.adopt(id);
                self.dispatch(id, usize::MAX, now);
                self.refill(ix, now);
            }
            Link::Idle | Link::Lost if !peer.banned => {
                peer.forgive();
                self.dial(ix, now);
            }
            Link::Idle | Link::Lost | Link::Dialling { .. } | Link::Pausing { .. } => {}
        }
    }

    /// Makes a peer one of a session's; a renewed claim that it has the content wipes out its refusals.
    fn join(&mut self, id: SessionId, ix: PeerIx) {
        let (Some(session), Some(peer)) = (self.sessions.get_mut(&id), self.peers.get_mut(&ix))
        else {
            return;
        };
        peer.sessions.insert(id);
        session.peers.entry(ix).or_default().dont_haves = 0;
    }

    /// Makes room in a full session by dropping a peer that is of no use to it.
    fn drop_worst(&mut self, id: SessionId) -> bool {
        let Some(session) = self.sessions.get_mut(&id) else {
            return false;
        };
        let useless = |(ix, member): (&PeerIx, &SessionPeer)| {
            let peer = self.peers.get(ix)?;
            let gone = matches!(peer.link, Link::Lost | Link::Idle) || peer.banned;
            (gone || member.is_demoted()).then_some(*ix)
        };
        let Some(ix) = session.peers.iter().find_map(useless) else {
            return false;
        };
        session.peers.remove(&ix);
        if let Some(peer) = self.peers.get_mut(&ix) {
            peer.sessions.remove(&id);
        }
        self.forget_if_unused(ix);
        true
    }

    fn dial_idle(&mut self, id: SessionId, now: Instant) {
        let Some(session) = self.sessions.get(&id) else {
            return;
        };
        let idle = |ix: &PeerIx| {
            self.peers
                .get(ix)
                .is_some_and(|peer| peer.link == Link::Idle)
        };
        let idle: Vec<PeerIx> = session.peers.keys().copied().filter(idle).collect();
        for ix in idle {
            self.dial(ix, now);
        }
    }

    fn dial(&mut self, ix: PeerIx, now: Instant) {
        let Some(peer) = self.peers.get_mut(&ix) else {
            return;
        };
        let until = now + CONNECT_TIMEOUT;
        peer.link = Link::Dialling { until };
        self.timers.arm(Wake::Peer(ix), until);
        self.events.push_back(Event::Connect { peer: ix });
    }

    pub(crate) fn handle_connected(&mut self, ix: PeerIx, reach: Reach, now: Instant) {
        let rng = &mut self.rng;
        let peer = self.peers.entry(ix).or_insert_with(|| Peer::new(rng, now));
        peer.reach = reach;
        if peer.link == Link::Up {
            return;
        }
        peer.connected();
        self.usable_again(ix, now);
    }

    /// A peer can be asked (again): orphans of its sessions have a candidate.
    fn usable_again(&mut self, ix: PeerIx, now: Instant) {
        let Some(peer) = self.peers.get(&ix) else {
            return;
        };
        for id in peer.sessions.clone() {
            self.adopt(id);
            self.dispatch(id, usize::MAX, now);
        }
        self.refill(ix, now);
    }

    pub(crate) fn handle_disconnected(&mut self, ix: PeerIx, now: Instant) {
        let Some(peer) = self.peers.get_mut(&ix) else {
            return;
        };
        let told = peer.list.cids();
        let sessions = &self.sessions;
        let needed = !peer.banned
            && peer.sessions.iter().any(|id| {
                sessions
                    .get(id)
                    .filter(|session| !session.wants.is_empty())
                    .is_some_and(|session| {
                        session
                            .peers
                            .get(&ix)
                            .is_some_and(|member| !member.is_demoted())
                    })
            });
        peer.disconnected(needed, now);
        if let Link::Pausing { until } = peer.link {
            self.timers.arm(Wake::Peer(ix), until);
        }
        self.release(ix, &told, now);
        if let Some(peer) = self.peers.get(&ix) {
            for id in peer.sessions.clone() {
                // Orphans may have been waiting for this dial alone.
                self.timers.arm(Wake::Session(id), now);
            }
        }
        self.forget_if_unused(ix);
    }

    /// Takes from a peer all that it was asked, and moves it on to others.
    fn release(&mut self, ix: PeerIx, told: &[Cid], now: Instant) {
        if let Some(peer) = self.peers.get(&ix) {
            for id in &peer.sessions {
                let session = self.sessions.get_mut(id);
                if let Some(member) = session.and_then(|session| session.peers.get_mut(&ix)) {
                    member.probe = None;
                }
            }
        }
        let mut homeless = Vec::new();
        for cid in told {
            let Some(want) = self.wants.get_mut(cid) else {
                continue;
            };
            want.forget(ix);
            if want.place == Place::Asked && want.in_flight() == 0 {
                homeless.push(*cid);
            }
        }
        self.requeue(&homeless, now);
    }

    fn forget_if_unused(&mut self, ix: PeerIx) {
        if let Some(peer) = self.peers.get(&ix) {
            if peer.link == Link::Up || !peer.sessions.is_empty() {
                return;
            }
            self.past.add(&peer.ledger);
            self.peers.remove(&ix);
        }
        self.timers.disarm(Wake::Peer(ix));
        self.dirty.remove(&ix);
        self.forgotten.push(ix);
    }

    // ---- output ----

    pub(crate) fn poll_event(&mut self) -> Option<Event<PeerIx>> {
        self.events.pop_front()
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.timers.next()
    }

    /// A peer whose wantlist has something to tell.
    pub(crate) fn pop_dirty(&mut self) -> Option<PeerIx> {
        self.dirty.pop_first()
    }

    pub(crate) fn pop_forgotten(&mut self) -> Option<PeerIx> {
        self.forgotten.pop()
    }

    pub(crate) fn knows(&self, ix: PeerIx) -> bool {
        self.peers.contains_key(&ix)
    }

    /// What to tell a peer next, and whether that replaces all it knows; marks the peer again if there is more.
    pub(crate) fn next_entries(&mut self, ix: PeerIx) -> (Vec<Entry>, bool) {
        let Some(peer) = self.peers.get_mut(&ix).filter(|peer| peer.link == Link::Up) else {
            return (Vec::new(), false);
        };
        let entries = peer.list.next_entries();
        if peer.list.is_dirty() {
            self.dirty.insert(ix);
        }
        entries
    }

    /// A wantlist message to this peer was lost.
    pub(crate) fn handle_lost(&mut self, ix: PeerIx) {
        if let Some(peer) = self.peers.get_mut(&ix).filter(|peer| peer.link == Link::Up) {
            peer.list.lost();
            self.dirty.insert(ix);
        }
    }

    pub(crate) fn session(&self, id: SessionId) -> Option<&Session> {
        self.sessions.get(&id)
    }

    pub(crate) fn ledger(&self, ix: PeerIx) -> Option<Ledger> {
        self.peers.get(&ix).map(|peer| peer.ledger)
    }

    pub(crate) fn counts(&self) -> (usize, usize) {
        (self.sessions.len(), self.wants.len())
    }

    /// Sum of all ledgers, past ones included.
    pub(crate) fn total(&self) -> Ledger {
        let mut total = self.past;
        self.peers.values().for_each(|peer| total.add(&peer.ledger));
        total
    }

    /// Wants told to one peer.
    #[cfg(any(test, feature = "sim"))]
    pub(crate) fn told(&self, ix: PeerIx) -> usize {
        self.peers.get(&ix).map_or(0, |peer| peer.list.len())
    }

    /// Everything that a machine at rest should not hold: told wants, withdrawn wants, queue entries, timers.
    #[cfg(any(test, feature = "sim"))]
    pub(crate) fn residue(&self) -> usize {
        let peers = self
            .peers
            .values()
            .map(|peer| peer.list.len() + peer.withdrawn.len());
        let sessions = self.sessions.values().map(Session::queue_len);
        self.wants.len() + peers.sum::<usize>() + sessions.sum::<usize>() + self.events.len()
    }
}

/// Whether two lists of wants differ in kind: used where a want-have is upgraded.
const fn is_block(want_type: WantType) -> bool {
    matches!(want_type, WantType::Block)
}
