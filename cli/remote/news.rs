//! Shows what happens on another machine like what happens on this one, and keeps the logs of its builds.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use base::PackageName;
use builder::{Event, Limits, Log, Observer as _, log_path};
use recipe::Graph;

use super::wire::{News, PIECE_BYTES};
use crate::as_text::Text;
use crate::bench::Bench;
use crate::sanitize;
use crate::units;

/// Most warnings of one host: some for each package of a large tree.
const WARNINGS_MAX: usize = 10_000;
/// Characters of a warning that are shown.
const WARNING_CHARACTERS_MAX: usize = 1000;

/// Tells the user.
pub struct Reporter<'a> {
    bench: &'a Bench,
    graph: &'a Graph,
    host: String,
    logs: HashMap<PackageName, (Log, u64)>,
    built: HashSet<PackageName>,
    warnings: usize,
}

impl<'a> Reporter<'a> {
    /// Tells of packages of this graph that a host builds.
    pub fn new(bench: &'a Bench, graph: &'a Graph, host: String) -> Self {
        Self {
            bench,
            graph,
            host,
            logs: HashMap::new(),
            built: HashSet::new(),
            warnings: 0,
        }
    }

    /// How many packages were built.
    pub fn built(&self) -> usize {
        self.built.len()
    }

    /// Tells one thing. The error says what is wrong with it.
    ///
    /// # Errors
    /// When it is about something else than was asked for, or more than any build may print.
    pub fn tell(&mut self, news: News) -> Result<(), &'static str> {
        let (News::Phase { package, .. }
        | News::Output { package, .. }
        | News::Built { package, .. }
        | News::Fetched { package, .. }
        | News::Over { package }
        | News::Warning { package, .. }) = &news;
        let Text(package) = package.clone();
        let (bench, package) = (self.bench, &package);
        if self.graph.id(package).is_none() {
            return Err("it tells of packages that were not asked for");
        }
        match news {
            News::Phase { phase, .. } => {
                let phase = phase.into();
                if phase == builder::Phase::Running {
                    self.start_log(package);
                }
                bench.watch.event(&Event::Building { package, phase });
            }
            News::Output { text, .. } => {
                if text.len() > PIECE_BYTES {
                    return Err("it sends more of a log at once than there may be");
                }
                self.log(package, &text)?;
                bench.watch.event(&Event::Output {
                    package,
                    text: &text,
                });
            }
            News::Built { bytes, millis, .. } => {
                if !self.built.insert(package.clone()) {
                    return Err("it builds a package again");
                }
                bench.watch.event(&Event::Over { package });
                let time = units::duration(Duration::from_millis(millis));
                let (size, host) = (units::bytes(bytes), &self.host);
                bench
                    .ui
                    .status(format!("built {package} ({size}) in {time} on {host}"));
            }
            News::Fetched {
                what, bytes, from, ..
            } => {
                let clean = |text: &str| sanitize::bytes(text.as_bytes(), WARNING_CHARACTERS_MAX);
                let (what, from) = (clean(&what), clean(&from));
                let (size, host) = (units::bytes(bytes), &self.host);
                bench
                    .ui
                    .detail(format!("fetched {what} ({size}) from {from} on {host}"));
            }
            News::Over { .. } => {
                self.logs.remove(package);
                bench.watch.event(&Event::Over { package });
            }
            News::Warning { text, .. } => {
                self.warnings += 1;
                if self.warnings > WARNINGS_MAX {
                    return Err("it warns without an end");
                }
                let text = sanitize::bytes(text.as_bytes(), WARNING_CHARACTERS_MAX);
                bench.ui.warn(format!("{package} on {}: {text}", self.host));
            }
        }
        Ok(())
    }

    /// A log that cannot be kept is no reason to stop a build.
    fn start_log(&mut self, package: &PackageName) {
        let Some(id) = self.graph.id(package) else {
            return;
        };
        let path = log_path(&self.bench.logs, &self.graph.pkghash(id));
        match Log::create(&path) {
            Ok(log) => {
                self.logs.insert(package.clone(), (log, 0));
            }
            Err(error) => self.bench.ui.warn(format!("{package}: {error}")),
        }
    }

    fn log(&mut self, package: &PackageName, text: &[u8]) -> Result<(), &'static str> {
        let Some((log, length)) = self.logs.get_mut(package) else {
            return Ok(());
        };
        *length += text.len() as u64;
        // The host has the same limit, and one piece may stand above it.
        if *length > Limits::default().log_bytes_max + PIECE_BYTES as u64 {
            return Err("it sends more of a log than a build may print");
        }
        log.write(text);
        if let Some(error) = log.take_error() {
            self.bench
                .ui
                .warn(format!("{package}: its log is incomplete: {error}"));
        }
        Ok(())
    }
}
