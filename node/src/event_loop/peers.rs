//! Who is connected, our own addresses, and the first contact with the network.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use libp2p::core::{ConnectedPoint, Endpoint};
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{ConnectionId, DialError, NetworkBehaviour as _};
use libp2p::{Multiaddr, PeerId, identify, relay};
use tokio::sync::oneshot;

use super::EventLoop;
use super::reach::LAN_PATIENCE;
use crate::address::{Reach, is_circuit, is_quic, reach, split_peer};
use crate::config::{Announce, Config};
use crate::dial_guard::Acquaintances;
use crate::routing_protocol::{self, ADDRESSES_MAX};
use crate::{
    delta_protocol, exchange, group, realisation_protocol, source_protocol, witness_protocol,
};

/// How long the first questions wait for first peers that have not answered yet, once some other has.
const BOOTSTRAP_PATIENCE: Duration = Duration::from_secs(2);
/// Pause between two attempts at the first peers while nobody of the DHT is known.
const BOOTSTRAP_AGAIN: Duration = Duration::from_secs(10);
/// How long a peer that broke the rules stays away. Identities are cheap, so this only keeps a broken peer from coming back
/// at once and for ever.
const BAN: Duration = Duration::from_secs(600);
/// Banned peers that are remembered.
const BANNED_MAX: usize = 1024;
/// Addresses taken from what one peer says about itself.
pub(super) const ADDRESSES_PER_PEER_MAX: usize = 8;
/// Addresses at which others see us that we believe.
const OBSERVED_MAX: usize = 4;

/// A connected peer.
#[derive(Clone, Debug)]
pub(super) struct PeerState {
    pub(super) address: Multiaddr,
    pub(super) since: Instant,
    /// Whether all its connections lead through relays.
    pub(super) relayed: bool,
    pub(super) agent: String,
    pub(super) dht: bool,
    pub(super) blocks: bool,
    pub(super) sources: bool,
    pub(super) realisations: bool,
    pub(super) deltas: bool,
    pub(super) witnesses: bool,
    pub(super) relay: bool,
    /// Whether it walks the DHT for us.
    pub(super) routes: bool,
    /// Where it can be reached, once that is known.
    pub(super) places: Vec<Multiaddr>,
}

/// All connected peers, and those that are being met.
pub(super) struct Peers {
    pub(super) connected: HashMap<PeerId, PeerState>,
    first: Vec<FirstPeer>,
    /// Peers dialled on purpose, until they have introduced themselves, with the time when we stop waiting.
    contacts: HashMap<PeerId, Contact>,
    patience_until: Instant,
    bootstrap_again_at: Instant,
    /// Until when the local network may still answer; the start where it is not asked.
    lan_until: Instant,
    /// Until when a peer may still see us over QUIC, where that matters.
    pub(super) quic_until: Option<Instant>,
    observed: Vec<Multiaddr>,
    acquaintances: Acquaintances,
    banned: HashMap<PeerId, Instant>,
}

/// A peer that the user or the home named, by whom the network is met.
#[derive(Clone, Debug)]
struct FirstPeer {
    id: PeerId,
    addresses: Vec<Multiaddr>,
    /// Whether the last attempt to meet it failed. One that was met and has left is not unreachable.
    failed: bool,
}

impl FirstPeer {
    /// The list with one more address: those of one peer are tried together.
    fn listed(mut list: Vec<Self>, (id, address): (PeerId, Multiaddr)) -> Vec<Self> {
        match list.iter_mut().find(|first| first.id == id) {
            Some(first) => first.addresses.push(address),
            None => list.push(Self {
                id,
                addresses: vec![address],
                failed: false,
            }),
        }
        list
    }
}

struct Contact {
    until: Instant,
    replies: Vec<oneshot::Sender<Option<PeerId>>>,
}

impl Peers {
    pub(super) fn new(config: &Config, acquaintances: Acquaintances) -> Self {
        let now = Instant::now();
        Self {
            connected: HashMap::new(),
            first: config
                .bootstrap
                .iter()
                .filter_map(split_peer)
                .fold(Vec::new(), FirstPeer::listed),
            contacts: HashMap::new(),
            patience_until: now + BOOTSTRAP_PATIENCE,
            bootstrap_again_at: now + BOOTSTRAP_AGAIN,
            lan_until: if config.mdns { now + LAN_PATIENCE } else { now },
            quic_until: None,
            observed: Vec::new(),
            acquaintances,
            banned: HashMap::new(),
        }
    }

