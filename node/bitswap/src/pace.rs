//! How fast a peer is, and so how much may be in flight from it.
//!
//! The window is what the peer delivers in two round trips and a slack: it doubles per round trip while the peer keeps
//! up, and settles where the peer's own speed, not our asking, is the limit. Since each peer takes new wants as it
//! delivers old ones, a session's wants spread over its peers in proportion to their speed, and a slow peer never holds
//! more than a moment's worth of work.

use std::time::{Duration, Instant};

use crate::config::Config;
use crate::limits::{
    BLOCK_BYTES_GUESS, STALL_FIRST, STALL_MAX, STALL_MIN, WANTS_PER_PEER_MAX, WINDOW_SLACK,
    WINDOW_SLACK_BYTES_MAX, WINDOW_SMALL_BYTES, WINDOW_WANTS_FIRST, WINDOW_WANTS_MIN,
};

/// Shortest time over which a rate is measured, if a round trip is not longer: shorter bursts say more about scheduling
/// than about the peer.
const SAMPLE_MIN: Duration = Duration::from_millis(100);
/// Rate assumed for a peer that has delivered nothing yet, in bytes per second: one that compares badly with any known
/// good one and well with a bad one.
const RATE_GUESS: f64 = 1e6;
/// Round trip assumed before one is known.
const LATENCY_GUESS: Duration = Duration::from_millis(100);
/// The share of the expected block size that is given up per smaller block: a few small nodes between large leaves
/// change little, a run of small leaves is noticed within a window.
const BLOCK_DECAY: usize = 4;

#[derive(Clone, Debug)]
pub(crate) struct Pace {
    /// Bytes per second, once measured.
    rate: Option<f64>,
    /// Smoothed time from want to answer (boxo's average with weight one half); includes the time in the peer's queue.
    latency: Option<Duration>,
    /// Smoothed time from want-block to block.
    block_latency: Option<Duration>,
    /// Shortest time from want to answer: the round trip without queueing.
    floor: Option<Duration>,
    /// Size that blocks are expected to have: the largest of late, once there was one.
    block_bytes: Option<usize>,
    sample_start: Instant,
    sample_bytes: usize,
    /// Since when in this sample the peer has had all the wants it was allowed. If that is not a round trip ago, it was
    /// our asking that was slow.
    sample_filled: Option<Instant>,
    /// Whether the rate was ever measured while the peer had all the wants it was allowed.
    rate_filled: bool,
}

impl Pace {
    pub(crate) const fn new(now: Instant) -> Self {
        Self {
            rate: None,
            latency: None,
            block_latency: None,
            floor: None,
            block_bytes: None,
            sample_start: now,
            sample_bytes: 0,
            sample_filled: None,
            rate_filled: false,
        }
    }

    /// Bytes per second, if it ever delivered.
    pub(crate) const fn rate(&self) -> Option<f64> {
        self.rate
    }

    /// What size the next block is expected to have, in bytes.
    pub(crate) fn block_bytes(&self) -> usize {
        self.block_bytes.unwrap_or(BLOCK_BYTES_GUESS)
    }

    /// The peer goes from idle to busy: idle time is no part of its rate.
    pub(crate) const fn begin(&mut self, now: Instant) {
        self.sample_start = now;
        self.sample_bytes = 0;
        self.sample_filled = None;
    }

    /// The peer has as many wants as its window allows.
    pub(crate) fn filled(&mut self, now: Instant) {
        self.sample_filled.get_or_insert(now);
    }

    /// An answer came `latency` after its want.
    pub(crate) fn on_answer(&mut self, latency: Duration) {
        self.latency = Some(
            self.latency
                .map_or(latency, |average| (average + latency) / 2),
        );
        self.floor = Some(self.floor.map_or(latency, |floor| floor.min(latency)));
    }

    /// A block came `latency` after its want-block.
    pub(crate) fn on_block_answer(&mut self, latency: Duration) {
        self.block_latency = Some(
            self.block_latency
                .map_or(latency, |average| (average + latency) / 2),
        );
    }

    /// How long a want-block sent now should take, with about as much queued before it as there used to be.
    pub(crate) fn block_latency(&self) -> Option<Duration> {
        self.block_latency
    }

    /// A block of `bytes` came in.
    pub(crate) fn on_block(&mut self, bytes: usize, now: Instant) {
        let decayed = self
            .block_bytes
            .map_or(0, |known| known - known / BLOCK_DECAY);
        self.block_bytes = Some(bytes.max(decayed).max(1));
        self.sample_bytes += bytes;
        let elapsed = now.saturating_duration_since(self.sample_start);
        let round_trip = self.floor.unwrap_or(LATENCY_GUESS);
        if elapsed < self.latency.unwrap_or(round_trip).max(SAMPLE_MIN) {
            return;
        }
        let filled = self
            .sample_filled
            .is_some_and(|since| since + round_trip <= now);
        let sample = self.sample_bytes as f64 / elapsed.as_secs_f64().max(1e-6);
        self.rate = Some(match self.rate {
            Some(rate) if sample < rate && !filled => rate,
            Some(rate) => (rate + sample) / 2.0,
            None => sample,
        });
        self.rate_filled |= filled;
        self.begin(now);
    }

