//! The node's state as others see it.

use libp2p::kad;

use super::EventLoop;
use crate::address::{Reach, transport};
use crate::status::{
    BlocksStatus, ConnectionsStatus, PeerStatus, ProvideStatus, Status, TransferStatus,
};

impl EventLoop {
    /// How the node is doing now.
    pub(super) fn status(&mut self) -> Status {
        let dht_peers = self.dht_peers();
        let dht_records = self.swarm.behaviour_mut().kad.store_mut().len();
        let exchange = &self.swarm.behaviour().exchange;
        let (stats, near) = (exchange.stats(), exchange.near_bytes());
        let total = stats.total;
        Status {
            peer_id: self.swarm.local_peer_id().to_string(),
            listen_addrs: self.swarm.listeners().map(ToString::to_string).collect(),
            external_addrs: self
                .swarm
                .external_addresses()
                .map(ToString::to_string)
                .collect(),
            uptime_secs: self.started.elapsed().as_secs(),
            dht_server: self.swarm.behaviour().kad.mode() == kad::Mode::Server,
            dht_peers,
            dht_records,
            peers: self.peer_status(),
            provide: self.provide_status(),
            transfers: self.transfer_status(),
            uploaded_bytes: total.bytes_sent + self.deltas.sent.total,
            downloaded_bytes: total.bytes_received + self.deltas.received.total,
            uploaded_near_bytes: near.0 + self.deltas.sent.near,
            downloaded_near_bytes: near.1 + self.deltas.received.near,
            blocks: BlocksStatus {
                sent: total.blocks_sent,
                received: total.blocks_received,
                duplicate_bytes: total.bytes_duplicate,
                wants: stats.wants,
                wants_of_others: stats.served_wants,
            },
            connections: self.connection_status(),
            asked: self.asked,
        }
    }

    fn connection_status(&self) -> Vec<ConnectionsStatus> {
        let kinds = self.connections.iter();
        kinds
            .map(
                |((direction, transport), (opened, closed))| ConnectionsStatus {
                    direction,
                    transport,
                    opened: *opened,
                    closed: *closed,
                },
            )
            .collect()
    }

    fn peer_status(&self) -> Vec<PeerStatus> {
        let exchange = &self.swarm.behaviour().exchange;
        let mut peers: Vec<_> = self
            .peers
            .connected
            .iter()
            .map(|(peer, state)| {
                let ledger = exchange.ledger(peer);
                PeerStatus {
                    id: peer.to_string(),
                    addr: state.address.to_string(),
                    transport: transport(&state.address),
                    connected_secs: state.since.elapsed().as_secs(),
                    lan: self.peers.reach(peer) == Reach::Near,
                    agent: state.agent.clone(),
                    bytes_up: ledger.bytes_sent,
                    bytes_down: ledger.bytes_received,
                    dht: state.dht,
                }
            })
            .collect();
        peers.sort_by(|a, b| a.id.cmp(&b.id));
        peers
    }

    fn provide_status(&self) -> ProvideStatus {
        let (counts, queue) = self.announcing.counts();
        ProvideStatus {
            keys: queue.total,
            queued: queue.due,
            overdue: queue.overdue,
            in_flight: counts.in_flight as u64,
            done: counts.done,
            failed: counts.failed,
            last_unix_secs: counts.last_unix_secs,
            lookups: counts.lookups,
            streams: counts.streams,
            records: counts.records,
            cycle_keys: counts.cycle_keys,
            cycle_lookups: counts.cycle_lookups,
            cycle_regions: counts.cycle_regions as u64,
        }
    }

    fn transfer_status(&self) -> Vec<TransferStatus> {
        let mut transfers: Vec<_> = self
            .sessions
            .active
            .values()
            .map(|session| TransferStatus {
                root: session.root.to_string(),
                bytes: session.bytes,
                peers: session.providers(),
            })
            .collect();
        transfers.sort_by(|a, b| a.root.cmp(&b.root));
        transfers
    }
}
