//! What bad package caches cost beside a right one.
//!
//! `cargo bench --bench doors` prints a table: a fetch out of five caches, of which one is down, one hangs after the head of its
//! answer, one breaks off, one sends other bytes and one is right, beside the same fetch out of the right one alone,
//! alternating. *Down* is an address at which nobody listens (*refused*), or one at which whatever is sent is lost (*lost*). The
//! right one is the last of the list, which is the worst place. Each run is a new home and a new process, so nothing is
//! remembered of the run before.
//!
//! *Small* is a package of some hundred bytes. *Large* is one of 48 MiB, and every cache sends outputs at 16 MiB/s, so that the
//! transfer is what takes the time. *Sent* is what all caches together have sent, in outputs of that size.
//!
//! `P2PKGS_BENCH_ROUNDS` is the number of runs (5) whose median is taken. It needs root and `ip`: the caches are on a machine of
//! their own, a network namespace.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a benchmark prints and may fail loudly"
)]

/// Homes, the toy tree and caches.
#[allow(dead_code, unused_imports)] // The end-to-end tests use the rest of it.
#[path = "../tests/e2e/support/mod.rs"]
mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use support::{COMMAND_DEADLINE, Door, Finished, Lan, Manner, TestEnv};

/// How fast each cache sends a large output.
const BYTES_PER_SEC: u64 = 16 << 20;

fn main() {
    let lan = Lan::new().expect("network namespaces are needed");
    let bench = Bench::new(&lan);
    println!("| | right alone, ms | five, ms | ratio | sent |");
    println!("|---|---:|---:|---:|---:|");
    let hole = format!("http://{}/cache", lan.black_hole());
    for (down, url) in [("refused", "http://10.77.0.1:1/cache"), ("lost", &hole)] {
        bench.row("hello", "small", down, url, None);
        bench.row("big", "large", down, url, Some(BYTES_PER_SEC));
    }
}

/// A directory with both packages, and the world around it.
struct Bench<'l> {
    rounds: usize,
    env: TestEnv,
    lan: &'l Lan,
    dir: PathBuf,
    key: String,
}

impl<'l> Bench<'l> {
    fn new(lan: &'l Lan) -> Self {
        let rounds = std::env::var("P2PKGS_BENCH_ROUNDS")
            .map_or(5, |text| text.parse().expect("a number of rounds"));
        let env = TestEnv::new();
        let dir = env.path("cache");
        let builder = env.home("builder");
        builder.ok(&["cache", "export", dir.to_str().unwrap(), "hello", "big"]);
        let key = builder.key();
        Self {
            rounds,
            env,
            lan,
            dir,
            key,
        }
    }

    fn row(&self, package: &str, kind: &str, down: &str, down_url: &str, rate: Option<u64>) {
        let (mut alone, mut five) = (Vec::new(), Vec::new());
        let mut sent = 0;
        for _ in 0..self.rounds {
            let right = self.door(Manner::Right, rate);
            alone.push(self.fetch(package, right.url()));
            let manners = [
                Manner::Hangs,
                Manner::Truncates,
                Manner::Lies,
                Manner::Right,
            ];
            let doors = manners.map(|manner| self.door(manner, rate));
            let urls = doors.iter().map(Door::url);
            let urls: Vec<_> = std::iter::once(down_url).chain(urls).collect();
            five.push(self.fetch(package, &urls.join(" ")));
            sent += doors.iter().map(Door::sent_bytes).sum::<u64>();
        }
        let [alone, five] = [alone, five].map(|times| median(times).as_secs_f64() * 1e3);
        let outputs = sent as f64 / self.rounds as f64 / size_of(&self.dir, package) as f64;
        println!(
            "| {kind}, {down} | {alone:.0} | {five:.0} | {:.2} | {outputs:.2} |",
            five / alone
        );
    }

    fn door(&self, manner: Manner, rate: Option<u64>) -> Door {
        Door::serve(self.lan.listen(0), &self.dir, manner, rate)
    }

    /// How long a new home takes to fetch a package.
    fn fetch(&self, package: &str, urls: &str) -> Duration {
        let home = self.env.home("fresh");
        home.ok(&["key", "trust", &self.key]);
        // The origin of the seed is on another machine.
        home.ok(&["fetch", "--sources", "hello"]);
        let mut command = home.command(&["fetch", package]);
        command.env("PKG_CACHE_URL", urls);
        let command = self.lan.on(1, &command);
        let started = Instant::now();
        Finished::of(command, COMMAND_DEADLINE).assert_exit(0);
        let took = started.elapsed();
        fs::remove_dir_all(home.path("")).unwrap();
        took
    }
}

/// Length of the package's output: `big` is the larger of the two.
fn size_of(dir: &Path, package: &str) -> u64 {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    let outputs = entries.filter(|e| e.file_name().to_string_lossy().ends_with(".tar.zst"));
    let mut sizes: Vec<_> = outputs.map(|e| e.metadata().unwrap().len()).collect();
    sizes.sort_unstable();
    if package == "big" {
        sizes[sizes.len() - 1]
    } else {
        sizes[0]
    }
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}
