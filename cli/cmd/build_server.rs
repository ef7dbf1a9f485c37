//! `p2pkgs build-server`

use std::io::{self, IsTerminal as _};

use crate::context::Context;
use crate::error::{CmdResult, Failure};
use crate::remote;

/// Build for another machine, which is at the other end of standard input and output
///
/// `p2pkgs build --on ssh://…` starts it by ssh; nobody else needs to. It uses the home's own store, configuration, builder key and
/// trust, and ends with the connection. To let a key of ssh do nothing else, begin its line in `authorized_keys` with
/// `restrict,command="p2pkgs -q build-server"`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Jobs at once, whatever the other machine wishes [default: the number of processors]
    #[arg(short, long, env = "P2PKGS_JOBS", value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    jobs: Option<u16>,
}

pub fn run(context: &Context, args: &Args) -> CmdResult {
    if io::stdin().is_terminal() || io::stdout().is_terminal() {
        return Err(Failure::usage("there is nobody at the other end").hint(
            "on the machine that is to build for you: `p2pkgs build --on ssh://HOST PKG` here",
        ));
    }
    remote::serve(context, args.jobs)
}
