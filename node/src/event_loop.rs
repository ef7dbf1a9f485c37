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
//! to the network), `names` (records of names), `reach` (the local network, relays), `sessions` (fetches), `serving`
//! (questions of others), `members` (who may be asked and served, in a group), `announcing` (the DHT queue).

mod announcing;
mod lookups;
mod members;
mod names;
mod peers;
mod reach;
mod serving;
mod sessions;
mod status;

use std::collections::HashMap;
use std::time::{Duration, Instant, SystemTime};

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use libp2p::swarm::SwarmEvent;
use libp2p::{Swarm, kad};
use store::Store;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use self::announcing::Announcing;
use self::lookups::Lookups;
use self::members::Members;
use self::names::Names;
use self::peers::Peers;
use self::reach::Relays;
use self::serving::Served;
use self::sessions::Sessions;

pub(crate) use self::sessions::SESSION_WANTS_MAX;
use crate::behaviour::{Behaviour, BehaviourEvent};
use crate::command::Command;
use crate::config::Config;
use crate::status::AskedStatus;

/// How often is looked for new keys to announce, for receivers that are gone, and for expired records.
const TICK: Duration = Duration::from_secs(1);

/// What a DHT query is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum QueryUse {
    Lookup(lookups::LookupId),
    Session(bitswap::SessionId),
    Announce(base::Multihash),
    Name(names::NameId),
}

/// What a background job brings back.
enum Done {
    /// An answer to a peer.
    Served(Served),
    /// Keys to announce.
    Due(announcing::Due),
    /// Whether a record of ours is the newest.
    Name(names::Kept),
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
    names: Names,
    sessions: Sessions,
    announcing: Announcing,
    asked: AskedStatus,
}

impl EventLoop {
    /// A node that is ready to run. Must be called inside the runtime.
    pub(crate) fn new(
        swarm: Swarm<Behaviour>,
        commands: mpsc::Receiver<Command>,
        store: Store,
        config: Config,
    ) -> Self {
        Self {
            peers: Peers::new(&config),
            relays: Relays::new(&config),
            lookups: Lookups::default(),
            members: Members::default(),
            names: Names::default(),
            sessions: Sessions::default(),
            announcing: Announcing::new(&config),
            asked: AskedStatus::default(),
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
            Command::Provide { key, reply } => self.provide_now(key, reply),
            Command::OpenSession {
                root,
                providers,
                reply,
            } => {
                self.open_session(root, &providers, reply);
            }
            Command::Want { session, cids } => self.want(session, &cids),
            Command::AddProviders { session, providers } => {
                self.add_providers(session, &providers);
            }
            Command::CloseSession { session } => self.close_session(session),
            Command::PublishName { record, reply } => self.publish_name(record, reply),
            Command::ResolveName { name, reply } => self.resolve_name(name, reply),
            Command::Stop => {}
        }
    }

    fn on_swarm_event(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::Behaviour(event) => self.on_behaviour_event(event),
            SwarmEvent::ConnectionEstablished {
                peer_id, endpoint, ..
            } => {
                self.peer_connected(peer_id, &endpoint);
            }
            SwarmEvent::ConnectionClosed {
                peer_id,
                num_established: 0,
                ..
            } => {
                self.peer_disconnected(&peer_id);
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

    fn on_behaviour_event(&mut self, event: BehaviourEvent) {
        match event {
            BehaviourEvent::Identify(event) => self.on_identify(event),
            BehaviourEvent::Kad(event) => self.on_kad(event),
            BehaviourEvent::Exchange(event) => self.on_exchange(event),
            BehaviourEvent::Sources(event) => self.on_source_message(event),
            BehaviourEvent::Realisations(event) => self.on_realisation_message(event),
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
            // These two only refuse connections and have nothing to say.
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
                    self.query_ended(id, stats.num_requests(), stats.num_successes());
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
            kad::Event::RoutingUpdated { .. } => self.start_waiting_queries(),
            _ => {}
        }
    }

    /// A query has found something.
    fn on_query(&mut self, id: kad::QueryId, result: &kad::QueryResult, asked: u32) {
        if let Some(QueryUse::Name(id)) = self.queries.get(&id) {
            return self.name_progress(*id, result, asked);
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
            Some(QueryUse::Announce(_) | QueryUse::Name(_)) | None => {}
        }
    }

    /// A query is over, for whatever reason.
    fn query_ended(&mut self, id: kad::QueryId, asked: u32, told: u32) {
        match self.queries.remove(&id) {
            Some(QueryUse::Lookup(lookup)) => self.lookup_walked(lookup, asked),
            Some(QueryUse::Session(session)) => self.search_ended(session, asked),
            Some(QueryUse::Announce(key)) => self.announced(&key, told),
            Some(QueryUse::Name(id)) => self.name_query_ended(id),
            None => return,
        }
        self.start_waiting_queries();
    }

    fn on_done(&mut self, done: Done) {
        match done {
            Done::Served(served) => self.answer(served),
            Done::Due(due) => self.announce(due),
            Done::Name(kept) => self.name_kept(kept),
            Done::Noted => {}
        }
    }

    fn on_tick(&mut self) {
        self.take_part_in_dht();
        self.sweep_lookups();
        self.sweep_sessions();
        self.sweep_names();
        self.look_for_due_keys();
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
