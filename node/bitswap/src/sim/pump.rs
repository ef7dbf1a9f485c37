//! What the machines of the world want done: their messages put on the wire, their events answered.

use super::*;

impl World {
    /// Does what a caller does after each call: events, transmits, timer.
    pub(super) fn pump(&mut self, node: NodeId) {
        loop {
            if let Some(event) = self.nodes[node].exchange.poll_event() {
                self.handle_event(node, event);
            } else if let Some(transmit) = self.nodes[node].exchange.poll_transmit(self.now) {
                self.check(node, &transmit);
                self.transmit(node, transmit);
            } else {
                break;
            }
        }
        let exchange = &self.nodes[node].exchange;
        self.response_bytes_most = self
            .response_bytes_most
            .max(exchange.stats().response_bytes);
        let Some(at) = exchange.poll_timeout() else {
            return;
        };
        if self.nodes[node].wake.is_none_or(|planned| at < planned) {
            self.nodes[node].wake = Some(at);
            self.plan(
                at.saturating_duration_since(self.now),
                Action::Wake { node },
            );
        }
    }

    fn handle_event(&mut self, node: NodeId, event: Event<NodeId>) {
        match event {
            Event::Block {
                sessions,
                cid,
                block,
                ..
            } => self.got(node, &sessions, cid, block),
            Event::Missing { session, cid } => {
                assert!(
                    self.nodes[node].open.remove(&(session, cid)),
                    "a want ended twice"
                );
                self.nodes[node]
                    .ended
                    .insert((session, cid), Outcome::Missing);
            }
            Event::FindProviders { session, .. } => {
                let delay = Duration::from_millis(self.rng.between(5, 500));
                self.plan(delay, Action::Found { node, session });
            }
            Event::Connect { peer } => {
                let latency = self
                    .link_settings
                    .get(&pair(node, peer))
                    .unwrap_or(&self.link)
                    .latency;
                self.plan(
                    2 * latency,
                    Action::Dial {
                        from: node,
                        to: peer,
                    },
                );
            }
            Event::LoadSize { id, cid } => {
                let delay = self.store_delay(node);
                self.plan(delay, Action::Sized { node, id, cid });
            }
            Event::Load { id, cid } => {
                let delay = self.store_delay(node);
                self.plan(delay, Action::Loaded { node, id, cid });
            }
            Event::PeerMisbehaved { peer, .. } => drop(self.accused.insert(peer)),
        }
    }

    fn store_delay(&mut self, node: NodeId) -> Duration {
        let micros_max = self.nodes[node].config.store_delay_max.as_micros() as u64;
        Duration::from_micros(self.rng.between(0, micros_max))
    }

    /// A block arrived: it must be what its name says, and each want must end once.
    fn got(&mut self, node: NodeId, sessions: &[SessionId], cid: Cid, block: base::Block) {
        let node = &mut self.nodes[node];
        let digest = base::Multihash::of(&cid)
            .expect("only sha2-256 is wanted")
            .digest();
        assert_eq!(
            Sha256::of(block.bytes()),
            digest,
            "an unverified block was reported"
        );
        for session in sessions {
            assert!(node.open.remove(&(*session, cid)), "a want ended twice");
            node.ended.insert((*session, cid), Outcome::Got);
        }
        node.received_bytes += block.len();
        node.store.insert(cid, block);
        node.exchange.notify_new_block(&cid);
    }

    /// What must hold of every message that a machine wants to send.
    fn check(&self, node: NodeId, transmit: &Transmit<NodeId>) {
        let message = &transmit.message;
        assert!(
            self.is_connected(node, transmit.to),
            "a message to a peer that is not connected"
        );
        assert!(!message.is_empty(), "an empty message");
        assert!(message.wantlist.len() <= limits::ENTRIES_PER_MESSAGE_MAX);
        assert!(
            message.block_bytes() <= limits::RESPONSE_BYTES_TARGET || message.blocks.len() == 1
        );
        let (told, served) = self.nodes[node].exchange.told_and_served(transmit.to);
        assert!(
            told <= limits::WANTS_PER_PEER_MAX,
            "{told} wants told to one peer"
        );
        assert!(
            served <= limits::SERVED_WANTS_PER_PEER_MAX,
            "{served} wants kept for one peer"
        );
        let held = self.nodes[node].exchange.stats().response_bytes;
        assert!(
            held <= limits::RESPONSE_BYTES_TOTAL_MAX,
            "{held} block bytes held"
        );
    }

    fn transmit(&mut self, from: NodeId, transmit: Transmit<NodeId>) {
        let Transmit {
            id,
            to,
            lane,
            message,
        } = transmit;
        let frame = message.encode(Version::V1_2).to_vec();
        assert!(frame.len() <= limits::MESSAGE_BYTES_MAX);
        self.travel((from, to), lane, Some(id), frame);
    }
}
