//! The exchange of blocks: the pure Bitswap machine on one side, libp2p on the other.
//!
//! Everything that is decided about blocks (whom to ask, what to serve next, when a peer is too slow) is decided in
//! `bitswap::Exchange`, which does no IO and reads no clock. This adapter gives it both and nothing else. There are four
//! actors:
//!
//! * The **handler**, one per connection, lives in the connection's own task. It reads the many short streams a peer may
//!   open towards us (Kubo sends every block on a new one) and writes on two of our own, one for wants and answers, one
//!   for blocks, so that a want never waits behind a megabyte. Decoding a message hashes its blocks, so hashing happens
//!   there too: beside the decryption of the same bytes, and not in the swarm's task that all connections share.
//! * The **behaviour**, in the swarm's task, moves messages between handlers and the machine. It touches no byte of a
//!   block: messages are passed on as slices of the frames they came in.
//! * The **loader** reads the store on threads that may block, a few at a time.
//! * The **event loop** hears what is left: blocks for sessions, and searches for providers.
//!
//! **Backpressure runs backwards through all of them.** A peer that does not read fills its connection's window; then its
//! lane does not report its messages as sent; then the machine hands out no more for it, and asks the store for no more
//! blocks on its behalf. So a slow peer costs two megabytes of memory, however much it wants. In the other direction
//! nothing arrives that was not asked for, and who asks bounds what it asks for (see `fetch`).
//!
//! The upload limit sits between machine and handler: a block message for a peer outside the local network waits here
//! until the bucket lets it go. The download limit is the machine's: what was asked for comes, so the asking waits.

mod handler;
mod inbound;
mod loader;
mod outbound;

use std::collections::{HashMap, HashSet, VecDeque};
use std::future::Future as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use base::{Block, Cid};
use bitswap::{
    Budget, Lane, Ledger, Message, Misbehaviour, SessionId, SessionStats, Transmit, TransmitId,
};
use libp2p::core::transport::PortUse;
use libp2p::core::{ConnectedPoint, Endpoint};
use libp2p::swarm::behaviour::{ConnectionClosed, ConnectionEstablished, DialFailure};
use libp2p::swarm::dial_opts::DialOpts;
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, DialError, FromSwarm, NetworkBehaviour, NotifyHandler,
    THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
};
use libp2p::{Multiaddr, PeerId};
use store::BlockStore;
use tokio::time::Sleep;

pub(crate) use self::handler::REQUESTS;
use self::handler::{FromHandler, Handler, ToHandler};
use self::loader::{Job, Loaded, Loader};
use crate::address::{Reach, reach};
use crate::config::Config;

/// What the exchange tells the event loop.
#[derive(Debug)]
pub(crate) enum Event {
    /// A wanted block arrived.
    Block {
        /// Every session that wanted it.
        sessions: Vec<SessionId>,
        /// Its bytes and their hash, verified.
        block: Block,
        /// Who sent it.
        from: Option<PeerId>,
    },
    /// A session needs more peers.
    FindProviders {
        /// Which session.
        session: SessionId,
    },
    /// Nobody has it.
    Missing {
        /// Which session wanted it.
        session: SessionId,
        /// What.
        cid: Cid,
    },
    /// A peer broke the rules and is not asked any more.
    Misbehaved {
        /// Who.
        peer: PeerId,
        /// How.
        what: Misbehaviour,
    },
}

/// A connected peer.
#[derive(Debug, Default)]
struct Peer {
    /// Its connections, the one in use first, and whether they lead to the local network.
    connections: Vec<(ConnectionId, Reach)>,
    /// Set when it turned out to speak no Bitswap.
    unsupported: bool,
    /// Known not to take part: it is answered as by somebody who has nothing.
    is_stranger: bool,
    /// What it wanted before it was known whether it takes part.
    early: Vec<Message>,
}

impl Peer {
    /// Whether it is met on our own network.
    fn is_near(&self) -> bool {
        matches!(self.connections.first(), Some((_, Reach::Near)))
    }
}
/// Messages kept of a peer of which it is not known yet whether it takes part.
const EARLY_MAX: usize = 4;

/// How the machine takes a reach.
const fn far_or_near(reach: Reach) -> bitswap::Reach {
    match reach {
        Reach::Near => bitswap::Reach::Near,
        Reach::Global | Reach::Nowhere => bitswap::Reach::Far,
    }
}

