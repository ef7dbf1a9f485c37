//! What a [`Client`](crate::Client) asks of the event loop. Everything that gets more than one answer has an id or a channel
//! of its own; all channels are bounded.

use std::time::Instant;

use base::{Block, Cid, Multihash, PkgHash, Sha256, SignedRealisation};
use bitswap::SessionId;
use libp2p::{Multiaddr, PeerId};
use store::substitute::Asked;
use tokio::sync::{mpsc, oneshot};

use crate::address::Reach;
use crate::config::RunningLimits;
use crate::delta_protocol;
use crate::event_loop::DeltaAnswer;
use crate::ipns::{IpnsName, IpnsRecord};
use crate::names::{NameError, Resolved};
use crate::routing_protocol::Place;
use crate::status::Status;

/// Commands that may wait for the event loop. Whoever sends more waits.
pub(crate) const COMMANDS_MAX: usize = 256;

/// Something the event loop should do.
#[derive(Debug)]
pub(crate) enum Command {
    /// Tell how the node is doing.
    Status { reply: oneshot::Sender<Status> },
    /// Connect to a peer; answers when it has introduced itself.
    Connect {
        address: Multiaddr,
        reply: oneshot::Sender<Option<PeerId>>,
    },
    /// Ask the network something.
    Lookup {
        question: Question,
        providers: Vec<PeerId>,
        sink: mpsc::Sender<Found>,
    },
    /// Find out who provides a key, sharing the walk with whoever else asks; answers at the end, or at `until` with what is
    /// known by then.
    Walk {
        key: Multihash,
        until: Instant,
        reply: oneshot::Sender<Vec<Place>>,
    },
    /// Announce one key now; answers with the number of DHT nodes that were told, 0 for a failure.
    Provide {
        key: Multihash,
        reply: oneshot::Sender<u32>,
    },
    /// Open a session for the blocks below a root.
    OpenSession {
        root: Cid,
        providers: Vec<PeerId>,
        reply: oneshot::Sender<OpenedSession>,
    },
    /// Want blocks.
    Want { session: SessionId, cids: Vec<Cid> },
    /// These blocks can be served now: peers that wait for them are told.
    Stored { blocks: Vec<Multihash> },
    /// Name more providers.
    AddProviders {
        session: SessionId,
        providers: Vec<PeerId>,
    },
    /// Ask a connected peer for a segment of a delta; the reply is dropped when there is no answer.
    Delta {
        peer: PeerId,
        request: delta_protocol::Request,
        reply: oneshot::Sender<DeltaAnswer>,
    },
    /// Ask connected peers what they have seen: those that are named, else all and whoever comes.
    Hear {
        topics: Vec<Sha256>,
        peers: Vec<PeerId>,
        sink: mpsc::Sender<Heard>,
    },
    /// End a session.
    CloseSession { session: SessionId },
    /// Put a record into the DHT; answers with the number of nodes that have it then.
    PublishName {
        record: Box<IpnsRecord>,
        reply: oneshot::Sender<Result<u32, NameError>>,
    },
    /// Find the newest record of a name.
    ResolveName {
        name: IpnsName,
        reply: oneshot::Sender<Result<Resolved, NameError>>,
    },
    /// Go on with other limits.
    SetLimits(RunningLimits),
    /// End the node.
    Stop,
}

/// What a peer says that it has seen: nothing of it was looked at yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heard {
    /// Who says so.
    pub peer: PeerId,
    /// What is said about each topic, in the order in which they were asked.
    pub answers: Vec<Vec<Vec<u8>>>,
}

/// What is asked of the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Question {
    /// Who holds the file with this SHA-256, and under which root?
    Source(Sha256),
    /// What did building this package give?
    Realisations(PkgHash),
    /// Who announced this key? Answered by the DHT alone.
    Providers(Multihash),
}

impl Question {
    /// The key under which providers of an answer announce themselves.
    pub(crate) fn key(&self) -> Multihash {
        match self {
            Self::Source(sha256) => Multihash::sha2_256(sha256),
            Self::Realisations(pkghash) => pkghash.dht_key(),
            Self::Providers(key) => *key,
        }
    }
}

/// One answer to a question.
#[derive(Debug)]
pub(crate) enum Found {
    /// A peer holds the source, as the DAG below this root; how long it says that the file is.
    Root {
        peer: PeerId,
        root: Cid,
        size: Option<u64>,
    },
    /// A peer knows realisations, all verified and about the right package.
    Realisations {
        peer: PeerId,
        realisations: Vec<SignedRealisation>,
    },
    /// A peer announced the key, and where it is as far as the DHT said.
    Provider {
        peer: PeerId,
        addresses: Vec<Multiaddr>,
    },
    /// Nothing more will come.
    Finished {
        /// Who was asked.
        asked: Asked,
        /// Whether the deadline came before the DHT walk ended.
        overdue: bool,
    },
}

/// A session as its user sees it.
#[derive(Debug)]
pub(crate) struct OpenedSession {
    pub(crate) id: SessionId,
    pub(crate) events: mpsc::Receiver<SessionEvent>,
}

/// What a session hears.
#[derive(Debug)]
pub(crate) enum SessionEvent {
    /// A wanted block, verified.
    Block {
        block: Block,
        from: Option<(PeerId, Reach)>,
    },
    /// Nobody has this block.
    Missing { cid: Cid },
    /// A search for providers has ended; all of them that are known are counted.
    Searched(Asked),
}
