//! What peers have seen, and what they are told that we have.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use base::Sha256;
use libp2p::PeerId;
use libp2p::request_response::{Event, OutboundRequestId};
use tokio::sync::mpsc;

use super::EventLoop;
use super::serving::{Served, Turn, turn};
use crate::command::Heard;
use crate::witness_protocol::{Request, Response};

/// Peers that one question goes to.
pub(crate) const WITNESSES_MAX: usize = 16;

/// A question that is put to whoever comes, until nobody listens any more.
struct Hearing {
    topics: Vec<Sha256>,
    asked: HashSet<PeerId>,
    sink: mpsc::Sender<Heard>,
}

/// All questions that wait for answers.
#[derive(Default)]
pub(super) struct Hearings {
    open: Vec<Hearing>,
    asked: HashMap<OutboundRequestId, (usize, mpsc::Sender<Heard>)>,
}

impl EventLoop {
    /// Asks these peers as far as they are connected; all that are and that come, if none are named.
    pub(super) fn hear(
        &mut self,
        topics: Vec<Sha256>,
        peers: &[PeerId],
        sink: mpsc::Sender<Heard>,
    ) {
        let mut hearing = Hearing {
            topics,
            asked: HashSet::new(),
            sink,
        };
        let named: Vec<_> = match peers {
            [] => self.peers.connected.keys().copied().collect(),
            named => named.to_vec(),
        };
        for peer in named {
            self.ask_witness(&mut hearing, peer);
        }
        if peers.is_empty() {
            self.hearings.open.push(hearing);
        }
    }

    /// A peer has introduced itself.
    pub(super) fn hear_newcomer(&mut self, peer: PeerId) {
        let mut open = std::mem::take(&mut self.hearings.open);
        for hearing in &mut open {
            self.ask_witness(hearing, peer);
        }
        self.hearings.open = open;
    }

    fn ask_witness(&mut self, hearing: &mut Hearing, peer: PeerId) {
        let state = self.peers.connected.get(&peer);
        let is_asked = hearing.asked.len() < WITNESSES_MAX
            && state.is_some_and(|state| state.witnesses)
            && self.may_be_asked(&peer)
            && hearing.asked.insert(peer);
        if is_asked {
            let request = Request(hearing.topics.clone());
            let witness = &mut self.swarm.behaviour_mut().witness;
            let id = witness.send_request(&peer, request);
            let answer = (hearing.topics.len(), hearing.sink.clone());
            self.hearings.asked.insert(id, answer);
        }
    }

    pub(super) fn on_witness_message(&mut self, event: Event<Request, Response>) {
        match turn(event) {
            Some(Turn::Asked(peer, request, channel)) => {
                let witness = Arc::clone(&self.config.witness);
                self.serve(&peer, move |_| {
                    Served::Witness(channel, Response::of(&*witness, &request))
                });
            }
            Some(Turn::Answered(peer, id, Response(answers))) => {
                if let Some((topics, sink)) = self.hearings.asked.remove(&id)
                    && topics == answers.len()
                {
                    // Nobody may be left to hear it.
                    let _ = sink.try_send(Heard { peer, answers });
                }
            }
            Some(Turn::Failed(id, _)) => drop(self.hearings.asked.remove(&id)),
            None => {}
        }
    }

    /// Lets go what nobody listens to any more.
    pub(super) fn sweep_hearings(&mut self) {
        self.hearings
            .open
            .retain(|hearing| !hearing.sink.is_closed());
        self.hearings.asked.retain(|_, (_, sink)| !sink.is_closed());
    }
}
