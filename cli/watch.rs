//! Shows what the builder does: events become bars and status lines, ^C becomes "cancelled".

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base::PackageName;
use builder::{Event, Observer, Phase};
use store::substitute::{Origin, Progress};

use crate::interrupt::Interrupt;
use crate::sanitize;
use crate::times::Times;
use crate::ui::{Task, Tasks, Ui};
use crate::units;

/// Characters of a build's line that are shown with `-v`.
const LINE_CHARACTERS_MAX: usize = 400;
/// Bytes of a line that never ends, kept until it is shown.
const LINE_BYTES_MAX: usize = 4096;

/// What a task is about: a package and, if it is one of its sources, the source's file name.
type Key = (PackageName, Option<String>);

/// Watches on behalf of the user.
#[derive(Debug)]
pub struct Watch {
    ui: Ui,
    interrupt: Interrupt,
    tasks: Tasks,
    live: Mutex<Live>,
    /// How long builds took; `None` where nothing is built.
    times: Option<Times>,
}

#[derive(Debug, Default)]
struct Live {
    /// One line for all lookups: they are many and short.
    looking: Option<Task>,
    running: HashMap<Key, Task>,
    /// Ends of lines that builds have not finished.
    partial: HashMap<PackageName, Vec<u8>>,
}

impl Watch {
    /// Shows events on `ui` and stops when `interrupt` says so.
    pub fn new(ui: &Ui, interrupt: &Interrupt) -> Self {
        let tasks = ui.tasks();
        Self {
            ui: ui.clone(),
            interrupt: interrupt.clone(),
            tasks,
            live: Mutex::default(),
            times: None,
        }
    }

    /// Remembers how long builds take.
    pub fn remembering(mut self, times: Times) -> Self {
        self.times = Some(times);
        self
    }

    /// Watches a single transfer.
    pub fn transfer(&self, label: String) -> Transfer<'_> {
        Transfer {
            task: self.tasks.start(label),
            interrupt: &self.interrupt,
        }
    }

    /// Tells of something that has come.
    pub fn fetched(&self, what: &str, bytes: u64, received: &[(Origin, u64)]) {
        let (size, from) = (units::bytes(bytes), origins(received));
        self.ui
            .status(format!("fetched {what} ({size}) from {from}"));
    }

    fn live(&self) -> MutexGuard<'_, Live> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn looking(&self, package: &PackageName) {
        let label = format!("looking up {package}");
        let mut live = self.live();
        match &live.looking {
            Some(task) => task.relabel(label),
            None => live.looking = Some(self.tasks.start(label)),
        }
    }

    fn running(&self, package: &PackageName, source: Option<&str>, label: String) {
        let key = (package.clone(), source.map(str::to_owned));
        let mut live = self.live();
        match live.running.get(&key) {
            Some(task) => task.relabel(label),
            None => {
                live.running.insert(key, self.tasks.start(label));
            }
        }
    }

    /// A build entered a phase: the clock shows how long it has been in that, and how long its script ran last time.
    fn building(&self, package: &PackageName, phase: Phase) {
        let label = format!("building {package}: {}", doing(phase));
        let last = (phase == Phase::Running).then(|| self.expected(package));
        let mut live = self.live();
        let task = live.running.entry((package.clone(), None));
        let task = task.or_insert_with(|| self.tasks.start(label.clone()));
        task.begin(label, last.flatten());
    }

    fn moved(&self, package: &PackageName, source: Option<&str>, bytes: u64, total: Option<u64>) {
        let key = (package.clone(), source.map(str::to_owned));
        if let Some(task) = self.live().running.get(&key) {
            task.set_bytes(bytes, total);
        }
    }

    fn ended(&self, package: &PackageName, source: Option<&str>) {
        let key = (package.clone(), source.map(str::to_owned));
        // Dropped after the lock: ending a task draws.
        let task = self.live().running.remove(&key);
        drop(task);
    }

    /// Shows whole lines of a build's output, with the package in front.
    fn output(&self, package: &PackageName, text: &[u8]) {
        if !self.ui.verbose() {
            return;
        }
        let mut live = self.live();
        let partial = live.partial.entry(package.clone()).or_default();
        partial.extend_from_slice(text);
        let whole = partial
            .iter()
            .rposition(|b| *b == b'\n')
            .map_or(0, |last| last + 1);
        let cut = if partial.len() - whole > LINE_BYTES_MAX {
            partial.len()
        } else {
            whole
        };
        let lines: Vec<u8> = partial.drain(..cut).collect();
        drop(live);
        for line in lines.split(|b| *b == b'\n').filter(|line| !line.is_empty()) {
            self.ui.detail(format!(
                "{package}| {}",
                sanitize::bytes(line, LINE_CHARACTERS_MAX)
            ));
        }
    }
}

