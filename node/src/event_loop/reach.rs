//! Being found and being reached: peers of the local network, relays, and which of our addresses work from outside.
//!
//! A node behind address translation learns from others how it looks from outside (identify), has them try whether it
//! can be reached there (AutoNAT), and, while it cannot, asks relays to stand in for it. Who meets it through a relay
//! gets first words across; then both punch a hole and talk directly (DCUtR). Nothing large ever goes through a relay.
//!
//! A hole is punched from the port at which others see us to the port at which others see the peer. For a command, which
//! listens nowhere, only QUIC has such a port, so it sees to it that somebody sees it over QUIC. The library punches and does
//! nothing else: that a peer whom one meets through a relay may simply be dialled is left to us.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use libp2p::core::transport::ListenerId;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::{Multiaddr, PeerId, kad, mdns};

use super::EventLoop;
use super::peers::{ADDRESSES_PER_PEER_MAX, usable};
use crate::address::{Reach, is_circuit, is_quic, reach, split_peer};
use crate::config::{Announce, Config, DhtMode};

/// Peers of the local network that are met because they are there. Further ones are met when they have what is wanted.
const LAN_PEERS_MAX: usize = 32;
/// Relays that stand in for us at a time: a second one for when the first goes.
const RELAYS_MAX: usize = 2;
/// Pause before a relay that could not be met, refused or left is tried again.
const RELAY_AGAIN: Duration = Duration::from_secs(60);
/// How long the first questions wait for the local network to answer, where it is asked. A reply takes a few milliseconds
/// (RFC 6762 section 6: up to 120 ms for shared records).
pub(super) const LAN_PATIENCE: Duration = Duration::from_millis(250);

/// How long relays still stand in for us once we can be reached directly: others have records that lead to them, until all
/// are made anew. A mirror of thousands of files needs minutes for that.
const RELAYS_KEPT: Duration = Duration::from_secs(600);
/// Peers asked to see us over QUIC, at most. The first can, unless UDP is blocked.
const QUIC_WITNESSES_MAX: u32 = 3;
/// How long questions wait for one of them: a handshake and an introduction over a slow line, and not much where UDP is
/// blocked.
const QUIC_PATIENCE: Duration = Duration::from_millis(500);

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
    /// When they are not needed any more.
    leave_at: Option<Instant>,
    /// Peers met through a relay whose own addresses were dialled, and when.
    approached: HashMap<PeerId, Instant>,
    /// Set once somebody sees us over QUIC.
    seen_over_quic: bool,
    quic_witnesses: u32,
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
                self.contact(peer, vec![without_peer(address)], None);
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
                self.contact(peer, vec![address], None);
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
            .filter(|(_, state)| state.relay && !state.relayed)
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

    /// A peer has told its addresses: better ways to it than the one we have may be among them.
    pub(super) fn come_closer(&mut self, peer: PeerId, addresses: &[Multiaddr]) {
        let Some(state) = self.peers.connected.get(&peer) else {
            return;
        };
        let direct = addresses
            .iter()
            .filter(|address| !is_circuit(address) && usable(address, self.config.announce));
        if state.relayed {
            let direct = direct.take(ADDRESSES_PER_PEER_MAX).cloned().collect();
            self.approach(peer, direct);
        } else if !is_quic(&state.address) && reach(&state.address) == Reach::Global {
            let quic = direct.filter(|address| is_quic(address)).take(1);
            let quic = quic.cloned().collect();
            self.be_seen_over_quic(peer, quic);
        }
    }

    /// Dials a peer that was met through a relay at its own addresses. Who asks for us through a relay may well be reachable.
    fn approach(&mut self, peer: PeerId, addresses: Vec<Multiaddr>) {
        if addresses.is_empty() || is_recent(&self.relays.approached, &peer) {
            return;
        }
        let approached = &mut self.relays.approached;
        approached.retain(|_, at| at.elapsed() < RELAY_AGAIN);
        approached.insert(peer, Instant::now());
        self.dial_once_more(peer, addresses);
    }

    /// Has a peer see us over QUIC, and lets questions wait for that: who answers them may have to be reached by a hole.
    fn be_seen_over_quic(&mut self, peer: PeerId, addresses: Vec<Multiaddr>) {
        let relays = &mut self.relays;
        let needless = relays.seen_over_quic || relays.quic_witnesses >= QUIC_WITNESSES_MAX;
        if addresses.is_empty() || needless || self.config.announce != Announce::Global {
            return;
        }
        relays.quic_witnesses += 1;
        self.peers.quic_until = Some(Instant::now() + QUIC_PATIENCE);
        self.dial_once_more(peer, addresses);
    }

    /// Dials a peer that is connected already.
    fn dial_once_more(&mut self, peer: PeerId, addresses: Vec<Multiaddr>) {
        let dial = DialOpts::peer_id(peer)
            .condition(PeerCondition::Always)
            .addresses(addresses)
            .build();
        // A failure is reported as an event, and changes nothing: the connection that stands is still there.
        let _ = self.swarm.dial(dial);
    }

    /// Holds a part of the DHT for others as long as they can come and ask: whoever walks past a server that can only be
    /// reached through a relay loses seconds, and the relay a place.
    pub(super) fn take_part_in_dht(&mut self) {
        let hidden = self.config.traversal.seek_relays
            && self.config.announce == Announce::Global
            && !self.has_direct_address();
        let mode = match self.config.dht_mode {
            DhtMode::Server if !hidden => kad::Mode::Server,
            DhtMode::Server | DhtMode::Client => kad::Mode::Client,
        };
        let kad = &mut self.swarm.behaviour_mut().kad;
        if kad.mode() != mode {
            kad.set_mode(Some(mode));
        }
    }

    /// Somebody sees us at this address.
    pub(super) fn seen_at(&mut self, address: &Multiaddr) {
        if is_quic(address) && !std::mem::replace(&mut self.relays.seen_over_quic, true) {
            self.peers.quic_until = None;
            self.start_waiting_queries();
        }
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
            self.take_part_in_dht();
            let leave_at = Instant::now() + RELAYS_KEPT;
            self.relays.leave_at.get_or_insert(leave_at);
        }
    }

    /// Whoever can be reached directly does not take a relay's place away from others, once nobody looks for it there.
    pub(super) fn leave_relays(&mut self) {
        if !self.has_direct_address() {
            self.relays.leave_at = None;
        }
        if self.relays.leave_at.is_none_or(|at| Instant::now() < at) {
            return;
        }
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
