//! `p2pkgs completions`

use clap::CommandFactory as _;
use clap_complete::Shell;

use crate::args::Cli;
use crate::context::Context;
use crate::error::CmdResult;

/// Print the completion script of a shell
///
/// For bash: `p2pkgs completions bash > ~/.local/share/bash-completion/completions/p2pkgs`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Which shell
    shell: Shell,
}

pub fn run(context: &Context, args: &Args) -> CmdResult {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "p2pkgs", &mut script);
    context.ui.raw(&script)
}
