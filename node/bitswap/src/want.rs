//! One open want: which sessions wait for it, who was asked for it, and what they said.

use std::time::Instant;

use base::Cid;

use crate::event::SessionId;
use crate::message::WantType;
use crate::peer::PeerIx;

#[derive(Debug)]
pub(crate) struct Want {
    /// Larger is served first.
    pub(crate) priority: i32,
    /// Never empty. Few, so a list beats a set.
    pub(crate) sessions: Vec<SessionId>,
    /// Whom we asked, at most once each, and what became of it.
    pub(crate) asks: Vec<Ask>,
    pub(crate) place: Place,
    /// Since when nobody was left to ask, if it was not asked since.
    pub(crate) lonely_since: Option<Instant>,
    /// How often a want-block was sent for it.
    pub(crate) tries: u32,
    /// Whether it was taken back from a peer, whose answer may still come.
    pub(crate) moved: bool,
}

/// Where a want waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// In the queue of at least one of its sessions, for a peer with room.
    Queued,
    /// At one or more peers that were sent a want-block.
    Asked,
    /// For a peer that might have it: nobody known is left. `since` tells valid queue entries from stale ones.
    Orphaned { since: Instant },
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Ask {
    pub(crate) peer: PeerIx,
    pub(crate) want_type: WantType,
    /// When it was asked first.
    pub(crate) at: Instant,
    pub(crate) answer: Answer,
    /// It was a want-have that nobody had answered. A small block may come in answer to either, and so twice.
    pub(crate) upgraded: bool,
    /// It had said HAVE before it was asked. If it has not after all, it is not believed again.
    pub(crate) said_have: bool,
}

/// What a peer said to a want.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Nothing yet.
    Waiting,
    /// Nothing, and it is overdue; the want may be given to others. The peer may still deliver.
    Late,
    /// HAVE.
    Has,
    /// DONT_HAVE, or silence for so long that it counts as one.
    HasNot,
}

impl Want {
    pub(crate) fn new(priority: i32, session: SessionId) -> Self {
        Self {
            priority,
            sessions: vec![session],
            asks: Vec::new(),
            place: Place::Queued,
            lonely_since: None,
            tries: 0,
            moved: false,
        }
    }

    pub(crate) fn ask(&self, peer: PeerIx) -> Option<&Ask> {
        self.asks.iter().find(|ask| ask.peer == peer)
    }

    pub(crate) fn ask_mut(&mut self, peer: PeerIx) -> Option<&mut Ask> {
        self.asks.iter_mut().find(|ask| ask.peer == peer)
    }

    /// Removes what is known of one peer and returns it.
    pub(crate) fn forget(&mut self, peer: PeerIx) -> Option<Ask> {
        let position = self.asks.iter().position(|ask| ask.peer == peer)?;
        Some(self.asks.swap_remove(position))
    }

    /// Peers that were sent a want-block and may still answer in time.
    pub(crate) fn in_flight(&self) -> usize {
        self.asks.iter().filter(|ask| ask.is_in_flight()).count()
    }

    /// Whether a want-block could go to this peer: it has said nothing against it and is not already trying.
    pub(crate) fn allows(&self, peer: PeerIx) -> bool {
        self.ask(peer).is_none_or(|ask| match ask.answer {
            Answer::Has => true,
            Answer::Waiting => ask.want_type == WantType::Have,
            Answer::Late | Answer::HasNot => false,
        })
    }
}

impl Ask {
    pub(crate) fn is_in_flight(&self) -> bool {
        self.want_type == WantType::Block && self.answer == Answer::Waiting
    }

    /// Whether an answer is still owed.
    pub(crate) const fn is_open(&self) -> bool {
        matches!(self.answer, Answer::Waiting | Answer::Late)
    }

    /// Whether the remote still has the want in its list, so that it needs a cancel.
    pub(crate) fn is_told(&self) -> bool {
        match self.answer {
            Answer::Waiting | Answer::Late => true,
            Answer::Has => false,
            // A want-have stays, in case the block arrives there; what is left of want-blocks has been taken back.
            Answer::HasNot => self.want_type == WantType::Have,
        }
    }
}

/// Wants withdrawn from one peer lately: a block or HAVE that crosses our cancel is late, not a lie.
#[derive(Debug, Default)]
pub(crate) struct Withdrawn {
    /// Oldest first. Short in any healthy exchange: only wants that were withdrawn while unanswered come here.
    wants: std::collections::VecDeque<(Instant, Cid, SessionId)>,
}

impl Withdrawn {
    /// Most entries looked at from the newest on. An answer crosses a cancel within a round trip or two.
    const MAX: usize = crate::limits::WITHDRAWN_PER_PEER_MAX;

    pub(crate) fn add(&mut self, cid: Cid, session: SessionId, now: Instant) {
        if self.wants.len() == Self::MAX {
            self.wants.pop_front();
        }
        self.wants.push_back((now, cid, session));
    }

    pub(crate) fn contains(&self, cid: &Cid) -> bool {
        self.wants.iter().any(|(_, withdrawn, _)| withdrawn == cid)
    }

    /// The session that had wanted it, if it was withdrawn lately; each withdrawal excuses one answer.
    pub(crate) fn take(&mut self, cid: &Cid) -> Option<SessionId> {
        let position = self
            .wants
            .iter()
            .position(|(_, withdrawn, _)| withdrawn == cid)?;
        self.wants.remove(position).map(|(_, _, session)| session)
    }

    /// Drops what is too old to matter; the time when the next entry will be.
    pub(crate) fn expire(&mut self, now: Instant) -> Option<Instant> {
        loop {
            let due = self.wants.front()?.0 + crate::limits::WITHDRAWN_FOR;
            if due > now {
                return Some(due);
            }
            self.wants.pop_front();
        }
    }

    pub(crate) fn clear(&mut self) {
        self.wants.clear();
    }

    #[cfg(any(test, feature = "sim"))]
    pub(crate) fn len(&self) -> usize {
        self.wants.len()
    }
}
