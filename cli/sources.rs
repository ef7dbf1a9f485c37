//! Sources to be fetched and kept without building anything: what a mirror does.

use std::collections::BTreeMap;
use std::path::Path;
use std::{fmt, fs, iter};

use base::{Multihash, PackageName, Sha256};
use builder::Observer as _;
use netconfig::MirrorTable;
use recipe::{Graph, PackageSource as _, Recipe, SourceUrl};
use serde::Serialize;
use store::substitute::{FetchError, Fetched, First, SourceFetcher, SourceRequest};
use store::{Blob, Pin, PinKind, ProvideKind, ProvideOrigin, Store};

use crate::bench::{Bench, unix_secs};
use crate::context::Context;
use crate::error::{CmdResult, Failure};
use crate::hands::work_off;
use crate::origins::Origins;
use crate::outfile::OutFile;
use crate::summary::Tally;
use crate::watch::Watch;

/// Transfers at once: enough to keep a line busy while one origin is slow, few enough not to annoy any.
const PARALLEL: usize = 4;

/// Sources by their sha256, each once.
#[derive(Debug, Default)]
pub struct SourceSet {
    sources: BTreeMap<Sha256, Wanted>,
}

/// One source.
#[derive(Debug)]
struct Wanted {
    sha256: Sha256,
    file: String,
    urls: Vec<String>,
    /// The package of the tree that was met first with it; none has it where a list of mirrored sources names it.
    package: Option<PackageName>,
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&crate::sanitize::line(&self.file))?;
        match &self.package {
            Some(package) => write!(f, " for {package}"),
            None => Ok(()),
        }
    }
}

