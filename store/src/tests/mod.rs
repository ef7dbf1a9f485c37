//! Tests of the store as a whole: files, records, and several processes at once.

mod blobs;
mod car;
mod collecting;
mod downloads;
mod ingest;
mod many;
mod partials;
mod processes;
mod records;
mod references;
mod room;
mod substitution;
mod verifying;

use std::io::Write as _;

use base::Sha256;
use tempfile::TempDir;

use crate::{Blob, Expected, Pin, PinKind, Store};

/// A store in a directory of its own.
fn store() -> (TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("store")).unwrap();
    (dir, store)
}

fn add(store: &Store, bytes: &[u8]) -> Blob {
    let mut ingest = store.ingest().unwrap();
    ingest.write_all(bytes).unwrap();
    ingest.finish(&Expected::anything()).unwrap()
}

/// Keeps a blob, as a user's own wish.
fn pin(store: &Store, blob: &Blob) {
    let kind = PinKind::Other {
        name: "wanted".into(),
    };
    store
        .pin(&Pin {
            sha256: blob.sha256,
            kind,
            added_unix_secs: 1,
        })
        .unwrap();
}

/// Bytes without a pattern that any chunk repeats, the same for the same seed.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        // xorshift64* (Vigna).
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        bytes.extend_from_slice(&state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

fn path_of(store: &Store, sha256: &Sha256) -> std::path::PathBuf {
    store.root().join("blobs").join(sha256.to_hex())
}

fn file_count(store: &Store, dir: &str) -> usize {
    std::fs::read_dir(store.root().join(dir)).unwrap().count()
}
