//! One file per command: its doc comment is the help, `Args` what it takes, `run` what it does.

pub mod bootstrap;
pub mod build;
pub mod build_server;
pub mod bundle;
pub mod cache;
pub mod car;
pub mod challenge;
pub mod check;
pub mod closure;
pub mod completions;
pub mod config;
pub mod doctor;
pub mod export;
pub mod fetch;
pub mod gc;
pub mod graph;
pub mod hash;
pub mod key;
pub mod lint;
pub mod log;
pub mod mirror;
pub mod name;
pub mod new;
pub mod node;
pub mod pin;
pub mod publish;
pub mod refresh;
pub mod run;
pub mod shell;
pub mod store;
pub mod tree;
pub mod unpin;
pub mod venv;
pub mod weather;
pub mod why;
pub mod why_miss;

use crate::args::Command;
use crate::context::Context;
use crate::error::CmdResult;

/// Runs the command that was asked for.
///
/// # Errors
/// The command's own failure.
pub fn run(mut context: Context, command: Command) -> CmdResult {
    match command {
        Command::Fetch(args) => fetch::run(&context, &args),
        Command::Build(args) => build::run(&context, &args),
        Command::BuildServer(args) => build_server::run(&context, &args),
        Command::Check(args) => check::run(&context, &args),
        Command::Run(args) => run::run(&context, &args),
        Command::Venv(args) => venv::run(&context, &args),
        Command::Export(args) => export::run(&context, &args),
        Command::Hash(args) => hash::run(&context, &args),
        Command::Closure(args) => closure::run(&context, &args),
        Command::Why(args) => why::run(&context, &args),
        Command::WhyMiss(args) => why_miss::run(&context, &args),
        Command::Graph(args) => graph::run(&context, &args),
        Command::New(args) => new::run(&context, &args),
        Command::Refresh(args) => refresh::run(&context, &args),
        Command::Weather(args) => weather::run(&context, &args),
        Command::Challenge(args) => challenge::run(&context, &args),
        Command::Lint(args) => lint::run(&context, &args),
        Command::Log(args) => log::run(&context, &args),
        Command::Shell(args) => shell::run(&context, &args),
        Command::Publish(args) => publish::run(&context, &args),
        Command::Node(args) => node::run(&mut context, &args),
        Command::Mirror(args) => mirror::run(&context, &args),
        Command::Pin(args) => pin::run(&context, &args),
        Command::Unpin(args) => unpin::run(&context, &args),
        Command::Gc(args) => gc::run(&context, &args),
        Command::Name(args) => name::run(&context, &args),
        Command::Car(args) => car::run(&context, &args),
        Command::Bundle(args) => bundle::run(&context, &args),
        Command::Tree(args) => tree::run(&context, &args),
        Command::Cache(args) => cache::run(&context, &args),
        Command::Store(args) => store::run(&context, &args),
        Command::Key(args) => key::run(&context, &args),
        Command::Bootstrap(args) => bootstrap::run(&context, &args),
        Command::Doctor(args) => doctor::run(&context, &args),
        Command::Config(args) => config::run(&context, &args),
        Command::Completions(args) => completions::run(&context, &args),
    }
}
