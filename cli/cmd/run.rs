//! `p2pkgs run`

use std::ffi::OsString;

use builder::venv;

use crate::context::Context;
use crate::error::{CmdResult, Exit, Failure};
use crate::session::{GetArgs, Session, TrustArgs};

/// Run a command with packages laid over the host
///
/// As in a venv of the packages, which is kept in the home directory for the next time. Ends with the command's exit code.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Packages of the tree
    #[arg(required = true, value_name = "PKG")]
    packages: Vec<String>,
    /// The command and its arguments
    #[arg(required = true, last = true, value_name = "CMD")]
    command: Vec<OsString>,
    #[command(flatten)]
    get: GetArgs,
    #[command(flatten)]
    trust: TrustArgs,
}

pub fn run(context: &Context, args: &Args) -> CmdResult {
    args.trust.apply(context);
    let options = args.get.options(context)?;
    let dir = {
        let session = Session::open(context, args.get.jobs, &args.packages)?;
        session.bench.require_sandbox()?;
        let report = session.realise(&options)?;
        let inputs = session.closure(&report)?;
        venv::cached(
            &session.bench.store,
            &inputs,
            &context.home()?.path("venvs"),
        )?
    };
    if context.interrupt.is_set() {
        return Err(Failure::interrupted());
    }
    let error = venv::exec(&dir, &args.command);
    let script = dir.join(venv::VENV_RUN);
    Err(Failure::from(error)
        .context(format!("cannot run `{}`", script.display()))
        .exit_with(Exit::Other))
}
