//! `p2pkgs venv`

use std::path::PathBuf;

use builder::{Layers, venv};

use crate::context::Context;
use crate::error::{CmdResult, Failure};
use crate::session::{GetArgs, Session};

/// Make a directory in which packages can be used together
///
/// The outputs of the packages and their run closures are unpacked into DIR. `DIR/bin/venv-run CMD…` runs a command with
/// DIR's top-level directories laid over the host's.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where; must not exist yet
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Packages of the tree
    #[arg(required = true, value_name = "PKG")]
    packages: Vec<String>,
    /// Link the files instead of writing them: made in an instant, takes no space; they cannot be written to
    ///
    /// The packages are unpacked once in the home for all such venvs, which `p2pkgs gc` forgets.
    #[arg(long)]
    link: bool,
    #[command(flatten)]
    get: GetArgs,
}

pub fn run(context: &Context, args: &Args) -> CmdResult {
    refuse_existing(&args.dir)?;
    let options = args.get.options(context)?;
    let session = Session::open(context, args.get.jobs, &args.packages)?;
    let report = session.realise(&options)?;
    let (store, closure) = (&session.bench.store, session.closure(&report)?);
    let layers = args
        .link
        .then(|| Layers::linked_below(&session.bench.scratch));
    match layers.flatten() {
        Some(layers) => venv::link(store, &closure, &layers, &args.dir)?,
        None => venv::create(store, &closure, &args.dir)?,
    }
    let script = std::path::absolute(args.dir.join(venv::VENV_RUN))?;
    context.ui.status("run commands in it with:");
    context.ui.data(script.display())
}

/// Said before anything is fetched or built for it.
///
/// # Errors
/// A usage error when there is something already.
pub fn refuse_existing(dir: &std::path::Path) -> CmdResult {
    if dir.symlink_metadata().is_ok() {
        return Err(
            Failure::usage(format!("`{}` exists already", dir.display()))
                .hint("name a directory that does not exist yet"),
        );
    }
    Ok(())
}
