//! Being found and being reached: peers of the local network, relays, and which of our addresses work from outside.
//!
//! A node behind address translation learns from others how it looks from outside (identify), has them try whether it
//! can be reached there (AutoNAT), and, while it cannot, asks relays to stand in for it. Who meets it through a relay
//! gets first words across; then both punch a hole and talk directly (DCUtR). Nothing large ever goes through a relay.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use libp2p::core::transport::ListenerId;
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId, mdns};

use super::EventLoop;
use super::peers::usable;
use crate::address::{is_circuit, split_peer};
use crate::config::Config;

/// Peers of the local network that are met because they are there. Further ones are met when they have what is wanted.
const LAN_PEERS_MAX: usize = 32;
/// Relays that stand in for us at a time: a second one for when the first goes.
const RELAYS_MAX: usize = 2;
/// Pause before a relay that could not be met, refused or left is tried again.
const RELAY_AGAIN: Duration = Duration::from_secs(60);
/// How long the first questions wait for the local network to answer, where it is asked. A reply takes a few milliseconds
/// (RFC 6762 section 6: up to 120 ms for shared records).
pub(super) const LAN_PATIENCE: Duration = Duration::from_millis(250);

/// Relays we know, and those that stand in for us.
#[derive(Debug, Default)]
pub(super) struct Relays {
    seek: bool,
    named: Vec<(PeerId, Multiaddr)>,
    /// Those asked, with the listener that stands for the reservation.
    asked: Vec<(PeerId, ListenerId)>,
    /// When a named one was dialled last, and when any refused or left.
    dialled: HashMap<PeerId, Instant>,
    refused: HashMap<PeerId, Instant>,
}

impl Relays {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            seek: config.traversal.seek_relays,
            named: config
                .traversal
                .relays
                .iter()
                .filter_map(split_peer)
                .collect(),
            ..Self::default()
        }
    }
}

fn is_recent(times: &HashMap<PeerId, Instant>, peer: &PeerId) -> bool {
    times.get(peer).is_some_and(|at| at.elapsed() < RELAY_AGAIN)
}

impl EventLoop {
    /// Peers announced themselves on the local network.
    pub(super) fn on_mdns(&mut self, event: mdns::Event) {
        let mdns::Event::Discovered(found) = event else {
            return;
        };
        for (peer, address) in found {
            if self.peers.near() < LAN_PEERS_MAX {
                tracing::debug!(%peer, %address, "found on the local network");
                self.contact(peer, without_peer(address), None);
            }
        }
    }

    /// Meets the relays that the configuration names.
    pub(super) fn contact_relays(&mut self) {
        if !self.needs_relays() {
            return;
        }
        for (peer, address) in self.relays.named.clone() {
            let connected = self.peers.connected.contains_key(&peer);
            if !connected && !is_recent(&self.relays.dialled, &peer) {
                self.relays.dialled.insert(peer, Instant::now());
                self.contact(peer, address, None);
            }
        }
    }

    /// Asks peers that relay for others to stand in for us, while nobody can reach us otherwise: the named ones first.
    pub(super) fn seek_relays(&mut self) {
        if !self.needs_relays() {
            return;
        }
        let named = |peer: &PeerId| self.relays.named.iter().any(|(named, _)| named == peer);
        let mut offers: Vec<(bool, PeerId, Multiaddr)> = self
            .peers
            .connected
            .iter()
            // Through a relay no relay is asked.
            .filter(|(_, state)| state.relay && !is_circuit(&state.address))
            .map(|(peer, state)| (!named(peer), *peer, state.address.clone()))
            .collect();
        offers.sort();
        for (_, peer, address) in offers {
            self.ask_relay(peer, address);
        }
    }

    fn needs_relays(&self) -> bool {
        self.relays.seek && self.relays.asked.len() < RELAYS_MAX && !self.has_direct_address()
    }

    fn ask_relay(&mut self, peer: PeerId, address: Multiaddr) {
        let taken = self.relays.asked.iter().any(|(asked, _)| *asked == peer);
        if taken || is_recent(&self.relays.refused, &peer) || self.relays.asked.len() >= RELAYS_MAX
        {
            return;
        }
        let circuit = without_peer(address)
            .with(Protocol::P2p(peer))
            .with(Protocol::P2pCircuit);
        match self.swarm.listen_on(circuit) {
            Ok(listener) => self.relays.asked.push((peer, listener)),
            Err(error) => tracing::debug!(%peer, %error, "cannot ask a relay"),
        }
    }

    /// A listener ended: if it was a relay's, another one may be asked.
    pub(super) fn listener_closed(&mut self, id: ListenerId) {
        let Some(position) = self.relays.asked.iter().position(|(_, asked)| *asked == id) else {
            return;
        };
        let (peer, _) = self.relays.asked.swap_remove(position);
        self.relays
            .refused
            .retain(|_, at| at.elapsed() < RELAY_AGAIN);
        self.relays.refused.insert(peer, Instant::now());
        tracing::debug!(%peer, "a relay no longer stands in for us");
    }

    /// An address of ours was found to work from outside.
    pub(super) fn external_confirmed(&mut self, address: &Multiaddr) {
        if !usable(address, self.config.announce) {
            // Some peer of the local network could reach us there; to the public network that says nothing.
            self.swarm.remove_external_address(address);
            return;
        }
        tracing::info!(%address, "reachable");
        self.announcing.addresses_changed();
        if !is_circuit(address) {
            self.leave_relays();
        }
    }

    /// Whoever can be reached directly does not take a relay's place away from others.
    fn leave_relays(&mut self) {
        for (_, listener) in std::mem::take(&mut self.relays.asked) {
            self.swarm.remove_listener(listener);
        }
    }

    fn has_direct_address(&self) -> bool {
        self.swarm
            .external_addresses()
            .any(|address| !is_circuit(address) && usable(address, self.config.announce))
    }
}

/// An address without the peer it ends in.
fn without_peer(address: Multiaddr) -> Multiaddr {
    match split_peer(&address) {
        Some((_, rest)) => rest,
        None => address,
    }
}
