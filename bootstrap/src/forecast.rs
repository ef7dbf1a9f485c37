//! How long a rebuild will take: the times in the list of seeds, scaled by what this machine has shown so far.

use std::time::Duration;

/// What is expected of a rebuild, and what it has taken.
#[derive(Clone, Debug)]
pub struct Forecast {
    expected: Vec<Duration>,
    /// Of the stages that were built here and now: what was expected, and what they took.
    measured: (Duration, Duration),
}

impl Forecast {
    /// Expects each stage to take so long, stage 0 first; see [`crate::Seed::times`].
    pub fn new(expected: &[Duration]) -> Self {
        Self {
            expected: expected.to_vec(),
            measured: Default::default(),
        }
    }

    /// The stage that is expected to be the last: equal to the one before.
    pub fn last(&self) -> Option<usize> {
        self.expected.len().checked_sub(1)
    }

    /// How long this stage and those after it will take. `None` where nothing is known of it.
    pub fn left(&self, stage: usize) -> Option<Duration> {
        let left = self.expected.get(stage..)?.iter().sum::<Duration>();
        let (expected, took) = self.measured;
        let speed = if expected.is_zero() {
            1.0
        } else {
            took.as_secs_f64() / expected.as_secs_f64()
        };
        (!left.is_zero()).then(|| left.mul_f64(speed))
    }

    /// Learns that a stage was built. One of which a part was there already teaches nothing: leave it out.
    pub fn took(&mut self, stage: usize, elapsed: Duration) {
        if let Some(expected) = self.expected.get(stage) {
            self.measured.0 += *expected;
            self.measured.1 += elapsed;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn what_was_measured_elsewhere_is_scaled_by_what_was_seen_here() {
        let mut forecast = Forecast::new(&[secs(100), secs(60), secs(40)]);
        assert_eq!(forecast.last(), Some(2));
        assert_eq!(forecast.left(0), Some(secs(200)));
        assert_eq!(forecast.left(2), Some(secs(40)));
        // Twice as slow as the machine of the list.
        forecast.took(0, secs(200));
        assert_eq!(forecast.left(1), Some(secs(200)));
        // Then as fast: 260 seconds so far where 160 were expected.
        forecast.took(1, secs(60));
        assert_eq!(forecast.left(2), Some(secs(40).mul_f64(260.0 / 160.0)));
    }

    #[test]
    fn of_what_was_not_measured_nothing_is_said() {
        let mut forecast = Forecast::new(&[secs(10), secs(20)]);
        assert_eq!(forecast.left(2), None, "a stage more than usual");
        forecast.took(2, secs(1000));
        assert_eq!(forecast.left(1), Some(secs(20)));
        let forecast = Forecast::new(&[]);
        assert_eq!((forecast.last(), forecast.left(0)), (None, None));
    }
}
