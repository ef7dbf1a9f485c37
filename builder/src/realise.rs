//! Realising packages: the plan decides, threads act, the report tells.
//!
//! [`recipe::Plan`] says what is to be done next and knows nothing of threads. Here each of its actions runs on a thread
//! of its own, their numbers bounded per kind (lookups and downloads wait for the network, builds for the processors),
//! and the answers come back over one channel, so that the plan needs no lock. Nothing here opens a socket: outputs come
//! through the given [`Substituter`], sources and seeds through the given [`SourceFetcher`].

use std::collections::BTreeMap;
use std::iter;
use std::path::Path;
use std::time::Duration;

use base::{Multihash, PackageName, PkgHash, Realisation, SignedRealisation};
use recipe::{Derivation, Graph, PackageId, Policy, Recipe};
use store::substitute::{Asked, NoProgress, SourceFetcher, Substituter};
use store::{Blob, Pin, PinKind, ProvideKind, ProvideOrigin, Store};
use trust::LivePolicy;

use crate::build::Workshop;
use crate::error::Error;
use crate::inputs::InputList;
use crate::jobs::JobServer;
use crate::limits::Limits;
use crate::lookup::{Found, Lookup};
use crate::observe::Observer;
use crate::probe::LazySandbox;
use crate::root::{Input, RecipeFiles};
use crate::runner::Runner;
use crate::signer::Signer;
use crate::sources::{FetchedItem, Fetching, Flights};

/// Whom and what realising needs.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// Where everything ends up.
    pub store: &'a Store,
    /// Who has outputs.
    pub substituter: &'a dyn Substituter,
    /// Who has sources and seeds.
    pub sources: &'a dyn SourceFetcher,
    /// Whose outputs may be used.
    pub trust: &'a LivePolicy,
    /// Signs what is built: by that the next run finds it again.
    pub signer: &'a dyn Signer,
    /// Reads the `files/` of recipes.
    pub files: &'a dyn RecipeFiles,
    /// The sandbox; not touched unless something is built.
    pub sandbox: &'a LazySandbox,
    /// What all builds together may run at once.
    pub jobs: &'a JobServer,
    /// Who watches, and stops.
    pub observer: &'a dyn Observer,
    /// Where scratch directories are made.
    pub scratch: &'a Path,
    /// Where logs are kept.
    pub logs: &'a Path,
    /// The time, in seconds since 1970, for the records of the store.
    pub now_unix_secs: u64,
}

impl<'a> Context<'a> {
    /// Where these packages are built.
    pub fn workshop(&self, options: &Options) -> Workshop<'a> {
        Workshop {
            store: self.store,
            files: self.files,
            sandbox: self.sandbox,
            observer: self.observer,
            scratch: self.scratch,
            limits: options.limits,
            jobs: self.jobs,
            keep_failed: options.keep_failed,
        }
    }

    /// Makes all sources of a recipe present; says which had to be fetched.
    ///
    /// # Errors
    /// [`Error::Fetch`] for the first that cannot be had.
    pub fn fetch_sources(
        &self,
        recipe: &Recipe,
        options: &Options,
    ) -> Result<Vec<FetchedItem>, Error> {
        self.fetching(options, &Flights::default()).sources(recipe)
    }

    pub(crate) fn fetching<'f>(&self, options: &Options, flights: &'f Flights) -> Fetching<'f>
    where
        'a: 'f,
    {
        Fetching {
            store: self.store,
            fetcher: self.sources,
            observer: self.observer,
            flights,
            now_unix_secs: self.now_unix_secs,
            announce: options.announce,
        }
    }

    /// Signs that building this derivation with these inputs gave this output, and keeps all of it. Without a list the
    /// statement says nothing of inputs.
    ///
    /// # Errors
    /// [`Error::Sign`] and [`Error::Store`].
    pub fn record_built(
        &self,
        derivation: &Derivation,
        blob: &Blob,
        inputs: Option<&InputList>,
        options: &Options,
    ) -> Result<(), Error> {
        let pkghash = PkgHash::of_derivation(derivation.to_string().as_bytes());
        let (output, sha256, size) = (blob.root, blob.sha256, blob.size);
        let realisation = Realisation {
            pkghash,
            output,
            sha256,
            size,
        };
        let inputs = inputs
            .map(|list| self.store.put_inputs(list.to_string().as_bytes(), &sha256))
            .transpose()?;
        let signed = self.signer.vouch(realisation, inputs).map_err(|source| {
            let package = derivation.name().clone();
            Error::Sign { package, source }
        })?;
        self.store.put_realisation(&signed)?;
        self.record(derivation, blob, options, ProvideOrigin::Made)
    }

    /// Keeps an output that others built, and what they say of it. Whether they are believed was decided before.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn record_fetched(
        &self,
        derivation: &Derivation,
        blob: &Blob,
        statements: &[SignedRealisation],
        options: &Options,
    ) -> Result<(), Error> {
        for statement in statements {
            self.store.put_realisation(statement)?;
        }
        self.record(derivation, blob, options, ProvideOrigin::Fetched)
    }

    /// Keeps an output and its derivation, and lets others find it.
    pub(crate) fn record(
        &self,
        derivation: &Derivation,
        blob: &Blob,
        options: &Options,
        origin: ProvideOrigin,
    ) -> Result<(), Error> {
        let pkghash = self
            .store
            .put_derivation(derivation.to_string().as_bytes())?;
        let kind = PinKind::Output {
            pkghash,
            package: derivation.name().clone(),
        };
        let added_unix_secs = self.now_unix_secs;
        // What is built or fetched is a cache until somebody pins it.
        self.store.note(&Pin {
            sha256: blob.sha256,
            kind,
            added_unix_secs,
        })?;
        if options.announce {
            let package = (pkghash.dht_key(), ProvideKind::Package);
            let root = Multihash::of(&blob.root).map(|root| (root, ProvideKind::Root));
            let keys: Vec<_> = iter::once(package).chain(root).collect();
            self.store.provide_as(origin, &keys)?;
        }
        Ok(())
    }

    /// The output of a package that was built here, or by somebody trusted, if the store has it. Nobody is asked.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn find_here(
        &self,
        package: &PackageName,
        pkghash: &PkgHash,
    ) -> Result<Option<Blob>, Error> {
        let own = self.signer.public();
        let lookup = Lookup {
            store: self.store,
            trust: self.trust,
            own,
            substituter: None,
            progress: &NoProgress,
            observer: None,
        };
        match lookup.find(package, pkghash)? {
            Found::Here(blob) | Found::Adopted(blob) => Ok(Some(blob)),
            Found::Elsewhere(_) | Found::Nowhere(..) | Found::Refused(_) => Ok(None),
        }
    }
}