    /// When something is overdue next. What is over already is left out: to wake for it would be to spin.
    pub(super) fn next_deadline(&self, now: Instant) -> Option<Instant> {
        let patience = (!self.contacts.is_empty()).then_some(self.patience_until);
        let coming = |at: &Instant| now < *at;
        self.contacts
            .values()
            .map(|contact| contact.until)
            .chain(patience.filter(coming))
            .chain(Some(self.lan_until).filter(coming))
            .chain(self.quic_until.filter(coming))
            .min()
    }

    /// Whether a peer is dialled on purpose and has not introduced itself yet.
    pub(super) fn is_being_met(&self, peer: &PeerId) -> bool {
        self.contacts.contains_key(peer)
    }

    /// Takes a peer for one that may be dialled in our own network.
    pub(super) fn acquaint(&self, peer: PeerId) {
        self.acquaintances.add(peer);
    }

    /// How many connected peers are near. A daemon with many far ones meets its neighbours all the same.
    pub(super) fn near(&self) -> usize {
        let near = |state: &&PeerState| reach(&state.address) == Reach::Near;
        self.connected.values().filter(near).count()
    }

    /// How many of the first peers could not be reached, or have not been so far.
    pub(super) fn first_unreachable(&self) -> u32 {
        let unreachable = |first: &&FirstPeer| {
            !self.connected.contains_key(&first.id)
                && (first.failed || self.contacts.contains_key(&first.id))
        };
        self.first.iter().filter(unreachable).count() as u32
    }

    /// Takes a peer from those that are being met; whoever waited for it is told.
    fn end_contact(&mut self, peer: &PeerId, met: Option<PeerId>) -> bool {
        let Some(contact) = self.contacts.remove(peer) else {
            return false;
        };
        for first in self.first.iter_mut().filter(|first| first.id == *peer) {
            first.failed = met.is_none();
        }
        for reply in contact.replies {
            let _ = reply.send(met);
        }
        true
    }

    /// How far a connected peer is; a peer that just left counts as far.
    pub(super) fn reach(&self, peer: &PeerId) -> Reach {
        self.connected
            .get(peer)
            .map_or(Reach::Global, |state| reach(&state.address))
    }

    /// Whether a peer is connected, but through a relay alone.
    pub(super) fn is_relayed(&self, peer: &PeerId) -> bool {
        self.connected.get(peer).is_some_and(|state| state.relayed)
    }

    /// Whether a connected peer is worth asking for blocks that it never announced: it is on our own network, or it is
    /// one of the first peers, whom the user named.
    pub(super) fn is_neighbour(&self, peer: &PeerId) -> bool {
        let blocks = self.connected.get(peer).is_some_and(|state| state.blocks);
        let first = || self.first.iter().any(|first| first.id == *peer);
        blocks && (self.reach(peer) == Reach::Near || first())
    }
}

impl EventLoop {
    /// Dials the configured first peers.
    pub(super) fn contact_bootstrap(&mut self) {
        for FirstPeer { id, addresses, .. } in self.peers.first.clone() {
            self.contact(id, addresses, None);
        }
    }

    /// A dial that failed is only an event in libp2p: as long as nobody of the DHT is known, the first peers are tried again.
    pub(super) fn contact_bootstrap_again(&mut self) {
        let now = Instant::now();
        if now < self.peers.bootstrap_again_at || self.dht_peers() > 0 {
            return;
        }
        self.peers.bootstrap_again_at = now + BOOTSTRAP_AGAIN;
        self.contact_bootstrap();
    }

    pub(super) fn connect(&mut self, address: &Multiaddr, reply: oneshot::Sender<Option<PeerId>>) {
        match split_peer(address) {
            Some((peer, address)) => self.contact(peer, vec![address], Some(reply)),
            None => drop(reply.send(None)),
        }
    }

