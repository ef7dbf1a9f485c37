//! Questions to the network: DHT walks, and requests to those they name.

use std::collections::{HashMap, VecDeque};
use std::time::Instant;

use base::{Codec, Multihash, block_cid};
use libp2p::request_response::{self, OutboundFailure, OutboundRequestId};
use libp2p::{PeerId, kad};
use store::substitute::Asked;
use tokio::sync::mpsc;

use super::routing::{Daemon, record_key};
use super::together::Together;
use super::{EventLoop, QueryUse};
use crate::command::{Found, Question};
use crate::lookup::{Lookup, Outcome, Reason};
use crate::source_protocol;

/// One lookup among those in progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct LookupId(u64);

struct Active {
    question: Question,
    state: Lookup,
    sink: mpsc::Sender<Found>,
    deadline: Instant,
    query: Option<kad::QueryId>,
}

/// All lookups in progress, and the DHT queries that wait for their turn.
#[derive(Default)]
pub(super) struct Lookups {
    active: HashMap<LookupId, Active>,
    next: u64,
    requests: HashMap<OutboundRequestId, (LookupId, PeerId)>,
    pub(super) together: Together,
    waiting: VecDeque<(QueryUse, Multihash)>,
}

impl Lookups {
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let deadlines = self.active.values().map(|active| active.deadline);
        deadlines.chain(self.together.due()).min()
    }

    /// Queues a search for providers.
    pub(super) fn search(&mut self, for_whom: QueryUse, key: &Multihash) {
        self.waiting.push_back((for_whom, *key));
    }

    pub(super) fn contains(&self, lookup: LookupId) -> bool {
        self.active.contains_key(&lookup)
    }
}

impl EventLoop {
    pub(super) fn start_lookup(
        &mut self,
        question: Question,
        providers: &[PeerId],
        sink: mpsc::Sender<Found>,
    ) {
        self.asked.lookups += 1;
        let id = LookupId(self.lookups.next);
        self.lookups.next += 1;
        let active = Active {
            question,
            state: Lookup::new(self.config.limits.lookup_peers),
            sink,
            deadline: Instant::now() + self.config.deadlines.dht_lookup,
            query: None,
        };
        self.lookups.active.insert(id, active);
        for peer in providers {
            self.ask(id, *peer, Reason::Provider);
        }
        let connected: Vec<_> = self.peers.connected.keys().copied().collect();
        for peer in connected {
            self.ask_connected(id, peer);
        }
        let key = self.dht_key(&question.key());
        self.lookups.search(QueryUse::Lookup(id), &key);
        self.start_waiting_queries();
    }

    /// Starts as many of the waiting DHT queries as may run, or has the daemon of this home make them.
    pub(super) fn start_waiting_queries(&mut self) {
        self.start_waiting_names();
        if self.lookups.waiting.is_empty() {
            return;
        }
        match self.daemon() {
            Daemon::Coming => return,
            Daemon::Here(daemon) => {
                for (for_whom, key) in std::mem::take(&mut self.lookups.waiting) {
                    self.delegate(daemon, for_whom, key);
                }
                return;
            }
            Daemon::None => {}
        }
        if !self.dht_is_ready() {
            return;
        }
        while self.queries.len() < self.config.limits.dht_queries {
            let Some((for_whom, key)) = self.lookups.waiting.pop_front() else {
                return;
            };
            if self.is_wanted(for_whom) {
                self.start_query(for_whom, &key);
            }
        }
    }

    fn start_query(&mut self, for_whom: QueryUse, key: &Multihash) {
        let kad = &mut self.swarm.behaviour_mut().kad;
        let query = kad.get_providers(record_key(key));
        self.queries.insert(query, for_whom);
        if let QueryUse::Lookup(id) = for_whom
            && let Some(active) = self.lookups.active.get_mut(&id)
        {
            active.query = Some(query);
        }
    }

    /// The DHT has named providers.
    pub(super) fn providers_found(&mut self, id: LookupId, providers: &[PeerId], nodes: u32) {
        if let Some(active) = self.lookups.active.get_mut(&id) {
            active.state.dht_progress(nodes);
        }
        for peer in providers {
            self.ask(id, *peer, Reason::Provider);
        }
    }

    /// The DHT walk is over.
    pub(super) fn lookup_walked(&mut self, id: LookupId, nodes: u32) {
        if let Some(active) = self.lookups.active.get_mut(&id) {
            active.query = None;
            active.state.dht_done(nodes);
            self.finish_if_done(id);
        }
    }

    /// A peer has just introduced itself: it may know what we are looking for.
    pub(super) fn ask_newcomer(&mut self, peer: PeerId) {
        let ids: Vec<_> = self.lookups.active.keys().copied().collect();
        for id in ids {
            self.ask_connected(id, peer);
        }
    }

    fn ask_connected(&mut self, id: LookupId, peer: PeerId) {
        let Some(active) = self.lookups.active.get(&id) else {
            return;
        };
        let speaks = self
            .peers
            .connected
            .get(&peer)
            .is_some_and(|state| match active.question {
                Question::Source(_) => state.sources,
                Question::Realisations(_) => state.realisations,
                Question::Providers(_) => false,
            });
        if speaks && self.may_be_asked(&peer) {
            self.ask(id, peer, Reason::Connected);
        }
    }

    /// Asks a peer that may hold something without having announced it.
    pub(super) fn ask_unannounced(&mut self, id: LookupId, peer: PeerId) {
        let question = self.lookups.active.get(&id).map(|active| active.question);
        if !matches!(question, None | Some(Question::Providers(_))) {
            self.ask(id, peer, Reason::Connected);
        }
    }

