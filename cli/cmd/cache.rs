//! `p2pkgs cache`

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use base::PkgHash;
use serde::Serialize;
use store::Store;

use crate::blobs;
use crate::context::Context;
use crate::error::CmdResult;
use crate::outfile::OutFile;
use crate::session::{GetArgs, Session};
use crate::units;

/// Package caches that any web server, or IPFS, can serve
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Write packages and their run closures into a directory that others use as a package cache
    ///
    /// For each package PKGHASH.tar.zst and PKGHASH.realisations, which holds the signatures. What is there already stays, so a
    /// directory can be filled again and again. Whoever is to use it names it in PKG_CACHE_URL and trusts your key.
    Export {
        /// The directory; made if it is not there
        #[arg(value_name = "DIR")]
        dir: PathBuf,
        /// Packages of the tree
        #[arg(required = true, value_name = "PKG")]
        packages: Vec<String>,
        #[command(flatten)]
        get: GetArgs,
    },
}

#[derive(Serialize)]
struct Exported {
    name: String,
    pkghash: String,
    file: String,
    size: u64,
    signers: usize,
}

pub fn run(context: &Context, args: &Args) -> CmdResult {
    let Command::Export { dir, packages, get } = &args.command;
    export(context, dir, packages, get)
}

fn export(context: &Context, dir: &Path, packages: &[String], get: &GetArgs) -> CmdResult {
    let options = get.options(context)?;
    let session = Session::open(context, get.jobs, packages)?;
    let report = session.realise(&options)?;
    fs::create_dir_all(dir)?;
    let (graph, store) = (&session.graph, &session.bench.store);
    let mut exported = Vec::new();
    for (id, realised) in session.signable(&report) {
        let name = graph.name(id);
        let signers = write_statements(store, dir, &realised.pkghash)?;
        let file = format!("{}.tar.zst", realised.pkghash);
        write_output(store, &realised.blob, &dir.join(&file))?;
        exported.push(Exported {
            name: name.to_string(),
            pkghash: realised.pkghash.to_string(),
            file,
            size: realised.blob.size,
            signers,
        });
    }
    let bytes = exported.iter().map(|e| e.size).sum();
    context.ui.status(format!(
        "{}, {} in `{}`",
        units::count(exported.len(), "package"),
        units::bytes(bytes),
        dir.display()
    ));
    if context.ui.json() {
        return context.ui.json_data(&exported);
    }
    exported
        .iter()
        .try_for_each(|e| context.ui.data(format!("{} {}", e.file, e.name)))
}

fn write_statements(store: &Store, dir: &Path, pkghash: &PkgHash) -> CmdResult<usize> {
    let statements = store.realisations(pkghash)?;
    if !statements.is_empty() {
        let mut out = OutFile::create(&dir.join(format!("{pkghash}.realisations")))?;
        io::Write::write_all(out.file(), &node::encode_statements(&statements))?;
        out.finish()?;
    }
    Ok(statements.len())
}

/// Copies an output, unless a file of its length is there: an output of a package is replaced by another one only by hand.
fn write_output(store: &Store, blob: &store::Blob, path: &Path) -> CmdResult {
    if fs::metadata(path).is_ok_and(|meta| meta.len() == blob.size) {
        return Ok(());
    }
    blobs::write(store, blob, path)
}
