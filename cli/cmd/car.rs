//! `p2pkgs car`

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use base::{Cid, Multihash};
use serde::Serialize;
use store::car::{CarError, CarImport};
use store::{Blob, Pin, PinKind, ProvideKind, Store};

use crate::bench::unix_secs;
use crate::cmd::mirror::tell_of_daemon;
use crate::context::Context;
use crate::error::{CmdResult, Failure};
use crate::outfile::OutFile;
use crate::{roots, units};

/// Content in one file (CAR), to carry where there is no network
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Write what lies below CIDs, or the outputs of packages, into a file
    Export {
        /// CIDs, all of whose blocks are in the store, or packages of the tree
        #[arg(required = true, value_name = "CID|PKG")]
        items: Vec<String>,
        /// The file to write; `-` is stdout
        #[arg(short, long, value_name = "FILE")]
        output: PathBuf,
    },
    /// Take the content of a file into the store, announce its roots, and print them, one a line
    Import {
        /// A CAR of version 1 or 2
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
}

/// A root as `--json` tells of it.
#[derive(Serialize)]
struct Imported {
    cid: String,
    /// Of a file: its sha256 and length.
    sha256: Option<String>,
    size: Option<u64>,
}

pub fn run(context: &Context, args: &Args) -> CmdResult {
    match &args.command {
        Command::Export { items, output } => export(context, items, output),
        Command::Import { file } => import(context, file),
    }
}

fn export(context: &Context, items: &[String], output: &Path) -> CmdResult {
    let roots = roots::of(context, items)?;
    let store = context.store()?;
    if output == Path::new("-") {
        write(store, &roots, &mut io::stdout().lock())?;
        return Ok(io::stdout().flush()?);
    }
    let mut out = OutFile::create(output)?;
    write(store, &roots, out.file())?;
    out.finish()?;
    context.ui.data(output.display())
}

fn write(store: &Store, roots: &[Cid], out: &mut impl Write) -> CmdResult {
    let exported = store.export_car(roots, BufWriter::new(out));
    exported.map(drop).map_err(|error| match &error {
        CarError::Missing { root, .. } => {
            let hint = format!("get it first: `p2pkgs fetch {root} -o FILE`");
            Failure::from(error).hint(hint)
        }
        _ => Failure::from(error),
    })
}

fn import(context: &Context, path: &Path) -> CmdResult {
    let cannot = || format!("cannot import `{}`", path.display());
    // Between taking a file in and pinning it, a collector may come by.
    let store = context.store()?.holding()?;
    let open = || -> CmdResult<CarImport> {
        let file = File::open(path)?;
        if !file.metadata()?.is_file() {
            return Err(Failure::usage("it is no regular file"));
        }
        Ok(store.import_car(&file)?)
    };
    let import = open().map_err(|f| f.context(cannot()))?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    keep(&store, &import, &name)?;
    for root in &import.incomplete {
        context
            .ui
            .warn(format!("the file `{root}` is not all there"));
    }
    context.ui.status(units::count(
        usize::try_from(import.blocks).unwrap_or(usize::MAX),
        "block",
    ));
    tell_of_daemon(context)?;
    print(context, &import)
}

fn whole_roots(import: &CarImport) -> impl Iterator<Item = &Cid> {
    let roots = import.roots.iter();
    roots.filter(|root| !import.incomplete.contains(root))
}

/// Keeps what came, and announces what can be fetched whole.
fn keep(store: &Store, import: &CarImport, name: &str) -> CmdResult {
    let files = import.files.iter().map(|(_, blob)| blob.sha256);
    let is_file = |root: &&Cid| import.files.iter().any(|(file, _)| file == *root);
    let others = whole_roots(import).filter(|root| !is_file(root));
    // What is no file is named by its root block.
    let others = others.filter_map(|root| Multihash::of(root).ok());
    for sha256 in files.chain(others.map(|hash| hash.digest())) {
        store.pin(&Pin {
            sha256,
            kind: PinKind::Other {
                name: name.to_owned(),
            },
            added_unix_secs: unix_secs(),
        })?;
    }
    let keys: Vec<_> = whole_roots(import)
        .filter_map(|root| Multihash::of(root).ok())
        .map(|key| (key, ProvideKind::Root))
        .collect();
    Ok(store.provide_all(&keys)?)
}

fn print(context: &Context, import: &CarImport) -> CmdResult {
    if !context.ui.json() {
        return import
            .roots
            .iter()
            .try_for_each(|root| context.ui.data(root));
    }
    let blob = |root: &Cid| -> Option<&Blob> {
        import
            .files
            .iter()
            .find(|(cid, _)| cid == root)
            .map(|(_, blob)| blob)
    };
    let imported: Vec<_> = import
        .roots
        .iter()
        .map(|root| Imported {
            cid: root.to_string(),
            sha256: blob(root).map(|blob| blob.sha256.to_string()),
            size: blob(root).map(|blob| blob.size),
        })
        .collect();
    context.ui.json_data(&imported)
}
