//! How fast the store takes a file in and gives its blocks out, beside the system's own tools on the same file.
//!
//! `cargo bench -p p2pkgs-store --bench store_ingest` prints the table; `P2PKGS_BENCH_MIB` sets the size of the file (1024),
//! `P2PKGS_BENCH_DIR` where it lies. The rows alternate, and each figure is the median of five rounds.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark prints and may fail loudly"
)]

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use base::{Codec, Hasher, Sha256};
use bytes::Bytes;
use p2pkgs_store::{Block, BlockStore as _, Expected, Store};

const ROUNDS: usize = 5;
const CHUNK_BYTES: usize = 1 << 20;
/// Clock ticks per second in `/proc/self/stat`, fixed by Linux's interface.
const TICKS: f64 = 100.0;

/// One thing that is measured.
struct Row {
    name: &'static str,
    run: Box<dyn Fn(&Bench)>,
    /// Wall and CPU seconds of each round.
    rounds: Vec<(f64, f64)>,
}

struct Bench {
    dir: PathBuf,
    file: PathBuf,
    bytes: u64,
    chunks: Vec<Block>,
}

fn main() {
    let mib: u64 = std::env::var("P2PKGS_BENCH_MIB").map_or(1024, |mib| mib.parse().unwrap());
    let dir = match std::env::var_os("P2PKGS_BENCH_DIR") {
        Some(dir) => tempfile::tempdir_in(dir).unwrap(),
        None => tempfile::tempdir().unwrap(),
    };
    let bench = Bench::new(dir.path(), mib);
    let mut rows = rows();
    for _ in 0..ROUNDS {
        for row in &mut rows {
            let (cpu, wall) = (cpu_secs(), Instant::now());
            (row.run)(&bench);
            row.rounds
                .push((wall.elapsed().as_secs_f64(), cpu_secs() - cpu));
        }
    }
    println!("One file of {mib} MiB, page cache warm; medians of {ROUNDS} alternating rounds.\n");
    println!("| | wall s | CPU s | MB/s |");
    println!("|---|---:|---:|---:|");
    for row in &rows {
        let median = |of: fn(&(f64, f64)) -> f64| {
            let mut all: Vec<_> = row.rounds.iter().map(of).collect();
            all.sort_by(f64::total_cmp);
            all[ROUNDS / 2]
        };
        let (wall, cpu) = (median(|round| round.0), median(|round| round.1));
        let rate = bench.bytes as f64 / 1e6 / wall;
        println!("| {} | {wall:.2} | {cpu:.2} | {rate:.0} |", row.name);
    }
}

fn rows() -> Vec<Row> {
    let row = |name, run| Row {
        name,
        run,
        rounds: Vec::new(),
    };
    vec![
        row(
            "sha256sum",
            Box::new(|bench: &Bench| system("sha256sum", &[&bench.file])),
        ),
        row("cp, sync", Box::new(copy_and_sync)),
        row("read and hash once (base::Hasher)", Box::new(hash_once)),
        row(
            "ingest: hash, chunk, write, sync, index",
            Box::new(|bench| ingest(bench, false)),
        ),
        row(
            "ingest of verified chunks (write_leaf)",
            Box::new(|bench| ingest(bench, true)),
        ),
        row(
            "read chunks from the file, no check",
            Box::new(read_plainly),
        ),
        row(
            "get every block from the store, verified",
            Box::new(get_blocks),
        ),
    ]
}

impl Bench {
    fn new(dir: &Path, mib: u64) -> Self {
        let file = dir.join("file");
        let mut out = File::create(&file).unwrap();
        let mut chunks = Vec::new();
        for number in 0..mib {
            let chunk = Bytes::from(noise(number));
            out.write_all(&chunk).unwrap();
            chunks.push(Block::of(chunk));
        }
        out.sync_all().unwrap();
        let bench = Self {
            dir: dir.to_owned(),
            file,
            bytes: mib * CHUNK_BYTES as u64,
            chunks,
        };
        // What `get_blocks` reads.
        bench.take_in(&Store::open(&dir.join("kept")).unwrap(), false);
        bench
    }

    fn take_in(&self, store: &Store, as_chunks: bool) {
        let mut ingest = store.ingest().unwrap();
        if as_chunks {
            for chunk in &self.chunks {
                ingest.write_leaf(chunk).unwrap();
            }
        } else {
            let mut file = File::open(&self.file).unwrap();
            ingest.copy_from(&mut file).unwrap();
        }
        ingest.finish(&Expected::anything()).unwrap();
    }
}

fn ingest(bench: &Bench, as_chunks: bool) {
    let dir = bench.dir.join("new");
    bench.take_in(&Store::open(&dir).unwrap(), as_chunks);
    std::fs::remove_dir_all(dir).unwrap();
}

fn copy_and_sync(bench: &Bench) {
    let copy = bench.dir.join("copy");
    // Without --reflink=never some file systems copy nothing at all.
    system("cp", &[Path::new("--reflink=never"), &bench.file, &copy]);
    File::open(&copy).unwrap().sync_all().unwrap();
    std::fs::remove_file(copy).unwrap();
}

fn hash_once(bench: &Bench) {
    let mut hasher = Hasher::new();
    for_each_chunk(bench, |chunk| hasher.update(chunk));
    assert_ne!(hasher.finish(), Sha256::of(b""));
}

fn read_plainly(bench: &Bench) {
    let mut sum = 0u64;
    for_each_chunk(bench, |chunk| sum += u64::from(chunk[0]));
    assert_ne!(sum, 0);
}

fn get_blocks(bench: &Bench) {
    let store = Store::open(&bench.dir.join("kept")).unwrap();
    for chunk in &bench.chunks {
        let block = store.get_cid(&chunk.cid(Codec::Raw)).unwrap().unwrap();
        assert_eq!(block.len(), CHUNK_BYTES);
    }
}

fn for_each_chunk(bench: &Bench, mut each: impl FnMut(&[u8])) {
    let mut file = File::open(&bench.file).unwrap();
    let mut buffer = vec![0; CHUNK_BYTES];
    for _ in &bench.chunks {
        file.read_exact(&mut buffer).unwrap();
        each(&buffer);
    }
}

fn system(program: &str, args: &[&Path]) {
    let output = Command::new(program).args(args).output().unwrap();
    assert!(output.status.success());
}

/// A chunk without a pattern.
fn noise(seed: u64) -> Vec<u8> {
    let mut state = (seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(CHUNK_BYTES);
    while bytes.len() < CHUNK_BYTES {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        bytes.extend_from_slice(&state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes());
    }
    bytes
}

/// User and system time of this process and of its finished children, in seconds.
fn cpu_secs() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    // The second field is the program's name in parentheses; the times are the 14th to 17th.
    let after_name = stat.rsplit_once(')').unwrap().1;
    let ticks: f64 = after_name
        .split_whitespace()
        .skip(11)
        .take(4)
        .map(|field| field.parse::<f64>().unwrap())
        .sum();
    ticks / TICKS
}
