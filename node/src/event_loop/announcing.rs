//! Announcing what the store's queue names, and keeping the announcements of others.
//!
//! [`Sweeper`] decides; here is what it needs done: reading and writing the queue, lookups, streams to peers. Every process
//! of a home adds keys to the queue, the daemon announces them. Only what names a whole thing is announced (package hashes,
//! sources, roots), never every block: a hundred packages are a few hundred keys.
//!
//! The queue is read and written by one job at a time. So what was announced is noted before the queue is read again, and
//! nothing is announced twice.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use base::{Codec, Multihash, block_cid};
use libp2p::kad::store::RecordStore as _;
use libp2p::request_response::{self, OutboundRequestId};
use libp2p::{Multiaddr, PeerId, kad};
use store::{Provide, ProvideCounts, ProvideScope, Provided, Store, StoreError};
use tokio::sync::oneshot;

use super::peers::usable;
use super::{Done, EventLoop, QueryUse, unix_secs};
use crate::address::Reach;
use crate::config::Config;
use crate::provider_store::ProviderStore;
use crate::record_protocol::{Provider, Request, Response};
use crate::sweep::{
    Action, Answer, Contact, Counts, DeliveryId, LookupId, PollId, Position, Schedule, Settled,
    Sweeper,
};

/// Time between two readings of all our keys, by which what was forgotten leaves our own part of the DHT.
const OWN_KEYS_AGAIN: Duration = Duration::from_secs(3600);
/// Time between two countings of the queue while nothing happens in it. Counting 100,000 keys takes 20 ms.
const COUNT_AGAIN: Duration = Duration::from_secs(10);

/// What is wanted of the store's queue.
struct QueueWork {
    scope: ProvideScope,
    now: u64,
    /// Keys that were announced.
    noted: Vec<Provided>,
    /// Our addresses, if they may have changed.
    addresses: Option<Vec<Vec<u8>>>,
    /// How many due keys to read.
    limit: Option<usize>,
}

/// What came of it.
pub(super) struct QueueRead {
    noted: Vec<Provided>,
    result: Result<Queue, StoreError>,
}

struct Queue {
    due: Vec<Provide>,
    counts: ProvideCounts,
    renewed: bool,
}

impl QueueWork {
    fn run(self, store: &Store) -> QueueRead {
        let result = self.queue(store);
        QueueRead {
            noted: self.noted,
            result,
        }
    }

    fn queue(&self, store: &Store) -> Result<Queue, StoreError> {
        store.set_provided(&self.noted)?;
        let renewed = match &self.addresses {
            Some(addresses) => store.renew_provides(addresses, self.now)?,
            None => false,
        };
        let due = match self.limit {
            Some(limit) => store.provides_due(self.scope, self.now, limit)?,
            None => Vec::new(),
        };
        Ok(Queue {
            due,
            counts: store.provide_counts(self.scope, self.now)?,
            renewed,
        })
    }
}

/// The state of announcing.
pub(super) struct Announcing {
    enabled: bool,
    scope: ProvideScope,
    schedule: Schedule,
    sweeper: Sweeper,
    /// Set while a job has the queue.
    is_busy: bool,
    /// How the queue stood when it was read last, and when that was.
    queue: ProvideCounts,
    counted: Option<Instant>,
    /// Set while the store has not been told our addresses.
    addresses_changed: bool,
    /// Keys that were announced, not noted yet.
    settled: Vec<Provided>,
    /// Who waits for which announcement.
    replies: HashMap<Multihash, Vec<oneshot::Sender<u32>>>,
    deliveries: HashMap<OutboundRequestId, DeliveryId>,
    /// Questions how many others provide keys.
    counts: HashMap<OutboundRequestId, PollId>,
    /// Peers that were dialled only to give them records.
    visited: HashSet<PeerId>,
    own_keys_read: Option<Instant>,
    /// In a group: what the announced keys stand for.
    meant: HashMap<Multihash, Multihash>,
}

