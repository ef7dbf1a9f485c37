//! One file per command: its doc comment is the help, `Args` what it takes, `run` what it does.

pub mod closure;
pub mod completions;
pub mod config;
pub mod graph;
pub mod hash;
pub mod key;
pub mod why;

use crate::args::Command;
use crate::context::Context;
use crate::error::CmdResult;

/// Runs the command that was asked for.
///
/// # Errors
/// The command's own failure.
pub fn run(context: Context, command: Command) -> CmdResult {
    match command {
        Command::Hash(args) => hash::run(&context, &args),
        Command::Closure(args) => closure::run(&context, &args),
        Command::Why(args) => why::run(&context, &args),
        Command::Graph(args) => graph::run(&context, &args),
        Command::Key(args) => key::run(&context, &args),
        Command::Config(args) => config::run(&context, &args),
        Command::Completions(args) => completions::run(&context, &args),
    }
}
