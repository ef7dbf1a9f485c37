//! Stage 0: what the host's compiler makes, and nothing but later stages are built from.
//!
//! A seed that is made in seconds is made by one script in one go. A compiler that takes the better part of an hour is
//! made one package at a time ([`Seed::steps`]), each with the packages before it at hand, and each is found again when
//! the rebuild was interrupted: for that, what it was made with stands in its derivation where otherwise the seed does.

use std::collections::BTreeMap;
use std::time::Instant;

use base::{PackageName, PkgHash, Sha256};
use builder::{Context, HostedBuild, Input, Options, log_path};
use recipe::{PackageSource, System};
use store::Blob;

use crate::error::Error;
use crate::merge::merge;
use crate::seeds::Seed;
use crate::stage::{Recipes, Request};

/// The script that makes stage 0 of a seed of the built-in list.
pub fn stage_0_script(seed: &Seed) -> Option<&'static [u8]> {
    match seed.name.as_str() {
        "gcc" => Some(include_bytes!("../gcc/stage0.sh")),
        "tiny" => Some(include_bytes!("../tiny/stage0.sh")),
        _ => None,
    }
}

/// Makes stage 0; returns it, and how many of its packages an earlier run had built.
pub(crate) fn build<S: PackageSource>(
    context: &Context<'_>,
    tree: &mut S,
    system: &System,
    request: &Request<'_>,
) -> Result<(Blob, usize), Error> {
    if request.seed.steps.is_empty() {
        let recipes = Recipes::load(request.seed, request.seed.content(), tree, system)?;
        return at_once(context, &recipes, request).map(|blob| (blob, 0));
    }
    let (compiler, program) = request.host.compiler()?;
    let mut ground = format!(
        "stage 0 1\nscript {}\ncompiler {compiler}\nprogram {program}\n",
        Sha256::of(request.stage_0)
    );
    let mut made: BTreeMap<&PackageName, Blob> = BTreeMap::new();
    let mut reused = 0;
    for package in &request.seed.steps {
        let content = Sha256::of(ground.as_bytes());
        let recipes = Recipes::load(request.seed, content, tree, system)?;
        let step = Step {
            context,
            recipes: &recipes,
            request,
        };
        let (blob, was_there) = step.build(package, &made)?;
        reused += usize::from(was_there);
        ground.push_str(&format!("{package} {}\n", blob.sha256));
        made.insert(package, blob);
    }
    let outputs: Vec<_> = made
        .into_iter()
        .map(|(package, blob)| (package.clone(), blob))
        .collect();
    Ok((merge(context, &outputs, 0)?, reused))
}

/// All packages by one script.
fn at_once(context: &Context<'_>, recipes: &Recipes, request: &Request<'_>) -> Result<Blob, Error> {
    let build = HostedBuild {
        name: &request.seed.name,
        script: request.stage_0,
        recipes: &recipes.all(),
        inputs: &[],
        host: request.host,
    };
    // No package hash names it: its log is named after the seed.
    let log = log_path(context.logs, &PkgHash::from_digest(request.seed.content()));
    let workshop = context.workshop(request.options);
    let finished = workshop.build_on_host(&build, &log)?;
    Ok(finished.ingest(context.store)?)
}

/// One package of several.
struct Step<'a> {
    context: &'a Context<'a>,
    recipes: &'a Recipes,
    request: &'a Request<'a>,
}

impl Step<'_> {
    /// Builds a package with those made before it, or finds it.
    fn build(
        &self,
        package: &PackageName,
        made: &BTreeMap<&PackageName, Blob>,
    ) -> Result<(Blob, bool), Error> {
        let Self {
            context, request, ..
        } = *self;
        let id = self
            .recipes
            .id(package)
            .ok_or_else(|| Error::MissingRecipe {
                seed: request.seed.name.clone(),
                package: package.clone(),
            })?;
        let recipe = self.recipes.recipe(id);
        let derivation = self.recipes.derivation(id);
        let pkghash = PkgHash::of_derivation(derivation.to_string().as_bytes());
        if request.resume
            && let Some(blob) = context.find_here(package, &pkghash)?
        {
            return Ok((blob, true));
        }
        let inputs: Vec<_> = made
            .iter()
            .map(|(name, blob)| Input {
                name: name.to_string(),
                blob: blob.clone(),
            })
            .collect();
        let build = HostedBuild {
            name: package,
            script: request.stage_0,
            recipes: &[recipe],
            inputs: &inputs,
            host: request.host,
        };
        let started = Instant::now();
        let finished = context
            .workshop(request.options)
            .build_on_host(&build, &log_path(context.logs, &pkghash))?;
        let blob = finished.ingest(context.store)?;
        // Nobody else has this host: it is for the next run here.
        let options = Options {
            announce: false,
            ..*request.options
        };
        context.record_built(&derivation, &blob, None, &options)?;
        context.observer.event(&builder::Event::Built {
            package,
            bytes: blob.size,
            elapsed: started.elapsed(),
        });
        Ok((blob, false))
    }
}
