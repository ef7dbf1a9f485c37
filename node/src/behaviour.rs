//! Everything a node speaks, put together.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::num::NonZeroUsize;
use std::sync::Arc;

use libp2p::autonat::v2 as autonat;
use libp2p::connection_limits::{self, ConnectionLimits};
use libp2p::request_response::{self, ProtocolSupport};
use libp2p::swarm::NetworkBehaviour;
use libp2p::swarm::behaviour::toggle::Toggle;
use libp2p::{
    PeerId, StreamProtocol, allow_block_list, dcutr, identify, kad, mdns, memory_connection_limits,
    ping, relay,
};
use store::BlockStore;

use crate::address::split_peer;
use crate::config::{Announce, Config, DhtMode};
use crate::delta_protocol::{self, DeltaCodec};
use crate::exchange;
use crate::group::{self, GroupCodec};
use crate::provider_store::ProviderStore;
use crate::realisation_protocol::{self, RealisationCodec};
use crate::record_protocol;
use crate::routing_protocol::{self, RoutingCodec};
use crate::source_protocol::{self, SourceCodec};
use crate::witness_protocol::{self, WitnessCodec};

/// Name under which peers see this program.
const AGENT: &str = concat!("p2pkgs/", env!("CARGO_PKG_VERSION"));
/// What JavaScript peers call the protocol family; nobody compares it.
const PROTOCOL_VERSION: &str = "ipfs/0.1.0";
/// Peers whose addresses are remembered after they were met. The library's 100 is forgotten within one DHT walk.
const PEERS_REMEMBERED: usize = 1024;
/// Concurrent requests within one DHT walk (α), as in the public network; the library's 3 is three times slower.
const DHT_PARALLELISM: usize = 10;
/// How long others' provider records are kept, as in the public network.
const PROVIDER_RECORD_TTL: std::time::Duration = std::time::Duration::from_secs(48 * 3600);
/// Circuits through this node at a time: one for each reservation that it gives. The library's 16 are taken by the first few
/// seekers, who ask several holders each.
const RELAYED_MAX: usize = 128;
/// The same for one peer, as Kubo has it.
const RELAYED_PER_PEER_MAX: usize = 16;
/// Concurrent small requests per connection and protocol.
const REQUESTS_PER_CONNECTION: usize = 32;

/// How long one segment of a delta may take: two outputs are unpacked before the first, and a megabyte is sent over a line of
/// 500 kbit/s.
const DELTA_DEADLINE: std::time::Duration = std::time::Duration::from_secs(30);
/// Concurrent segments per connection, each of at most 4 MiB: one is on its way while the one before is taken in.
const DELTAS_PER_CONNECTION: usize = 2;

/// The node's protocols.
#[derive(NetworkBehaviour)]
pub(crate) struct Behaviour {
    // The limits come first: they refuse a connection before anybody else spends anything on it.
    pub(crate) banned: allow_block_list::Behaviour<allow_block_list::BlockedPeers>,
    pub(crate) connection_limits: connection_limits::Behaviour,
    pub(crate) memory_limits: memory_connection_limits::Behaviour,
    pub(crate) identify: identify::Behaviour,
    pub(crate) ping: ping::Behaviour,
    pub(crate) kad: kad::Behaviour<ProviderStore>,
    pub(crate) records: record_protocol::Behaviour,
    pub(crate) exchange: exchange::Behaviour,
    pub(crate) sources: request_response::Behaviour<SourceCodec>,
    pub(crate) realisations: request_response::Behaviour<RealisationCodec>,
    pub(crate) deltas: request_response::Behaviour<DeltaCodec>,
    pub(crate) witness: request_response::Behaviour<WitnessCodec>,
    pub(crate) routing: request_response::Behaviour<RoutingCodec>,
    pub(crate) group: Toggle<request_response::Behaviour<GroupCodec>>,
    pub(crate) mdns: Toggle<mdns::tokio::Behaviour>,
    pub(crate) relay_client: relay::client::Behaviour,
    pub(crate) hole_punching: dcutr::Behaviour,
    pub(crate) relay_server: Toggle<relay::Behaviour>,
    pub(crate) reach_client: Toggle<autonat::client::Behaviour>,
    pub(crate) reach_server: Toggle<autonat::server::Behaviour>,
}

