//! `p2pkgs node`

mod facts;
mod find;
mod reload;
mod run;
mod show;

use crate::context::Context;
use crate::error::CmdResult;

/// The long-running node: run it, see what it does, ask it who has what
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Run(run::Args),
    /// Print this home's peer id
    Id,
    /// Say what the daemon is doing
    Status,
    /// Let the daemon read its configuration again and go on with its new limits
    ///
    /// Taken over at once: the sections `[limits]` and `[store]`. The daemon says in its log what changed, and which
    /// other changes need a restart. `kill -HUP` does the same.
    Reload,
    /// Print the peers the daemon is connected to, one a line: id, address, bytes sent, bytes received, agent
    Peers,
    Find(find::Args),
}

impl Args {
    /// Whether it runs until it is told to stop.
    pub const fn is_daemon(&self) -> bool {
        matches!(self.command, Command::Run(_))
    }
}

pub fn run(context: &mut Context, args: &Args) -> CmdResult {
    match &args.command {
        Command::Run(args) => run::run(context, args),
        Command::Id => show::id(context),
        Command::Status => show::status(context),
        Command::Peers => show::peers(context),
        Command::Reload => reload::run(context),
        Command::Find(args) => find::run(context, args),
    }
}
