//! The sources of packages, to be fetched and kept without building anything: what a mirror does.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::iter;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use base::{Multihash, PackageName, Sha256};
use builder::{Event, Observer as _};
use recipe::{PackageSource as _, Recipe, Source};
use serde::Serialize;
use store::substitute::{FetchError, SourceFetcher, SourceRequest};
use store::{Blob, Pin, PinKind, ProvideKind, ProvideOrigin, Store};

use crate::bench::{Bench, unix_secs};
use crate::context::Context;
use crate::error::{CmdResult, Failure};
use crate::outfile::OutFile;
use crate::summary::Tally;

/// Transfers at once: enough to keep a line busy while one origin is slow, few enough not to annoy any.
const PARALLEL: usize = 4;

/// Sources by their sha256, each once, with the package that was met first.
#[derive(Debug, Default)]
pub struct SourceSet {
    sources: BTreeMap<Sha256, (PackageName, Source)>,
}

/// One source as `--json` tells of it.
#[derive(Serialize)]
struct Listed {
    sha256: String,
    file: String,
    package: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    cid: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
}

impl SourceSet {
    /// The sources of packages and of all they need to be built and used.
    ///
    /// # Errors
    /// When one of them is wrong or missing.
    pub fn of_packages(context: &Context, typed: &[String]) -> CmdResult<Self> {
        let mut tree = context.tree()?;
        let names = tree.package_names(typed)?;
        let graph = context.graph(&mut tree, &names)?;
        let mut set = Self::default();
        for id in graph.packages() {
            set.add(graph.recipe(id));
        }
        Ok(set)
    }

    /// The sources of all packages of the tree. A package that is wrong is told and left out.
    ///
    /// # Errors
    /// When there is no tree.
    pub fn of_whole_tree(context: &Context) -> CmdResult<Self> {
        let mut tree = context.tree()?;
        let mut set = Self::default();
        for name in tree.names() {
            match tree.load(&name) {
                Ok(None) => {}
                Ok(Some(files)) => match Recipe::parse(&name, files) {
                    Ok(recipe) => set.add(&recipe),
                    Err(error) => context.ui.warn(error),
                },
                Err(error) => context.ui.warn(Failure::from(error).message()),
            }
        }
        Ok(set)
    }

    fn add(&mut self, recipe: &Recipe) {
        for source in recipe.sources() {
            let entry = || (recipe.name().clone(), source.clone());
            self.sources.entry(source.sha256).or_insert_with(entry);
        }
    }

    /// Makes all sources present, pinned, and queued to be announced; says where the bytes came from.
    ///
    /// # Errors
    /// The first source that could not be had; the others are fetched nevertheless.
    pub fn fetch(&mut self, context: &Context) -> CmdResult {
        let bench = Bench::open(context, context.tree()?)?;
        let fetcher = bench.fetcher();
        let queue = Mutex::new(self.sources.values());
        let state = Mutex::new((Tally::default(), Vec::new()));
        std::thread::scope(|scope| {
            for _ in 0..PARALLEL.min(self.sources.len()) {
                scope.spawn(|| work(&queue, &state, &fetcher, &bench));
            }
        });
        drop(fetcher);
        drop(bench);
        let (tally, failures) = state.into_inner().unwrap_or_else(PoisonError::into_inner);
        if let Some(line) = tally.line() {
            context.ui.status(line);
        }
        conclude(context, failures)
    }

    /// Copies the sources that are here into a directory, under the names recipes use.
    ///
    /// # Errors
    /// When two have the same name, or the disk fails.
    pub fn copy_into(&self, store: &Store, dir: &Path) -> CmdResult {
        let mut names = BTreeMap::new();
        for (sha256, (package, source)) in &self.sources {
            if let Some(other) = names.insert(&source.file, package) {
                let (file, package) = (&source.file, package.as_str());
                return Err(Failure::usage(format!(
                    "`{other}` and `{package}` have different sources `{file}`"
                ))
                .hint("place them with one command each"));
            }
            let Some(mut blob) = store.open_blob(sha256)? else {
                continue;
            };
            fs::create_dir_all(dir)?;
            let mut out = OutFile::create(&dir.join(&source.file))?;
            io::copy(&mut blob, out.file())?;
            out.finish()?;
        }
        Ok(())
    }

