//! Making a seed again: from the host's C compiler until the bytes stop changing, or from itself, once round.

use std::time::Instant;

use base::Multihash;
use builder::Context;
use recipe::{PackageSource, System};
use store::{Blob, Pin, PinKind, ProvideKind};

use crate::diff::explain;
use crate::error::Error;
use crate::hosted;
use crate::seeds::Seed;
use crate::stage::{Event, Recipes, Request};

/// Most stages after stage 0. The first that a compiler built by itself is the second, a fixed point shows one later;
/// twice that without one means that something keeps changing.
pub const STAGES_MAX: usize = 6;

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
/// pin, if there is one. What was made is in the store, pinned, under its plain SHA-256, even if it is not what is pinned
/// in the list; if it is, a realisation of the package that stands for the seed says so.
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
    let recipes = Recipes::load(request.seed, request.seed.content(), tree, system)?;
    for recipe in recipes.all() {
        context.fetch_sources(recipe, request.options)?;
    }
    let mut stages = vec![stage_0(context, tree, system, request, events)?];
    for stage in 1..=STAGES_MAX {
        let before = stages[stage - 1].clone();
        let recipes = Recipes::load(request.seed, before.sha256, tree, system)?;
        let after = recipes.build(context, request, stage, &before, events)?;
        let settled = before.sha256 == after.sha256;
        stages.push(after.clone());
        if settled {
            keep(context, request, &after)?;
            compare(context, request.seed, &after)?;
            context.record_built(&recipes.seed(), &after, None, request.options)?;
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
/// [`Error::NotPinned`] and [`Error::MissingSeed`] when there is no pinned seed, or not in the store, [`Error::NotReproducible`] when something else came
/// out, and whatever keeps the packages from being built.
pub fn verify<S: PackageSource>(
    context: &Context<'_>,
    tree: &mut S,
    system: &System,
    request: &Request<'_>,
    events: &dyn Fn(Event),
) -> Result<Verified, Error> {
    let seed = request.seed.name.clone();
    let Some(sha256) = request.seed.sha256 else {
        return Err(Error::NotPinned { seed });
    };
    let missing = || Error::MissingSeed { seed, sha256 };
    let pinned = context.store.blob(&sha256)?.ok_or_else(missing)?;
    let recipes = Recipes::load(request.seed, sha256, tree, system)?;
    for recipe in recipes.all() {
        context.fetch_sources(recipe, request.options)?;
    }
    let blob = recipes.build(context, request, 1, &pinned, events)?;
    compare(context, request.seed, &blob)?;
    Ok(Verified { blob })
}

fn stage_0<S: PackageSource>(
    context: &Context<'_>,
    tree: &mut S,
    system: &System,
    request: &Request<'_>,
    events: &dyn Fn(Event),
) -> Result<Blob, Error> {
    events(Event::Stage {
        stage: 0,
        from: None,
    });
    let started = Instant::now();
    let (blob, reused) = hosted::build(context, tree, system, request)?;
    events(Event::Done {
        stage: 0,
        blob: blob.clone(),
        elapsed: started.elapsed(),
        reused,
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
    let Some(pinned) = seed.sha256.filter(|pinned| *pinned != made.sha256) else {
        return Ok(());
    };
    let differences = match context.store.blob(&pinned)? {
        Some(pinned) => explain(context.store, &pinned, made, context.scratch)?,
        None => Vec::new(),
    };
    Err(Error::NotReproducible {
        seed: seed.name.clone(),
        pinned,
        made: made.sha256,
        differences,
    })
}
