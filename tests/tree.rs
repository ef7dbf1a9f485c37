//! The real tree with real tarballs: every package is built from source and does its job.
//!
//! Only the command line is used, in a home of its own. Sources come from their origins, on Debian and its kin from the
//! machine's own mirrors first. It takes some minutes. Where there is no sandbox, or no origin can be reached, it says so
//! and passes, unless P2PKGS_REQUIRE_SANDBOX or P2PKGS_REQUIRE_ORIGINS are set, as they are in CI.

#![allow(clippy::unwrap_used, clippy::panic)] // What must not happen fails the test.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use builder::testing::{REQUIRE_SANDBOX, can_go_on};

/// Set to 1 where it is a failure that no origin can be reached.
const REQUIRE_ORIGINS: &str = "P2PKGS_REQUIRE_ORIGINS";
/// How often sources are asked for: origins are other people's servers, and one that is slow today is no fault of ours.
const TRIES: usize = 3;
/// Set to a file that holds the gcc seed's archive, to have its packages built, which takes as long as a stage of it.
const GCC_SEED: &str = "P2PKGS_GCC_SEED";
/// Seeds, which are used by builds and checked by their digests. Only the first is made here: the other takes too long.
const SEEDS: [&str; 2] = ["seed", "seed-gcc"];
/// Packages that are built twice: quick ones, by hand, by configure and by make alone.
const BUILT_TWICE: [&str; 4] = ["bzip2", "dash", "lua", "tree"];

fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All packages but the seeds.
fn packages() -> BTreeSet<String> {
    let entries = fs::read_dir(project().join("pkg")).unwrap();
    let folders = entries
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.path().is_dir());
    let names = folders.map(|entry| entry.file_name().into_string().unwrap());
    names.filter(|name| !SEEDS.contains(&&**name)).collect()
}

/// Packages that are built from this seed and from nothing that another one made.
fn packages_of(seed: &str) -> BTreeSet<String> {
    let is_of = |package: &String| {
        let file = project().join("pkg").join(package).join("build-deps");
        let list = fs::read_to_string(file).unwrap_or_default();
        list.lines().any(|dep| dep == format!("../{seed}"))
    };
    packages().into_iter().filter(is_of).collect()
}

#[test]
fn every_package_has_a_check() {
    let has_check = |name: &String| project().join("pkg").join(name).join("check").is_file();
    let checked: BTreeSet<_> = packages().into_iter().filter(has_check).collect();
    assert_eq!(checked, packages());
    let built: BTreeSet<_> = SEEDS.into_iter().flat_map(packages_of).collect();
    assert_eq!(built, packages(), "each is built from a seed");
}

/// Whoever has made the small seed in a minute can build and try its packages, without the half hour of the other.
#[test]
fn no_package_of_the_tiny_seed_needs_the_other_one_even_to_be_checked() {
    let [tiny, gcc] = SEEDS;
    let home = Home(tempfile::tempdir().unwrap());
    for package in packages_of(tiny) {
        let checked = project().join("pkg").join(&package).join("check-deps");
        let tools = fs::read_to_string(checked).unwrap_or_default();
        let tools = tools.lines().map(|dep| dep.trim_start_matches("../"));
        let wanted: Vec<_> = tools.chain([&*package]).collect();
        let mut plan = vec!["--offline", "build", "--dry-run", "--no-substitutes"];
        plan.extend(wanted);
        let plan = home.run(&plan);
        assert!(plan.status.success(), "{package}: {}", said(&plan));
        let plan = String::from_utf8_lossy(&plan.stdout).into_owned();
        assert!(!plan.contains(gcc), "{package}: {plan}");
    }
}

/// A home in a temporary directory.
struct Home(tempfile::TempDir);

impl Home {
    /// Runs a command in a new folder. What the tester's environment says of p2pkgs is left out.
    fn run(&self, args: &[&str]) -> Output {
        let folder = tempfile::tempdir_in(self.0.path()).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_p2pkgs"));
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if text.starts_with("P2PKGS_") || text.starts_with("PKG_") {
                command.env_remove(&name);
            }
        }
        command
            .env("P2PKGS_HOME", self.0.path().join("home"))
            .env("P2PKGS_TREE", project())
            .env("P2PKGS_PROFILE", "lan")
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .args(args)
            .output()
            .unwrap()
    }

    /// Takes all sources of packages from their origins; `Err` where none of them can be reached.
    fn fetch_sources(&self, packages: &BTreeSet<String>) -> Result<(), String> {
        let mut command = vec!["mirror", "seed"];
        command.extend(packages.iter().map(String::as_str));
        for _ in 0..TRIES {
            let fetched = self.run(&command);
            if fetched.status.success() {
                return Ok(());
            }
            if fetched.stdout.is_empty() {
                let said = said(&fetched);
                let last = said.lines().last().unwrap_or_default();
                return Err(format!("no origin can be reached: {last}"));
            }
        }
        // What is missing may be needed by few: the build names them.
        Ok(())
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The digest in a seed's `fetch`.
fn pinned(seed: &str) -> String {
    let fetch = fs::read_to_string(project().join("pkg").join(seed).join("fetch")).unwrap();
    let pin = fetch.lines().find_map(|line| line.strip_prefix("sha256: "));
    pin.unwrap().to_owned()
}

/// Whether there is a sandbox to build in.
fn sandbox_works() -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let sandbox = builder::Sandbox::find(&path).map(|_| ());
    can_go_on(&sandbox.map_err(|e| e.to_string()), REQUIRE_SANDBOX)
}

