//! Looking for damage and repairing it.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;

use base::Multihash;

use super::*;
use crate::{BlobState, BlockStore as _, DamagedBlock};

fn damage_block(store: &Store, hash: &Sha256) {
    store
        .index
        .write(|t| {
            let sql = "UPDATE block SET bytes = x'00' WHERE hash = ?1";
            Ok(t.execute(sql, [hash.as_bytes()])?)
        })
        .unwrap();
}

#[test]
fn damage_is_found_and_nothing_is_changed_by_looking() {
    let (_dir, store) = store();
    let [good, bad, gone] = ["good", "baad", "gone"].map(|text| add(&store, text.as_bytes()));
    let path = path_of(&store, &bad.sha256);
    fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
    fs::write(&path, "worse").unwrap();
    fs::remove_file(path_of(&store, &gone.sha256)).unwrap();
    for _ in 0..2 {
        let states =
            [&good, &bad, &gone].map(|blob| store.examine_blob(&blob.sha256).unwrap().unwrap());
        let expected = [BlobState::Intact, BlobState::Damaged, BlobState::Missing];
        assert_eq!(states, expected);
    }
    assert_eq!(store.damaged_blocks(&|| false).unwrap(), []);
}

#[test]
fn a_damaged_root_is_made_anew_from_the_file() {
    let (_dir, store) = store();
    let blob = add(&store, &noise(1, 3 << 20));
    let root = Multihash::of(&blob.root).unwrap();
    let expected = DamagedBlock {
        sha256: root.digest(),
        root_of: Some(blob.sha256),
        derivation: None,
    };
    damage_block(&store, &root.digest());
    assert_eq!(
        store.damaged_blocks(&|| false).unwrap(),
        std::slice::from_ref(&expected)
    );
    // Whoever asks for it drops it, and then it is missing.
    assert_eq!(store.get(&root).unwrap(), None);
    let damaged = store.damaged_blocks(&|| false).unwrap();
    assert_eq!(damaged, [expected]);
    store.repair_block(&damaged[0]).unwrap();
    assert_eq!(store.damaged_blocks(&|| false).unwrap(), []);
    assert!(store.get(&root).unwrap().is_some());
}

#[test]
fn a_damaged_derivation_is_named_and_forgotten() {
    let (_dir, store) = store();
    let pkghash = store.put_derivation(b"text").unwrap();
    damage_block(&store, &Sha256::of(b"text"));
    let damaged = store.damaged_blocks(&|| false).unwrap();
    assert_eq!(damaged[0].derivation, Some(pkghash));
    store.repair_block(&damaged[0]).unwrap();
    assert_eq!(store.derivation(&pkghash).unwrap(), None);
    store.put_derivation(b"text").unwrap();
    assert!(store.derivation(&pkghash).unwrap().is_some());
}
