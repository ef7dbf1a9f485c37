//! What it costs to find that nothing is to be done: ours beside make and ninja, each with the same graph.
//!
//! `cargo bench --bench noop` prints a table. Ten thousand packages, each built with five others, are all in the store;
//! `p2pkgs build` of all of them finds that: each has three files and an output of its own. For make and ninja each package is
//! a target that is newer than what it is made from. What is compared alternates, and each figure is the median of its runs.
//! *Cold*: the kernel has forgotten what it had read, which only root can bring about.
//!
//! * `P2PKGS_BENCH_PACKAGES`: how many packages (10,000).
//! * `P2PKGS_BENCH_ROUNDS`: runs of each kind (5).
//! * `P2PKGS_UPSTREAM`: a checkout of upstream, to compare its own scripts on its own tree, see [`upstream`].
//! * `P2PKGS_BENCH_DIR`: where trees and store are kept for the next run; to fill a store takes minutes.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a benchmark prints and may fail loudly"
)]

/// What processes cost.
#[allow(dead_code)] // Daemons are another benchmark's.
#[path = "../kubo/usage.rs"]
mod usage;

/// The graph, written down for each program.
mod graph;

/// Upstream's scripts.
mod upstream;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use base::{Realisation, SecretKey};
use store::{Blob, Expected, Store};

use graph::Graph;
use usage::Used;

const P2PKGS: &str = env!("CARGO_BIN_EXE_p2pkgs");
/// What empties the kernel's caches of files (Linux, `sysctl/vm`).
const DROP_CACHES: &str = "/proc/sys/vm/drop_caches";

fn main() {
    let number =
        |name, default| std::env::var(name).map_or(default, |text| text.parse().expect("a number"));
    let packages = number("P2PKGS_BENCH_PACKAGES", 10_000);
    let rounds = number("P2PKGS_BENCH_ROUNDS", 5);
    let temporary = tempfile::tempdir().unwrap();
    let kept = std::env::var_os("P2PKGS_BENCH_DIR").map(PathBuf::from);
    let dir = kept.as_deref().unwrap_or(temporary.path());
    let graph = Graph::new(packages);
    let bench = Bench::new(dir, &graph);
    println!("| {packages} packages, nothing to do | warm: ms | CPU ms | peak MiB | cold: ms |");
    println!("|---|---:|---:|---:|---:|");
    let mut programs = vec![bench.p2pkgs(&graph)];
    programs.extend(bench.make("make"));
    programs.extend(bench.make("ninja"));
    let mut runs = vec![Vec::new(); programs.len()];
    for round in 0..=rounds {
        for ((_, command), runs) in programs.iter_mut().zip(&mut runs) {
            // What the one before has made the kernel forget is there again then.
            usage::run(repeat(command));
            let warm = usage::run(repeat(command));
            let cold = fs::write(DROP_CACHES, "3")
                .ok()
                .map(|()| usage::run(repeat(command)).0);
            // In the first round the outputs are adopted.
            if round > 0 {
                runs.push((warm, cold));
            }
        }
    }
    for ((name, _), runs) in programs.iter().zip(&runs) {
        print_row(name, runs);
    }
    if let Some(checkout) = std::env::var_os("P2PKGS_UPSTREAM") {
        upstream::compare(Path::new(&checkout), dir, rounds);
    }
}

type Run = ((f64, Used), Option<f64>);

fn print_row(name: &str, runs: &[Run]) {
    let median = |value: &dyn Fn(&Run) -> f64| median(runs, value);
    let cold = runs.iter().all(|(_, cold)| cold.is_some());
    let cold = cold.then(|| median(&|(_, cold)| cold.unwrap_or_default() * 1000.0));
    println!(
        "| {name} | {:.0} | {:.0} | {:.0} | {} |",
        median(&|((secs, _), _)| secs * 1000.0),
        median(&|((_, used), _)| used.cpu_secs * 1000.0),
        median(&|((_, used), _)| used.peak_mib),
        cold.map_or_else(|| "not root".to_owned(), |ms| format!("{ms:.0}")),
    );
}

