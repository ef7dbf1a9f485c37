//! Files that are served where their owner keeps them.

use std::fs::{self, File, FileTimes};
use std::io::Read as _;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use base::Multihash;

use super::*;
use crate::gc::{Goal, Order};
use crate::{BlobState, BlockStore as _, StoreError};

/// A file of somebody else, last changed an hour ago.
fn foreign(dir: &TempDir, name: &str, bytes: &[u8]) -> PathBuf {
    let path = dir.path().join(name);
    fs::write(&path, bytes).unwrap();
    let hour_ago = SystemTime::now() - Duration::from_secs(3600);
    let times = FileTimes::new().set_modified(hour_ago);
    File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_times(times)
        .unwrap();
    fs::canonicalize(path).unwrap()
}

fn read(store: &Store, blob: &Blob) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut file = store.open_blob(&blob.sha256).unwrap()?;
    file.read_to_end(&mut bytes).unwrap();
    Some(bytes)
}

fn chunk(store: &Store, bytes: &[u8]) -> Option<crate::Block> {
    let hash = Multihash::sha2_256(&Sha256::of(bytes));
    store.get(&hash).unwrap()
}

fn total(store: &Store) -> i64 {
    let sql = "SELECT bytes FROM total";
    store
        .index
        .read(|c| c.query_row(sql, [], |row| row.get(0)))
        .unwrap()
}

#[test]
fn a_file_is_served_where_it_is_and_takes_no_room() {
    let (dir, store) = store();
    let bytes = noise(1, (2 << 20) + 5);
    let path = foreign(&dir, "file", &bytes);
    let blob = store.add_reference(&path).unwrap();
    assert_eq!(blob.sha256, Sha256::of(&bytes));
    assert_eq!(store.blob(&blob.sha256).unwrap(), Some(blob.clone()));
    assert_eq!(store.blob_by_root(&blob.root).unwrap(), Some(blob.clone()));
    assert_eq!(read(&store, &blob).unwrap(), bytes);
    assert!(chunk(&store, &bytes[2 << 20..]).is_some());
    assert_eq!(store.reference(&blob.sha256).unwrap(), Some(path));
    assert_eq!((file_count(&store, "blobs"), total(&store)), (0, 0));
    assert_eq!(add(&store, &bytes), blob, "taking it in makes no copy");
    assert_eq!(file_count(&store, "blobs"), 0);
}

#[test]
fn a_touched_file_is_hashed_and_served_on() {
    let (dir, store) = store();
    let path = foreign(&dir, "file", b"bytes");
    let blob = store.add_reference(&path).unwrap();
    File::open(&path)
        .unwrap()
        .set_times(FileTimes::new().set_modified(SystemTime::UNIX_EPOCH))
        .unwrap();
    assert_eq!(read(&store, &blob).unwrap(), b"bytes");
    let copy = dir.path().join("copy");
    fs::copy(&path, &copy).unwrap();
    fs::rename(&copy, &path).unwrap();
    assert!(chunk(&store, b"bytes").is_some(), "another inode");
    assert_eq!(read(&store, &blob).unwrap(), b"bytes");
}

#[test]
fn a_file_that_changed_is_forgotten_and_left_alone() {
    let (dir, store) = store();
    for (name, new) in [("same length", "other"), ("longer", "bytes and more")] {
        for is_asked_for_blocks in [true, false] {
            let path = foreign(&dir, name, b"bytes");
            let blob = store.add_reference(&path).unwrap();
            fs::write(&path, new).unwrap();
            if is_asked_for_blocks {
                assert_eq!(chunk(&store, b"bytes"), None, "{name}");
            } else {
                assert_eq!(read(&store, &blob), None, "{name}");
            }
            assert_eq!(store.blobs().unwrap(), [], "{name}");
            assert_eq!(fs::read_to_string(&path).unwrap(), new);
            assert_eq!(file_count(&store, "damaged"), 0);
        }
    }
}

#[test]
fn a_file_that_vanished_is_forgotten_and_may_come_back_elsewhere() {
    let (dir, store) = store();
    let path = foreign(&dir, "file", b"bytes");
    let blob = store.add_reference(&path).unwrap();
    let moved = dir.path().join("moved");
    fs::rename(&path, &moved).unwrap();
    assert_eq!(chunk(&store, b"bytes"), None);
    assert_eq!(store.blob(&blob.sha256).unwrap(), None);
    store.add_reference(&moved).unwrap();
    fs::remove_file(&moved).unwrap();
    let again = foreign(&dir, "again", b"bytes");
    store.add_reference(&again).unwrap();
    assert_eq!(store.reference(&blob.sha256).unwrap(), Some(again));
    assert_eq!(store.verify_blob(&blob.sha256).unwrap(), BlobState::Intact);
}

#[test]
fn a_change_within_the_tick_of_the_clock_is_noticed() {
    let (dir, store) = store();
    let path = dir.path().join("fresh");
    fs::write(&path, "bytes").unwrap();
    let modified = fs::metadata(&path).unwrap().modified().unwrap();
    let blob = store.add_reference(&path).unwrap();
    fs::write(&path, "other").unwrap();
    File::open(&path)
        .unwrap()
        .set_times(FileTimes::new().set_modified(modified))
        .unwrap();
    assert_eq!(read(&store, &blob), None);
}

#[test]
fn what_is_no_file_is_refused() {
    let (dir, store) = store();
    let pipe = dir.path().join("pipe");
    make_pipe(&pipe);
    for path in [dir.path().to_owned(), dir.path().join("nothing"), pipe] {
        let error = store.add_reference(&path).unwrap_err();
        assert!(matches!(error, StoreError::Io { .. }), "{error}");
    }
}

#[test]
fn a_pipe_in_place_of_a_file_keeps_nobody_waiting() {
    let (dir, store) = store();
    for bytes in [&b""[..], b"bytes"] {
        let path = foreign(&dir, "file", bytes);
        let blob = store.add_reference(&path).unwrap();
        fs::remove_file(&path).unwrap();
        make_pipe(&path);
        assert_eq!(read(&store, &blob), None);
        fs::remove_file(&path).unwrap();
    }
}

fn make_pipe(path: &std::path::Path) {
    let status = std::process::Command::new("mkfifo").arg(path).status();
    assert!(status.unwrap().success());
}

#[test]
fn collecting_forgets_a_file_of_somebody_else_and_leaves_it_alone() {
    let (dir, store) = store();
    let path = foreign(&dir, "file", b"bytes");
    store.add_reference(&path).unwrap();
    let mut goal = Goal {
        free_bytes: Some(100),
        order: Order::LeastRecentlyUsed,
    };
    let plan = store.plan_collection(&goal, &|_| None).unwrap();
    assert_eq!(plan.remove, [], "it would free nothing");
    goal.free_bytes = None;
    let plan = store.plan_collection(&goal, &|_| None).unwrap();
    store.collect(&plan, &|| false).unwrap();
    assert_eq!(store.blobs().unwrap(), []);
    assert!(path.exists());
}
