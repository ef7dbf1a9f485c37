//! Walks of the DHT that a daemon makes for others: for the commands of its home, see [`crate::routing_protocol`], and for who
//! asks over HTTP, see `web/routing.rs`.
//!
//! Whoever asks for the same shares one walk, and a walk that ended is remembered for a while. All together are bounded by the
//! number of DHT queries at a time.
//!
//! A command with a daemon beside it asks the daemon instead of the DHT, and turns to the DHT itself only if the daemon does
//! not answer. The daemon meets the providers that a walk names, so that what it tells of has been reached, and remembers
//! them for a while: the next command is answered at once.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use base::Multihash;
use libp2p::kad::store::RecordStore as _;
use libp2p::multiaddr::Protocol;
use libp2p::request_response::{Event, Message, OutboundRequestId, ResponseChannel};
use libp2p::{Multiaddr, PeerId, kad};
use tokio::sync::oneshot;

use super::{EventLoop, QueryUse};
use crate::routing_protocol::{PLACES_MAX, Place, Request, Response};

/// Walks that are remembered; the oldest makes way.
const WALKS_MAX: usize = 1024;
/// How long an answer is remembered. Providers come and go slowly; what nobody had, somebody may have soon.
const FOUND_LASTS: Duration = Duration::from_secs(60);
const NOTHING_LASTS: Duration = Duration::from_secs(5);
/// How long after its end a walk waits for providers that have not been met yet.
const MEETING: Duration = Duration::from_secs(3);

/// What a node does about other nodes' walks, on either side.
#[derive(Default)]
pub(super) struct Routing {
    /// Walks for others, by key.
    walks: HashMap<Multihash, Walk>,
    /// What we have asked the daemon for.
    delegated: HashMap<OutboundRequestId, (QueryUse, Multihash)>,
    /// Set once the daemon has failed us.
    daemon_failed: bool,
}

struct Walk {
    started: Instant,
    ended: Option<Instant>,
    nodes: u32,
    providers: BTreeSet<PeerId>,
    /// Whether providers are met, because a command asked.
    meets: bool,
    /// Who waits.
    waiting: Vec<Waiting>,
}

/// Somebody who waits for a walk.
enum Waiting {
    /// A command of this home, for the first provider or, if `all`, for the end.
    Command {
        channel: ResponseChannel<Response>,
        all: bool,
    },
    /// Something in this process, for the end or until it is told what there is.
    Here {
        reply: oneshot::Sender<Vec<Place>>,
        until: Instant,
    },
}

impl Waiting {
    /// Whether an answer is due, when something is known and the walk `is_complete` for commands or `has_ended`.
    fn is_due(&self, is_complete: bool, is_something: bool, has_ended: bool) -> bool {
        match self {
            Self::Command { all, .. } => is_complete || (is_something && !all),
            Self::Here { reply, until } => {
                has_ended || reply.is_closed() || *until <= Instant::now()
            }
        }
    }
}

impl Walk {
    fn is_stale(&self, now: Instant) -> bool {
        let lasts = if self.providers.is_empty() {
            NOTHING_LASTS
        } else {
            FOUND_LASTS
        };
        self.waiting.is_empty() && self.ended.is_some_and(|at| now > at + lasts)
    }
}

/// Whether a daemon beside us is to be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Daemon {
    /// There is none, or it failed.
    None,
    /// It is being met.
    Coming,
    /// It answers.
    Here(PeerId),
}

impl EventLoop {
    /// The daemon that walks for us.
    pub(super) fn daemon(&self) -> Daemon {
        let Some(peer) = self.config.daemon.filter(|_| !self.routing.daemon_failed) else {
            return Daemon::None;
        };
        match self.peers.connected.get(&peer) {
            Some(state) if state.routes => Daemon::Here(peer),
            Some(state) if !state.agent.is_empty() => Daemon::None,
            _ if self.peers.is_being_met(&peer) => Daemon::Coming,
            _ => Daemon::None,
        }
    }

    /// Lets the daemon make a walk of ours.
    pub(super) fn delegate(&mut self, daemon: PeerId, for_whom: QueryUse, key: Multihash) {
        self.ask_daemon(daemon, for_whom, Request { key, all: false });
    }

    fn ask_daemon(&mut self, daemon: PeerId, for_whom: QueryUse, request: Request) {
        let routing = &mut self.swarm.behaviour_mut().routing;
        let id = routing.send_request(&daemon, request);
        self.routing.delegated.insert(id, (for_whom, request.key));
    }

