//! One question to the network: who is asked, who has answered, and when it is over.
//!
//! A lookup asks the DHT who provides a key and, at the same time, the peers we are connected to or were told of. It is
//! over when the DHT walk has ended and everybody asked has answered, refused, failed or run out of time. This value only
//! keeps the count: the event loop sends the messages, and the deadline is the event loop's too.

use std::collections::HashMap;

use libp2p::PeerId;
use store::substitute::Asked;

/// How the asking of one peer went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It gave us something.
    Answered,
    /// It does not have it, or does not speak the protocol.
    Refused,
    /// No connection.
    Unreachable,
    /// No answer in time.
    TimedOut,
    /// Something that does not verify.
    Invalid,
}

/// Why a peer is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// The DHT or the caller names it as a provider.
    Provider,
    /// It just happens to be connected: it counts only if it can help.
    Connected,
}

/// A lookup in progress.
#[derive(Debug)]
pub(crate) struct Lookup {
    peers: HashMap<PeerId, (Reason, Option<Outcome>)>,
    peers_max: usize,
    pending: usize,
    dht_done: bool,
    dht_nodes: u32,
    overdue: bool,
}

impl Lookup {
    /// Nobody has been asked yet.
    pub(crate) fn new(peers_max: usize) -> Self {
        Self {
            peers: HashMap::new(),
            peers_max,
            pending: 0,
            dht_done: false,
            dht_nodes: 0,
            overdue: false,
        }
    }

    /// Whether `peer` is to be asked now: it was not yet, and there are not too many.
    pub(crate) fn ask(&mut self, peer: PeerId, reason: Reason) -> bool {
        if let Some((known, _)) = self.peers.get_mut(&peer) {
            if reason == Reason::Provider {
                *known = reason;
            }
            return false;
        }
        if self.peers.len() >= self.peers_max {
            return false;
        }
        self.peers.insert(peer, (reason, None));
        self.pending += 1;
        true
    }

    /// Notes how asking a peer went.
    pub(crate) fn settle(&mut self, peer: &PeerId, outcome: Outcome) {
        if let Some((_, slot @ None)) = self.peers.get_mut(peer) {
            *slot = Some(outcome);
            self.pending -= 1;
        }
    }

    /// Notes the end of the DHT walk and how many nodes it asked.
    pub(crate) fn dht_done(&mut self, nodes: u32) {
        self.dht_done = true;
        self.dht_nodes = self.dht_nodes.max(nodes);
    }

    /// Notes how many nodes an unfinished walk has asked so far.
    pub(crate) fn dht_progress(&mut self, nodes: u32) {
        self.dht_nodes = self.dht_nodes.max(nodes);
    }

    /// Ends the lookup at its deadline: who is still silent has timed out.
    pub(crate) fn expire(&mut self) {
        self.overdue = !self.dht_done;
        for (_, outcome) in self.peers.values_mut() {
            outcome.get_or_insert(Outcome::TimedOut);
        }
        self.pending = 0;
        self.dht_done = true;
    }

    /// Whether nothing more can come.
    pub(crate) fn is_done(&self) -> bool {
        self.dht_done && self.pending == 0
    }

    /// Whether the DHT had not finished when the deadline came: "nobody has it" cannot be said then.
    pub(crate) fn is_overdue(&self) -> bool {
        self.overdue
    }

    /// Who was asked. Connected peers that could not help are no providers and are not counted.
    pub(crate) fn asked(&self) -> Asked {
        let mut asked = Asked {
            dht_nodes: self.dht_nodes,
            ..Asked::default()
        };
        for (reason, outcome) in self.peers.values() {
            if *reason == Reason::Connected && *outcome != Some(Outcome::Answered) {
                continue;
            }
            asked.providers += 1;
            match outcome {
                None | Some(Outcome::Answered) => {}
                Some(Outcome::Refused) => asked.refused += 1,
                Some(Outcome::Unreachable) => asked.unreachable += 1,
                Some(Outcome::TimedOut) => asked.timed_out += 1,
                Some(Outcome::Invalid) => asked.invalid += 1,
            }
        }
        asked
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_over_when_the_dht_and_every_asked_peer_have_answered() {
        let (a, b) = (PeerId::random(), PeerId::random());
        let mut lookup = Lookup::new(8);
        assert!(lookup.ask(a, Reason::Connected));
        assert!(!lookup.ask(a, Reason::Provider));
        lookup.dht_done(3);
        assert!(!lookup.is_done());
        assert!(lookup.ask(b, Reason::Provider));
        lookup.settle(&a, Outcome::Answered);
        lookup.settle(&a, Outcome::Refused);
        assert!(!lookup.is_done());
        lookup.settle(&b, Outcome::Unreachable);
        assert!(lookup.is_done() && !lookup.is_overdue());
        assert_eq!(
            lookup.asked().to_string(),
            "asked 3 DHT nodes, 2 providers (1 unreachable)"
        );
    }

    #[test]
    fn connected_peers_that_do_not_have_it_are_not_called_providers() {
        let mut lookup = Lookup::new(8);
        let (bystander, provider) = (PeerId::random(), PeerId::random());
        lookup.ask(bystander, Reason::Connected);
        lookup.settle(&bystander, Outcome::Refused);
        lookup.ask(provider, Reason::Provider);
        lookup.settle(&provider, Outcome::Refused);
        lookup.dht_done(1);
        assert_eq!(
            lookup.asked().to_string(),
            "asked 1 DHT node, 1 provider (1 refused)"
        );
    }

    #[test]
    fn at_the_deadline_the_silent_have_timed_out() {
        let mut lookup = Lookup::new(2);
        lookup.ask(PeerId::random(), Reason::Provider);
        lookup.ask(PeerId::random(), Reason::Provider);
        assert!(
            !lookup.ask(PeerId::random(), Reason::Provider),
            "no more than two"
        );
        lookup.dht_progress(7);
        lookup.expire();
        assert!(lookup.is_done() && lookup.is_overdue());
        let asked = lookup.asked();
        assert_eq!(
            (asked.dht_nodes, asked.providers, asked.timed_out),
            (7, 2, 2)
        );
    }
}
