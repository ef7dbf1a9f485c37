//! How long a collection takes in a store of many blobs, and what those who read and fill the store meanwhile notice of it.
//!
//! `cargo bench -p p2pkgs-store --bench store_gc` prints the tables; `P2PKGS_BENCH_BLOBS` sets the number of blobs (100000),
//! `P2PKGS_BENCH_DIR` where they lie. Nine of ten are collected. One thread reads blocks and one takes files in, before,
//! during and after; each has a handle of its own, as another process has.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark prints and may fail loudly"
)]

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use base::{Multihash, Sha256};
use p2pkgs_store::gc::{Goal, Order};
use p2pkgs_store::{BlockStore as _, Expected, Store};
use rusqlite::Connection;

/// Length of a blob in bytes: one chunk, one block of a disk.
const BLOB_BYTES: usize = 4096;
/// One blob of so many is pinned.
const PINNED_ONE_OF: u64 = 10;
/// How long is measured without a collection, before and after it.
const ALONE: Duration = Duration::from_secs(5);

/// How long each operation took, in microseconds.
#[derive(Default)]
struct Latencies(Vec<u64>);

fn main() {
    let count: u64 = std::env::var("P2PKGS_BENCH_BLOBS").map_or(100_000, |n| n.parse().unwrap());
    let dir = match std::env::var_os("P2PKGS_BENCH_DIR") {
        Some(dir) => tempfile::tempdir_in(dir).unwrap(),
        None => tempfile::tempdir().unwrap(),
    };
    let root = dir.path().join("store");
    fill(&root, count);
    let mut alone = measure(&root, count, 1 << 40, || thread::sleep(ALONE));
    let mut planning = Duration::ZERO;
    let mut collecting = Duration::ZERO;
    let mut removed = 0;
    let during = measure(&root, count, 2 << 40, || {
        let store = Store::open(&root).unwrap();
        let goal = Goal {
            free_bytes: Some((count - count / PINNED_ONE_OF) * BLOB_BYTES as u64),
            order: Order::LeastRecentlyUsed,
        };
        let started = Instant::now();
        let plan = store.plan_collection(&goal, &|_| None).unwrap();
        planning = started.elapsed();
        removed = store.collect(&plan, &|| false).unwrap().removed.len();
        collecting = started.elapsed() - planning;
    });
    let after = measure(&root, count, 3 << 40, || thread::sleep(ALONE));
    alone.0.0.extend(after.0.0);
    alone.1.0.extend(after.1.0);
    let rate = removed as f64 / collecting.as_secs_f64();
    println!(
        "{count} blobs of {BLOB_BYTES} bytes: planned in {:.2} s, {removed} removed in {:.1} s ({rate:.0} a second).\n",
        planning.as_secs_f64(),
        collecting.as_secs_f64(),
    );
    println!("| | operations | p50 ms | p99 ms | longest ms |");
    println!("|---|---:|---:|---:|---:|");
    row("block read", alone.0);
    row("block read during the collection", during.0);
    row("file taken in", alone.1);
    row("file taken in during the collection", during.1);
}

fn row(name: &str, Latencies(mut all): Latencies) {
    all.sort_unstable();
    let at = |share: f64| all[((all.len() - 1) as f64 * share) as usize] as f64 / 1000.0;
    println!(
        "| {name} | {} | {:.3} | {:.3} | {:.1} |",
        all.len(),
        at(0.5),
        at(0.99),
        at(1.0)
    );
}

/// Makes a store with blobs in it, past the store itself: its commits would make a day of it.
fn fill(root: &Path, count: u64) {
    drop(Store::open(root).unwrap());
    let mut index = Connection::open(root.join("index.sqlite")).unwrap();
    let transaction = index.transaction().unwrap();
    for number in 0..count {
        let bytes = noise(number);
        let sha256 = Sha256::of(&bytes);
        let path = root.join("blobs").join(sha256.to_hex());
        fs::write(&path, &bytes).unwrap();
        let metadata = fs::metadata(&path).unwrap();
        let mtime_ns = metadata.mtime() * 1_000_000_000 + metadata.mtime_nsec();
        let (digest, id) = (sha256.as_bytes(), i64::try_from(number).unwrap() + 1);
        let length = i64::try_from(bytes.len()).unwrap();
        let row = (
            id,
            digest,
            length,
            mtime_ns,
            metadata.ino().cast_signed(),
            id,
        );
        let insert = |sql: &str, row: &dyn rusqlite::ToSql| {
            let mut statement = transaction.prepare_cached(sql).unwrap();
            statement.execute([row]).unwrap();
        };
        transaction
            .prepare_cached(
                "INSERT INTO blob (id, sha256, size, root_codec, root, mtime_ns, inode, used)
                 VALUES (?1, ?2, ?3, 85, ?2, ?4, ?5, ?6)",
            )
            .unwrap()
            .execute(row)
            .unwrap();
        transaction
            .prepare_cached("INSERT INTO leaf VALUES (?1, ?2, 0, ?3)")
            .unwrap()
            .execute((digest, id, length))
            .unwrap();
        insert("INSERT INTO provide VALUES (?1, 2, 0, NULL)", digest);
        if number % PINNED_ONE_OF == 0 {
            insert("INSERT INTO pin VALUES (1, ?1, x'', 'source', 0)", digest);
        }
    }
    transaction.commit().unwrap();
}

/// Runs something, and meanwhile one thread that reads and one that takes files in.
fn measure(root: &Path, count: u64, first_new: u64, work: impl FnOnce()) -> (Latencies, Latencies) {
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let reads = scope.spawn(|| {
            let store = Store::open(root).unwrap();
            repeat(&is_over, |turn| {
                let number = turn * 7919 % (count / PINNED_ONE_OF) * PINNED_ONE_OF;
                let hash = Multihash::sha2_256(&Sha256::of(&noise(number)));
                let started = Instant::now();
                assert!(store.get(&hash).unwrap().is_some());
                started.elapsed()
            })
        });
        let ingests = scope.spawn(|| {
            let store = Store::open(root).unwrap();
            repeat(&is_over, |turn| {
                // Never the same, nor one of those that are here.
                let bytes = noise(first_new + turn);
                let started = Instant::now();
                let mut ingest = store.ingest().unwrap();
                ingest.append(&bytes).unwrap();
                ingest.finish(&Expected::anything()).unwrap();
                started.elapsed()
            })
        });
        work();
        is_over.store(true, Ordering::Relaxed);
        (reads.join().unwrap(), ingests.join().unwrap())
    })
}

fn repeat(is_over: &AtomicBool, operation: impl Fn(u64) -> Duration) -> Latencies {
    let mut all = Latencies::default();
    while !is_over.load(Ordering::Relaxed) {
        let took = operation(all.0.len() as u64);
        all.0.push(u64::try_from(took.as_micros()).unwrap());
        // Somebody who never pauses measures only himself on a machine with few processors.
        thread::sleep(Duration::from_micros(200));
    }
    all
}

/// Bytes without a pattern (xorshift64*, Vigna 2016).
fn noise(seed: u64) -> Vec<u8> {
    let mut state = (seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(BLOB_BYTES);
    while bytes.len() < BLOB_BYTES {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        bytes.extend_from_slice(&state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes());
    }
    bytes
}
