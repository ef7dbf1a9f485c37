//! One retrieval: its peers and what each has shown of itself, its queues, its search for more peers.
//!
//! A session asks one peer for each block. While it knows nothing, it sends one optimistic want-block to the best peer and
//! want-haves to the others; a peer that answers HAVE or delivers is *proven* and gets a window of want-blocks of its
//! own. This module is the state; whom to ask is decided in `client/assign.rs`.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::time::Instant;

use base::Cid;

use crate::ledger::Share;
use crate::limits::{DONT_HAVES_IN_A_ROW_MAX, PROBE_AGAIN_AFTER, SEARCH_INTERVAL};
use crate::peer::PeerIx;
use crate::rng::Seeded;

/// Stale queue entries tolerated beside twice the open wants before they are swept.
const QUEUE_SLACK: usize = 64;

#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) peers: BTreeMap<PeerIx, SessionPeer>,
    /// Open wants.
    pub(crate) wants: HashSet<Cid, Seeded>,
    /// Wants nobody was asked for yet, in order.
    pub(crate) fresh: VecDeque<Cid>,
    /// Wants that came back from a peer, and those that only a peer without room could serve.
    pub(crate) retry: VecDeque<Cid>,
    /// Wants that no known peer is left for, by the time they end as missing.
    pub(crate) orphans: VecDeque<Orphan>,
    /// When it began to want something.
    pub(crate) wanting_since: Instant,
    pub(crate) search: Search,
    /// What came from peers that are no longer in `peers`, and what all of them together refused.
    pub(crate) total: Share,
    pub(crate) missing: u64,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Orphan {
    pub(crate) since: Instant,
    pub(crate) due: Instant,
    pub(crate) cid: Cid,
}

/// What a peer has shown to one session.
#[derive(Clone, Debug, Default)]
pub(crate) struct SessionPeer {
    /// It said HAVE or delivered.
    pub(crate) proven: bool,
    /// DONT_HAVEs since.
    pub(crate) dont_haves: u32,
    /// The want-have it was sent to find out, and when, while unanswered.
    pub(crate) probe: Option<(Cid, Instant)>,
    /// It said DONT_HAVE at least once, so that it has not everything.
    pub(crate) lacks: bool,
    /// It asks us for what this session wants: it is fetching the same, and will get what it has not yet.
    pub(crate) fellow: bool,
    /// What it said HAVE to while it could not be asked; may hold wants that have ended.
    pub(crate) offers: VecDeque<Cid>,
    pub(crate) share: Share,
}

impl SessionPeer {
    /// So many DONT_HAVEs in a row that it is asked only where all others failed.
    pub(crate) const fn is_demoted(&self) -> bool {
        self.dont_haves >= DONT_HAVES_IN_A_ROW_MAX && !self.fellow
    }

    /// Whether it is known not to have everything: it is asked what it has before it is asked for it.
    pub(crate) const fn is_partial(&self) -> bool {
        self.lacks || self.fellow
    }

    /// Whether its answer to a want-have is still to be expected, even if the want has ended meanwhile.
    pub(crate) fn is_probed(&self, now: Instant) -> bool {
        self.probe
            .is_some_and(|(_, at)| now < at + PROBE_AGAIN_AFTER)
    }

    pub(crate) const fn prove(&mut self) {
        self.proven = true;
        self.dont_haves = 0;
        self.probe = None;
    }
}

/// The search for providers.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Search {
    /// When the caller was last asked.
    pub(crate) asked_at: Option<Instant>,
    /// It has not said yet that the search ended.
    pub(crate) active: bool,
}

impl Search {
    /// The earliest time to ask again.
    pub(crate) fn next(&self, now: Instant) -> Instant {
        self.asked_at.map_or(now, |at| at + SEARCH_INTERVAL)
    }
}

impl Session {
    pub(crate) fn new(hasher: Seeded, now: Instant) -> Self {
        Self {
            peers: BTreeMap::new(),
            wants: HashSet::with_hasher(hasher),
            fresh: VecDeque::new(),
            retry: VecDeque::new(),
            orphans: VecDeque::new(),
            wanting_since: now,
            search: Search::default(),
            total: Share::default(),
            missing: 0,
        }
    }

    /// Whether some want waits for a peer with room.
    pub(crate) fn is_hungry(&self) -> bool {
        !self.fresh.is_empty() || !self.retry.is_empty()
    }

    /// Whether some of its peers have, or will have, parts only: then it pays to ask for different things than they do.
    pub(crate) fn is_swarm(&self) -> bool {
        self.peers
            .values()
            .any(|member| member.is_partial() && !member.is_demoted())
    }

    pub(crate) fn is_proven(&self, peer: PeerIx) -> bool {
        self.peers.get(&peer).is_some_and(|peer| peer.proven)
    }

    /// Removes an open want; its queue entries are passed over when met, or dropped with the last want.
    pub(crate) fn remove(&mut self, cid: &Cid) {
        self.wants.remove(cid);
        if self.wants.is_empty() {
            self.fresh.clear();
            self.retry.clear();
            self.orphans.clear();
        } else if self.queue_len() > 2 * self.wants.len() + QUEUE_SLACK {
            let wants = &self.wants;
            self.fresh.retain(|cid| wants.contains(cid));
            self.retry.retain(|cid| wants.contains(cid));
            self.orphans.retain(|orphan| wants.contains(&orphan.cid));
        }
    }

    pub(crate) fn queue_len(&self) -> usize {
        self.fresh.len() + self.retry.len() + self.orphans.len()
    }

    /// Counts for the session and for the peer, if it is (still) one of the session's.
    pub(crate) fn count(&mut self, peer: PeerIx, mut add: impl FnMut(&mut Share)) {
        add(&mut self.total);
        if let Some(peer) = self.peers.get_mut(&peer) {
            add(&mut peer.share);
        }
    }
}
