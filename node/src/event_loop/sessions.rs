//! Fetches: sessions of the exchange, and the searches for providers they ask for.

use std::collections::HashMap;

use base::{Cid, Codec, Multihash, block_cid};
use bitswap::SessionId;
use libp2p::PeerId;
use store::substitute::Asked;
use tokio::sync::{mpsc, oneshot};

use super::peers::Peers;
use super::{Done, EventLoop, QueryUse};
use crate::address::Reach;
use crate::command::{OpenedSession, SessionEvent};
use crate::exchange;

/// Events that may wait for a session's owner: one per block it may want at a time, and one per search.
const EVENTS_MAX: usize = SESSION_WANTS_MAX + 64;
/// Blocks one session may want at a time. A window of 32 MiB holds 128 blocks of 256 KiB, the usual size of old DAGs.
pub(crate) const SESSION_WANTS_MAX: usize = 1024;

/// Neighbours that a session asks at most.
const NEIGHBOURS_MAX: usize = 16;

pub(super) struct Active {
    pub(super) root: Cid,
    pub(super) bytes: u64,
    /// Neighbours that may still be asked.
    neighbours_left: usize,
    /// Whether a holder was named at the start: then only those near us are asked besides.
    has_holder: bool,
    sink: mpsc::Sender<SessionEvent>,
    providers: Vec<PeerId>,
    searching: bool,
    /// Set once the owner was told who of the providers is out of direct reach.
    told_relayed: bool,
}

/// All sessions.
#[derive(Default)]
pub(super) struct Sessions {
    pub(super) active: HashMap<SessionId, Active>,
    /// Somebody looks at the partials just now.
    looking: bool,
}

impl Sessions {
    pub(super) fn contains(&self, session: SessionId) -> bool {
        self.active.contains_key(&session)
    }

    /// Whether a fetch counts on this peer.
    pub(super) fn knows(&self, peer: &PeerId) -> bool {
        let mut sessions = self.active.values();
        sessions.any(|session| session.providers.contains(peer))
    }
}

impl Active {
    pub(super) fn providers(&self) -> usize {
        self.providers.len()
    }

    /// Those that were not known before.
    fn newcomers(&mut self, providers: &[PeerId]) -> Vec<PeerId> {
        let new: Vec<_> = providers
            .iter()
            .filter(|peer| !self.providers.contains(peer))
            .copied()
            .collect();
        self.providers.extend(&new);
        new
    }
}

/// Who was asked by a session: so many nodes of the DHT, and all its providers.
fn asked(active: &Active, dht_nodes: u32, peers: &Peers) -> Asked {
    let relayed = |peer: &&PeerId| peers.is_relayed(peer);
    Asked {
        dht_nodes,
        providers: active.providers.len() as u32,
        relayed: active.providers.iter().filter(relayed).count() as u32,
        first_peers_unreachable: peers.first_unreachable(),
        ..Asked::default()
    }
}

impl EventLoop {
    pub(super) fn open_session(
        &mut self,
        root: Cid,
        providers: &[PeerId],
        reply: oneshot::Sender<OpenedSession>,
    ) {
        let id = self.swarm.behaviour_mut().exchange.open_session(providers);
        let (sink, events) = mpsc::channel(EVENTS_MAX);
        let active = Active {
            root,
            bytes: 0,
            neighbours_left: NEIGHBOURS_MAX,
            has_holder: !providers.is_empty(),
            sink,
            providers: providers.to_vec(),
            searching: false,
            told_relayed: false,
        };
        self.sessions.active.insert(id, active);
        let connected: Vec<_> = self.peers.connected.keys().copied().collect();
        for peer in connected {
            self.ask_neighbour(id, peer);
        }
        if reply.send(OpenedSession { id, events }).is_err() {
            self.close_session(id);
        }
    }

    /// A peer has just introduced itself: it may have what the sessions want.
    pub(super) fn newcomer_for_sessions(&mut self, peer: PeerId) {
        let ids: Vec<_> = self.sessions.active.keys().copied().collect();
        for id in ids {
            self.ask_neighbour(id, peer);
        }
    }

    /// Lets a session ask a neighbour. Not everybody who holds something announces it: nodes outside the DHT cannot, Kubo
    /// does not announce what it only fetched, and who is fetching the same thing just now has nothing to announce yet.
    fn ask_neighbour(&mut self, session: SessionId, peer: PeerId) {
        let may_be_asked = self.may_be_asked(&peer);
        let Some(active) = self.sessions.active.get_mut(&session) else {
            return;
        };
        let is_near = self.peers.reach(&peer) == Reach::Near;
        if active.neighbours_left > 0
            && may_be_asked
            && self.peers.is_neighbour(&peer)
            && (is_near || !active.has_holder)
        {
            active.neighbours_left -= 1;
            self.swarm
                .behaviour_mut()
                .exchange
                .add_providers(session, &[peer]);
        }
    }

    /// Lets a session ask neighbours of the daemon, whom it has not met yet.
    pub(super) fn session_neighbours(&mut self, session: SessionId, neighbours: &[PeerId]) {
        let Some(active) = self.sessions.active.get_mut(&session) else {
            return;
        };
        let count = neighbours.len().min(active.neighbours_left);
        active.neighbours_left -= count;
        self.swarm
            .behaviour_mut()
            .exchange
            .add_providers(session, &neighbours[..count]);
    }

