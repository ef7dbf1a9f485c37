//! The terminal: data on stdout, status on stderr, live bars where there is a terminal and plain lines elsewhere.

mod tasks;

use std::fmt::Display;
use std::io::{self, IsTerminal as _, Write as _};
use std::sync::Arc;

use indicatif::MultiProgress;
use serde::Serialize;

use crate::args::{ColorChoice, Global};
use crate::error::{CmdResult, Failure};

pub use tasks::{Task, Tasks};

/// How much is said on stderr.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Volume {
    Quiet,
    Normal,
    Verbose,
}

/// Where a command prints. Clones print to the same place.
#[derive(Clone, Debug)]
pub struct Ui {
    volume: Volume,
    json: bool,
    color: bool,
    bars: Arc<MultiProgress>,
    live: bool,
}

impl Ui {
    /// As the user asked for it.
    pub fn new(global: &Global) -> Self {
        let volume = match (global.quiet, global.verbose) {
            (true, _) => Volume::Quiet,
            (false, 0) => Volume::Normal,
            (false, _) => Volume::Verbose,
        };
        let terminal = io::stderr().is_terminal();
        let plain = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty())
            || std::env::var_os("TERM").is_some_and(|t| t == "dumb");
        let color = match global.color {
            ColorChoice::Always => true,
            ColorChoice::Never => false,
            ColorChoice::Auto => terminal && !plain,
        };
        let dumb = std::env::var_os("TERM").is_none_or(|t| t == "dumb");
        let live = terminal && !dumb && volume != Volume::Quiet;
        Self {
            volume,
            json: global.json,
            color,
            bars: Arc::new(MultiProgress::new()),
            live,
        }
    }

    /// Whether data is printed as JSON.
    pub const fn json(&self) -> bool {
        self.json
    }

    /// Whether `-v` was given.
    pub fn verbose(&self) -> bool {
        self.volume >= Volume::Verbose
    }

    /// One item of data, on a line of its own on stdout.
    ///
    /// # Errors
    /// When stdout cannot be written; a reader that went away is told apart by [`Failure::is_broken_pipe`].
    pub fn data(&self, item: impl Display) -> CmdResult {
        self.bars.suspend(|| {
            let mut out = io::stdout().lock();
            writeln!(out, "{item}").and_then(|()| out.flush())
        })?;
        Ok(())
    }

    /// Items of data, each on a line of its own on stdout.
    ///
    /// # Errors
    /// As [`Self::data`].
    pub fn data_lines(&self, items: impl IntoIterator<Item = impl Display>) -> CmdResult {
        self.bars.suspend(|| {
            let mut out = io::BufWriter::new(io::stdout().lock());
            let mut items = items.into_iter();
            items
                .try_for_each(|item| writeln!(out, "{item}"))
                .and_then(|()| out.flush())
        })?;
        Ok(())
    }

    /// One JSON document, on a line of its own on stdout.
    ///
    /// # Errors
    /// As [`Self::data`].
    pub fn json_data(&self, item: &impl Serialize) -> CmdResult {
        self.data(serde_json::to_string(item)?)
    }

    /// Bytes as they are, on stdout.
    ///
    /// # Errors
    /// As [`Self::data`].
    pub fn raw(&self, bytes: &[u8]) -> CmdResult {
        let mut out = io::stdout().lock();
        out.write_all(bytes).and_then(|()| out.flush())?;
        Ok(())
    }

    /// What is being done or was done.
    pub fn status(&self, line: impl Display) {
        if self.volume >= Volume::Normal {
            self.say(&line.to_string());
        }
    }

    /// What only a curious user wants to know.
    pub fn detail(&self, line: impl Display) {
        if self.volume >= Volume::Verbose {
            self.say(&line.to_string());
        }
    }

    /// Something is odd, but the command goes on.
    pub fn warn(&self, line: impl Display) {
        self.say(&format!("{} {line}", self.painted("warning:", "33")));
    }

    /// Why the command failed, and what to do.
    pub fn failure(&self, failure: &Failure) {
        for line in failure.detail_lines() {
            self.say(&format!("  | {line}"));
        }
        self.say(&format!(
            "{} {}",
            self.painted("error:", "31;1"),
            failure.message()
        ));
        for hint in failure.hint_lines() {
            self.say(&format!("{} {hint}", self.painted("hint:", "36")));
        }
    }

    /// A set of things that go on at the same time.
    pub fn tasks(&self) -> Tasks {
        Tasks::new(self.clone())
    }

    fn painted(&self, word: &str, code: &str) -> String {
        if self.color {
            format!("\u{1b}[{code}m{word}\u{1b}[0m")
        } else {
            word.to_owned()
        }
    }

    /// Writes a line above the bars. A stderr that went away is nobody's concern. The colour was added by us, so the text
    /// is cleaned line by line where it enters, see `sanitize`.
    fn say(&self, line: &str) {
        self.bars.suspend(|| {
            let _ = writeln!(io::stderr().lock(), "{line}");
        });
    }
}
