//! Questions of others, answered from the store.
//!
//! The store is shared with every process of this home and asked anew each time, so what a build or a fetch has just put
//! there is served at once.

use libp2p::PeerId;
use libp2p::request_response::{
    Event, Message, OutboundFailure, OutboundRequestId, ResponseChannel,
};
use store::{Store, StoreError};

use super::{Done, EventLoop};
use crate::address::Reach;
use crate::source_protocol::Holding;
use crate::{delta_protocol, realisation_protocol, source_protocol, witness_protocol};

/// Background jobs that may wait or run. Questions beyond that are dropped, and the asker turns to somebody else.
pub(super) const JOBS_MAX: usize = 64;

/// An answer on its way to a peer.
pub(super) enum Served {
    Source(
        ResponseChannel<source_protocol::Response>,
        source_protocol::Response,
    ),
    Realisations(
        ResponseChannel<realisation_protocol::Response>,
        realisation_protocol::Response,
    ),
    Witness(
        ResponseChannel<witness_protocol::Response>,
        witness_protocol::Response,
    ),
    Delta(
        ResponseChannel<delta_protocol::Response>,
        Reach,
        delta_protocol::Response,
    ),
}

/// What a request-response protocol reports and somebody has to do something about.
pub(super) enum Turn<Q, A> {
    /// A peer asks.
    Asked(PeerId, Q, ResponseChannel<A>),
    /// A peer has answered us.
    Answered(PeerId, OutboundRequestId, A),
    /// A peer will not answer us.
    Failed(OutboundRequestId, OutboundFailure),
}

pub(super) fn turn<Q, A>(event: Event<Q, A>) -> Option<Turn<Q, A>> {
    match event {
        Event::Message { peer, message, .. } => Some(match message {
            Message::Request {
                request, channel, ..
            } => Turn::Asked(peer, request, channel),
            Message::Response {
                request_id,
                response,
            } => Turn::Answered(peer, request_id, response),
        }),
        Event::OutboundFailure {
            request_id, error, ..
        } => Some(Turn::Failed(request_id, error)),
        Event::InboundFailure { .. } | Event::ResponseSent { .. } => None,
    }
}

impl EventLoop {
    pub(super) fn on_source_message(
        &mut self,
        event: Event<source_protocol::Request, source_protocol::Response>,
    ) {
        match turn(event) {
            Some(Turn::Asked(peer, request, channel)) => {
                self.serve(&peer, move |store| {
                    Served::Source(channel, answer_sources(store, &request))
                });
            }
            Some(Turn::Answered(_, id, response)) => self.source_answered(id, &response),
            Some(Turn::Failed(id, error)) => self.source_request_failed(id, &error),
            None => {}
        }
    }

    pub(super) fn on_realisation_message(
        &mut self,
        event: Event<realisation_protocol::Request, realisation_protocol::Response>,
    ) {
        match turn(event) {
            Some(Turn::Asked(peer, request, channel)) => self.serve(&peer, move |store| {
                Served::Realisations(channel, answer_realisations(store, &request))
            }),
            Some(Turn::Answered(_, id, response)) => self.realisations_answered(id, response),
            Some(Turn::Failed(id, error)) => self.realisation_request_failed(id, &error),
            None => {}
        }
    }

    /// Answers from the store in the background, unless too many wait for that already. Strangers to our group get none.
    pub(super) fn serve(
        &mut self,
        peer: &PeerId,
        answer: impl FnOnce(&Store) -> Served + Send + 'static,
    ) {
        if self.jobs.len() < JOBS_MAX && self.may_be_served(peer) {
            let store = self.store.clone();
            self.spawn(move || Done::Served(answer(&store)));
        }
    }

    pub(super) fn answer(&mut self, served: Served) {
        let behaviour = self.swarm.behaviour_mut();
        // An asker that has left meanwhile does not matter.
        match served {
            Served::Source(channel, response) => {
                self.asked.sources_served += 1;
                let _ = behaviour.sources.send_response(channel, response);
            }
            Served::Realisations(channel, response) => {
                self.asked.realisations_served += 1;
                let _ = behaviour.realisations.send_response(channel, response);
            }
            Served::Witness(channel, response) => {
                let _ = behaviour.witness.send_response(channel, response);
            }
            Served::Delta(channel, reach, response) => self.send_delta(channel, reach, response),
        }
    }
}

fn answer_sources(store: &Store, request: &source_protocol::Request) -> source_protocol::Response {
    let answer = |sha256: &base::Sha256| {
        let blob = unless_broken(store.blob(sha256)).flatten()?;
        Some(Holding {
            root: blob.root,
            size: blob.size,
        })
    };
    source_protocol::Response(request.0.iter().map(answer).collect())
}

fn answer_realisations(
    store: &Store,
    request: &realisation_protocol::Request,
) -> realisation_protocol::Response {
    let answer = |pkghash| unless_broken(store.realisations(pkghash)).unwrap_or_default();
    let packages = request.0.iter().map(answer).collect();
    realisation_protocol::Response {
        packages,
        invalid: 0,
    }
}

/// To a peer, what cannot be read is not here; the operator is told.
fn unless_broken<T>(result: Result<T, StoreError>) -> Option<T> {
    result
        .inspect_err(|error| {
            let error: &dyn std::error::Error = error;
            tracing::warn!(error, "cannot answer a peer from the store");
        })
        .ok()
}
