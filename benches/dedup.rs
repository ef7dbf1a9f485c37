//! What moves when version N + 1 of a package is fetched and version N is here, by four formats.
//!
//! `cargo bench --bench dedup` prints a table: bytes moved over bytes of the whole archive. It takes pairs of releases from
//! the archive of Debian, which it fetches by `apt-get download` (the versions named below; `P2PKGS_BENCH_DEBS` names a
//! directory that has them already), and packs the trees in them as our own packages. So these are real programs, built by
//! somebody else's compiler on two days. To them comes a rebuild with one changed file: the first tree with a line added to one of its
//! programs.
//!
//! * *Chunks, one by one*: the tar in content-defined chunks (FastCDC, 4 KiB on average), each compressed by itself; and a list of
//!   them, 10 bytes each.
//! * *Resynchronising stream*: the tar compressed by `zstd --rsyncable`, the stream in such chunks of 16 KiB; and their list.
//! * *Chunks, one stream*: the missing chunks of the tar compressed together, after the receiver has sent a list of its own
//!   chunks, 8 bytes each.
//! * *Delta*: what the program does, see `store/src/delta`.
//!
//! It needs `apt-get`, `dpkg-deb` and `zstd`.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a benchmark prints and may fail loudly"
)]

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use base::{PkgHash, Realisation, SecretKey, Sha256};
use p2pkgs_store as store;
use store::delta::{Assembly, make_segment};
use store::{Blob, Expected, Store, archive};

/// Packages with an older and a newer release.
const PAIRS: [(&str, &str, &str); 4] = [
    ("postgresql-15", "15.18-0+deb12u1", "15.20-0+deb12u1"),
    ("php8.2-cli", "8.2.32-1~deb12u1", "8.2.36-1~deb12u1"),
    ("libssl3", "3.0.20-1~deb12u2", "3.0.22-1~deb12u2"),
    ("linux-libc-dev", "6.1.176-1", "6.1.192-2"),
];
/// Average chunk of a tar and of a compressed stream, in bytes.
const TAR_CHUNK_BYTES: usize = 4 << 10;
const STREAM_CHUNK_BYTES: usize = 16 << 10;
/// What names a chunk in a list: eight bytes of its hash, and two for its length where that is told.
const HASH_BYTES: usize = 8;
const HASH_AND_LENGTH_BYTES: usize = 10;
/// The level of archive format 1, for what is compared with it.
const LEVEL: i32 = 9;
/// What goes with each segment of a delta: its request and the numbers in its answer.
const SEGMENT_OVERHEAD_BYTES: usize = 96;

fn main() {
    let scratch = tempfile::tempdir().unwrap();
    let debs = std::env::var_os("P2PKGS_BENCH_DEBS").map(PathBuf::from);
    let debs = debs.unwrap_or_else(|| scratch.path().join("debs"));
    fs::create_dir_all(&debs).unwrap();
    println!(
        "| fetched, with the earlier one here | archive, bytes | chunks, one by one | resynchronising stream | \
         chunks, one stream | **delta** | make, s | take in, s |"
    );
    println!("|---|---:|---:|---:|---:|---:|---:|---:|");
    for (name, old, new) in PAIRS {
        let trees = [old, new].map(|version| unpacked(&debs, scratch.path(), name, version));
        let versions = [old, new].map(|version| version.split('-').next().unwrap());
        let title = format!("{name} {} → {}", versions[0], versions[1]);
        row(scratch.path(), &title, &trees[0], &trees[1]);
        if name == PAIRS[0].0 {
            let changed = with_one_changed_file(scratch.path(), &trees[0]);
            let title = format!("{name} {}, one changed file", versions[0]);
            row(scratch.path(), &title, &trees[0], &changed);
        }
    }
}

/// The tree in a package of Debian, which is fetched unless it is here.
fn unpacked(debs: &Path, scratch: &Path, name: &str, version: &str) -> PathBuf {
    let file = debs.join(format!("{name}_{version}_amd64.deb"));
    if !file.exists() {
        let mut command = Command::new("apt-get");
        run(command
            .args(["-qq", "download", &format!("{name}={version}")])
            .current_dir(debs));
    }
    let tree = scratch.join(format!("{name}_{version}"));
    run(Command::new("dpkg-deb").arg("-x").arg(&file).arg(&tree));
    tree
}

/// A copy of a tree in which its largest program has one more line of bytes in its middle.
fn with_one_changed_file(scratch: &Path, tree: &Path) -> PathBuf {
    let copy = scratch.join("changed");
    run(Command::new("cp").arg("-a").arg(tree).arg(&copy));
    let mut programs = Vec::new();
    files(&copy, &mut programs);
    programs.retain(|path| fs::metadata(path).unwrap().permissions().mode() & 0o111 != 0);
    // Not the very largest: one of ordinary size.
    programs.sort_by_key(|path| fs::metadata(path).unwrap().len());
    let program = &programs[programs.len() / 2];
    let mut bytes = fs::read(program).unwrap();
    let middle = bytes.len() / 2;
    bytes.splice(
        middle..middle,
        *b"one more line in the middle of the file\n",
    );
    fs::write(program, bytes).unwrap();
    copy
}

fn files(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_symlink() {
        } else if path.is_dir() {
            files(&path, found);
        } else {
            found.push(path);
        }
    }
}