    /// Prints the sources that are here, one a line: sha256 and file name.
    ///
    /// # Errors
    /// When stdout cannot be written.
    pub fn print(&self, context: &Context) -> CmdResult {
        let store = context.store()?;
        let mut listed = Vec::new();
        for (sha256, (package, source)) in &self.sources {
            if let Some(Blob { root, size, .. }) = store.blob(sha256)? {
                listed.push(Listed {
                    sha256: sha256.to_string(),
                    file: source.file.clone(),
                    package: package.to_string(),
                    cid: Some(root.to_string()),
                    size: Some(size),
                });
            }
        }
        if context.ui.json() {
            return context.ui.json_data(&listed);
        }
        listed.iter().try_for_each(|source| {
            context.ui.data(format!(
                "{}  {}",
                source.sha256,
                crate::sanitize::line(&source.file)
            ))
        })
    }
}

type Failures = Vec<(String, FetchError)>;

fn work<'a>(
    queue: &Mutex<impl Iterator<Item = &'a (PackageName, Source)>>,
    state: &Mutex<(Tally, Failures)>,
    fetcher: &dyn SourceFetcher,
    bench: &Bench,
) {
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).next();
    while let Some((package, source)) = next() {
        if bench.watch.cancelled() {
            return;
        }
        let result = fetch_one(package, source, fetcher, bench);
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        match result {
            Ok(Some((bytes, received))) => state.0.add(bytes, &received),
            Ok(None) => {}
            Err(error) => state
                .1
                .push((format!("`{}` of `{package}`", source.file), error)),
        }
    }
}

type Received = (u64, Vec<(store::substitute::Origin, u64)>);

/// Gets one source unless it is here already, and keeps it.
fn fetch_one(
    package: &PackageName,
    source: &Source,
    fetcher: &dyn SourceFetcher,
    bench: &Bench,
) -> Result<Option<Received>, FetchError> {
    let Bench { store, watch, .. } = bench;
    if let Some(blob) = store.blob(&source.sha256)? {
        keep(store, &blob, &source.file, ProvideOrigin::Fetched)?;
        return Ok(None);
    }
    let urls: Vec<_> = source.urls.iter().map(ToString::to_string).collect();
    let request = SourceRequest {
        sha256: source.sha256,
        file_name: &source.file,
        urls: &urls,
    };
    let progress = watch.transfer(format!("fetching {} for {package}", source.file));
    let fetched = fetcher.fetch(&request, store, &progress)?;
    drop(progress);
    keep(store, &fetched.blob, &source.file, ProvideOrigin::Fetched)?;
    let bytes = fetched.blob.size;
    let shown_as = Some(source.file.as_str());
    watch.event(&Event::Fetched {
        package,
        source: shown_as,
        bytes,
        received: &fetched.received,
    });
    Ok(Some((bytes, fetched.received)))
}

/// Pins a source and queues its sha256 and root to be announced.
///
/// # Errors
/// When the store's index cannot be written.
pub fn keep(
    store: &Store,
    blob: &Blob,
    file_name: &str,
    origin: ProvideOrigin,
) -> Result<(), store::StoreError> {
    let kind = PinKind::Source {
        file_name: file_name.to_owned(),
    };
    store.pin(&Pin {
        sha256: blob.sha256,
        kind,
        added_unix_secs: unix_secs(),
    })?;
    let source = (Multihash::sha2_256(&blob.sha256), ProvideKind::Source);
    let root = Multihash::of(&blob.root).map(|root| (root, ProvideKind::Root));
    let keys: Vec<_> = iter::once(source).chain(root).collect();
    store.provide_as(origin, &keys)
}

/// Tells all failures but the first, which becomes the command's own.
fn conclude(context: &Context, failures: Failures) -> CmdResult {
    if context.interrupt.is_set() {
        return Err(Failure::interrupted());
    }
    let count = failures.len();
    let told = |(what, error)| Failure::from(error).context(format!("cannot fetch source {what}"));
    let mut failures = failures.into_iter().map(told);
    let Some(first) = failures.next() else {
        return Ok(());
    };
    for other in failures {
        context.ui.failure(&other);
    }
    if count > 1 {
        context
            .ui
            .status(format!("{count} sources could not be fetched"));
    }
    Err(first)
}
