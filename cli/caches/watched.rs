//! A package cache, or gateways, that somebody looks at while they are used.

use base::{PkgHash, Realisation};
use store::Store;
use store::substitute::{Asked, FetchError, Fetched, Progress, Query, QueryError, Substituter};

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
                if !query.realisations.is_empty() {
                    watcher.wait_for_keys(progress);
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
