//! The one task that owns the swarm.
//!
//! Handles send commands, the swarm reports events, background jobs hand in what they read from the store; this loop
//! takes them one at a time and never waits for anything else. So there is no lock around the network's state, and the
//! order of things is the order in which they arrived here. The rules that keep it honest:
//!
//! * **Nothing here blocks.** The store is read in jobs on threads that may block, a bounded number of them; when too
//!   many questions of others wait, further ones are not answered, and their askers go elsewhere.
//! * **Nothing here waits for a receiver.** Answers go into channels that are large enough for everything their owner
//!   asked for; if one is full or gone, its owner is at fault or has lost interest, and the work for it ends.
//! * **Everything that is answered later has an id in a map**, and is taken out when it is answered, when it fails, when
//!   its deadline comes, or when its owner is gone. What can outlive its owner is swept once a second.
//!
//! The parts are told apart by whom they serve: `peers` (who is connected, and the first contact), `lookups` (questions
//! to the network), `names` (records of names), `reach` (the local network, relays), `sessions` (fetches), `deltas` (what changed
//! in an output), `serving`
//! (questions of others), `members` (who may be asked and served, in a group), `routing` (searches that a daemon makes for the commands of its home), `announcing` (the DHT queue).

mod announcing;
mod deltas;
mod lookups;
mod members;
mod names;
mod peers;
mod reach;
mod routing;
mod serving;
mod sessions;
mod status;
mod together;
mod witnessing;

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant, SystemTime};

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use libp2p::core::ConnectedPoint;
use libp2p::swarm::SwarmEvent;
use libp2p::{Swarm, kad};
use store::Store;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use self::announcing::Announcing;
use self::deltas::Deltas;
use self::lookups::Lookups;
use self::members::Members;
use self::names::Names;
use self::peers::Peers;
use self::reach::Relays;
use self::routing::Routing;
use self::serving::Served;
use self::sessions::Sessions;
use self::witnessing::Hearings;

pub(crate) use self::deltas::Answer as DeltaAnswer;
pub(crate) use self::sessions::SESSION_WANTS_MAX;
pub(crate) use self::witnessing::WITNESSES_MAX;
use crate::address::transport;
use crate::behaviour::{Behaviour, BehaviourEvent, connection_limits, memory_limits};
use crate::command::Command;
use crate::config::{Config, RunningLimits};
use crate::dial_guard::Acquaintances;
use crate::status::AskedStatus;
use crate::sweep;

/// How often is looked for new keys to announce, for receivers that are gone, and for expired records.
const TICK: Duration = Duration::from_secs(1);

/// What a DHT query is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum QueryUse {
    Lookup(lookups::LookupId),
    Session(bitswap::SessionId),
    Announce(sweep::LookupId),
    Name(names::NameId),
    /// A walk for a command of this home, or for who asks over HTTP.
    Walk(base::Multihash),
}

/// What a background job brings back.
enum Done {
    /// An answer to a peer.
    Served(Served),
    /// How the queue of keys to announce stands.
    Queue(announcing::QueueRead),
    /// All keys that we announce.
    OwnKeys(Vec<base::Multihash>),
    /// Whether a record of ours is the newest.
    Name(names::Kept),
    /// Blocks that others have put where we can serve them.
    Stored(Vec<base::Multihash>),
    /// Nothing more to do.
    Noted,
}

/// The state of a running node.
pub(crate) struct EventLoop {
    swarm: Swarm<Behaviour>,
    commands: mpsc::Receiver<Command>,
    store: Store,
    config: Config,
    started: Instant,
    jobs: FuturesUnordered<JoinHandle<Done>>,
    queries: HashMap<kad::QueryId, QueryUse>,
    peers: Peers,
    relays: Relays,
    lookups: Lookups,
    members: Members,
    routing: Routing,
    names: Names,
    sessions: Sessions,
    deltas: Deltas,
    hearings: Hearings,
    announcing: Announcing,
    asked: AskedStatus,
    /// Connections opened and closed so far, by direction and transport.
    connections: BTreeMap<(&'static str, &'static str), (u64, u64)>,
}