/// One source as `--json` tells of it.
#[derive(Serialize)]
struct Listed {
    sha256: String,
    file: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    package: Option<String>,
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
        Ok(Self::of_graph(&graph))
    }

    /// The sources of all packages of a graph.
    pub fn of_graph(graph: &Graph) -> Self {
        let mut set = Self::default();
        for id in graph.packages() {
            set.add(graph.recipe(id));
        }
        set
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

    /// What a list of mirrored sources names, each by its content identifier and its URL.
    ///
    /// # Errors
    /// When a URL of the list is none, or leaves no name for the file.
    pub fn of_list(table: &MirrorTable) -> CmdResult<Self> {
        let mut set = Self::default();
        for (sha256, record) in table.iter() {
            let bad = || format!("bad `source_url` of `{sha256}`");
            let url = SourceUrl::parse(&record.source_url)
                .map_err(|fault| Failure::usage(fault.to_string()).context(bad()))?;
            let file = url.file_name().ok_or_else(|| {
                let url = crate::sanitize::line(&record.source_url);
                Failure::usage(format!("`{url}` ends in no file name")).context(bad())
            })?;
            let wanted = Wanted {
                sha256: *sha256,
                file: file.to_owned(),
                urls: vec![format!("ipfs://{}", record.cid), record.source_url.clone()],
                package: None,
            };
            set.sources.insert(*sha256, wanted);
        }
        Ok(set)
    }

    fn add(&mut self, recipe: &Recipe) {
        for source in recipe.sources() {
            let wanted = || Wanted {
                sha256: source.sha256,
                file: source.file.clone(),
                urls: source.urls.iter().map(ToString::to_string).collect(),
                package: Some(recipe.name().clone()),
            };
            self.sources.entry(source.sha256).or_insert_with(wanted);
        }
    }

    /// Makes all sources of a tree present, pinned, and queued to be announced; says where the bytes came from.
    ///
    /// # Errors
    /// The first source that could not be had; the others are fetched nevertheless.
    pub fn fetch(&self, context: &Context) -> CmdResult {
        self.fetch_with(context, &Bench::open(context, context.tree()?, None)?)
    }

    /// The same with tools that are there already.
    ///
    /// # Errors
    /// As for [`Self::fetch`].
    pub fn fetch_with(&self, context: &Context, bench: &Bench) -> CmdResult {
        let fetcher = bench.fetcher();
        self.fetch_from(context, &fetcher, &bench.store, &bench.watch)
    }

    /// The same without a tree, so without what can be made from one.
    ///
    /// # Errors
    /// As for [`Self::fetch`].
    pub fn fetch_without_tree(&self, context: &Context) -> CmdResult {
        let origins = Origins::open(context, None)?;
        let fetcher = First::new(origins.fetchers());
        let store = context.store()?.holding()?;
        let watch = Watch::new(&context.ui, &context.interrupt);
        self.fetch_from(context, &fetcher, &store, &watch)
    }

    fn fetch_from(
        &self,
        context: &Context,
        fetcher: &dyn SourceFetcher,
        store: &Store,
        watch: &Watch,
    ) -> CmdResult {
        let work = Work {
            fetcher,
            store,
            watch,
        };
        let wanted: Vec<_> = self.sources.values().collect();
        let stop = || watch.cancelled();
        let results = work_off(&wanted, PARALLEL, stop, |wanted| {
            let told = |error| (format!("`{wanted}`"), error);
            work.fetch_one(wanted).map_err(told)
        });
        let (mut tally, mut failures) = (Tally::default(), Failures::new());
        for result in results {
            match result {
                Ok(Some(fetched)) => tally.add(fetched.blob.size, &fetched.received),
                Ok(None) => {}
                Err(failure) => failures.push(failure),
            }
        }
        if let Some(line) = tally.line() {
            context.ui.status(line);
        }
        conclude(context, failures)
    }

    /// The sources that are here, by the names recipes use.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn here(&self, store: &Store) -> CmdResult<Vec<(&str, Blob)>> {
        let mut here = Vec::new();
        for wanted in self.sources.values() {
            if let Some(blob) = store.blob(&wanted.sha256)? {
                here.push((wanted.file.as_str(), blob));
            }
        }
        Ok(here)
    }

    /// Copies the sources that are here into a directory, under the names recipes use.
    ///
    /// # Errors
    /// When two have the same name, or the disk fails.
    pub fn copy_into(&self, store: &Store, dir: &Path) -> CmdResult {
        let mut names = BTreeMap::new();
        for wanted in self.sources.values() {
            if let Some(other) = names.insert(&wanted.file, wanted) {
                return Err(Failure::usage(format!(
                    "`{other}` and `{wanted}` are different sources of one name"
                ))
                .hint("place them with one command each"));
            }
            let Some(mut blob) = store.open_blob(&wanted.sha256)? else {
                continue;
            };
            fs::create_dir_all(dir)?;
            let mut out = OutFile::create(&dir.join(&wanted.file))?;
            blob.copy_to(out.file())?;
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
        for wanted in self.sources.values() {
            if let Some(Blob { root, size, .. }) = store.blob(&wanted.sha256)? {
                listed.push(Listed {
                    sha256: wanted.sha256.to_string(),
                    file: wanted.file.clone(),
                    package: wanted.package.as_ref().map(ToString::to_string),
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

/// What fetching needs, whatever the source.
struct Work<'a> {
    fetcher: &'a dyn SourceFetcher,
    store: &'a Store,
    watch: &'a Watch,
}

impl Work<'_> {
    /// Gets one source unless it is here already, and keeps it.
    fn fetch_one(&self, wanted: &Wanted) -> Result<Option<Fetched>, FetchError> {
        if let Some(blob) = self.store.blob(&wanted.sha256)? {
            keep(self.store, &blob, &wanted.file, ProvideOrigin::Fetched)?;
            return Ok(None);
        }
        let request = SourceRequest {
            sha256: wanted.sha256,
            file_name: &wanted.file,
            urls: &wanted.urls,
        };
        let progress = self.watch.transfer(format!("fetching {wanted}"));
        let fetched = self.fetcher.fetch(&request, self.store, &progress)?;
        drop(progress);
        keep(
            self.store,
            &fetched.blob,
            &wanted.file,
            ProvideOrigin::Fetched,
        )?;
        self.watch
            .fetched(&wanted.to_string(), fetched.blob.size, &fetched.received);
        Ok(Some(fetched))
    }
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
