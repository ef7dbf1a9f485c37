//! Blobs that were damaged, touched, moved or lost.

use std::fs::{self, File, FileTimes, OpenOptions, Permissions};
use std::io::Read as _;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};

use base::Multihash;
use bytes::Bytes;

use super::*;
use crate::{BlobState, Block, BlockStore as _, StoreError};

const CHUNK: usize = 1 << 20;

/// Changes one byte of a blob's file, leaving length, inode and (if asked) modification time as they were.
fn flip_byte(store: &Store, blob: &Blob, offset: u64, is_stealthy: bool) {
    let path = path_of(store, &blob.sha256);
    let modified = fs::metadata(&path).unwrap().modified().unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(&path)
        .unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[byte[0] ^ 1], offset).unwrap();
    if is_stealthy {
        file.set_times(FileTimes::new().set_modified(modified))
            .unwrap();
    }
}

fn chunk_hash(bytes: &[u8]) -> Multihash {
    Multihash::sha2_256(&Sha256::of(bytes))
}

#[test]
fn a_damaged_blob_is_found_by_hashing_and_can_be_fetched_again() {
    let (_dir, store) = store();
    let bytes = noise(1, 2 * CHUNK);
    let blob = add(&store, &bytes);
    assert_eq!(store.verify_blob(&blob.sha256).unwrap(), BlobState::Intact);
    flip_byte(&store, &blob, 5, true);
    assert_eq!(store.verify_blob(&blob.sha256).unwrap(), BlobState::Damaged);
    assert_eq!(store.verify_blob(&blob.sha256).unwrap(), BlobState::Missing);
    assert_eq!(store.blob(&blob.sha256).unwrap(), None);
    assert_eq!(store.blob_by_root(&blob.root).unwrap(), None);
    assert!(!store.has(&Multihash::of(&blob.root).unwrap()).unwrap());
    assert!(!store.has(&chunk_hash(&bytes[..CHUNK])).unwrap());
    assert_eq!(
        (file_count(&store, "blobs"), file_count(&store, "damaged")),
        (0, 1)
    );
    assert_eq!(add(&store, &bytes), blob);
    assert_eq!(store.verify_blob(&blob.sha256).unwrap(), BlobState::Intact);
}

#[test]
fn wrong_bytes_are_never_a_block_even_if_the_file_looks_untouched() {
    let (_dir, store) = store();
    let bytes = noise(2, 2 * CHUNK);
    let blob = add(&store, &bytes);
    flip_byte(&store, &blob, CHUNK as u64 + 9, true);
    let (intact, damaged) = (chunk_hash(&bytes[..CHUNK]), chunk_hash(&bytes[CHUNK..]));
    assert_eq!(
        store.get(&intact).unwrap().unwrap().bytes()[..],
        bytes[..CHUNK]
    );
    assert_eq!(store.get(&damaged).unwrap(), None);
    assert_eq!(
        store.blob(&blob.sha256).unwrap(),
        None,
        "the damage was noticed"
    );
}

#[test]
fn a_file_that_was_touched_is_hashed_before_its_blocks_go_to_peers() {
    let (_dir, store) = store();
    let bytes = noise(7, 2 * CHUNK);
    let blob = add(&store, &bytes);
    let (first, second) = (chunk_hash(&bytes[..CHUNK]), chunk_hash(&bytes[CHUNK..]));
    assert_eq!(store.serve(&first).unwrap().unwrap()[..], bytes[..CHUNK]);
    flip_byte(&store, &blob, CHUNK as u64 + 9, false);
    assert_eq!(store.serve(&first).unwrap().unwrap()[..], bytes[..CHUNK]);
    assert_eq!(store.serve(&second).unwrap(), None);
    assert_eq!(store.blob(&blob.sha256).unwrap(), None);
    assert_eq!(store.serve(&first).unwrap(), None);
}

#[test]
fn a_blob_with_a_new_time_is_hashed_before_it_is_opened() {
    let (_dir, store) = store();
    let good = add(&store, &noise(3, 1000));
    let bad = add(&store, &noise(4, 1000));
    flip_byte(&store, &bad, 0, false);
    assert_eq!(
        store.open_blob(&bad.sha256).unwrap().map(|f| f.size()),
        None
    );
    let file = File::open(path_of(&store, &good.sha256)).unwrap();
    file.set_times(FileTimes::new().set_modified(std::time::UNIX_EPOCH))
        .unwrap();
    let mut read = Vec::new();
    store
        .open_blob(&good.sha256)
        .unwrap()
        .unwrap()
        .read_to_end(&mut read)
        .unwrap();
    assert!(
        read == noise(3, 1000),
        "read from its start after the check"
    );
}

