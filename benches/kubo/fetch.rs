//! One file from node to node, in all four directions between ours and Kubo.
//!
//! The holder is a daemon that holds the file, started anew for each run. The seeker's store is empty:
//!
//! * **with the file beside it**: ours by `p2pkgs fetch CID -o FILE`, a command with a node of its own that was told of the
//!   holder; Kubo by `ipfs get -o FILE CID` with a daemon that is connected to the holder already. Both have the file twice
//!   afterwards, in the store and beside it. Ours is on the disk by then, Kubo's on its way there.
//! * **into the store alone**: `ipfs pin add CID`, which asks for more at once than `get`, beside ours with `-o -` (it still
//!   writes the file, into nothing).
//!
//! Kubo has no routing (`Routing.Type=none`): nothing but the transfer is measured. All speak TCP. Files are hashed afterwards.

use std::fs;
use std::path::Path;
use std::process::Command;

use base::Sha256;

use super::support::{self, Daemon, Home, Kubo, MODERN, Role, World};
use super::usage::{self, Used, Watched};
use super::{Extent, median};

/// A kind of run.
#[derive(Clone, Copy, Debug)]
struct Kind {
    from: Side,
    to: Side,
    /// Whether the seeker writes the file beside its store too.
    beside: bool,
}

impl Kind {
    const fn new(from: Side, to: Side, beside: bool) -> Self {
        Self { from, to, beside }
    }

    /// The seeker's command.
    const fn command(self) -> &'static str {
        match (self.to, self.beside) {
            (Side::Kubo, true) => "get -o FILE",
            (Side::Kubo, false) => "pin add",
            (Side::Ours, true) => "fetch -o FILE",
            (Side::Ours, false) => "fetch -o -",
        }
    }
}

/// All kinds. Each is compared with the one from Kubo to Kubo before it.
const KINDS: [Kind; 6] = [
    Kind::new(Side::Kubo, Side::Kubo, true),
    Kind::new(Side::Ours, Side::Ours, true),
    Kind::new(Side::Ours, Side::Kubo, true),
    Kind::new(Side::Kubo, Side::Ours, true),
    Kind::new(Side::Kubo, Side::Kubo, false),
    Kind::new(Side::Ours, Side::Ours, false),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Kubo,
    Ours,
}

impl Side {
    const fn name(self) -> &'static str {
        match self {
            Self::Kubo => "Kubo",
            Self::Ours => "p2pkgs",
        }
    }
}

/// One run.
#[derive(Clone, Copy, Debug)]
struct Run {
    secs: f64,
    holder: Used,
    seeker: Used,
}

/// Those who hold the file, between their runs.
struct Holders<'w> {
    kubo: Option<Kubo<'w>>,
    ours: Home<'w>,
}

/// A holder that runs.
enum Holder<'w> {
    Kubo(Kubo<'w>),
    Ours(Daemon),
}

impl<'w> Holders<'w> {
    fn new(world: &'w World, file: &Path, cid: &str) -> Self {
        let ours = world.home("holder");
        assert_eq!(ours.add(file), cid);
        let kubo = start_kubo(world);
        assert_eq!(kubo.add(file), cid);
        Self {
            kubo: Some(kubo),
            ours,
        }
    }

    /// Starts one anew.
    fn start(&mut self, side: Side) -> Holder<'w> {
        match side {
            Side::Kubo => Holder::Kubo(self.kubo.take().unwrap().restart()),
            Side::Ours => Holder::Ours(self.ours.daemon(Role::DhtServer, None)),
        }
    }

    fn put_back(&mut self, holder: Holder<'w>) {
        match holder {
            Holder::Kubo(kubo) => self.kubo = Some(kubo),
            Holder::Ours(daemon) => daemon.kill(),
        }
    }
}

impl Holder<'_> {
    fn address(&self) -> String {
        match self {
            Self::Kubo(kubo) => kubo.address(),
            Self::Ours(daemon) => daemon.address(),
        }
    }

    fn pid(&self) -> u32 {
        match self {
            Self::Kubo(kubo) => kubo.pid(),
            Self::Ours(daemon) => daemon.pid(),
        }
    }
}