/// Runs the machine inside a swarm.
pub(crate) struct Behaviour {
    machine: bitswap::Exchange<PeerId>,
    /// Who may take part; everybody where it is none.
    admitted: Option<HashSet<PeerId>>,
    loader: Loader,
    peers: HashMap<PeerId, Peer>,
    in_flight: HashMap<TransmitId, ConnectionId>,
    inbound_streams: usize,
    upload: Budget,
    /// What was exchanged with peers of our own network that have left, in bytes: sent, received.
    near_past: (u64, u64),
    /// Block messages that wait for the upload limit, with the time of the next attempt.
    held_back: VecDeque<Transmit<PeerId>>,
    held_until: Option<Instant>,
    timer: Pin<Box<Sleep>>,
    timer_at: Option<Instant>,
    events: VecDeque<ToSwarm<Event, ToHandler>>,
}

impl Behaviour {
    /// An exchange that serves `store`. Must be called inside the runtime.
    pub(crate) fn new(store: Arc<dyn BlockStore>, config: &Config, seed: u64) -> Self {
        let limits = &config.limits;
        let settings = bitswap::Config {
            download: config.download.clone(),
            ..bitswap::Config::default()
        };
        Self {
            admitted: config.group.is_some().then(HashSet::new),
            machine: bitswap::Exchange::new(settings, seed),
            loader: Loader::new(store, limits.loads),
            peers: HashMap::new(),
            in_flight: HashMap::new(),
            inbound_streams: limits.inbound_streams,
            upload: Budget::new(limits.upload_bytes_per_sec, Instant::now()),
            near_past: (0, 0),
            held_back: VecDeque::new(),
            held_until: None,
            timer: Box::pin(tokio::time::sleep(Duration::ZERO)),
            timer_at: None,
            events: VecDeque::new(),
        }
    }

    /// Lets a peer take part that may not have been allowed to.
    pub(crate) fn admit(&mut self, peer: PeerId) {
        let Some(admitted) = &mut self.admitted else {
            return;
        };
        if !admitted.insert(peer) {
            return;
        }
        if let Some(entry) = self.peers.get_mut(&peer) {
            entry.unsupported = false;
            entry.is_stranger = false;
            let early = std::mem::take(&mut entry.early);
            let reach = entry
                .connections
                .first()
                .map_or(Reach::Global, |(_, reach)| *reach);
            let now = Instant::now();
            self.machine.handle_connected(peer, far_or_near(reach), now);
            for message in early {
                self.machine.handle_message(peer, message, now);
            }
        }
    }

    /// A peer is known not to take part: what was to be asked of it is asked elsewhere, and what it asks is answered as by
    /// somebody who has nothing, so that it neither waits nor learns anything.
    pub(crate) fn refuse(&mut self, peer: &PeerId) {
        if let Some(entry) = self.peers.get_mut(peer)
            && self.admitted.as_ref().is_some_and(|a| !a.contains(peer))
        {
            let now = Instant::now();
            entry.is_stranger = true;
            self.machine.handle_stranger(*peer, now);
            for message in std::mem::take(&mut entry.early) {
                self.machine.handle_message(*peer, message, now);
            }
        }
    }

    fn takes_part(&self, peer: &PeerId) -> bool {
        self.admitted.as_ref().is_none_or(|a| a.contains(peer))
    }

    /// Opens a session with its first providers.
    pub(crate) fn open_session(&mut self, providers: &[PeerId]) -> SessionId {
        let now = Instant::now();
        let session = self.machine.open_session(now);
        for peer in providers {
            self.machine.add_provider(session, *peer, now);
        }
        session
    }

    /// Names more providers.
    pub(crate) fn add_providers(&mut self, session: SessionId, providers: &[PeerId]) {
        for peer in providers {
            self.machine.add_provider(session, *peer, Instant::now());
        }
    }

    /// Tells that no more providers will be named.
    pub(crate) fn search_ended(&mut self, session: SessionId) {
        self.machine.search_ended(session, Instant::now());
    }

    /// Wants blocks.
    pub(crate) fn want(&mut self, session: SessionId, cids: &[Cid]) {
        self.machine.want(session, cids, Instant::now());
    }

    /// Ends a session.
    pub(crate) fn close_session(&mut self, session: SessionId) -> Option<SessionStats<PeerId>> {
        self.machine.close_session(session, Instant::now())
    }

    /// The store may have this block now.
    pub(crate) fn notify_new_block(&mut self, cid: &Cid) {
        self.machine.notify_new_block(cid);
    }

    /// What was exchanged with a peer.
    pub(crate) fn ledger(&self, peer: &PeerId) -> Ledger {
        self.machine.ledger(*peer).unwrap_or_default()
    }

