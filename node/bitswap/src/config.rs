//! What whoever runs the machine may choose; everything else is a constant in [`limits`](crate::limits).

use std::time::Duration;

use crate::budget::Budget;
use crate::limits;

/// Settings of an [`Exchange`](crate::Exchange); the default is right for a node on the public network.
#[derive(Clone, Debug)]
pub struct Config {
    /// Most want-blocks in flight to one peer.
    pub window_wants_max: usize,
    /// Most bytes in flight from one peer (estimated: a block's size is known when it arrives).
    pub window_bytes_max: usize,
    /// How long a want that no known peer can serve waits for a provider before it is `Missing`.
    pub providers_deadline: Duration,
    /// How many connected peers that served us before a new session asks without being told to. 0 asks nobody who was
    /// not named by [`add_provider`](crate::Exchange::add_provider).
    pub session_peers_inherited: usize,
    /// Whether wants of others are served. If not, they are answered with DONT_HAVE where that was asked for.
    pub serve: bool,
    /// What may be fetched from far peers per second; near ones are not counted. Shared with whoever else downloads.
    pub download: Budget,
    /// Block bytes read for all peers and not yet taken by their streams.
    pub response_bytes_total_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            window_wants_max: limits::WINDOW_WANTS_MAX,
            window_bytes_max: limits::WINDOW_BYTES_MAX,
            providers_deadline: limits::PROVIDERS_DEADLINE,
            session_peers_inherited: limits::SESSION_PEERS_INHERITED,
            serve: true,
            download: Budget::default(),
            response_bytes_total_max: limits::RESPONSE_BYTES_TOTAL_MAX,
        }
    }
}
