//! `p2pkgs shell`

use std::path::{Path, PathBuf};

use builder::{JobServer, Kept, LazySandbox};
use store::Store;

use crate::bench::{processors, search_path};
use crate::context::Context;
use crate::error::{CmdResult, Exit, Failure};
use crate::ui::Ui;

/// Open a shell in a failed build that was kept
///
/// It runs in the build's sandbox, with its root, environment and user, where its script began: what it made lies there. `/build`
/// is the script. `p2pkgs build --keep-failed` keeps such builds and says where; remove the directory when you are done.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The directory that `build --keep-failed` named
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Jobs that `make` may run at once [default: the number of processors]
    #[arg(short, long, env = "P2PKGS_JOBS", value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    jobs: Option<u16>,
}

pub fn run(context: &Context, args: &Args) -> CmdResult {
    let store = context.store()?.holding()?;
    let jobs = JobServer::new(args.jobs.map_or_else(processors, usize::from))?;
    let sandbox = LazySandbox::new(search_path());
    open(&context.ui, &store, &sandbox, &jobs, &args.dir).map(|_| ())
}

/// Opens a shell in a directory, and returns it when the shell has ended.
///
/// # Errors
/// When the directory is none that a build left, or has no shell.
pub fn open(
    ui: &Ui,
    store: &Store,
    sandbox: &LazySandbox,
    jobs: &JobServer,
    dir: &Path,
) -> CmdResult<Kept> {
    /// What a program that cannot be started ends with.
    const NOT_STARTED: [i32; 2] = [126, 127];
    let kept = Kept::open(dir, store)?;
    ui.status("the build's own shell; `sh /build` runs its script, `exit` leaves");
    let status = kept.shell(sandbox, jobs)?;
    if NOT_STARTED.contains(&status) {
        let shell = kept.shell_path().display().to_string();
        let message = format!("the last command, or the shell `{shell}`, could not be started");
        return Err(Failure::new(Exit::Other, message));
    }
    Ok(kept)
}