    /// The limit of what is sent to strangers.
    pub(crate) const fn upload(&self) -> &Budget {
        &self.upload
    }

    /// Block bytes sent to and received from peers of our own network.
    pub(crate) fn near_bytes(&self) -> (u64, u64) {
        let near = self.peers.iter().filter(|(_, peer)| peer.is_near());
        near.map(|(id, _)| self.ledger(id))
            .fold(self.near_past, |(sent, received), ledger| {
                (sent + ledger.bytes_sent, received + ledger.bytes_received)
            })
    }

    /// What was exchanged with all peers, and what is going on.
    pub(crate) fn stats(&self) -> bitswap::Stats {
        self.machine.stats()
    }

    fn connected(&mut self, peer: PeerId, connection: ConnectionId, endpoint: &ConnectedPoint) {
        if endpoint.is_relayed() {
            // A relay cuts the connection after 128 KiB; a direct one follows if there can be one.
            return;
        }
        let takes_part = self.takes_part(&peer);
        let entry = self.peers.entry(peer).or_default();
        let reach = reach(endpoint.get_remote_address());
        entry.connections.push((connection, reach));
        if entry.connections.len() == 1 {
            entry.unsupported = false;
            if takes_part {
                self.machine
                    .handle_connected(peer, far_or_near(reach), Instant::now());
            }
        }
    }

    fn disconnected(&mut self, peer: PeerId, connection: ConnectionId) {
        let now = Instant::now();
        let lost: Vec<_> = self
            .in_flight
            .extract_if(|_, on| *on == connection)
            .collect();
        let Some(entry) = self.peers.get_mut(&peer) else {
            return;
        };
        let is_near = entry.is_near();
        entry.connections.retain(|(id, _)| *id != connection);
        if entry.connections.is_empty() {
            if is_near {
                let ledger = self.machine.ledger(peer).unwrap_or_default();
                self.near_past.0 += ledger.bytes_sent;
                self.near_past.1 += ledger.bytes_received;
            }
            self.peers.remove(&peer);
            if let Some(admitted) = &mut self.admitted {
                admitted.remove(&peer);
            }
            self.held_back.retain(|transmit| transmit.to != peer);
            self.machine.handle_disconnected(peer, now);
            return;
        }
        for (id, _) in lost {
            self.machine.handle_send_failed(peer, id, now);
        }
    }

    /// Hands a message to the peer's connection, unless the upload limit holds it back.
    fn transmit(&mut self, transmit: Transmit<PeerId>, now: Instant) {
        let Some((connection, reach)) = self
            .peers
            .get(&transmit.to)
            .and_then(|peer| peer.connections.first().copied())
        else {
            self.machine
                .handle_send_failed(transmit.to, transmit.id, now);
            return;
        };
        if transmit.lane == Lane::Blocks
            && reach != Reach::Near
            && let Err(later) = self.upload.take(transmit.message.block_bytes(), now)
        {
            self.held_until = Some(later);
            self.held_back.push_back(transmit);
            return;
        }
        let Transmit {
            id,
            to,
            lane,
            message,
        } = transmit;
        self.in_flight.insert(id, connection);
        self.events.push_back(ToSwarm::NotifyHandler {
            peer_id: to,
            handler: NotifyHandler::One(connection),
            event: ToHandler::Send { id, lane, message },
        });
    }

    fn release_held_back(&mut self, now: Instant) {
        if self.held_until.is_some_and(|at| at <= now) {
            self.held_until = None;
            for transmit in std::mem::take(&mut self.held_back) {
                self.transmit(transmit, now);
            }
        }
    }

    fn translate(&mut self, event: bitswap::Event<PeerId>, now: Instant) {
        let event = match event {
            bitswap::Event::Block {
                sessions,
                block,
                from,
                ..
            } => Event::Block {
                sessions,
                block,
                from,
            },
            bitswap::Event::FindProviders { session, .. } => Event::FindProviders { session },
            bitswap::Event::Missing { session, cid } => Event::Missing { session, cid },
            bitswap::Event::PeerMisbehaved { peer, what } => Event::Misbehaved { peer, what },
            bitswap::Event::Load { id, cid } => return self.loader.push(Job::Block(id, cid)),
            bitswap::Event::LoadSize { id, cid } => return self.loader.push(Job::Size(id, cid)),
            bitswap::Event::Connect { peer } => return self.connect(peer, now),
            _ => return,
        };
        self.events.push_back(ToSwarm::GenerateEvent(event));
    }