#[test]
fn a_blob_that_was_cut_or_removed_is_missing() {
    let (_dir, store) = store();
    let cut = add(&store, &noise(5, 5000));
    let removed = add(&store, &noise(6, 5000));
    let path = path_of(&store, &cut.sha256);
    fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
    OpenOptions::new()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(4999)
        .unwrap();
    fs::remove_file(path_of(&store, &removed.sha256)).unwrap();
    assert_eq!(store.get(&chunk_hash(&noise(5, 5000))).unwrap(), None);
    assert_eq!(store.get(&chunk_hash(&noise(6, 5000))).unwrap(), None);
    for blob in [cut, removed] {
        assert_eq!(store.blob(&blob.sha256).unwrap(), None);
    }
    assert!(store.blobs().unwrap().is_empty());
}

#[test]
fn a_chunk_in_two_blobs_survives_the_loss_of_one() {
    let (_dir, store) = store();
    let shared = noise(7, CHUNK);
    let first = add(&store, &[&shared[..], b"first"].concat());
    let second = add(&store, &[&shared[..], b"second"].concat());
    for lost in [&first, &second] {
        assert_eq!(
            store.get(&chunk_hash(&shared)).unwrap().unwrap().bytes()[..],
            shared
        );
        fs::remove_file(path_of(&store, &lost.sha256)).unwrap();
    }
    assert_eq!(store.get(&chunk_hash(&shared)).unwrap(), None);
}

#[test]
fn a_store_that_was_copied_elsewhere_works() {
    let (dir, store) = store();
    let blob = add(&store, &noise(8, 3000));
    drop(store);
    let (from, to) = (dir.path().join("store"), dir.path().join("copy"));
    let status = std::process::Command::new("cp")
        .arg("-r")
        .args([&from, &to])
        .status()
        .unwrap();
    assert!(status.success());
    let copy = Store::open(&to).unwrap();
    assert_eq!(copy.blob(&blob.sha256).unwrap(), Some(blob.clone()));
    let mut read = Vec::new();
    copy.open_blob(&blob.sha256)
        .unwrap()
        .unwrap()
        .read_to_end(&mut read)
        .unwrap();
    assert!(read == noise(8, 3000));
}

#[test]
fn small_blocks_are_kept_and_large_ones_refused() {
    let (_dir, store) = store();
    let block = Block::of(Bytes::from_static(b"block"));
    store.put(&block).unwrap();
    store.put(&block).unwrap();
    assert_eq!(store.get(block.hash()).unwrap(), Some(block));
    let large = Block::of(vec![0; crate::BLOCK_BYTES_MAX + 1].into());
    assert!(matches!(
        store.put(&large).unwrap_err(),
        StoreError::TooLarge { .. }
    ));
}

#[test]
fn a_damaged_block_of_the_index_is_dropped() {
    let (_dir, store) = store();
    let block = Block::of(Bytes::from_static(b"block"));
    store.put(&block).unwrap();
    store
        .index
        .write(|transaction| Ok(transaction.execute("UPDATE block SET bytes = x'00'", [])?))
        .unwrap();
    assert_eq!(store.get(block.hash()).unwrap(), None);
    store.put(&block).unwrap();
    assert_eq!(store.get(block.hash()).unwrap(), Some(block));
}

#[test]
fn opening_clears_away_what_nobody_completes() {
    let (_dir, store) = store();
    let blob = add(&store, b"kept");
    let alive = store.ingest().unwrap();
    fs::write(
        store.root().join("tmp/ingest-dead"),
        "left by a dead process",
    )
    .unwrap();
    let orphan = Sha256::of(b"orphan");
    fs::write(path_of(&store, &orphan), "orphan").unwrap();
    fs::write(store.root().join("blobs/README"), "not ours").unwrap();
    let again = Store::open(store.root()).unwrap();
    assert_eq!(
        file_count(&again, "tmp"),
        1,
        "the living ingest keeps its file"
    );
    assert!(!path_of(&again, &orphan).exists());
    assert!(again.root().join("blobs/README").exists());
    assert_eq!(again.blob(&blob.sha256).unwrap(), Some(blob));
    drop(alive);
    assert_eq!(file_count(&again, "tmp"), 0);
}
