//! `p2pkgs cache`

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use base::{PackageName, PkgHash};
use builder::Realised;
use serde::Serialize;
use store::Store;
use trust::HeadKind;

use crate::blobs;
use crate::caches::{self, HeadArgs};
use crate::context::Context;
use crate::error::CmdResult;
use crate::heads::{self, Memory};
use crate::keys::DEFAULT_KEY;
use crate::outfile::OutFile;
use crate::sanitize;
use crate::session::{GetArgs, Session};
use crate::statements;
use crate::units;

/// Hashes that are listed under one name.
const LISTED_MAX: usize = 64;

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
    /// For each package PKGHASH.tar.zst, PKGHASH.outline, by which the parts of a long one are checked, and PKGHASH.realisations, which
    /// holds the signatures; and what it was made of, so that `why-miss` can tell others what theirs differs in; beside them
    /// `key-statements`, if this home knows any. The file `head` lists what the directory holds, signed, so that users notice when
    /// somebody hands out an old copy, or keeps a package back; run this again before it expires, with news or without. What is there
    /// already stays, so a directory can be filled again and again. Whoever is to use it names it in PKG_CACHE_URL and trusts your key.
    Export {
        /// The directory; made if it is not there
        #[arg(value_name = "DIR")]
        dir: PathBuf,
        /// Packages of the tree
        #[arg(required = true, value_name = "PKG")]
        packages: Vec<String>,
        #[command(flatten)]
        head: HeadArgs,
        #[command(flatten)]
        get: GetArgs,
    },
    /// Add your signature to the head of a cache, if its directory holds what the head lists
    Sign {
        /// The directory
        #[arg(value_name = "DIR")]
        dir: PathBuf,
        /// The builder key to sign with
        #[arg(long, value_name = "NAME", default_value = DEFAULT_KEY)]
        key: String,
    },
    /// Print the caches whose heads this home has seen, one a line: URL, name, revision, day on which it expires
    List,
    /// Forget what was seen of a cache, for one that its makers began anew
    Forget {
        /// Its URL, as in PKG_CACHE_URL
        #[arg(value_name = "URL")]
        url: String,
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
    match &args.command {
        Command::Export {
            dir,
            packages,
            head,
            get,
        } => export(context, dir, packages, head, get),
        Command::Sign { dir, key } => caches::sign_head(context, dir, key),
        Command::List => list_seen(context),
        Command::Forget { url } => {
            let home = context.home()?;
            let memory = Memory::of(home, HeadKind::Cache, &caches::memory_name(url));
            let _lock = memory.lock_shortly(home)?;
            memory.forget()
        }
    }
}

#[derive(Serialize)]
struct Seen {
    url: String,
    name: String,
    revision: u64,
    expires_unix_secs: u64,
    signers: Vec<String>,
}

fn list_seen(context: &Context) -> CmdResult {
    let mut seen = Vec::new();
    for (_, memory) in Memory::all(context.home()?, HeadKind::Cache)? {
        // What has no URL was only signed here.
        if let (Some(signed), Some(url)) = (memory.head()?, memory.followed()?.source) {
            let head = signed.head();
            seen.push(Seen {
                url: sanitize::line(&url),
                name: head.name.to_string(),
                revision: head.revision,
                expires_unix_secs: head.expires_unix_secs,
                signers: signed.signers().map(ToString::to_string).collect(),
            });
        }
    }
    seen.sort_by(|a, b| a.url.cmp(&b.url));
    if context.ui.json() {
        return context.ui.json_data(&seen);
    }
    seen.iter().try_for_each(|seen| {
        let day = heads::last_day(seen.expires_unix_secs);
        let line = format!("{} {} {} {day}", seen.url, seen.name, seen.revision);
        context.ui.data(line)
    })
}

fn export(
    context: &Context,
    dir: &Path,
    packages: &[String],
    head: &HeadArgs,
    get: &GetArgs,
) -> CmdResult {
    let options = get.options(context)?;
    let session = Session::open(context, get.jobs, packages)?;
    let report = session.realise(&options)?;
    fs::create_dir_all(dir)?;
    let (graph, store) = (&session.graph, &session.bench.store);
    let (mut exported, mut outputs) = (Vec::new(), BTreeMap::new());
    for (id, realised) in session.signable(&report) {
        let name = graph.name(id);
        let signers = write_statements(store, dir, &realised.pkghash)?;
        let file = format!("{}.tar.zst", realised.pkghash);
        write_output(store, &realised.blob, &dir.join(&file))?;
        write_outline(store, dir, realised)?;
        list(dir, name, &realised.pkghash)?;
        if signers > 0 {
            outputs.insert(realised.pkghash, realised.blob.sha256);
        }
        exported.push(Exported {
            name: name.to_string(),
            pkghash: realised.pkghash.to_string(),
            file,
            size: realised.blob.size,
            signers,
        });
    }
    let said = statements::of_home(context.home()?)?;
    if !said.is_empty() {
        statements::write(&dir.join(statements::FILE), &said)?;
    }
    for id in graph.packages() {
        let text = graph.derivation(id).to_string();
        let path = dir.join(derivation_file(&graph.pkghash(id)));
        // It is named by its hash, so what is there is right.
        if !path.exists() {
            write_whole(&path, text.as_bytes())?;
        }
    }
    caches::write_head(context, dir, &outputs, head)?;
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

/// Writes what the parts of an output hash to, by which its readers find wrong bytes before its end. One that is a single part
/// needs none.
fn write_outline(store: &Store, dir: &Path, realised: &Realised) -> CmdResult {
    if realised.blob.size <= base::BLOCK_BYTES_MAX as u64 / 2 {
        return Ok(());
    }
    let mut out = OutFile::create(&dir.join(format!("{}.outline", realised.pkghash)))?;
    store.write_outline(&realised.blob.root, out.file())?;
    out.finish()
}

/// The file that says what a package is made of: the text whose SHA-256 is the hash.
pub fn derivation_file(pkghash: &PkgHash) -> String {
    format!("{pkghash}.derivation")
}

/// The file with the hashes of all packages of a name, one a line, the newest last.
pub fn names_file(name: &PackageName) -> String {
    format!("{name}.hashes")
}

/// Adds a hash to the list of its name; the oldest go when there are too many.
fn list(dir: &Path, name: &PackageName, pkghash: &PkgHash) -> CmdResult {
    let path = dir.join(names_file(name));
    let before = fs::read_to_string(&path).unwrap_or_default();
    let new = pkghash.to_string();
    let others = before.lines().filter(|line| *line != new);
    let mut lines: Vec<&str> = others.collect();
    lines.drain(..lines.len().saturating_sub(LISTED_MAX - 1));
    lines.push(&new);
    write_whole(&path, (lines.join("\n") + "\n").as_bytes())
}

/// Replaces a small file, so that nobody reads half of it.
fn write_whole(path: &Path, bytes: &[u8]) -> CmdResult {
    let mut out = OutFile::create(path)?;
    io::Write::write_all(out.file(), bytes)?;
    out.finish()
}

/// Copies an output, unless a file of its length is there: an output of a package is replaced by another one only by hand.
fn write_output(store: &Store, blob: &store::Blob, path: &Path) -> CmdResult {
    if fs::metadata(path).is_ok_and(|meta| meta.len() == blob.size) {
        return Ok(());
    }
    blobs::write(store, blob, path)
}
