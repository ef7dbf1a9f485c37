//! What a command needs to get things and to build: store, network, trust, sandbox and terminal, put together once.
//!
//! Unlike [`Context`] it can be shared between threads, so that whatever runs on the builder's threads, such as the
//! rebuilding of a seed in the middle of a build, has the same tools at hand.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use base::PkgHash;
use builder::{Context as BuildContext, JobServer, Kept, LazySandbox};
use store::Store;
use store::substitute::{First, Progress, Query, Race, SourceFetcher, Substituter as _};
use trust::TrustPolicy;

use crate::believing::Believer;
use crate::cmd::shell;
use crate::context::Context;
use crate::error::CmdResult;
use crate::keys::BuildKey;
use crate::network::Remote;
use crate::origins::Origins;
use crate::seeds::RebuiltSeeds;
use crate::substituters;
use crate::times::Times;
use crate::tree::DiskTree;
use crate::ui::Ui;
use crate::watch::Watch;

/// The tools.
pub struct Bench {
    /// The terminal.
    pub ui: Ui,
    /// Where everything ends up.
    pub store: Store,
    /// The recipes.
    pub tree: DiskTree,
    /// Who watches.
    pub watch: Watch,
    /// Where scratch directories are made.
    pub scratch: PathBuf,
    /// What all builds of this command together may run at once.
    pub jobs: JobServer,
    origins: Origins,
    substituters: Race<'static>,
    believer: Arc<Believer>,
    signer: BuildKey,
    sandbox: LazySandbox,
    /// Where logs are kept.
    pub logs: PathBuf,
}

impl std::fmt::Debug for Bench {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bench")
            .field("tree", &self.tree)
            .finish_non_exhaustive()
    }
}

impl Bench {
    /// Opens everything, to run so many jobs at once: as many as there are processors, unless the user says otherwise.
    ///
    /// # Errors
    /// When the configuration or the store cannot be used.
    pub fn open(context: &Context, tree: DiskTree, jobs: Option<u16>) -> CmdResult<Self> {
        let home = context.home()?;
        let origins = Origins::open(context, Some(&tree))?;
        let signer = BuildKey::of(home, &context.ui)?;
        Ok(Self {
            ui: context.ui.clone(),
            // What a build has found must still be there when it is needed.
            store: context.store()?.holding()?,
            watch: Watch::new(&context.ui, &context.interrupt)
                .remembering(Times::open(home.path("build-times"))),
            believer: Arc::clone(context.believer()?),
            sandbox: LazySandbox::new(search_path()),
            scratch: home.path("scratch"),
            jobs: JobServer::new(jobs.map_or_else(processors, usize::from))?,
            logs: home.path("logs"),
            substituters: substituters::open(context, &origins)?,
            origins,
            tree,
            signer,
        })
    }

    /// Where sources come from, in order: peers by their sha256, the recipe's URLs and mirrors, a seed rebuilt here.
    pub fn fetcher(&self) -> First<Box<dyn SourceFetcher + '_>> {
        let mut fetchers = self.origins();
        fetchers.push(Box::new(RebuiltSeeds::new(self)));
        First::new(fetchers)
    }

    /// Where sources come from that are not made here.
    pub fn origins(&self) -> Vec<Box<dyn SourceFetcher + '_>> {
        self.origins.fetchers()
    }

    /// Everything as the builder takes it.
    pub fn build_context<'a>(&'a self, sources: &'a dyn SourceFetcher) -> BuildContext<'a> {
        BuildContext {
            store: &self.store,
            substituter: &self.substituters,
            sources,
            trust: self.believer.live(),
            signer: &self.signer,
            files: &self.tree,
            sandbox: &self.sandbox,
            jobs: &self.jobs,
            observer: &self.watch,
            scratch: &self.scratch,
            logs: &self.logs,
            now_unix_secs: unix_secs(),
        }
    }

    /// What others say of a package, and who was asked.
    ///
    /// # Errors
    /// When the lookup failed as a whole; an empty answer is no error.
    pub fn query(&self, pkghash: &PkgHash, progress: &dyn Progress) -> CmdResult<Query> {
        Ok(self.substituters.query(pkghash, progress)?)
    }

    /// Whom the user believes, by all that is known now.
    pub fn trust(&self) -> Arc<TrustPolicy> {
        self.believer.live().now()
    }

    /// This command's door to the network.
    pub const fn remote(&self) -> &Arc<Remote> {
        self.origins.remote()
    }

    /// Opens a shell in a failed build that was kept.
    ///
    /// # Errors
    /// As [`shell::open`].
    pub fn shell(&self, dir: &Path) -> CmdResult<Kept> {
        shell::open(&self.ui, &self.store, &self.sandbox, &self.jobs, dir)
    }

    /// Fails with exit code 8, and what to do about it, where no sandbox works.
    ///
    /// # Errors
    /// When none works.
    pub fn require_sandbox(&self) -> CmdResult {
        self.sandbox.get()?;
        Ok(())
    }
}

/// How many jobs this machine can run at once.
pub fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Where bubblewrap is looked for.
pub fn search_path() -> OsString {
    std::env::var_os("PATH").unwrap_or_default()
}

/// The time for the records of the store.
pub fn unix_secs() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
