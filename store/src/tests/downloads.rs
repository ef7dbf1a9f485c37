//! Downloads that end early, and what is left of them.

use std::fs;

use super::*;
use crate::gc::{Goal, Order};
use crate::{Partial, StoreError};

/// A download of `bytes` that has come so far.
fn begun(store: &Store, bytes: &[u8], until: usize) -> Partial {
    let mut download = store.download(&Sha256::of(bytes)).unwrap();
    let at = usize::try_from(download.written()).unwrap();
    download.append(&bytes[at..until]).unwrap();
    download
}

fn finish(store: &Store, bytes: &[u8]) -> Result<Blob, StoreError> {
    begun(store, bytes, bytes.len()).finish(&Expected::sha256(Sha256::of(bytes)))
}

#[test]
fn a_download_goes_on_where_it_ended_and_becomes_the_blob() {
    let bytes = noise(1, (3 << 20) + 7);
    let (_dir, store) = store();
    drop(begun(&store, &bytes, 2_000_001));
    assert_eq!(file_count(&store, "partial"), 2);
    let sha256 = Sha256::of(&bytes);
    assert_eq!(store.blob(&sha256).unwrap(), None);
    // Another process goes on.
    let store = Store::open(store.root()).unwrap();
    let mut download = store.download(&sha256).unwrap();
    assert_eq!(download.written(), 2_000_001);
    assert!(!download.is_whole(&sha256));
    drop(download);
    let blob = finish(&store, &bytes).unwrap();
    assert_eq!(blob, add(&self::store().1, &bytes));
    assert_eq!(fs::read(path_of(&store, &sha256)).unwrap(), bytes);
    for dir in ["partial", "tmp"] {
        assert_eq!(file_count(&store, dir), 0, "{dir}");
    }
}

#[test]
fn who_was_killed_just_before_the_end_has_the_whole_file() {
    let bytes = noise(1, 1000);
    let (_dir, store) = store();
    drop(begun(&store, &bytes, 1000));
    let sha256 = Sha256::of(&bytes);
    let mut download = store.download(&sha256).unwrap();
    assert!(download.is_whole(&sha256));
    download.finish(&Expected::sha256(sha256)).unwrap();
}

#[test]
fn where_nothing_came_nothing_is_left() {
    let (_dir, store) = store();
    drop(store.download(&Sha256::of(b"x")).unwrap());
    let mut download = begun(&store, b"bytes", 5);
    download.restart().unwrap();
    assert_eq!(download.written(), 0);
    drop(download);
    assert_eq!(file_count(&store, "partial"), 0);
}

#[test]
fn garbage_becomes_no_blob_and_leaves_nothing_to_go_on_with() {
    let bytes = noise(1, 3 << 20);
    let (_dir, store) = store();
    drop(begun(&store, &bytes, 1 << 20));
    let name = format!("partial/sha256-{}", Sha256::of(&bytes).to_hex());
    fs::write(store.root().join(name), noise(2, 1 << 20)).unwrap();
    let error = finish(&store, &bytes).unwrap_err();
    assert!(matches!(error, StoreError::Mismatch { .. }), "{error}");
    assert_eq!(file_count(&store, "partial"), 0);
    finish(&store, &bytes).unwrap();
}

#[test]
fn two_who_download_the_same_file_do_not_disturb_each_other() {
    let bytes = noise(1, 2 << 20);
    let (_dir, store) = store();
    let first = begun(&store, &bytes, 1 << 20);
    let second = store.download(&Sha256::of(&bytes)).unwrap();
    assert_eq!(second.written(), 0);
    drop(second);
    finish(&store, &bytes).unwrap();
    drop(first);
    // It was complete before that one looked, and what is left of it goes as any other.
    let download = store.download(&Sha256::of(&bytes)).unwrap();
    assert_eq!(download.written(), 1 << 20);
}

#[test]
fn an_unfinished_download_is_collected_like_an_unfinished_fetch() {
    let bytes = noise(1, 2 << 20);
    let (_dir, store) = store();
    drop(begun(&store, &bytes, 1 << 20));
    let goal = Goal {
        free_bytes: Some(1),
        order: Order::Commonest,
    };
    let plan = store.plan_collection(&goal, &|_| None).unwrap();
    let root = format!("sha256-{}", Sha256::of(&bytes).to_hex());
    assert_eq!(plan.unfinished[0].root, root);
    store.collect(&plan, &|| false).unwrap();
    assert_eq!(file_count(&store, "partial"), 0);
}
