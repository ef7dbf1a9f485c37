//! Every size, count and time this crate is bounded by, each with its unit and the place it comes from.
//!
//! What a user may want to change is in [`Config`](crate::Config), whose defaults are these.

use std::time::Duration;

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

// ---- the wire ----

/// Longest protobuf message in bytes. Kubo and Helia both read up to 4 MiB and reset the stream above it.
pub const MESSAGE_BYTES_MAX: usize = 4 * MIB;
/// Largest block in bytes: the specification makes 2 MiB the size that everyone must accept and nobody may exceed.
pub const BLOCK_BYTES_MAX: usize = 2 * MIB;
/// Longest binary CID in bytes that is looked at: four varints of ten bytes and a digest of 128 (boxo's bound).
pub const CID_BYTES_MAX: usize = 168;
/// Shortest digest in bytes of a CID that is looked at (boxo's `verifcid`); shorter ones secure nothing.
pub const DIGEST_BYTES_MIN: usize = 20;
/// Bytes of an announced frame that are reserved before any of them arrived. A peer must really send this much before
/// the rest is reserved, so a thousand streams that announce 4 MiB and stall cost 64 KiB each.
pub const FRAME_COMMIT_BYTES: usize = 64 * KIB;

// ---- wants ----

/// Most wants told to one peer at a time: boxo drops silently what exceeds 1024 (`MaxQueuedWantlistEntriesPerPeer`).
pub const WANTS_PER_PEER_MAX: usize = 1024;
/// Most entries in one wantlist message, as boxo cuts them: keeps the first answers from waiting for the last want.
pub const ENTRIES_PER_MESSAGE_MAX: usize = 256;
/// Priority of the first want; later ones count down, as in boxo.
pub const PRIORITY_FIRST: i32 = i32::MAX;
/// Most want-blocks in flight to one peer. 64 wants of 256 KiB cover 160 MB/s at 100 ms.
pub const WINDOW_WANTS_MAX: usize = 64;
/// Most bytes in flight from one peer: bandwidth x delay of 1 Gbit/s at 250 ms.
pub const WINDOW_BYTES_MAX: usize = 32 * MIB;
/// Bytes up to which small blocks may exceed [`WINDOW_WANTS_MAX`]: a directory of small files is not bound to 64 of them
/// per round trip.
pub const WINDOW_SMALL_BYTES: usize = MIB;
/// Want-blocks in flight to a peer that is known to hold the content but whose rate is not known yet.
pub const WINDOW_WANTS_FIRST: usize = 8;
/// Want-blocks in flight to a peer that has proven nothing: one optimistic want.
pub const WINDOW_WANTS_UNPROVEN: usize = 1;
/// Want-blocks in flight to the slowest peer: one on its way and one for the server to go on with.
pub const WINDOW_WANTS_MIN: usize = 2;
/// What a peer's window covers beyond two round trips. Long enough to hide a scheduler's or a disk's hiccup, short
/// enough that a peer which turns slow holds little.
pub const WINDOW_SLACK: Duration = Duration::from_millis(300);
/// Most bytes that the slack asks for: a peer on the same machine sends 300 ms in a hundred megabytes, all of which would lie
/// in memory.
pub const WINDOW_SLACK_BYTES_MAX: usize = 8 * MIB;
/// Size assumed for a block before one has arrived: Kubo's chunk size for twelve years, a quarter of ours.
pub const BLOCK_BYTES_GUESS: usize = 256 * KIB;

// ---- sessions ----

