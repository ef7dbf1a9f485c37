//! Directories of content, placed as directories on disk.
//!
//! Names come from whoever made the directory. The node refuses those that are no names of files; everything is made new
//! below a directory that was not there before, so nothing that exists is followed or replaced.

use std::fs::{self, File};
use std::path::Path;

use node::{ContentPath, TreeEntry, fetch_tree};
use store::Store;
use store::substitute::Fetched;

use crate::blobs;
use crate::cmd::venv::refuse_existing;
use crate::context::Context;
use crate::error::{CmdResult, Exit, Failure};
use crate::network::Remote;
use crate::summary::Tally;
use crate::watch::Watch;

/// Gets the directory at a path and places what is in it in `dir`, which must not exist yet.
///
/// # Errors
/// When it is no directory, when something in it cannot be got or placed. What was placed until then stays.
pub fn place_tree(context: &Context, path: &ContentPath, dir: &Path) -> CmdResult {
    refuse_existing(dir)?;
    // A collector may come by before a file that has just come is copied.
    let store = context.store()?.holding()?;
    let remote = Remote::new(context)?;
    let watch = Watch::new(&context.ui, &context.interrupt);
    let progress = watch.transfer(format!("fetching {path}"));
    let mut tally = Tally::default();
    let place =
        &mut |below: &Path, entry: TreeEntry| match entry {
            TreeEntry::Directory => make(&dir.join(below)),
            TreeEntry::File(_) if below == Path::new("") => Err(Failure::usage("it is a file")
                .hint(format!("`p2pkgs fetch {path} -o FILE` gets it"))),
            TreeEntry::File(fetched) => {
                tally.add(fetched.blob.size, &fetched.received);
                copy(&store, &fetched, &dir.join(below))
            }
        };
    fetch_tree(remote.doors()?, path, &store, &progress, place).map_err(|failure| match failure
        .exit()
    {
        Exit::Interrupted => Failure::interrupted(),
        _ => failure.context(format!("cannot place `{path}`")),
    })?;
    drop(progress);
    if let Some(line) = tally.line() {
        context.ui.status(line);
    }
    context.ui.data(dir.display())
}

fn make(dir: &Path) -> CmdResult {
    fs::create_dir(dir)
        .map_err(|e| Failure::from(e).context(format!("cannot make `{}`", dir.display())))
}

fn copy(store: &Store, fetched: &Fetched, path: &Path) -> CmdResult {
    let mut blob = blobs::open(store, &fetched.blob)?;
    File::create_new(path)
        .and_then(|mut file| blob.copy_to(&mut file))
        .map(drop)
        .map_err(|e| Failure::from(e).context(format!("cannot write `{}`", path.display())))
}
