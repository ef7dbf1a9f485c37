//! Upstream's own scripts beside our program, on upstream's own tree.
//!
//! The checkout is copied. Both run in the same sandbox, without network and with nothing to be written to but the copy, and
//! `sh` is bash there, because the scripts use `$'\n'`. Needed: `bwrap`, `bash`, `recsel` (recutils), `curl`, GNU tar, and a `redo` in
//! `PATH`: apenwarr's redo or goredo.
//!
//! Nothing is compiled: the outputs of all packages but the seeds are stand-ins of one file each. Upstream's scripts get them
//! from a package cache of their own kind, in a folder; to ours they are in the store.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::usage::{self, Used};
use crate::{Bench, median};

/// What the scripts call.
const TOOLS: [&str; 7] = [
    "bwrap",
    "bash",
    "recsel",
    "curl",
    "tar",
    "redo",
    "redo-ifchange",
];
/// Where in the copy the stand-ins lie.
const CACHE: &str = "cache";

/// One thing that both can do.
struct Task {
    name: String,
    upstream: Command,
    ours: Command,
    /// Whether what the scripts have found out is forgotten before each run.
    from_nothing: bool,
}

/// Compares and prints a table; says what is missing if something is.
pub fn compare(checkout: &Path, dir: &Path, rounds: usize) {
    let is_there = |tool: &&str| {
        let mut which = Command::new("sh");
        which.args(["-c", &format!("command -v {tool}")]);
        which
            .stdout(Stdio::null())
            .status()
            .is_ok_and(|s| s.success())
    };
    let missing: Vec<_> = TOOLS.into_iter().filter(|tool| !is_there(tool)).collect();
    if !missing.is_empty() {
        eprintln!("skipped: upstream's scripts need {}", missing.join(", "));
        return;
    }
    let side = Side::new(checkout, dir);
    let mut tasks = side.tasks();
    // Once each, so that everything is there.
    for task in &mut tasks {
        usage::run_whole(&mut task.upstream);
        usage::run_whole(&mut task.ours);
    }
    println!();
    println!(
        "| upstream's tree | upstream's scripts: ms | CPU ms | peak MiB | `p2pkgs`: ms | CPU ms | peak MiB |"
    );
    println!("|---|---:|---:|---:|---:|---:|---:|");
    for task in &mut tasks {
        let (mut theirs, mut ours) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            if task.from_nothing {
                side.forget();
            }
            theirs.push(usage::run_whole(&mut task.upstream));
            ours.push(usage::run_whole(&mut task.ours));
        }
        println!(
            "| {} | {} | {} |",
            task.name,
            figures(&theirs),
            figures(&ours)
        );
    }
}

/// Time, processor time and memory of runs, as columns.
fn figures(runs: &[(f64, Used)]) -> String {
    let ms = median(runs, |(secs, _)| secs * 1000.0);
    let cpu_ms = median(runs, |(_, used)| used.cpu_secs * 1000.0);
    let peak_mib = median(runs, |(_, used)| used.peak_mib);
    format!("{ms:.0} | {cpu_ms:.0} | {peak_mib:.0}")
}

/// Upstream's tree, and a home of ours beside it.
struct Side {
    dir: PathBuf,
    packages: Vec<String>,
}

impl Side {
    fn new(checkout: &Path, dir: &Path) -> Self {
        let dir = dir.join("upstream");
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(dir.join(CACHE)).unwrap();
        let copied = Command::new("cp")
            .arg("-a")
            .arg(checkout)
            .arg(dir.join("tree"))
            .status();
        assert!(copied.unwrap().success());
        let mut packages: Vec<String> = fs::read_dir(dir.join("tree/pkg"))
            .unwrap()
            .map(|entry| entry.unwrap())
            .filter(|entry| entry.path().is_dir())
            .map(|entry| entry.file_name().into_string().unwrap())
            .collect();
        packages.sort();
        let side = Self { dir, packages };
        side.forget();
        side.fill();
        side
    }