impl Behaviour {
    /// Sets everything up. Must be called inside the runtime.
    pub(crate) fn new(
        config: &Config,
        dht: StreamProtocol,
        store: Arc<dyn BlockStore>,
        relay_client: relay::client::Behaviour,
    ) -> Self {
        let public = config.identity.public();
        let local = public.to_peer_id();
        let identify = identify::Config::new(PROTOCOL_VERSION.to_owned(), public)
            .with_agent_version(AGENT.to_owned())
            .with_cache_size(PEERS_REMEMBERED)
            // What we listen on is nobody's business where only public addresses are told.
            .with_hide_listen_addrs(config.announce == Announce::Global)
            .with_push_listen_addr_updates(true);
        let requests = request_response::Config::default()
            .with_request_timeout(config.deadlines.request)
            .with_max_concurrent_streams(REQUESTS_PER_CONNECTION);
        Self {
            banned: allow_block_list::Behaviour::default(),
            connection_limits: limited_connections(config),
            memory_limits: memory_limits(config.limits.memory_bytes),
            identify: identify::Behaviour::new(identify),
            ping: ping::Behaviour::default(),
            records: record_protocol::behaviour(dht.clone()),
            kad: kademlia(config, dht, local),
            exchange: exchange::Behaviour::new(store, config, random_seed()),
            sources: request_response::Behaviour::new(
                [(source_protocol::PROTOCOL, ProtocolSupport::Full)],
                requests.clone(),
            ),
            realisations: request_response::Behaviour::new(
                [(realisation_protocol::PROTOCOL, ProtocolSupport::Full)],
                requests.clone(),
            ),
            deltas: deltas(),
            witness: request_response::Behaviour::new(
                [(witness_protocol::PROTOCOL, ProtocolSupport::Full)],
                requests.clone(),
            ),
            routing: request_response::Behaviour::new(
                // Only a daemon has anything to tell.
                [(routing_protocol::PROTOCOL, routing_support(config))],
                requests
                    .clone()
                    .with_request_timeout(config.deadlines.dht_lookup),
            ),
            group: (config.group.is_some()).then(|| members(requests)).into(),
            mdns: config.mdns.then(|| multicast(local)).flatten().into(),
            relay_client,
            hole_punching: dcutr::Behaviour::new(local),
            relay_server: config
                .traversal
                .serve
                .then(|| relay::Behaviour::new(local, relaying()))
                .into(),
            reach_client: config
                .traversal
                .seek_relays
                .then(autonat::client::Behaviour::default)
                .into(),
            reach_server: config
                .traversal
                .serve
                .then(autonat::server::Behaviour::default)
                .into(),
        }
    }
}

fn deltas() -> request_response::Behaviour<DeltaCodec> {
    let config = request_response::Config::default()
        .with_request_timeout(DELTA_DEADLINE)
        .with_max_concurrent_streams(DELTAS_PER_CONNECTION);
    request_response::Behaviour::new([(delta_protocol::PROTOCOL, ProtocolSupport::Full)], config)
}

fn members(requests: request_response::Config) -> request_response::Behaviour<GroupCodec> {
    request_response::Behaviour::new([(group::PROTOCOL, ProtocolSupport::Full)], requests)
}

const fn routing_support(config: &Config) -> ProtocolSupport {
    if config.provide {
        ProtocolSupport::Full
    } else {
        ProtocolSupport::Outbound
    }
}

/// What a relay does for others. Each circuit carries 128 KiB and lasts two minutes, by default.
fn relaying() -> relay::Config {
    relay::Config {
        max_circuits: RELAYED_MAX,
        max_circuits_per_peer: RELAYED_PER_PEER_MAX,
        ..relay::Config::default()
    }
}

/// Multicast DNS, where the machine lets us have a socket for it.
fn multicast(local: PeerId) -> Option<mdns::tokio::Behaviour> {
    mdns::tokio::Behaviour::new(mdns::Config::default(), local)
        .inspect_err(|error| tracing::info!(%error, "no multicast here: LAN peers are not found"))
        .ok()
}

/// First peers are not counted, for the user named them.
fn limited_connections(config: &Config) -> connection_limits::Behaviour {
    let (total, per_peer) = (
        config.limits.connections,
        config.limits.connections_per_peer,
    );
    let mut limits = connection_limits::Behaviour::new(connection_limits(total, per_peer));
    for (peer, _) in config.bootstrap.iter().filter_map(split_peer) {
        limits.bypass_peer_id(&peer);
    }
    limits
}

/// How many connections there may be in all and with one peer.
pub(crate) fn connection_limits(total: u32, per_peer: u32) -> ConnectionLimits {
    ConnectionLimits::default()
        .with_max_established(Some(total))
        // Whoever fills the house must leave us the door: a quarter is for connections that we make.
        .with_max_established_incoming(Some((total - total / 4).max(1)))
        .with_max_established_per_peer(Some(per_peer))
        // Handshakes cost CPU before the peer is known; a quarter of the connections may be in that state.
        .with_max_pending_incoming(Some((total / 4).max(1)))
}

/// Refuses connections while this process has more memory than that. It remembers nothing, so it can be replaced.
pub(crate) fn memory_limits(bytes: usize) -> memory_connection_limits::Behaviour {
    memory_connection_limits::Behaviour::with_max_bytes(bytes)
}

fn kademlia(config: &Config, dht: StreamProtocol, local: PeerId) -> kad::Behaviour<ProviderStore> {
    let mut kad = kad::Config::new(dht);
    kad.set_max_packet_size(config.limits.dht_message_bytes)
        .set_parallelism(NonZeroUsize::new(DHT_PARALLELISM).unwrap_or(NonZeroUsize::MIN))
        .set_query_timeout(config.deadlines.dht_lookup)
        // Nothing is stored that we have not looked at.
        .set_record_filtering(kad::StoreInserts::FilterBoth)
        .set_provider_record_ttl(Some(PROVIDER_RECORD_TTL))
        // We announce on a schedule of our own, and keep no value records to republish.
        .set_provider_publication_interval(None)
        .set_publication_interval(None)
        .set_replication_interval(None);
    let mut kad = kad::Behaviour::with_config(local, ProviderStore::new(local), kad);
    kad.set_mode(Some(match config.dht_mode {
        DhtMode::Server => kad::Mode::Server,
        DhtMode::Client => kad::Mode::Client,
    }));
    kad
}

/// Randomness for tie-breaking and hash maps, from the same source the standard library's hash maps use.
fn random_seed() -> u64 {
    RandomState::new().build_hasher().finish()
}