/// Of a value of each run.
fn median<T>(runs: &[T], value: impl Fn(&T) -> f64) -> f64 {
    let mut values: Vec<_> = runs.iter().map(value).collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The same command once more.
fn repeat(command: &Command) -> Command {
    let mut again = Command::new(command.get_program());
    again.args(command.get_args());
    for (name, value) in command.get_envs() {
        again.env(name, value.unwrap_or_default());
    }
    if let Some(dir) = command.get_current_dir() {
        again.current_dir(dir);
    }
    again
}

/// The graph on the disk.
struct Bench<'a> {
    dir: &'a Path,
}

impl<'a> Bench<'a> {
    fn new(dir: &'a Path, graph: &Graph) -> Self {
        let bench = Self { dir };
        let done = dir.join("done");
        if !done.exists() {
            bench.fill(graph);
            fs::write(done, "").unwrap();
        }
        bench
    }

    fn fill(&self, graph: &Graph) {
        let store = Store::open(&self.store()).unwrap();
        let seed = self.output(&store, "the seed").sha256.to_string();
        graph.write_tree(&self.dir.join("tree"), &seed);
        graph.write_makefile(&self.dir.join("make"));
        graph.write_ninja(&self.dir.join("ninja"));
        drop(store);
        self.fill_store(graph.names().skip(1).collect());
    }

    /// Puts an output of each package into the store, signed by somebody who is trusted.
    fn fill_store(&self, names: Vec<String>) {
        let store = Store::open(&self.store()).unwrap();
        let key = SecretKey::from_seed(&[1; 32]);
        self.ok(self.command(&["key", "trust", &key.public().to_string()]));
        let mut hash = self.command(&["hash"]);
        hash.args(names);
        for line in self.ok(hash).lines() {
            let pkghash = line.split_whitespace().next().unwrap();
            let blob = self.output(&store, pkghash);
            let realisation = Realisation {
                pkghash: pkghash.parse().unwrap(),
                output: blob.root,
                sha256: blob.sha256,
                size: blob.size,
            };
            store.put_realisation(&realisation.sign(&key)).unwrap();
        }
    }

    /// Takes in an archive with one file, of this text.
    fn output(&self, store: &Store, text: &str) -> Blob {
        let tree = self.dir.join("output");
        fs::create_dir_all(tree.join("share")).unwrap();
        fs::write(tree.join("share/text"), text).unwrap();
        let mut ingest = store.ingest().unwrap();
        store::archive::pack(&tree, &mut ingest).unwrap();
        ingest.finish(&Expected::anything()).unwrap()
    }

    fn store(&self) -> PathBuf {
        self.dir.join("home").join("store")
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(P2PKGS);
        command
            .env("P2PKGS_HOME", self.dir.join("home"))
            .env("P2PKGS_TREE", self.dir.join("tree"))
            .args(["--offline", "-q"])
            .args(args);
        command
    }

    fn on_all(&self, verb: &str, graph: &Graph) -> Command {
        let mut command = self.command(&[verb]);
        command.args(graph.names());
        command
    }

    fn ok(&self, mut command: Command) -> String {
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn p2pkgs(&self, graph: &Graph) -> (String, Command) {
        ("`p2pkgs build`".to_owned(), self.on_all("build", graph))
    }

    /// A program that is in a folder of its name; `None`, and a word, where it is not installed.
    fn make(&self, program: &str) -> Option<(String, Command)> {
        let mut command = Command::new(program);
        command.current_dir(self.dir.join(program));
        let Ok(output) = repeat(&command).output() else {
            eprintln!("skipped: `{program}` is not installed");
            return None;
        };
        let said = String::from_utf8_lossy(&output.stdout);
        let is_done = said.contains("Nothing to be done") || said.contains("no work to do");
        assert!(is_done, "{program}: {said}");
        Some((format!("`{program}`"), command))
    }
}