impl Announcing {
    pub(super) fn new(config: &Config) -> Self {
        let local = config.identity.public().to_peer_id();
        Self {
            enabled: config.provide,
            scope: config.provide_scope,
            schedule: Schedule::of(Position::of(&local.to_bytes())),
            sweeper: Sweeper::new(config.limits.provides).counting_others(config.count_others),
            is_busy: false,
            queue: ProvideCounts::default(),
            counted: None,
            addresses_changed: false,
            settled: Vec::new(),
            replies: HashMap::new(),
            deliveries: HashMap::new(),
            counts: HashMap::new(),
            visited: HashSet::new(),
            own_keys_read: None,
            meant: HashMap::new(),
        }
    }

    /// Records made so far lead to addresses that are not ours any more, or lack one that is.
    pub(super) fn addresses_changed(&mut self) {
        self.sweeper.restart();
        self.addresses_changed = true;
    }

    /// The routing table has somebody new.
    pub(super) fn newcomer(&mut self) {
        self.sweeper.newcomer();
    }

    /// What an announced key stands for.
    fn meaning_of(&self, announced: Multihash) -> Multihash {
        self.meant.get(&announced).copied().unwrap_or(announced)
    }

    pub(super) fn counts(&self) -> (Counts, ProvideCounts) {
        (self.sweeper.counts(unix_secs()), self.queue)
    }
}

impl EventLoop {
    /// Sees to the store's queue, once a tick.
    pub(super) fn announce_what_is_due(&mut self) {
        self.read_own_keys();
        self.work_on_queue();
        self.sweep();
    }

    /// Notes what was announced, and asks for keys to announce. Without anybody to tell, or an address where we can be
    /// reached, there is no point: who gets a record without addresses drops it.
    fn work_on_queue(&mut self) {
        if self.announcing.is_busy {
            return;
        }
        let now = unix_secs();
        let has_peers = self.dht_peers() > 0;
        let addresses: Vec<_> = self.announced_addresses().map(Multiaddr::to_vec).collect();
        let state = &mut self.announcing;
        let can_announce = state.enabled && !addresses.is_empty();
        let asked = (can_announce && has_peers).then(|| state.sweeper.ask(now));
        let limit = asked.flatten();
        let addresses = (can_announce && state.addresses_changed).then_some(addresses);
        let is_recent = |at: Instant| at.elapsed() < COUNT_AGAIN;
        let is_idle = state.settled.is_empty() && addresses.is_none() && limit.is_none();
        if is_idle && (!state.enabled || state.counted.is_some_and(is_recent)) {
            return;
        }
        state.is_busy = true;
        state.addresses_changed &= addresses.is_none();
        state.counted = Some(Instant::now());
        let work = QueueWork {
            scope: state.scope,
            now,
            noted: std::mem::take(&mut state.settled),
            addresses,
            limit,
        };
        let store = self.store.clone();
        self.spawn(move || Done::Queue(work.run(&store)));
    }

    pub(super) fn queue_read(&mut self, read: QueueRead) {
        let now = unix_secs();
        let noted = read.noted.iter();
        let noted: Vec<_> = noted.map(|provided| self.dht_key(&provided.key)).collect();
        let state = &mut self.announcing;
        state.is_busy = false;
        state.sweeper.noted(&noted, read.result.is_ok(), now);
        let queue = match read.result {
            Ok(queue) => queue,
            Err(error) => {
                state.addresses_changed = true;
                let error: &dyn std::error::Error = &error;
                return tracing::warn!(error, "cannot work on the queue of keys to announce");
            }
        };
        state.queue = queue.counts;
        if queue.renewed {
            tracing::info!("new addresses: everything is announced again");
        }
        let announced = |provide: Provide| Provide {
            key: self.announced_as(&provide.key),
            ..provide
        };
        let due: Vec<_> = queue.due.into_iter().map(announced).collect();
        for key in self.announcing.sweeper.offer(&due, now) {
            let key = self.announcing.meaning_of(key);
            self.key_is_new(&key);
        }
        self.sweep();
    }

    /// A key that appears in the queue names something that has just been stored: who waits for it is served.
    fn key_is_new(&mut self, key: &Multihash) {
        let behaviour = self.swarm.behaviour_mut();
        for codec in [Codec::Raw, Codec::DagPb] {
            behaviour
                .exchange
                .notify_new_block(&block_cid(codec, &key.digest()));
        }
        let announced = self.dht_key(key);
        self.swarm
            .behaviour_mut()
            .kad
            .store_mut()
            .add_own(&announced);
    }

