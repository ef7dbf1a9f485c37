//! The two outgoing queues of each peer, as far as the transport's side of them goes: what it has been given and not yet
//! written, and when a failed one may be tried again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::event::TransmitId;
use crate::peer::PeerIx;
use crate::timers::Timers;

/// First pause after a message could not be written; doubles with each further failure (boxo waits 100 ms).
const RETRY_AFTER: Duration = Duration::from_millis(100);
/// Doublings after which the pause stays: 100 ms x 2^6 = 6.4 s.
const RETRY_DOUBLINGS_MAX: u32 = 6;

/// Control lanes: one message under way per peer.
#[derive(Debug)]
pub(crate) struct Lanes {
    peers: BTreeMap<PeerIx, Lane>,
    /// Peers with something to tell and a free lane.
    ready: BTreeSet<PeerIx>,
    retries: Timers<PeerIx>,
}

#[derive(Debug, Default)]
struct Lane {
    under_way: Option<TransmitId>,
    /// There is something to tell as soon as the lane is free.
    pending: bool,
    /// Failures in a row.
    failures: u32,
    paused: bool,
}

impl Lanes {
    pub(crate) const fn new() -> Self {
        Self {
            peers: BTreeMap::new(),
            ready: BTreeSet::new(),
            retries: Timers::new(),
        }
    }

    pub(crate) fn open(&mut self, ix: PeerIx) {
        self.peers.entry(ix).or_default();
    }

    pub(crate) fn close(&mut self, ix: PeerIx) {
        self.peers.remove(&ix);
        self.ready.remove(&ix);
        self.retries.disarm(ix);
    }

    /// There is something to tell this peer.
    pub(crate) fn mark(&mut self, ix: PeerIx) {
        if let Some(lane) = self.peers.get_mut(&ix) {
            lane.pending = true;
            if lane.is_free() {
                self.ready.insert(ix);
            }
        }
    }

    /// A peer that a message can be made for now.
    pub(crate) fn pop_ready(&mut self) -> Option<PeerIx> {
        let ix = self.ready.pop_first()?;
        if let Some(lane) = self.peers.get_mut(&ix) {
            lane.pending = false;
        }
        Some(ix)
    }

    /// A message was made.
    pub(crate) fn begin(&mut self, ix: PeerIx, id: TransmitId) {
        if let Some(lane) = self.peers.get_mut(&ix) {
            lane.under_way = Some(id);
        }
    }

    /// The transport is done with a message. True if it was this lane's.
    pub(crate) fn end(&mut self, ix: PeerIx, id: TransmitId, written: bool, now: Instant) -> bool {
        let Some(lane) = self
            .peers
            .get_mut(&ix)
            .filter(|lane| lane.under_way == Some(id))
        else {
            return false;
        };
        lane.under_way = None;
        if written {
            lane.failures = 0;
        } else {
            let pause = RETRY_AFTER * 2_u32.pow(lane.failures.min(RETRY_DOUBLINGS_MAX));
            lane.failures += 1;
            lane.paused = true;
            self.retries.arm(ix, now + pause);
        }
        self.resume(ix);
        true
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        while let Some(ix) = self.retries.pop_due(now) {
            if let Some(lane) = self.peers.get_mut(&ix) {
                lane.paused = false;
            }
            self.resume(ix);
        }
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.retries.next()
    }

    pub(crate) fn len(&self) -> usize {
        self.peers.len()
    }

    fn resume(&mut self, ix: PeerIx) {
        if self
            .peers
            .get(&ix)
            .is_some_and(|lane| lane.pending && lane.is_free())
        {
            self.ready.insert(ix);
        }
    }
}

impl Lane {
    const fn is_free(&self) -> bool {
        self.under_way.is_none() && !self.paused
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::start;

    #[test]
    fn one_message_is_under_way_and_what_comes_meanwhile_waits() {
        let (mut lanes, now, ix) = (Lanes::new(), start(), PeerIx(1));
        lanes.mark(ix);
        assert_eq!(lanes.pop_ready(), None, "not connected");
        lanes.open(ix);
        lanes.mark(ix);
        assert_eq!(lanes.pop_ready(), Some(ix));
        lanes.begin(ix, TransmitId(1));
        lanes.mark(ix);
        assert_eq!(lanes.pop_ready(), None);
        assert!(
            !lanes.end(ix, TransmitId(2), true, now),
            "another lane's message"
        );
        assert!(lanes.end(ix, TransmitId(1), true, now));
        assert_eq!(lanes.pop_ready(), Some(ix));
        assert_eq!(lanes.pop_ready(), None);
    }

    #[test]
    fn after_a_failure_the_lane_pauses_longer_each_time() {
        let (mut lanes, mut now, ix) = (Lanes::new(), start(), PeerIx(1));
        lanes.open(ix);
        for pause in [100, 200, 400] {
            lanes.mark(ix);
            assert_eq!(lanes.pop_ready(), Some(ix));
            lanes.begin(ix, TransmitId(1));
            lanes.end(ix, TransmitId(1), false, now);
            lanes.mark(ix);
            assert_eq!(lanes.pop_ready(), None);
            now += Duration::from_millis(pause);
            assert_eq!(lanes.poll_timeout(), Some(now));
            lanes.handle_timeout(now);
            assert_eq!(lanes.poll_timeout(), None);
        }
        assert_eq!(lanes.pop_ready(), Some(ix));
    }
}