/// Most peers one session asks. More than a few dozen sources only add duplicate risk and bookkeeping.
pub const SESSION_PEERS_MAX: usize = 64;
/// Peers of a session up to which those join it that ask us for what it wants: room is left for those who are named to it.
pub const SESSION_FELLOWS_MAX: usize = SESSION_PEERS_MAX / 2;
/// Most unproven peers that are sent a want-have beside one want-block.
pub const PROBES_PER_WANT_MAX: usize = 8;
/// Time after which an unproven peer that did not answer a want-have is sent another. An answer that crosses our cancel
/// comes sooner, and asking again before it would only make small blocks come twice.
pub const PROBE_AGAIN_AFTER: Duration = Duration::from_secs(1);
/// Peers that a new session inherits because they served us before (Kubo >= 0.36 limits broadcasts the same way).
pub const SESSION_PEERS_INHERITED: usize = 8;
/// DONT_HAVEs in a row after which a session stops preferring a peer (boxo's `peerDontHaveLimit`).
pub const DONT_HAVES_IN_A_ROW_MAX: u32 = 16;
/// Want-blocks sent for one want before it counts as missing: every peer of a session twice. Ends what a peer that
/// reconnects for ever would keep alive.
pub const TRIES_MAX: u32 = 2 * SESSION_PEERS_MAX as u32;
/// Wants of a slow peer that are looked at for one that a faster idle peer may take over.
pub const STEAL_SCAN_MAX: usize = 8;
/// Queued wants with exclusions that are looked at per assignment, so that no step scans a whole queue.
pub const RETRY_SCAN_MAX: usize = 16;
/// Beside others who fetch the same, one want in so many is the first in order: what is written in order must get on, too.
pub const IN_ORDER_ONE_IN: u64 = 4;
/// Wants one session assigns before the next session of the same peer has its turn.
pub const SESSION_TURN_WANTS: usize = 8;

// ---- time ----

/// Stall timeout before any latency is known (boxo's default for its simulated DONT_HAVE).
pub const STALL_FIRST: Duration = Duration::from_secs(5);
/// Shortest stall timeout. boxo goes down to 50 ms; one TCP retransmission takes at least 200 ms, so below twice that
/// every lost packet would look like a dead peer and cost a duplicate.
pub const STALL_MIN: Duration = Duration::from_millis(500);
/// Longest stall timeout (boxo's upper clamp).
pub const STALL_MAX: Duration = Duration::from_secs(7);
/// Partial bytes that count as progress against a stall: below 16 KiB per stall timeout a peer is as good as silent.
pub const PROGRESS_BYTES: usize = 16 * KIB;
/// Age at which an unanswered want is sent again (boxo's rebroadcast interval).
pub const RESEND_AFTER: Duration = Duration::from_secs(30);
/// Silence after which an unanswered want counts as refused: three sendings.
pub const SILENCE_MAX: Duration = Duration::from_secs(90);
/// Age at which an unanswered want counts as refused although its peer answers others.
pub const WANT_AGE_MAX: Duration = Duration::from_secs(300);
/// How long a want without any candidate peer waits for `FindProviders` to bring one (boxo's provider query timeout).
pub const PROVIDERS_DEADLINE: Duration = Duration::from_secs(10);
/// How long a session's first peers may stay silent before providers are looked for (boxo's `ProvSearchDelay`).
pub const SEARCH_DELAY: Duration = Duration::from_secs(1);
/// Shortest time between two searches of a session that lacks candidates.
pub const SEARCH_INTERVAL: Duration = Duration::from_secs(10);
/// Time between searches of a session that is getting on (boxo's periodic search): a second source may have appeared.
pub const SEARCH_PERIOD: Duration = Duration::from_secs(60);
/// How long a peer that never delivered keeps its first wants before an idle one may take them.
pub const STEAL_PATIENCE: Duration = Duration::from_millis(500);
/// How much longer than twice an idle peer's time a busy peer must need before a queued want moves over: hides jitter.
pub const STEAL_MARGIN: Duration = Duration::from_millis(250);
/// The same before a want that is probably on its way already is asked for twice: a duplicate must save something.
pub const DUPLICATE_MARGIN: Duration = Duration::from_millis(500);
/// How often a session with nothing left to assign looks whether an idle peer should help a slow one.
pub const TAIL_TICK: Duration = Duration::from_millis(250);
/// How long an orphaned want that still awaits somebody's answer is left alone before it is looked at again.
pub const ORPHAN_TICK: Duration = Duration::from_millis(500);
/// How long an asked-for connection may take before the peer counts as unreachable.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// First pause before a lost peer of a session is dialled again; it grows fourfold.
pub const RECONNECT_AFTER: Duration = Duration::from_millis(100);
/// Failed dials in a row after which a session gives a lost peer up.
pub const RECONNECTS_MAX: u32 = 3;

