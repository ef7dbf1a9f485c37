//! The download limit: while its credit is spent, far peers are asked for no more blocks.
//!
//! Nobody can be told to send slower what was asked for, so it is the asking that waits. What is on its way counts as if it
//! had come: a limit is not overrun by a full window of every peer. Near peers are neither counted nor held up.

use std::time::{Duration, Instant};

use super::{Client, Wake};
use crate::event::SessionId;
use crate::peer::{Peer, PeerIx};
use crate::session::Session;

/// How long a wait may last until it is looked at again: others may have changed the limit meanwhile.
const LOOK_AGAIN_AFTER: Duration = Duration::from_secs(1);

impl Client {
    /// How many more want-blocks a peer may be given now.
    pub(super) fn room(&self, ix: PeerIx, proven: bool, now: Instant) -> usize {
        let Some(peer) = self.peers.get(&ix) else {
            return 0;
        };
        match peer.room(proven, &self.config) {
            0 => 0,
            _ if !peer.is_near() && !self.may_download(now) => 0,
            room => room,
        }
    }

    /// Whether far peers may be asked for more blocks.
    pub(super) fn may_download(&self, now: Instant) -> bool {
        self.download_ready(now).is_ok()
    }

    fn download_ready(&self, now: Instant) -> Result<(), Instant> {
        if !self.config.download.is_limited() {
            return Ok(());
        }
        let far = self.peers.values().filter(|peer| !peer.is_near());
        let coming = far.map(|peer| peer.blocks_waiting * peer.pace.block_bytes());
        self.config.download.ready(coming.sum(), now)
    }

    /// Sees to it that a session goes on when the limit lets it.
    pub(super) fn await_download(&mut self, id: SessionId, now: Instant) {
        if self.sessions.get(&id).is_some_and(Session::is_hungry)
            && let Err(later) = self.download_ready(now)
        {
            self.timers
                .arm(Wake::Download, later.min(now + LOOK_AGAIN_AFTER));
        }
    }

    /// Far peers may be asked again: each in turn, so that none is always the one for which nothing is left.
    pub(super) fn resume_downloads(&mut self, now: Instant) -> Option<Instant> {
        let is_far = |(ix, peer): (&PeerIx, &Peer)| (!peer.is_near()).then_some(*ix);
        let mut far: Vec<PeerIx> = self.peers.iter().filter_map(is_far).collect();
        let first = far.partition_point(|ix| *ix <= self.download_turn);
        far.rotate_left(first);
        for ix in far {
            if !self.may_download(now) {
                break;
            }
            self.refill(ix, now);
            self.download_turn = ix;
        }
        let is_hungry = self.sessions.values().any(Session::is_hungry);
        let later = self.download_ready(now).err().filter(|_| is_hungry)?;
        Some(later.min(now + LOOK_AGAIN_AFTER))
    }
}