    pub(super) fn contact(
        &mut self,
        peer: PeerId,
        addresses: Vec<Multiaddr>,
        reply: Option<oneshot::Sender<Option<PeerId>>>,
    ) {
        if peer == *self.swarm.local_peer_id() {
            return;
        }
        self.peers.acquaintances.add(peer);
        if self
            .peers
            .connected
            .get(&peer)
            .is_some_and(|state| !state.agent.is_empty())
        {
            if let Some(reply) = reply {
                let _ = reply.send(Some(peer));
            }
            return;
        }
        // The introduction has the time of one request on top of the dial.
        let until = Instant::now() + self.config.deadlines.dial + self.config.deadlines.request;
        let contact = self.peers.contacts.entry(peer).or_insert_with(|| Contact {
            until,
            replies: Vec::new(),
        });
        contact.replies.extend(reply);
        let dial = DialOpts::peer_id(peer)
            .condition(PeerCondition::DisconnectedAndNotDialing)
            .addresses(addresses)
            .extend_addresses_through_behaviour()
            .build();
        match self.swarm.dial(dial) {
            Ok(()) | Err(DialError::DialPeerConditionFalse(_)) => {}
            Err(error) => self.dial_failed(&peer, &error),
        }
    }

    /// Dials a provider, now, while the DHT query that named it still knows its addresses.
    pub(super) fn dial_provider(&mut self, peer: PeerId) {
        if !self.swarm.is_connected(&peer) {
            // A failure is reported as an event, to those who wait for this peer too.
            let _ = self.swarm.dial(DialOpts::peer_id(peer).build());
        }
    }

    /// Where a peer is: as it is connected, else as the DHT's table and the queries that run say. Nothing is dialled.
    pub(super) fn known_addresses(&mut self, peer: PeerId) -> Vec<Multiaddr> {
        let connected = self.peers.connected.get(&peer);
        if let Some(state) = connected.filter(|state| !is_circuit(&state.address)) {
            return vec![state.address.clone()];
        }
        let kad = &mut self.swarm.behaviour_mut().kad;
        // What the swarm asks before it dials; the connection of that number is never made.
        let unused = ConnectionId::new_unchecked(0);
        let asked =
            kad.handle_pending_outbound_connection(unused, Some(peer), &[], Endpoint::Dialer);
        let mut addresses = asked.unwrap_or_default();
        addresses.truncate(ADDRESSES_PER_PEER_MAX);
        addresses
    }

    /// Whether questions to the DHT make sense yet: somebody is known, or nobody is on the way.
    pub(super) fn dht_is_ready(&mut self) -> bool {
        let now = Instant::now();
        let not_seen_yet = self.peers.quic_until.is_some_and(|until| now < until);
        if now < self.peers.lan_until || not_seen_yet {
            return false;
        }
        let met_all = self.peers.contacts.is_empty();
        met_all || (now >= self.peers.patience_until && self.dht_peers() > 0)
    }

    /// Peers in the routing table.
    pub(super) fn dht_peers(&mut self) -> usize {
        self.swarm
            .behaviour_mut()
            .kad
            .kbuckets()
            .map(|bucket| bucket.num_entries())
            .sum()
    }

    pub(super) fn peer_connected(&mut self, peer: PeerId, endpoint: &ConnectedPoint) {
        let (address, relayed) = (endpoint.get_remote_address(), endpoint.is_relayed());
        let state = self
            .peers
            .connected
            .entry(peer)
            .or_insert_with(|| PeerState {
                address: address.clone(),
                since: Instant::now(),
                relayed,
                agent: String::new(),
                dht: false,
                blocks: false,
                sources: false,
                realisations: false,
                deltas: false,
                witnesses: false,
                relay: false,
                routes: false,
                places: Vec::new(),
            });
        if state.relayed && !relayed {
            // The direct connection that the relay's was for.
            state.address = address.clone();
            state.relayed = false;
        }
        // Who called us did so from a passing port.
        if endpoint.is_dialer() && !is_circuit(address) {
            let address = split_peer(address).map_or_else(|| address.clone(), |(_, rest)| rest);
            state.places.insert(0, address);
            state.places.truncate(ADDRESSES_MAX);
        }
    }

