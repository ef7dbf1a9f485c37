//! The command line: global options and the list of commands, nothing else. What a command takes stands in its file.

use std::path::PathBuf;

use clap::builder::FalseyValueParser;
use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};

use crate::cmd;
use crate::error::Exit;

/// Source-based, auditable, peer-to-peer packages
///
/// Recipes live in a package tree (`pkg/`). A package is fetched from peers who built it and whose key you trust, or built
/// from source in a sandbox. Sources are found by their sha256, among peers first. Linux on x86_64 only.
#[derive(Debug, Parser)]
#[command(
    name = "p2pkgs",
    version,
    max_term_width = 100,
    disable_help_subcommand = true
)]
#[command(after_help = EXIT_CODES)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

/// The table of `error::Exit`, where users look for it.
const EXIT_CODES: &str = "\
Exit codes:
  0    ok
  1    other failure
  2    usage
  3    not found anywhere
  4    hash or signature mismatch, or nobody trusted vouches for it
  5    build failed
  6    not reproducible
  7    network unreachable or out of time
  8    sandbox unavailable
  9    store busy
  10   disk full
  70   a bug, to be reported
  130  interrupted";

/// Options that every command takes.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// Where store, identity, keys and state live [default: the XDG data directory]
    #[arg(long, global = true, env = "P2PKGS_HOME", value_name = "DIR")]
    pub home: Option<PathBuf>,
    /// The folder that holds `pkg/` [default: the nearest parent that does]
    #[arg(long, global = true, env = "P2PKGS_TREE", value_name = "DIR")]
    pub tree: Option<PathBuf>,
    /// Network profile: public, lan, private, offline, or a file [default: public]
    #[arg(long, global = true, env = "P2PKGS_PROFILE", value_name = "NAME|FILE")]
    pub profile: Option<String>,
    /// Open no socket: use only what the store holds
    #[arg(long, global = true, env = "P2PKGS_OFFLINE", value_parser = FalseyValueParser::new())]
    pub offline: bool,
    /// Print data as JSON
    #[arg(long, global = true, env = "P2PKGS_JSON", value_parser = FalseyValueParser::new())]
    pub json: bool,
    /// Say more on stderr
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub verbose: u8,
    /// Say nothing on stderr but warnings and errors
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,
    /// When to use colour; NO_COLOR is honoured
    #[arg(
        long,
        global = true,
        env = "P2PKGS_COLOR",
        value_name = "WHEN",
        default_value = "auto"
    )]
    pub color: ColorChoice,
}

/// When to use colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ColorChoice {
    /// On a terminal, unless NO_COLOR is set
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    Fetch(cmd::fetch::Args),
    Build(cmd::build::Args),
    Check(cmd::check::Args),
    Run(cmd::run::Args),
    Venv(cmd::venv::Args),
    Export(cmd::export::Args),
    Hash(cmd::hash::Args),
    Closure(cmd::closure::Args),
    Why(cmd::why::Args),
    WhyMiss(cmd::why_miss::Args),
    Graph(cmd::graph::Args),
    New(cmd::new::Args),
    Lint(cmd::lint::Args),
    Refresh(cmd::refresh::Args),
    Weather(cmd::weather::Args),
    Challenge(cmd::challenge::Args),
    Log(cmd::log::Args),
    Shell(cmd::shell::Args),
    Publish(cmd::publish::Args),
    Node(cmd::node::Args),
    Mirror(cmd::mirror::Args),
    Pin(cmd::pin::Args),
    Unpin(cmd::unpin::Args),
    Gc(cmd::gc::Args),
    Name(cmd::name::Args),
    Tree(cmd::tree::Args),
    Cache(cmd::cache::Args),
    Car(cmd::car::Args),
    Bundle(cmd::bundle::Args),
    Store(cmd::store::Args),
    Key(cmd::key::Args),
    Bootstrap(cmd::bootstrap::Args),
    BuildServer(cmd::build_server::Args),
    Doctor(cmd::doctor::Args),
    Config(cmd::config::Args),
    Completions(cmd::completions::Args),
}

impl Command {
    /// Whether it runs until it is told to stop.
    pub const fn is_daemon(&self) -> bool {
        matches!(self, Self::Node(args) if args.is_daemon())
    }

    /// Whether it only moves bytes between peers and the store, and starts no program.
    pub const fn is_exchange(&self) -> bool {
        self.is_daemon() || matches!(self, Self::Fetch(_))
    }
}

/// Prints what the command line parser has to say: help and versions on stdout, mistakes on stderr.
pub fn explain(usage: &clap::Error) -> Exit {
    // A closed stdout or stderr leaves nobody to tell.
    let _ = usage.print();
    if usage.use_stderr() {
        Exit::Usage
    } else {
        Exit::Ok
    }
}
