//! When a transfer has taken too long: one rule for peers and web servers alike.
//!
//! A transfer is given up when its first byte, its next byte, a decent rate or its end is overdue. The value is pure: the
//! time is passed in, so the rules are tested without waiting for anything.

use std::time::{Duration, Instant};

use crate::config::Deadlines;

/// Which deadline passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Late {
    /// Nothing came at all.
    FirstByte,
    /// Nothing came for too long.
    Stall,
    /// Something came, but too little.
    Slow,
    /// The whole took too long.
    Total,
}

/// Watches one transfer.
#[derive(Clone, Debug)]
pub(crate) struct Pace {
    deadlines: Deadlines,
    started: Instant,
    /// When the last bytes came; `None` before the first.
    last: Option<Instant>,
    /// Start of the current measuring window and what came in it.
    window: (Instant, u64),
    /// Set once a whole window was below the minimum.
    slow: bool,
}

impl Pace {
    /// Starts the clock.
    pub(crate) fn new(deadlines: Deadlines, now: Instant) -> Self {
        Self {
            deadlines,
            started: now,
            last: None,
            window: (now, 0),
            slow: false,
        }
    }

    /// Notes that bytes came.
    pub(crate) fn progress(&mut self, bytes: u64, now: Instant) {
        self.last = Some(now);
        self.window.1 += bytes;
        let elapsed = now.saturating_duration_since(self.window.0);
        if elapsed >= self.deadlines.rate_window {
            self.slow = self.below_minimum(elapsed);
            self.window = (now, 0);
        }
    }

    fn below_minimum(&self, elapsed: Duration) -> bool {
        let least = self.deadlines.rate_min_bytes_per_sec as f64 * elapsed.as_secs_f64();
        (self.window.1 as f64) < least
    }

    /// Whether the transfer may go on.
    pub(crate) fn check(&self, now: Instant) -> Result<(), Late> {
        let since = |start| now.saturating_duration_since(start);
        if since(self.started) >= self.deadlines.total {
            return Err(Late::Total);
        }
        match self.last {
            None if since(self.started) >= self.deadlines.first_byte => Err(Late::FirstByte),
            Some(last) if since(last) >= self.deadlines.stall => Err(Late::Stall),
            _ if self.slow => Err(Late::Slow),
            _ => Ok(()),
        }
    }

    /// How long nothing needs to be checked if nothing comes.
    pub(crate) fn patience(&self, now: Instant) -> Duration {
        let due = match self.last {
            None => self.started + self.deadlines.first_byte,
            Some(last) => last + self.deadlines.stall,
        };
        due.min(self.started + self.deadlines.total)
            .saturating_duration_since(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deadlines() -> Deadlines {
        Deadlines {
            first_byte: Duration::from_secs(5),
            stall: Duration::from_secs(3),
            rate_window: Duration::from_secs(10),
            rate_min_bytes_per_sec: 100,
            total: Duration::from_secs(100),
            ..Deadlines::default()
        }
    }

    #[test]
    fn the_first_byte_and_the_next_byte_have_their_own_deadlines() {
        let start = Instant::now();
        let at = |secs| start + Duration::from_secs(secs);
        let mut pace = Pace::new(deadlines(), start);
        assert_eq!(pace.patience(start), Duration::from_secs(5));
        assert_eq!(pace.check(at(4)), Ok(()));
        assert_eq!(pace.check(at(5)), Err(Late::FirstByte));
        pace.progress(1, at(4));
        assert_eq!(pace.check(at(6)), Ok(()));
        assert_eq!(pace.patience(at(6)), Duration::from_secs(1));
        assert_eq!(pace.check(at(7)), Err(Late::Stall));
    }

    #[test]
    fn a_drip_of_bytes_is_too_slow_and_a_recovered_rate_is_forgiven() {
        let start = Instant::now();
        let at = |secs| start + Duration::from_secs(secs);
        let mut pace = Pace::new(deadlines(), start);
        for secs in 1..=10 {
            pace.progress(10, at(secs));
        }
        assert_eq!(pace.check(at(10)), Err(Late::Slow));
        for secs in 11..=20 {
            pace.progress(1000, at(secs));
        }
        assert_eq!(pace.check(at(20)), Ok(()));
    }

    #[test]
    fn even_a_good_transfer_ends_at_the_total_deadline() {
        let start = Instant::now();
        let mut pace = Pace::new(deadlines(), start);
        let end = start + Duration::from_secs(100);
        pace.progress(1 << 20, end - Duration::from_secs(1));
        assert_eq!(pace.check(end), Err(Late::Total));
        assert_eq!(pace.patience(end), Duration::ZERO);
    }
}
