//! The `p2pkgs` program: reads the command line, runs one command, ends with its exit code.
//!
//! This crate is the only door to the terminal, the environment, the home directory and the package tree on disk. What a
//! command means lies in the library crates; here it is wired up, watched and told.

mod apt;
mod args;
mod as_text;
mod believing;
mod bench;
mod blobs;
mod bug;
mod caches;
mod cmd;
mod context;
mod daemon;
mod error;
mod fetcher;
mod hands;
mod heads;
mod hint;
mod home;
mod interrupt;
mod keys;
mod names;
mod network;
mod notify;
mod origins;
mod outfile;
mod placing;
mod recipes;
mod remote;
mod roots;
mod sanitize;
mod seeds;
mod session;
mod sources;
mod statements;
mod substituters;
mod summary;
mod times;
mod tree;
mod trust_file;
mod ui;
mod units;
mod watch;
mod witness;

use std::process::ExitCode;

use clap::Parser as _;

use crate::args::Cli;
use crate::context::Context;
use crate::error::{CmdResult, Exit};
use crate::interrupt::Interrupt;
use crate::ui::Ui;

/// Keeps block buffers mapped between messages; the system allocator gives them back each time, a fifth of a receiver's
/// work.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    bug::watch_for_panics();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(usage) => return args::explain(&usage).into(),
    };
    let ui = Ui::new(&cli.global);
    let exit = match run(cli, &ui) {
        Ok(()) => Exit::Ok,
        Err(failure) if failure.is_broken_pipe() => Exit::Ok,
        Err(failure) => {
            ui.failure(&failure);
            failure.exit()
        }
    };
    let is_bug = exit != Exit::Ok && bug::happened();
    if is_bug { Exit::Bug } else { exit }.into()
}

fn run(cli: Cli, ui: &Ui) -> CmdResult {
    if cli.command.is_exchange() {
        without_huge_pages();
    }
    start_tracing(cli.command.is_daemon());
    let interrupt = Interrupt::install()?;
    let context = Context::new(cli.global, ui.clone(), interrupt);
    cmd::run(context, cli.command)
}

/// The allocator asks for huge pages, and each is taken whole for a few objects: a third of what a daemon or a fetch holds.
/// Only for these, not in the allocator's build: the programs that other commands start would inherit it.
fn without_huge_pages() {
    // A kernel without huge pages has nothing to switch off.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
}

/// Libraries are silent unless $RUST_LOG asks them to speak. A daemon has nobody to whom it could return an error, so what
/// our own libraries find odd is always told there.
fn start_tracing(is_daemon: bool) {
    let asked = std::env::var_os("RUST_LOG").is_some_and(|value| !value.is_empty());
    let to_stderr = || tracing_subscriber::fmt().with_writer(std::io::stderr);
    if is_daemon && !asked {
        let filter = tracing_subscriber::EnvFilter::new("error,p2pkgs=warn");
        // A supervisor's log knows the time.
        let brief = to_stderr().without_time().with_target(false);
        return brief.with_ansi(false).with_env_filter(filter).init();
    }
    let filter = tracing_subscriber::EnvFilter::from_default_env();
    to_stderr().with_env_filter(filter).init();
}
