//! `p2pkgs store`

use serde::Serialize;
use store::{Blob, BlobState, DamagedBlock, Store};

use crate::cmd::pin::Names;
use crate::context::Context;
use crate::error::{CmdResult, Exit, Failure};
use crate::units;

/// The files on this disk
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Read and hash everything; ends with exit code 4 when something is damaged
    ///
    /// Prints what is wrong, one a line: sha256, what is wrong, what it is.
    Verify {
        /// Move damaged files to `damaged/` in the store and forget them, so that they are fetched or built again
        #[arg(long)]
        repair: bool,
    },
}

#[derive(Serialize)]
struct Damage {
    sha256: String,
    kind: &'static str,
    state: &'static str,
    what: Vec<String>,
    repaired: bool,
}

pub fn run(context: &Context, args: &Args) -> CmdResult {
    let Command::Verify { repair } = &args.command;
    let store = context.store()?;
    let names = Names::read(store)?;
    let mut damage = Vec::new();
    let (mut files, mut bytes) = (0, 0);
    for blob in store.blobs()? {
        if context.interrupt.is_set() {
            return Err(Failure::interrupted());
        }
        damage.extend(verify(store, &names, &blob, *repair)?);
        (files, bytes) = (files + 1, bytes + blob.size);
    }
    // After the files, because forgetting one takes its nodes along.
    let cancelled = || context.interrupt.is_set();
    for block in store.damaged_blocks(&cancelled)? {
        if *repair {
            store.repair_block(&block)?;
        }
        damage.push(of_block(&names, &block, *repair));
    }
    if context.interrupt.is_set() {
        return Err(Failure::interrupted());
    }
    print(context, &damage)?;
    let (read, wrong) = (
        units::count(files, "file"),
        units::count(damage.len(), "thing"),
    );
    let bytes = units::bytes(bytes);
    if damage.is_empty() {
        context.ui.status(format!(
            "read {read} ({bytes}): all are what they should be"
        ));
        return Ok(());
    }
    if *repair {
        context.ui.status(format!(
            "read {read} ({bytes}): {wrong} damaged and repaired"
        ));
        return Ok(());
    }
    let message = format!("the store is damaged: {wrong} of {read} ({bytes})");
    Err(Failure::new(Exit::Mismatch, message).hint(
        "`p2pkgs store verify --repair` moves damaged files aside, so that they are fetched again",
    ))
}

fn verify(store: &Store, names: &Names, blob: &Blob, repair: bool) -> CmdResult<Option<Damage>> {
    let state = match store.examine_blob(&blob.sha256)? {
        // Intact, or collected since it was listed.
        Some(BlobState::Intact) | None => return Ok(None),
        Some(BlobState::Missing) => "missing",
        Some(BlobState::Damaged) => "damaged",
    };
    let what = names.of(&blob.sha256);
    let what = what.into_iter().map(str::to_owned).collect();
    if repair {
        store.verify_blob(&blob.sha256)?;
    }
    Ok(Some(Damage {
        sha256: blob.sha256.to_string(),
        kind: "file",
        state,
        what,
        repaired: repair,
    }))
}

fn of_block(names: &Names, block: &DamagedBlock, repaired: bool) -> Damage {
    let mut what = Vec::new();
    if let Some(sha256) = &block.root_of {
        what.push(format!("root of {sha256}"));
        what.extend(names.of(sha256).into_iter().map(str::to_owned));
    }
    if let Some(pkghash) = &block.derivation {
        what.push(format!("derivation {pkghash}"));
    }
    Damage {
        sha256: block.sha256.to_string(),
        kind: "block",
        state: "damaged",
        what,
        repaired,
    }
}

fn print(context: &Context, damage: &[Damage]) -> CmdResult {
    if context.ui.json() {
        return context.ui.json_data(&damage);
    }
    damage.iter().try_for_each(|found| {
        let what = found.what.join(", ");
        let line = format!("{} {} {} {what}", found.sha256, found.state, found.kind);
        context.ui.data(line.trim_end())
    })
}
