//! Several ways to one thing, each with a head start before the next: the first good one wins and ends the others.
//!
//! The next one starts at once when all before it have failed, after a silence while nothing has come, and after the head start
//! unless bytes come well meanwhile. So whoever hangs costs the silence and no more, and whoever delivers is not overtaken by a
//! second copy of the same bytes. Ways are told to stop by their progress; one that cannot look up from what it does holds up the end, so those
//! that wait for strangers do it on a thread of their own.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use crate::substitute::{Asked, FetchError, Progress};

/// How often is looked up from waiting.
const SLICE: Duration = Duration::from_millis(50);
/// What comes well, in bytes a second: a package of ordinary size in some seconds. Slower than this, a second source is
/// worth the bytes that come twice.
const WELL_BYTES_PER_SEC: u64 = 1 << 20;

/// One way to get something.
pub type Way<'a, T> = Box<dyn FnOnce(&dyn Progress) -> Result<T, FetchError> + Send + 'a>;

/// How ways follow one another.
#[derive(Clone, Copy, Debug)]
pub struct Heats {
    /// How long the next one waits while nothing at all comes.
    pub silence: Duration,
    /// How long the next one waits while something comes, but not well.
    pub head_start: Duration,
    /// How many of the first ones join while others still try; those after them start only when all others have failed.
    pub eager: usize,
}

impl Heats {
    /// Tries the ways; what the winner got, and who was asked by those that had failed by then.
    ///
    /// # Errors
    /// The failure that says most, [`FetchError::Cancelled`], or at once what no other way can help with.
    pub fn run<'a, T: Send + 'a>(
        self,
        ways: Vec<Way<'a, T>>,
        progress: &dyn Progress,
    ) -> Result<(T, Asked), FetchError> {
        let ways = match <[Way<'a, T>; 1]>::try_from(ways) {
            // Nobody to race against, so no thread for it.
            Ok([way]) => return way(progress).map(|got| (got, Asked::default())),
            Err(ways) => ways,
        };
        let over = AtomicBool::new(false);
        let shown = AtomicU64::new(0);
        std::thread::scope(|scope| {
            let (sender, results) = mpsc::channel();
            let (over, shown) = (&over, &shown);
            let start = |way: Way<'a, T>| {
                let sender = sender.clone();
                scope.spawn(move || {
                    let progress = Lane {
                        until: Until { progress, over },
                        shown,
                        bytes: AtomicU64::new(0),
                    };
                    // Nobody listens any more once another one has won.
                    let _ = sender.send(way(&progress));
                });
            };
            let mut heat = Heat::new(self, Instant::now());
            let mut waiting = ways.into_iter();
            let result = loop {
                if progress.cancelled() {
                    break Err(FetchError::Cancelled);
                }
                let (bytes, now) = (shown.load(Ordering::Relaxed), Instant::now());
                if waiting.len() > 0 && heat.is_due(bytes, now) {
                    waiting.next().into_iter().for_each(start);
                    heat.started(bytes, now);
                } else if heat.running == 0 {
                    break Err(heat.failure());
                }
                match results.recv_timeout(SLICE.min(self.silence)) {
                    Ok(result) => {
                        if let Some(result) = heat.ended(result) {
                            break result;
                        }
                    }
                    Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
                }
            };
            over.store(true, Ordering::Relaxed);
            result
        })
    }
}

/// Who tries, who is next, and what those before have said.
struct Heat {
    heats: Heats,
    running: usize,
    /// How many have started.
    started: usize,
    /// When the next one may join, when that was decided, and what had come then.
    join_at: Instant,
    since: Instant,
    seen_bytes: u64,
    asked: Asked,
    kept: Option<FetchError>,
}

impl Heat {
    fn new(heats: Heats, now: Instant) -> Self {
        Self {
            heats,
            running: 0,
            started: 0,
            join_at: now,
            since: now,
            seen_bytes: 0,
            asked: Asked::default(),
            kept: None,
        }
    }

    /// Whether the next one starts now.
    fn is_due(&mut self, shown_bytes: u64, now: Instant) -> bool {
        if self.running == 0 {
            return true;
        }
        if self.started >= self.heats.eager {
            return false;
        }
        let is_silent = shown_bytes == self.seen_bytes;
        if now < self.join_at {
            return is_silent && now >= self.since + self.heats.silence;
        }
        let came = shown_bytes.saturating_sub(self.seen_bytes);
        let well = WELL_BYTES_PER_SEC as f64 * self.heats.head_start.as_secs_f64();
        if came > 0 && came as f64 >= well {
            self.wait(shown_bytes, now);
            return false;
        }
        true
    }

    fn wait(&mut self, shown_bytes: u64, now: Instant) {
        self.join_at = now + self.heats.head_start;
        self.since = now;
        self.seen_bytes = shown_bytes;
    }

    fn started(&mut self, shown_bytes: u64, now: Instant) {
        self.running += 1;
        self.started += 1;
        self.wait(shown_bytes, now);
    }

    /// One has ended: the result of all, if that is the last word.
    fn ended<T>(
        &mut self,
        result: Result<T, FetchError>,
    ) -> Option<Result<(T, Asked), FetchError>> {
        self.running -= 1;
        match result {
            Ok(got) => Some(Ok((got, self.asked))),
            // Our own disk is full, or the user pressed ^C: asking somebody else cannot help.
            Err(error @ (FetchError::Store(_) | FetchError::Cancelled)) => Some(Err(error)),
            Err(error) => {
                self.asked.merge(error.asked());
                self.kept = Some(error.worse_than(self.kept.take()));
                None
            }
        }
    }

