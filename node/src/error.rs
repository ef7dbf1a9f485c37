//! What can go wrong between this process and the network, apart from a fetch itself ([`store::substitute::FetchError`]).

use std::io;
use std::path::PathBuf;

use libp2p::{Multiaddr, TransportError};

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The name of the DHT is no protocol name.
    #[error("`{0}` is no protocol name, it must start with `/`")]
    DhtProtocol(String),
    /// A first peer without its identity cannot be authenticated.
    #[error("bootstrap address `{0}` does not end in `/p2p/ID`")]
    Bootstrap(Multiaddr),
    /// The encrypted transport could not be set up.
    #[error("cannot set up the transport")]
    Transport(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// An address could not be listened on.
    #[error("cannot listen on `{address}`")]
    Listen {
        /// The address as configured.
        address: Multiaddr,
        /// What the system said.
        #[source]
        source: TransportError<io::Error>,
    },
}

/// Why an identity could not be loaded or made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// The file is there but could not be read or written.
    #[error("cannot {action} key `{path}`")]
    Io {
        /// What was attempted.
        action: &'static str,
        /// The key file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The file holds something else than a private key.
    #[error("`{path}` holds no libp2p key")]
    Malformed {
        /// The key file.
        path: PathBuf,
        /// What the decoder said.
        #[source]
        source: libp2p::identity::DecodingError,
    },
    /// A key of another kind than Ed25519.
    #[error("key `{path}` is no Ed25519 key")]
    Kind {
        /// The key file.
        path: PathBuf,
    },
    /// Others can read the key.
    #[error("key `{path}` can be read by others (mode {mode:o}), it must have mode 600")]
    Exposed {
        /// The key file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
}

/// Why a question to the node got no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The node has ended.
    #[error("the node has stopped")]
    Stopped,
    /// Nothing answered in time.
    #[error("the network did not answer in time")]
    TimedOut,
    /// Whoever asked does not want to wait any longer.
    #[error("lookup cancelled")]
    Cancelled,
}
