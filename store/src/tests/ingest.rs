//! Taking files in.

use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;

use base::{Codec, Multihash};
use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::dag::{Node, Profile, Walk, WalkLimits, build_file};
use crate::{Block, BlockStore as _, StoreError};

const CHUNK: usize = 1 << 20;

#[test]
fn a_file_taken_in_is_there_by_hash_and_by_root() {
    let (_dir, store) = store();
    let bytes = noise(1, 3 * CHUNK + 5);
    let blob = add(&store, &bytes);
    assert_eq!(blob.sha256, Sha256::of(&bytes));
    assert_eq!(blob.size, bytes.len() as u64);
    let tree = build_file(Profile::UNIXFS_V1_2025, &bytes[..], &mut |_| {}).unwrap();
    assert_eq!(blob.root, tree.cid);
    assert_eq!(store.blob(&blob.sha256).unwrap(), Some(blob.clone()));
    assert_eq!(store.blob_by_root(&blob.root).unwrap(), Some(blob.clone()));
    let mut read = Vec::new();
    store
        .open_blob(&blob.sha256)
        .unwrap()
        .unwrap()
        .read_to_end(&mut read)
        .unwrap();
    assert!(read == bytes);
    assert_eq!(store.blobs().unwrap(), [blob]);
}

#[test]
fn every_block_of_a_file_is_served_from_it() {
    let (_dir, store) = store();
    let bytes = noise(2, 2 * CHUNK + 77);
    let blob = add(&store, &bytes);
    let mut walk = Walk::new(blob.root, WalkLimits::default()).unwrap();
    let mut read = Vec::new();
    while !walk.is_done() {
        for cid in walk.wants(2) {
            let block = store.get_cid(&cid).unwrap().unwrap();
            assert_eq!(store.size(block.hash()).unwrap(), Some(block.len() as u64));
            walk.handle_block(&block).unwrap();
        }
        while let Some(leaf) = walk.next_bytes().unwrap() {
            read.extend_from_slice(leaf.bytes());
        }
    }
    assert!(read == bytes);
    // The bytes are on disk once: the index holds the root node and rows, no chunk.
    assert_eq!(file_count(&store, "blobs"), 1);
    let index = std::fs::metadata(store.root().join("index.sqlite-wal")).map_or(0, |m| m.len());
    assert!(index < CHUNK as u64, "{index} bytes");
}

#[test]
fn a_file_hashed_on_two_threads_is_the_same_file() {
    // Large enough for a thread, and pieces that end where no chunk does.
    for length in [CHUNK - 1, 4 * CHUNK, 6 * CHUNK + 300_001] {
        let (_dir, store) = store();
        let bytes = noise(9, length);
        let mut ingest = store.ingest().unwrap();
        ingest.append(&bytes[..7]).unwrap();
        let copied = ingest.copy_from(&mut &bytes[7..length - 9]).unwrap();
        assert_eq!(copied, length as u64 - 16);
        ingest.append(&bytes[length - 9..]).unwrap();
        let blob = ingest.finish(&Expected::anything()).unwrap();
        assert_eq!(blob.sha256, Sha256::of(&bytes));
        let tree = build_file(Profile::UNIXFS_V1_2025, &bytes[..], &mut |_| {}).unwrap();
        assert_eq!(blob.root, tree.cid);
        let mut file = store.open_blob(&blob.sha256).unwrap().unwrap();
        let mut copy = tempfile::tempfile().unwrap();
        assert_eq!(file.copy_to(&mut copy).unwrap(), length as u64);
        let mut read = Vec::new();
        copy.rewind().unwrap();
        copy.read_to_end(&mut read).unwrap();
        assert!(read == bytes);
    }
}

#[test]
fn the_empty_file_is_a_file() {
    let (_dir, store) = store();
    let blob = add(&store, b"");
    assert_eq!(blob.size, 0);
    assert_eq!(blob.root, Block::empty().cid(Codec::Raw));
    assert_eq!(store.blob_by_root(&blob.root).unwrap(), Some(blob));
    assert_eq!(
        store.get(Block::empty().hash()).unwrap(),
        Some(Block::empty())
    );
}

#[test]
fn the_same_file_twice_is_one_file() {
    let (_dir, store) = store();
    let bytes = noise(3, CHUNK + 1);
    let first = add(&store, &bytes);
    let inode = || {
        std::os::unix::fs::MetadataExt::ino(
            &std::fs::metadata(path_of(&store, &first.sha256)).unwrap(),
        )
    };
    let before = inode();
    assert_eq!(add(&store, &bytes), first);
    assert_eq!(inode(), before);
    assert_eq!(
        (file_count(&store, "blobs"), file_count(&store, "tmp")),
        (1, 0)
    );
}

#[test]
fn nothing_is_visible_before_the_end_and_nothing_stays_after_an_abort() {
    let (_dir, store) = store();
    let bytes = noise(4, 2 * CHUNK);
    let mut ingest = store.ingest().unwrap();
    ingest.write_all(&bytes).unwrap();
    ingest.flush().unwrap();
    let first_chunk = Block::of(Bytes::copy_from_slice(&bytes[..CHUNK]));
    assert_eq!(store.blob(&Sha256::of(&bytes)).unwrap(), None);
    assert!(!store.has(first_chunk.hash()).unwrap());
    assert_eq!(
        (file_count(&store, "blobs"), file_count(&store, "tmp")),
        (0, 1)
    );
    drop(ingest);
    assert_eq!(
        (file_count(&store, "blobs"), file_count(&store, "tmp")),
        (0, 0)
    );
}

