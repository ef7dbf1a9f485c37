//! The conformance suites on this crate's own implementations, and the combinators.

use std::sync::Mutex;

use base::{PkgHash, Realisation, SecretKey, SignedRealisation};

use super::*;
use crate::substitute::{
    Asked, FetchError, Fetched, First, NoProgress, Origin, Progress, Query, QueryError,
    SourceFetcher, SourceRequest, Substituter,
};
use crate::testing::{
    StoreSubstituter, check_block_store, check_source_fetcher, check_substituter,
};
use crate::{MemoryBlockStore, StoreError};

#[test]
fn both_block_stores_follow_the_rules() {
    check_block_store(&MemoryBlockStore::new());
    let (_dir, store) = store();
    check_block_store(&store);
}

/// A store that has one package.
fn stocked() -> (TempDir, Store, SignedRealisation, Vec<u8>) {
    let (dir, store) = store();
    let bytes = noise(1, 300_000);
    let blob = add(&store, &bytes);
    let pkghash = PkgHash::of_derivation(b"package");
    let Blob { sha256, root, size } = blob;
    let signed = Realisation {
        pkghash,
        output: root,
        sha256,
        size,
    }
    .sign(&SecretKey::from_seed(&[1; 32]));
    store.put_realisation(&signed).unwrap();
    (dir, store, signed, bytes)
}

#[test]
fn getting_from_another_store_follows_the_rules_alone_and_behind_others() {
    let (_dir, stocked, signed, bytes) = stocked();
    let (_empty_dir, empty) = store();
    let alone = StoreSubstituter(stocked);
    let second = First::new(vec![StoreSubstituter(empty), alone.clone()]);
    let request = SourceRequest {
        sha256: signed.realisation().sha256,
        file_name: "source.tar.gz",
        urls: &[],
    };
    for subject in [&alone as &dyn Substituter, &second] {
        check_substituter(
            subject,
            &signed,
            &bytes,
            tempfile::tempdir().unwrap().path(),
        );
    }
    for subject in [&alone as &dyn SourceFetcher, &second] {
        check_source_fetcher(
            subject,
            &request,
            &bytes,
            tempfile::tempdir().unwrap().path(),
        );
    }
}

/// Answers each call with the next prepared answer.
struct Scripted(Mutex<Vec<FetchError>>);

impl SourceFetcher for Scripted {
    fn fetch(
        &self,
        _request: &SourceRequest<'_>,
        _store: &Store,
        _progress: &dyn Progress,
    ) -> Result<Fetched, FetchError> {
        Err(self.0.lock().unwrap().remove(0))
    }
}

fn asked(caches: u32, dht_nodes: u32, providers: u32) -> Asked {
    Asked {
        caches,
        dht_nodes,
        providers,
        ..Asked::default()
    }
}

fn missing(asked: Asked) -> FetchError {
    FetchError::Missing { asked }
}

fn first_of(answers: Vec<FetchError>) -> FetchError {
    let items = answers
        .into_iter()
        .map(|answer| Scripted(Mutex::new(vec![answer])))
        .collect();
    let (_dir, store) = store();
    let request = SourceRequest {
        sha256: Sha256::of(b"x"),
        file_name: "x",
        urls: &[],
    };
    First::new(items)
        .fetch(&request, &store, &NoProgress)
        .unwrap_err()
}

#[test]
fn a_miss_adds_up_who_was_asked() {
    let error = first_of(vec![missing(asked(2, 0, 0)), missing(asked(0, 14, 3))]);
    assert_eq!(
        error.to_string(),
        "not found: asked 2 caches, 14 DHT nodes, 3 providers"
    );
    assert_eq!(first_of(vec![]).to_string(), "not found: asked nobody");
}

#[test]
fn a_miss_does_not_hide_that_somebody_sent_something_wrong() {
    let invalid = FetchError::Invalid {
        expected: "a".into(),
        got: "b".into(),
        from: Origin::Peer("liar".into()),
    };
    let error = first_of(vec![invalid, missing(asked(1, 0, 0))]);
    assert!(matches!(error, FetchError::Invalid { .. }), "{error}");
    let timed_out = FetchError::TimedOut {
        asked: asked(0, 1, 1),
    };
    let error = first_of(vec![missing(asked(1, 0, 0)), timed_out]);
    assert_eq!(
        error.to_string(),
        "timed out: asked 1 cache, 1 DHT node, 1 provider"
    );
}

