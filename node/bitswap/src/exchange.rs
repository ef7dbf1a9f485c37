//! The crate's public machine: client and server of one node behind one set of verbs.
//!
//! Inside, peers are small numbers; this file is where the caller's names for them end. It also merges what both halves
//! have to say to a peer into one control message, and forgets a peer's number when neither half knows it any more.

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use base::Cid;
use bytes::Bytes;

use crate::client::Client;
use crate::config::Config;
use crate::event::{Event, Lane, LoadId, PeerKey, Reach, SessionId, Transmit, TransmitId};
use crate::lanes::Lanes;
use crate::ledger::{Ledger, SessionStats, Stats};
use crate::message::{Entry, Message};
use crate::peer::PeerIx;
use crate::rng::Rng;
use crate::server::Server;
use crate::session::Session;

/// One node's side of Bitswap.
///
/// After every `handle_*` and every call that changes wants, call [`poll_event`](Self::poll_event) and
/// [`poll_transmit`](Self::poll_transmit) until both give nothing (either may bring work for the other), then arm a timer
/// for [`poll_timeout`](Self::poll_timeout).
#[derive(Debug)]
pub struct Exchange<P> {
    names: BTreeMap<PeerIx, P>,
    numbers: BTreeMap<P, PeerIx>,
    numbered: u64,
    client: Client,
    server: Server,
    lanes: Lanes,
    transmits: u64,
    events: VecDeque<Event<P>>,
}

impl<P: PeerKey> Exchange<P> {
    /// A machine that knows nobody. `seed` breaks ties and keys the hash maps: random in a node, fixed in a test.
    pub fn new(config: Config, seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        Self {
            names: BTreeMap::new(),
            numbers: BTreeMap::new(),
            numbered: 0,
            client: Client::new(config.clone(), Rng::new(rng.next())),
            server: Server::new(config, Rng::new(rng.next())),
            lanes: Lanes::new(),
            transmits: 0,
            events: VecDeque::new(),
        }
    }

    // ---- what the caller wants ----

    /// Opens a session. It asks peers named by [`add_provider`](Self::add_provider) and a few that served us before.
    pub fn open_session(&mut self, now: Instant) -> SessionId {
        self.client.open_session(now)
    }

    /// Ends a session, withdraws its wants and says what it got. `None` if there is no such session.
    pub fn close_session(&mut self, session: SessionId, now: Instant) -> Option<SessionStats<P>> {
        let closed = self.client.close_session(session, now);
        let stats = closed.map(|session| self.stats_of(&session));
        self.settle();
        stats
    }

    /// Adds wants to a session. Each ends in one `Event::Block` or `Event::Missing`, or by [`cancel`](Self::cancel).
    /// What is in the caller's own store should not be wanted.
    pub fn want(&mut self, session: SessionId, cids: &[Cid], now: Instant) {
        self.client.want(session, cids, now);
        self.settle();
    }

    /// Withdraws wants of a session.
    pub fn cancel(&mut self, session: SessionId, cids: &[Cid], now: Instant) {
        self.client.cancel(session, cids, now);
        self.settle();
    }

    /// Names a peer believed to hold the session's content, connected or not.
    pub fn add_provider(&mut self, session: SessionId, peer: P, now: Instant) {
        let ix = self.number(peer);
        self.client.add_provider(session, ix, now);
        self.settle();
    }

    /// Tells that the search that `Event::FindProviders` asked for will bring no more peers.
    pub fn search_ended(&mut self, session: SessionId, now: Instant) {
        self.client.search_ended(session, now);
        self.settle();
    }

    // ---- what the transport reports ----

    /// The first connection to a peer is up, and leads so far.
    pub fn handle_connected(&mut self, peer: P, reach: Reach, now: Instant) {
        let ix = self.number(peer);
        self.lanes.open(ix);
        self.server.handle_connected(ix);
        self.client.handle_connected(ix, reach, now);
        self.settle();
    }

    /// A connected peer must not learn what we have or want. It is answered as by somebody who has nothing, and asked nothing,
    /// until [`handle_connected`](Self::handle_connected) says otherwise.
    pub fn handle_stranger(&mut self, peer: P, now: Instant) {
        let ix = self.number(peer);
        self.lanes.open(ix);
        self.server.handle_stranger(ix);
        self.client.handle_disconnected(ix, now);
        self.settle();
    }

