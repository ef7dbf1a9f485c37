//! What a node needs to know, as one plain value.
//!
//! Nothing here reads a file or the environment: `cli` translates a network profile into this struct. Every number has a
//! default with its reason, so that a node that was configured by nobody is still a polite and bounded one.

use std::sync::Arc;
use std::time::Duration;

use bitswap::Budget;
use libp2p::identity::Keypair;
use libp2p::{Multiaddr, PeerId, StreamProtocol};
use store::ProvideScope;

use crate::error::StartError;
use crate::group::GroupKey;
use crate::witness_protocol::{NoWitness, Witness};

/// The DHT of the public IPFS network.
pub const DHT_PUBLIC: &str = "/ipfs/kad/1.0.0";
/// The DHT that IPFS nodes keep for private addresses.
pub const DHT_LAN: &str = "/ipfs/lan/kad/1.0.0";

/// Everything that decides how a node behaves.
#[derive(Clone, Debug)]
pub struct Config {
    /// Who this node is on the network; see [`crate::identity`].
    pub identity: Keypair,
    /// Where to accept connections. Empty for a node that only asks.
    pub listen: Vec<Multiaddr>,
    /// First peers, each ending in `/p2p/ID`; `/dnsaddr/…/p2p/ID` is resolved.
    pub bootstrap: Vec<Multiaddr>,
    /// The daemon of the same home, which is among the first peers: it is asked to walk the DHT for us.
    pub daemon: Option<PeerId>,
    /// Whether this node holds a part of the DHT for others.
    pub dht_mode: DhtMode,
    /// Name of the DHT: [`DHT_PUBLIC`], [`DHT_LAN`], or a private network's own.
    pub dht_protocol: String,
    /// Which of our own addresses others are told.
    pub announce: Announce,
    /// Whether this node works off the store's queue of keys to announce: the long-running node of a home does, a short
    /// command does not, because it would be gone before anybody came.
    pub provide: bool,
    /// Which of these keys it announces.
    pub provide_scope: ProvideScope,
    /// Whether it also asks how many others provide them, for stores that keep the rarest longest.
    pub count_others: bool,
    /// Addresses that are known to reach this node from outside (a forwarded port), announced as they are.
    pub external: Vec<Multiaddr>,
    /// The key of a private swarm: only who has it can connect, over TCP alone.
    pub swarm_key: Option<[u8; 32]>,
    /// The key of a group in an open network: only who has it learns what this node looks for and what it has.
    pub group: Option<GroupKey>,
    /// Whether peers of the local network are found by multicast DNS.
    pub mdns: bool,
    /// From whom outputs may come as what changed since an earlier one.
    pub deltas: Deltas,
    /// What this node tells peers that it has seen of heads, and of what keys said of keys.
    pub witness: Arc<dyn Witness>,
    /// What this node does about address translation between it and its peers.
    pub traversal: Traversal,
    /// What may be fetched per second from outside the LAN: shared with other doors of the same process, such as
    /// [`HttpSources`](crate::HttpSources).
    pub download: Budget,
    /// What a node may spend.
    pub limits: Limits,
    /// How long a node waits.
    pub deadlines: Deadlines,
}

impl Config {
    /// A node that only asks: no listening address, a client of the public DHT, nobody known.
    pub fn new(identity: Keypair) -> Self {
        Self {
            identity,
            listen: Vec::new(),
            bootstrap: Vec::new(),
            daemon: None,
            dht_mode: DhtMode::Client,
            dht_protocol: DHT_PUBLIC.to_owned(),
            announce: Announce::Global,
            provide: false,
            provide_scope: ProvideScope::All,
            count_others: false,
            external: Vec::new(),
            swarm_key: None,
            group: None,
            mdns: false,
            deltas: Deltas::Far,
            witness: Arc::new(NoWitness),
            traversal: Traversal::default(),
            download: Budget::default(),
            limits: Limits::default(),
            deadlines: Deadlines::default(),
        }
    }

    /// The DHT's name as a protocol.
    pub(crate) fn dht_stream_protocol(&self) -> Result<StreamProtocol, StartError> {
        StreamProtocol::try_from_owned(self.dht_protocol.clone())
            .map_err(|_| StartError::DhtProtocol(self.dht_protocol.clone()))
    }
}

/// Whose earlier outputs spare bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deltas {
    /// Nobody's.
    None,
    /// Those of peers outside of the local network: making and applying a delta takes longer than a fast line does.
    Far,
    /// Those of all peers.
    All,
}

/// What a node does about address translation between it and its peers.
#[derive(Clone, Debug, Default)]
pub struct Traversal {
    /// Finds out whether it can be reached, and lets relays stand in for it while it cannot: for long-running nodes.
    /// Every node punches holes towards peers that it meets through a relay.
    pub seek_relays: bool,
    /// Relays to ask first, each ending in `/p2p/ID`.
    pub relays: Vec<Multiaddr>,
    /// Helps others: passes on their first words, and tells them whether they can be reached.
    pub serve: bool,
}