    /// All packages that are built.
    fn built(&self) -> impl Iterator<Item = &String> {
        let is_built = |name: &&String| self.package(name).join("build").exists();
        self.packages.iter().filter(is_built)
    }

    fn package(&self, name: &str) -> PathBuf {
        self.dir.join("tree/pkg").join(name)
    }

    /// Puts an output of each package where each of the two looks for it.
    fn fill(&self) {
        usage::run_whole(&mut self.upstream_hashes());
        let stand_in = self.dir.join("stand-in");
        fs::create_dir(&stand_in).unwrap();
        for name in self.built() {
            fs::write(stand_in.join("name"), name).unwrap();
            let pkghash = fs::read_to_string(self.package(name).join(".pkghash")).unwrap();
            let archive = self
                .dir
                .join(CACHE)
                .join(format!("{}.tar.gz", pkghash.trim()));
            let mut tar = Command::new("tar");
            tar.arg("-C")
                .arg(&stand_in)
                .arg("-czf")
                .arg(archive)
                .arg(".");
            assert!(tar.status().unwrap().success());
        }
        let bench = Bench { dir: &self.dir };
        bench.fill_store(self.built().cloned().collect());
    }

    /// Removes all that the scripts have found out.
    fn forget(&self) {
        let _ = fs::remove_dir_all(self.dir.join("tree/.redo"));
        for name in &self.packages {
            for made in [".pkghash", ".closure", ".bclosure", ".pkg.tar.gz"] {
                let _ = fs::remove_file(self.package(name).join(made));
            }
        }
    }

    fn tasks(&self) -> Vec<Task> {
        let (all, built) = (self.packages.len(), self.built().count());
        vec![
            Task {
                name: format!("package hashes of all {all} packages, the first time"),
                upstream: self.upstream_hashes(),
                ours: self.ours("hash", self.packages.iter()),
                from_nothing: true,
            },
            Task {
                name: "the same again, nothing has changed".to_owned(),
                upstream: self.upstream_hashes(),
                ours: self.ours("hash", self.packages.iter()),
                from_nothing: false,
            },
            Task {
                name: format!("build all {built} that are no seeds, nothing to do"),
                upstream: self.upstream_build(),
                ours: self.ours("build", self.built()),
                from_nothing: false,
            },
        ]
    }

    fn upstream_hashes(&self) -> Command {
        let mut command = self.boxed("redo-ifchange");
        command.args(
            self.packages
                .iter()
                .map(|name| format!("pkg/{name}/.pkghash")),
        );
        command
    }

    fn upstream_build(&self) -> Command {
        let mut command = self.boxed("./bin/build-packages-ifchange");
        let cache = format!("file://{}", self.dir.join(CACHE).display());
        command.env("PKG_CACHE_URL", cache);
        command.args(self.built().map(|name| format!("pkg/{name}")));
        command
    }

    fn ours<'a>(&self, verb: &str, names: impl Iterator<Item = &'a String>) -> Command {
        let plain = Bench { dir: &self.dir }.command(&[verb]);
        let mut command = self.boxed(plain.get_program());
        for (name, value) in plain.get_envs() {
            command.env(name, value.unwrap_or_default());
        }
        command.args(plain.get_args()).args(names);
        command
    }

    /// A program in the sandbox, in the tree.
    fn boxed(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let shell = fs::canonicalize("/bin/sh").unwrap();
        let bash = fs::canonicalize("/bin/bash").unwrap();
        let mut command = Command::new("bwrap");
        // No namespace of processes: what the init of one has waited for is not counted as time of its parent.
        command
            .args(["--unshare-user", "--unshare-net", "--unshare-ipc"])
            .args(["--die-with-parent", "--ro-bind", "/", "/"])
            .arg("--ro-bind")
            .args([bash, shell])
            .args(["--dev", "/dev", "--tmpfs", "/tmp"])
            .arg("--bind")
            .args([&self.dir, &self.dir])
            .arg("--chdir")
            .arg(self.dir.join("tree"))
            .arg("--")
            .arg(program);
        command
    }
}
