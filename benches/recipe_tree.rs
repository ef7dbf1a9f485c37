//! What a large package tree costs: parsing, hashing, closures and a plan for ten thousand packages, in CPU time.
//!
//! The tree is made up in memory, so the file system is not measured, and the same on every run: a few seeds, a core that
//! nearly everything builds with, and packages that need five others to be built and three to run, with two sources and a
//! patch each. Prints a markdown table; every number is the median of five runs.

#![allow(clippy::print_stdout, reason = "the table is what a benchmark is for")]
#![allow(clippy::unwrap_used, reason = "nothing here comes from outside")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use base::Sha256;
use recipe::{
    Closures, FileBytes, FileEntry, Graph, MemoryTree, Outcome, PackageFiles, Plan, Policy, System,
};

/// The size the project promises to handle in less than a second.
const PACKAGES: usize = 10_000;
/// Packages without build dependencies, at the bottom.
const SEEDS: usize = 10;
/// Compilers, shells and libraries that most others build with.
const CORE: usize = 60;
/// Runs of which the median is taken.
const RUNS: usize = 5;

fn main() {
    let mut tree = synthetic_tree();
    let roots: Vec<_> = (0..PACKAGES).map(|n| name(n).parse().unwrap()).collect();
    let system = System::new("x86_64-linux").unwrap();
    let graph = Graph::resolve(&mut tree, &roots, &system).unwrap();

    let resolve = median(|| {
        black_box(Graph::resolve(&mut tree, &roots, &system).unwrap());
    });
    let closures = median(|| {
        let closures = Closures::of(&graph);
        let sizes = graph
            .packages()
            .map(|id| closures.run(id).count() + closures.build(id).len());
        black_box(sizes.sum::<usize>());
    });
    let plan = median(|| {
        let plan = Plan::new(&graph, graph.roots(), Policy::SubstituteOrBuild);
        black_box(plan.dry_run(|_| Outcome::Missing));
    });

    let all = Closures::of(&graph);
    let mean = |sum: usize| sum / graph.len();
    let run = mean(graph.packages().map(|id| all.run(id).count()).sum());
    let build = mean(graph.packages().map(|id| all.build(id).len()).sum());
    println!(
        "| {PACKAGES} packages (closures of {run} and {build} packages on average) | CPU time |"
    );
    println!("|---|---|");
    println!(
        "| load from memory, parse, order, hash | {} |",
        millis(resolve)
    );
    println!(
        "| run closure and build closure of every package | {} |",
        millis(closures)
    );
    println!(
        "| **hash and closures together** | **{}** |",
        millis(resolve + closures)
    );
    println!(
        "| plan from nothing to everything built | {} |",
        millis(plan)
    );
}

fn name(number: usize) -> String {
    format!("package-{number:05}")
}

fn synthetic_tree() -> MemoryTree {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut tree = MemoryTree::default();
    for number in 0..PACKAGES {
        tree.insert(name(number).parse().unwrap(), package(number, &mut random));
    }
    tree
}

fn package(number: usize, random: &mut Random) -> PackageFiles {
    if number < SEEDS {
        return PackageFiles {
            fetch: Some(fetch(number, 1)),
            ..PackageFiles::default()
        };
    }
    let script = format!(
        "#!/bin/sh\nset -eux\n: {number}\n{}",
        "./configure && make\n".repeat(40)
    );
    PackageFiles {
        build: Some(FileBytes {
            executable: true,
            bytes: script.into(),
        }),
        build_deps: Some(deps(number.min(CORE), 4, number, 1, random)),
        run_deps: Some(deps(number.min(CORE), 1, number, 2, random)),
        fetch: Some(fetch(number, 2)),
        files: vec![FileEntry::regular(
            "patch/0001-fix.patch",
            false,
            &number.to_le_bytes(),
        )],
        ..PackageFiles::default()
    }
}

/// `from_core` of the first `core` packages, and `from_all` of the first `all`.
fn deps(
    core: usize,
    from_core: usize,
    all: usize,
    from_all: usize,
    random: &mut Random,
) -> Vec<u8> {
    let mut numbers: Vec<_> = (0..from_core).map(|_| random.below(core)).collect();
    numbers.extend((0..from_all).map(|_| random.below(all)));
    numbers.sort_unstable();
    numbers.dedup();
    numbers
        .iter()
        .map(|n| format!("../{}\n", name(*n)))
        .collect::<String>()
        .into()
}

fn fetch(number: usize, sources: usize) -> Vec<u8> {
    let item = |n: usize| {
        let (package, sha256) = (name(number), Sha256::of(format!("{number} {n}").as_bytes()));
        format!("url: https://example.org/{package}/{package}-{n}.tar.gz\nsha256: {sha256}\n")
    };
    (0..sources).map(item).collect::<Vec<_>>().join("\n").into()
}

/// A linear congruential generator (Knuth's MMIX): the tree is the same everywhere.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % bound
    }
}

fn median(mut work: impl FnMut()) -> Duration {
    let mut times: Vec<_> = (0..RUNS)
        .map(|_| {
            let start = (cpu_time(), Instant::now());
            work();
            match (start.0, cpu_time()) {
                (Some(before), Some(after)) => after - before,
                _ => start.1.elapsed(),
            }
        })
        .collect();
    times.sort();
    times[RUNS / 2]
}

/// CPU time of this thread as the kernel counts it; none on kernels without scheduler statistics, where the wall clock
/// has to do.
fn cpu_time() -> Option<Duration> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    text.split(' ')
        .next()?
        .parse()
        .ok()
        .map(Duration::from_nanos)
}

fn millis(time: Duration) -> String {
    format!("{:.0} ms", time.as_secs_f64() * 1000.0)
}