/// The node's part in the DHT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DhtMode {
    /// Answers others and keeps their provider records: for long-running nodes, while they can be reached. One that seeks
    /// relays in the public network only asks until it knows an address at which it is reached directly.
    Server,
    /// Only asks: for short commands and nodes nobody can reach.
    Client,
}

/// Which listening addresses are told to others. Go peers drop provider records that carry no address at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Announce {
    /// Only addresses that are unique in the whole internet: the public network.
    Global,
    /// Loopback and private addresses too, and those at which peers see us: LAN and private networks.
    All,
}

/// What a node may spend.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Open connections in total. 256 is twice what a DHT server of a small network needs and a quarter of the usual
    /// limit of 1024 open files.
    pub connections: u32,
    /// Open connections to one peer. Two peers that dial each other at once make two; the rest is room for address changes.
    pub connections_per_peer: u32,
    /// Bitswap streams one connection may hold open towards us. Kubo answers with one stream per block and sends with
    /// eight workers; 64 leaves room for bursts.
    pub inbound_streams: usize,
    /// Resident memory above which no new connection is taken, in bytes.
    pub memory_bytes: usize,
    /// Block bytes sent to peers outside the LAN per second: 100 Mbit/s, so that a package cache never takes a whole
    /// line. `None` for no limit.
    pub upload_bytes_per_sec: Option<u64>,
    /// Block reads from the disk at the same time. Two keep a disk busy, four hide its latency from several peers.
    pub loads: usize,
    /// Lookups in the DHT at the same time. rust-libp2p polls all of them each time, so more is slower, not faster.
    pub dht_queries: usize,
    /// Lookups made for announcing at the same time; each costs 20 to 40 requests and serves all keys near it.
    pub provides: usize,
    /// Largest DHT message, in bytes. The library's 16 KiB makes queries fail silently: replies of 43 KB were observed.
    pub dht_message_bytes: usize,
    /// Peers asked for one thing, at most.
    pub lookup_peers: usize,
    /// Block bytes wanted or waiting to be written by one fetch. 100 MB/s over 150 ms needs 15 MB in flight.
    pub fetch_window_bytes: u64,
    /// Largest file fetched, in bytes. Of a source only the hash is known beforehand, so this is what a liar can cost.
    pub file_bytes_max: u64,
}

impl Limits {
    /// Takes over those that can be changed while a node runs.
    pub const fn set_running(&mut self, running: &RunningLimits) {
        self.connections = running.connections;
        self.connections_per_peer = running.connections_per_peer;
        self.memory_bytes = running.memory_bytes;
        self.upload_bytes_per_sec = running.upload_bytes_per_sec;
    }
}

/// Limits that can be changed while a node runs; see [`Limits`]. What is open already stays open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunningLimits {
    /// Open connections in total.
    pub connections: u32,
    /// Open connections to one peer.
    pub connections_per_peer: u32,
    /// Resident memory above which no new connection is taken, in bytes.
    pub memory_bytes: usize,
    /// Bytes sent to others outside the LAN per second; `None` for no limit.
    pub upload_bytes_per_sec: Option<u64>,
    /// Bytes fetched from outside the LAN per second, see [`Config::download`]; `None` for no limit.
    pub download_bytes_per_sec: Option<u64>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 256,
            connections_per_peer: 4,
            inbound_streams: 64,
            memory_bytes: 512 << 20,
            upload_bytes_per_sec: Some(12_500_000),
            loads: 4,
            dht_queries: 32,
            provides: 16,
            dht_message_bytes: 1 << 20,
            lookup_peers: 64,
            fetch_window_bytes: 32 << 20,
            file_bytes_max: 16 << 30,
        }
    }
}

/// How long a node waits for others. What is late is counted, never waited for.
#[derive(Clone, Debug)]
pub struct Deadlines {
    /// Until a connection stands, with encryption and multiplexing: go-libp2p's own negotiation time-out is 10 s.
    pub dial: Duration,
    /// Until one peer has answered one small question, dialling not included.
    pub request: Duration,
    /// Until a question to the network is closed, DHT walk and all answers together. A walk takes 1 to 10 s.
    pub dht_lookup: Duration,
    /// From the start of a transfer to its first block; includes a provider search.
    pub first_byte: Duration,
    /// Without a byte of progress.
    pub stall: Duration,
    /// Window over which [`Self::rate_min_bytes_per_sec`] is measured.
    pub rate_window: Duration,
    /// Slower than this over a whole window is given up: 8 KiB/s is a modem, 100 MiB would take four hours.
    pub rate_min_bytes_per_sec: u64,
    /// One file, whatever happens.
    pub total: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self {
            dial: Duration::from_secs(10),
            request: Duration::from_secs(10),
            dht_lookup: Duration::from_secs(30),
            first_byte: Duration::from_secs(30),
            stall: Duration::from_secs(30),
            rate_window: Duration::from_secs(60),
            rate_min_bytes_per_sec: 8 << 10,
            total: Duration::from_secs(6 * 3600),
        }
    }
}
