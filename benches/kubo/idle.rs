//! Daemons that have nothing to do: both are servers of a DHT on loopback in which nobody else is.

use std::thread;
use std::time::{Duration, Instant};

use super::support::{Kubo, MODERN, Role, World};
use super::usage::{cpu_secs, memory_mib};
use super::{Extent, median};

/// How long is measured.
const WATCHED: Duration = Duration::from_secs(10);
/// A daemon has settled when it used less than this share of a processor for a second.
const SETTLED: f64 = 0.02;
/// Longest time for that.
const SETTLING_MAX: Duration = Duration::from_secs(30);

struct Run {
    resident_mib: f64,
    cpu_share: f64,
}

/// Measures and prints.
pub fn compare(world: &World, extent: Extent) {
    let (mut ours, mut kubo) = (Vec::new(), Vec::new());
    for round in 0..extent.rounds {
        eprintln!("idle, round {}", round + 1);
        let home = world.home("idle");
        let daemon = home.daemon(Role::DhtServer, None);
        ours.push(watch(daemon.pid()));
        drop(daemon);
        let daemon = Kubo::start(world, MODERN, Role::DhtServer, None);
        kubo.push(watch(daemon.pid()));
        daemon.remove();
    }
    println!(
        "| daemon without work | resident MiB | of Kubo's | CPU over 10 s, % of a processor |"
    );
    println!("|---|---:|---:|---:|");
    let resident = |runs: &[Run]| median(runs, |run| run.resident_mib);
    for (name, runs) in [("p2pkgs", &ours), ("Kubo", &kubo)] {
        println!(
            "| {name} | {:.0} | {:.2} | {:.2} |",
            resident(runs),
            resident(runs) / resident(&kubo),
            median(runs, |run| run.cpu_share * 100.0),
        );
    }
}

fn watch(pid: u32) -> Run {
    let start = Instant::now();
    while share(pid, Duration::from_secs(1)) > SETTLED && start.elapsed() < SETTLING_MAX {}
    let cpu_share = share(pid, WATCHED);
    Run {
        resident_mib: memory_mib(pid, "VmRSS:").unwrap(),
        cpu_share,
    }
}

/// Share of a processor that a process uses during this time.
fn share(pid: u32, time: Duration) -> f64 {
    let before = cpu_secs(pid);
    thread::sleep(time);
    (cpu_secs(pid) - before) / time.as_secs_f64()
}
