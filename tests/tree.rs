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
/// The seed is used by every build and checked by its digest.
const SEED: &str = "seed";
/// Packages that are built twice: quick ones, by hand, by configure and by make alone.
const BUILT_TWICE: [&str; 4] = ["bzip2", "dash", "lua", "tree"];

fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All packages but the seed.
fn packages() -> BTreeSet<String> {
    let entries = fs::read_dir(project().join("pkg")).unwrap();
    let folders = entries
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.path().is_dir());
    let names = folders.map(|entry| entry.file_name().into_string().unwrap());
    names.filter(|name| name != SEED).collect()
}

#[test]
fn every_package_has_a_check() {
    let has_check = |name: &String| project().join("pkg").join(name).join("check").is_file();
    let without: Vec<_> = packages()
        .into_iter()
        .filter(|name| !has_check(name))
        .collect();
    assert_eq!(without, [""; 0]);
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

    /// Takes all sources from their origins; `Err` where none of them can be reached.
    fn fetch_sources(&self) -> Result<(), String> {
        for _ in 0..TRIES {
            let fetched = self.run(&["mirror", "seed", "--all"]);
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

/// The digest in the seed's `fetch`.
fn pinned_seed() -> String {
    let fetch = fs::read_to_string(project().join("pkg").join(SEED).join("fetch")).unwrap();
    let pin = fetch.lines().find_map(|line| line.strip_prefix("sha256: "));
    pin.unwrap().to_owned()
}

#[test]
fn every_package_is_built_from_source_and_does_its_job() {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let sandbox = builder::Sandbox::find(&path).map(|_| ());
    if !can_go_on(&sandbox.map_err(|e| e.to_string()), REQUIRE_SANDBOX) {
        return;
    }
    let home = Home(tempfile::tempdir().unwrap());
    if !can_go_on(&home.fetch_sources(), REQUIRE_ORIGINS) {
        return;
    }
    let made = home.run(&["bootstrap", "rebuild", "tiny"]);
    assert!(made.status.success(), "{}", said(&made));
    assert_eq!(String::from_utf8_lossy(&made.stdout).trim(), pinned_seed());

    let mut failures = Vec::new();
    let mut expect = |what: String, output: &Output| {
        if !output.status.success() {
            failures.push(format!("{what}: {}\n{}", output.status, said(output)));
        }
    };
    expect(
        "check".into(),
        &home.run(&["check", "--no-substitutes", "--all"]),
    );
    for package in BUILT_TWICE {
        expect(
            format!("{package}, once more"),
            &home.run(&["build", "--check", package]),
        );
    }
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}
