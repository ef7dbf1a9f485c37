//! How a node is doing, as plain data for `node status`, a state file, and whoever reads either.

use serde::Serialize;

/// A node at one moment. Byte counts are block bytes, without the cost of protocols and encryption.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Status {
    /// Who it is.
    pub peer_id: String,
    /// Where it accepts connections.
    pub listen_addrs: Vec<String>,
    /// Which addresses it tells others.
    pub external_addrs: Vec<String>,
    /// How long it has run.
    pub uptime_secs: u64,
    /// Whether it holds a part of the DHT for others.
    pub dht_server: bool,
    /// Peers in its routing table.
    pub dht_peers: usize,
    /// Provider records it keeps for others.
    pub dht_records: usize,
    /// Who is connected.
    pub peers: Vec<PeerStatus>,
    /// How announcing stands.
    pub provide: ProvideStatus,
    /// What is being fetched.
    pub transfers: Vec<TransferStatus>,
    /// Bytes of blocks and deltas sent since the start.
    pub uploaded_bytes: u64,
    /// Bytes of blocks and deltas received since the start.
    pub downloaded_bytes: u64,
    /// How much of what was sent went to peers of our own network.
    pub uploaded_near_bytes: u64,
    /// How much of what was received came from there.
    pub downloaded_near_bytes: u64,
    /// Blocks, since the start.
    pub blocks: BlocksStatus,
    /// Connections, by direction and transport.
    pub connections: Vec<ConnectionsStatus>,
    /// What others asked of us, and what we asked of others.
    pub asked: AskedStatus,
}

/// Blocks exchanged since the start, and questions about blocks that are open now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct BlocksStatus {
    /// Blocks sent.
    pub sent: u64,
    /// Blocks received that were wanted.
    pub received: u64,
    /// Bytes of blocks received although they had come from elsewhere.
    pub duplicate_bytes: u64,
    /// Blocks that we want now.
    pub wants: usize,
    /// Blocks that others want of us now.
    pub wants_of_others: usize,
}

/// Connections of one kind since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ConnectionsStatus {
    /// `inbound` or `outbound`.
    pub direction: &'static str,
    /// `tcp`, `quic-v1`, `p2p-circuit`, or `other`.
    pub transport: &'static str,
    /// How many were opened.
    pub opened: u64,
    /// How many of these were closed.
    pub closed: u64,
}

/// A connected peer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PeerStatus {
    /// Who it is.
    pub id: String,
    /// Where it is.
    pub addr: String,
    /// How it is connected: `tcp`, `quic-v1`, `p2p-circuit`, or `other`.
    pub transport: &'static str,
    /// For how long it has been connected.
    pub connected_secs: u64,
    /// Whether that is the local network.
    pub lan: bool,
    /// What it calls itself; text from a stranger. Empty until it has introduced itself.
    pub agent: String,
    /// Block bytes sent to it.
    pub bytes_up: u64,
    /// Block bytes received from it.
    pub bytes_down: u64,
    /// Whether it is a server of our DHT.
    pub dht: bool,
}

/// Announcing. Counts are since the start, unless they are of the last cycle: 22 hours and the unfinished one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ProvideStatus {
    /// Keys that this node announces, in all.
    pub keys: u64,
    /// Keys whose time has come, the never announced ones included.
    pub queued: u64,
    /// Keys that should have been announced again an hour ago.
    pub overdue: u64,
    /// Keys that are being announced, or are next.
    pub in_flight: u64,
    /// Announcements made.
    pub done: u64,
    /// Announcements that reached too few nodes; they are made again.
    pub failed: u64,
    /// When the last one was made, in seconds since 1970.
    pub last_unix_secs: Option<u64>,
    /// Lookups made for announcing.
    pub lookups: u64,
    /// Streams on which records were sent.
    pub streams: u64,
    /// Records that arrived, each at one node.
    pub records: u64,
    /// Keys announced within the last cycle.
    pub cycle_keys: u64,
    /// Lookups made for that.
    pub cycle_lookups: u64,
    /// In how many of the 256 regions of the keyspace these keys were.
    pub cycle_regions: u64,
}

/// A fetch in progress.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TransferStatus {
    /// What is fetched.
    pub root: String,
    /// How much has come.
    pub bytes: u64,
    /// From how many peers.
    pub peers: usize,
}

/// Questions since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct AskedStatus {
    /// Lookups we made.
    pub lookups: u64,
    /// Source requests of others.
    pub sources_served: u64,
    /// Realisation requests of others.
    pub realisations_served: u64,
    /// Statements that did not verify, sent by others.
    pub invalid_statements: u64,
    /// Peers that broke the exchange's rules.
    pub misbehaved_peers: u64,
}
