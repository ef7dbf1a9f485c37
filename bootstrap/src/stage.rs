//! One stage: the recipes that a seed is made from, built with the stage before in place of the seed.
//!
//! A stage is nothing but ordinary builds: same sandbox, same scripts, same derivations, only with another seed's digest in
//! them. So what a stage built is found again under its package hash when a rebuild was interrupted, and what the last
//! stage built *is* the ordinary output of these packages: after a rebuild they need not be built again.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use base::{PackageName, Sha256};
use builder::{Context, Host, Input, Options, log_path};
use recipe::{Derivation, Graph, PackageFiles, PackageId, PackageSource, Recipe, System};
use store::Blob;

use crate::error::Error;
use crate::merge::merge;
use crate::seeds::{Seed, SeedsError};

/// How to rebuild or verify a seed.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Which seed.
    pub seed: &'a Seed,
    /// Where the first compiler comes from; only [`crate::rebuild`] uses it.
    pub host: Host<'a>,
    /// The script of stage 0; only [`crate::rebuild`] uses it. See [`crate::stage_0_script`].
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

/// The packages a seed is made from, as they are with some content in place of the seed.
#[derive(Debug)]
pub(crate) struct Recipes {
    graph: Graph,
    packages: Vec<PackageId>,
    seed: PackageId,
}

impl Recipes {
    /// Resolves the packages with `content` as the seed's digest, and checks that they are built from the seed alone.
    pub(crate) fn load<S: PackageSource>(
        seed: &Seed,
        content: Sha256,
        tree: &mut S,
        system: &System,
    ) -> Result<Self, Error> {
        let package = seed_package(seed, tree)?;
        let mut tree = WithSeed {
            tree,
            package: &package,
            content,
        };
        let graph = Graph::resolve(&mut tree, &seed.from, system)?;
        let not_from_seed = |package: &PackageName| Error::NotFromSeed {
            seed: seed.name.clone(),
            package: package.clone(),
        };
        let id = graph.id(&package).ok_or_else(|| not_from_seed(&package))?;
        let packages = graph.roots().to_vec();
        match packages.iter().find(|p| graph.build_closure(**p) != [id]) {
            Some(other) => Err(not_from_seed(graph.name(*other))),
            None => Ok(Self {
                graph,
                packages,
                seed: id,
            }),
        }
    }

    pub(crate) fn all(&self) -> Vec<&Recipe> {
        self.packages
            .iter()
            .map(|id| self.graph.recipe(*id))
            .collect()
    }

    /// A package of that name that the seed is made from.
    pub(crate) fn id(&self, name: &PackageName) -> Option<PackageId> {
        let id = self.graph.id(name)?;
        self.packages.contains(&id).then_some(id)
    }

    pub(crate) fn recipe(&self, id: PackageId) -> &Recipe {
        self.graph.recipe(id)
    }

    pub(crate) fn derivation(&self, id: PackageId) -> Derivation {
        self.graph.derivation(id)
    }

    /// The derivation of the package that stands for the seed.
    pub(crate) fn seed(&self) -> Derivation {
        self.graph.derivation(self.seed)
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
        let next = Mutex::new(self.packages.iter());
        let outputs = Mutex::new(Ok(Vec::new()));
        let worker = || {
            while lock(&outputs).is_ok() {
                let Some(id) = lock(&next).next() else { return };
                let built = self.build_one(context, request, *id, from);
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
            for _ in 0..context.jobs.builds_max().min(self.packages.len()) {
                scope.spawn(worker);
            }
        });
        outputs.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    fn build_one(
        &self,
        context: &Context<'_>,
        request: &Request<'_>,
        id: PackageId,
        from: &Blob,
    ) -> Result<Output, Error> {
        let recipe = self.graph.recipe(id);
        let (package, pkghash) = (recipe.name().clone(), self.graph.pkghash(id));
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
            name: self.graph.name(self.seed).to_string(),
            blob: from.clone(),
        }];
        let log = log_path(context.logs, &pkghash);
        let finished = context
            .workshop(request.options)
            .build(recipe, &inputs, &log)?;
        let blob = finished.ingest(context.store)?;
        context.record_built(&self.graph.derivation(id), &blob, None, request.options)?;
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
}

struct Output {
    package: PackageName,
    blob: Blob,
    reused: bool,
}

/// A package tree in which the seed has another content.
struct WithSeed<'t, S> {
    tree: &'t mut S,
    package: &'t PackageName,
    content: Sha256,
}

impl<S: PackageSource> PackageSource for WithSeed<'_, S> {
    type Error = S::Error;

    fn load(&mut self, name: &PackageName) -> Result<Option<PackageFiles>, S::Error> {
        if name != self.package {
            return self.tree.load(name);
        }
        // Neither the URL nor the file's name counts for the hash of a seed.
        let fetch = format!("url: bootstrap:{name}\nsha256: {}\n", self.content);
        Ok(Some(PackageFiles {
            fetch: Some(fetch.into()),
            ..PackageFiles::default()
        }))
    }

    fn names(&self) -> Vec<PackageName> {
        self.tree.names()
    }
}

/// The package that stands for the seed in the tree: what the first of the seed's packages is built from.
fn seed_package<S: PackageSource>(seed: &Seed, tree: &mut S) -> Result<PackageName, Error> {
    let empty = SeedsError::Missing {
        line: 0,
        field: "from",
    };
    let first = seed.from.first().ok_or(Error::Seeds(empty))?;
    let graph_error = |source| Error::Load {
        package: first.clone(),
        source,
    };
    let files = tree.load(first).map_err(|e| graph_error(Box::new(e)))?;
    let missing = || Error::MissingRecipe {
        seed: seed.name.clone(),
        package: first.clone(),
    };
    let recipe = Recipe::parse(first, files.ok_or_else(missing)?)?;
    match recipe.build_deps() {
        [only] => Ok(only.name.clone()),
        _ => Err(Error::NotFromSeed {
            seed: seed.name.clone(),
            package: first.clone(),
        }),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