impl EventLoop {
    /// A node that is ready to run. Must be called inside the runtime.
    pub(crate) fn new(
        swarm: Swarm<Behaviour>,
        acquaintances: Acquaintances,
        commands: mpsc::Receiver<Command>,
        store: Store,
        config: Config,
    ) -> Self {
        Self {
            peers: Peers::new(&config, acquaintances),
            relays: Relays::new(&config),
            lookups: Lookups::default(),
            members: Members::default(),
            routing: Routing::default(),
            names: Names::default(),
            sessions: Sessions::default(),
            deltas: Deltas::default(),
            hearings: Hearings::default(),
            announcing: Announcing::new(&config),
            asked: AskedStatus::default(),
            connections: BTreeMap::new(),
            started: Instant::now(),
            jobs: FuturesUnordered::new(),
            queries: HashMap::new(),
            swarm,
            commands,
            store,
            config,
        }
    }

    /// Runs until told to stop, or until nobody is left who could tell.
    pub(crate) async fn run(mut self) {
        let mut tick = tokio::time::interval(TICK);
        self.take_part_in_dht();
        self.contact_bootstrap();
        self.contact_relays();
        loop {
            let deadline = self.next_deadline();
            tokio::select! {
                event = self.swarm.select_next_some() => self.on_swarm_event(event),
                command = self.commands.recv() => match command {
                    None | Some(Command::Stop) => return,
                    Some(command) => self.on_command(command),
                },
                Some(done) = self.jobs.next() => self.on_done(done.unwrap_or(Done::Noted)),
                _ = tick.tick() => self.on_tick(),
                () = tokio::time::sleep_until(deadline.into()) => self.on_deadline(),
            }
        }
    }

    fn on_command(&mut self, command: Command) {
        match command {
            Command::Status { reply } => {
                let _ = reply.send(self.status());
            }
            Command::Connect { address, reply } => self.connect(&address, reply),
            Command::Lookup {
                question,
                providers,
                sink,
            } => {
                self.start_lookup(question, &providers, sink);
            }
            Command::Walk { key, until, reply } => self.walk_here(&key, until, reply),
            Command::Provide { key, reply } => self.provide_now(key, reply),
            Command::OpenSession {
                root,
                providers,
                reply,
            } => {
                self.open_session(root, &providers, reply);
            }
            Command::Want { session, cids } => self.want(session, &cids),
            Command::Stored { blocks } => self.stored(&blocks),
            Command::AddProviders { session, providers } => {
                self.add_providers(session, &providers);
            }
            Command::Delta {
                peer,
                request,
                reply,
            } => self.ask_delta(&peer, request, reply),
            Command::Hear {
                topics,
                peers,
                sink,
            } => self.hear(topics, &peers, sink),
            Command::CloseSession { session } => self.close_session(session),
            Command::PublishName { record, reply } => self.publish_name(record, reply),
            Command::ResolveName { name, reply } => self.resolve_name(name, reply),
            Command::SetLimits(limits) => self.set_limits(limits),
            Command::Stop => {}
        }
    }

    /// The limits of what is sent and fetched are shared with whoever set them and need nothing done here.
    fn set_limits(&mut self, limits: RunningLimits) {
        let behaviour = self.swarm.behaviour_mut();
        *behaviour.connection_limits.limits_mut() =
            connection_limits(limits.connections, limits.connections_per_peer);
        behaviour.memory_limits = memory_limits(limits.memory_bytes);
    }

