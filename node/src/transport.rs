//! How bytes reach a peer.
//!
//! * **TCP**, encrypted by Noise or TLS, multiplexed by Yamux: what every IPFS implementation speaks, and the fastest.
//! * **QUIC**, which is all of that in one and the better half of hole punching.
//! * **Circuits** through a relay, for those who can be reached in no other way.
//!
//! In a private swarm every TCP connection starts with the swarm's key, below all else, and there is no QUIC: the key has
//! no place in it. Names are resolved by DNS. Private addresses that strangers name are not dialled. Each connection must stand within the dial deadline, handshakes included:
//! TCP alone would wait two minutes for a host that drops packets.

use std::time::Duration;

use futures::future::Either;
use futures::{AsyncRead, AsyncWrite, TryFutureExt as _};
use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::transport::{Boxed, OrTransport};
use libp2p::core::upgrade::Version;
use libp2p::identity::Keypair;
use libp2p::pnet::{PnetConfig, PreSharedKey};
use libp2p::{PeerId, Transport as _, dns, noise, quic, relay, tcp, tls, yamux};

use crate::config::{Announce, Config};
use crate::dial_guard::{Acquaintances, Guarded};
use crate::error::StartError;
use crate::security::Security;

/// The transport of a swarm.
pub(crate) type Transport = Boxed<(PeerId, StreamMuxerBox)>;

/// Builds the transport of a node, and the protocol by which it asks relays to stand in for it. Only `acquaintances` are
/// dialled at private addresses, where those are not announced.
pub(crate) fn build(
    config: &Config,
    acquaintances: &Acquaintances,
) -> Result<(Transport, relay::client::Behaviour), StartError> {
    let security = security(&config.identity)?;
    let (circuits, relay) = relay::client::new(config.identity.public().to_peer_id());
    let circuits = upgrade(circuits, security.clone(), config.deadlines.dial);
    let direct = || {
        let direct = direct(config, security.clone());
        match config.announce {
            Announce::Global => Guarded::new(direct, acquaintances.clone()).boxed(),
            Announce::All => direct,
        }
    };
    // A machine without /etc/resolv.conf still reaches addresses that need no resolving.
    let resolved = dns::tokio::Transport::system(direct()).unwrap_or_else(|error| {
        tracing::info!(%error, "no system resolver configuration");
        dns::tokio::Transport::custom(direct(), dns::ResolverConfig::default(), Default::default())
    });
    // Circuits first: their addresses begin like direct ones.
    Ok((either(circuits, resolved), relay))
}

fn security(identity: &Keypair) -> Result<Security, StartError> {
    Ok(Security {
        noise: noise::Config::new(identity).map_err(|e| StartError::Transport(e.into()))?,
        tls: tls::Config::new(identity).map_err(|e| StartError::Transport(e.into()))?,
    })
}

/// TCP, and QUIC unless the swarm is private.
fn direct(config: &Config, security: Security) -> Transport {
    let dial = config.deadlines.dial;
    let tcp = tcp::tokio::Transport::new(tcp::Config::default().nodelay(true));
    if let Some(key) = config.swarm_key {
        let guard = PnetConfig::new(PreSharedKey::new(key));
        let guarded =
            tcp.and_then(move |socket, _| guard.handshake(socket).map_err(std::io::Error::other));
        return upgrade(guarded, security, dial);
    }
    let mut quic = quic::Config::new(&config.identity);
    quic.handshake_timeout = dial;
    let quic = quic::tokio::Transport::new(quic);
    either(quic, upgrade(tcp, security, dial))
}

/// Encrypts and multiplexes plain connections.
fn upgrade<T, C>(plain: T, security: Security, dial: Duration) -> Transport
where
    T: libp2p::Transport<Output = C> + Send + Unpin + 'static,
    T::Error: Send + Sync + 'static,
    T::Dial: Send,
    T::ListenerUpgrade: Send,
    C: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    plain
        .upgrade(Version::V1Lazy)
        .authenticate(security)
        .multiplex(yamux::Config::default())
        .timeout(dial)
        .boxed()
}

/// The first transport that knows an address takes it.
fn either<A, B, M, N>(first: A, second: B) -> Transport
where
    A: libp2p::Transport<Output = (PeerId, M)> + Send + Unpin + 'static,
    A::Error: Send + Sync + 'static,
    A::Dial: Send,
    A::ListenerUpgrade: Send,
    B: libp2p::Transport<Output = (PeerId, N)> + Send + Unpin + 'static,
    B::Error: Send + Sync + 'static,
    B::Dial: Send,
    B::ListenerUpgrade: Send,
    M: libp2p::core::StreamMuxer + Send + 'static,
    M::Substream: Send,
    M::Error: Send + Sync,
    N: libp2p::core::StreamMuxer + Send + 'static,
    N::Substream: Send,
    N::Error: Send + Sync,
{
    OrTransport::new(first, second)
        .map(|output, _| match output {
            Either::Left((peer, muxer)) => (peer, StreamMuxerBox::new(muxer)),
            Either::Right((peer, muxer)) => (peer, StreamMuxerBox::new(muxer)),
        })
        .boxed()
}
