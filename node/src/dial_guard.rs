//! Strangers cannot send us to addresses of this machine or of private networks.
//!
//! In the public network everybody can say that a provider lives at `127.0.0.1` or `192.168.0.1`, and a node that believed
//! it would knock on the doors of its own network, for others. So with [`Announce::Global`](crate::Announce::Global) such
//! addresses are dialled only for peers that the user named or that the local network itself has announced. The guard sits
//! below the resolver: a name that leads to a private address is refused as well.

use std::collections::HashSet;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use libp2p::core::transport::{DialOpts, ListenerId, TransportError, TransportEvent};
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId};

use crate::address::{Reach, reach};

/// Peers remembered as acquaintances. A local network has fewer; with more, the rest is not dialled there.
const ACQUAINTANCES_MAX: usize = 4096;

/// Peers that may be dialled at near addresses.
#[derive(Clone, Debug, Default)]
pub(crate) struct Acquaintances(Arc<Mutex<HashSet<PeerId>>>);

impl Acquaintances {
    /// Adds a peer that the user named or the local network announced.
    pub(crate) fn add(&self, peer: PeerId) {
        let mut peers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if peers.len() < ACQUAINTANCES_MAX {
            peers.insert(peer);
        }
    }

    fn contains(&self, peer: &PeerId) -> bool {
        let peers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        peers.contains(peer)
    }

    /// Whether an address may be dialled, and whom that would reach.
    fn permit(&self, address: &Multiaddr) -> bool {
        let peer = address.iter().last().and_then(|last| match last {
            Protocol::P2p(peer) => Some(peer),
            _ => None,
        });
        reach(address) == Reach::Global || peer.is_some_and(|peer| self.contains(&peer))
    }
}

/// A transport that dials near addresses for acquaintances only.
pub(crate) struct Guarded<T> {
    inner: T,
    acquaintances: Acquaintances,
}

impl<T> Guarded<T> {
    pub(crate) const fn new(inner: T, acquaintances: Acquaintances) -> Self {
        Self {
            inner,
            acquaintances,
        }
    }
}

impl<T> libp2p::Transport for Guarded<T>
where
    T: libp2p::Transport<Error = io::Error> + Unpin,
{
    type Output = T::Output;
    type Error = io::Error;
    type ListenerUpgrade = T::ListenerUpgrade;
    type Dial = T::Dial;

    fn listen_on(
        &mut self,
        id: ListenerId,
        address: Multiaddr,
    ) -> Result<(), TransportError<io::Error>> {
        self.inner.listen_on(id, address)
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        self.inner.remove_listener(id)
    }

    fn dial(
        &mut self,
        address: Multiaddr,
        options: DialOpts,
    ) -> Result<Self::Dial, TransportError<io::Error>> {
        if !self.acquaintances.permit(&address) {
            tracing::debug!(%address, "a stranger's private address is not dialled");
            let refused = "a private address that a stranger named";
            return Err(TransportError::Other(io::Error::new(
                io::ErrorKind::PermissionDenied,
                refused,
            )));
        }
        self.inner.dial(address, options)
    }

    fn poll(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<TransportEvent<Self::ListenerUpgrade, io::Error>> {
        Pin::new(&mut self.inner).poll(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_addresses_are_for_acquaintances_and_global_ones_for_everybody() {
        let (friend, stranger) = (PeerId::random(), PeerId::random());
        let acquaintances = Acquaintances::default();
        acquaintances.add(friend);
        let permit = |address: &str| acquaintances.permit(&address.parse().unwrap());
        assert!(permit(&format!("/ip4/10.0.0.1/tcp/1/p2p/{friend}")));
        assert!(!permit(&format!("/ip4/10.0.0.1/tcp/1/p2p/{stranger}")));
        assert!(!permit("/ip4/127.0.0.1/tcp/6379"));
        assert!(!permit("/ip6/::ffff:192.168.0.1/udp/1/quic-v1"));
        assert!(permit(&format!("/ip4/1.2.3.4/tcp/1/p2p/{stranger}")));
        assert!(permit("/ip4/1.2.3.4/udp/1/quic-v1"));
    }
}