    /// The last connection to a peer is gone, or it could not be dialled. What it was being sent is lost.
    pub fn handle_disconnected(&mut self, peer: P, now: Instant) {
        let Some(ix) = self.numbers.get(&peer).copied() else {
            return;
        };
        self.lanes.close(ix);
        self.server.handle_disconnected(ix);
        self.client.handle_disconnected(ix, now);
        self.settle();
        self.forget_if_unknown(ix);
    }

    /// A message was read. Order matters within one stream only.
    pub fn handle_message(&mut self, from: P, message: Message, now: Instant) {
        let Some(ix) = self.numbers.get(&from).copied() else {
            return;
        };
        if self.server.is_stranger(ix) {
            self.server
                .handle_wantlist(ix, message.wantlist, message.full);
            return self.settle();
        }
        for block in message.blocks {
            self.client.handle_block(ix, block, now);
        }
        for (cid, presence) in message.presences {
            self.client.handle_presence(ix, &cid, presence, now);
        }
        if message.full || !message.wantlist.is_empty() {
            let wanted = message.wantlist.iter().filter_map(|entry| match entry {
                Entry::Want { cid, .. } => Some(cid),
                Entry::Cancel(_) => None,
            });
            self.client.handle_asked(ix, wanted, now);
            self.server
                .handle_wantlist(ix, message.wantlist, message.full);
        }
        self.settle();
    }

    /// `bytes` more bytes of a frame that is not complete yet were read: its sender is slow, not silent.
    pub fn handle_receiving(&mut self, from: P, bytes: usize, now: Instant) {
        if let Some(ix) = self.numbers.get(&from) {
            self.client.handle_receiving(*ix, bytes, now);
        }
    }

    /// The transport has written this message.
    pub fn handle_sent(&mut self, to: P, id: TransmitId, now: Instant) {
        self.handle_written(to, id, true, now);
    }

    /// The transport could not write this message; the connection is still up.
    pub fn handle_send_failed(&mut self, to: P, id: TransmitId, now: Instant) {
        self.handle_written(to, id, false, now);
    }

    fn handle_written(&mut self, to: P, id: TransmitId, written: bool, now: Instant) {
        let Some(ix) = self.numbers.get(&to).copied() else {
            return;
        };
        if !self.lanes.end(ix, id, written, now) {
            self.server.handle_sent(ix, id, written);
        } else if !written {
            self.client.handle_lost(ix);
        }
        self.settle();
    }

    // ---- what the store answers ----

    /// Answers `Event::Load`: the block's bytes if the store has them.
    pub fn handle_loaded(&mut self, id: LoadId, data: Option<Bytes>) {
        self.server.handle_loaded(id, data);
        self.settle();
    }

    /// Answers `Event::LoadSize`: the block's size in bytes if the store has it.
    pub fn handle_size(&mut self, id: LoadId, size: Option<u64>) {
        self.server.handle_size(id, size);
        self.settle();
    }

    /// The store has a block that it may not have had before: peers that wait for it are answered.
    pub fn notify_new_block(&mut self, cid: &Cid) {
        self.server.notify_new_block(cid);
        self.settle();
    }

    // ---- time and output ----

