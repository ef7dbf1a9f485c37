//! Conformance suites: what every implementation of this crate's traits must do, run in the implementor's own tests.
//!
//! They panic with the broken rule. [`StoreSubstituter`] is the simplest implementation there is, for tests that need one.

#![allow(
    clippy::panic,
    clippy::unwrap_used,
    reason = "these functions are tests"
)]

use std::io::Read as _;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use base::{Multihash, PkgHash, Realisation, Sha256, SignedRealisation};
use bytes::Bytes;

use crate::substitute::{
    Asked, FetchError, Fetched, NoProgress, Origin, Progress, Query, QueryError, SourceFetcher,
    SourceRequest, Substituter,
};
use crate::{BLOCK_BYTES_MAX, Block, BlockStore, Expected, Store, StoreError};

/// Every rule of [`BlockStore`], on a store that holds nothing.
pub fn check_block_store(store: &dyn BlockStore) {
    let block = Block::of(Bytes::from_static(b"a block"));
    let missing = Multihash::sha2_256(&Sha256::of(b"another"));
    assert!(
        !store.has(block.hash()).unwrap(),
        "an empty store has no block"
    );
    assert_eq!(
        store.get(&missing).unwrap(),
        None,
        "a missing block is no error"
    );
    assert_eq!(store.size(&missing).unwrap(), None);
    assert_eq!(store.serve(&missing).unwrap(), None);
    store.put(&block).unwrap();
    store.put(&block).unwrap();
    assert_eq!(
        store.serve(block.hash()).unwrap().as_ref(),
        Some(block.bytes())
    );
    assert!(store.has(block.hash()).unwrap());
    assert_eq!(store.size(block.hash()).unwrap(), Some(7));
    assert_eq!(store.get(block.hash()).unwrap(), Some(block.clone()));
    for codec in [base::Codec::Raw, base::Codec::DagPb] {
        let found = store.get_cid(&block.cid(codec)).unwrap();
        assert_eq!(
            found.as_ref(),
            Some(&block),
            "a block has one key whatever its codec"
        );
    }
    let empty = Block::empty();
    assert_eq!(
        store.get(empty.hash()).unwrap(),
        Some(empty.clone()),
        "the empty block exists"
    );
    assert_eq!(store.size(empty.hash()).unwrap(), Some(0));
    store.put(&empty).unwrap();
    let largest = Block::of(vec![1; BLOCK_BYTES_MAX].into());
    store.put(&largest).unwrap();
    assert_eq!(store.get(largest.hash()).unwrap(), Some(largest));
    let too_large = Block::of(vec![1; BLOCK_BYTES_MAX + 1].into());
    let refused = store.put(&too_large);
    assert!(
        matches!(refused, Err(StoreError::TooLarge { .. })),
        "no block is over the limit"
    );
    assert!(!store.has(too_large.hash()).unwrap());
}

/// Every rule of [`Substituter`], on one that can get the output `bytes` of `known` and knows nothing else.
/// `scratch` is an empty directory.
pub fn check_substituter(
    subject: &dyn Substituter,
    known: &SignedRealisation,
    bytes: &[u8],
    scratch: &Path,
) {
    let realisation = known.realisation();
    let query = subject.query(&realisation.pkghash, &NoProgress).unwrap();
    assert!(query.realisations.contains(known), "what is known is found");
    match subject.query(&PkgHash::of_derivation(b"nobody built this"), &NoProgress) {
        Ok(query) => assert!(
            query.realisations.is_empty(),
            "only what was asked for is found"
        ),
        Err(QueryError::TimedOut { .. }) => {}
        Err(error) => panic!("finding nothing is no failure: {error}"),
    }
    let fetch = |realisation: &Realisation, store: &Store, progress: &dyn Progress| {
        subject.fetch(realisation, store, progress)
    };
    let absent = Sha256::of(b"nobody has this");
    let unknown = Realisation {
        output: base::block_cid(base::Codec::Raw, &absent),
        sha256: absent,
        size: 15,
        ..realisation.clone()
    };
    let lie = Realisation {
        sha256: absent,
        ..realisation.clone()
    };
    let wrong_size = Realisation {
        size: realisation.size + 1,
        ..realisation.clone()
    };
    check_fetches(
        scratch,
        &fetch,
        realisation,
        &[&unknown, &lie, &wrong_size],
        bytes,
    );
}

/// Every rule of [`SourceFetcher`], on one that can get `bytes` by `known` and nothing else. `scratch` is an empty directory.
pub fn check_source_fetcher(
    subject: &dyn SourceFetcher,
    known: &SourceRequest<'_>,
    bytes: &[u8],
    scratch: &Path,
) {
    let fetch = |request: &SourceRequest<'_>, store: &Store, progress: &dyn Progress| {
        subject.fetch(request, store, progress)
    };
    let unknown = SourceRequest {
        sha256: Sha256::of(b"nobody has this"),
        ..*known
    };
    check_fetches(scratch, &fetch, known, &[&unknown], bytes);
}

