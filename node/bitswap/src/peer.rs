//! What the client knows of one peer: whether it can be reached, how fast it is, and what it was asked.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::config::Config;
use crate::event::{Reach, SessionId};
use crate::ledger::Ledger;
use crate::limits::{
    PROGRESS_BYTES, RECONNECT_AFTER, RECONNECTS_MAX, STEAL_PATIENCE, UNREQUESTED_BLOCKS_MAX,
    UNREQUESTED_BYTES_MAX, WINDOW_WANTS_UNPROVEN,
};
use crate::message::WantType;
use crate::pace::Pace;
use crate::rng::Rng;
use crate::want::Withdrawn;
use crate::wantlist::Wantlist;

/// A peer inside the machine: a small number that is never used for another peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct PeerIx(pub(crate) u64);

/// Whether a peer can be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Link {
    Up,
    /// The caller was asked to connect.
    Dialling {
        until: Instant,
    },
    /// It was lost or could not be reached; another try follows.
    Pausing {
        until: Instant,
    },
    /// Not connected and not needed.
    Idle,
    /// It could not be reached.
    Lost,
}

#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) link: Link,
    pub(crate) reach: Reach,
    /// Dials that failed in a row.
    failures: u32,
    /// Whether it was ever connected: a peer that was deserves more dials than one only heard of.
    was_up: bool,
    /// Sessions that may ask it.
    pub(crate) sessions: BTreeSet<SessionId>,
    /// The session whose turn was last.
    pub(crate) turn: SessionId,
    pub(crate) pace: Pace,
    pub(crate) list: Wantlist,
    pub(crate) withdrawn: Withdrawn,
    /// Unanswered asks of either kind, late ones not counted.
    waiting: usize,
    /// Want-blocks among them.
    pub(crate) blocks_waiting: usize,
    /// Last sign of progress: an answer, part of one, or the end of idleness.
    pub(crate) silent_since: Instant,
    /// Last complete answer, or the end of idleness.
    pub(crate) answered_at: Instant,
    /// Made no progress for too long; is asked for nothing new until it answers.
    pub(crate) stalled: bool,
    /// Broke the rules; is asked for nothing as long as a session remembers it.
    pub(crate) banned: bool,
    /// Bytes of unfinished frames since the last sign of progress.
    partial_bytes: usize,
    pub(crate) ledger: Ledger,
    /// Breaks ties between equals, differently for each machine.
    pub(crate) salt: u64,
}

impl Peer {
    pub(crate) fn new(rng: &mut Rng, now: Instant) -> Self {
        Self {
            link: Link::Idle,
            reach: Reach::Far,
            failures: 0,
            was_up: false,
            sessions: BTreeSet::new(),
            turn: SessionId(0),
            pace: Pace::new(now),
            list: Wantlist::new(rng.hasher()),
            withdrawn: Withdrawn::default(),
            waiting: 0,
            blocks_waiting: 0,
            silent_since: now,
            answered_at: now,
            stalled: false,
            banned: false,
            partial_bytes: 0,
            ledger: Ledger::default(),
            salt: rng.next(),
        }
    }

    /// Connected, responsive and honest as far as we know.
    pub(crate) fn is_usable(&self) -> bool {
        self.link == Link::Up && !self.stalled && !self.banned
    }

    /// Whether it is of our own network, where no limit counts.
    pub(crate) const fn is_near(&self) -> bool {
        matches!(self.reach, Reach::Near)
    }

    /// Not connected, but it may be soon.
    pub(crate) const fn is_coming(&self) -> bool {
        matches!(self.link, Link::Dialling { .. } | Link::Pausing { .. })
    }

    /// How many more want-blocks it may be given.
    ///
    /// A nearly full window counts as full, so that wants go out in batches and not one message per block.
    pub(crate) fn room(&self, proven: bool, config: &Config) -> usize {
        if !self.is_usable() || !self.list.has_room() {
            return 0;
        }
        if !proven {
            return WINDOW_WANTS_UNPROVEN.saturating_sub(self.blocks_waiting);
        }
        let window = self.pace.window(config);
        let room = window.saturating_sub(self.blocks_waiting);
        if room * 4 < window && self.blocks_waiting > 0 {
            0
        } else {
            room
        }
    }

