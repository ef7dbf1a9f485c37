//! One connection's share of the exchange: its streams, in both directions.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bitswap::{Lane as LaneKind, Message, TransmitId, Version};
use futures::StreamExt as _;
use futures::stream::SelectAll;
use libp2p::core::{InboundUpgrade, OutboundUpgrade, UpgradeInfo};
use libp2p::swarm::StreamUpgradeError;
use libp2p::swarm::handler::{
    ConnectionEvent, ConnectionHandler, ConnectionHandlerEvent, DialUpgradeError,
    FullyNegotiatedInbound, FullyNegotiatedOutbound, SubstreamProtocol,
};
use libp2p::{Stream, StreamProtocol};

use super::inbound::{Inbound, Read};
use super::outbound::{Lane, Step};

/// What we offer and accept, best first.
const V1_2: StreamProtocol = StreamProtocol::new("/ipfs/bitswap/1.2.0");
const V1_1: StreamProtocol = StreamProtocol::new("/ipfs/bitswap/1.1.0");
/// What a peer must offer to be asked for blocks.
pub(crate) const REQUESTS: [StreamProtocol; 2] = [V1_2, V1_1];
/// Only accepted: these peers' blocks are read, but they could not read our wants for anything but CIDv0.
const V1_0: StreamProtocol = StreamProtocol::new("/ipfs/bitswap/1.0.0");
const UNVERSIONED: StreamProtocol = StreamProtocol::new("/ipfs/bitswap");

/// Quiet time for which a connection counts as used, on top of the swarm's own idle timeout. Streams of peers are not
/// counted, because Kubo leaves its own open all the time.
const QUIET: Duration = Duration::from_secs(10);

/// What the behaviour tells a handler.
#[derive(Debug)]
pub enum ToHandler {
    /// Write this message.
    Send {
        /// To be handed back.
        id: TransmitId,
        /// Its lane.
        lane: LaneKind,
        /// The message.
        message: Message,
    },
}

/// What a handler tells the behaviour.
#[derive(Debug)]
pub enum FromHandler {
    /// A message was read.
    Received(Message),
    /// This many bytes of an incomplete message were read.
    Receiving(usize),
    /// A message was written.
    Sent(TransmitId),
    /// A message could not be written.
    Failed(TransmitId),
    /// The peer speaks no Bitswap that we speak.
    Unsupported,
}

/// Serves one connection.
pub struct Handler {
    inbound: SelectAll<Inbound>,
    inbound_max: usize,
    control: Lane,
    blocks: Lane,
    unsupported: bool,
    used_at: Instant,
}

impl Handler {
    /// A handler that reads at most `inbound_max` streams at a time.
    pub(super) fn new(inbound_max: usize) -> Self {
        Self {
            inbound: SelectAll::new(),
            inbound_max,
            control: Lane::new(),
            blocks: Lane::new(),
            unsupported: false,
            used_at: Instant::now(),
        }
    }

    fn lane(&mut self, kind: LaneKind) -> &mut Lane {
        match kind {
            LaneKind::Control => &mut self.control,
            LaneKind::Blocks => &mut self.blocks,
        }
    }

    fn poll_lanes(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Outgoing, LaneKind, FromHandler>> {
        for kind in [LaneKind::Control, LaneKind::Blocks] {
            while let Poll::Ready(step) = self.lane(kind).poll(cx) {
                let event = match step {
                    Step::Close => continue,
                    Step::Open => {
                        let protocol = SubstreamProtocol::new(Outgoing, kind);
                        return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest {
                            protocol,
                        });
                    }
                    Step::Sent(id) => FromHandler::Sent(id),
                    Step::Failed(id) => FromHandler::Failed(id),
                };
                self.used_at = Instant::now();
                return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(event));
            }
        }
        Poll::Pending
    }

    fn accept(&mut self, stream: Stream) {
        if self.inbound.len() < self.inbound_max {
            self.inbound.push(Inbound::new(stream));
        } else {
            tracing::debug!("too many bitswap streams on one connection, refusing another");
        }
    }

    fn refused(&mut self, lane: LaneKind, error: &StreamUpgradeError<Infallible>) {
        self.unsupported |= matches!(error, StreamUpgradeError::NegotiationFailed);
        self.lane(lane).refused();
    }
}

impl ConnectionHandler for Handler {
    type FromBehaviour = ToHandler;
    type ToBehaviour = FromHandler;
    type InboundProtocol = Incoming;
    type OutboundProtocol = Outgoing;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = LaneKind;

    fn listen_protocol(&self) -> SubstreamProtocol<Incoming> {
        SubstreamProtocol::new(Incoming, ())
    }

    fn connection_keep_alive(&self) -> bool {
        self.control.is_busy() || self.blocks.is_busy() || self.used_at.elapsed() < QUIET
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Outgoing, LaneKind, FromHandler>> {
        if std::mem::take(&mut self.unsupported) {
            let event = FromHandler::Unsupported;
            return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(event));
        }
        if let Poll::Ready(event) = self.poll_lanes(cx) {
            return Poll::Ready(event);
        }
        if let Poll::Ready(Some(read)) = self.inbound.poll_next_unpin(cx) {
            self.used_at = Instant::now();
            let event = match read {
                Read::Message(message) => FromHandler::Received(message),
                Read::Progress(bytes) => FromHandler::Receiving(bytes),
            };
            return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(event));
        }
        Poll::Pending
    }

    fn on_behaviour_event(&mut self, event: ToHandler) {
        let ToHandler::Send { id, lane, message } = event;
        self.lane(lane).push(id, message);
    }

    fn on_connection_event(
        &mut self,
        event: ConnectionEvent<'_, Incoming, Outgoing, (), LaneKind>,
    ) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound {
                protocol, ..
            }) => self.accept(protocol),
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound {
                protocol: (stream, version),
                info,
            }) => self.lane(info).opened(stream, version),
            ConnectionEvent::DialUpgradeError(DialUpgradeError { info, error }) => {
                self.refused(info, &error);
            }
            _ => {}
        }
    }
}

/// The protocols we accept.
#[derive(Clone, Copy, Debug)]
pub struct Incoming;

/// The protocols we offer.
#[derive(Clone, Copy, Debug)]
pub struct Outgoing;

impl UpgradeInfo for Incoming {
    type Info = StreamProtocol;
    type InfoIter = std::array::IntoIter<StreamProtocol, 4>;

    fn protocol_info(&self) -> Self::InfoIter {
        [V1_2, V1_1, V1_0, UNVERSIONED].into_iter()
    }
}

impl InboundUpgrade<Stream> for Incoming {
    type Output = Stream;
    type Error = Infallible;
    type Future = Ready<Result<Stream, Infallible>>;

    fn upgrade_inbound(self, stream: Stream, _: StreamProtocol) -> Self::Future {
        ready(Ok(stream))
    }
}

impl UpgradeInfo for Outgoing {
    type Info = StreamProtocol;
    type InfoIter = std::array::IntoIter<StreamProtocol, 2>;

    fn protocol_info(&self) -> Self::InfoIter {
        REQUESTS.into_iter()
    }
}

impl OutboundUpgrade<Stream> for Outgoing {
    type Output = (Stream, Version);
    type Error = Infallible;
    type Future = Ready<Result<(Stream, Version), Infallible>>;

    fn upgrade_outbound(self, stream: Stream, protocol: StreamProtocol) -> Self::Future {
        let version = if protocol == V1_2 {
            Version::V1_2
        } else {
            Version::V1_1
        };
        ready(Ok((stream, version)))
    }
}
