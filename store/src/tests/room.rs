//! Quota and free space.

use std::collections::HashSet;
use std::io;

use base::Multihash;

use super::*;
use crate::{Limits, ProvideKind, StoreError};

fn limited(store: &Store, quota: u64) -> Store {
    store.clone().with_limits(Limits {
        quota_bytes: Some(quota),
        keep_free_bytes: 0,
    })
}

fn present(store: &Store) -> HashSet<Sha256> {
    let blobs = store.blobs().unwrap();
    blobs.iter().map(|blob| blob.sha256).collect()
}

fn try_add(store: &Store, bytes: &[u8]) -> Result<Blob, StoreError> {
    let mut ingest = store.ingest()?;
    ingest.append(bytes)?;
    ingest.finish(&Expected::anything())
}

#[test]
fn within_a_quota_the_commonest_makes_room_for_what_is_new() {
    let (_dir, store) = store();
    let blobs: Vec<_> = (0..4).map(|n| add(&store, &noise(n, 1000))).collect();
    let counts: Vec<_> = blobs
        .iter()
        .zip([Some(3), None, Some(8), Some(5)])
        .collect();
    let counts: std::collections::HashMap<_, _> =
        counts.iter().map(|(b, n)| (b.sha256, *n)).collect();
    let store = limited(&store, 4000).with_rarity(move |sha256| counts.get(sha256).copied()?);
    let new = add(&store, &noise(9, 1500));
    let left = [blobs[0].sha256, blobs[1].sha256, new.sha256];
    assert_eq!(present(&store), left.into());
    assert_eq!(file_count(&store, "blobs"), 3);
}

#[test]
fn what_was_heard_of_others_decides_what_makes_room() {
    let (_dir, store) = store();
    let blobs: Vec<_> = (0..4).map(|n| add(&store, &noise(n, 1000))).collect();
    let key = |blob: &Blob| Multihash::sha2_256(&blob.sha256);
    let keys: Vec<_> = blobs
        .iter()
        .map(|blob| (key(blob), ProvideKind::Source))
        .collect();
    store.provide_all(&keys).unwrap();
    let counts = [
        (key(&blobs[0]), 3),
        (key(&blobs[2]), 8),
        (key(&blobs[3]), 5),
    ];
    store.set_other_providers(&counts).unwrap();
    let store = limited(&store, 4000);
    let new = add(&store, &noise(9, 1500));
    let left = [blobs[0].sha256, blobs[1].sha256, new.sha256];
    assert_eq!(present(&store), left.into());
}

#[test]
fn a_file_for_which_there_is_no_room_is_refused_and_the_cache_is_not_emptied_in_vain() {
    let (_dir, store) = store();
    let store = limited(&store, 3000);
    let kept = add(&store, &noise(1, 1000));
    pin(&store, &kept);
    add(&store, &noise(2, 1000));
    let mut ingest = store.ingest().unwrap();
    ingest.reserve(2000).unwrap();
    drop(ingest);
    let cached = add(&store, &noise(3, 1000));
    let mut ingest = store.ingest().unwrap();
    let error = ingest.reserve(2001).unwrap_err();
    assert_eq!(
        error.to_string(),
        "store is over its quota of 3000 bytes: 2001 needed, 1000 are pinned or in use"
    );
    let error = try_add(&store, &noise(4, 2001)).unwrap_err();
    assert!(matches!(error, StoreError::QuotaExceeded { .. }), "{error}");
    assert!(present(&store).contains(&cached.sha256));
    let error = try_add(&store, &noise(5, 3001)).unwrap_err();
    assert!(matches!(error, StoreError::QuotaExceeded { .. }), "{error}");
}

#[test]
fn what_is_here_already_needs_no_room() {
    let (_dir, store) = store();
    let store = limited(&store, 1000);
    let blob = add(&store, &noise(1, 1000));
    pin(&store, &blob);
    assert_eq!(add(&store, &noise(1, 1000)), blob);
}

#[test]
fn a_file_that_is_here_already_is_added_again_to_a_full_store() {
    let (_dir, store) = store();
    let store = limited(&store, 3000);
    let kept = add(&store, &noise(1, 2000));
    pin(&store, &kept);
    let cached = add(&store, &noise(2, 1000));
    let path = store.root().join("file");
    let add_file = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        store.add_file(&path, &mut std::fs::File::open(&path).unwrap())
    };
    assert_eq!(add_file(&noise(1, 2000)).unwrap(), kept);
    assert!(
        present(&store).contains(&cached.sha256),
        "nothing goes for it"
    );
    let refused = add_file(&noise(3, 2000)).unwrap_err();
    assert!(
        matches!(refused, StoreError::QuotaExceeded { .. }),
        "{refused}"
    );
    let new = add_file(&noise(4, 1000)).unwrap();
    assert_eq!(present(&store), [kept.sha256, new.sha256].into());
}

#[test]
fn a_file_of_unknown_length_is_stopped_while_it_grows() {
    let (_dir, store) = store();
    let limits = Limits {
        quota_bytes: Some(20 << 20),
        keep_free_bytes: 0,
    };
    let full = Limits {
        quota_bytes: None,
        keep_free_bytes: u64::MAX / 2,
    };
    for limits in [limits, full] {
        let store = store.clone().with_limits(limits);
        let mut ingest = store.ingest().unwrap();
        let piece = vec![7; 1 << 20];
        let written = (0..64)
            .take_while(|_| ingest.append(&piece).is_ok())
            .count();
        assert!(written < 40, "{written} MiB");
        assert!(ingest.finish(&Expected::anything()).is_err());
        assert!(present(&store).is_empty());
    }
}

#[test]
fn the_disk_is_not_filled_and_the_cache_not_emptied_where_that_cannot_help() {
    let (_dir, store) = store();
    let cached = add(&store, b"cached");
    let store = store.with_limits(Limits {
        quota_bytes: None,
        keep_free_bytes: u64::MAX / 2,
    });
    let error = store.ingest().unwrap().reserve(1).unwrap_err();
    assert!(matches!(error, StoreError::DiskFull { .. }), "{error}");
    assert_eq!(present(&store), [cached.sha256].into());
    let mut ingest = store.ingest().unwrap();
    let error = io::Write::write_all(&mut ingest, &vec![0; 17 << 20]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
}

#[test]
fn several_who_fill_a_store_at_once_stay_within_its_quota() {
    const QUOTA: u64 = 20_000;
    let (_dir, store) = store();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            // A handle of its own, as another process has.
            let store = limited(&Store::open(store.root()).unwrap(), QUOTA);
            scope.spawn(move || {
                for number in 0..30 {
                    // Losing the race for room again and again is an answer, too.
                    let added = try_add(&store, &noise(thread * 100 + number, 3000));
                    let is_refusal = |error| {
                        matches!(
                            error,
                            StoreError::QuotaExceeded { .. } | StoreError::Busy { .. }
                        )
                    };
                    assert!(added.is_ok() || added.is_err_and(is_refusal));
                    let sizes = store.blobs().unwrap();
                    assert!(sizes.iter().map(|blob| blob.size).sum::<u64>() <= QUOTA);
                }
            });
        }
    });
    assert!(store.blobs().unwrap().len() >= 5);
}