    /// Something was asked of it. If it was idle, its clocks start.
    pub(crate) fn add_waiting(&mut self, want_type: WantType, now: Instant) {
        if self.waiting == 0 {
            self.silent_since = now;
            self.answered_at = now;
        }
        self.waiting += 1;
        if want_type == WantType::Block {
            if self.blocks_waiting == 0 {
                self.pace.begin(now);
            }
            self.blocks_waiting += 1;
        }
    }

    /// Something asked of it is waited for no longer.
    pub(crate) const fn drop_waiting(&mut self, want_type: WantType) {
        self.waiting = self.waiting.saturating_sub(1);
        if matches!(want_type, WantType::Block) {
            self.blocks_waiting = self.blocks_waiting.saturating_sub(1);
        }
    }

    /// Nothing is waited for any longer.
    pub(crate) const fn drop_all_waiting(&mut self) {
        self.waiting = 0;
        self.blocks_waiting = 0;
    }

    /// When its silence becomes a stall.
    pub(crate) fn stall_due(&self) -> Option<Instant> {
        (self.waiting > 0 && !self.stalled).then(|| self.silent_since + self.pace.stall_timeout())
    }

    /// A complete answer came.
    pub(crate) fn answered(&mut self, now: Instant) {
        self.silent_since = now;
        self.answered_at = now;
        self.partial_bytes = 0;
    }

    /// Part of a frame came.
    pub(crate) fn receiving(&mut self, bytes: usize, now: Instant) {
        self.partial_bytes += bytes;
        if self.partial_bytes >= PROGRESS_BYTES {
            self.partial_bytes = 0;
            self.silent_since = now;
        }
    }

    pub(crate) fn connected(&mut self) {
        self.link = Link::Up;
        self.failures = 0;
        self.was_up = true;
    }

    /// It could not be reached, or was lost; `needed` if a session still has wants for it.
    pub(crate) fn disconnected(&mut self, needed: bool, now: Instant) {
        let dialled = self.is_coming();
        self.failures += u32::from(dialled);
        let failures_max = if self.was_up { RECONNECTS_MAX } else { 1 };
        self.link = if self.failures >= failures_max {
            Link::Lost
        } else if needed {
            Link::Pausing {
                until: now + RECONNECT_AFTER * 4_u32.pow(self.failures),
            }
        } else {
            Link::Idle
        };
        self.list.reset();
        self.withdrawn.clear();
        self.drop_all_waiting();
        self.partial_bytes = 0;
        self.stalled = false;
    }

    /// Forgives earlier failed dials: somebody named the peer anew.
    pub(crate) const fn forgive(&mut self) {
        self.failures = 0;
        self.was_up = false;
    }

    /// Whether it has sent more of what nobody asked for than a confused but honest peer would.
    pub(crate) const fn floods(&self) -> bool {
        let Ledger {
            blocks_unrequested,
            bytes_unrequested,
            ..
        } = self.ledger;
        let blocks_max = UNREQUESTED_BLOCKS_MAX as u64 + self.ledger.blocks_received / 8;
        let bytes_max = UNREQUESTED_BYTES_MAX as u64 + self.ledger.bytes_received / 8;
        blocks_unrequested >= blocks_max || bytes_unrequested > bytes_max
    }

    /// When it should have delivered all it was asked for, counted from now. One that is overdue may need as long again.
    pub(crate) fn remaining(&self, now: Instant) -> Option<Duration> {
        let asked_at = self.list.latest_since()?;
        let elapsed = now.saturating_duration_since(asked_at);
        match self.pace.block_latency() {
            Some(latency) if elapsed < latency => Some(latency - elapsed),
            None if elapsed < STEAL_PATIENCE => None,
            Some(_) | None => Some(elapsed),
        }
    }

    /// How long it should take over something that is asked of it now.
    pub(crate) fn turnaround(&self) -> Duration {
        self.pace
            .block_latency()
            .unwrap_or_else(|| self.pace.eta(1))
    }
}
