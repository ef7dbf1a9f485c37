//! Realising on behalf of a command: puts store, network, trust, sandbox and terminal together for the builder.

use std::io;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use base::{PackageName, SecretKey, TrustPolicy};
use builder::venv;
use builder::{
    Context as BuildContext, Failure as BuildFailure, Forecast, Input, LazySandbox, Options,
    RecipeFiles, Report,
};
use recipe::{Graph, Policy};
use serde::Serialize;
use store::substitute::{First, SourceFetcher};

use crate::context::Context;
use crate::error::{CmdResult, Exit, Failure};
use crate::fetcher;
use crate::keys::{self, DEFAULT_KEY};
use crate::network::Remote;
use crate::summary::Tally;
use crate::tree::DiskTree;
use crate::watch::Watch;

/// Builds at once unless the user says otherwise: more only help where packages are many and small.
const JOBS_DEFAULT_MAX: usize = 4;

/// How packages are got, as flags that several commands share.
#[derive(Clone, Debug, clap::Args)]
pub struct GetArgs {
    /// Builds at once [default: the number of processors, at most 4]
    #[arg(short, long, env = "P2PKGS_JOBS", value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub jobs: Option<u16>,
    /// Never build; a miss ends with exit code 3. PKG_FORCE_BINARY=yes means the same
    #[arg(long, env = "P2PKGS_SUBSTITUTE_ONLY", value_parser = clap::builder::FalseyValueParser::new())]
    pub substitute_only: bool,
    /// Never fetch built packages: build what the store does not hold
    #[arg(long, env = "P2PKGS_NO_SUBSTITUTES", value_parser = clap::builder::FalseyValueParser::new(), conflicts_with = "substitute_only")]
    pub no_substitutes: bool,
}

impl GetArgs {
    /// Whether to substitute, to build, or both.
    ///
    /// # Errors
    /// When flags and upstream's environment contradict each other.
    pub fn policy(&self) -> CmdResult<Policy> {
        let forced = std::env::var_os("PKG_FORCE_BINARY").is_some_and(|value| value == "yes");
        match (self.substitute_only || forced, self.no_substitutes) {
            (true, true) => {
                Err(Failure::usage("`--no-substitutes` contradicts PKG_FORCE_BINARY=yes"))
            }
            (true, false) => Ok(Policy::SubstituteOnly),
            (false, true) => Ok(Policy::BuildOnly),
            (false, false) => Ok(Policy::SubstituteOrBuild),
        }
    }

    /// The builder's options.
    ///
    /// # Errors
    /// As [`Self::policy`].
    pub fn options(&self) -> CmdResult<Options> {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let jobs = self.jobs.map_or(processors.min(JOBS_DEFAULT_MAX), usize::from);
        // Configure scripts use one processor each, so twice as many processes as processors keep them busy.
        let cores = (2 * processors / jobs).clamp(1, processors);
        Ok(Options { policy: self.policy()?, jobs, cores, ..Options::default() })
    }
}

/// Everything the builder needs, opened once.
pub struct Session<'c> {
    context: &'c Context,
    /// The graph of what was asked for.
    pub graph: Graph,
    tree: DiskTree,
    remote: Remote,
    watch: Watch,
    trust: TrustPolicy,
    signer: Option<SecretKey>,
    sandbox: LazySandbox,
    scratch: PathBuf,
    logs: PathBuf,
}

impl<'c> Session<'c> {
    /// Resolves what the user typed, and opens the rest.
    ///
    /// # Errors
    /// When the packages, the configuration or the store cannot be used.
    pub fn open(context: &'c Context, typed: &[String], policy: Policy) -> CmdResult<Self> {
        let mut tree = context.tree()?;
        let names = tree.package_names(typed)?;
        let graph = context.graph(&mut tree, &names)?;
        context.warn_unsupported()?;
        let signer = signer(context, policy)?;
        let home = context.home()?;
        Ok(Self {
            remote: Remote::new(context)?,
            watch: Watch::new(&context.ui, &context.interrupt),
            trust: context.trust()?,
            sandbox: LazySandbox::new(std::env::var_os("PATH").unwrap_or_default()),
            scratch: home.path("scratch"),
            logs: home.path("logs"),
            context,
            graph,
            tree,
            signer,
        })
    }

    /// Makes the packages and their run closures present, and says where the bytes came from.
    ///
    /// # Errors
    /// The first package that could not be had; further ones are told before.
    pub fn realise(&self, options: &Options) -> CmdResult<Report> {
        self.with_builder(|context| builder::realise(context, &self.graph, self.graph.roots(), options))
    }

    /// As [`Self::realise`], then builds the packages again and compares.
    ///
    /// # Errors
    /// Exit code 6 when the outputs differ.
    pub fn check(&self, options: &Options) -> CmdResult<Report> {
        self.with_builder(|context| builder::check(context, &self.graph, self.graph.roots(), options))
    }

    /// What realising would do.
    ///
    /// # Errors
    /// When the store or a lookup fails.
    pub fn forecast(&self, options: &Options) -> CmdResult<Forecast> {
        let sources = self.sources()?;
        let context = self.build_context(&sources)?;
        Ok(builder::forecast(&context, &self.graph, self.graph.roots(), options)?)
    }