    fn failure(&mut self) -> FetchError {
        let asked = self.asked;
        let kept = self.kept.take();
        kept.map_or(FetchError::Missing { asked }, |error| {
            error.with_asked(asked)
        })
    }
}

/// The caller's progress, until it is over.
pub(crate) struct Until<'a> {
    pub(crate) progress: &'a dyn Progress,
    pub(crate) over: &'a AtomicBool,
}

impl Progress for Until<'_> {
    fn bytes(&self, _: u64, _: Option<u64>) {}

    fn cancelled(&self) -> bool {
        self.over.load(Ordering::Relaxed) || self.progress.cancelled()
    }
}

/// One of several who fetch the same: only what is ahead of all others is shown as progress.
struct Lane<'a> {
    until: Until<'a>,
    shown: &'a AtomicU64,
    bytes: AtomicU64,
}

impl Progress for Lane<'_> {
    fn bytes(&self, n: u64, total: Option<u64>) {
        let mine = self.bytes.fetch_add(n, Ordering::Relaxed) + n;
        let before = self.shown.fetch_max(mine, Ordering::Relaxed);
        if mine > before {
            self.until.progress.bytes(mine - before, total);
        }
    }

    fn cancelled(&self) -> bool {
        self.until.cancelled()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::substitute::NoProgress;

    const HEATS: Heats = Heats {
        silence: Duration::from_millis(10),
        head_start: Duration::from_millis(10),
        eager: usize::MAX,
    };

    fn missing() -> FetchError {
        FetchError::Missing {
            asked: Asked {
                caches: 1,
                ..Asked::default()
            },
        }
    }

    fn hangs<'a>() -> Way<'a, &'static str> {
        Box::new(|progress| {
            while !progress.cancelled() {
                std::thread::yield_now();
            }
            Err(FetchError::Cancelled)
        })
    }

    fn has<'a>(what: &'static str) -> Way<'a, &'static str> {
        Box::new(move |_| Ok(what))
    }

    fn misses<'a>() -> Way<'a, &'static str> {
        Box::new(|_| Err(missing()))
    }

    #[test]
    fn whoever_hangs_is_overtaken_and_told_to_stop() {
        let (got, asked) = HEATS
            .run(vec![misses(), hangs(), has("c")], &NoProgress)
            .unwrap();
        assert_eq!((got, asked.caches), ("c", 1));
    }

    #[test]
    fn the_next_one_starts_at_once_when_all_before_have_failed() {
        let patient = Heats {
            silence: Duration::from_secs(3600),
            head_start: Duration::from_secs(3600),
            ..HEATS
        };
        let (got, _) = patient.run(vec![misses(), has("b")], &NoProgress).unwrap();
        assert_eq!(got, "b");
        let error = patient.run(vec![misses(), misses()], &NoProgress);
        assert!(matches!(error, Err(FetchError::Missing { asked }) if asked.caches == 2));
    }

    #[test]
    fn those_that_are_not_eager_wait_until_all_others_have_failed() {
        let heats = Heats { eager: 1, ..HEATS };
        let order = Mutex::new(Vec::new());
        let noted = |name: &'static str| -> Way<'_, ()> {
            let order = &order;
            Box::new(move |_| {
                order.lock().unwrap().push(name);
                Err(missing())
            })
        };
        let result = heats.run(vec![noted("a"), noted("b"), noted("c")], &NoProgress);
        assert!(result.is_err());
        assert_eq!(*order.lock().unwrap(), ["a", "b", "c"]);
    }

    #[test]
    fn silence_is_waited_for_less_than_what_comes_slowly() {
        let now = Instant::now();
        let (silence, head_start) = (Duration::from_millis(500), Duration::from_secs(3));
        let heats = Heats {
            silence,
            head_start,
            eager: 3,
        };
        let mut heat = Heat::new(heats, now);
        heat.started(0, now);
        assert!(heat.is_due(0, now + silence));
        assert!(!heat.is_due(1, now + silence));
        assert!(heat.is_due(1, now + head_start));
        // Who has sent well may fall silent, too.
        heat.started(1, now);
        let (well, later) = (1 + 3 * WELL_BYTES_PER_SEC, now + head_start);
        assert!(!heat.is_due(well, later));
        assert!(!heat.is_due(well, later + silence / 2));
        assert!(heat.is_due(well, later + silence));
    }

    #[test]
    fn nobody_joins_while_bytes_come_well() {
        let now = Instant::now();
        let head_start = Duration::from_secs(1);
        let heats = Heats {
            // It has a test of its own.
            silence: head_start,
            head_start,
            eager: 2,
        };
        let mut heat = Heat::new(heats, now);
        assert!(heat.is_due(0, now));
        heat.started(0, now);
        let well = WELL_BYTES_PER_SEC;
        assert!(!heat.is_due(0, now + head_start / 8));
        assert!(!heat.is_due(1, now + head_start / 2));
        assert!(!heat.is_due(well, now + head_start));
        assert!(!heat.is_due(well, now + head_start * 3 / 2));
        assert!(heat.is_due(well + 1, now + head_start * 2));
        heat.started(well + 1, now);
        assert!(
            !heat.is_due(0, now + head_start * 100),
            "there are only two"
        );
    }
}
