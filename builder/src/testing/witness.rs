//! An observer for tests.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex};
use std::time::Duration;

use crate::{Event, Observer, Phase};

/// Remembers what happened; stops everything once a build prints a chosen word.
#[derive(Debug, Default)]
pub struct Witness {
    /// The word.
    pub stop_at: Option<&'static str>,
    stopped: AtomicBool,
    /// What happened, one line each.
    pub lines: Mutex<Vec<String>>,
    /// What builds printed.
    pub output: Mutex<String>,
    /// Builds that start wait until so many run at once.
    pub meet: usize,
    /// How many have started, and how many of these run.
    running: Mutex<(usize, usize)>,
    met: Condvar,
}

impl Witness {
    /// Whether a line holds this text.
    pub fn saw(&self, text: &str) -> bool {
        self.lines
            .lock()
            .unwrap()
            .iter()
            .any(|line| line.contains(text))
    }

    fn arrive(&self) {
        let mut running = self.running.lock().unwrap();
        *running = (running.0 + 1, running.1 + 1);
        assert!(
            self.meet == 0 || running.1 <= self.meet,
            "{} builds at once",
            running.1
        );
        self.met.notify_all();
        let waiting = |running: &mut (usize, usize)| running.0 < self.meet;
        let (_running, late) = self
            .met
            .wait_timeout_while(running, Duration::from_secs(60), waiting)
            .unwrap();
        assert!(!late.timed_out(), "no other build came");
    }
}

impl Observer for Witness {
    fn event(&self, event: &Event<'_>) {
        let line = match event {
            Event::Output { text, .. } => {
                let mut output = self.output.lock().unwrap();
                output.push_str(&String::from_utf8_lossy(text));
                if self.stop_at.is_some_and(|word| output.contains(word)) {
                    self.stopped.store(true, Ordering::Relaxed);
                }
                return;
            }
            Event::Building { package, phase } => {
                match phase {
                    Phase::Running => self.arrive(),
                    Phase::Packing => self.running.lock().unwrap().1 -= 1,
                    _ => {}
                }
                format!("{package} {phase:?}")
            }
            Event::Built { package, .. } => format!("{package} built"),
            Event::Warning { package, text } => format!("{package} warning {text}"),
            Event::Fetched {
                package, source, ..
            } => format!("{package} fetched {source:?}"),
            Event::Failed { package, error } => format!("{package} failed {error}"),
            other => format!("{other:?}"),
        };
        self.lines.lock().unwrap().push(line);
    }

    fn cancelled(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }
}
