//! Who of the connected peers belongs to our group, and what waits for that to be known.
//!
//! Without a group everybody may be asked anything. With one, nobody is asked, told or served anything but the DHT's own
//! messages before it has proved that it has the key; see [`crate::group`]. Both sides of a connection send their proof. A
//! peer that sent a right one is served; one that answered ours is asked too, since it knows us by then.

use std::collections::{HashMap, HashSet};

use base::Multihash;
use libp2p::PeerId;
use libp2p::request_response::{Event, Message};

use super::EventLoop;
use super::lookups::LookupId;
use crate::group::{Answer, GroupKey, Proof};
use crate::lookup::Outcome;

/// Lookups that wait for one peer, at most; for those beyond it counts as one that refused.
const HELD_MAX: usize = 256;

/// What is known of connected peers.
#[derive(Default)]
pub(super) struct Members {
    /// They have proved to us that they are members.
    proved: HashSet<PeerId>,
    /// They know that we are.
    know_us: HashSet<PeerId>,
    /// They are none.
    strangers: HashSet<PeerId>,
    /// Lookups that will ask a peer once it is known to be a member.
    held: HashMap<PeerId, Vec<LookupId>>,
}

impl EventLoop {
    const fn group(&self) -> Option<&GroupKey> {
        self.config.group.as_ref()
    }

    /// Under what `key` is known to the DHT.
    pub(super) fn dht_key(&self, key: &Multihash) -> Multihash {
        self.group().map_or(*key, |group| group.lookup_key(key))
    }

    /// Whether a peer may learn what we look for.
    pub(super) fn may_be_asked(&self, peer: &PeerId) -> bool {
        self.group().is_none() || self.members.know_us.contains(peer)
    }

    /// Whether a peer may learn what we have.
    pub(super) fn may_be_served(&self, peer: &PeerId) -> bool {
        self.group().is_none() || self.members.proved.contains(peer)
    }

    /// Proves to a peer that has introduced itself that we are a member, if there is a group; `speaks` says whether the
    /// peer knows of groups at all. Whether its answer is to be waited for.
    pub(super) fn prove_membership(&mut self, peer: PeerId, speaks: bool) -> bool {
        let Some(group) = self.group() else {
            return false;
        };
        if !speaks {
            self.is_a_stranger(&peer);
            return false;
        }
        if self.members.know_us.contains(&peer) {
            return false;
        }
        let proof = group.prove(self.swarm.local_peer_id(), &peer);
        if let Some(groups) = self.swarm.behaviour_mut().group.as_mut() {
            groups.send_request(&peer, proof);
        }
        true
    }

    /// Puts a lookup's question to a peer once it is known to be a member.
    pub(super) fn hold(&mut self, lookup: LookupId, peer: PeerId) {
        let held = self.members.held.entry(peer).or_default();
        if self.members.strangers.contains(&peer) || held.len() >= HELD_MAX {
            return self.settle(lookup, &peer, Outcome::Refused, None);
        }
        held.push(lookup);
        self.dial_provider(peer);
    }

    pub(super) fn on_group_message(&mut self, event: Event<Proof, Answer>) {
        let local = *self.swarm.local_peer_id();
        let Some(group) = self.group() else {
            return;
        };
        match event {
            Event::Message { peer, message, .. } => match message {
                Message::Request {
                    request, channel, ..
                } => {
                    let is_member = group.verify(&peer, &local, &request);
                    let answer = Answer(is_member.then(|| group.prove(&local, &peer)));
                    if is_member {
                        self.proved(peer);
                    }
                    if let Some(groups) = self.swarm.behaviour_mut().group.as_mut() {
                        // One that has left meanwhile needs no answer.
                        let _ = groups.send_response(channel, answer);
                    }
                }
                Message::Response { response, .. } => {
                    let proof = response.0;
                    if proof.is_some_and(|proof| group.verify(&peer, &local, &proof)) {
                        self.is_a_member(peer);
                    } else {
                        self.is_a_stranger(&peer);
                    }
                }
            },
            Event::OutboundFailure { peer, .. } => self.is_a_stranger(&peer),
            Event::InboundFailure { .. } | Event::ResponseSent { .. } => {}
        }
    }

    fn proved(&mut self, peer: PeerId) {
        self.members.strangers.remove(&peer);
        if self.members.proved.insert(peer) {
            self.swarm.behaviour_mut().exchange.admit(peer);
        }
    }

    fn is_a_member(&mut self, peer: PeerId) {
        self.proved(peer);
        self.members.know_us.insert(peer);
        for lookup in self.members.held.remove(&peer).into_iter().flatten() {
            self.put_question(lookup, peer);
        }
        self.greeted(peer);
    }

    fn is_a_stranger(&mut self, peer: &PeerId) {
        tracing::debug!(%peer, "not a member of our group");
        self.members.strangers.insert(*peer);
        self.swarm.behaviour_mut().exchange.refuse(peer);
        self.release(peer, Outcome::Refused);
        self.greeted(*peer);
    }

    /// A peer has left, or cannot be reached: whoever waited for it need not any more.
    pub(super) fn forget_membership(&mut self, peer: &PeerId) {
        self.members.proved.remove(peer);
        self.members.know_us.remove(peer);
        self.members.strangers.remove(peer);
        self.release(peer, Outcome::Unreachable);
    }

    fn release(&mut self, peer: &PeerId, outcome: Outcome) {
        for lookup in self.members.held.remove(peer).into_iter().flatten() {
            self.settle(lookup, peer, outcome, None);
        }
    }
}
