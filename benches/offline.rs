//! What it costs to believe in a network that is not there.
//!
//! `cargo bench --bench offline` prints a table. It runs itself again in a network namespace of its own, so nothing outside
//! is asked, and times whole commands of a home with no settings (profile `public`, its first peers) beside the same
//! commands with `--offline`, alternating. Two kinds of nothing:
//!
//! * *no network*: loopback alone, and no resolver answers. What is sent fails at once.
//! * *a void*: an address and a default route, and everything sent there is lost, as behind a broken router. The resolver lies
//!   there as well. What is sent waits.
//!
//! What is in the store must cost the same, and so must what a cache on this machine has: the one in `file://` is compared
//! with itself; for the one in `http://`, which `--offline` leaves out, the same files as `file://` stand in.
//!
//! `P2PKGS_BENCH_ROUNDS` is the number of runs (5) whose median is taken. It needs `unshare`, `ip` and `mount`.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a benchmark prints and may fail loudly"
)]

/// Homes and the toy tree.
#[allow(dead_code, unused_imports)] // The end-to-end tests use the rest of it.
#[path = "../tests/e2e/support/mod.rs"]
mod support;

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use support::{COMMAND_DEADLINE, Finished, Home, Origin, TestEnv};

/// Set for the run in the namespace.
const INSIDE: &str = "P2PKGS_BENCH_INSIDE";

fn main() {
    if std::env::var_os(INSIDE).is_none() {
        let error = Command::new("unshare")
            .args(["--map-root-user", "--net", "--mount"])
            .arg(std::env::current_exe().unwrap())
            .env(INSIDE, "1")
            .exec();
        panic!("cannot run `unshare`: {error}");
    }
    run("ip", &["link", "set", "lo", "up"]);
    let env = TestEnv::new();
    let bench = Bench::new(&env);
    println!("| | with `--offline`, ms | without, ms | more, ms |");
    println!("|---|---:|---:|---:|");
    resolver(&env, "127.0.0.1");
    bench.cases("no network");
    // A cable whose other end throws away what is not for it.
    let cable = ["link", "add", "void", "type", "veth"];
    run("ip", &[&cable[..], &["peer", "name", "hole"]].concat());
    run("ip", &["link", "set", "void", "up"]);
    run("ip", &["link", "set", "hole", "up"]);
    run("ip", &["addr", "add", "10.99.0.2/24", "dev", "void"]);
    run("ip", &["route", "add", "default", "via", "10.99.0.1"]);
    // The router seems to be there, so that what is sent is lost instead of refused.
    let router = ["neigh", "add", "10.99.0.1", "lladdr", "02:00:00:00:00:01"];
    run("ip", &[&router[..], &["dev", "void"]].concat());
    resolver(&env, "192.0.2.53");
    bench.cases("a void");
}

/// Names a machine that resolves names, in this mount namespace alone.
fn resolver(env: &TestEnv, address: &str) {
    let file = env.path(&format!("resolv-{address}"));
    fs::write(&file, format!("nameserver {address}\n")).unwrap();
    run(
        "mount",
        &["--bind", file.to_str().unwrap(), "/etc/resolv.conf"],
    );
}

fn run(program: &str, args: &[&str]) {
    let status = Command::new(program).args(args).status().unwrap();
    assert!(status.success(), "`{program} {}` failed", args.join(" "));
}

/// A home that has `hello`, one that has to get it, and a cache that has it.
struct Bench<'e> {
    rounds: usize,
    env: &'e TestEnv,
    holder: Home<'e>,
    http: Origin,
    file: String,
}

impl<'e> Bench<'e> {
    fn new(env: &'e TestEnv) -> Self {
        let rounds = std::env::var("P2PKGS_BENCH_ROUNDS")
            .map_or(5, |text| text.parse().expect("a number of rounds"));
        let holder = env.home("holder");
        let cache = env.path("cache");
        holder.ok(&["cache", "export", cache.to_str().unwrap(), "hello"]);
        let keys = holder.ok(&["key", "list"]);
        let template = env.home("template");
        template.ok(&["key", "trust", keys.split_whitespace().nth(1).unwrap()]);
        template.ok(&["fetch", "--sources", "hello"]);
        for home in [&holder, &template] {
            // From now on as everybody has it: nothing is set.
            fs::write(home.path("config.toml"), "").unwrap();
        }
        Self {
            rounds,
            env,
            holder,
            http: Origin::serve(&cache),
            file: format!("file://{}", cache.display()),
        }
    }

    fn cases(&self, network: &str) {
        let (http, file) = (self.http.url(), self.file.as_str());
        let http = http.as_str();
        let held = |args: &'static [&'static str], cache: &'static str| {
            move |offline: bool| {
                let cache = match cache {
                    "http" => http,
                    _ => "",
                };
                timed(&self.holder, offline, args, cache)
            }
        };
        let got = |cache: &'static str| {
            move |offline: bool| {
                let cache = match (cache, offline) {
                    ("http", false) => http,
                    _ => file,
                };
                self.fresh(|home| timed(home, offline, &["fetch", "hello"], cache))
            }
        };
        self.row(
            network,
            "`build`, in the store",
            held(&["build", "hello"], ""),
        );
        let what = "`fetch`, in the store, an HTTP cache set";
        self.row(network, what, held(&["fetch", "hello"], "http"));
        self.row(network, "`fetch` out of a `file://` cache", got("file"));
        self.row(network, "`fetch` out of an HTTP cache", got("http"));
    }

    fn row(&self, network: &str, what: &str, run: impl Fn(bool) -> Duration) {
        let (mut offline, mut online) = (Vec::new(), Vec::new());
        for _ in 0..self.rounds {
            offline.push(run(true));
            online.push(run(false));
        }
        let [offline, online] = [offline, online].map(|times| median(times).as_secs_f64() * 1e3);
        let more = online - offline;
        println!("| {network}: {what} | {offline:.0} | {online:.0} | {more:.0} |");
    }

    /// With a home that has nothing yet but the key of whom it trusts.
    fn fresh(&self, run: impl Fn(&Home<'_>) -> Duration) -> Duration {
        let home = self.env.home("fresh");
        fs::remove_dir_all(home.path("")).unwrap();
        let template = self.env.path("template");
        copy(&template, &home.path(""));
        let took = run(&home);
        fs::remove_dir_all(home.path("")).unwrap();
        took
    }
}

/// How long a command takes that must succeed.
fn timed(home: &Home<'_>, offline: bool, args: &[&str], cache: &str) -> Duration {
    let args = [offline.then_some("--offline").as_slice(), args].concat();
    let mut command = home.command(&args);
    command.env("PKG_CACHE_URL", cache);
    let started = Instant::now();
    Finished::of(command, COMMAND_DEADLINE).assert_exit(0);
    started.elapsed()
}

fn copy(from: &Path, to: &Path) {
    let paths = [from, to].map(|path| path.to_str().unwrap());
    run("cp", &[&["-a", "--"], &paths[..]].concat());
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}
