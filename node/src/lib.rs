//! The node: the only crate of this system that opens a socket.
//!
//! [`Node::spawn`] starts a libp2p node over a [`store::Store`] and gives a [`Client`]. Everything else hangs on that handle:
//!
//! * [`PeerSubstituter`] and [`PeerSources`] get outputs and sources from peers; [`HttpSources`] gets sources from the web.
//!   They implement the store's contracts, so who uses them knows nothing of networks.
//! * The node serves the store to others: blocks over Bitswap, roots of sources ([`source_protocol`]), signed realisations
//!   ([`realisation_protocol`]). A long-running one also works off the store's queue of keys to announce in the DHT.
//!
//! What is trusted is decided elsewhere: bytes are checked by hash here, signatures are verified here, whose signature
//! counts is the caller's policy. Time and randomness enter the pure machines below through this crate.

mod address;
mod behaviour;
mod client;
mod command;
mod config;
mod delta;
mod delta_desk;
mod delta_protocol;
mod dial_guard;
mod doors;
mod error;
mod event_loop;
mod exchange;
mod fetch;
mod framed;
mod group;
mod http;
pub mod identity;
pub mod ipns;
mod lookup;
mod name_store;
mod names;
mod node;
mod pace;
mod paths;
mod provider_store;
pub mod realisation_protocol;
mod record_protocol;
mod routing_protocol;
mod security;
pub mod source_protocol;
mod status;
mod substituter;
mod sweep;
mod transport;
pub mod web;
mod wire;
mod witness_protocol;

pub use bitswap::Budget;
pub use libp2p::identity::Keypair;
pub use libp2p::{Multiaddr, PeerId};

pub use crate::address::peer_of;
pub use crate::client::{BlockingClient, Client, Providers, Realisations};
pub use crate::command::Heard;
pub use crate::config::{
    Announce, Config, DHT_LAN, DHT_PUBLIC, Deadlines, Deltas, DhtMode, Limits, RunningLimits,
    Traversal,
};
pub use crate::doors::Doors;
pub use crate::error::{ClientError, IdentityError, StartError};
pub use crate::group::GroupKey;
pub use crate::http::{
    CacheObserver, GATEWAY_HEATS, GatewaySources, Gateways, HttpCaches, HttpSources,
    MirrorResolver, Page, SourceForm,
};
pub use crate::names::{NameError, Resolved, remembered_name};
pub use crate::node::Node;
pub use crate::paths::{
    ContentPath, ContentPathError, PathError, TreeEntry, fetch_blocks, fetch_path, fetch_tree,
    resolve_path,
};
pub use crate::realisation_protocol::{StatementsError, encode_statements, read_statements};
pub use crate::status::{
    AskedStatus, BlocksStatus, ConnectionsStatus, PeerStatus, ProvideStatus, Status, TransferStatus,
};
pub use crate::substituter::{PeerSources, PeerSubstituter};
pub use crate::witness_protocol::{NoWitness, THING_BYTES_MAX, THINGS_MAX, TOPICS_MAX, Witness};

pub(crate) use crate::event_loop::SESSION_WANTS_MAX;

#[cfg(test)]
mod tests;
