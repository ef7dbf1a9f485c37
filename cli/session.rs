//! Realising on behalf of a command: the packages the user named, got with the tools of a [`Bench`].

use std::iter;
use std::path::{Path, PathBuf};

use base::PackageName;
use builder::venv;
use builder::{
    Context as BuildContext, Failure as BuildFailure, Forecast, Input, Options, Realised, Report,
};
use recipe::{Graph, PackageId, Policy};
use serde::Serialize;
use store::Blob;
use store::substitute::First;

use crate::bench::Bench;
use crate::context::Context;
use crate::error::{CmdResult, Exit, Failure};
use crate::summary::Tally;
use crate::tree::DiskTree;

/// How packages are got, as flags that several commands share.
#[derive(Clone, Debug, clap::Args)]
pub struct GetArgs {
    /// Jobs at once, over all builds together [default: the number of processors]
    #[arg(short, long, env = "P2PKGS_JOBS", value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub jobs: Option<u16>,
    /// Never build; a miss ends with exit code 3. PKG_FORCE_BINARY=yes means the same
    #[arg(long, env = "P2PKGS_SUBSTITUTE_ONLY", value_parser = clap::builder::FalseyValueParser::new())]
    pub substitute_only: bool,
    /// Never fetch built packages: build what the store does not hold
    #[arg(long, env = "P2PKGS_NO_SUBSTITUTES", value_parser = clap::builder::FalseyValueParser::new(), conflicts_with = "substitute_only")]
    pub no_substitutes: bool,
}

/// Whom to believe for one command, as a flag of those commands that use outputs at once.
#[derive(Clone, Debug, clap::Args)]
pub struct TrustArgs {
    /// `any`: for this command only, use what a single stranger signed if nobody contradicts it
    #[arg(long, value_name = "any", value_parser = ["any"])]
    trust: Option<String>,
}

impl TrustArgs {
    /// Tells the context.
    pub fn apply(&self, context: &Context) {
        if self.trust.is_some() {
            context.believe_anyone();
        }
    }
}

impl GetArgs {
    /// Whether to substitute, to build, or both.
    ///
    /// # Errors
    /// When flags and upstream's environment contradict each other.
    pub fn policy(&self) -> CmdResult<Policy> {
        let forced = std::env::var_os("PKG_FORCE_BINARY").is_some_and(|value| value == "yes");
        match (self.substitute_only || forced, self.no_substitutes) {
            (true, true) => Err(Failure::usage(
                "`--no-substitutes` contradicts PKG_FORCE_BINARY=yes",
            )),
            (true, false) => Ok(Policy::SubstituteOnly),
            (false, true) => Ok(Policy::BuildOnly),
            (false, false) => Ok(Policy::SubstituteOrBuild),
        }
    }

    /// The builder's options.
    ///
    /// # Errors
    /// As [`Self::policy`], and when the section `[builds]` of the configuration cannot be used and something may be built.
    pub fn options(&self, context: &Context) -> CmdResult<Options> {
        let policy = self.policy()?;
        let mut options = Options {
            policy,
            ..Options::default()
        };
        if policy != Policy::SubstituteOnly {
            let builds = context.config()?.builds()?;
            options.limits.processes_max = builds.processes.into();
            if let Some(bytes) = builds.memory_bytes {
                options.limits.memory_max = bytes;
            }
        }
        Ok(options)
    }
}

/// Packages to be realised, and the tools.
#[derive(Debug)]
pub struct Session {
    /// The graph of what was asked for.
    pub graph: Graph,
    /// The tools.
    pub bench: Bench,
}

impl Session {
    /// Resolves what the user typed, and opens the tools, to run so many jobs at once.
    ///
    /// # Errors
    /// When the packages, the configuration or the store cannot be used.
    pub fn open(context: &Context, jobs: Option<u16>, typed: &[String]) -> CmdResult<Self> {
        let tree = context.tree()?;
        let names = tree.package_names(typed)?;
        Self::of(context, jobs, tree, &names)
    }

