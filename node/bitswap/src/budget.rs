//! A limit of bytes per second: a token bucket that may go into debt.
//!
//! Bytes are let go when there is any credit at all and are then taken off, however many they are. So a limit below the
//! size of one block still works, and no message waits for a credit that the bucket could never hold.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Credit saved up while nothing moves: one second's worth, so that short bursts are not slowed down.
const BURST: Duration = Duration::from_secs(1);

/// One limit for all the bytes that go one way, whichever door they take. Clones share it; time is passed in.
#[derive(Clone, Debug, Default)]
pub struct Budget(Arc<Mutex<Bucket>>);

impl Budget {
    /// So many bytes per second; `None` for no limit.
    pub fn new(rate: Option<u64>, now: Instant) -> Self {
        Self(Arc::new(Mutex::new(Bucket::new(rate, now))))
    }

    /// Takes `bytes` if there is credit.
    ///
    /// # Errors
    /// When there will be some.
    pub fn take(&self, bytes: usize, now: Instant) -> Result<(), Instant> {
        self.with(|bucket| {
            bucket.ready(0, now)?;
            bucket.charge(bytes, now);
            Ok(())
        })
    }

    /// Takes `bytes` that have come already.
    pub fn charge(&self, bytes: usize, now: Instant) {
        self.with(|bucket| bucket.charge(bytes, now));
    }

    /// Whether there is credit beyond `coming` bytes that are on their way and will be charged.
    ///
    /// # Errors
    /// When there will be some.
    pub fn ready(&self, coming: usize, now: Instant) -> Result<(), Instant> {
        self.with(|bucket| bucket.ready(coming, now))
    }

    /// Whether there is a limit at all.
    pub fn is_limited(&self) -> bool {
        self.with(|bucket| bucket.rate.is_some())
    }

    /// Goes on with another rate.
    pub fn set_rate(&self, rate: Option<u64>, now: Instant) {
        self.with(|bucket| *bucket = Bucket::new(rate, now));
    }

    fn with<T>(&self, act: impl FnOnce(&mut Bucket) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Counts bytes against a rate.
#[derive(Clone, Debug, Default)]
struct Bucket {
    /// Bytes per second; `None` for no limit.
    rate: Option<u64>,
    /// Bytes that may move; negative while a debt is being paid off.
    credit: f64,
    /// When `credit` was right; none without a rate.
    at: Option<Instant>,
}

impl Bucket {
    /// A full bucket.
    fn new(rate: Option<u64>, now: Instant) -> Self {
        let credit = rate.map_or(0.0, |rate| rate as f64 * BURST.as_secs_f64());
        Self {
            rate,
            credit,
            at: Some(now),
        }
    }

    /// Brings the credit up to date; the rate in bytes per second.
    fn accrue(&mut self, now: Instant) -> Option<f64> {
        let rate = self.rate?.max(1) as f64;
        let at = *self.at.get_or_insert(now);
        let elapsed = now.saturating_duration_since(at).as_secs_f64();
        self.credit = (self.credit + elapsed * rate).min(rate * BURST.as_secs_f64());
        self.at = Some(at.max(now));
        Some(rate)
    }

    fn charge(&mut self, bytes: usize, now: Instant) {
        if self.accrue(now).is_some() {
            self.credit -= bytes as f64;
        }
    }

    fn ready(&mut self, coming: usize, now: Instant) -> Result<(), Instant> {
        let Some(rate) = self.accrue(now) else {
            return Ok(());
        };
        let free = self.credit - coming as f64;
        if free > 0.0 {
            return Ok(());
        }
        // A little late rather than a little early, or rounding would make the caller come back at once.
        let wait = (-free / rate).min(WAIT_SECS_MAX);
        Err(now + Duration::from_secs_f64(wait) + Duration::from_millis(1))
    }
}

/// Longest wait named, in seconds: a debt at a rate of a few bytes a second would be longer than a clock can count.
const WAIT_SECS_MAX: f64 = 86_400.0;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::start;

    #[test]
    fn the_rate_holds_over_time_whatever_the_message_size() {
        let start = start();
        for size in [1_000, 100_000, 5_000_000] {
            let budget = Budget::new(Some(1_000_000), start);
            let (mut now, mut sent) = (start, 0);
            while now < start + Duration::from_secs(100) {
                match budget.take(size, now) {
                    Ok(()) => sent += size,
                    Err(later) => now = later,
                }
            }
            let least = 100_000_000 - size;
            assert!(
                (least..=101_000_000 + size).contains(&sent),
                "{size}: {sent}"
            );
        }
    }

    #[test]
    fn without_a_rate_nothing_ever_waits() {
        let now = start();
        let budget = Budget::new(None, now);
        assert!((0..1000).all(|_| budget.take(usize::MAX, now).is_ok()));
        assert!(Budget::default().ready(usize::MAX, now).is_ok());
        assert!(!budget.is_limited());
    }

    #[test]
    fn what_is_on_its_way_counts_before_it_came() {
        let now = start();
        let budget = Budget::new(Some(1000), now);
        assert!(budget.ready(999, now).is_ok());
        let later = budget.ready(3000, now).unwrap_err();
        assert!(later > now + Duration::from_secs(2), "{later:?}");
        budget.charge(3000, now);
        assert!(budget.ready(0, now + Duration::from_secs(1)).is_err());
        assert!(budget.ready(0, now + Duration::from_secs(3)).is_ok());
    }
}