    pub(super) fn on_routing_message(&mut self, event: Event<Request, Response>) {
        match event {
            Event::Message { peer, message, .. } => match message {
                Message::Request {
                    request, channel, ..
                } => self.walk_for(&peer, request, channel),
                Message::Response {
                    request_id,
                    response,
                } => self.daemon_answered(peer, request_id, &response),
            },
            Event::OutboundFailure {
                request_id, error, ..
            } => {
                if let Some((for_whom, key)) = self.routing.delegated.remove(&request_id) {
                    tracing::debug!(%error, "the daemon does not look for us");
                    self.routing.daemon_failed = true;
                    self.lookups.search(for_whom, &key);
                    self.start_waiting_queries();
                }
            }
            Event::InboundFailure { .. } | Event::ResponseSent { .. } => {}
        }
    }

    fn daemon_answered(&mut self, daemon: PeerId, id: OutboundRequestId, response: &Response) {
        let Some((for_whom, key)) = self.routing.delegated.remove(&id) else {
            return;
        };
        for place in response.providers.iter().chain(&response.neighbours) {
            self.peers.acquaint(place.peer);
            for address in &place.addresses {
                self.swarm.add_peer_address(place.peer, address.clone());
            }
        }
        let peers = |places: &[Place]| places.iter().map(|place| place.peer).collect::<Vec<_>>();
        let (providers, nodes) = (peers(&response.providers), response.nodes);
        let neighbours = peers(&response.neighbours);
        match for_whom {
            QueryUse::Lookup(lookup) => {
                self.providers_found(lookup, &providers, nodes);
                for neighbour in neighbours {
                    self.ask_unannounced(lookup, neighbour);
                }
            }
            QueryUse::Session(session) => {
                self.session_providers(session, &providers);
                self.session_neighbours(session, &neighbours);
            }
            QueryUse::Walk(key) => self.walk_found(&key, &providers, nodes),
            QueryUse::Announce(_) | QueryUse::Name(_) => {}
        }
        if response.complete {
            self.search_is_over(for_whom, nodes);
        } else if self.is_wanted(for_whom) {
            self.ask_daemon(daemon, for_whom, Request { key, all: true });
        }
    }

    /// Walks the DHT for a command of this home, unless the answer is known.
    fn walk_for(&mut self, peer: &PeerId, request: Request, channel: ResponseChannel<Response>) {
        let is_of_this_machine = self
            .peers
            .connected
            .get(peer)
            .is_some_and(|state| is_loopback(&state.address));
        if !is_of_this_machine {
            tracing::debug!(%peer, "does not run on this machine: no walk for it");
            return;
        }
        let all = request.all;
        self.join_walk(request.key, Waiting::Command { channel, all });
    }

    /// Walks the DHT for something in this process, unless the answer is known. Answered with all providers of `key`, as
    /// others know it, when the walk has ended, or at `until` with those that are known by then.
    pub(super) fn walk_here(
        &mut self,
        key: &Multihash,
        until: Instant,
        reply: oneshot::Sender<Vec<Place>>,
    ) {
        let key = self.dht_key(key);
        self.join_walk(key, Waiting::Here { reply, until });
    }

    fn join_walk(&mut self, key: Multihash, waits: Waiting) {
        let now = Instant::now();
        self.forget_walks(now);
        let meets = matches!(waits, Waiting::Command { .. });
        if let Some(walk) = self.routing.walks.get_mut(&key) {
            walk.waiting.push(waits);
            if meets && !std::mem::replace(&mut walk.meets, true) {
                for peer in walk.providers.clone() {
                    self.dial_provider(peer);
                }
            }
        } else {
            let walk = Walk {
                started: now,
                ended: None,
                nodes: 0,
                providers: BTreeSet::new(),
                meets,
                waiting: vec![waits],
            };
            self.routing.walks.insert(key, walk);
            self.lookups.search(QueryUse::Walk(key), &key);
            self.start_waiting_queries();
        }
        self.answer_walk(&key);
    }

    /// A walk for others has named providers, whom we meet for commands.
    pub(super) fn walk_found(&mut self, key: &Multihash, providers: &[PeerId], nodes: u32) {
        let Some(walk) = self.routing.walks.get_mut(key) else {
            return;
        };
        walk.nodes = walk.nodes.max(nodes);
        let mut new = Vec::new();
        for peer in providers {
            if walk.providers.len() < PLACES_MAX && walk.providers.insert(*peer) {
                new.push(*peer);
            }
        }
        if walk.meets {
            for peer in new {
                self.dial_provider(peer);
            }
        }
        self.answer_walk(key);
    }

    pub(super) fn walk_ended(&mut self, key: &Multihash, nodes: u32) {
        if let Some(walk) = self.routing.walks.get_mut(key) {
            walk.nodes = walk.nodes.max(nodes);
            walk.ended = Some(Instant::now());
            self.answer_walk(key);
        }
    }

