//! The `p2pkgs` program: reads the command line, runs one command, ends with its exit code.
//!
//! This crate is the only door to the terminal, the environment, the home directory and the package tree on disk. What a
//! command means lies in the library crates; here it is wired up, watched and told.

mod apt;
mod args;
mod bench;
mod bug;
mod cmd;
mod context;
mod daemon;
mod error;
mod fetcher;
mod hint;
mod home;
mod interrupt;
mod keys;
mod names;
mod network;
mod origins;
mod outfile;
mod placing;
mod roots;
mod sanitize;
mod seeds;
mod session;
mod sources;
mod summary;
mod tree;
mod ui;
mod units;
mod watch;

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
    start_tracing();
    let interrupt = Interrupt::install()?;
    let context = Context::new(cli.global, ui.clone(), interrupt);
    cmd::run(context, cli.command)
}

/// Libraries are silent unless $RUST_LOG asks them to speak.
fn start_tracing() {
    let filter = tracing_subscriber::EnvFilter::from_default_env();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
}