// ---- the server ----

/// Wants kept for one peer (boxo's `MaxQueuedWantlistEntriesPerPeer`).
pub const SERVED_WANTS_PER_PEER_MAX: usize = 1024;
/// Blocks up to this many bytes are sent instead of a HAVE (boxo's `wantHaveReplaceSize`).
pub const HAVE_REPLACE_BYTES_MAX: usize = 1024;
/// Sent blocks remembered, to send others first: some windows of 32 blocks for as many peers, at 200 bytes each.
pub const SENT_REMEMBERED_MAX: usize = 4096;
/// Queued blocks of one peer that are looked at for the one that was sent least.
pub const RAREST_SCAN_MAX: usize = 64;
/// Block bytes put into one message; a single larger block travels alone. A message is of use to its receiver only when
/// it is there whole: with 1 MiB of small blocks in each, a 10 Mbit/s link would stand still for a round trip each second.
/// Larger messages gained nothing even at 300 MB/s.
pub const RESPONSE_BYTES_TARGET: usize = 128 * KIB;
/// Block bytes read for one peer and not yet taken by its stream: one largest block, or a few messages of small ones.
pub const RESPONSE_BYTES_PER_PEER_MAX: usize = 2 * MIB;
/// Block messages handed to one peer's transport and not yet written.
pub const RESPONSES_PER_PEER_MAX: usize = 4;
/// Block bytes read for all peers and not yet taken by their streams: what serving may cost in memory.
pub const RESPONSE_BYTES_TOTAL_MAX: usize = 32 * MIB;
/// Block reads asked of the store and not yet answered.
pub const LOADS_MAX: usize = 64;
/// Size look-ups asked of the store and not yet answered.
pub const SIZE_LOADS_MAX: usize = 256;

// ---- misbehaviour ----

/// Bytes of blocks nobody asked for that a peer may send (beside an eighth of its useful ones): one full message.
pub const UNREQUESTED_BYTES_MAX: usize = 4 * MIB;
/// Blocks nobody asked for at which a peer is dropped (an eighth of its useful ones come on top). Answers that crossed a
/// cancel are remembered and not counted, so an honest peer sends none; the second one is no accident.
pub const UNREQUESTED_BLOCKS_MAX: usize = 2;
/// Withdrawn wants remembered per peer, so that an answer which crossed the cancel is no misbehaviour.
pub const WITHDRAWN_PER_PEER_MAX: usize = 1024;
/// How long a withdrawn want is remembered.
pub const WITHDRAWN_FOR: Duration = Duration::from_secs(30);

/// Slowest reader that is still served, in bytes per second (boxo: 100 kbit/s).
const SEND_BYTES_PER_SEC_MIN: u64 = 12_500;

/// How long the transport may take to write a message before it should reset the stream and report the failure.
///
/// boxo's rule: 2 s plus the size at 12.5 kB/s, between 10 s and 2 min. Without it a reader that never reads would hold
/// its share of [`RESPONSE_BYTES_TOTAL_MAX`] for ever.
pub fn send_timeout(bytes: usize) -> Duration {
    let transfer = Duration::from_secs(bytes as u64 / SEND_BYTES_PER_SEC_MIN);
    (Duration::from_secs(2) + transfer).clamp(Duration::from_secs(10), Duration::from_secs(120))
}

// A full response with one largest block on top still fits a message.
const _: () = assert!(RESPONSE_BYTES_TARGET + BLOCK_BYTES_MAX < MESSAGE_BYTES_MAX);
const _: () = assert!(BLOCK_BYTES_MAX <= RESPONSE_BYTES_PER_PEER_MAX);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_send_timeout_follows_the_size_within_its_bounds() {
        assert_eq!(send_timeout(0), Duration::from_secs(10));
        assert_eq!(send_timeout(MIB), Duration::from_secs(85));
        assert_eq!(send_timeout(MESSAGE_BYTES_MAX), Duration::from_secs(120));
    }
}
