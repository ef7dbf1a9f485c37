//! Ledgers: what went over to a peer and what came back, and what each session got from whom.
//!
//! Bitswap's ledgers once decided whom to serve. Here, as in Kubo today, they only inform: there is no credit and no
//! refusal by debt.

use crate::event::PeerKey;

/// Blocks and bytes that one peer and we exchanged since it connected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// Blocks sent to it.
    pub blocks_sent: u64,
    /// Block bytes sent to it.
    pub bytes_sent: u64,
    /// Blocks it sent that were wanted.
    pub blocks_received: u64,
    /// Block bytes it sent that were wanted.
    pub bytes_received: u64,
    /// Blocks it sent that had been asked for and had arrived from elsewhere, or were no longer wanted.
    pub blocks_duplicate: u64,
    /// Bytes of these.
    pub bytes_duplicate: u64,
    /// Blocks it sent that nobody had asked it for.
    pub blocks_unrequested: u64,
    /// Bytes of these.
    pub bytes_unrequested: u64,
}

impl Ledger {
    /// Bytes it gave us beyond what we gave it; negative when it is we who gave more.
    pub const fn debt_bytes(&self) -> i64 {
        self.bytes_received.cast_signed() - self.bytes_sent.cast_signed()
    }

    pub(crate) const fn add_sent(&mut self, bytes: usize) {
        self.blocks_sent += 1;
        self.bytes_sent += bytes as u64;
    }

    pub(crate) const fn add_received(&mut self, bytes: usize) {
        self.blocks_received += 1;
        self.bytes_received += bytes as u64;
    }

    pub(crate) const fn add_duplicate(&mut self, bytes: usize) {
        self.blocks_duplicate += 1;
        self.bytes_duplicate += bytes as u64;
    }

    pub(crate) const fn add_unrequested(&mut self, bytes: usize) {
        self.blocks_unrequested += 1;
        self.bytes_unrequested += bytes as u64;
    }

    pub(crate) const fn add(&mut self, other: &Self) {
        self.blocks_sent += other.blocks_sent;
        self.bytes_sent += other.bytes_sent;
        self.blocks_received += other.blocks_received;
        self.bytes_received += other.bytes_received;
        self.blocks_duplicate += other.blocks_duplicate;
        self.bytes_duplicate += other.bytes_duplicate;
        self.blocks_unrequested += other.blocks_unrequested;
        self.bytes_unrequested += other.bytes_unrequested;
    }
}

/// What one session got from one peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// Wanted blocks.
    pub blocks: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Blocks that were wanted and arrived from elsewhere before.
    pub duplicate_blocks: u64,
    /// Their bytes.
    pub duplicate_bytes: u64,
    /// How often it said DONT_HAVE.
    pub dont_haves: u64,
    /// How often its wants were given to others because it made no progress.
    pub stalls: u64,
}

/// What one session got, and from whom. A block that several sessions wanted counts for each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionStats<P> {
    /// Wants that are still open.
    pub wants: usize,
    /// Wants that ended as `Missing`.
    pub missing: u64,
    /// Sum over all peers, those that left included.
    pub total: Share,
    /// Every peer the session asked, by peer.
    pub peers: Vec<(P, Share)>,
}

impl<P: PeerKey> SessionStats<P> {
    /// Duplicate bytes as a share of all bytes received, between 0 and 1.
    pub fn duplicate_ratio(&self) -> f64 {
        let all = self.total.bytes + self.total.duplicate_bytes;
        if all == 0 {
            0.0
        } else {
            self.total.duplicate_bytes as f64 / all as f64
        }
    }
}

/// What the machine holds and has done; all counts are now, but for `total`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Connected peers.
    pub peers: usize,
    /// Open sessions.
    pub sessions: usize,
    /// Open wants of all sessions; a want that two sessions share counts once.
    pub wants: usize,
    /// Wants of others that are remembered or being served.
    pub served_wants: usize,
    /// Block reads and size look-ups asked of the store and not yet answered.
    pub loads: usize,
    /// Block bytes read for others and not yet taken by their streams.
    pub response_bytes: usize,
    /// Sum of all ledgers, those of peers that left included.
    pub total: Ledger,
}
