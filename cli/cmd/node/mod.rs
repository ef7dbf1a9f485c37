//! `p2pkgs node`

mod find;
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
    /// Print the peers the daemon is connected to, one a line: id, address, bytes sent, bytes received, agent
    Peers,
    Find(find::Args),
}

pub fn run(context: &mut Context, args: &Args) -> CmdResult {
    match &args.command {
        Command::Run(args) => run::run(context, args),
        Command::Id => show::id(context),
        Command::Status => show::status(context),
        Command::Peers => show::peers(context),
        Command::Find(args) => find::run(context, args),
    }
}
