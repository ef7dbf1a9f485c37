//! Collecting what nobody needs.

use base::{Multihash, PkgHash, Realisation, SecretKey};

use super::*;
use crate::blob::BlobRow;
use crate::digest::{CHUNK_BYTES, Digested, FileDigest, ONE_NODE_BYTES};
use crate::forget::forget_blob;
use crate::gc::{Collected, Goal, Order, Stays};
use crate::layout::Stamp;
use crate::{BlobState, Block, BlockStore as _, Pin, PinKind, ProvideKind, ProvideScope};

const ALL: Goal = Goal {
    free_bytes: None,
    order: Order::LeastRecentlyUsed,
};

fn collect(store: &Store, goal: &Goal) -> Collected {
    let plan = store.plan_collection(goal, &|_| None).unwrap();
    store.collect(&plan, &|| false).unwrap()
}

fn count(store: &Store, table: &str) -> i64 {
    let sql = format!("SELECT count(*) FROM {table}");
    store
        .index
        .read(|c| c.query_row(&sql, [], |row| row.get(0)))
        .unwrap()
}

fn set_used(store: &Store, blob: &Blob, hour: i64) {
    store
        .index
        .write(|t| {
            let row = (blob.sha256.as_bytes(), hour);
            Ok(t.execute("UPDATE blob SET used = ?2 WHERE sha256 = ?1", row)?)
        })
        .unwrap();
}

#[test]
fn what_is_pinned_stays_and_nothing_is_left_of_the_rest_but_what_others_said_of_it() {
    let (_dir, store) = store();
    let (kept, gone) = (
        add(&store, &noise(1, 3 << 20)),
        add(&store, &noise(2, 3 << 20)),
    );
    pin(&store, &kept);
    for (blob, text) in [(&kept, "kept"), (&gone, "gone")] {
        let pkghash = store.put_derivation(text.as_bytes()).unwrap();
        let Blob { sha256, root, size } = blob.clone();
        let realisation = Realisation {
            pkghash,
            output: root,
            sha256,
            size,
        };
        let signed = realisation.sign(&SecretKey::from_seed(&[1; 32]));
        store.put_realisation(&signed).unwrap();
        let kind = PinKind::Output {
            pkghash,
            package: "package".parse().unwrap(),
        };
        store
            .note(&Pin {
                sha256,
                kind,
                added_unix_secs: 1,
            })
            .unwrap();
        let root = Multihash::of(&root).unwrap();
        store
            .provide_all(&[
                (pkghash.dht_key(), ProvideKind::Package),
                (root, ProvideKind::Root),
                (Multihash::sha2_256(&sha256), ProvideKind::Source),
            ])
            .unwrap();
    }
    let collected = collect(&store, &ALL);
    assert_eq!(collected.freed_bytes(), 3 << 20);
    assert_eq!(store.blobs().unwrap(), std::slice::from_ref(&kept));
    assert_eq!(store.verify_blob(&kept.sha256).unwrap(), BlobState::Intact);
    assert_eq!(
        (file_count(&store, "blobs"), file_count(&store, "tmp")),
        (1, 0)
    );
    let tables = [
        "leaf",
        "provide",
        "derivation",
        "note",
        "block",
        "realisation",
    ];
    let counts = tables.map(|table| count(&store, table));
    assert_eq!(counts, [3, 3, 1, 1, 2, 2], "{tables:?}");
    let known = PkgHash::of_derivation(b"gone");
    assert_eq!(store.realisations(&known).unwrap().len(), 1);
    assert_eq!(add(&store, &noise(2, 3 << 20)), gone, "it can come again");
}

#[test]
fn a_package_with_another_output_here_is_still_announced() {
    let (_dir, store) = store();
    let pkghash = store.put_derivation(b"package").unwrap();
    let outputs = [add(&store, b"one output"), add(&store, b"another")];
    for Blob { sha256, root, size } in outputs.clone() {
        let realisation = Realisation {
            pkghash,
            output: root,
            sha256,
            size,
        };
        let signed = realisation.sign(&SecretKey::from_seed(&[1; 32]));
        store.put_realisation(&signed).unwrap();
    }
    store
        .provide(&pkghash.dht_key(), ProvideKind::Package)
        .unwrap();
    pin(&store, &outputs[0]);
    collect(&store, &ALL);
    assert_eq!(store.realised().unwrap(), [pkghash]);
    assert_eq!(
        store.provide_counts(ProvideScope::All, 0).unwrap().packages,
        1
    );
    assert!(store.derivation(&pkghash).unwrap().is_some());
}

#[test]
fn what_was_used_last_longest_ago_goes_first_and_no_more_than_is_asked_for() {
    let (_dir, store) = store();
    let blobs: Vec<_> = (0..4).map(|n| add(&store, &noise(n, 1000))).collect();
    for (blob, hour) in blobs.iter().zip([4, 2, 1, 3]) {
        set_used(&store, blob, hour);
    }
    assert!(store.open_blob(&blobs[2].sha256).unwrap().is_some());
    let goal = Goal {
        free_bytes: Some(1500),
        ..ALL
    };
    let collected = collect(&store, &goal);
    let removed: Vec<_> = collected.removed.iter().map(|e| e.sha256).collect();
    assert_eq!(removed, [blobs[1].sha256, blobs[3].sha256]);
}

