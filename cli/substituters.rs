//! Where built packages come from that are not built here: peers and package caches, asked at once.
//!
//! A cache is a directory that holds for each package its statements and an output, wherever it lies: on a web server, in
//! the file system, or in IPFS below a CID or a name.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use base::{PkgHash, PublicKey, Realisation, SignedRealisation};
use node::{ContentPath, HttpCaches, PathError, fetch_path, read_statements, resolve_path};
use store::Store;
use store::substitute::{
    Asked, FetchError, Fetched, Origin, Progress, Query, QueryError, Race, Substituter,
};
use trust::TrustPolicy;

use crate::context::{Context, PackageNames};
use crate::error::{CmdResult, Failure};
use crate::keys;
use crate::network::{NotStarted, Remote};
use crate::origins::Origins;

/// Everybody who may have built packages, in the order in which they are preferred: peers, caches.
///
/// # Errors
/// When the configuration of the caches cannot be used.
pub fn open(context: &Context, origins: &Origins) -> CmdResult<Race<'static>> {
    let remote = origins.remote();
    let caches = Caches::of(context, remote.is_enabled())?;
    let mut items: Vec<Box<dyn Substituter>> = vec![Box::new(Arc::clone(remote))];
    let settled = Settled::of(context)?;
    let enough =
        move |pkghash: &PkgHash, found: &[SignedRealisation]| settled.is_settled(pkghash, found);
    if let Some(gateways) = remote.gateways() {
        items.push(Box::new(gateways.clone().until(enough.clone())));
    }
    if !caches.web.is_empty() {
        let http = remote.http().clone();
        items.push(Box::new(
            HttpCaches::new(http, &caches.web).until(enough.clone()),
        ));
    }
    for path in caches.paths {
        items.push(Box::new(PathCache {
            remote: Arc::clone(remote),
            store: context.store()?.clone(),
            path: Mutex::new(path),
        }));
    }
    Ok(Race::new(items, enough))
}

/// The URLs of the package caches that are no directories in IPFS. Without a network only those of this machine.
///
/// # Errors
/// When the configuration of the caches cannot be used.
pub fn web_caches(context: &Context, online: bool) -> CmdResult<Vec<String>> {
    Ok(Caches::of(context, online)?.web)
}

/// The caches that the user named, by the door that leads to them.
struct Caches {
    web: Vec<String>,
    paths: Vec<ContentPath>,
}

impl Caches {
    /// Without a network only directories of this machine are left.
    fn of(context: &Context, online: bool) -> CmdResult<Self> {
        let (mut web, mut paths) = (Vec::new(), Vec::new());
        for url in context.config()?.caches()?.urls {
            let scheme = url.split_once("://").map_or("", |(scheme, _)| scheme);
            match scheme {
                "file" => web.push(url),
                "http" | "https" if online => web.push(url),
                "ipfs" | "ipns" if online => paths.push(url.parse().map_err(|error| {
                    let url = crate::sanitize::line(&url);
                    Failure::from(error).context(format!("bad package cache `{url}`"))
                })?),
                _ => {}
            }
        }
        Ok(Self { web, paths })
    }
}

/// The trust policy as a reason to stop looking.
#[derive(Clone, Debug)]
pub struct Settled {
    trust: TrustPolicy,
    /// The user's own keys: what they signed is here and need not be looked for.
    own: BTreeSet<PublicKey>,
    /// Keys may count for some packages only.
    names: PackageNames,
}

impl Settled {
    /// The user's policy.
    ///
    /// # Errors
    /// When the policy or the own keys cannot be read.
    pub fn of(context: &Context) -> CmdResult<Self> {
        let own = keys::own_keys(context.home()?)?;
        Ok(Self {
            trust: context.trust()?,
            own: own.iter().map(|own| own.key.public()).collect(),
            names: context.package_names().clone(),
        })
    }

    /// Whether a search may end before everybody was asked.
    pub fn is_settled(&self, pkghash: &PkgHash, found: &[SignedRealisation]) -> bool {
        let name = self.names.get(pkghash);
        self.trust
            .is_settled(name.as_ref(), pkghash, found, &self.own)
    }
}

/// A directory in IPFS.
struct PathCache {
    remote: Arc<Remote>,
    store: Store,
    /// The directory; a name until it was resolved, which happens once.
    path: Mutex<ContentPath>,
}

impl PathCache {
    fn get(&self, name: &str, progress: &dyn Progress) -> Result<Fetched, FetchError> {
        let doors = self.remote.doors().map_err(not_started)?;
        let directory = self.directory(progress)?;
        fetch_path(doors, &directory.join(name), &self.store, progress).map_err(fetch_error)
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
            Err(FetchError::Missing { .. }) => {}
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

/// An entry that the directory has not is a miss.
fn fetch_error(error: PathError) -> FetchError {
    match error {
        PathError::Fetch(error) => error,
        PathError::NoEntry { .. } => FetchError::Missing {
            asked: Asked::default(),
        },
        error => FetchError::Failed {
            source: error.into(),
        },
    }
}