    fn connect(&mut self, peer: PeerId, now: Instant) {
        match self.peers.get(&peer) {
            // It is not known yet whether it may take part.
            Some(entry) if !entry.unsupported && !entry.is_stranger && !self.takes_part(&peer) => {}
            Some(entry) if entry.is_stranger && !entry.unsupported => {
                self.machine.handle_stranger(peer, now);
            }
            // Connected, but it speaks no Bitswap: as good as unreachable.
            Some(_) => self.machine.handle_disconnected(peer, now),
            None => self.events.push_back(ToSwarm::Dial {
                opts: DialOpts::peer_id(peer).build(),
            }),
        }
    }

    /// A message was read. What a peer wants before it is known to take part waits for that; it has proved it, perhaps, on
    /// a stream that is read later.
    fn received(&mut self, peer: PeerId, message: Message, now: Instant) {
        let is_stranger = self.peers.get(&peer).is_some_and(|entry| entry.is_stranger);
        if is_stranger || self.takes_part(&peer) {
            self.machine.handle_message(peer, message, now);
        } else if let Some(entry) = self.peers.get_mut(&peer)
            && !entry.unsupported
            && message.blocks.is_empty()
            && entry.early.len() < EARLY_MAX
        {
            entry.early.push(message);
        }
    }

    fn take_loaded(&mut self, loaded: Vec<Loaded>) {
        for loaded in loaded {
            match loaded {
                Loaded::Block(id, data) => self.machine.handle_loaded(id, data),
                Loaded::Size(id, size) => self.machine.handle_size(id, size),
            }
        }
    }

    /// Runs the machine until it has nothing to say; true when events were queued.
    fn drive(&mut self, cx: &mut Context<'_>) -> bool {
        let now = Instant::now();
        if self.machine.poll_timeout().is_some_and(|at| at <= now) {
            self.machine.handle_timeout(now);
        }
        self.release_held_back(now);
        loop {
            // Either may bring work for the other.
            if let Some(event) = self.machine.poll_event() {
                self.translate(event, now);
            } else if let Some(transmit) = self.machine.poll_transmit(now) {
                self.transmit(transmit, now);
            } else if let Poll::Ready(loaded) = self.loader.poll(cx) {
                self.take_loaded(loaded);
            } else {
                return !self.events.is_empty();
            }
        }
    }

    /// Sees to it that the task wakes when the machine or the upload limit wants to go on.
    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let next = self
            .machine
            .poll_timeout()
            .into_iter()
            .chain(self.held_until)
            .min();
        let Some(next) = next else {
            return Poll::Pending;
        };
        if self.timer_at != Some(next) {
            self.timer_at = Some(next);
            self.timer.as_mut().reset(next.into());
        }
        self.timer.as_mut().poll(cx).map(|()| self.timer_at = None)
    }

    fn new_handler(&self) -> Handler {
        Handler::new(self.inbound_streams)
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = Handler;
    type ToSwarm = Event;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.new_handler())
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.new_handler())
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(ConnectionEstablished {
                peer_id,
                connection_id,
                endpoint,
                ..
            }) => self.connected(peer_id, connection_id, endpoint),
            FromSwarm::ConnectionClosed(ConnectionClosed {
                peer_id,
                connection_id,
                ..
            }) => {
                self.disconnected(peer_id, connection_id);
            }
            FromSwarm::DialFailure(DialFailure {
                peer_id: Some(peer),
                error,
                ..
            }) => {
                let still_trying = matches!(error, DialError::DialPeerConditionFalse(_));
                if !still_trying && !self.peers.contains_key(&peer) {
                    self.machine.handle_disconnected(peer, Instant::now());
                }
            }
            _ => {}
        }
    }

    fn on_connection_handler_event(
        &mut self,
        peer: PeerId,
        _: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        let now = Instant::now();
        match event {
            FromHandler::Received(message) => self.received(peer, message, now),
            FromHandler::Receiving(bytes) => self.machine.handle_receiving(peer, bytes, now),
            FromHandler::Sent(id) => {
                if self.in_flight.remove(&id).is_some() {
                    self.machine.handle_sent(peer, id, now);
                }
            }
            FromHandler::Failed(id) => {
                if self.in_flight.remove(&id).is_some() {
                    self.machine.handle_send_failed(peer, id, now);
                }
            }
            FromHandler::Unsupported => {
                if let Some(entry) = self.peers.get_mut(&peer)
                    && !std::mem::replace(&mut entry.unsupported, true)
                {
                    self.machine.handle_disconnected(peer, now);
                }
            }
        }
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Poll::Ready(event);
            }
            if !self.drive(cx) && self.poll_timer(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }
}
