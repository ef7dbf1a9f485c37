//! `p2pkgs gc`

use builder::{Idle, Layers};
use serde::Serialize;
use store::Unfinished;
use store::gc::{Collected, Entry, Goal, Order, Plan, Stays};

use crate::cmd::pin::Names;
use crate::context::Context;
use crate::error::{CmdResult, Exit, Failure};
use crate::units;

/// Remove what nobody has pinned and nobody uses
///
/// Outputs and sources that were fetched or built are a cache: they are fetched or built again when they are wanted. What is
/// pinned, and what a running command or build needs, stays. So are blocks that are part of no file here, such as directories of
/// content and what archives bring; they are counted only. What was unpacked for builds goes first: it is unpacked again. Prints which files are removed, one a line: sha256, size in bytes,
/// what it is. Fetches that were interrupted are kept for a week to be gone on with, unless room is wanted. Can run at any time, beside builds and the daemon.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Remove only so much, such as `10 GiB`, what was not used for longest first [default: everything]
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    free: Option<u64>,
    /// Say what would be removed, and remove nothing
    #[arg(long)]
    dry_run: bool,
}

fn parse_size(text: &str) -> Result<u64, &'static str> {
    netconfig::parse_size(text).ok_or("not a number of bytes or a size such as `10 GiB`")
}

#[derive(Serialize)]
struct Report<'a> {
    dry_run: bool,
    removed: Vec<Removed<'a>>,
    /// Blocks that were part of no file.
    blocks: usize,
    unfinished: Vec<Interrupted<'a>>,
    /// What was unpacked for builds.
    unpacked: Vec<Removed<'a>>,
    freed_bytes: u64,
    stays: Staying,
}

#[derive(Serialize)]
struct Removed<'a> {
    sha256: String,
    size: u64,
    what: Vec<&'a str>,
}

/// A fetch that was interrupted.
#[derive(Serialize)]
struct Interrupted<'a> {
    root: &'a str,
    size: u64,
}

/// Why the rest stays.
#[derive(Clone, Copy, Serialize)]
struct Staying {
    pinned: Total,
    in_use: Total,
    spared: Total,
}

#[derive(Clone, Copy, Serialize)]
struct Total {
    files: usize,
    bytes: u64,
}

/// Removes what was unpacked for builds and no build uses, until enough is free; or says what that would be. What was
/// unpacked for venvs goes, too, and does not count: a venv may still have its files.
fn clear_layers(context: &Context, args: &Args) -> CmdResult<Vec<Idle>> {
    let scratch = context.home()?.path("scratch");
    if let Some(linked) = Layers::linked_below(&scratch).filter(|_| !args.dry_run) {
        linked.tidy();
        for layer in linked.list() {
            linked.remove(&layer.sha256);
        }
    }
    let Some(layers) = Layers::below(&scratch) else {
        return Ok(Vec::new());
    };
    if !args.dry_run {
        layers.tidy();
    }
    let mut wanted = args.free.unwrap_or(u64::MAX);
    let mut gone = Vec::new();
    for layer in layers.list() {
        let goes = |layer: &Idle| match args.dry_run {
            true => layers.is_idle(&layer.sha256),
            false => layers.remove(&layer.sha256),
        };
        if wanted > 0 && !context.interrupt.is_set() && goes(&layer) {
            wanted = wanted.saturating_sub(layer.bytes);
            gone.push(layer);
        }
    }
    Ok(gone)
}

pub fn run(context: &Context, args: &Args) -> CmdResult {
    let store = context.store()?;
    let layers = clear_layers(context, args)?;
    let unpacked: u64 = layers.iter().map(|layer| layer.bytes).sum();
    let goal = Goal {
        free_bytes: args.free.map(|wanted| wanted.saturating_sub(unpacked)),
        order: Order::LeastRecentlyUsed,
    };
    // How many others have something is known to a node; here what was used last decides.
    let plan = store.plan_collection(&goal, &|_| None)?;
    let names = Names::read(store)?;
    for (entry, why) in plan.stay.iter().filter(|(entry, _)| !entry.is_block) {
        let why = reason(*why);
        let what = names.of(&entry.sha256).join(", ");
        context
            .ui
            .detail(format!("stays, {why}: {} {what}", entry.sha256));
    }
    let mut stays = staying(&plan);
    let collected = if args.dry_run {
        Collected {
            removed: plan.remove,
            unfinished: plan.unfinished,
            spared: 0,
        }
    } else {
        let cancelled = || context.interrupt.is_set();
        let collected = store.collect(&plan, &cancelled)?;
        stays.in_use.files += collected.spared;
        collected
    };
    print(context, &names, (&collected, &layers), stays, args.dry_run)?;
    if context.interrupt.is_set() {
        return Err(Failure::interrupted());
    }
    let freed = collected.freed_bytes() + unpacked;
    match args.free {
        Some(wanted) if freed < wanted => Err(too_little(wanted, freed)),
        _ => Ok(()),
    }
}

