//! A package cache, or gateways, that somebody looks at while they are used.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use base::{PkgHash, Realisation, SignedRealisation};
use node::{CacheObserver, HttpCaches};
use store::Store;
use store::substitute::{
    Asked, FetchError, Fetched, NoProgress, Progress, Query, QueryError, Substituter,
};

use super::Watcher;

/// A substituter with its watchers, one for each place that it asks.
#[derive(Debug)]
pub struct Watched<S> {
    inner: S,
    watchers: Vec<Watcher>,
}

impl<S> Watched<S> {
    /// Looks at what `inner` answers.
    pub const fn new(inner: S, watchers: Vec<Watcher>) -> Self {
        Self { inner, watchers }
    }
}

impl<S: Substituter> Substituter for Watched<S> {
    fn query(&self, pkghash: &PkgHash, progress: &dyn Progress) -> Result<Query, QueryError> {
        self.watchers.iter().for_each(Watcher::begin);
        let query = self.inner.query(pkghash, progress)?;
        if has_answered(&query.asked) {
            for watcher in &self.watchers {
                watcher.answered(pkghash, &query.realisations);
                // Statements about those who signed come from the same place, and count before their word does.
                if !query.realisations.is_empty()
                    && let Some(keys) = watcher.keys()
                {
                    keys.wait(progress);
                }
            }
        }
        Ok(query)
    }

    fn fetch(
        &self,
        realisation: &Realisation,
        store: &Store,
        progress: &dyn Progress,
    ) -> Result<Fetched, FetchError> {
        let fetched = self.inner.fetch(realisation, store, progress);
        let is_withheld = match &fetched {
            Err(FetchError::Missing { asked }) => asked.caches > 0,
            Err(FetchError::Invalid { .. } | FetchError::Refused { .. }) => true,
            _ => false,
        };
        if is_withheld {
            for watcher in &self.watchers {
                watcher.not_delivered(realisation);
            }
        }
        fetched
    }
}

/// Whether somebody is there, whatever he said.
const fn has_answered(asked: &Asked) -> bool {
    asked.caches > 0 && asked.unreachable == 0 && asked.timed_out == 0
}

/// The package caches of web servers, which are asked together, with their watchers.
#[derive(Debug)]
pub struct WatchedWeb {
    caches: HttpCaches,
    watchers: Arc<Watchers>,
}

/// By the URL of the cache, without a slash at the end.
type Watchers = HashMap<String, Watcher>;

impl WatchedWeb {
    /// Looks at what each of `caches` answers.
    pub fn new(caches: HttpCaches, watchers: Vec<(&String, Watcher)>) -> Self {
        let by_url = |(url, watcher): (&String, _)| (url.trim_end_matches('/').to_owned(), watcher);
        let watchers: Arc<Watchers> = Arc::new(watchers.into_iter().map(by_url).collect());
        let passed_on = PassedOn(Arc::downgrade(&watchers));
        Self {
            caches: caches.observed_by(Arc::new(passed_on)),
            watchers,
        }
    }
}

impl Substituter for WatchedWeb {
    fn query(&self, pkghash: &PkgHash, progress: &dyn Progress) -> Result<Query, QueryError> {
        self.watchers.values().for_each(Watcher::begin);
        self.caches.query(pkghash, progress)
    }

    fn fetch(
        &self,
        realisation: &Realisation,
        store: &Store,
        progress: &dyn Progress,
    ) -> Result<Fetched, FetchError> {
        self.caches.fetch(realisation, store, progress)
    }
}

/// Hands what a cache did to its watcher. Threads that ask may outlive the command's interest, so they hold nothing: when a watcher
/// ends, it may wait for its cache once more.
#[derive(Debug)]
struct PassedOn(Weak<Watchers>);

impl CacheObserver for PassedOn {
    fn answered(&self, base: &str, pkghash: &PkgHash, statements: &[SignedRealisation]) {
        let keys = self.0.upgrade().and_then(|watchers| {
            let watcher = watchers.get(base)?;
            watcher.answered(pkghash, statements);
            watcher.keys()
        });
        // Statements about those who signed come from the same place, and count before their word does.
        if !statements.is_empty()
            && let Some(keys) = keys
        {
            keys.wait(&NoProgress);
        }
    }

    fn not_delivered(&self, base: &str, realisation: &Realisation) {
        if let Some(watchers) = self.0.upgrade()
            && let Some(watcher) = watchers.get(base)
        {
            watcher.not_delivered(realisation);
        }
    }
}
