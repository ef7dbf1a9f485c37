//! Ours beside Kubo, as their users run them: fetching a file, taking one in, and doing nothing.
//!
//! `cargo bench --bench kubo` prints three tables. Both are the real programs in real processes on loopback, with homes of
//! their own on one disk; what is compared alternates, and each figure is the median of its runs.
//!
//! * `P2PKGS_BENCH_MIB`: length of the file in MiB (1024).
//! * `P2PKGS_BENCH_ROUNDS`: runs of each kind (5).
//!
//! `P2PKGS_BENCH_MIB=32 P2PKGS_BENCH_ROUNDS=1` checks in a minute that everything works. The Kubo is the one of the
//! interoperability tests (`tests/interop/build-kubo.sh`).

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a benchmark prints and may fail loudly"
)]

/// One file from node to node.
mod fetch;

/// Daemons that have nothing to do.
mod idle;

/// A file into the store.
mod import;

/// Homes and daemons of both.
#[allow(dead_code, unused_imports)] // The interoperability tests use the rest of it.
#[path = "../../tests/interop/support/mod.rs"]
mod support;

/// What processes cost.
#[allow(dead_code)] // Programs that start others are another benchmark's.
mod usage;

use support::World;

/// How much is measured.
#[derive(Clone, Copy, Debug)]
struct Extent {
    /// Length of the file, in bytes.
    bytes: u64,
    /// Runs of each kind.
    rounds: usize,
}

impl Extent {
    fn of_environment() -> Self {
        let number = |name, default| {
            std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
        };
        Self {
            bytes: number("P2PKGS_BENCH_MIB", 1024) << 20,
            rounds: usize::try_from(number("P2PKGS_BENCH_ROUNDS", 5)).unwrap(),
        }
    }

    /// What so many seconds of a run are for one GiB.
    fn per_gib(&self, secs: f64) -> f64 {
        secs * (1u64 << 30) as f64 / self.bytes as f64
    }

    /// The rate of a run, in MB/s.
    fn rate(&self, secs: f64) -> f64 {
        self.bytes as f64 / 1e6 / secs
    }
}

fn main() {
    let extent = Extent::of_environment();
    let Some(world) = World::with_kubo() else {
        return;
    };
    let file = world.path("original");
    let sha256 = support::write_file(&file, extent.bytes);
    let cid = import::compare(&world, &file, extent);
    fetch::compare(&world, &file, &cid, &sha256, extent);
    idle::compare(&world, extent);
}

/// The middle one of what `of` says about the runs.
fn median<T>(runs: &[T], of: impl Fn(&T) -> f64) -> f64 {
    let mut values: Vec<_> = runs.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
