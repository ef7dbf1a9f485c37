//! One stage: the recipes that a seed is made from, built with the stage before in place of the seed.
//!
//! A stage is nothing but ordinary builds: same sandbox, same scripts, same derivations, only with another seed's digest in
//! them. So what a stage built is found again under its package hash when a rebuild was interrupted, and what the last
//! stage built *is* the ordinary output of these packages: after a rebuild they need not be built again.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use base::{PackageName, PkgHash, Sha256};
use builder::{Context, Input, Options, log_path};
use recipe::{Derivation, PackageFiles, PackageSource, Recipe, System};
use store::Blob;

use crate::error::Error;
use crate::merge::merge;
use crate::seeds::Seed;

/// How to rebuild or verify a seed.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Which seed.
    pub seed: &'a Seed,
    /// The host's C compiler with its options; only [`crate::rebuild`] uses it.
    pub compiler: &'a str,
    /// The script of stage 0; only [`crate::rebuild`] uses it. [`crate::TINY_STAGE_0`] for the tiny seed.
    pub stage_0: &'a [u8],
    /// How to build.
    pub options: &'a Options,
    /// Whether what an earlier, perhaps interrupted, run has built is used again.
    pub resume: bool,
}

/// What happens between the builds of a rebuild.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A stage begins; 0 is the one that the host's compiler builds.
    Stage {
        /// Which.
        stage: usize,
        /// The tree it is built from; `None` for stage 0.
        from: Option<Sha256>,
    },
    /// A stage is done.
    Done {
        /// Which.
        stage: usize,
        /// What it made, merged.
        blob: Blob,
        /// How long it took.
        elapsed: Duration,
        /// How many of its packages an earlier run had built.
        reused: usize,
    },
}

/// The recipes a seed is made from, checked to need nothing else.
#[derive(Debug)]
pub(crate) struct Recipes {
    recipes: Vec<Recipe>,
    system: System,
}

impl Recipes {
    pub(crate) fn load<S: PackageSource>(
        seed: &Seed,
        tree: &mut S,
        system: &System,
    ) -> Result<Self, Error> {
        let mut recipes = Vec::new();
        for package in &seed.from {
            recipes.push(load(seed, package, tree)?);
        }
        Ok(Self {
            recipes,
            system: system.clone(),
        })
    }

    pub(crate) fn all(&self) -> Vec<&Recipe> {
        self.recipes.iter().collect()
    }

    /// Builds a stage from a merged tree and merges what comes out.
    pub(crate) fn build(
        &self,
        context: &Context<'_>,
        request: &Request<'_>,
        stage: usize,
        from: &Blob,
        events: &dyn Fn(Event),
    ) -> Result<Blob, Error> {
        events(Event::Stage {
            stage,
            from: Some(from.sha256),
        });
        let started = Instant::now();
        let mut outputs = self.build_all(context, request, from)?;
        outputs.sort_by(|a, b| a.package.cmp(&b.package));
        let reused = outputs.iter().filter(|o| o.reused).count();
        let blobs: Vec<_> = outputs.into_iter().map(|o| (o.package, o.blob)).collect();
        let blob = merge(context, &blobs, stage)?;
        let elapsed = started.elapsed();
        events(Event::Done {
            stage,
            blob: blob.clone(),
            elapsed,
            reused,
        });
        Ok(blob)
    }

    /// Builds all recipes, as many at once as the request says; stops at the first failure.
    fn build_all(
        &self,
        context: &Context<'_>,
        request: &Request<'_>,
        from: &Blob,
    ) -> Result<Vec<Output>, Error> {
        let next = Mutex::new(self.recipes.iter());
        let outputs = Mutex::new(Ok(Vec::new()));
        let worker = || {
            while lock(&outputs).is_ok() {
                let Some(recipe) = lock(&next).next() else {
                    return;
                };
                let built = self.build_one(context, request, recipe, from);
                let mut outputs = lock(&outputs);
                match (&mut *outputs, built) {
                    (Ok(outputs), Ok(built)) => outputs.push(built),
                    (Ok(_), Err(error)) => *outputs = Err(error),
                    // The first failure is the one that is told.
                    (Err(_), _) => {}
                }
            }
        };
        thread::scope(|scope| {
            for _ in 0..request.options.jobs.clamp(1, self.recipes.len()) {
                scope.spawn(worker);
            }
        });
        outputs.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    fn build_one(
        &self,
        context: &Context<'_>,
        request: &Request<'_>,
        recipe: &Recipe,
        from: &Blob,
    ) -> Result<Output, Error> {
        let package = recipe.name().clone();
        let seed = recipe.build_deps().first().map(|d| d.name.clone());
        let seed = seed.unwrap_or_else(|| request.seed.name.clone());
        let seed_hash = self.seed_hash(&seed, from.sha256)?;
        let derivation = Derivation::of(recipe, &self.system, |_| seed_hash);
        let pkghash = derivation.pkghash();
        if request.resume
            && let Some(blob) = context.find_here(&package, &pkghash)?
        {
            return Ok(Output {
                package,
                blob,
                reused: true,
            });
        }
        let inputs = [Input {
            name: seed.to_string(),
            blob: from.clone(),
        }];
        let log = log_path(context.logs, &pkghash);
        let finished = context
            .workshop(request.options)
            .build(recipe, &inputs, &log)?;
        let blob = finished.ingest(context.store)?;
        context.record_built(&derivation, &blob, request.options)?;
        let (bytes, elapsed) = (blob.size, finished.elapsed);
        context.observer.event(&builder::Event::Built {
            package: &package,
            bytes,
            elapsed,
        });
        Ok(Output {
            package,
            blob,
            reused: false,
        })
    }

    /// The hash of the seed package if its content were this.
    fn seed_hash(&self, seed: &PackageName, content: Sha256) -> Result<PkgHash, Error> {
        let fetch = format!("url: bootstrap:{seed}\nsha256: {content}\n");
        let files = PackageFiles {
            fetch: Some(fetch.into()),
            ..PackageFiles::default()
        };
        let recipe = Recipe::parse(seed, files).map_err(|e| recipe_error(seed, e))?;
        Ok(Derivation::of(&recipe, &self.system, |_| {
            unreachable!("a seed needs nothing")
        })
        .pkghash())
    }
}

struct Output {
    package: PackageName,
    blob: Blob,
    reused: bool,
}

fn load<S: PackageSource>(
    seed: &Seed,
    package: &PackageName,
    tree: &mut S,
) -> Result<Recipe, Error> {
    let files = tree.load(package).map_err(|e| recipe_error(package, e))?;
    let files = files.ok_or_else(|| Error::MissingRecipe {
        seed: seed.name.clone(),
        package: package.clone(),
    })?;
    let recipe = Recipe::parse(package, files).map_err(|e| recipe_error(package, e))?;
    if recipe.build().is_some() && recipe.build_deps().len() == 1 && recipe.run_deps().is_empty() {
        return Ok(recipe);
    }
    Err(Error::NotFromSeed {
        seed: seed.name.clone(),
        package: package.clone(),
    })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn recipe_error(
    package: &PackageName,
    source: impl std::error::Error + Send + Sync + 'static,
) -> Error {
    Error::Recipe {
        package: package.clone(),
        source: Box::new(source),
    }
}