#[test]
fn what_is_rarest_stays_longest_if_that_is_the_order() {
    let (_dir, store) = store();
    let (rare, common) = (add(&store, b"rare"), add(&store, b"same"));
    set_used(&store, &rare, 1);
    let goal = Goal {
        free_bytes: Some(1),
        order: Order::Commonest,
    };
    let count = |sha256: &Sha256| Some(if *sha256 == rare.sha256 { 1 } else { 9 });
    let plan = store.plan_collection(&goal, &count).unwrap();
    assert_eq!(plan.remove.len(), 1);
    assert_eq!(plan.remove[0].sha256, common.sha256);
    assert_eq!(plan.staying(Stays::Spared), (1, 4));
}

#[test]
fn a_use_is_noted_once_an_hour_and_written_later() {
    let (_dir, store) = store();
    let blob = add(&store, b"used");
    let hour = |store: &Store| -> i64 {
        store
            .index
            .read(|c| c.query_row("SELECT used FROM blob", [], |row| row.get(0)))
            .unwrap()
    };
    let now = hour(&store);
    assert!(now > 400_000, "the hours since 1970");
    set_used(&store, &blob, 5);
    store.open_blob(&blob.sha256).unwrap();
    assert_eq!(hour(&store), 5);
    let root = store.root().to_owned();
    drop(store);
    assert!(hour(&Store::open(&root).unwrap()) >= now);
}

#[test]
fn what_a_living_handle_found_or_took_in_stays_until_it_is_dropped() {
    let (_dir, store) = store();
    let found = add(&store, b"found");
    let nobodys = add(&store, b"nobody's");
    let holding = store.holding().unwrap();
    let clone = holding.clone();
    assert!(holding.blob(&found.sha256).unwrap().is_some());
    let taken_in = add(&clone, b"taken in");
    drop(holding);
    let plan = store.plan_collection(&ALL, &|_| None).unwrap();
    assert_eq!(plan.staying(Stays::InUse), (2, 13));
    assert_eq!(collect(&store, &ALL).removed.len(), 1);
    assert_eq!(store.blob(&nobodys.sha256).unwrap(), None);
    drop(clone);
    let removed: std::collections::HashSet<_> = collect(&store, &ALL)
        .removed
        .iter()
        .map(|entry| entry.sha256)
        .collect();
    assert_eq!(removed, [found.sha256, taken_in.sha256].into());
    assert_eq!(file_count(&store, "holds"), 0);
}

#[test]
fn what_came_into_use_since_the_plan_stays() {
    let (_dir, store) = store();
    let blobs: Vec<_> = (0..5).map(|n| add(&store, &noise(n, 100))).collect();
    for blob in &blobs {
        set_used(&store, blob, 1);
    }
    let plan = store.plan_collection(&ALL, &|_| None).unwrap();
    assert_eq!(plan.remove.len(), 5);
    pin(&store, &blobs[0]);
    let holding = store.holding().unwrap();
    holding.blob(&blobs[1].sha256).unwrap();
    set_used(&store, &blobs[2], 2);
    let open = store.open_blob(&blobs[3].sha256).unwrap();
    let collected = store.collect(&plan, &|| false).unwrap();
    assert_eq!((collected.removed.len(), collected.spared), (1, 4));
    assert_eq!(collected.removed[0].sha256, blobs[4].sha256);
    drop(open);
}

#[test]
fn a_chunk_that_another_blob_has_too_is_still_served() {
    let (_dir, store) = store();
    let shared = noise(7, 1 << 20);
    let kept = add(&store, &[&shared[..], b"kept"].concat());
    add(&store, &[&shared[..], b"gone"].concat());
    pin(&store, &kept);
    collect(&store, &ALL);
    let hash = Multihash::sha2_256(&Sha256::of(&shared));
    assert!(store.get(&hash).unwrap().is_some());
    assert!(store.has(&Multihash::of(&kept.root).unwrap()).unwrap());
}

#[test]
fn nodes_go_with_the_last_long_file_that_is_made_of_them() {
    let (_dir, store) = store();
    let stamp = Stamp {
        size: 0,
        mtime_ns: 0,
        inode: 0,
    };
    let chunk = Block::of(vec![0; CHUNK_BYTES].into());
    // The root of the shorter file is the first node of the longer one. The files themselves are not needed.
    let [short, long] = [&b""[..], b"more"].map(|end| {
        let mut digest = FileDigest::new();
        while digest.size() < ONE_NODE_BYTES {
            digest.update_leaf(&chunk);
        }
        digest.update(end);
        digest.finish()
    });
    let insert = |file: &Digested| {
        store
            .index
            .write(|t| Ok(file.insert(t, &stamp, None)?))
            .unwrap();
    };
    let forget = |file: &Digested| {
        store
            .index
            .write(|t| {
                let row = BlobRow::find(t, &file.blob.sha256)?.unwrap();
                Ok(forget_blob(t, &row)?)
            })
            .unwrap();
    };
    insert(&short);
    insert(&long);
    assert_eq!(count(&store, "block"), 3, "two roots and a node below one");
    forget(&short);
    assert_eq!(count(&store, "block"), 3, "the longer file is made of it");
    insert(&short);
    forget(&long);
    assert_eq!(count(&store, "block"), 1, "it is the shorter file's root");
    forget(&short);
    assert_eq!((count(&store, "block"), count(&store, "leaf")), (0, 0));
}