    pub(super) fn peer_disconnected(&mut self, peer: &PeerId) {
        self.peers.connected.remove(peer);
        self.forget_membership(peer);
        self.contact_ended(peer, None);
    }

    pub(super) fn dial_failed(&mut self, peer: &PeerId, error: &DialError) {
        if matches!(error, DialError::DialPeerConditionFalse(_)) || self.swarm.is_connected(peer) {
            return;
        }
        tracing::debug!(%peer, %error, "cannot reach a peer");
        self.forget_membership(peer);
        self.contact_ended(peer, None);
    }

    fn contact_ended(&mut self, peer: &PeerId, met: Option<PeerId>) {
        if self.peers.end_contact(peer, met) {
            self.start_waiting_queries();
        }
    }

    pub(super) fn expire_first_contacts(&mut self) {
        let now = Instant::now();
        let late: Vec<_> = self
            .peers
            .contacts
            .iter()
            .filter(|(_, contact)| contact.until <= now)
            .map(|(peer, _)| *peer)
            .collect();
        for peer in late {
            self.contact_ended(&peer, None);
        }
    }

    pub(super) fn on_identify(&mut self, event: identify::Event) {
        match event {
            identify::Event::Received { peer_id, info, .. } => self.introduced(peer_id, &info),
            identify::Event::Error { peer_id, .. } => self.contact_ended(&peer_id, None),
            _ => {}
        }
    }

    /// A peer has said who it is: it may join the routing table, and may be asked what we are looking for.
    fn introduced(&mut self, peer: PeerId, info: &identify::Info) {
        let kad = &mut self.swarm.behaviour_mut().kad;
        let dht = info
            .protocols
            .iter()
            .any(|protocol| kad.protocol_names().contains(protocol));
        if dht {
            let announce = self.config.announce;
            // On the local network TCP is twice as fast for half of the work; far away QUIC gets through more often.
            let is_near = |address: &Multiaddr| reach(address) == Reach::Near;
            let tcp_near = info
                .listen_addrs
                .iter()
                .any(|address| is_near(address) && !is_quic(address));
            let addresses = info
                .listen_addrs
                .iter()
                .filter(|address| usable(address, announce))
                .filter(|address| !(tcp_near && is_near(address) && is_quic(address)));
            for address in addresses.take(ADDRESSES_PER_PEER_MAX) {
                kad.add_address(&peer, address.clone());
            }
        }
        if let Some(state) = self.peers.connected.get_mut(&peer) {
            state.agent = info.agent_version.clone();
            state.dht = dht;
            state.blocks = exchange::REQUESTS
                .iter()
                .any(|protocol| info.protocols.contains(protocol));
            state.sources = info.protocols.contains(&source_protocol::PROTOCOL);
            state.relay = info.protocols.contains(&relay::HOP_PROTOCOL_NAME);
            state.realisations = info.protocols.contains(&realisation_protocol::PROTOCOL);
            state.deltas = info.protocols.contains(&delta_protocol::PROTOCOL);
            state.witnesses = info.protocols.contains(&witness_protocol::PROTOCOL);
            state.routes = info.protocols.contains(&routing_protocol::PROTOCOL);
            // A neighbour that called us is in the same network as the commands that we tell of it.
            let near = reach(&state.address) == Reach::Near;
            let room = ADDRESSES_MAX.saturating_sub(state.places.len());
            let places = info
                .listen_addrs
                .iter()
                .filter(|address| near || reach(address) == Reach::Global)
                .filter(|address| !state.places.contains(address))
                .take(room);
            let places: Vec<_> = places.cloned().collect();
            state.places.extend(places);
        }
        self.seek_relays();
        self.come_closer(peer, &info.listen_addrs);
        let speaks = info.protocols.contains(&group::PROTOCOL);
        if !self.prove_membership(peer, speaks) {
            self.greeted(peer);
        }
    }

    /// A peer has introduced itself, and it is known whether it may be asked.
    pub(super) fn greeted(&mut self, peer: PeerId) {
        self.answer_walks();
        self.ask_newcomer(peer);
        self.hear_newcomer(peer);
        self.newcomer_for_sessions(peer);
        self.contact_ended(&peer, Some(peer));
    }

