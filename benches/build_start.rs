//! How long a build takes to start: from the request to the first line of its script, with a closure of half a gigabyte.
//!
//! `cargo bench -p p2pkgs-builder --bench build_start` prints the table; `P2PKGS_BENCH_DIR` says where the home lies, and by
//! that on which file system. *Unpacked* is what happens where the kernel stacks no directories for an ordinary user: each
//! build unpacks its whole closure. *Stacked* unpacks a package once.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark prints and may fail loudly"
)]

use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use builder::testing::{sandbox_works, static_busybox};
use builder::{Event, Input, JobServer, LazySandbox, Limits, NoFiles, Observer, Workshop};
use recipe::{FileBytes, Graph, MemoryTree, PackageFiles, System};
use store::{Expected, Store};

// The name by which the other crates know it.
extern crate p2pkgs_builder as builder;

/// Packages of the closure, as a compiler with its tools and a few libraries has.
const PACKAGES: u64 = 30;
/// Files of each.
const FILES: u64 = 600;
/// Mean length of a file in bytes: all files together are 500 MB.
const FILE_BYTES: u64 = 28_000;
/// Builds that are started when all is there already; the median counts.
const WARM: usize = 5;

/// Notes when a build says its first word, and when its root is ready.
#[derive(Debug, Default)]
struct Watch(Mutex<(Option<Instant>, Option<Instant>)>);

impl Observer for Watch {
    fn event(&self, event: &Event<'_>) {
        let mut times = self.0.lock().unwrap();
        match event {
            Event::Output { .. } => times.1 = times.1.or_else(|| Some(Instant::now())),
            Event::Building {
                phase: builder::Phase::Running,
                ..
            } => times.0 = Some(Instant::now()),
            _ => {}
        }
    }

    fn cancelled(&self) -> bool {
        false
    }
}

fn main() {
    assert!(sandbox_works(), "needs bubblewrap and a static busybox");
    let dir = match std::env::var_os("P2PKGS_BENCH_DIR") {
        Some(dir) => tempfile::tempdir_in(dir).unwrap(),
        None => tempfile::tempdir().unwrap(),
    };
    let store = Store::open(&dir.path().join("store")).unwrap();
    let inputs: Vec<_> = (0..PACKAGES)
        .map(|n| package(&store, dir.path(), n))
        .collect();
    println!(
        "A closure of {PACKAGES} packages with {} files, {} MB unpacked.\n",
        PACKAGES * FILES,
        PACKAGES * FILES * FILE_BYTES / 1_000_000
    );
    println!("| root | first build | next builds: root ready | first line |");
    println!("|---|---|---|---|");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let sandboxes = [
        ("unpacked", LazySandbox::unstacked(&path)),
        ("stacked", LazySandbox::new(&path)),
    ];
    for (name, sandbox) in sandboxes {
        let scratch = dir.path().join(name);
        let first = start(&store, &inputs, &sandbox, &scratch).1;
        let mut next: Vec<_> = (0..WARM)
            .map(|_| start(&store, &inputs, &sandbox, &scratch))
            .collect();
        next.sort_by_key(|(_, line)| *line);
        let (ready, line) = next[WARM / 2];
        println!("| {name} | {} | {} | {} |", ms(first), ms(ready), ms(line));
    }
    if let Ok(found) = builder::Sandbox::find(&path)
        && let Err(reason) = found.stacks(&dir.path().join("stacked"))
    {
        println!("\nNothing is stacked here: {reason}");
    }
}

fn ms(time: Duration) -> String {
    format!("{:.0} ms", time.as_secs_f64() * 1e3)
}

/// Starts a build that says one word, and says when its root was ready and when the word came.
fn start(
    store: &Store,
    inputs: &[Input],
    sandbox: &LazySandbox,
    scratch: &Path,
) -> (Duration, Duration) {
    // Whether this machine can do it is found out once in a process, not by each build.
    sandbox.get().unwrap();
    let watch = Watch::default();
    let jobs = JobServer::new(1).unwrap();
    let workshop = Workshop {
        store,
        files: &NoFiles,
        sandbox,
        observer: &watch,
        scratch,
        limits: Limits::default(),
        jobs: &jobs,
        keep_failed: false,
    };
    let mut tree = MemoryTree::default();
    let build = FileBytes {
        executable: true,
        bytes: b"#!/bin/sh\necho started\nmkdir $DESTDIR/bin\n".to_vec(),
    };
    let files = PackageFiles {
        build: Some(build),
        ..PackageFiles::default()
    };
    tree.insert("p".parse().unwrap(), files);
    let graph = Graph::resolve(&mut tree, &["p".parse().unwrap()], &System::host()).unwrap();
    let begun = Instant::now();
    workshop
        .build(
            graph.recipe(graph.roots()[0]),
            inputs,
            &scratch.with_extension("log"),
        )
        .unwrap();
    let times = watch.0.into_inner().unwrap();
    let since = |time: Option<Instant>| time.unwrap().duration_since(begun);
    (since(times.0), since(times.1))
}

/// An output with files that compress to about a half; the first one brings the shell.
fn package(store: &Store, dir: &Path, number: u64) -> Input {
    let tree = tempfile::tempdir_in(dir).unwrap();
    let mut state = number + 1;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for file in 0..FILES {
        let folder = tree.path().join(format!("share/p{number}/{}", file % 20));
        fs::create_dir_all(&folder).unwrap();
        let length = random() % (2 * FILE_BYTES);
        let words = (0..length / 16).flat_map(|_| [random().to_le_bytes(), *b" padding"]);
        let bytes: Vec<u8> = words.flatten().collect();
        fs::write(folder.join(format!("file{file}")), bytes).unwrap();
    }
    if number == 0 {
        let bin = tree.path().join("bin");
        fs::create_dir(&bin).unwrap();
        fs::copy(static_busybox().unwrap(), bin.join("busybox")).unwrap();
        for applet in ["sh", "mkdir"] {
            std::os::unix::fs::symlink("busybox", bin.join(applet)).unwrap();
        }
    }
    let mut ingest = store.ingest().unwrap();
    store::archive::pack(tree.path(), &mut ingest).unwrap();
    Input {
        name: format!("p{number:02}"),
        blob: ingest.finish(&Expected::anything()).unwrap(),
    }
}