    /// Under what a key is announced. In a group that is another, and what it stands for is remembered.
    fn announced_as(&mut self, key: &Multihash) -> Multihash {
        let announced = self.dht_key(key);
        if announced != *key {
            self.announcing.meant.insert(announced, *key);
        }
        announced
    }

    /// Reads which keys we announce: whoever asks us in the DHT is told.
    fn read_own_keys(&mut self) {
        let state = &mut self.announcing;
        let is_recent = |at: Instant| at.elapsed() < OWN_KEYS_AGAIN;
        if !state.enabled || state.own_keys_read.is_some_and(is_recent) {
            return;
        }
        state.own_keys_read = Some(Instant::now());
        let (store, scope) = (self.store.clone(), state.scope);
        let group = self.config.group.clone();
        self.spawn(move || match store.provide_keys(scope) {
            Ok(keys) => Done::OwnKeys(match group {
                Some(group) => keys.iter().map(|key| group.lookup_key(key)).collect(),
                None => keys,
            }),
            Err(error) => {
                let error: &dyn std::error::Error = &error;
                tracing::warn!(error, "cannot read which keys we announce");
                Done::Noted
            }
        });
    }

    pub(super) fn own_keys_read(&mut self, keys: &[Multihash]) {
        self.swarm.behaviour_mut().kad.store_mut().set_own(keys);
    }

    /// Announces a key out of turn.
    pub(super) fn provide_now(&mut self, key: Multihash, reply: oneshot::Sender<u32>) {
        self.key_is_new(&key);
        if self.announced_addresses().next().is_none() {
            let _ = reply.send(0);
            return;
        }
        self.announcing.replies.entry(key).or_default().push(reply);
        let announced = self.announced_as(&key);
        self.announcing.sweeper.announce_now(announced);
        self.sweep();
    }

    /// Does what the machine wants, until it wants nothing.
    pub(super) fn sweep(&mut self) {
        while let Some(action) = self.announcing.sweeper.poll(unix_secs()) {
            match action {
                Action::Lookup { id, target } => {
                    let kad = &mut self.swarm.behaviour_mut().kad;
                    let query = kad.get_closest_peers(target.as_bytes().to_vec());
                    self.queries.insert(query, QueryUse::Announce(id));
                }
                Action::Deliver { id, to, keys } => self.send_records(id, to, keys),
                Action::Count { id, to, keys } => self.count_others(id, to, keys),
                Action::Settled(settled) => self.announced(settled),
            }
        }
    }

    /// A lookup has found the peers closest to its target.
    pub(super) fn closest_found(&mut self, id: LookupId, result: &kad::QueryResult) {
        let kad::QueryResult::GetClosestPeers(result) = result else {
            return;
        };
        let answer = Answer {
            peers: self.contacts(result),
            finished: result.is_ok(),
            table: self.dht_peers(),
        };
        self.announcing.sweeper.looked_up(id, answer, unix_secs());
    }

    /// Whom a lookup has found, and where we may reach them.
    pub(super) fn contacts(&self, result: &kad::GetClosestPeersResult) -> Vec<Contact> {
        let peers = match result {
            Ok(found) => &found.peers,
            Err(kad::GetClosestPeersError::Timeout { peers, .. }) => peers,
        };
        let announce = self.config.announce;
        let contact = |info: &kad::PeerInfo| {
            let addresses = info.addrs.iter();
            Contact {
                peer: info.peer_id,
                addresses: addresses.filter(|a| usable(a, announce)).cloned().collect(),
            }
        };
        peers.iter().map(contact).collect()
    }

    /// A lookup is over. If it has said nothing, it found nobody.
    pub(super) fn closest_search_ended(&mut self, id: LookupId) {
        let nothing = Answer::default();
        self.announcing.sweeper.looked_up(id, nothing, unix_secs());
        self.sweep();
    }

    fn send_records(&mut self, id: DeliveryId, to: Contact, keys: Vec<Multihash>) {
        let request = self.visit(to, Request::Add(self.as_provider(), keys));
        self.announcing.deliveries.insert(request, id);
    }

