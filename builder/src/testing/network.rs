//! Who has sources, and who has outputs, without a network.

use std::collections::HashMap;
use std::io::Write as _;
use std::sync::atomic::{AtomicUsize, Ordering};

use base::{PkgHash, Realisation, Sha256};
use store::substitute::{
    Asked, FetchError, Fetched, Origin, Progress, Query, QueryError, SourceFetcher, SourceRequest,
    Substituter,
};
use store::{Expected, Store};

/// Sources by digest.
#[derive(Debug, Default)]
pub struct Shelf {
    bytes: HashMap<Sha256, Vec<u8>>,
    /// How many were asked for and there.
    pub fetched: AtomicUsize,
}

impl Shelf {
    /// Puts a source there.
    pub fn add(&mut self, bytes: &[u8]) -> Sha256 {
        let sha256 = Sha256::of(bytes);
        self.bytes.insert(sha256, bytes.to_vec());
        sha256
    }
}

impl SourceFetcher for Shelf {
    fn fetch(
        &self,
        request: &SourceRequest<'_>,
        store: &Store,
        progress: &dyn Progress,
    ) -> Result<Fetched, FetchError> {
        let asked = Asked {
            caches: 1,
            ..Asked::default()
        };
        let bytes = self
            .bytes
            .get(&request.sha256)
            .ok_or(FetchError::Missing { asked })?;
        self.fetched.fetch_add(1, Ordering::Relaxed);
        let mut ingest = store.ingest()?;
        ingest.write_all(bytes).unwrap();
        progress.bytes(bytes.len() as u64, Some(bytes.len() as u64));
        let blob = ingest.finish(&Expected::sha256(request.sha256))?;
        let received = vec![(Origin::Http("shelf".into()), blob.size)];
        Ok(Fetched {
            blob,
            received,
            asked,
        })
    }
}

/// Another machine: its store, reached as if over a network.
#[derive(Debug, Default)]
pub struct Remote {
    /// What it has.
    pub store: Option<Store>,
    /// How often it was asked.
    pub queries: AtomicUsize,
    /// Whether everything it sends is something else.
    pub lies: bool,
}

impl Substituter for Remote {
    fn query(&self, pkghash: &PkgHash, _: &dyn Progress) -> Result<Query, QueryError> {
        self.queries.fetch_add(1, Ordering::Relaxed);
        let asked = Asked {
            providers: 1,
            ..Asked::default()
        };
        let realisations = match &self.store {
            Some(store) => store.realisations(pkghash).unwrap(),
            None => Vec::new(),
        };
        Ok(Query {
            realisations,
            asked,
        })
    }

    fn fetch(
        &self,
        realisation: &Realisation,
        store: &Store,
        _progress: &dyn Progress,
    ) -> Result<Fetched, FetchError> {
        let asked = Asked {
            providers: 1,
            ..Asked::default()
        };
        let from = Origin::Peer("remote".into());
        let remote = self.store.as_ref().ok_or(FetchError::Missing { asked })?;
        if self.lies {
            let (expected, got) = (
                realisation.sha256.to_string(),
                Sha256::of(b"lie").to_string(),
            );
            return Err(FetchError::Invalid {
                expected,
                got,
                from,
            });
        }
        let mut file = remote
            .open_blob(&realisation.sha256)?
            .ok_or(FetchError::Missing { asked })?;
        let mut ingest = store.ingest()?;
        std::io::copy(&mut file, &mut ingest).unwrap();
        let blob = ingest.finish(&Expected::realisation(realisation))?;
        Ok(Fetched {
            received: vec![(from, blob.size)],
            blob,
            asked,
        })
    }
}