/// Either trait's `fetch`, on one subject.
type Fetch<'a, T> = dyn Fn(&T, &Store, &dyn Progress) -> Result<Fetched, FetchError> + 'a;

fn check_fetches<T>(scratch: &Path, fetch: &Fetch<'_, T>, known: &T, unknown: &[&T], bytes: &[u8]) {
    let store = Store::open(&scratch.join("store")).unwrap();
    for wrong in unknown {
        let error = fetch(wrong, &store, &Watch::default()).unwrap_err();
        let is_told_apart = matches!(
            error,
            FetchError::Missing { .. }
                | FetchError::Invalid { .. }
                | FetchError::Refused { .. }
                | FetchError::TimedOut { .. }
        );
        assert!(is_told_apart, "a miss is no failure: {error}");
        assert!(
            store.blobs().unwrap().is_empty(),
            "nothing is kept of what does not verify"
        );
    }
    let cancelled = Watch {
        is_cancelled: true,
        ..Watch::default()
    };
    let error = fetch(known, &store, &cancelled).unwrap_err();
    assert!(
        matches!(error, FetchError::Cancelled),
        "a cancelled fetch says so: {error}"
    );
    assert!(
        store.blobs().unwrap().is_empty(),
        "a cancelled fetch leaves nothing"
    );
    let watch = Watch::default();
    let fetched = fetch(known, &store, &watch).unwrap();
    let mut read = Vec::new();
    let mut file = store
        .open_blob(&fetched.blob.sha256)
        .unwrap()
        .expect("it is in the store");
    file.read_to_end(&mut read).unwrap();
    assert!(read == bytes, "what was fetched is what is stored");
    let received: u64 = fetched.received.iter().map(|(_, count)| count).sum();
    assert!(received >= bytes.len() as u64, "every byte has an origin");
    assert!(
        watch.bytes.load(Ordering::Relaxed) >= bytes.len() as u64,
        "progress was told"
    );
    let leftovers = std::fs::read_dir(store.root().join("tmp")).unwrap().count();
    assert_eq!(leftovers, 0, "no temporary file stays");
}

/// Counts what it is told.
#[derive(Debug, Default)]
struct Watch {
    bytes: AtomicU64,
    is_cancelled: bool,
}

impl Progress for Watch {
    fn bytes(&self, n: u64, _total: Option<u64>) {
        self.bytes.fetch_add(n, Ordering::Relaxed);
    }

    fn cancelled(&self) -> bool {
        self.is_cancelled
    }
}

/// Gets everything from another store on the same machine.
#[derive(Clone, Debug)]
pub struct StoreSubstituter(pub Store);

impl StoreSubstituter {
    fn copy(
        &self,
        sha256: &Sha256,
        expected: &Expected,
        to: &Store,
        progress: &dyn Progress,
    ) -> Result<Fetched, FetchError> {
        let asked = Asked {
            caches: 1,
            ..Asked::default()
        };
        let origin = Origin::File(self.0.root().display().to_string());
        let Some(mut file) = self.0.open_blob(sha256)? else {
            return Err(FetchError::Missing { asked });
        };
        let mut ingest = to.ingest()?;
        let mut buffer = vec![0; 64 << 10];
        loop {
            if progress.cancelled() {
                return Err(FetchError::Cancelled);
            }
            let length = file.read(&mut buffer).map_err(|e| FetchError::Failed {
                source: Box::new(e),
            })?;
            if length == 0 {
                break;
            }
            ingest.append(&buffer[..length])?;
            progress.bytes(length as u64, Some(file.size()));
        }
        match ingest.finish(expected) {
            Ok(blob) => {
                let received = vec![(origin, blob.size)];
                Ok(Fetched {
                    blob,
                    received,
                    asked,
                })
            }
            Err(StoreError::Mismatch { expected, got, .. }) => Err(FetchError::Invalid {
                expected,
                got,
                from: origin,
            }),
            Err(error) => Err(error.into()),
        }
    }
}

impl Substituter for StoreSubstituter {
    fn query(&self, pkghash: &PkgHash, _: &dyn Progress) -> Result<Query, QueryError> {
        let realisations = self
            .0
            .realisations(pkghash)
            .map_err(|e| QueryError::Failed {
                source: Box::new(e),
            })?;
        Ok(Query {
            realisations,
            asked: Asked {
                caches: 1,
                ..Asked::default()
            },
        })
    }

    fn fetch(
        &self,
        realisation: &Realisation,
        store: &Store,
        progress: &dyn Progress,
    ) -> Result<Fetched, FetchError> {
        self.copy(
            &realisation.sha256,
            &Expected::realisation(realisation),
            store,
            progress,
        )
    }
}

impl SourceFetcher for StoreSubstituter {
    fn fetch(
        &self,
        request: &SourceRequest<'_>,
        store: &Store,
        progress: &dyn Progress,
    ) -> Result<Fetched, FetchError> {
        self.copy(
            &request.sha256,
            &Expected::sha256(request.sha256),
            store,
            progress,
        )
    }
}
