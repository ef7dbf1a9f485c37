//! `p2pkgs tree publish`

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use base::{Cid, PackageName};
use node::ContentPath;
use recipe::{Graph, PackageSource as _, System};
use serde::Serialize;
use store::{BlockStore as _, ProvideOrigin, Store};
use trust::{Head, HeadKind, SignedHead};

use crate::bench::unix_secs;
use crate::cmd::name::point;
use crate::context::Context;
use crate::error::{CmdResult, Exit, Failure};
use crate::heads::{
    self, DEFAULT_TREE, HEAD_FILE, Lifetime, Memory, Packed, check_name, read_head,
};
use crate::keys::{self, DEFAULT_KEY, reading};
use crate::outfile::OutFile;
use crate::units;

#[derive(Debug, clap::Args)]
pub struct PublishArgs {
    /// What the tree is called
    #[arg(long, value_name = "NAME", default_value = DEFAULT_TREE)]
    name: PackageName,
    /// Write head and tree into this directory, for a web server or a disk, in place of announcing them below a name
    #[arg(long, value_name = "DIR")]
    into: Option<PathBuf>,
    #[command(flatten)]
    lifetime: Lifetime,
    /// The builder key to sign with
    #[arg(long, value_name = "NAME", default_value = DEFAULT_KEY)]
    key: String,
    /// Hand on this head, to which others have added their signatures, in place of a new one
    #[arg(long, value_name = "FILE", conflicts_with_all = ["expires", "key"])]
    head: Option<PathBuf>,
}

#[derive(Serialize)]
struct Told {
    name: String,
    revision: u64,
    expires_unix_secs: u64,
    root: String,
    carrier: String,
    source: String,
}

pub(super) fn run(context: &Context, args: &PublishArgs) -> CmdResult {
    let home = context.home()?;
    let memory = Memory::of(home, HeadKind::Tree, &args.name);
    let _lock = memory.lock(home)?;
    let store = context.store()?.holding()?;
    let root = pack(context, &store)?;
    let signed = match &args.head {
        Some(file) => made_before(file, &args.name, &root, &memory)?,
        None => make(context, args, &memory, root)?,
    };
    let carrier = heads::adopt(&store, &home.path("scratch"), &signed, ProvideOrigin::Made)?;
    memory.remember_signed(&signed)?;
    let head = signed.head();
    context.ui.status(format!(
        "revision {} of `{}`, {}, holds until {}",
        head.revision,
        head.name,
        units::count(signed.signers().count(), "signature"),
        heads::last_day(head.expires_unix_secs)
    ));
    let source = match &args.into {
        Some(dir) => {
            write(&store, dir, &signed)?;
            dir.display().to_string()
        }
        None => {
            // Names of keys have no plus in them.
            let key = format!("tree-{}", args.name).replace('+', "_plus");
            let record = point(context, &ContentPath::of(carrier), &key)?;
            format!("ipns://{}", record.name())
        }
    };
    if !context.ui.json() {
        return context.ui.data(source);
    }
    context.ui.json_data(&Told {
        name: head.name.to_string(),
        revision: head.revision,
        expires_unix_secs: head.expires_unix_secs,
        root: head.root.to_string(),
        carrier: carrier.to_string(),
        source,
    })
}

/// Puts the recipes of the tree into the store, if they can be read as recipes.
fn pack(context: &Context, store: &Store) -> CmdResult<Cid> {
    let mut tree = context.tree()?;
    let names = tree.names();
    Graph::resolve(&mut tree, &names, &System::host())?;
    let mut failed = None;
    let packed = heads::pack(&tree, &mut |block| {
        if let Err(error) = store.put(&block) {
            failed.get_or_insert(error);
        }
    })?;
    if let Some(error) = failed {
        return Err(error.into());
    }
    let Packed { root, left_out } = packed;
    for path in left_out {
        let path = path.display().to_string();
        let path = crate::sanitize::line(&path);
        context
            .ui
            .warn(format!("left out, as it is no part of a recipe: `{path}`"));
    }
    Ok(root)
}

