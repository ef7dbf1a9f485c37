//! Sources: in the store already, or fetched into it.

use std::collections::HashMap;
use std::iter;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use base::{Multihash, PackageName, Sha256};
use recipe::{Recipe, Source};
use store::substitute::{Fetched, Origin, SourceFetcher, SourceRequest};
use store::{Pin, PinKind, ProvideKind, ProvideOrigin, Store, StoreError};

use crate::error::{Error, Wanted};
use crate::observe::{Event, FetchProgress, Observer};

/// Downloads at once for one package: enough to hide a slow origin, few enough not to be one's own denial of service.
const PARALLEL: usize = 4;

/// Locks per digest: a source, seed or output that two packages need is fetched once.
#[derive(Debug, Default)]
pub(crate) struct Flights(Mutex<HashMap<Sha256, Arc<Mutex<()>>>>);

impl Flights {
    /// Runs `fetch` while nobody else fetches the same digest.
    pub(crate) fn alone<T>(&self, digest: Sha256, fetch: impl FnOnce() -> T) -> T {
        let flight = {
            let mut flights = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(flights.entry(digest).or_default())
        };
        let _guard = flight.lock().unwrap_or_else(PoisonError::into_inner);
        fetch()
    }
}

/// Everything that fetching needs besides the recipe.
#[derive(Clone, Copy)]
pub(crate) struct Fetching<'a> {
    pub store: &'a Store,
    pub fetcher: &'a dyn SourceFetcher,
    pub observer: &'a dyn Observer,
    pub flights: &'a Flights,
    pub now_unix_secs: u64,
    /// Whether others are told that we hold it.
    pub announce: bool,
}

/// A source or output that had to be fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchedItem {
    /// For which package.
    pub package: PackageName,
    /// The source's file name; `None` for an output or seed.
    pub source: Option<String>,
    /// Its size in bytes.
    pub bytes: u64,
    /// Who sent how many bytes.
    pub received: Vec<(Origin, u64)>,
}

impl Fetching<'_> {
    /// Makes all sources of a recipe present, some at a time; says which had to be fetched.
    pub(crate) fn sources(&self, recipe: &Recipe) -> Result<Vec<FetchedItem>, Error> {
        let sources = recipe.sources();
        let next = Mutex::new(sources.iter());
        let take = || next.lock().unwrap_or_else(PoisonError::into_inner).next();
        let worker = || {
            let mut fetched = Vec::new();
            while let Some(source) = take() {
                fetched.extend(self.source(recipe.name(), source)?);
            }
            Ok(fetched)
        };
        let results: Vec<Result<Vec<FetchedItem>, Error>> = thread::scope(|scope| {
            let workers: Vec<_> = (0..PARALLEL.min(sources.len()))
                .map(|_| scope.spawn(worker))
                .collect();
            workers
                .into_iter()
                .map(|w| {
                    w.join()
                        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
                })
                .collect()
        });
        results.into_iter().try_fold(Vec::new(), |mut all, result| {
            all.append(&mut result?);
            Ok(all)
        })
    }

    /// One source: noted under its name, and announced by its plain digest. What a build needs is not mirrored for good.
    fn source(&self, package: &PackageName, source: &Source) -> Result<Option<FetchedItem>, Error> {
        let wanted = || Wanted::Source {
            package: package.clone(),
            file: source.file.clone(),
        };
        let item = self.content(package, Some(&source.file), source, wanted)?;
        let kind = PinKind::Source {
            file_name: source.file.clone(),
        };
        self.store.note(&self.reason(source, kind))?;
        self.announce(source)?;
        Ok(item)
    }

    /// A seed: kept as such, otherwise like any source.
    pub(crate) fn seed(
        &self,
        package: &PackageName,
        seed: &Source,
    ) -> Result<Option<FetchedItem>, Error> {
        let item = self.content(package, None, seed, || Wanted::Seed(package.clone()))?;
        let kind = PinKind::Seed {
            name: package.to_string(),
        };
        self.store.pin(&self.reason(seed, kind))?;
        self.announce(seed)?;
        Ok(item)
    }

    fn content(
        &self,
        package: &PackageName,
        shown_as: Option<&str>,
        source: &Source,
        wanted: impl FnOnce() -> Wanted,
    ) -> Result<Option<FetchedItem>, Error> {
        let source_digest = source.sha256;
        self.flights.alone(source_digest, || {
            if self.store.blob(&source.sha256)?.is_some() {
                return Ok(None);
            }
            let urls: Vec<_> = source.urls.iter().map(ToString::to_string).collect();
            let request = SourceRequest {
                sha256: source.sha256,
                file_name: &source.file,
                urls: &urls,
            };
            let progress = FetchProgress::new(self.observer, package, shown_as);
            let Fetched { blob, received, .. } = self
                .fetcher
                .fetch(&request, self.store, &progress)
                .map_err(|source| Error::Fetch {
                    what: wanted(),
                    source,
                })?;
            // A fetcher checks what it takes in; that it checked the right digest is checked here.
            if blob.sha256 != source_digest {
                return Err(Error::Store(StoreError::Mismatch {
                    what: "sha256",
                    expected: source_digest.to_string(),
                    got: blob.sha256.to_string(),
                }));
            }
            self.observer.event(&Event::Fetched {
                package,
                source: shown_as,
                bytes: blob.size,
                received: &received,
            });
            let (package, source) = (package.clone(), shown_as.map(str::to_owned));
            Ok(Some(FetchedItem {
                package,
                source,
                bytes: blob.size,
                received,
            }))
        })
    }

    fn reason(&self, source: &Source, kind: PinKind) -> Pin {
        Pin {
            sha256: source.sha256,
            kind,
            added_unix_secs: self.now_unix_secs,
        }
    }

    fn announce(&self, source: &Source) -> Result<(), Error> {
        let sha256 = source.sha256;
        if self.announce
            && let Some(blob) = self.store.blob(&sha256)?
        {
            let source = (Multihash::sha2_256(&sha256), ProvideKind::Source);
            let root = Multihash::of(&blob.root).map(|root| (root, ProvideKind::Root));
            let keys: Vec<_> = iter::once(source).chain(root).collect();
            self.store.provide_as(ProvideOrigin::Fetched, &keys)?;
        }
        Ok(())
    }
}