    /// Breaks with a peer that broke the rules, and stays away from it for a while.
    pub(super) fn ban(&mut self, peer: PeerId) {
        let now = Instant::now();
        self.end_bans(now);
        if self.peers.banned.len() < BANNED_MAX {
            self.peers.banned.insert(peer, now + BAN);
            self.swarm.behaviour_mut().banned.block_peer(peer);
        } else {
            let _ = self.swarm.disconnect_peer_id(peer);
        }
    }

    /// Lets go of bans that have lasted long enough.
    pub(super) fn end_bans(&mut self, now: Instant) {
        let over = self.peers.banned.extract_if(|_, until| *until <= now);
        for (peer, _) in over {
            self.swarm.behaviour_mut().banned.unblock_peer(peer);
        }
    }

    pub(super) fn listening(&mut self, address: &Multiaddr) {
        tracing::info!(%address, "listening");
        if usable(address, self.config.announce) {
            self.add_external(address.clone());
        }
    }

    pub(super) fn not_listening(&mut self, address: &Multiaddr) {
        self.swarm.remove_external_address(address);
    }

    /// A peer told us at which address it sees us. Believed only where addresses are private anyway, and only a few.
    pub(super) fn observed(&mut self, address: &Multiaddr) {
        self.seen_at(address);
        let near = self.config.announce == Announce::All && reach(address) == Reach::Near;
        let known = self.peers.observed.contains(address);
        if !near || known || self.peers.observed.len() >= OBSERVED_MAX {
            return;
        }
        // Without a listener we dial from passing ports: nobody could ever connect there.
        if self.swarm.listeners().next().is_none() {
            return;
        }
        self.peers.observed.push(address.clone());
        self.add_external(address.clone());
    }

    pub(super) fn add_external(&mut self, address: Multiaddr) {
        if self
            .swarm
            .external_addresses()
            .any(|known| *known == address)
        {
            return;
        }
        self.swarm.add_external_address(address);
        self.announcing.addresses_changed();
    }
}

/// Whether an address is of use to peers of this network.
pub(super) fn usable(address: &Multiaddr, announce: Announce) -> bool {
    match reach(address) {
        Reach::Global => true,
        Reach::Near => announce == Announce::All,
        Reach::Nowhere => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_with_the_local_network_wakes_the_loop_once_and_not_for_ever() {
        let start = Instant::now();
        let config = Config {
            mdns: true,
            ..Config::new(crate::identity::ephemeral())
        };
        let peers = Peers::new(&config, Acquaintances::default());
        let due = peers.next_deadline(start).unwrap();
        assert_eq!(due, peers.lan_until);
        assert_eq!(peers.next_deadline(due), None);
    }

    #[test]
    fn all_addresses_of_a_first_peer_are_tried_together() {
        let (id, other) = (PeerId::random(), PeerId::random());
        let [tcp, quic]: [Multiaddr; 2] =
            ["/ip4/5.6.0.1/tcp/1", "/ip4/5.6.0.1/udp/1/quic-v1"].map(|a| a.parse().unwrap());
        let named = [(id, tcp.clone()), (other, tcp.clone()), (id, quic.clone())];
        let first = named.into_iter().fold(Vec::new(), FirstPeer::listed);
        assert_eq!(first.len(), 2);
        assert_eq!(first[0].addresses, [tcp, quic]);
    }

    #[test]
    fn a_first_peer_is_unreachable_until_it_was_met_and_not_because_it_left() {
        let id = PeerId::random();
        let address = format!("/ip4/127.0.0.1/tcp/9/p2p/{id}").parse().unwrap();
        let config = Config {
            bootstrap: vec![address],
            ..Config::new(crate::identity::ephemeral())
        };
        let mut peers = Peers::new(&config, Acquaintances::default());
        let contact = || Contact {
            until: Instant::now(),
            replies: Vec::new(),
        };
        peers.contacts.insert(id, contact());
        assert_eq!(peers.first_unreachable(), 1);
        peers.end_contact(&id, None);
        assert_eq!(peers.first_unreachable(), 1);
        peers.contacts.insert(id, contact());
        peers.end_contact(&id, Some(id));
        assert_eq!(peers.first_unreachable(), 0);
    }
}
