//! Questions about packages that go to a peer together: a closure is looked up in one round trip.
//!
//! The packages of a closure are looked up at the same time, each by itself, for each has its own providers. What one peer is to
//! be asked is gathered for a moment, and put in one request.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use base::PkgHash;
use libp2p::PeerId;
use libp2p::request_response::{OutboundFailure, OutboundRequestId};

use super::EventLoop;
use super::lookups::{LookupId, outcome_of};
use crate::command::Found;
use crate::lookup::Outcome;
use crate::realisation_protocol::{KEYS_MAX, Request, Response};

/// Questions to peers are gathered until none has come for so long: no round trip is as short, but that to a process on the same
/// machine.
const QUIET: Duration = Duration::from_millis(2);
/// And for so long at most: on a machine that is busy the threads of a command come one after the other.
const GATHERED_FOR_MAX: Duration = Duration::from_millis(16);

/// A package, and the lookup that wants to know of it.
type Wanted = (LookupId, PkgHash);

/// What is gathered, and what was asked and is not answered yet.
#[derive(Default)]
pub(super) struct Together {
    gathered: HashMap<PeerId, Vec<Wanted>>,
    /// Since when something is gathered, and when the last question came.
    since: Option<(Instant, Instant)>,
    asked: HashMap<OutboundRequestId, (PeerId, Vec<Wanted>)>,
}

impl Together {
    /// When what was gathered is to be asked.
    pub(super) fn due(&self) -> Option<Instant> {
        let due = |(first, last): (Instant, Instant)| (last + QUIET).min(first + GATHERED_FOR_MAX);
        self.since.map(due)
    }

    /// Puts a question to a peer by; `true` when no more fit into one request.
    pub(super) fn add(&mut self, peer: PeerId, wanted: Wanted, now: Instant) -> bool {
        self.since.get_or_insert((now, now)).1 = now;
        let gathered = self.gathered.entry(peer).or_default();
        gathered.push(wanted);
        gathered.len() >= KEYS_MAX
    }
}

impl EventLoop {
    /// Asks every peer what was gathered for it, once it is time.
    pub(super) fn ask_what_was_gathered(&mut self, now: Instant) {
        if self.lookups.together.due().is_none_or(|due| due > now) {
            return;
        }
        self.lookups.together.since = None;
        let peers: Vec<_> = self.lookups.together.gathered.keys().copied().collect();
        for peer in peers {
            self.ask_together(peer);
        }
    }

    /// Asks a peer what was gathered for it, but for lookups that are over.
    pub(super) fn ask_together(&mut self, peer: PeerId) {
        let gathered = self.lookups.together.gathered.remove(&peer);
        let mut wanted = gathered.unwrap_or_default();
        wanted.retain(|(id, _)| self.lookups.contains(*id));
        if wanted.is_empty() {
            return;
        }
        let request = Request(wanted.iter().map(|(_, pkghash)| *pkghash).collect());
        let realisations = &mut self.swarm.behaviour_mut().realisations;
        let request = realisations.send_request(&peer, request);
        self.lookups.together.asked.insert(request, (peer, wanted));
    }

    /// Takes a peer's answer about realisations.
    pub(super) fn realisations_answered(&mut self, request: OutboundRequestId, response: Response) {
        let Some((peer, wanted)) = self.lookups.together.asked.remove(&request) else {
            return;
        };
        let asked = Request(wanted.iter().map(|(_, pkghash)| *pkghash).collect());
        let Some(response) = response.matched_to(&asked) else {
            for (id, _) in wanted {
                self.settle(id, &peer, Outcome::Invalid, None);
            }
            return;
        };
        self.asked.invalid_statements += u64::from(response.invalid);
        for ((id, _), realisations) in wanted.into_iter().zip(response.packages) {
            if !realisations.is_empty() {
                let found = Found::Realisations { peer, realisations };
                self.settle(id, &peer, Outcome::Answered, Some(found));
            } else if response.invalid > 0 {
                // Of which package it was does not matter: the peer sends what does not verify.
                self.settle(id, &peer, Outcome::Invalid, None);
            } else {
                self.settle(id, &peer, Outcome::Refused, None);
            }
        }
    }

    /// A request about realisations got no answer.
    pub(super) fn realisation_request_failed(
        &mut self,
        request: OutboundRequestId,
        failure: &OutboundFailure,
    ) {
        let asked = self.lookups.together.asked.remove(&request);
        if let Some((peer, wanted)) = asked {
            for (id, _) in wanted {
                self.settle(id, &peer, outcome_of(failure), None);
            }
        }
    }
}
