//! The upload limit: a token bucket that may go into debt.
//!
//! A message is let go when there is any credit at all and its size is then taken off, however large it is. So a limit
//! below the size of one block still works, and no message waits for a credit that the bucket could never hold.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Credit saved up while nothing is sent: one second's worth, so that short bursts are not slowed down.
const BURST: Duration = Duration::from_secs(1);

/// One limit for everything a node sends to strangers, whichever way. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Upload(Arc<Mutex<Bucket>>);

impl Upload {
    /// So many bytes per second; `None` for no limit.
    pub(crate) fn new(rate: Option<u64>, now: Instant) -> Self {
        Self(Arc::new(Mutex::new(Bucket::new(rate, now))))
    }

    /// See [`Bucket::take`].
    pub(crate) fn take(&self, bytes: usize, now: Instant) -> Result<(), Instant> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take(bytes, now)
    }

    /// Goes on with another rate.
    pub(crate) fn set_rate(&self, rate: Option<u64>, now: Instant) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Bucket::new(rate, now);
    }
}

/// Counts bytes against a rate. Time is passed in.
#[derive(Clone, Debug)]
struct Bucket {
    /// Bytes per second; `None` for no limit.
    rate: Option<u64>,
    /// Bytes that may be sent; negative while a message is being paid off.
    credit: f64,
    at: Instant,
}

impl Bucket {
    /// A full bucket.
    fn new(rate: Option<u64>, now: Instant) -> Self {
        let credit = rate.map_or(0.0, |rate| rate as f64 * BURST.as_secs_f64());
        Self {
            rate,
            credit,
            at: now,
        }
    }

    /// Takes `bytes` if there is credit; otherwise says when there will be.
    fn take(&mut self, bytes: usize, now: Instant) -> Result<(), Instant> {
        let Some(rate) = self.rate else { return Ok(()) };
        let rate = rate.max(1) as f64;
        let elapsed = now.saturating_duration_since(self.at).as_secs_f64();
        self.credit = (self.credit + elapsed * rate).min(rate * BURST.as_secs_f64());
        self.at = now;
        if self.credit <= 0.0 {
            // A little late rather than a little early, or rounding would make the caller come back at once.
            let wait = Duration::from_secs_f64(-self.credit / rate) + Duration::from_millis(1);
            return Err(now + wait);
        }
        self.credit -= bytes as f64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_holds_over_time_whatever_the_message_size() {
        let start = Instant::now();
        for size in [1_000, 100_000, 5_000_000] {
            let mut bucket = Bucket::new(Some(1_000_000), start);
            let (mut now, mut sent) = (start, 0);
            while now < start + Duration::from_secs(100) {
                match bucket.take(size, now) {
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
        let now = Instant::now();
        let mut bucket = Bucket::new(None, now);
        assert!((0..1000).all(|_| bucket.take(usize::MAX, now).is_ok()));
    }
}