    pub(super) fn want(&mut self, session: SessionId, cids: &[Cid]) {
        if self.sessions.contains(session) {
            self.swarm.behaviour_mut().exchange.want(session, cids);
        }
    }

    /// Tells peers that wait for these blocks that they are here.
    pub(super) fn stored(&mut self, blocks: &[Multihash]) {
        let exchange = &mut self.swarm.behaviour_mut().exchange;
        for hash in blocks {
            exchange.notify_new_block(&block_cid(Codec::Raw, &hash.digest()));
        }
    }

    /// Looks what commands of this home are fetching: their blocks are served from here, too.
    pub(super) fn look_at_partials(&mut self) {
        if std::mem::replace(&mut self.sessions.looking, true) {
            return;
        }
        let store = self.store.clone();
        self.spawn(move || Done::Stored(store.news_of_partials()));
    }

    pub(super) fn partials_seen(&mut self, blocks: &[Multihash]) {
        self.sessions.looking = false;
        self.stored(blocks);
    }

    /// Takes providers that the owner of a session knows of.
    pub(super) fn add_providers(&mut self, session: SessionId, providers: &[PeerId]) {
        let Some(active) = self.sessions.active.get_mut(&session) else {
            return;
        };
        let new = active.newcomers(providers);
        self.swarm
            .behaviour_mut()
            .exchange
            .add_providers(session, &new);
    }

    /// Takes providers that a search has found.
    pub(super) fn session_providers(&mut self, session: SessionId, providers: &[PeerId]) {
        let Some(active) = self.sessions.active.get_mut(&session) else {
            return;
        };
        let new = active.newcomers(providers);
        for peer in &new {
            self.dial_provider(*peer);
        }
        self.swarm
            .behaviour_mut()
            .exchange
            .add_providers(session, &new);
    }

    pub(super) fn search_ended(&mut self, session: SessionId, dht_nodes: u32) {
        if let Some(active) = self.sessions.active.get_mut(&session) {
            active.searching = false;
            let asked = asked(active, dht_nodes, &self.peers);
            // Only for the count of who was asked; a full channel loses nothing that matters.
            let _ = active.sink.try_send(SessionEvent::Searched(asked));
            self.swarm.behaviour_mut().exchange.search_ended(session);
        }
    }

    pub(super) fn close_session(&mut self, session: SessionId) {
        self.sessions.active.remove(&session);
        self.swarm.behaviour_mut().exchange.close_session(session);
    }

    pub(super) fn on_exchange(&mut self, event: exchange::Event) {
        match event {
            exchange::Event::Block {
                sessions,
                block,
                from,
            } => {
                let from = from.map(|peer| (peer, self.peers.reach(&peer)));
                for session in sessions {
                    let block = block.clone();
                    self.deliver(session, SessionEvent::Block { block, from });
                }
            }
            exchange::Event::Missing { session, cid } => {
                self.tell_relayed(session);
                self.deliver(session, SessionEvent::Missing { cid });
            }
            exchange::Event::FindProviders { session } => self.search(session),
            exchange::Event::Misbehaved { peer, what } => {
                tracing::warn!(%peer, ?what, "peer broke the rules of the exchange");
                self.asked.misbehaved_peers += 1;
                self.ban(peer);
            }
        }
    }

    /// Looks for holders of the session's root: only roots are announced.
    fn search(&mut self, session: SessionId) {
        let Some(active) = self.sessions.active.get_mut(&session) else {
            return;
        };
        if std::mem::replace(&mut active.searching, true) {
            return;
        }
        match Multihash::of(&active.root) {
            Ok(key) => {
                let key = self.dht_key(&key);
                self.lookups.search(QueryUse::Session(session), &key);
                self.start_waiting_queries();
            }
            Err(_) => self.search_ended(session, 0),
        }
    }

    /// Tells a session's owner why providers that answered questions have no blocks: no direct connection came about.
    fn tell_relayed(&mut self, session: SessionId) {
        let Some(active) = self.sessions.active.get_mut(&session) else {
            return;
        };
        let asked = asked(active, 0, &self.peers);
        if asked.relayed > 0 && !std::mem::replace(&mut active.told_relayed, true) {
            self.deliver(session, SessionEvent::Searched(asked));
        }
    }

    fn deliver(&mut self, session: SessionId, event: SessionEvent) {
        let Some(active) = self.sessions.active.get_mut(&session) else {
            return;
        };
        if let SessionEvent::Block { block, .. } = &event {
            active.bytes += block.len() as u64;
        }
        if active.sink.try_send(event).is_err() {
            self.close_session(session);
        }
    }

    /// Ends sessions whose owners are gone.
    pub(super) fn sweep_sessions(&mut self) {
        let gone: Vec<_> = self
            .sessions
            .active
            .iter()
            .filter(|(_, active)| active.sink.is_closed())
            .map(|(id, _)| *id)
            .collect();
        for session in gone {
            self.close_session(session);
        }
    }
}