impl std::fmt::Debug for Context<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Context(store in {})", self.store.root().display())
    }
}

/// How to realise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Whether to substitute, to build, or both.
    pub policy: Policy,
    /// Go on with what does not depend on a failure.
    pub keep_going: bool,
    /// Leave the scratch directories of failed builds.
    pub keep_failed: bool,
    /// What a build may take.
    pub limits: Limits,
    /// Whether what is got here is announced to others.
    pub announce: bool,
    /// Run the second build of [`crate::check`] in other surroundings: another user, host name, directory, time zone,
    /// number of processors and order of files.
    pub vary: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            policy: Policy::default(),
            keep_going: false,
            keep_failed: false,
            limits: Limits::default(),
            announce: true,
            vary: false,
        }
    }
}

/// An output that is in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Realised {
    /// The package's name.
    pub package: PackageName,
    /// Its hash.
    pub pkghash: PkgHash,
    /// The output.
    pub blob: Blob,
    /// How it got there.
    pub how: How,
}

/// How an output got into the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// It was there.
    Present,
    /// It was substituted.
    Substituted,
    /// It is a seed and was fetched.
    Fetched,
    /// It was built.
    Built,
}

/// What was done.
#[derive(Debug, Default)]
pub struct Report {
    /// All outputs that are present now, by package: the roots, their run closures, and what was needed to build them.
    pub realised: BTreeMap<PackageName, Realised>,
    /// What came over the network, or out of a local cache.
    pub fetched: Vec<FetchedItem>,
    /// Packages that were built, in the order in which they were finished.
    pub built: Vec<PackageName>,
    /// How long the second build of a package took that was built to be compared.
    pub rebuilt: BTreeMap<PackageName, Duration>,
    /// Everybody who was asked.
    pub asked: Asked,
    /// Packages that were not built because of another one's failure, which is named second.
    pub skipped: Vec<(PackageName, PackageName)>,
}

impl Report {
    /// The outputs of a package and its run closure, in the order of names: what is composed or exported. `None` if one
    /// of them is not realised.
    pub fn closure(&self, graph: &Graph, roots: &[PackageId]) -> Option<Vec<Input>> {
        let input = |id| {
            let realised = self.realised.get(graph.name(id))?;
            Some(Input {
                name: realised.package.to_string(),
                blob: realised.blob.clone(),
            })
        };
        let mut inputs: Vec<Input> = graph
            .with_run_closures(roots)
            .into_iter()
            .map(input)
            .collect::<Option<_>>()?;
        inputs.sort_by(|a, b| a.name.cmp(&b.name));
        Some(inputs)
    }
}

/// Not everything could be realised.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub struct Failure {
    /// The first failure.
    // Not a `source`: it is this error, and would be printed twice.
    pub error: Error,
    /// Further failures, in the order in which they happened.
    pub others: Vec<Error>,
    /// What was done nevertheless.
    pub report: Report,
}

/// Makes the outputs of `roots` and their run closures present.
///
/// # Errors
/// [`Failure`] with every package that could not be had and with what could.
pub fn realise(
    context: &Context<'_>,
    graph: &Graph,
    roots: &[PackageId],
    options: &Options,
) -> Result<Report, Box<Failure>> {
    Runner::new(context, graph, options).run(roots)
}
