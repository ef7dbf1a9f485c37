//! A file into the store: `p2pkgs mirror add` beside `ipfs add`, of the same profile, and `sha256sum`.
//!
//! Ours hashes twice (the whole file, and each chunk), writes, **synchronises** and indexes; the file has a name and a pin
//! afterwards. `ipfs add` hashes each chunk, writes one file a chunk and pins; it does not synchronise. So it is measured a
//! second time, until the disk has everything. Both run without a daemon.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use super::support::{MODERN, Repo, World};
use super::usage::{self, Used};
use super::{Extent, median};

const OURS: &str = "p2pkgs mirror add";
const KUBO: &str = "ipfs add";
const KUBO_SYNCED: &str = "ipfs add, then sync";
const SHA256SUM: &str = "sha256sum";

/// Measures and prints; the file's CID.
pub fn compare(world: &World, file: &Path, extent: Extent) -> String {
    let kinds = [OURS, KUBO, KUBO_SYNCED, SHA256SUM];
    let mut runs: [Vec<(f64, Used)>; 4] = Default::default();
    let mut cid = String::new();
    for round in 0..extent.rounds {
        for (kind, runs) in kinds.iter().zip(&mut runs) {
            eprintln!("import, round {}: {kind}", round + 1);
            // What others left to be written is not this one's work.
            rustix::fs::sync();
            match *kind {
                OURS => {
                    let (run, named) = ours(world, file);
                    runs.push(run);
                    cid = named;
                }
                SHA256SUM => {
                    let mut command = Command::new("sha256sum");
                    command.arg(file);
                    runs.push(usage::run(command));
                }
                kind => runs.push(kubo(world, file, &cid, kind == KUBO_SYNCED)),
            }
        }
    }
    print(&kinds, &runs, extent);
    cid
}

fn ours(world: &World, file: &Path) -> ((f64, Used), String) {
    let home = world.home("import");
    let args = ["mirror", "add", file.to_str().unwrap()];
    let run = usage::run(home.command(None, &args));
    let cid = home.add(file);
    fs::remove_dir_all(home.path("")).unwrap();
    (run, cid)
}

fn kubo(world: &World, file: &Path, cid: &str, synced: bool) -> (f64, Used) {
    let repo = Repo::init(world, MODERN, |_| ());
    let mut run = usage::run(repo.command(&["add", "--quieter", file.to_str().unwrap()]));
    if synced {
        let start = Instant::now();
        rustix::fs::sync();
        run.0 += start.elapsed().as_secs_f64();
    }
    let kept = repo.run(&["pin", "ls", "--type", "recursive", "--quiet"]);
    assert!(kept.contains(cid), "Kubo holds {kept}, not {cid}");
    repo.remove();
    run
}

fn print(kinds: &[&str], runs: &[Vec<(f64, Used)>], extent: Extent) {
    let secs = |of: usize| median(&runs[of], |run| run.0);
    println!(
        "| {} MiB into the store | s | MB/s | CPU s/GiB | peak MiB | times `{KUBO}` | time against `{SHA256SUM}` |",
        extent.bytes >> 20
    );
    println!("|---|---:|---:|---:|---:|---:|---:|");
    for (number, kind) in kinds.iter().enumerate() {
        println!(
            "| {kind} | {:.2} | {:.0} | {:.2} | {:.0} | {:.2} | {:.2} |",
            secs(number),
            extent.rate(secs(number)),
            extent.per_gib(median(&runs[number], |run| run.1.cpu_secs)),
            median(&runs[number], |run| run.1.peak_mib),
            secs(1) / secs(number),
            secs(number) / secs(3),
        );
    }
    println!();
}