/// The next revision, signed.
fn make(
    context: &Context,
    args: &PublishArgs,
    memory: &Memory,
    root: Cid,
) -> CmdResult<SignedHead> {
    let key = keys::signing_key(context.home()?, &context.ui, &args.key)?;
    let last = last_revision(args, memory)?;
    let head = Head {
        kind: HeadKind::Tree,
        name: args.name.clone(),
        revision: last.checked_add(1).ok_or_else(no_more)?,
        expires_unix_secs: args.lifetime.ends(unix_secs()),
        root,
    };
    Ok(head.sign(&key)?)
}

fn no_more() -> Failure {
    Failure::new(Exit::Other, "there is no higher revision")
}

/// The highest revision that is known here: of what was signed, synced, or lies where the next one is to be written.
fn last_revision(args: &PublishArgs, memory: &Memory) -> CmdResult<u64> {
    let mut known = vec![memory.head()?, memory.signed()?];
    if let Some(dir) = &args.into {
        let path = dir.join(HEAD_FILE);
        if path.exists() {
            let there = read(&path)?;
            check_name(there.head(), &args.name)?;
            known.push(Some(there));
        }
    }
    let revisions = known.iter().flatten().map(|signed| signed.head().revision);
    Ok(revisions.max().unwrap_or(0))
}

/// A head out of a file, if it is of the tree that is here.
fn made_before(
    file: &Path,
    name: &PackageName,
    root: &Cid,
    memory: &Memory,
) -> CmdResult<SignedHead> {
    let signed = read(file)?;
    check_name(signed.head(), name)?;
    check_root(signed.head(), root)?;
    check_next(signed.head(), memory)?;
    Ok(signed)
}

/// Checks that a head can follow what was signed and seen here. Who signs two trees as one revision, or hands on an older
/// one, helps whoever wants to roll users back.
pub(super) fn check_next(head: &Head, memory: &Memory) -> CmdResult {
    for seen in [memory.head()?, memory.signed()?].iter().flatten() {
        let next = head.follows(Some(seen.head()));
        next.map_err(|error| Failure::from(error).exit_with(Exit::Mismatch))?;
    }
    Ok(())
}

/// Checks that a head names the tree that is here.
pub(super) fn check_root(head: &Head, root: &Cid) -> CmdResult {
    if head.root == *root {
        return Ok(());
    }
    let message = format!(
        "the tree here is another one than revision {} of `{}`",
        head.revision, head.name
    );
    let lines = vec![
        format!("the head names {}", head.root),
        format!("the tree here is {root}"),
    ];
    Err(Failure::new(Exit::Mismatch, message).detail(lines))
}

/// Reads a head out of a file.
pub(super) fn read(file: &Path) -> CmdResult<SignedHead> {
    let mut bytes = Vec::new();
    let open = fs::File::open(file).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Failure::new(
            Exit::NotFound,
            format!("there is no file `{}`", file.display()),
        ),
        _ => reading(file)(error),
    })?;
    let max = trust::HEAD_BYTES_MAX as u64 + 1;
    io::Read::read_to_end(&mut io::Read::take(open, max), &mut bytes).map_err(reading(file))?;
    read_head(&bytes, HeadKind::Tree).map_err(|f| f.context(format!("`{}`", file.display())))
}

/// Writes a directory that anything can serve: the tree first, so that whoever reads the head finds it.
fn write(store: &Store, dir: &Path, signed: &SignedHead) -> CmdResult {
    fs::create_dir_all(dir)?;
    let root = &signed.head().root;
    let archive = dir.join(format!("{root}.car"));
    if !archive.exists() {
        let mut out = OutFile::create(&archive)?;
        heads::export(store, root, out.file())?;
        out.finish()?;
    }
    write_head(&dir.join(HEAD_FILE), signed)
}

/// Replaces a file by a head.
pub(super) fn write_head(file: &Path, signed: &SignedHead) -> CmdResult {
    let mut out = OutFile::create(file)?;
    out.file().write_all(&signed.to_bytes())?;
    out.finish()
}
