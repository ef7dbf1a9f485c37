//! Lines that are slow or long: how much of them a fetch uses.
//!
//! `cargo bench --bench links` prints a table. Seeders and seeker are real processes on loopback; between them stands a proxy
//! of our own (`line`) that limits the rate and delays every byte, in both directions. It is the same for `curl`, which
//! fetches the file over HTTP from memory. It ends TCP on both of its sides, so losses and the slow start of TCP are not
//! part of this: what is measured is whether enough is asked for in time.
//!
//! * Four seeders on lines of 100 Mbit/s and 50 ms round trip: the rate, as a share of the four lines' sum.
//! * One seeder on a line of 1 Gbit/s and 100 ms round trip: the rate, as a share of what `curl` gets.
//!
//! The time is that of the whole command, with its start and all handshakes. `P2PKGS_BENCH_MIB` is the length of the file in
//! MiB (1024), `P2PKGS_BENCH_ROUNDS` the number of runs (5) whose median is taken.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a benchmark prints and may fail loudly"
)]

/// A line with a rate and a length.
mod line;

/// Homes and daemons.
#[allow(dead_code, unused_imports)] // The end-to-end tests use the rest of it.
#[path = "../../tests/e2e/support/mod.rs"]
mod support;

/// What processes cost.
#[allow(dead_code)] // The benchmark beside Kubo uses the rest of it.
#[path = "../kubo/usage.rs"]
mod usage;

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use line::{Line, serve_http};
use support::{Daemon, TestEnv};

/// 100 Mbit/s and 50 ms.
const SLOW: (u64, Duration) = (12_500_000, Duration::from_millis(50));
/// 1 Gbit/s and 100 ms.
const LONG: (u64, Duration) = (125_000_000, Duration::from_millis(100));
const SEEDERS: usize = 4;

/// What the runs need.
struct Bench {
    env: TestEnv,
    file: PathBuf,
    sha256: String,
    bytes: u64,
    runtime: tokio::runtime::Runtime,
}

fn main() {
    let number =
        |name, default| std::env::var(name).map_or(default, |text| text.parse().expect("a number"));
    let bytes = number("P2PKGS_BENCH_MIB", 1024) << 20;
    let rounds = number("P2PKGS_BENCH_ROUNDS", 5);
    let env = TestEnv::new();
    let file = env.path("original");
    write_noise(&file, bytes);
    let mut bench = Bench {
        env,
        file,
        sha256: String::new(),
        bytes,
        runtime: tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap(),
    };
    let seeders: Vec<_> = (0..SEEDERS).map(|n| bench.seeder(n)).collect();
    let (mut many, mut one, mut curl) = (Vec::new(), Vec::new(), Vec::new());
    for round in 1..=rounds {
        eprintln!("round {round}: {SEEDERS} slow lines");
        many.push(bench.fetch(&seeders, SLOW));
        eprintln!("round {round}: one long line");
        one.push(bench.fetch(&seeders[..1], LONG));
        eprintln!("round {round}: curl on the long line");
        curl.push(bench.curl(LONG));
    }
    bench.print(median(many), median(one), median(curl));
}

impl Bench {
    /// A daemon that serves the file where it lies.
    fn seeder(&mut self, number: usize) -> Daemon {
        let home = self.env.home(&format!("seeder-{number}"));
        let file = self.file.to_str().unwrap();
        let listed = home.ok(&["mirror", "add", "--reference", file]);
        listed
            .split(' ')
            .next()
            .unwrap()
            .clone_into(&mut self.sha256);
        home.daemon(&[])
    }

    /// Fetches from these seeders, each behind a line of its own; how long that took, in seconds.
    fn fetch(&self, seeders: &[Daemon], (rate, round_trip): (u64, Duration)) -> f64 {
        let lines: Vec<_> = seeders
            .iter()
            .map(|seeder| {
                let address = seeder.address();
                let (host, peer) = address.split_once("/p2p/").unwrap();
                let port = host.rsplit_once('/').unwrap().1.parse().unwrap();
                let line = Line::start(&self.runtime, port, rate, round_trip);
                (
                    format!("/ip4/127.0.0.1/tcp/{}/p2p/{peer}", line.port()),
                    line,
                )
            })
            .collect();
        let first: Vec<_> = lines.iter().map(|(address, _)| address.as_str()).collect();
        let home = self.env.home("seeker");
        let content = format!("sha256:{}", self.sha256);
        let mut command = home.command(&["fetch", &content, "-o", "-"]);
        command.env("P2PKGS_NETWORK_BOOTSTRAP", first.join(" "));
        rustix::fs::sync();
        let (secs, _) = usage::run(command);
        fs::remove_dir_all(home.path("")).unwrap();
        let carried: u64 = lines.iter().map(|(_, line)| line.carried()).sum();
        assert!(carried >= self.bytes, "the file came past the lines");
        secs
    }

    /// Fetches by HTTP; how long that took, in seconds.
    fn curl(&self, (rate, round_trip): (u64, Duration)) -> f64 {
        let origin = serve_http(&self.runtime, self.bytes);
        let line = Line::start(&self.runtime, origin, rate, round_trip);
        let got = self.env.path("got");
        let mut command = Command::new("curl");
        command
            .args(["--silent", "--fail", "--noproxy", "*", "--output"])
            .arg(&got)
            .arg(format!("http://127.0.0.1:{}/", line.port()));
        rustix::fs::sync();
        let (secs, _) = usage::run(command);
        assert_eq!(fs::metadata(&got).unwrap().len(), self.bytes);
        fs::remove_file(got).unwrap();
        secs
    }

    fn print(&self, many: f64, one: f64, curl: f64) {
        let rate = |secs: f64| self.bytes as f64 / 1e6 / secs;
        let sum = SEEDERS as f64 * SLOW.0 as f64 / 1e6;
        let mib = self.bytes >> 20;
        println!("| {mib} MiB | MB/s | share |");
        println!("|---|---:|---:|");
        println!(
            "| p2pkgs, four seeders of 100 Mbit/s and 50 ms | {:.1} | {:.2} of their sum |",
            rate(many),
            rate(many) / sum
        );
        println!(
            "| p2pkgs, one seeder of 1 Gbit/s and 100 ms | {:.1} | {:.2} of `curl` |",
            rate(one),
            rate(one) / rate(curl)
        );
        println!(
            "| `curl`, the same line | {:.1} | {:.2} of the line |",
            rate(curl),
            rate(curl) * 1e6 / LONG.0 as f64
        );
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Writes bytes of which no two blocks are alike (Marsaglia's xorshift64).
fn write_noise(path: &Path, bytes: u64) {
    let mut file = fs::File::create(path).unwrap();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut piece = vec![0; 1 << 20];
    for _ in 0..bytes >> 20 {
        for word in piece.chunks_exact_mut(8) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            word.copy_from_slice(&state.to_le_bytes());
        }
        file.write_all(&piece).unwrap();
    }
}