    fn with_builder(
        &self,
        work: impl FnOnce(&BuildContext<'_>) -> Result<Report, Box<BuildFailure>>,
    ) -> CmdResult<Report> {
        let sources = self.sources()?;
        let context = self.build_context(&sources)?;
        let (report, failure) = match work(&context) {
            Ok(report) => (report, None),
            Err(failure) => {
                let BuildFailure { error, others, report } = *failure;
                (report, Some((error, others)))
            }
        };
        if let Some(line) = Tally::of(&report.fetched).line() {
            self.context.ui.status(line);
        }
        match failure {
            None => Ok(report),
            Some((error, others)) => Err(self.failed(error, others, &report)),
        }
    }

    /// Tells of all failures but the first, which becomes the command's own.
    fn failed(&self, error: builder::Error, others: Vec<builder::Error>, report: &Report) -> Failure {
        for (package, because) in &report.skipped {
            self.context.ui.status(format!("{package} was not built, it needs {because}"));
        }
        for other in others {
            self.context.ui.failure(&Failure::from(other));
        }
        match error {
            builder::Error::Cancelled => Failure::interrupted(),
            error => Failure::from(error),
        }
    }

    fn sources(&self) -> CmdResult<First<Box<dyn SourceFetcher + '_>>> {
        fetcher::sources(self.context, &self.remote, None)
    }

    fn build_context<'a>(&'a self, sources: &'a dyn SourceFetcher) -> CmdResult<BuildContext<'a>> {
        Ok(BuildContext {
            store: self.context.store()?,
            substituter: &self.remote,
            sources,
            trust: &self.trust,
            signer: self.signer.as_ref(),
            files: &self.tree,
            sandbox: &self.sandbox,
            observer: &self.watch,
            scratch: &self.scratch,
            logs: &self.logs,
            now_unix_secs: unix_secs(),
        })
    }

    /// The outputs of the packages and their run closures, as something to compose or export.
    ///
    /// # Errors
    /// A bug if one is missing.
    pub fn closure(&self, report: &Report) -> CmdResult<Vec<Input>> {
        report.closure(&self.graph, self.graph.roots()).ok_or_else(|| {
            Failure::new(Exit::Bug, "a package of the closure is missing after everything was realised")
        })
    }

    /// Composes the closure in a directory that must not exist yet.
    ///
    /// # Errors
    /// When it exists, or cannot be written.
    pub fn place(&self, report: &Report, dir: &std::path::Path) -> CmdResult {
        Ok(venv::compose(self.context.store()?, &self.closure(report)?, dir)?)
    }

    /// Where scratch directories are made.
    pub const fn scratch(&self) -> &PathBuf {
        &self.scratch
    }

    /// Fails with exit code 8, and what to do about it, where no sandbox works.
    ///
    /// # Errors
    /// When none works.
    pub fn require_sandbox(&self) -> CmdResult {
        self.sandbox.get()?;
        Ok(())
    }

    /// Prints the outputs of the packages asked for, one path a line.
    ///
    /// # Errors
    /// When stdout cannot be written.
    pub fn print_outputs(&self, report: &Report) -> CmdResult {
        let store = self.context.store()?;
        let mut outputs = Vec::new();
        for id in self.graph.roots() {
            let Some(realised) = report.realised.get(self.graph.name(*id)) else { continue };
            let path = store.open_blob(&realised.blob.sha256)?.map(|blob| blob.path().to_owned());
            outputs.push(Output {
                name: realised.package.to_string(),
                pkghash: realised.pkghash.to_string(),
                sha256: realised.blob.sha256.to_string(),
                cid: realised.blob.root.to_string(),
                size: realised.blob.size,
                path: path.unwrap_or_default(),
            });
        }
        if self.context.ui.json() {
            return self.context.ui.json_data(&outputs);
        }
        outputs.iter().try_for_each(|output| self.context.ui.data(output.path.display()))
    }
}

/// An output as `--json` tells of it.
#[derive(Serialize)]
struct Output {
    name: String,
    pkghash: String,
    sha256: String,
    cid: String,
    size: u64,
    path: PathBuf,
}

/// The key that signs what is built. A command that may build makes one if there is none, and says so.
fn signer(context: &Context, policy: Policy) -> CmdResult<Option<SecretKey>> {
    let home = context.home()?;
    if policy == Policy::SubstituteOnly {
        return keys::own_key(home, DEFAULT_KEY);
    }
    let (key, is_new) = keys::create_key(home, DEFAULT_KEY)?;
    if is_new {
        context.ui.status(format!("made builder key `{DEFAULT_KEY}`: {}", key.public()));
    }
    Ok(Some(key))
}

/// The time for the records of the store.
pub fn unix_secs() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

impl RecipeFiles for DiskTree {
    fn read(&self, package: &PackageName, path: &str) -> io::Result<Vec<u8>> {
        self.read_recipe_file(package, path)
    }
}
