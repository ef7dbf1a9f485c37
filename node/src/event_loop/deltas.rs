//! Deltas: our questions about what changed in an output, and those of others.

use std::collections::HashMap;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use bitswap::Budget;
use libp2p::PeerId;
use libp2p::request_response::{Event, OutboundRequestId, ResponseChannel};
use tokio::sync::oneshot;

use super::serving::{JOBS_MAX, Served, Turn, turn};
use super::{Done, EventLoop};
use crate::address::Reach;
use crate::config::Deltas as Wanted;
use crate::delta_desk::Desk;
use crate::delta_protocol::{Request, Response};

/// Longest time for which an answer waits for the limit of what we send. Its asker has other ways to get the archive.
const UPLOAD_PATIENCE: Duration = Duration::from_secs(10);

/// An answer to a question of ours.
#[derive(Debug)]
pub(crate) struct Answer {
    /// What the peer said.
    pub(crate) response: Response,
    /// How far away it is.
    pub(crate) reach: Reach,
}

/// What a node does about deltas, on either side.
#[derive(Default)]
pub(super) struct Deltas {
    asked: HashMap<OutboundRequestId, oneshot::Sender<Answer>>,
    desk: Arc<Desk>,
    pub(super) sent: Moved,
    pub(super) received: Moved,
}

/// Bytes that went one way.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Moved {
    pub(super) total: u64,
    pub(super) near: u64,
}

impl Moved {
    fn add(&mut self, bytes: u64, reach: Reach) {
        self.total += bytes;
        if reach == Reach::Near {
            self.near += bytes;
        }
    }
}

impl EventLoop {
    /// Asks a connected peer for a segment. `reply` is dropped when there will be no answer.
    pub(super) fn ask_delta(
        &mut self,
        peer: &PeerId,
        request: Request,
        reply: oneshot::Sender<Answer>,
    ) {
        let state = self.peers.connected.get(peer);
        let reach = self.peers.reach(peer);
        let is_worth_it = match self.config.deltas {
            Wanted::None => false,
            Wanted::Far => reach != Reach::Near,
            Wanted::All => true,
        };
        if is_worth_it
            && state.is_some_and(|state| state.deltas && !state.relayed)
            && self.may_be_asked(peer)
        {
            self.deltas.sent.add(request.wire_bytes(), reach);
            let id = self
                .swarm
                .behaviour_mut()
                .deltas
                .send_request(peer, request);
            self.deltas.asked.insert(id, reply);
        }
    }

    pub(super) fn on_delta_message(&mut self, event: Event<Request, Response>) {
        match turn(event) {
            Some(Turn::Asked(peer, request, channel)) => self.serve_delta(&peer, request, channel),
            Some(Turn::Answered(peer, id, response)) => {
                let (bytes, reach) = (response.wire_bytes(), self.peers.reach(&peer));
                self.deltas.received.add(bytes, reach);
                if reach != Reach::Near {
                    let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
                    self.config.download.charge(bytes, Instant::now());
                }
                if let Some(reply) = self.deltas.asked.remove(&id) {
                    // Nobody may be left to hear it.
                    let _ = reply.send(Answer { response, reach });
                }
            }
            Some(Turn::Failed(id, error)) => {
                tracing::info!(%error, "a peer gave no delta");
                self.deltas.asked.remove(&id);
            }
            None => {}
        }
    }

    /// Makes a segment in the background. Strangers to our group, and peers behind relays, get none.
    fn serve_delta(&mut self, peer: &PeerId, request: Request, channel: ResponseChannel<Response>) {
        let relayed = self
            .peers
            .connected
            .get(peer)
            .is_none_or(|state| state.relayed);
        let seat = self.deltas.desk.sit_down();
        let is_free = !relayed && self.jobs.len() < JOBS_MAX && self.may_be_served(peer);
        let Some(seat) = seat.filter(|_| is_free) else {
            let deltas = &mut self.swarm.behaviour_mut().deltas;
            let _ = deltas.send_response(channel, Response::No);
            return;
        };
        let (desk, store) = (Arc::clone(&self.deltas.desk), self.store.clone());
        let reach = self.peers.reach(peer);
        let upload =
            (reach != Reach::Near).then(|| self.swarm.behaviour().exchange.upload().clone());
        self.spawn(move || {
            let mut response = desk.answer(&store, &request, &seat);
            drop(seat);
            if let Some(upload) = upload
                && !may_go(&upload, response.wire_bytes())
            {
                response = Response::No;
            }
            Done::Served(Served::Delta(channel, reach, response))
        });
    }

    /// Sends what was made.
    pub(super) fn send_delta(
        &mut self,
        channel: ResponseChannel<Response>,
        reach: Reach,
        response: Response,
    ) {
        self.deltas.sent.add(response.wire_bytes(), reach);
        let _ = self
            .swarm
            .behaviour_mut()
            .deltas
            .send_response(channel, response);
    }

    /// Lets go what is over, on either side.
    pub(super) fn sweep_deltas(&mut self) {
        self.deltas.asked.retain(|_, reply| !reply.is_closed());
        self.deltas.desk.tidy(Instant::now());
    }
}

/// Waits for the limit of what we send; `false` when that takes too long. On a thread that may wait.
fn may_go(upload: &Budget, bytes: u64) -> bool {
    let until = Instant::now() + UPLOAD_PATIENCE;
    let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
    loop {
        match upload.take(bytes, Instant::now()) {
            Ok(()) => return true,
            Err(at) if at > until => return false,
            Err(at) => thread::sleep(at.saturating_duration_since(Instant::now())),
        }
    }
}