#[test]
fn another_file_than_expected_is_refused_and_not_kept() {
    let (_dir, store) = store();
    let right = Sha256::of(b"right");
    let root = Block::of(Bytes::from_static(b"right")).cid(Codec::Raw);
    for (expected, what) in [
        (Expected::sha256(right), "sha256"),
        (
            Expected {
                size: Some(6),
                ..Expected::default()
            },
            "size",
        ),
        (
            Expected {
                root: Some(root),
                ..Expected::default()
            },
            "root",
        ),
    ] {
        let mut ingest = store.ingest().unwrap();
        ingest.write_all(b"wrong").unwrap();
        let error = ingest.finish(&expected).unwrap_err();
        assert!(
            matches!(error, StoreError::Mismatch { what: w, .. } if w == what),
            "{error}"
        );
    }
    assert!(store.blobs().unwrap().is_empty());
    assert_eq!(
        (file_count(&store, "blobs"), file_count(&store, "tmp")),
        (0, 0)
    );
    let mut ingest = store.ingest().unwrap();
    ingest.write_all(b"right").unwrap();
    let expected = Expected {
        sha256: Some(right),
        size: Some(5),
        root: Some(root),
    };
    assert_eq!(ingest.finish(&expected).unwrap().root, root);
}

#[test]
fn a_file_that_cannot_fit_is_refused_before_it_is_written() {
    let (_dir, store) = store();
    let mut ingest = store.ingest().unwrap();
    ingest.reserve(1).unwrap();
    let stat = rustix::fs::statvfs(store.root()).unwrap();
    let error = ingest.reserve(stat.f_bavail * stat.f_frsize).unwrap_err();
    assert!(
        matches!(
            error,
            StoreError::DiskFull { .. } | StoreError::TooLarge { .. }
        ),
        "{error}"
    );
    assert!(matches!(
        ingest.reserve(u64::MAX).unwrap_err(),
        StoreError::TooLarge { .. }
    ));
}

#[test]
fn a_full_disk_is_told_from_other_failures() {
    let full = io::Error::from_raw_os_error(rustix::io::Errno::NOSPC.raw_os_error());
    let quota = io::Error::from_raw_os_error(rustix::io::Errno::DQUOT.raw_os_error());
    let other = io::Error::from_raw_os_error(rustix::io::Errno::IO.raw_os_error());
    let path = std::path::Path::new("x");
    assert!(matches!(
        StoreError::io("write", path, full),
        StoreError::DiskFull { .. }
    ));
    assert!(matches!(
        StoreError::io("write", path, quota),
        StoreError::DiskFull { .. }
    ));
    assert!(matches!(
        StoreError::io("write", path, other),
        StoreError::Io { .. }
    ));
}

#[test]
fn blobs_are_read_only_files() {
    let (_dir, store) = store();
    let blob = add(&store, b"bytes");
    let mode = std::fs::metadata(path_of(&store, &blob.sha256))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o444);
}

/// How a piece of a file is handed over.
#[derive(Clone, Debug)]
enum Piece {
    Write(usize),
    Leaf(usize),
}

fn piece() -> impl Strategy<Value = Piece> {
    let length = prop_oneof![
        1usize..5000,
        Just(CHUNK),
        (CHUNK - 3)..(CHUNK + 3),
        (CHUNK / 2)..CHUNK,
        CHUNK..(2 * CHUNK),
    ];
    (length, any::<bool>()).prop_map(|(l, leaf)| {
        if leaf {
            Piece::Leaf(l)
        } else {
            Piece::Write(l)
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn however_a_file_is_handed_over_it_gets_the_same_root(
        pieces in proptest::collection::vec(piece(), 0..6),
        seed: u64,
    ) {
        let (_dir, store) = store();
        let mut ingest = store.ingest().unwrap();
        let mut bytes = Vec::new();
        for piece in pieces {
            let (Piece::Write(length) | Piece::Leaf(length)) = piece;
            let part = noise(seed ^ bytes.len() as u64, length);
            match piece {
                Piece::Write(_) => ingest.append(&part).unwrap(),
                Piece::Leaf(_) => ingest.write_leaf(&Block::of(part.clone().into())).unwrap(),
            }
            bytes.extend(part);
        }
        prop_assert_eq!(ingest.written(), bytes.len() as u64);
        let blob = ingest.finish(&Expected::sha256(Sha256::of(&bytes))).unwrap();
        let mut root = None;
        let tree = build_file(Profile::UNIXFS_V1_2025, &bytes[..], &mut |block| root = Some(block)).unwrap();
        prop_assert_eq!(blob.root, tree.cid);
        let stored = store.get(&Multihash::of(&blob.root).unwrap()).unwrap();
        prop_assert_eq!(&stored, &root);
        let codec = Codec::of(&blob.root).unwrap();
        let node = Node::decode(codec, stored.unwrap().bytes()).unwrap();
        prop_assert!(matches!(node, Node::File(file) if file.size == bytes.len() as u64));
    }
}