    /// Somebody was met or could not be: walks may be answered.
    pub(super) fn answer_walks(&mut self) {
        let waits = |(_, walk): &(&Multihash, &Walk)| !walk.waiting.is_empty();
        let keys: Vec<_> = self
            .routing
            .walks
            .iter()
            .filter(waits)
            .map(|(key, _)| *key)
            .collect();
        for key in keys {
            self.answer_walk(&key);
        }
    }

    fn answer_walk(&mut self, key: &Multihash) {
        let ourselves = self.own_place(key);
        let Some(walk) = self.routing.walks.get(key) else {
            return;
        };
        let met = walk.providers.iter().filter_map(|peer| self.place(peer));
        let providers: Vec<_> = ourselves.into_iter().chain(met).collect();
        let all_met = providers.len() >= walk.providers.len();
        let complete = walk
            .ended
            .is_some_and(|at| all_met || at.elapsed() >= MEETING);
        let (is_something, has_ended) = (!providers.is_empty(), walk.ended.is_some());
        let nodes = walk.nodes;
        let Some(walk) = self.routing.walks.get_mut(key) else {
            return;
        };
        let due = |waits: &mut Waiting| waits.is_due(complete, is_something, has_ended);
        let waiting: Vec<_> = walk.waiting.extract_if(.., due).collect();
        if waiting.is_empty() {
            return;
        }
        let response = Response {
            complete,
            nodes,
            providers,
            neighbours: self.neighbours(),
        };
        for waits in waiting {
            // Who has gone meanwhile needs no answer.
            match waits {
                Waiting::Command { channel, .. } => {
                    let routing = &mut self.swarm.behaviour_mut().routing;
                    let _ = routing.send_response(channel, response.clone());
                }
                Waiting::Here { reply, .. } => {
                    let _ = reply.send(self.all_places(key));
                }
            }
        }
    }

    /// Everybody who provides a key, met or not, with the addresses that are known.
    fn all_places(&mut self, key: &Multihash) -> Vec<Place> {
        let ourselves = self.own_place(key).map(|place| Place {
            addresses: self.swarm.external_addresses().cloned().collect(),
            ..place
        });
        let found = self.routing.walks.get(key);
        let found = found.map(|walk| walk.providers.clone());
        let others = found.into_iter().flatten().map(|peer| Place {
            peer,
            addresses: self.known_addresses(peer),
        });
        others.chain(ourselves).collect()
    }

    /// This node, if it announces the key itself. Its addresses are known to who asks.
    fn own_place(&mut self, key: &Multihash) -> Option<Place> {
        let local = *self.swarm.local_peer_id();
        let records = self.swarm.behaviour_mut().kad.store_mut();
        let records = records.providers(&record_key(key));
        let ours = records.iter().any(|record| record.provider == local);
        ours.then(|| Place {
            peer: local,
            addresses: Vec::new(),
        })
    }

    /// Peers that may hold something without having announced it.
    fn neighbours(&self) -> Vec<Place> {
        let connected = self.peers.connected.keys();
        let neighbours = connected.filter(|peer| self.peers.is_neighbour(peer));
        neighbours
            .filter_map(|peer| self.place(peer))
            .take(PLACES_MAX)
            .collect()
    }

    /// Where a peer that we are connected to can be reached by others of this machine.
    fn place(&self, peer: &PeerId) -> Option<Place> {
        let state = self.peers.connected.get(peer)?;
        let addresses = state.places.clone();
        (!addresses.is_empty()).then_some(Place {
            peer: *peer,
            addresses,
        })
    }

    fn forget_walks(&mut self, now: Instant) {
        self.routing.walks.retain(|_, walk| !walk.is_stale(now));
        while self.routing.walks.len() >= WALKS_MAX {
            let oldest = self
                .routing
                .walks
                .iter()
                .min_by_key(|(_, walk)| walk.started);
            let Some(key) = oldest.map(|(key, _)| *key) else {
                return;
            };
            self.routing.walks.remove(&key);
        }
    }

    /// Whether anybody still waits for a search.
    pub(super) fn is_wanted(&self, for_whom: QueryUse) -> bool {
        match for_whom {
            QueryUse::Lookup(lookup) => self.lookups.contains(lookup),
            QueryUse::Session(session) => self.sessions.contains(session),
            QueryUse::Walk(key) => self.routing.walks.contains_key(&key),
            QueryUse::Announce(_) | QueryUse::Name(_) => false,
        }
    }
}

fn is_loopback(address: &Multiaddr) -> bool {
    match address.iter().next() {
        Some(Protocol::Ip4(ip)) => ip.is_loopback(),
        Some(Protocol::Ip6(ip)) => ip.is_loopback(),
        _ => false,
    }
}

/// The record key of a multihash.
pub(super) fn record_key(key: &Multihash) -> kad::RecordKey {
    kad::RecordKey::new(key.as_bytes())
}
