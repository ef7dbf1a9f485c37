//! Things that go on at the same time: a bar for each on a terminal, one plain line for all every ten seconds elsewhere.

use std::collections::BTreeMap;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::Ui;
use crate::units;

/// How often a line is written where no bars can be drawn: often enough to see life, rarely enough for a log file.
const PLAIN_EVERY: Duration = Duration::from_secs(10);
/// How often a bar without news is redrawn, so that its clock runs.
const REDRAW_EVERY: Duration = Duration::from_millis(200);

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
        bar.set_style(style("  {spinner} {msg} {elapsed}"));
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
        let items: Vec<_> = running.tasks.values().map(State::plain).collect();
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

    fn plain(&self) -> String {
        let elapsed = units::duration(self.since.elapsed());
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
    ProgressStyle::with_template(template).expect("the bar templates are valid")
}
