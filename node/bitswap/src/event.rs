//! What the machine tells its caller: events, transmits, and the ids that tie answers to them.

use base::Cid;

use crate::message::Message;

/// What a peer is called. Any small copyable id will do; `node` uses libp2p's `PeerId`, the simulator an integer.
pub trait PeerKey: Copy + Ord + std::hash::Hash + std::fmt::Debug {}

impl<T: Copy + Ord + std::hash::Hash + std::fmt::Debug> PeerKey for T {}

/// How far a peer is. The near come first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reach {
    /// On our own network, where bytes cost nothing.
    Near,
    /// Anywhere else.
    #[default]
    Far,
}

/// A group of wants fetched from one set of peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub(crate) u64);

/// Ties the store's answer to the [`Event::Load`] or [`Event::LoadSize`] that asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LoadId(pub(crate) u64);

/// Ties the transport's report to the [`Transmit`] it is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TransmitId(pub(crate) u64);

/// Which of a peer's two outgoing queues a message belongs to, so that wants never wait behind a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// Wants, cancels, HAVE and DONT_HAVE: small and urgent. Order matters; at most one is under way per peer.
    Control,
    /// Blocks. At most [`RESPONSES_PER_PEER_MAX`](crate::limits::RESPONSES_PER_PEER_MAX) are under way per peer; each
    /// may travel on a stream of its own.
    Blocks,
}

/// A message to be written to a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transmit<P> {
    /// To be handed back by `handle_sent` or `handle_send_failed`.
    pub id: TransmitId,
    /// Who gets it.
    pub to: P,
    /// The queue it belongs to.
    pub lane: Lane,
    /// What to write: `message.encode(version)`.
    pub message: Message,
}

/// Why a peer is no longer asked for anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Misbehaviour {
    /// It kept sending blocks that nobody asked it for; wrong bytes under a right name look exactly so.
    UnrequestedBlocks,
    /// It sent a block above the 2 MiB that the specification allows.
    OversizeBlock,
}

/// Something the caller should know or do.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event<P> {
    /// A wanted block arrived; its bytes hash to the CID.
    Block {
        /// Every session that wanted it.
        sessions: Vec<SessionId>,
        /// The CID as it was wanted.
        cid: Cid,
        /// The bytes, verified; a slice of the frame they came in.
        block: base::Block,
        /// Who sent it; nobody if it follows from the CID alone (the empty block).
        from: Option<P>,
    },
    /// A session needs (more) peers for this want: look for providers, name them by `add_provider`, then tell
    /// `search_ended`. Only roots are announced in the DHT, so the caller may look for the session's root instead.
    FindProviders {
        /// The session that lacks peers.
        session: SessionId,
        /// The want that made it ask.
        cid: Cid,
    },
    /// A session wants to talk to a peer that is not connected. Answer with `handle_connected`, or with
    /// `handle_disconnected` if it cannot be reached.
    Connect {
        /// Whom to dial.
        peer: P,
    },
    /// No known peer has it: all said DONT_HAVE or stayed silent, and the search brought nobody in time. The session no
    /// longer wants it.
    Missing {
        /// The session that wanted it.
        session: SessionId,
        /// What it wanted.
        cid: Cid,
    },
    /// Read this block for a peer whose stream can take it now; answer by `handle_loaded`.
    Load {
        /// To be handed back.
        id: LoadId,
        /// What to read, under the CID the peer used.
        cid: Cid,
    },
    /// Look up this block's size; answer by `handle_size`.
    LoadSize {
        /// To be handed back.
        id: LoadId,
        /// Which block, under the CID the peer used.
        cid: Cid,
    },
    /// The peer broke the protocol's rules. Its wants have been given to others, and it is asked for nothing as long as
    /// a session that knew it is open.
    PeerMisbehaved {
        /// Who.
        peer: P,
        /// How.
        what: Misbehaviour,
    },
}
