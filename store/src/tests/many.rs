//! Questions about many things at once have the answers of the single ones.

use std::fs;

use base::{PkgHash, Realisation, SecretKey};

use super::*;
use crate::gc::{Goal, Order};

/// More than are told apart by chance, in no order of their digests.
fn blobs(store: &Store) -> Vec<Blob> {
    (0..20u8).map(|n| add(store, &[n; 100])).collect()
}

fn collect_all(store: &Store) {
    let goal = Goal {
        free_bytes: None,
        order: Order::LeastRecentlyUsed,
    };
    let plan = store.plan_collection(&goal, &|_| None).unwrap();
    store.collect(&plan, &|| false).unwrap();
}

fn one_by_one(store: &Store, digests: &[Sha256]) -> Vec<Option<Blob>> {
    let found = digests.iter().map(|sha256| store.blob(sha256));
    found.collect::<Result<_, _>>().unwrap()
}

#[test]
fn each_gets_its_own_answer_also_who_asks_twice_or_for_what_is_missing() {
    let (_dir, store) = store();
    let mut digests: Vec<_> = blobs(&store).iter().map(|blob| blob.sha256).collect();
    digests.insert(3, Sha256::of(b"missing"));
    digests.push(digests[0]);
    let expected = one_by_one(&store, &digests);
    assert_eq!(store.blobs_of(&digests).unwrap(), expected);
    assert_eq!(
        store.holding().unwrap().blobs_of(&digests).unwrap(),
        expected
    );
    let path = |blob: &Option<Blob>| blob.as_ref().map(|blob| path_of(&store, &blob.sha256));
    let paths: Vec<_> = expected.iter().map(path).collect();
    assert_eq!(store.paths_of(&digests).unwrap(), paths);
    assert_eq!(store.blobs_of(&[]).unwrap(), []);
}

#[test]
fn a_file_that_was_touched_is_hashed_and_one_that_is_wrong_is_missing() {
    let (_dir, store) = store();
    let blobs = blobs(&store);
    let digests: Vec<_> = blobs.iter().map(|blob| blob.sha256).collect();
    let rewrite = |at: usize, bytes: &[u8]| {
        let path = path_of(&store, &digests[at]);
        fs::remove_file(&path).unwrap();
        fs::write(&path, bytes).unwrap();
    };
    rewrite(1, &[1; 100]);
    rewrite(2, &[9; 100]);
    rewrite(3, b"short");
    fs::remove_file(path_of(&store, &digests[4])).unwrap();
    let found = store.blobs_of(&digests).unwrap();
    let missing: Vec<_> = (0..20).filter(|at| found[*at].is_none()).collect();
    assert_eq!(missing, [2, 3, 4]);
    assert_eq!(found[1].as_ref(), Some(&blobs[1]));
    assert_eq!(file_count(&store, "damaged"), 2);
    assert_eq!(store.blobs_of(&digests).unwrap(), found);
}

#[test]
fn a_file_that_its_owner_keeps_is_found_where_that_is() {
    let (dir, store) = store();
    let path = dir.path().canonicalize().unwrap().join("file");
    fs::write(&path, "bytes").unwrap();
    let blob = store.add_reference(&path).unwrap();
    let digests = [blob.sha256];
    assert_eq!(store.blobs_of(&digests).unwrap(), [Some(blob.clone())]);
    assert_eq!(store.paths_of(&digests).unwrap(), [Some(path.clone())]);
    fs::write(&path, "other").unwrap();
    assert_eq!(store.blobs_of(&digests).unwrap(), [None]);
    assert_eq!(fs::read_to_string(path).unwrap(), "other");
}

#[test]
fn whoever_holds_things_holds_what_it_asked_for() {
    let (_dir, store) = store();
    let digests: Vec<_> = blobs(&store).iter().map(|blob| blob.sha256).collect();
    let holding = store.holding().unwrap();
    holding.blobs_of(&digests[..10]).unwrap();
    collect_all(&store);
    let left = store.blobs_of(&digests).unwrap();
    assert!(left[..10].iter().all(Option::is_some));
    assert!(left[10..].iter().all(Option::is_none));
    drop(holding);
    collect_all(&store);
    assert!(store.blobs().unwrap().is_empty());
}

#[test]
fn realisations_come_in_the_order_of_the_packages() {
    let (_dir, store) = store();
    let blob = add(&store, b"output");
    let packages: Vec<_> = (0..20u8).map(|n| PkgHash::of_derivation(&[n])).collect();
    for (number, pkghash) in packages.iter().enumerate() {
        for signer in 0..number % 3 {
            let realisation = Realisation {
                pkghash: *pkghash,
                output: blob.root,
                sha256: blob.sha256,
                size: blob.size,
            };
            let key = SecretKey::from_seed(&[u8::try_from(signer).unwrap(); 32]);
            store.put_realisation(&realisation.sign(&key)).unwrap();
        }
    }
    let single = packages.iter().map(|pkghash| store.realisations(pkghash));
    let single: Vec<_> = single.collect::<Result<_, _>>().unwrap();
    assert_eq!(store.realisations_of(&packages).unwrap(), single);
}