fn too_little(wanted: u64, freed: u64) -> Failure {
    let (wanted, freed) = (units::bytes(wanted), units::bytes(freed));
    let message = format!("cannot free {wanted}: all that is neither pinned nor used is {freed}");
    Failure::new(Exit::DiskFull, message)
        .hint("`p2pkgs pin` lists what is pinned, `p2pkgs unpin NAME` lets it go")
}

fn staying(plan: &Plan) -> Staying {
    let total = |why| {
        let (files, bytes) = plan.staying(why);
        Total { files, bytes }
    };
    Staying {
        pinned: total(Stays::Pinned),
        in_use: total(Stays::InUse),
        spared: total(Stays::Spared),
    }
}

const fn reason(why: Stays) -> &'static str {
    match why {
        Stays::Pinned => "pinned",
        Stays::InUse => "in use",
        Stays::Spared => "not needed to go",
    }
}

fn print(
    context: &Context,
    names: &Names,
    (collected, layers): (&Collected, &[Idle]),
    stays: Staying,
    dry_run: bool,
) -> CmdResult {
    let freed_bytes = collected.freed_bytes() + layers.iter().map(|layer| layer.bytes).sum::<u64>();
    let told = |total: Total, why| {
        let (files, bytes) = (units::count(total.files, "file"), units::bytes(total.bytes));
        (total.files > 0).then(|| format!("{why} {files} ({bytes})"))
    };
    let parts = [
        told(stays.pinned, "pinned"),
        told(stays.in_use, "in use"),
        told(stays.spared, "not needed to go"),
    ];
    let parts: Vec<_> = parts.into_iter().flatten().collect();
    let verb = if dry_run { "would free" } else { "freed" };
    let (blocks, removed): (Vec<&Entry>, Vec<_>) =
        collected.removed.iter().partition(|entry| entry.is_block);
    let mut files = units::count(removed.len() + collected.unfinished.len(), "file");
    if !blocks.is_empty() {
        files = format!("{files} and {}", units::count(blocks.len(), "block"));
    }
    if !layers.is_empty() {
        let unpacked = units::count(layers.len(), "unpacked package");
        files = format!("{files} and {unpacked}");
    }
    let bytes = units::bytes(freed_bytes);
    let rest = if parts.is_empty() {
        "nothing stays".to_owned()
    } else {
        format!("stays: {}", parts.join(", "))
    };
    context
        .ui
        .status(format!("{verb} {bytes} in {files}; {rest}"));
    let removed: Vec<_> = removed
        .into_iter()
        .map(|entry| Removed {
            sha256: entry.sha256.to_string(),
            size: entry.bytes,
            what: names.of(&entry.sha256),
        })
        .collect();
    let unpacked: Vec<_> = layers.iter().map(unpacked).collect();
    if context.ui.json() {
        return context.ui.json_data(&Report {
            unpacked,
            dry_run,
            removed,
            blocks: blocks.len(),
            unfinished: collected.unfinished.iter().map(interrupted).collect(),
            freed_bytes,
            stays,
        });
    }
    removed.iter().chain(&unpacked).try_for_each(|gone| {
        let what = gone.what.join(", ");
        let line = format!("{} {} {what}", gone.sha256, gone.size);
        context.ui.data(line.trim_end())
    })?;
    collected.unfinished.iter().try_for_each(|gone| {
        let line = format!("{} {} interrupted fetch", gone.root, gone.bytes);
        context.ui.data(&line)
    })
}

fn unpacked(layer: &Idle) -> Removed<'_> {
    Removed {
        sha256: layer.sha256.to_string(),
        size: layer.bytes,
        what: vec!["unpacked for builds"],
    }
}

fn interrupted(unfinished: &Unfinished) -> Interrupted<'_> {
    Interrupted {
        root: &unfinished.root,
        size: unfinished.bytes,
    }
}