    fn on_swarm_event(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::Behaviour(event) => self.on_behaviour_event(event),
            SwarmEvent::ConnectionEstablished {
                peer_id, endpoint, ..
            } => {
                self.connections_like(&endpoint).0 += 1;
                self.peer_connected(peer_id, &endpoint);
            }
            SwarmEvent::ConnectionClosed {
                peer_id,
                endpoint,
                num_established,
                ..
            } => {
                self.connections_like(&endpoint).1 += 1;
                if num_established == 0 {
                    self.peer_disconnected(&peer_id);
                }
            }
            SwarmEvent::OutgoingConnectionError {
                peer_id: Some(peer),
                error,
                ..
            } => {
                self.dial_failed(&peer, &error);
            }
            SwarmEvent::NewListenAddr { address, .. } => self.listening(&address),
            SwarmEvent::ExpiredListenAddr { address, .. } => self.not_listening(&address),
            SwarmEvent::NewExternalAddrCandidate { address } => self.observed(&address),
            SwarmEvent::ExternalAddrConfirmed { address } => self.external_confirmed(&address),
            SwarmEvent::ListenerClosed { listener_id, .. } => self.listener_closed(listener_id),
            _ => {}
        }
    }

    /// How many connections of this kind were opened and closed.
    fn connections_like(&mut self, endpoint: &ConnectedPoint) -> &mut (u64, u64) {
        let direction = if endpoint.is_dialer() {
            "outbound"
        } else {
            "inbound"
        };
        let transport = transport(endpoint.get_remote_address());
        self.connections.entry((direction, transport)).or_default()
    }

    fn on_behaviour_event(&mut self, event: BehaviourEvent) {
        match event {
            BehaviourEvent::Identify(event) => self.on_identify(event),
            BehaviourEvent::Kad(event) => self.on_kad(event),
            BehaviourEvent::Records(event) => self.on_delivery(event),
            BehaviourEvent::Exchange(event) => self.on_exchange(event),
            BehaviourEvent::Sources(event) => self.on_source_message(event),
            BehaviourEvent::Realisations(event) => self.on_realisation_message(event),
            BehaviourEvent::Deltas(event) => self.on_delta_message(event),
            BehaviourEvent::Witness(event) => self.on_witness_message(event),
            BehaviourEvent::Routing(event) => self.on_routing_message(event),
            BehaviourEvent::Group(event) => self.on_group_message(event),
            BehaviourEvent::Mdns(event) => self.on_mdns(event),
            BehaviourEvent::HolePunching(event) => match event.result {
                Ok(_) => tracing::debug!(peer = %event.remote_peer_id, "punched a hole"),
                Err(error) => {
                    tracing::debug!(peer = %event.remote_peer_id, %error, "no hole could be punched");
                }
            },
            // What these bring about is reported by the swarm: connections and confirmed addresses.
            BehaviourEvent::Ping(_)
            | BehaviourEvent::RelayClient(_)
            | BehaviourEvent::RelayServer(_)
            | BehaviourEvent::ReachClient(_)
            | BehaviourEvent::ReachServer(_) => {}
            // These only refuse connections and have nothing to say.
            BehaviourEvent::Banned(never) => match never {},
            BehaviourEvent::ConnectionLimits(never) => match never {},
            BehaviourEvent::MemoryLimits(never) => match never {},
        }
    }

    fn on_kad(&mut self, event: kad::Event) {
        match event {
            kad::Event::OutboundQueryProgressed {
                id,
                result,
                stats,
                step,
            } => {
                self.on_query(id, &result, stats.num_requests());
                if step.last {
                    self.query_ended(id, stats.num_requests());
                }
            }
            kad::Event::InboundRequest {
                request:
                    kad::InboundRequest::AddProvider {
                        record: Some(record),
                    },
            } => self.keep_provider_record(record),
            kad::Event::InboundRequest {
                request:
                    kad::InboundRequest::PutRecord {
                        source,
                        record: Some(record),
                        ..
                    },
            } => self.keep_name_of_other(&source, record),
            kad::Event::RoutingUpdated { is_new_peer, .. } => {
                if is_new_peer {
                    self.announcing.newcomer();
                }
                self.start_waiting_queries();
            }
            _ => {}
        }
    }

    /// A query has found something.
    fn on_query(&mut self, id: kad::QueryId, result: &kad::QueryResult, asked: u32) {
        if let Some(QueryUse::Name(id)) = self.queries.get(&id) {
            return self.name_progress(*id, result, asked);
        }
        if let Some(QueryUse::Announce(id)) = self.queries.get(&id) {
            return self.closest_found(*id, result);
        }
        let kad::QueryResult::GetProviders(Ok(kad::GetProvidersOk::FoundProviders {
            providers,
            ..
        })) = result
        else {
            return;
        };
        let local = *self.swarm.local_peer_id();
        let providers: Vec<_> = providers
            .iter()
            .filter(|peer| **peer != local)
            .copied()
            .collect();
        match self.queries.get(&id) {
            Some(QueryUse::Lookup(lookup)) => self.providers_found(*lookup, &providers, asked),
            Some(QueryUse::Session(session)) => self.session_providers(*session, &providers),
            Some(QueryUse::Walk(key)) => self.walk_found(&key.clone(), &providers, asked),
            Some(QueryUse::Announce(_) | QueryUse::Name(_)) | None => {}
        }
    }

    /// A query is over, for whatever reason.
    fn query_ended(&mut self, id: kad::QueryId, asked: u32) {
        match self.queries.remove(&id) {
            Some(search @ (QueryUse::Lookup(_) | QueryUse::Session(_) | QueryUse::Walk(_))) => {
                self.search_is_over(search, asked);
            }
            Some(QueryUse::Announce(id)) => self.closest_search_ended(id),
            Some(QueryUse::Name(id)) => self.name_query_ended(id),
            None => return,
        }
        self.start_waiting_queries();
    }

    /// A search for providers is over.
    fn search_is_over(&mut self, search: QueryUse, asked: u32) {
        match search {
            QueryUse::Lookup(lookup) => self.lookup_walked(lookup, asked),
            QueryUse::Session(session) => self.search_ended(session, asked),
            QueryUse::Walk(key) => self.walk_ended(&key, asked),
            QueryUse::Announce(_) | QueryUse::Name(_) => {}
        }
    }

    fn on_done(&mut self, done: Done) {
        match done {
            Done::Served(served) => self.answer(served),
            Done::Queue(read) => self.queue_read(read),
            Done::OwnKeys(keys) => self.own_keys_read(&keys),
            Done::Name(kept) => self.name_kept(kept),
            Done::Stored(blocks) => self.partials_seen(&blocks),
            Done::Noted => {}
        }
    }

    fn on_tick(&mut self) {
        self.take_part_in_dht();
        self.sweep_lookups();
        self.sweep_sessions();
        self.sweep_deltas();
        self.sweep_hearings();
        self.sweep_names();
        self.answer_walks();
        self.announce_what_is_due();
        self.end_bans(Instant::now());
        self.look_at_partials();
        self.contact_bootstrap_again();
        self.contact_relays();
        self.seek_relays();
        self.leave_relays();
        self.start_waiting_queries();
        self.swarm
            .behaviour_mut()
            .kad
            .store_mut()
            .collect(Instant::now());
    }

    fn on_deadline(&mut self) {
        self.expire_first_contacts();
        self.expire_lookups();
        self.ask_what_was_gathered(Instant::now());
        self.start_waiting_queries();
    }

    /// When something is overdue next.
    fn next_deadline(&self) -> Instant {
        let lookups = self.lookups.next_deadline();
        let contacts = self.peers.next_deadline(Instant::now());
        // Without any the tick comes first anyway.
        lookups
            .into_iter()
            .chain(contacts)
            .min()
            .unwrap_or_else(|| Instant::now() + TICK)
    }

    /// Runs something that may block, off this task.
    fn spawn(&mut self, job: impl FnOnce() -> Done + Send + 'static) {
        self.jobs.push(tokio::task::spawn_blocking(job));
    }
}

/// Seconds since 1970.
fn unix_secs() -> u64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