    /// Hands something to a peer of the DHT, connected or not.
    pub(super) fn visit(&mut self, to: Contact, request: Request) -> OutboundRequestId {
        if !self.swarm.is_connected(&to.peer) {
            self.announcing.visited.insert(to.peer);
        }
        let sender = &mut self.swarm.behaviour_mut().records;
        sender.send_request_with_addresses(&to.peer, request, to.addresses)
    }

    fn count_others(&mut self, id: PollId, to: Contact, keys: Vec<Multihash>) {
        let request = self.visit(to, Request::Count(self.as_provider(), keys));
        self.announcing.counts.insert(request, id);
    }

    fn as_provider(&self) -> Arc<Provider> {
        let local = self.swarm.local_peer_id();
        Arc::new(Provider::new(local, self.announced_addresses()))
    }

    pub(super) fn on_delivery(&mut self, event: request_response::Event<Request, Response>) {
        let (peer, request, response) = match event {
            request_response::Event::Message {
                peer,
                message:
                    request_response::Message::Response {
                        request_id,
                        response,
                    },
                ..
            } => (peer, request_id, Some(response)),
            request_response::Event::OutboundFailure {
                peer,
                request_id,
                error,
                ..
            } => {
                tracing::debug!(%peer, %error, "a peer did not take our records or answer");
                (peer, request_id, None)
            }
            _ => return,
        };
        self.leave(&peer);
        self.record_delivered(request, response == Some(Response::Put(true)));
        let arrived = response.is_some();
        if let Some(id) = self.announcing.counts.remove(&request) {
            let counts = match response {
                Some(Response::Counted(counts)) => counts,
                _ => Vec::new(),
            };
            let believed = self.announcing.sweeper.counted(id, &counts);
            if !believed.is_empty() {
                self.note_others(believed);
            }
        }
        if let Some(id) = self.announcing.deliveries.remove(&request) {
            self.announcing.sweeper.delivered(id, arrived, unix_secs());
            self.sweep();
        }
    }

    /// Notes how many others provide our keys.
    fn note_others(&mut self, counts: Vec<(Multihash, u32)>) {
        let store = self.store.clone();
        self.spawn(move || {
            if let Err(error) = store.set_other_providers(&counts) {
                let error: &dyn std::error::Error = &error;
                tracing::warn!(error, "cannot note how many others provide keys");
            }
            Done::Noted
        });
    }

    /// Closes the connection to a peer that was dialled only for this, where connections are getting scarce: a sweep meets
    /// every server of the network.
    fn leave(&mut self, peer: &PeerId) {
        if !self.announcing.visited.remove(peer) {
            return;
        }
        let many = self.config.limits.connections as usize / 2;
        let is_far = self.peers.reach(peer) == Reach::Global;
        if is_far && self.peers.connected.len() > many && !self.sessions.knows(peer) {
            // It may be gone already.
            let _ = self.swarm.disconnect_peer_id(*peer);
        }
    }

    /// An attempt to announce a key is over.
    fn announced(&mut self, settled: Settled) {
        let key = self.announcing.meaning_of(settled.key);
        for reply in self.announcing.replies.remove(&key).into_iter().flatten() {
            let _ = reply.send(settled.told);
        }
        if settled.note {
            let at = unix_secs();
            let position = Position::of(settled.key.as_bytes());
            let next = self.announcing.schedule.next_unix_secs(at, position);
            self.announcing.settled.push(Provided {
                key,
                at_unix_secs: at,
                next_unix_secs: next,
            });
        }
    }

    /// The addresses that our records carry.
    fn announced_addresses(&self) -> impl Iterator<Item = &Multiaddr> {
        let announce = self.config.announce;
        let addresses = self.swarm.external_addresses();
        addresses.filter(move |address| usable(address, announce))
    }

    /// Another node asks us to remember what it provides. The library has checked that it speaks for itself.
    pub(super) fn keep_provider_record(&mut self, record: kad::ProviderRecord) {
        if !ProviderStore::accepts(&record) {
            return tracing::debug!(provider = %record.provider, "refusing a provider record");
        }
        // When it is full of what has expired, the next tick makes room.
        let _ = self
            .swarm
            .behaviour_mut()
            .kad
            .store_mut()
            .add_provider(record);
    }
}