fn start_kubo(world: &World) -> Kubo<'_> {
    Kubo::start_with(world, MODERN, Role::DhtClient, None, |setup| {
        setup.config["Routing"]["Type"] = "none".into();
    })
}

/// Measures and prints.
pub fn compare(world: &World, file: &Path, cid: &str, sha256: &Sha256, extent: Extent) {
    let mut holders = Holders::new(world, file, cid);
    let mut runs: [Vec<Run>; KINDS.len()] = Default::default();
    for round in 0..extent.rounds {
        for (kind, runs) in KINDS.iter().zip(&mut runs) {
            let (from, to) = (kind.from.name(), kind.to.name());
            eprintln!(
                "fetch, round {}: {from} to {to}, {}",
                round + 1,
                kind.command()
            );
            let holder = holders.start(kind.from);
            let got = kind.beside.then(|| world.path("got"));
            let run = match kind.to {
                Side::Kubo => seek_with_kubo(world, &holder, cid, got.as_deref()),
                Side::Ours => seek_with_ours(world, &holder, cid, got.as_deref()),
            };
            runs.push(run);
            holders.put_back(holder);
            if let Some(got) = got {
                assert_eq!(support::sha256_of(&got), *sha256, "{kind:?}");
                fs::remove_file(got).unwrap();
            }
        }
    }
    print(&runs, extent);
}

fn seek_with_ours(world: &World, holder: &Holder<'_>, cid: &str, got: Option<&Path>) -> Run {
    let home = world.home("seeker");
    let address = holder.address();
    let output = got.map_or("-", |got| got.to_str().unwrap());
    let args = ["fetch", cid, "-o", output];
    let run = measure(home.command(Some(&address), &args), holder, None);
    fs::remove_dir_all(home.path("")).unwrap();
    run
}

fn seek_with_kubo(world: &World, holder: &Holder<'_>, cid: &str, got: Option<&Path>) -> Run {
    let kubo = start_kubo(world);
    kubo.connect(&holder.address());
    let command = match got {
        Some(got) => kubo.command(&["get", "--output", got.to_str().unwrap(), cid]),
        None => kubo.command(&["pin", "add", "--progress=false", cid]),
    };
    let run = measure(command, holder, Some(kubo.pid()));
    kubo.remove();
    run
}

fn measure(command: Command, holder: &Holder<'_>, daemon: Option<u32>) -> Run {
    // What others left to be written is not this one's work.
    rustix::fs::sync();
    let holder = Watched::from_now(holder.pid());
    let daemon = daemon.map(Watched::from_now);
    let (secs, command) = usage::run(command);
    Run {
        secs,
        holder: holder.used(),
        seeker: command + daemon.map_or(Used::default(), |daemon| daemon.used()),
    }
}

fn print(runs: &[Vec<Run>], extent: Extent) {
    println!(
        "| {} MiB over loopback | MB/s | times Kubo's | CPU s/GiB, holder + seeker | of Kubo's | peak MiB, holder / seeker | of Kubo's |",
        extent.bytes >> 20
    );
    println!("|---|---:|---:|---:|---:|---:|---:|");
    let rate = |runs: &[Run]| extent.rate(median(runs, |run| run.secs));
    let cpu = |run: &Run| extent.per_gib(run.holder.cpu_secs + run.seeker.cpu_secs);
    let peak = |run: &Run| run.holder.peak_mib + run.seeker.peak_mib;
    let mut kubo = &runs[0];
    for (kind, runs) in KINDS.iter().zip(runs) {
        if (kind.from, kind.to) == (Side::Kubo, Side::Kubo) {
            kubo = runs;
        }
        println!(
            "| {} → {}, `{}` | {:.0} | {:.2} | {:.2} + {:.2} | {:.2} | {:.0} / {:.0} | {:.2} |",
            kind.from.name(),
            kind.to.name(),
            kind.command(),
            rate(runs),
            rate(runs) / rate(kubo),
            extent.per_gib(median(runs, |run| run.holder.cpu_secs)),
            extent.per_gib(median(runs, |run| run.seeker.cpu_secs)),
            median(runs, cpu) / median(kubo, cpu),
            median(runs, |run| run.holder.peak_mib),
            median(runs, |run| run.seeker.peak_mib),
            median(runs, peak) / median(kubo, peak),
        );
    }
    println!();
}