    /// The time that [`poll_timeout`](Self::poll_timeout) named has come.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.lanes.handle_timeout(now);
        self.client.handle_timeout(now);
        self.settle();
    }

    /// The next message to write. Each must be answered by `handle_sent`, `handle_send_failed` or
    /// `handle_disconnected`: until then the machine holds back what would follow it.
    pub fn poll_transmit(&mut self, _now: Instant) -> Option<Transmit<P>> {
        while let Some(ix) = self.lanes.pop_ready() {
            let (wantlist, full) = self.client.next_entries(ix);
            let presences = self.server.next_presences(ix);
            self.mark_lanes(); // There may be more than fits one message.
            let message = Message {
                wantlist,
                full,
                presences,
                ..Message::default()
            };
            if let (false, Some(to)) = (message.is_empty(), self.names.get(&ix).copied()) {
                self.transmits += 1;
                let id = TransmitId(self.transmits);
                self.lanes.begin(ix, id);
                return Some(Transmit {
                    id,
                    to,
                    lane: Lane::Control,
                    message,
                });
            }
        }
        let blocks = self.server.poll_blocks(&mut self.transmits);
        self.settle(); // The next blocks may be read now.
        let (ix, id, message) = blocks?;
        let to = self.names.get(&ix).copied()?;
        Some(Transmit {
            id,
            to,
            lane: Lane::Blocks,
            message,
        })
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<Event<P>> {
        self.events.pop_front()
    }

    /// When `handle_timeout` wants to be called next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        [self.client.poll_timeout(), self.lanes.poll_timeout()]
            .into_iter()
            .flatten()
            .min()
    }

    // ---- statistics ----

    /// What a session got so far.
    pub fn session_stats(&self, session: SessionId) -> Option<SessionStats<P>> {
        self.client
            .session(session)
            .map(|session| self.stats_of(session))
    }

    /// What a connected peer and we exchanged.
    pub fn ledger(&self, peer: P) -> Option<Ledger> {
        let ix = *self.numbers.get(&peer)?;
        let mut ledger = self.server.ledger(ix)?;
        ledger.add(&self.client.ledger(ix)?);
        Some(ledger)
    }

    /// What the machine holds.
    pub fn stats(&self) -> Stats {
        let (sessions, wants) = self.client.counts();
        let (served_wants, loads, response_bytes) = self.server.counts();
        let mut total = self.client.total();
        total.add(&self.server.total());
        let peers = self.lanes.len();
        Stats {
            peers,
            sessions,
            wants,
            served_wants,
            loads,
            response_bytes,
            total,
        }
    }

    fn stats_of(&self, session: &Session) -> SessionStats<P> {
        let named = |(ix, member): (&PeerIx, &crate::session::SessionPeer)| {
            self.names.get(ix).map(|name| (*name, member.share))
        };
        SessionStats {
            wants: session.wants.len(),
            missing: session.missing,
            total: session.total,
            peers: session.peers.iter().filter_map(named).collect(),
        }
    }

    // ---- names ----

    fn number(&mut self, peer: P) -> PeerIx {
        if let Some(ix) = self.numbers.get(&peer) {
            return *ix;
        }
        self.numbered += 1;
        let ix = PeerIx(self.numbered);
        self.numbers.insert(peer, ix);
        self.names.insert(ix, peer);
        ix
    }

    /// After any change: events get the caller's names, peers with news are marked, peers nobody knows are forgotten.
    fn settle(&mut self) {
        while let Some(event) = self
            .client
            .poll_event()
            .or_else(|| self.server.poll_event())
        {
            let event = self.rename(event);
            self.events.extend(event);
        }
        self.mark_lanes();
        while let Some(ix) = self.client.pop_forgotten() {
            self.forget_if_unknown(ix);
        }
    }

    fn forget_if_unknown(&mut self, ix: PeerIx) {
        if self.client.knows(ix) || self.server.knows(ix) {
            return;
        }
        if let Some(name) = self.names.remove(&ix) {
            self.numbers.remove(&name);
        }
    }

    fn mark_lanes(&mut self) {
        while let Some(ix) = self.client.pop_dirty() {
            self.lanes.mark(ix);
        }
        while let Some(ix) = self.server.pop_dirty() {
            self.lanes.mark(ix);
        }
    }

    /// An event under the caller's names. Peers are forgotten only after their events were renamed.
    fn rename(&self, event: Event<PeerIx>) -> Option<Event<P>> {
        let name = |ix: PeerIx| self.names.get(&ix).copied();
        Some(match event {
            Event::Block {
                sessions,
                cid,
                block,
                from,
            } => Event::Block {
                sessions,
                cid,
                block,
                from: from.and_then(name),
            },
            Event::FindProviders { session, cid } => Event::FindProviders { session, cid },
            Event::Connect { peer } => Event::Connect { peer: name(peer)? },
            Event::Missing { session, cid } => Event::Missing { session, cid },
            Event::Load { id, cid } => Event::Load { id, cid },
            Event::LoadSize { id, cid } => Event::LoadSize { id, cid },
            Event::PeerMisbehaved { peer, what } => Event::PeerMisbehaved {
                peer: name(peer)?,
                what,
            },
        })
    }
}

/// What the simulator looks at from outside.
#[cfg(any(test, feature = "sim"))]
impl<P: PeerKey> Exchange<P> {
    /// Whatever a machine at rest should not hold.
    pub(crate) fn residue(&self) -> usize {
        self.client.residue() + self.server.residue()
    }

    /// Wants told to one peer, and most wants kept for any.
    pub(crate) fn told_and_served(&self, peer: P) -> (usize, usize) {
        let told = self
            .numbers
            .get(&peer)
            .map_or(0, |ix| self.client.told(*ix));
        (told, self.server.most_wants())
    }
}

#[cfg(test)]
mod tests;