    /// Most want-blocks that may be in flight once the peer is known to hold what is wanted.
    pub(crate) fn window(&self, config: &Config) -> usize {
        let bytes_max = config.window_bytes_max;
        let wants = match self.rate.filter(|_| self.rate_filled) {
            None => WINDOW_WANTS_FIRST,
            Some(rate) => {
                let round_trips = 2 * self.floor.unwrap_or(LATENCY_GUESS);
                let slack = rate * WINDOW_SLACK.as_secs_f64();
                let bytes =
                    rate * round_trips.as_secs_f64() + slack.min(WINDOW_SLACK_BYTES_MAX as f64);
                bytes.min(bytes_max as f64) as usize / self.block_bytes()
            }
        };
        let wants_max = config
            .window_wants_max
            .max(WINDOW_SMALL_BYTES / self.block_bytes());
        let allowed = (bytes_max / self.block_bytes())
            .min(wants_max)
            .clamp(1, WANTS_PER_PEER_MAX / 2);
        wants.max(WINDOW_WANTS_MIN).min(allowed)
    }

    /// How long the peer should need to deliver `blocks` blocks from now on.
    pub(crate) fn eta(&self, blocks: usize) -> Duration {
        let rate = self.rate.unwrap_or(RATE_GUESS).max(1.0);
        let transfer = (blocks * self.block_bytes()) as f64 / rate;
        self.floor.unwrap_or(LATENCY_GUESS) + Duration::from_secs_f64(transfer.min(1e6))
    }

    /// Silence after which the peer's wants are given to others (boxo's simulated DONT_HAVE, see `limits`).
    pub(crate) fn stall_timeout(&self) -> Duration {
        self.latency.map_or(STALL_FIRST, |latency| {
            (2 * latency).clamp(STALL_MIN, STALL_MAX)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::start;

    const MIB: usize = 1 << 20;

    /// A peer that delivers `rate` bytes per second in blocks of `block` bytes after a round trip of `rtt`, for `seconds`.
    fn paced(rate: usize, block: usize, rtt: Duration, seconds: u64) -> Pace {
        let mut now = start();
        let mut pace = Pace::new(now);
        pace.on_answer(rtt);
        let end = now + Duration::from_secs(seconds);
        while now < end {
            pace.filled(now);
            now += Duration::from_secs_f64(block as f64 / rate as f64);
            pace.on_block(block, now);
        }
        pace
    }

    #[test]
    fn the_window_covers_two_round_trips_and_the_slack() {
        let pace = paced(12_500_000, MIB, Duration::from_millis(50), 5);
        assert_eq!(pace.window(&Config::default()), 4);
        assert!((pace.rate().unwrap() - 12.5e6).abs() < 1e5);
    }

    #[test]
    fn the_window_stays_within_wants_and_bytes() {
        let config = Config::default();
        let fast = paced(1_000_000_000, 16 * 1024, Duration::from_millis(200), 1);
        assert_eq!(fast.window(&config), config.window_wants_max);
        let large = paced(1_000_000_000, 2 * MIB, Duration::from_millis(200), 1);
        assert_eq!(large.window(&config), config.window_bytes_max / (2 * MIB));
    }

    #[test]
    fn a_slow_peer_holds_two_wants() {
        assert_eq!(
            paced(10_000, MIB, Duration::from_millis(10), 1000).window(&Config::default()),
            2
        );
    }

    #[test]
    fn a_peer_that_was_not_kept_busy_is_not_thought_slow() {
        let mut pace = paced(10_000_000, MIB, Duration::from_millis(10), 5);
        let rate = pace.rate().unwrap();
        let mut now = start();
        pace.begin(now);
        now += Duration::from_secs(1);
        pace.on_block(1000, now);
        assert_eq!(pace.rate(), Some(rate));
        pace.filled(now);
        now += Duration::from_secs(1);
        pace.on_block(1000, now);
        assert!(pace.rate().unwrap() < rate);
    }

    #[test]
    fn the_first_block_of_a_full_window_says_nothing_about_the_rate_of_the_rest() {
        let mut pace = Pace::new(start());
        let rtt = Duration::from_millis(200);
        pace.begin(start());
        pace.filled(start() + rtt);
        pace.on_answer(rtt);
        pace.on_block(MIB, start() + rtt + Duration::from_millis(1));
        assert_eq!(pace.window(&Config::default()), WINDOW_WANTS_FIRST);
    }

    #[test]
    fn the_stall_timeout_follows_latency_within_its_bounds() {
        let mut pace = Pace::new(start());
        assert_eq!(pace.stall_timeout(), STALL_FIRST);
        pace.on_answer(Duration::from_millis(1));
        assert_eq!(pace.stall_timeout(), STALL_MIN);
        pace.on_answer(Duration::from_millis(3999));
        assert_eq!(pace.stall_timeout(), Duration::from_secs(4));
        pace.on_answer(Duration::from_secs(60));
        assert_eq!(pace.stall_timeout(), STALL_MAX);
    }
}