    fn ask(&mut self, id: LookupId, peer: PeerId, reason: Reason) {
        let Some(active) = self.lookups.active.get_mut(&id) else {
            return;
        };
        if peer == *self.swarm.local_peer_id() || !active.state.ask(peer, reason) {
            return;
        }
        let is_a_question = !matches!(active.question, Question::Providers(_));
        if is_a_question && !self.may_be_asked(&peer) {
            return self.hold(id, peer);
        }
        if is_a_question {
            self.dial_provider(peer);
        }
        self.put_question(id, peer);
    }

    pub(super) fn put_question(&mut self, id: LookupId, peer: PeerId) {
        let Some(active) = self.lookups.active.get(&id) else {
            return;
        };
        let question = active.question;
        let behaviour = self.swarm.behaviour_mut();
        match question {
            Question::Source(sha256) => {
                let request = source_protocol::Request(vec![sha256]);
                let request = behaviour.sources.send_request(&peer, request);
                self.lookups.requests.insert(request, (id, peer));
            }
            Question::Realisations(pkghash) => {
                let together = &mut self.lookups.together;
                if together.add(peer, (id, pkghash), Instant::now()) {
                    self.ask_together(peer);
                }
            }
            Question::Providers(_) => {
                let addresses = self.known_addresses(peer);
                let found = Found::Provider { peer, addresses };
                self.settle(id, &peer, Outcome::Answered, Some(found));
            }
        }
    }

    /// Takes a peer's answer about a source.
    pub(super) fn source_answered(
        &mut self,
        request: OutboundRequestId,
        response: &source_protocol::Response,
    ) {
        let Some((id, peer)) = self.lookups.requests.remove(&request) else {
            return;
        };
        match response.0[..] {
            [Some(holding)] => {
                let found = Found::Root {
                    peer,
                    root: holding.root,
                    size: Some(holding.size),
                };
                self.settle(id, &peer, Outcome::Answered, Some(found));
            }
            [None] => self.settle(id, &peer, Outcome::Refused, None),
            _ => self.settle(id, &peer, Outcome::Invalid, None),
        }
    }

    /// A request about a source got no answer.
    pub(super) fn source_request_failed(
        &mut self,
        request: OutboundRequestId,
        failure: &OutboundFailure,
    ) {
        let Some((id, peer)) = self.lookups.requests.remove(&request) else {
            return;
        };
        match (failure, self.lookups.active.get(&id)) {
            // Only providers are asked unseen. What any other IPFS node announces under this key is a block of this hash:
            // the file itself, stored as one.
            (OutboundFailure::UnsupportedProtocols, Some(active)) => {
                let root = block_cid(Codec::Raw, &active.question.key().digest());
                let found = Found::Root {
                    peer,
                    root,
                    size: None,
                };
                self.settle(id, &peer, Outcome::Answered, Some(found));
            }
            _ => self.settle(id, &peer, outcome_of(failure), None),
        }
    }

    pub(super) fn settle(
        &mut self,
        id: LookupId,
        peer: &PeerId,
        outcome: Outcome,
        found: Option<Found>,
    ) {
        let Some(active) = self.lookups.active.get_mut(&id) else {
            return;
        };
        active.state.settle(peer, outcome);
        if let Some(found) = found
            && active.sink.try_send(found).is_err()
        {
            return self.drop_lookup(id);
        }
        self.finish_if_done(id);
    }

    fn finish_if_done(&mut self, id: LookupId) {
        let Some(active) = self.lookups.active.get(&id) else {
            return;
        };
        if active.state.is_done() {
            let asked = Asked {
                first_peers_unreachable: self.peers.first_unreachable(),
                ..active.state.asked()
            };
            let overdue = active.state.is_overdue();
            // Nobody may be left to hear it.
            let _ = active.sink.try_send(Found::Finished { asked, overdue });
            self.drop_lookup(id);
        }
    }

    fn drop_lookup(&mut self, id: LookupId) {
        if let Some(active) = self.lookups.active.remove(&id)
            && let Some(query) = active.query
            && let Some(mut query) = self.swarm.behaviour_mut().kad.query_mut(&query)
        {
            query.finish();
        }
        self.lookups.requests.retain(|_, (lookup, _)| *lookup != id);
    }

    pub(super) fn expire_lookups(&mut self) {
        let now = Instant::now();
        let late: Vec<_> = self
            .lookups
            .active
            .iter()
            .filter(|(_, active)| active.deadline <= now)
            .map(|(id, _)| *id)
            .collect();
        for id in late {
            if let Some(active) = self.lookups.active.get_mut(&id) {
                active.state.expire();
            }
            self.finish_if_done(id);
        }
    }

    /// Ends lookups whose owners are gone.
    pub(super) fn sweep_lookups(&mut self) {
        let gone: Vec<_> = self
            .lookups
            .active
            .iter()
            .filter(|(_, active)| active.sink.is_closed())
            .map(|(id, _)| *id)
            .collect();
        for id in gone {
            self.drop_lookup(id);
        }
    }
}

pub(super) fn outcome_of(failure: &request_response::OutboundFailure) -> Outcome {
    match failure {
        OutboundFailure::DialFailure | OutboundFailure::ConnectionClosed => Outcome::Unreachable,
        OutboundFailure::Timeout => Outcome::TimedOut,
        OutboundFailure::UnsupportedProtocols => Outcome::Refused,
        OutboundFailure::Io(error) if error.kind() == std::io::ErrorKind::InvalidData => {
            Outcome::Invalid
        }
        // The peer ended the stream without an answer: it is overloaded or does not want to.
        OutboundFailure::Io(_) => Outcome::Refused,
    }
}
