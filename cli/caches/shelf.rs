//! The files of a package cache, whatever door leads there.

use std::io::Read as _;
use std::sync::{Arc, Mutex, PoisonError};

use base::{PkgHash, Realisation, SignedRealisation};
use node::{ContentPath, HttpSources, PathError, fetch_path, read_statements, resolve_path};
use store::Store;
use store::substitute::{
    Asked, FetchError, Fetched, Origin, Progress, Query, QueryError, Substituter,
};

use crate::network::{NotStarted, Remote};

/// Where a cache lies, for its small files: heads, parts of indices, statements about keys.
#[derive(Clone, Debug)]
pub enum Shelf {
    /// A directory on a web server or of this machine.
    Web {
        /// The door to web servers.
        http: HttpSources,
        /// Its URL, without a slash at the end.
        base: String,
    },
    /// A directory in IPFS.
    Path(PathCache),
}

impl Shelf {
    /// The directory at `url`: `http://`, `https://` or `file://`.
    pub fn web(http: HttpSources, url: &str) -> Self {
        let base = url.trim_end_matches('/').to_owned();
        Self::Web { http, base }
    }

    /// Reads a small file of the cache; `None` when the cache says that it has none. Of a longer one than `max` bytes one byte more
    /// is read, so that its reader sees that it is none.
    ///
    /// # Errors
    /// [`FetchError`] when the cache cannot be asked.
    pub fn read(
        &self,
        name: &str,
        max: usize,
        progress: &dyn Progress,
    ) -> Result<Option<Vec<u8>>, FetchError> {
        let failed = |error: std::io::Error| FetchError::Failed {
            source: error.into(),
        };
        let max = max as u64 + 1;
        let mut bytes = Vec::new();
        let opened = match self {
            Self::Web { http, base } => (http.page(&format!("{base}/{name}")))
                .and_then(|page| page.body.take(max).read_to_end(&mut bytes).map_err(failed)),
            Self::Path(cache) => (cache.get(name, progress)).and_then(|fetched| {
                match cache.store.open_blob(&fetched.blob.sha256)? {
                    Some(file) => file.take(max).read_to_end(&mut bytes).map_err(failed),
                    // It went as soon as it had come.
                    None => Ok(0),
                }
            }),
        };
        match opened {
            Ok(_) => Ok(Some(bytes)),
            Err(FetchError::Missing { asked }) if asked.caches > 0 => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// A package cache that is a directory in IPFS.
#[derive(Clone, Debug)]
pub struct PathCache {
    remote: Arc<Remote>,
    store: Store,
    /// The directory; a name until it was resolved, which happens once.
    path: Arc<Mutex<ContentPath>>,
}

impl PathCache {
    /// The directory at a path.
    pub fn new(remote: &Arc<Remote>, store: &Store, path: ContentPath) -> Self {
        Self {
            remote: Arc::clone(remote),
            store: store.clone(),
            path: Arc::new(Mutex::new(path)),
        }
    }

    /// The file of that name, which may lie in a folder.
    fn get(&self, name: &str, progress: &dyn Progress) -> Result<Fetched, FetchError> {
        let doors = self.remote.doors().map_err(not_started)?;
        let directory = self.directory(progress)?;
        let path = name
            .split('/')
            .fold(directory, |path, part| path.join(part));
        fetch_path(doors, &path, &self.store, progress).map_err(fetch_error)
    }

    fn directory(&self, progress: &dyn Progress) -> Result<ContentPath, FetchError> {
        let mut path = self.path.lock().unwrap_or_else(PoisonError::into_inner);
        if path.begins_with_name() {
            let doors = self.remote.doors().map_err(not_started)?;
            let resolved = resolve_path(doors, &path, &self.store, progress);
            *path = resolved.map_err(fetch_error)?;
        }
        Ok(path.clone())
    }

    fn statements(
        &self,
        pkghash: &PkgHash,
        progress: &dyn Progress,
    ) -> Result<Vec<SignedRealisation>, FetchError> {
        let fetched = self.get(&format!("{pkghash}.realisations"), progress)?;
        match self.store.open_blob(&fetched.blob.sha256)? {
            Some(file) => {
                read_statements(file, pkghash).map_err(|e| FetchError::Failed { source: e.into() })
            }
            // It went as soon as it had come.
            None => Ok(Vec::new()),
        }
    }
}

impl Substituter for PathCache {
    fn query(&self, pkghash: &PkgHash, progress: &dyn Progress) -> Result<Query, QueryError> {
        let mut query = Query::default();
        query.asked.caches = 1;
        match self.statements(pkghash, progress) {
            Ok(realisations) => query.realisations = realisations,
            Err(FetchError::Cancelled) => return Err(QueryError::Cancelled),
            Err(FetchError::Missing { asked }) if asked.caches > 0 => {}
            // Nobody had the directory.
            Err(FetchError::Missing { .. }) => query.asked.unreachable = 1,
            Err(error) => {
                tracing::info!(%error, "a cache in IPFS did not answer");
                match error {
                    FetchError::TimedOut { .. } => query.asked.timed_out = 1,
                    FetchError::Invalid { .. } => query.asked.invalid = 1,
                    FetchError::Refused { .. } => query.asked.refused = 1,
                    _ => query.asked.failed = 1,
                }
            }
        }
        Ok(query)
    }

    fn fetch(
        &self,
        realisation: &Realisation,
        _store: &Store,
        progress: &dyn Progress,
    ) -> Result<Fetched, FetchError> {
        let fetched = self.get(&format!("{}.tar.zst", realisation.pkghash), progress)?;
        if fetched.blob.sha256 == realisation.sha256 {
            return Ok(fetched);
        }
        let from = fetched.received.first();
        Err(FetchError::Invalid {
            expected: realisation.sha256.to_string(),
            got: fetched.blob.sha256.to_string(),
            from: from.map_or(Origin::Local, |(origin, _)| origin.clone()),
        })
    }
}

fn not_started(error: NotStarted) -> FetchError {
    FetchError::Failed {
        source: error.into(),
    }
}

/// An entry that the directory has not is a miss, and it is the directory that says so.
fn fetch_error(error: PathError) -> FetchError {
    match error {
        PathError::Fetch(error) => error,
        PathError::NoEntry { .. } => FetchError::Missing {
            asked: Asked {
                caches: 1,
                ..Asked::default()
            },
        },
        error => FetchError::Failed {
            source: error.into(),
        },
    }
}
