//! `p2pkgs mirror`

use std::collections::{BTreeSet, HashSet};
use std::fs::File;
use std::path::{Path, PathBuf};

use base::Sha256;
use serde::Serialize;
use store::{Blob, Expected, Pin, PinClass, PinKind, Store};

use crate::context::Context;
use crate::daemon;
use crate::error::{CmdResult, Failure};
use crate::origins::read_list;
use crate::sources::{SourceSet, keep};
use crate::units;

/// Keep sources for others, who find them by their sha256
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Take files into the store and announce them
    Add {
        /// The files; their names are what they will be listed as
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        /// Serve them where they are, without a copy; they must stay there. One that changes is no longer served
        #[arg(long)]
        reference: bool,
    },
    /// Fetch and keep the sources of packages and of all they need
    Seed {
        /// Packages of the tree
        #[arg(required_unless_present = "all", value_name = "PKG")]
        packages: Vec<String>,
        /// All packages of the tree
        #[arg(long, conflicts_with = "packages")]
        all: bool,
    },
    /// Fetch and keep the sources of a list in upstream's format (`mirrors/ipfs`)
    ///
    /// Each is asked for by its sha256, then by the content identifier of the list, then at its URL; its sha256 has the
    /// last word.
    Import {
        /// The list: records of `source_url`, `sha256` and `cid`
        #[arg(value_name = "FILE")]
        list: PathBuf,
    },
    /// Print the sources that are here, one a line: sha256, root, size in bytes, file name
    ///
    /// Those that were added or seeded are kept; those that only a build needed go when space is wanted. `--json` tells them
    /// apart.
    List,
}

#[derive(Serialize)]
struct Listed {
    sha256: String,
    cid: String,
    size: u64,
    file: String,
    /// Whether it stays when space is wanted.
    kept: bool,
    /// Where it lies, if its owner keeps it.
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<String>,
}

pub fn run(context: &Context, args: &Args) -> CmdResult {
    match &args.command {
        Command::Add { files, reference } => add(context, files, *reference),
        Command::Seed { packages, all } => seed(context, packages, *all),
        Command::Import { list } => import(context, list),
        Command::List => list(context),
    }
}

fn add(context: &Context, files: &[PathBuf], in_place: bool) -> CmdResult {
    // Between taking a file in and pinning it, a collector may come by.
    let store = context.store()?.holding()?;
    let mut listed = Vec::new();
    for path in files {
        let cannot = || format!("cannot add `{}`", path.display());
        let taken_in = if in_place {
            store.add_reference(path).map_err(Failure::from)
        } else {
            ingest(&store, path)
        };
        let blob = taken_in.map_err(|f| f.context(cannot()))?;
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        keep(&store, &blob, &name, store::ProvideOrigin::Made)?;
        listed.push(entry(&store, &blob, name, true)?);
        if context.interrupt.is_set() {
            return Err(Failure::interrupted());
        }
    }
    tell_of_daemon(context)?;
    print(context, &listed)
}

fn ingest(store: &Store, path: &Path) -> CmdResult<Blob> {
    let mut file = File::open(path)?;
    let meta = file.metadata()?;
    if !meta.is_file() {
        return Err(Failure::usage("it is no regular file"));
    }
    let mut ingest = store.ingest()?;
    ingest.reserve(meta.len())?;
    ingest.copy_from(&mut file)?;
    Ok(ingest.finish(&Expected::anything())?)
}

fn seed(context: &Context, packages: &[String], all: bool) -> CmdResult {
    let set = if all {
        SourceSet::of_whole_tree(context)?
    } else {
        SourceSet::of_packages(context, packages)?
    };
    let failed = set.fetch(context);
    set.print(context)?;
    tell_of_daemon(context)?;
    failed
}

fn import(context: &Context, list: &Path) -> CmdResult {
    let set = SourceSet::of_list(&read_list(list)?)?;
    let failed = set.fetch_without_tree(context);
    set.print(context)?;
    tell_of_daemon(context)?;
    failed
}

fn list(context: &Context) -> CmdResult {
    let store = context.store()?;
    let (pins, notes) = (store.pins(None)?, store.notes(Some(PinClass::Source))?);
    let kept: HashSet<_> = pins.iter().map(|pin| pin.sha256).collect();
    // Both a pin and a note may give it the same name.
    let all: BTreeSet<_> = pins.into_iter().chain(notes).filter_map(named).collect();
    let mut listed = Vec::new();
    for (sha256, file) in all {
        let is_kept = kept.contains(&sha256);
        // Asked before it is looked for: a file that is not what it was is forgotten then.
        let path = store.reference(&sha256)?;
        match (store.blob(&sha256)?, path) {
            (Some(blob), _) => listed.push(entry(store, &blob, file, is_kept)?),
            (None, Some(path)) => {
                let path = crate::sanitize::line(&path.to_string_lossy());
                context.ui.warn(format!(
                    "`{path}` is not the file any more that was added: it is no longer served"
                ));
            }
            (None, None) if is_kept => {
                let file = crate::sanitize::line(&file);
                context
                    .ui
                    .warn(format!("`{file}` is pinned but not here: {sha256}"));
            }
            (None, None) => {}
        }
    }
    listed.sort_by(|a, b| (&a.file, &a.sha256).cmp(&(&b.file, &b.sha256)));
    let bytes = listed.iter().map(|l| l.size).sum();
    context.ui.status(format!(
        "{}, {}",
        units::count(listed.len(), "source"),
        units::bytes(bytes)
    ));
    print(context, &listed)
}

fn named(pin: Pin) -> Option<(Sha256, String)> {
    match pin.kind {
        PinKind::Source { file_name } => Some((pin.sha256, file_name)),
        _ => None,
    }
}

fn entry(store: &Store, blob: &Blob, file: String, kept: bool) -> CmdResult<Listed> {
    let path = store.reference(&blob.sha256)?;
    Ok(Listed {
        sha256: blob.sha256.to_string(),
        cid: blob.root.to_string(),
        size: blob.size,
        file,
        kept,
        path: path.map(|path| path.display().to_string()),
    })
}

fn print(context: &Context, listed: &[Listed]) -> CmdResult {
    if context.ui.json() {
        return context.ui.json_data(&listed);
    }
    listed.iter().try_for_each(|l| {
        let file = crate::sanitize::line(&l.file);
        context
            .ui
            .data(format!("{} {} {} {file}", l.sha256, l.cid, l.size))
    })
}

/// What is queued reaches others only through a daemon.
///
/// # Errors
/// When there is no home directory.
pub fn tell_of_daemon(context: &Context) -> CmdResult {
    if daemon::is_running(context.home()?) {
        context.ui.detail("the daemon announces it");
    } else {
        context
            .ui
            .status("no daemon runs: it is announced when one does (`p2pkgs node run`)");
    }
    Ok(())
}