    /// Resolves packages of a tree, and opens the tools.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn of(
        context: &Context,
        jobs: Option<u16>,
        mut tree: DiskTree,
        names: &[PackageName],
    ) -> CmdResult<Self> {
        let graph = context.graph(&mut tree, names)?;
        Ok(Self {
            graph,
            bench: Bench::open(context, tree, jobs)?,
        })
    }

    /// Makes the packages and their run closures present, and says where the bytes came from.
    ///
    /// # Errors
    /// The first package that could not be had; further ones are told before.
    pub fn realise(&self, options: &Options) -> CmdResult<Report> {
        self.with_builder(|context| {
            builder::realise(context, &self.graph, self.graph.roots(), options)
        })
    }

    /// As [`Self::realise`], for as many of the packages as possible: what could be had, and the first failure.
    pub fn realise_what_can_be(&self, options: &Options) -> (Report, Option<Failure>) {
        self.with_builder_told(|context| {
            builder::realise(context, &self.graph, self.graph.roots(), options)
        })
    }

    /// Gets what others have of the packages and their run closures, and says which of these nobody trusted has: what has to be
    /// built, wherever that is.
    ///
    /// # Errors
    /// When the store fails, trusted keys contradict each other, or the user has had enough.
    pub fn lacking(&self, options: &Options) -> CmdResult<Vec<PackageId>> {
        // Seeds are not rebuilt for this: that is building, too.
        let (sources, graph) = (First::new(self.bench.origins()), &self.graph);
        let context = self.bench.build_context(&sources);
        if options.policy != Policy::BuildOnly {
            let options = Options {
                policy: Policy::SubstituteOnly,
                keep_going: true,
                ..*options
            };
            let realised = builder::realise(&context, graph, graph.roots(), &options);
            let (report, failure) = told_apart(realised);
            if let Some(line) = Tally::of(&report.fetched).line() {
                self.bench.ui.status(line);
            }
            let mut errors = failure
                .into_iter()
                .flat_map(|(error, others)| iter::once(error).chain(others));
            if let Some(error) = errors.find(|error| !is_a_miss(error)) {
                return Err(self.failed(error, Vec::new(), &report));
            }
        }
        let mut lacking = Vec::new();
        for id in graph.with_run_closures(graph.roots()) {
            let is_seed = graph.recipe(id).seed().is_some();
            let (name, pkghash) = (graph.name(id), graph.pkghash(id));
            if !is_seed && context.find_here(name, &pkghash)?.is_none() {
                lacking.push(id);
            }
        }
        Ok(lacking)
    }

    /// Builds one package again and compares. The report knows how long that took if it came to that.
    pub fn build_again(&self, id: PackageId, options: &Options) -> (Report, Option<Failure>) {
        self.with_builder_told(|context| builder::check(context, &self.graph, &[id], options))
    }

    /// As [`Self::realise`], then builds the packages again and compares.
    ///
    /// # Errors
    /// Exit code 6 when the outputs differ.
    pub fn check(&self, options: &Options) -> CmdResult<Report> {
        self.with_builder(|context| {
            builder::check(context, &self.graph, self.graph.roots(), options)
        })
    }

    /// Builds a package whatever there is of it; its output is in the store as a file that is nobody's yet.
    ///
    /// # Errors
    /// What could not be had, or built.
    pub fn build_anew(&self, id: PackageId, options: &Options) -> CmdResult<Blob> {
        let sources = self.bench.fetcher();
        let context = self.bench.build_context(&sources);
        builder::build_anew(&context, &self.graph, id, options).map_err(|failure| {
            let BuildFailure {
                error,
                others,
                report,
            } = *failure;
            self.failed(error, others, &report)
        })
    }

    /// Makes a package and what it is built with present, and says what of that it does without.
    ///
    /// # Errors
    /// What could not be had, or built once more.
    pub fn unused(&self, id: PackageId, options: &Options) -> CmdResult<Vec<PackageName>> {
        let graph = &self.graph;
        let wanted: Vec<_> = [id].into_iter().chain(graph.build_closure(id)).collect();
        let report =
            self.with_builder(|context| builder::realise(context, graph, &wanted, options))?;
        let sources = self.bench.fetcher();
        let context = self.bench.build_context(&sources);
        builder::unused(&context, graph, id, &report, options)
            .map_err(|error| self.failed(error, Vec::new(), &report))
    }

    /// What realising would do.
    ///
    /// # Errors
    /// When the store or a lookup fails.
    pub fn forecast(&self, options: &Options) -> CmdResult<Forecast> {
        let sources = self.bench.fetcher();
        let context = self.bench.build_context(&sources);
        Ok(builder::forecast(
            &context,
            &self.graph,
            self.graph.roots(),
            options,
        )?)
    }

    fn with_builder(
        &self,
        work: impl FnOnce(&BuildContext<'_>) -> Result<Report, Box<BuildFailure>>,
    ) -> CmdResult<Report> {
        match self.with_builder_told(work) {
            (report, None) => Ok(report),
            (_, Some(failure)) => Err(failure),
        }
    }

    /// Does something with the builder and says where the bytes came from.
    fn with_builder_told(
        &self,
        work: impl FnOnce(&BuildContext<'_>) -> Result<Report, Box<BuildFailure>>,
    ) -> (Report, Option<Failure>) {
        let sources = self.bench.fetcher();
        let (report, failure) = told_apart(work(&self.bench.build_context(&sources)));
        if let Some(line) = Tally::of(&report.fetched).line() {
            self.bench.ui.status(line);
        }
        let failure = failure.map(|(error, others)| self.failed(error, others, &report));
        (report, failure)
    }

    /// Tells of all failures but the first, which becomes the command's own.
    fn failed(
        &self,
        error: builder::Error,
        others: Vec<builder::Error>,
        report: &Report,
    ) -> Failure {
        for (package, because) in &report.skipped {
            self.bench
                .ui
                .status(format!("{package} was not built, it needs {because}"));
        }
        for other in others {
            self.bench.ui.failure(&Failure::from(other));
        }
        match error {
            builder::Error::Cancelled => Failure::interrupted(),
            error => Failure::from(error),
        }
    }

    /// The outputs of the packages and their run closures, as something to compose or export.
    ///
    /// # Errors
    /// A bug if one is missing.
    pub fn closure(&self, report: &Report) -> CmdResult<Vec<Input>> {
        report
            .closure(&self.graph, self.graph.roots())
            .ok_or_else(|| {
                Failure::new(
                    Exit::Bug,
                    "a package of the closure is missing though all were realised",
                )
            })
    }

    /// The outputs of the packages and their run closures that somebody can sign: a seed is a source of the tree, not an output.
    pub fn signable<'r>(&self, report: &'r Report) -> Vec<(PackageId, &'r Realised)> {
        let graph = &self.graph;
        let built = graph.with_run_closures(graph.roots()).into_iter();
        let built = built.filter(|id| graph.recipe(*id).seed().is_none());
        built
            .filter_map(|id| Some((id, report.realised.get(graph.name(id))?)))
            .collect()
    }

    /// Composes the closure in a directory that must not exist yet.
    ///
    /// # Errors
    /// When it exists, or cannot be written.
    pub fn place(&self, report: &Report, dir: &Path) -> CmdResult {
        Ok(venv::compose(
            &self.bench.store,
            &self.closure(report)?,
            dir,
        )?)
    }

    /// Prints the outputs of the packages asked for, one path a line.
    ///
    /// # Errors
    /// When stdout cannot be written.
    pub fn print_outputs(&self, report: &Report) -> CmdResult {
        let Bench { store, ui, .. } = &self.bench;
        let roots = self.graph.roots().iter();
        let realised: Vec<_> = roots
            .filter_map(|id| report.realised.get(self.graph.name(*id)))
            .collect();
        let digests: Vec<_> = realised.iter().map(|r| r.blob.sha256).collect();
        let paths = store.paths_of(&digests)?.into_iter();
        let paths = paths.map(Option::unwrap_or_default);
        if !ui.json() {
            return ui.data_lines(paths.map(|path| path.display().to_string()));
        }
        let output = |(realised, path): (&&Realised, PathBuf)| Output {
            name: realised.package.clone(),
            pkghash: realised.pkghash.to_string(),
            sha256: realised.blob.sha256.to_string(),
            cid: realised.blob.root.to_string(),
            size: realised.blob.size,
            path,
        };
        let outputs: Vec<_> = realised.iter().zip(paths).map(output).collect();
        ui.json_data(&outputs)
    }
}

/// What was done, and the first error with all others.
fn told_apart(
    done: Result<Report, Box<BuildFailure>>,
) -> (Report, Option<(builder::Error, Vec<builder::Error>)>) {
    match done {
        Ok(report) => (report, None),
        Err(failure) => {
            let BuildFailure {
                error,
                others,
                report,
            } = *failure;
            (report, Some((error, others)))
        }
    }
}

/// Whether building may help.
const fn is_a_miss(error: &builder::Error) -> bool {
    matches!(
        error,
        builder::Error::Missing { .. }
            | builder::Error::Untrusted { .. }
            | builder::Error::TooFewSigners { .. }
            | builder::Error::Lookup { .. }
            | builder::Error::Fetch { .. }
    )
}

/// An output as `--json` tells of it.
#[derive(Serialize)]
struct Output {
    #[serde(serialize_with = "as_text")]
    name: PackageName,
    pkghash: String,
    sha256: String,
    cid: String,
    size: u64,
    path: PathBuf,
}

fn as_text<S: serde::Serializer>(name: &PackageName, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(name.as_str())
}
