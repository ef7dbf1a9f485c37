//! Network configuration as values: profiles, layers that remember who set what, swarm keys, mirrors of sources.
//!
//! This crate reads no file and no environment: `cli` hands in texts and variables, and gets back typed sections or an
//! error that names the key, the value and the layer it came from. The files in `profiles/` are the reference
//! documentation of every key; a test keeps them complete.

mod apt;
mod error;
mod key;
mod layer;
mod mirror;
mod mirrors;
mod nearest;
mod profile;
mod swarm_key;

pub use crate::apt::{base_urls_of_deb822, base_urls_of_sources_list};
pub use crate::error::ConfigError;
pub use crate::key::{KEYS, Key, Kind, parse_size};
pub use crate::layer::{Layer, Layered, Origin, Setting, Warning};
pub use crate::mirror::{MirrorRecord, MirrorTable, MirrorTableError};
pub use crate::mirrors::{MirrorError, Mirrors};
pub use crate::nearest::nearest;
pub use crate::profile::{
    Announced, Builds, Caches, Deadlines, Deltas, DhtMode, Gateways, Http, Limits, Network,
    PROFILES, Sources, StoreLimits, Trust, profile_text,
};
pub use crate::swarm_key::{SwarmKey, SwarmKeyError};