impl Observer for Watch {
    fn event(&self, event: &Event<'_>) {
        if matches!(event, Event::Building { phase, .. } if *phase == Phase::Running) {
            crate::bug::provoke("build");
        }
        if !matches!(event, Event::Looking { .. } | Event::Output { .. }) {
            let looking = self.live().looking.take();
            drop(looking);
        }
        match event {
            Event::Looking { package } => self.looking(package),
            Event::Fetching {
                package,
                source,
                bytes,
                total,
            } => {
                self.running(
                    package,
                    *source,
                    format!("fetching {}", named(package, *source)),
                );
                self.moved(package, *source, *bytes, *total);
            }
            Event::Fetched {
                package,
                source,
                bytes,
                received,
            } => {
                self.ended(package, *source);
                self.fetched(&named(package, *source), *bytes, received);
            }
            Event::Building { package, phase } => self.building(package, *phase),
            Event::Output { package, text } => self.output(package, text),
            Event::Built {
                package,
                bytes,
                elapsed,
            } => {
                self.ended(package, None);
                if let Some(times) = &self.times {
                    times.took(package, *elapsed);
                }
                let (size, time) = (units::bytes(*bytes), units::duration(*elapsed));
                self.ui
                    .status(format!("built {package} ({size}) in {time}"));
            }
            Event::Warning { package, text } => {
                self.ui.warn(format!("{package}: {}", sanitize::line(text)));
            }
            Event::Present { package }
            | Event::Failed { package, .. }
            | Event::Over { package } => {
                self.ended(package, None);
            }
            _ => {}
        }
    }

    fn cancelled(&self) -> bool {
        self.interrupt.is_set()
    }

    fn expected(&self, package: &PackageName) -> Option<Duration> {
        self.times.as_ref()?.of(package)
    }
}

/// One transfer that is watched.
#[derive(Debug)]
pub struct Transfer<'a> {
    task: Task,
    interrupt: &'a Interrupt,
}

impl Progress for Transfer<'_> {
    fn bytes(&self, n: u64, total: Option<u64>) {
        self.task.add_bytes(n, total);
    }

    fn cancelled(&self) -> bool {
        self.interrupt.is_set()
    }
}

/// What is fetched: a source of a package, or the package itself.
pub fn named(package: &PackageName, source: Option<&str>) -> String {
    match source {
        Some(file) => format!("{} for {package}", sanitize::line(file)),
        None => package.to_string(),
    }
}

const fn doing(phase: Phase) -> &'static str {
    match phase {
        Phase::Sources => "getting sources",
        Phase::Waiting => "waiting for a job",
        Phase::Unpacking => "unpacking",
        Phase::Running => "running",
        Phase::Packing => "packing",
    }
}

/// Who sent bytes, the most generous first.
pub fn origins(received: &[(Origin, u64)]) -> String {
    let mut sorted: Vec<_> = received.iter().collect();
    sorted.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
    let names: Vec<_> = sorted.iter().map(|(origin, _)| short(origin)).collect();
    if names.is_empty() {
        "this store".to_owned()
    } else {
        names.join(", ")
    }
}

/// An origin as people tell it apart: the end of a peer id, for they all begin alike.
fn short(origin: &Origin) -> String {
    const PEER_ID_END: usize = 8;
    let end = |id: &str| {
        id.chars()
            .skip(id.chars().count().saturating_sub(PEER_ID_END))
            .collect::<String>()
    };
    match origin {
        Origin::LanPeer(id) => format!("LAN peer …{}", sanitize::line(&end(id))),
        Origin::Peer(id) => format!("peer …{}", sanitize::line(&end(id))),
        other => sanitize::line(&other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::Cli;

    fn watch() -> Watch {
        let cli = Cli::try_parse_from(["p2pkgs", "-q", "doctor"]).unwrap();
        Watch::new(&Ui::new(&cli.global), &Interrupt::default())
    }

    #[test]
    fn nothing_is_shown_of_a_build_that_is_over_whether_its_result_is_told_or_not() {
        let watch = watch();
        let seed = "seed".parse().unwrap();
        for phase in [Phase::Waiting, Phase::Running, Phase::Packing] {
            watch.event(&Event::Building {
                package: &seed,
                phase,
            });
            assert_eq!(watch.live().running.len(), 1);
        }
        watch.event(&Event::Over { package: &seed });
        assert!(watch.live().running.is_empty());
    }

    #[test]
    fn what_a_build_took_is_what_the_next_is_expected_to_take() {
        let dir = tempfile::tempdir().unwrap();
        let watch = || watch().remembering(Times::open(dir.path().join("times")));
        let package = "p".parse().unwrap();
        let (bytes, elapsed) = (1, Duration::from_secs(40));
        assert_eq!(watch().expected(&package), None);
        watch().event(&Event::Built {
            package: &package,
            bytes,
            elapsed,
        });
        assert_eq!(watch().expected(&package), Some(elapsed));
    }
}
