//! Things that go on at the same time: a bar for each on a terminal, one plain line for all every ten seconds elsewhere.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressState, ProgressStyle};

use super::Ui;
use crate::units;

/// How often a line is written where no bars can be drawn: often enough to see life, rarely enough for a log file.
const PLAIN_EVERY: Duration = Duration::from_secs(10);
/// How often a bar without news is redrawn, so that its clock runs.
const REDRAW_EVERY: Duration = Duration::from_millis(200);
/// A bar of something that has no length; the prefix stands behind, and says how long it took last time.
const PLAIN_STYLE: &str = "  {spinner} {msg} {time}{prefix}";

/// Running tasks. Dropping it removes the bars and ends the ticker.
#[derive(Debug)]
pub struct Tasks {
    shared: Arc<Shared>,
    ticker: Option<(mpsc::SyncSender<()>, JoinHandle<()>)>,
}

#[derive(Debug)]
struct Shared {
    ui: Ui,
    running: Mutex<Running>,
}

#[derive(Debug, Default)]
struct Running {
    next: u64,
    tasks: BTreeMap<u64, State>,
}

#[derive(Debug)]
struct State {
    label: String,
    since: Instant,
    /// How long it took last time.
    last: Option<Duration>,
    bytes: u64,
    total: Option<u64>,
    bar: Option<ProgressBar>,
}

/// One thing going on. Dropping it ends it.
#[derive(Debug)]
pub struct Task {
    shared: Arc<Shared>,
    id: u64,
}

impl Tasks {
    pub(super) fn new(ui: Ui) -> Self {
        let shared = Arc::new(Shared {
            ui,
            running: Mutex::default(),
        });
        let ticker = (!shared.ui.live).then(|| start_ticker(Arc::clone(&shared)));
        Self { shared, ticker }
    }

    /// Something starts.
    pub fn start(&self, label: impl Into<String>) -> Task {
        let label = label.into();
        let bar = self.shared.ui.live.then(|| self.new_bar(&label));
        let mut running = self.shared.lock();
        let id = running.next;
        running.next += 1;
        let state = State {
            label,
            since: Instant::now(),
            last: None,
            bytes: 0,
            total: None,
            bar,
        };
        running.tasks.insert(id, state);
        Task {
            shared: Arc::clone(&self.shared),
            id,
        }
    }

    fn new_bar(&self, label: &str) -> ProgressBar {
        let bar = self.shared.ui.bars.add(ProgressBar::new_spinner());
        bar.set_style(style(PLAIN_STYLE));
        bar.set_message(label.to_owned());
        bar.enable_steady_tick(REDRAW_EVERY);
        bar
    }
}

impl Drop for Tasks {
    fn drop(&mut self) {
        if let Some((stop, thread)) = self.ticker.take() {
            drop(stop);
            let _ = thread.join();
        }
    }
}

impl Task {
    /// What is being done now.
    pub fn relabel(&self, label: impl Into<String>) {
        self.change(|state| {
            state.label = label.into();
            if let Some(bar) = &state.bar {
                bar.set_message(state.label.clone());
            }
        });
    }

    /// Something else is being done from now on, which took so long last time.
    pub fn begin(&self, label: impl Into<String>, last: Option<Duration>) {
        self.change(|state| {
            (state.label, state.last) = (label.into(), last);
            (state.since, state.bytes, state.total) = (Instant::now(), 0, None);
            if let Some(bar) = &state.bar {
                let last = last.map(|time| format!(" of about {}", units::duration(time)));
                bar.set_style(style(PLAIN_STYLE));
                bar.set_message(state.label.clone());
                bar.set_prefix(last.unwrap_or_default());
                bar.reset_elapsed();
            }
        });
    }

    /// So many more bytes, of so many.
    pub fn add_bytes(&self, more: u64, total: Option<u64>) {
        self.change(|state| state.moved(state.bytes + more, total));
    }

    /// So many bytes so far, of so many.
    pub fn set_bytes(&self, bytes: u64, total: Option<u64>) {
        self.change(|state| state.moved(bytes, total));
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        if let Some(state) = self.shared.lock().tasks.get_mut(&self.id) {
            change(state);
        }
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        let ended = self.shared.lock().tasks.remove(&self.id);
        if let Some(bar) = ended.and_then(|state| state.bar) {
            bar.finish_and_clear();
            self.shared.ui.bars.remove(&bar);
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Running> {
        // A panic in another thread leaves at worst a stale label behind.
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn plain_line(&self) -> Option<String> {
        let running = self.lock();
        let plain = |state: &State| state.plain(state.since.elapsed());
        let items: Vec<_> = running.tasks.values().map(plain).collect();
        (!items.is_empty()).then(|| items.join(", "))
    }
}

impl State {
    fn moved(&mut self, bytes: u64, total: Option<u64>) {
        self.bytes = bytes;
        let Some(bar) = &self.bar else {
            self.total = total.or(self.total);
            return;
        };
        if let Some(total) = total.filter(|total| self.total != Some(*total)) {
            self.total = Some(total);
            bar.set_length(total);
            bar.set_style(style(
                "  {spinner} {msg} {bar:24} {bytes}/{total_bytes} {bytes_per_sec}",
            ));
        }
        bar.set_position(bytes);
    }

    fn plain(&self, elapsed: Duration) -> String {
        let elapsed = units::duration(elapsed);
        if let Some(last) = self.last {
            let last = units::duration(last);
            return format!("{} {elapsed} of about {last}", self.label);
        }
        match self.total {
            Some(total) => format!(
                "{} ({} of {}, {elapsed})",
                self.label,
                units::bytes(self.bytes),
                units::bytes(total)
            ),
            None if self.bytes > 0 => {
                format!("{} ({}, {elapsed})", self.label, units::bytes(self.bytes))
            }
            None => format!("{} ({elapsed})", self.label),
        }
    }
}

fn start_ticker(shared: Arc<Shared>) -> (mpsc::SyncSender<()>, JoinHandle<()>) {
    let (stop, stopped) = mpsc::sync_channel(1);
    let thread = std::thread::spawn(move || {
        while stopped.recv_timeout(PLAIN_EVERY) == Err(RecvTimeoutError::Timeout) {
            if let Some(line) = shared.plain_line() {
                shared.ui.status(line);
            }
        }
    });
    (stop, thread)
}

fn style(template: &str) -> ProgressStyle {
    let time = |state: &ProgressState, text: &mut dyn fmt::Write| {
        // A text in memory takes everything.
        let _ = text.write_str(&units::duration(state.elapsed()));
    };
    ProgressStyle::with_template(template)
        .expect("the bar templates are valid")
        .with_key("time", time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_line_says_how_far_it_is_and_how_long_it_took_last_time() {
        let mut state = State {
            label: "building zlib: running".into(),
            since: Instant::now(),
            last: None,
            bytes: 0,
            total: None,
            bar: None,
        };
        let plain = |state: &State| state.plain(Duration::from_secs(12));
        assert_eq!(plain(&state), "building zlib: running (12 s)");
        state.last = Some(Duration::from_secs(40));
        assert_eq!(plain(&state), "building zlib: running 12 s of about 40 s");
        (state.last, state.label) = (None, "fetching make".into());
        state.moved(1 << 20, None);
        assert_eq!(plain(&state), "fetching make (1.0 MiB, 12 s)");
        state.moved(1 << 20, Some(41 << 20));
        assert_eq!(plain(&state), "fetching make (1.0 MiB of 41 MiB, 12 s)");
    }
}
