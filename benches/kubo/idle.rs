//! Daemons that have nothing to do: both are servers of a DHT on loopback in which nobody else is. Ours a second time with
//! many keys to announce, which there is nobody to take.

use std::thread;
use std::time::{Duration, Instant};

use base::{Multihash, Sha256};
use store::{ProvideKind, Store};

use super::support::{Home, Kubo, MODERN, Role, World};
use super::usage::{cpu_secs, memory_mib};
use super::{Extent, median};

/// Keys of a large mirror.
const KEYS: u32 = 100_000;
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
    let large = world.home("idle-large");
    add_keys(&large);
    let (mut ours, mut ours_large, mut kubo) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..extent.rounds {
        eprintln!("idle, round {}", round + 1);
        for (home, runs) in [(&world.home("idle"), &mut ours), (&large, &mut ours_large)] {
            let daemon = home.daemon(Role::DhtServer, None);
            runs.push(watch(daemon.pid()));
        }
        let daemon = Kubo::start(world, MODERN, Role::DhtServer, None);
        kubo.push(watch(daemon.pid()));
        daemon.remove();
    }
    println!(
        "| daemon without work | resident MiB | of Kubo's | CPU over 10 s, % of a processor |"
    );
    println!("|---|---:|---:|---:|");
    let resident = |runs: &[Run]| median(runs, |run| run.resident_mib);
    for (name, runs) in [
        ("p2pkgs", &ours),
        ("p2pkgs, 100,000 keys to announce", &ours_large),
        ("Kubo", &kubo),
    ] {
        println!(
            "| {name} | {:.0} | {:.2} | {:.2} |",
            resident(runs),
            resident(runs) / resident(&kubo),
            median(runs, |run| run.cpu_share * 100.0),
        );
    }
}

/// Has a home announce [`KEYS`] keys.
fn add_keys(home: &Home<'_>) {
    let store = Store::open(&home.path("store")).unwrap();
    let key = |n: u32| Multihash::sha2_256(&Sha256::of(&n.to_le_bytes()));
    let keys: Vec<_> = (0..KEYS).map(|n| (key(n), ProvideKind::Source)).collect();
    store.provide_all(&keys).unwrap();
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