/// Builds packages without asking anybody, and tries them; returns what went wrong.
fn build_and_check(home: &Home, packages: &BTreeSet<String>) -> Vec<String> {
    let names = packages.iter().map(String::as_str);
    let args: Vec<_> = ["check", "--no-substitutes"]
        .into_iter()
        .chain(names)
        .collect();
    let checked = home.run(&args);
    if checked.status.success() {
        return Vec::new();
    }
    vec![said(&checked)]
}

#[test]
fn every_package_of_the_tiny_seed_is_built_from_source_and_does_its_job() {
    if !sandbox_works() {
        return;
    }
    let [seed, _] = SEEDS;
    let packages = packages_of(seed);
    let home = Home(tempfile::tempdir().unwrap());
    if !can_go_on(&home.fetch_sources(&packages), REQUIRE_ORIGINS) {
        return;
    }
    let made = home.run(&["bootstrap", "rebuild", "tiny"]);
    assert!(made.status.success(), "{}", said(&made));
    assert_eq!(String::from_utf8_lossy(&made.stdout).trim(), pinned(seed));
    made_by_itself_as_another_host(&home, seed);

    let mut failures = build_and_check(&home, &packages);
    for package in BUILT_TWICE {
        let again = home.run(&["build", "--check", package]);
        if !again.status.success() {
            failures.push(format!("{package}, once more: {}", said(&again)));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

/// The unpacked seed is a system of its own, with another compiler, libc and tools than this machine's.
fn made_by_itself_as_another_host(home: &Home, seed: &str) {
    let root = home.0.path().join("another-host");
    let root = root.to_str().unwrap();
    let placed = home.run(&["fetch", seed, "--into", root]);
    assert!(placed.status.success(), "{}", said(&placed));
    let made = home.run(&["bootstrap", "verify", "tiny", "--from", root]);
    assert!(made.status.success(), "{}", said(&made));
    assert_eq!(String::from_utf8_lossy(&made.stdout).trim(), pinned(seed));
}

#[test]
fn the_packages_of_the_gcc_seed_are_planned_from_it_and_their_sources() {
    let [_, seed] = SEEDS;
    let packages = packages_of(seed);
    assert!(packages.contains("gcc"));
    let home = Home(tempfile::tempdir().unwrap());
    let mut plan = vec!["--offline", "build", "--dry-run", "--no-substitutes"];
    plan.extend(packages.iter().map(String::as_str));
    let plan = home.run(&plan);
    assert!(plan.status.success(), "{}", said(&plan));
    let plan = String::from_utf8_lossy(&plan.stdout).into_owned();
    let planned = |what: &str| {
        plan.lines()
            .filter_map(|line| line.strip_prefix(what).map(str::to_owned))
            .collect::<BTreeSet<_>>()
    };
    // And what they need when they run, which may be of the other world.
    assert!(planned("build ").is_superset(&packages), "{plan}");
    let sources = planned("source ");
    assert!(sources.contains(seed), "{plan}");
    for package in &packages {
        let its = |source: &String| source.starts_with(&format!("{package}/"));
        assert!(sources.iter().any(its), "{package}: {plan}");
    }
}

/// It takes too long for every run: elsewhere the recipes are only planned.
#[test]
fn every_package_of_the_gcc_seed_is_built_where_the_seed_is_at_hand() {
    let [_, seed] = SEEDS;
    let file = std::env::var(GCC_SEED);
    let missing = |_| format!("{GCC_SEED} names no file with the gcc seed");
    let at_hand = file.as_ref().map(|_| ()).map_err(missing);
    if !can_go_on(&at_hand, GCC_SEED) || !sandbox_works() {
        return;
    }
    let file = file.unwrap();
    let packages = packages_of(seed);
    let home = Home(tempfile::tempdir().unwrap());
    if !can_go_on(&home.fetch_sources(&packages), REQUIRE_ORIGINS) {
        return;
    }
    let added = home.run(&["mirror", "add", &file]);
    assert!(added.status.success(), "{}", said(&added));
    let verified = home.run(&["bootstrap", "verify", "gcc"]);
    assert!(verified.status.success(), "{}", said(&verified));
    assert_eq!(
        String::from_utf8_lossy(&verified.stdout).trim(),
        pinned(seed)
    );
    // That has built them all.
    let failures = build_and_check(&home, &packages);
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}