fn row(scratch: &Path, title: &str, old: &Path, new: &Path) {
    let home = tempfile::tempdir_in(scratch).unwrap();
    let store = Store::open(home.path()).unwrap();
    let (old, new) = (output(&store, old, 1), output(&store, new, 2));
    let tars = [&old, &new].map(|blob| plain(&store, blob));
    let whole = new.size as usize;
    let percent = |bytes: usize| format!("{:.1} %", 100.0 * bytes as f64 / whole as f64);
    let (by_one, one_stream) = chunked(&tars[0], &tars[1]);
    let resynchronised = resynchronising(scratch, &tars[0], &tars[1]);
    let delta = delta(&store, &old, &new);
    println!(
        "| {title} | {whole} | {} | {} | {} | **{}** | {:.1} | {:.1} |",
        percent(by_one),
        percent(resynchronised),
        percent(one_stream),
        percent(delta.bytes),
        delta.make_secs,
        delta.take_secs,
    );
}

/// Packs a tree and says that it is an output.
fn output(store: &Store, tree: &Path, version: u8) -> Blob {
    let mut ingest = store.ingest().unwrap();
    archive::pack(tree, &mut ingest).unwrap();
    let blob = ingest.finish(&Expected::anything()).unwrap();
    let realisation = Realisation {
        pkghash: PkgHash::of_derivation(&[version]),
        output: blob.root,
        sha256: blob.sha256,
        size: blob.size,
    };
    let signed = realisation.sign(&SecretKey::from_seed(&[1; 32]));
    store.put_realisation(&signed).unwrap();
    blob
}

fn plain(store: &Store, blob: &Blob) -> Vec<u8> {
    let file = store.open_blob(&blob.sha256).unwrap().unwrap();
    zstd::decode_all(file).unwrap()
}

/// A chunk's place and hash.
type Chunk = (usize, usize, Sha256);

fn chunks(bytes: &[u8], average: usize) -> Vec<Chunk> {
    fastcdc::v2020::FastCDC::new(bytes, average / 4, average, average * 4)
        .map(|chunk| {
            let (from, to) = (chunk.offset, chunk.offset + chunk.length);
            (from, to, Sha256::of(&bytes[from..to]))
        })
        .collect()
}

fn hashes(chunks: &[Chunk]) -> HashSet<Sha256> {
    chunks.iter().map(|(_, _, hash)| *hash).collect()
}

/// What moves when the tar's chunks are compressed one by one, and when the missing ones are compressed together.
fn chunked(old: &[u8], new: &[u8]) -> (usize, usize) {
    let (theirs, chunks) = (chunks(old, TAR_CHUNK_BYTES), chunks(new, TAR_CHUNK_BYTES));
    let have = hashes(&theirs);
    let mut missing = Vec::new();
    let mut by_one = chunks.len() * HASH_AND_LENGTH_BYTES;
    for (from, to, hash) in &chunks {
        if !have.contains(hash) {
            missing.extend_from_slice(&new[*from..*to]);
            by_one += packed(&new[*from..*to]);
        }
    }
    (by_one, theirs.len() * HASH_BYTES + packed(&missing))
}

fn packed(bytes: &[u8]) -> usize {
    zstd::bulk::compress(bytes, LEVEL).unwrap().len()
}

/// What moves when the compressed stream resynchronises and is cut into chunks.
fn resynchronising(scratch: &Path, old: &[u8], new: &[u8]) -> usize {
    let [old, new] = [old, new].map(|tar| {
        let (plain, stream) = (scratch.join("plain"), scratch.join("stream"));
        File::create(&plain).unwrap().write_all(tar).unwrap();
        let mut command = Command::new("zstd");
        command.args(["-q", "-f", "--rsyncable", &format!("-{LEVEL}")]);
        run(command.arg(&plain).arg("-o").arg(&stream));
        fs::read(stream).unwrap()
    });
    let have = hashes(&chunks(&old, STREAM_CHUNK_BYTES));
    let chunks = chunks(&new, STREAM_CHUNK_BYTES);
    let missing = chunks.iter().filter(|(_, _, hash)| !have.contains(hash));
    let missing: usize = missing.map(|(from, to, _)| to - from).sum();
    missing + chunks.len() * HASH_AND_LENGTH_BYTES
}

struct Delta {
    bytes: usize,
    make_secs: f64,
    take_secs: f64,
}

/// What moves as the program does it, and what it costs both sides.
fn delta(store: &Store, old: &Blob, new: &Blob) -> Delta {
    let started = Instant::now();
    let [old_tar, new_tar] =
        [old, new].map(|blob| store.unpack_output(&blob.sha256).unwrap().unwrap());
    let mut segments = Vec::new();
    while let Some(segment) = make_segment(&old_tar, &new_tar, segments.len() as u64).unwrap() {
        segments.push(segment);
    }
    let make_secs = started.elapsed().as_secs_f64();
    let started = Instant::now();
    let assembly = Assembly::begin(store, &old.sha256, new.size, new_tar.size());
    let mut assembly = assembly.unwrap().unwrap();
    for segment in &segments {
        assembly.push(segment).unwrap();
    }
    let expected = Expected {
        sha256: Some(new.sha256),
        ..Expected::anything()
    };
    assert_eq!(&assembly.finish(&expected).unwrap(), new);
    let take_secs = started.elapsed().as_secs_f64();
    let bytes = segments
        .iter()
        .map(|segment| segment.packed.len() + SEGMENT_OVERHEAD_BYTES);
    Delta {
        bytes: bytes.sum(),
        make_secs,
        take_secs,
    }
}

fn run(command: &mut Command) {
    let output = command
        .output()
        .unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
}
