//! How bytes reach a peer: TCP, encrypted and authenticated by Noise, multiplexed by Yamux, names resolved by DNS.
//!
//! Every IPFS implementation speaks this combination. Each connection must stand within the dial deadline, handshakes
//! included: TCP alone would wait two minutes for a host that drops packets.

use std::time::Duration;

use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::transport::Boxed;
use libp2p::core::upgrade::Version;
use libp2p::identity::Keypair;
use libp2p::{PeerId, Transport as _, dns, noise, tcp, yamux};

use crate::error::StartError;

/// The transport of a swarm.
pub(crate) type Transport = Boxed<(PeerId, StreamMuxerBox)>;

/// Builds the transport for an identity.
pub(crate) fn build(identity: &Keypair, dial: Duration) -> Result<Transport, StartError> {
    let noise = noise::Config::new(identity).map_err(|e| StartError::Transport(e.into()))?;
    let tcp = || tcp::tokio::Transport::new(tcp::Config::default().nodelay(true));
    // A machine without /etc/resolv.conf still reaches addresses that need no resolving.
    let resolved = dns::tokio::Transport::system(tcp()).unwrap_or_else(|error| {
        tracing::info!(%error, "no system resolver configuration");
        dns::tokio::Transport::custom(tcp(), dns::ResolverConfig::default(), Default::default())
    });
    Ok(resolved
        .upgrade(Version::V1Lazy)
        .authenticate(noise)
        .multiplex(yamux::Config::default())
        .timeout(dial)
        .boxed())
}
