//! Making a seed again: from the host's C compiler until the bytes stop changing, or from itself, once round.

use std::time::Instant;

use base::{Multihash, PackageName};
use builder::{Context, HostedBuild, log_path};
use recipe::{PackageSource, System};
use store::{Blob, Pin, PinKind, ProvideKind};

use crate::diff::explain;
use crate::error::Error;
use crate::seeds::Seed;
use crate::stage::{Event, Recipes, Request};

/// Most stages after stage 0. The first that a compiler built by itself is the second, a fixed point shows one later;
/// twice that without one means that something keeps changing.
pub const STAGES_MAX: usize = 6;
/// How the tiny seed is made from the host's compiler.
pub const TINY_STAGE_0: &[u8] = include_bytes!("../tiny/stage0.sh");

/// A seed that was made again and is the pinned one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rebuilt {
    /// The seed's archive.
    pub blob: Blob,
    /// What each stage made, stage 0 first; the last two are equal.
    pub stages: Vec<Blob>,
}

/// A pinned seed that was seen to make itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// The seed's archive.
    pub blob: Blob,
}

/// Makes a seed with the host's C compiler, and then with itself until two stages are equal, and compares it with the
/// pin. What was made is in the store, pinned, under its plain SHA-256, even if it is not what is pinned in the list.
///
/// # Errors
/// [`Error::NotReproducible`] when something else came out, [`Error::NoFixedPoint`] when it never settled, and whatever
/// keeps a stage from being built.
pub fn rebuild<S: PackageSource>(
    context: &Context<'_>,
    tree: &mut S,
    system: &System,
    request: &Request<'_>,
    events: &dyn Fn(Event),
) -> Result<Rebuilt, Error> {
    let recipes = Recipes::load(request.seed, request.seed.sha256, tree, system)?;
    for recipe in recipes.all() {
        context.fetch_sources(recipe, request.options)?;
    }
    let mut stages = vec![stage_0(context, &recipes, request, events)?];
    for stage in 1..=STAGES_MAX {
        let before = stages[stage - 1].clone();
        let recipes = Recipes::load(request.seed, before.sha256, tree, system)?;
        let after = recipes.build(context, request, stage, &before, events)?;
        let settled = before.sha256 == after.sha256;
        stages.push(after.clone());
        if settled {
            keep(context, request, &after)?;
            compare(context, request.seed, &after)?;
            return Ok(Rebuilt {
                blob: after,
                stages,
            });
        }
    }
    let [.., before, after] = &stages[..] else {
        unreachable!("there are at least {STAGES_MAX} stages")
    };
    let differences = explain(context.store, before, after, context.scratch)?;
    Err(Error::NoFixedPoint {
        stages: stages.len(),
        differences,
    })
}

/// Builds the packages that a seed is made from with the pinned seed, and compares what comes out with the pin.
///
/// # Errors
/// [`Error::MissingSeed`] when the pinned seed is not in the store, [`Error::NotReproducible`] when something else came
/// out, and whatever keeps the packages from being built.
pub fn verify<S: PackageSource>(
    context: &Context<'_>,
    tree: &mut S,
    system: &System,
    request: &Request<'_>,
    events: &dyn Fn(Event),
) -> Result<Verified, Error> {
    let Seed { name, sha256, .. } = request.seed;
    let missing = || Error::MissingSeed {
        seed: name.clone(),
        sha256: *sha256,
    };
    let pinned = context.store.blob(sha256)?.ok_or_else(missing)?;
    let recipes = Recipes::load(request.seed, *sha256, tree, system)?;
    for recipe in recipes.all() {
        context.fetch_sources(recipe, request.options)?;
    }
    let blob = recipes.build(context, request, 1, &pinned, events)?;
    compare(context, request.seed, &blob)?;
    Ok(Verified { blob })
}

fn stage_0(
    context: &Context<'_>,
    recipes: &Recipes,
    request: &Request<'_>,
    events: &dyn Fn(Event),
) -> Result<Blob, Error> {
    events(Event::Stage {
        stage: 0,
        from: None,
    });
    let started = Instant::now();
    let name: PackageName = request.seed.name.clone();
    let build = HostedBuild {
        name: &name,
        script: request.stage_0,
        recipes: &recipes.all(),
        compiler: request.compiler,
    };
    // No package hash names it: its log is named after the seed that is pinned.
    let log = log_path(
        context.logs,
        &base::PkgHash::from_digest(request.seed.sha256),
    );
    let finished = context
        .workshop(request.options)
        .build_on_host(&build, &log)?;
    let blob = finished.ingest(context.store)?;
    let elapsed = started.elapsed();
    events(Event::Done {
        stage: 0,
        blob: blob.clone(),
        elapsed,
        reused: 0,
    });
    Ok(blob)
}

/// Pins a seed and lets others find it, like a source, by its plain digest.
fn keep(context: &Context<'_>, request: &Request<'_>, blob: &Blob) -> Result<(), Error> {
    let kind = PinKind::Seed {
        name: request.seed.name.to_string(),
    };
    let added_unix_secs = context.now_unix_secs;
    context.store.pin(&Pin {
        sha256: blob.sha256,
        kind,
        added_unix_secs,
    })?;
    if request.options.announce {
        context
            .store
            .provide(&Multihash::sha2_256(&blob.sha256), ProvideKind::Source)?;
        if let Ok(root) = Multihash::of(&blob.root) {
            context.store.provide(&root, ProvideKind::Root)?;
        }
    }
    Ok(())
}

fn compare(context: &Context<'_>, seed: &Seed, made: &Blob) -> Result<(), Error> {
    if made.sha256 == seed.sha256 {
        return Ok(());
    }
    let differences = match context.store.blob(&seed.sha256)? {
        Some(pinned) => explain(context.store, &pinned, made, context.scratch)?,
        None => Vec::new(),
    };
    Err(Error::NotReproducible {
        seed: seed.name.clone(),
        pinned: seed.sha256,
        made: made.sha256,
        differences,
    })
}