#[test]
fn a_full_disk_and_a_cancellation_end_the_search() {
    let full = StoreError::DiskFull {
        path: "x".into(),
        needed: None,
        available: None,
    };
    let error = first_of(vec![FetchError::Store(full), missing(asked(1, 0, 0))]);
    assert!(
        matches!(error, FetchError::Store(StoreError::DiskFull { .. })),
        "{error}"
    );
    let error = first_of(vec![FetchError::Cancelled, missing(asked(1, 0, 0))]);
    assert!(matches!(error, FetchError::Cancelled), "{error}");
}

#[test]
fn who_was_asked_is_told_in_one_line() {
    assert_eq!(Asked::default().to_string(), "asked nobody");
    let alone = Asked {
        first_peers_unreachable: 2,
        ..Asked::default()
    };
    assert_eq!(
        alone.merged(alone).to_string(),
        "asked nobody (2 first peers unreachable)"
    );
    assert_eq!(
        alone.merged(asked(0, 3, 0)).to_string(),
        "asked 3 DHT nodes"
    );
    let all = Asked {
        unreachable: 2,
        refused: 1,
        timed_out: 4,
        invalid: 1,
        ..asked(2, 14, 3)
    };
    assert_eq!(
        all.to_string(),
        "asked 2 caches, 14 DHT nodes, 3 providers (2 unreachable, 1 refused, 4 timed out, 1 invalid)"
    );
    let behind_nat = Asked {
        relayed: 1,
        ..asked(0, 0, 1)
    };
    assert_eq!(
        behind_nat.to_string(),
        "asked 1 provider (1 reachable only through a relay, which carries no files)"
    );
    let few = Asked {
        unreachable: 1,
        ..asked(1, 0, 1)
    };
    assert_eq!(few.to_string(), "asked 1 cache, 1 provider (1 unreachable)");
}

/// Knows some realisations, and counts how often it was asked.
struct Knows(Result<Vec<SignedRealisation>, ()>, Mutex<usize>);

impl Substituter for Knows {
    fn query(&self, _pkghash: &PkgHash, _: &dyn Progress) -> Result<Query, QueryError> {
        *self.1.lock().unwrap() += 1;
        match &self.0 {
            Ok(realisations) => Ok(Query {
                realisations: realisations.clone(),
                asked: asked(1, 0, 0),
            }),
            Err(()) => Err(QueryError::TimedOut {
                asked: asked(0, 5, 0),
            }),
        }
    }

    fn fetch(
        &self,
        _realisation: &Realisation,
        _store: &Store,
        _progress: &dyn Progress,
    ) -> Result<Fetched, FetchError> {
        Err(missing(Asked::default()))
    }
}

fn knows(answer: Result<&[SignedRealisation], ()>) -> Knows {
    Knows(answer.map(<[_]>::to_vec), Mutex::new(0))
}

#[test]
fn a_lookup_goes_on_until_it_is_enough() {
    let (_dir, _store, signed, _) = stocked();
    let stranger = signed
        .realisation()
        .clone()
        .sign(&SecretKey::from_seed(&[9; 32]));
    let pkghash = signed.realisation().pkghash;
    let known = [stranger.clone()];
    let both = [stranger.clone(), signed.clone()];
    let items = [knows(Ok(&[])), knows(Ok(&known)), knows(Ok(&both))];
    let count = |items: &[Knows; 3]| items.each_ref().map(|item| *item.1.lock().unwrap());
    let first = First::new(items.iter().collect::<Vec<_>>());
    let query = first.query(&pkghash, &NoProgress).unwrap();
    assert_eq!(
        (query.realisations, query.asked),
        (vec![stranger.clone()], asked(2, 0, 0))
    );
    assert_eq!(count(&items), [1, 1, 0]);
    let trusted = *signed.signer();
    let first = first.until(move |_, found| found.iter().any(|one| *one.signer() == trusted));
    let query = first.query(&pkghash, &NoProgress).unwrap();
    assert_eq!(query.realisations, [stranger, signed]);
    assert_eq!(count(&items), [2, 2, 1]);
}

#[test]
fn a_lookup_that_partly_timed_out_still_answers() {
    let (_dir, _store, signed, _) = stocked();
    let pkghash = signed.realisation().pkghash;
    let known = [signed];
    let found = First::new(vec![knows(Err(())), knows(Ok(&known))])
        .query(&pkghash, &NoProgress)
        .unwrap();
    assert_eq!((found.realisations.len(), found.asked), (1, asked(1, 5, 0)));
    let error = First::new(vec![knows(Err(())), knows(Ok(&[]))])
        .query(&pkghash, &NoProgress)
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "lookup timed out: asked 1 cache, 5 DHT nodes"
    );
}
