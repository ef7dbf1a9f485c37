//! The crate's public machine: client and server of one node behind one set of verbs.

use std::marker::PhantomData;
use std::time::Instant;

use base::Cid;
use bytes::Bytes;

use crate::config::Config;
use crate::event::{Event, LoadId, PeerKey, SessionId, Transmit, TransmitId};
use crate::ledger::{Ledger, SessionStats, Stats};
use crate::message::Message;

/// One node's side of Bitswap.
#[derive(Debug)]
pub struct Exchange<P> {
    peers: PhantomData<P>,
}

#[allow(unused_variables)]
impl<P: PeerKey> Exchange<P> {
    /// A machine that knows nobody. `seed` breaks ties and keys the hash maps: random in a node, fixed in a test.
    pub fn new(config: Config, seed: u64) -> Self {
        Self { peers: PhantomData }
    }

    /// Opens a session.
    pub fn open_session(&mut self, now: Instant) -> SessionId {
        SessionId(0)
    }

    /// Ends a session and withdraws its wants. `None` if there is no such session.
    pub fn close_session(&mut self, session: SessionId, now: Instant) -> Option<SessionStats<P>> {
        None
    }

    /// Adds wants to a session. Each ends in one `Event::Block` or `Event::Missing`, or by `cancel`.
    pub fn want(&mut self, session: SessionId, cids: &[Cid], now: Instant) {}

    /// Withdraws wants of a session.
    pub fn cancel(&mut self, session: SessionId, cids: &[Cid], now: Instant) {}

    /// Names a peer believed to hold the session's content, connected or not.
    pub fn add_provider(&mut self, session: SessionId, peer: P, now: Instant) {}

    /// Tells that the search that `Event::FindProviders` asked for will bring no more peers.
    pub fn search_ended(&mut self, session: SessionId, now: Instant) {}

    /// The first connection to a peer is up.
    pub fn handle_connected(&mut self, peer: P, now: Instant) {}

    /// The last connection to a peer is gone, or it could not be dialled.
    pub fn handle_disconnected(&mut self, peer: P, now: Instant) {}

    /// A message was read.
    pub fn handle_message(&mut self, from: P, message: Message, now: Instant) {}

    /// `bytes` more bytes of a frame that is not complete yet were read: its sender is slow, not silent.
    pub fn handle_receiving(&mut self, from: P, bytes: usize, now: Instant) {}

    /// The transport has written this message.
    pub fn handle_sent(&mut self, to: P, id: TransmitId, now: Instant) {}

    /// The transport could not write this message; the connection is still up.
    pub fn handle_send_failed(&mut self, to: P, id: TransmitId, now: Instant) {}

    /// Answers `Event::Load`: the block's bytes if the store has them.
    pub fn handle_loaded(&mut self, id: LoadId, data: Option<Bytes>) {}

    /// Answers `Event::LoadSize`: the block's size in bytes if the store has it.
    pub fn handle_size(&mut self, id: LoadId, size: Option<u64>) {}

    /// The store has a block that it may not have had before: peers that wait for it are answered.
    pub fn notify_new_block(&mut self, cid: &Cid) {}

    /// The time that `poll_timeout` named has come.
    pub fn handle_timeout(&mut self, now: Instant) {}

    /// The next message to write.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<Transmit<P>> {
        None
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<Event<P>> {
        None
    }

    /// When `handle_timeout` wants to be called next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        None
    }

    /// What a session got so far.
    pub fn session_stats(&self, session: SessionId) -> Option<SessionStats<P>> {
        None
    }

    /// What a connected peer and we exchanged.
    pub fn ledger(&self, peer: P) -> Option<Ledger> {
        None
    }

    /// What the machine holds.
    pub fn stats(&self) -> Stats {
        Stats::default()
    }
}
