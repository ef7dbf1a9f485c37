//! Packages that are built with each other, the same on every run, as recipes, as a makefile, and for ninja.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use base::Sha256;

/// How many others a package is built with.
const DEPENDENCIES: usize = 5;

/// For each package what it is built with, all of which come before it. The first is a seed.
#[derive(Debug)]
pub struct Graph(Vec<Vec<usize>>);

impl Graph {
    /// So many packages.
    pub fn new(packages: usize) -> Self {
        let mut random = 0x9e37_79b9_7f4a_7c15_u64;
        let mut below = |limit: usize| {
            // Knuth's constants for a generator of 64 bits, of which the upper ones are good.
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            usize::try_from(random >> 33).unwrap() % limit
        };
        let deps = |number: usize| {
            let mut deps: Vec<_> = (0..DEPENDENCIES.min(number))
                .map(|_| below(number))
                .collect();
            deps.sort_unstable();
            deps.dedup();
            deps
        };
        Self((0..packages).map(deps).collect())
    }

    /// Of all packages.
    pub fn names(&self) -> impl Iterator<Item = String> {
        (0..self.0.len()).map(name)
    }

    /// A package tree; the seed's digest is given.
    pub fn write_tree(&self, dir: &Path, seed: &str) {
        for (number, deps) in self.0.iter().enumerate() {
            let package = dir.join("pkg").join(name(number));
            fs::create_dir_all(&package).unwrap();
            if number == 0 {
                let fetch = format!("url: bootstrap:seed\nfile: seed.tar.zst\nsha256: {seed}\n");
                fs::write(package.join("fetch"), fetch).unwrap();
                continue;
            }
            let build = package.join("build");
            fs::write(&build, format!("#!/bin/sh\nset -eu\n: {number}\n")).unwrap();
            fs::set_permissions(&build, fs::Permissions::from_mode(0o755)).unwrap();
            let deps: String = deps
                .iter()
                .map(|dep| format!("../{}\n", name(*dep)))
                .collect();
            fs::write(package.join("build-deps"), deps).unwrap();
            fs::write(package.join("fetch"), fetch(number)).unwrap();
        }
    }

    /// A makefile whose targets are there.
    pub fn write_makefile(&self, dir: &Path) {
        let mut text = String::from("all:");
        for name in self.names() {
            let _ = write!(text, " {name}");
        }
        text.push('\n');
        for (number, deps) in self.0.iter().enumerate() {
            let _ = write!(text, "{}:", name(number));
            for dep in deps {
                let _ = write!(text, " {}", name(*dep));
            }
            text.push_str("\n\ttouch $@\n");
        }
        fs::create_dir_all(dir).unwrap();
        fs::write(dir.join("Makefile"), text).unwrap();
        run_once("make", dir);
    }

    /// What ninja reads, and its targets.
    pub fn write_ninja(&self, dir: &Path) {
        let mut text = String::from("rule touch\n  command = touch $out\n");
        for (number, deps) in self.0.iter().enumerate() {
            let _ = write!(text, "build {}: touch", name(number));
            for dep in deps {
                let _ = write!(text, " {}", name(*dep));
            }
            text.push('\n');
        }
        fs::create_dir_all(dir).unwrap();
        fs::write(dir.join("build.ninja"), text).unwrap();
        run_once("ninja", dir);
    }
}

fn name(number: usize) -> String {
    format!("package-{number:05}")
}

/// One source, as most packages have. Nothing is fetched, so it may be any.
fn fetch(number: usize) -> String {
    let (name, sha256) = (name(number), Sha256::of(&number.to_le_bytes()));
    format!("url: https://example.org/{name}/{name}-1.0.tar.gz\nsha256: {sha256}\n")
}

/// Makes what is to be there. One that is not installed is found out about later.
fn run_once(program: &str, dir: &Path) {
    let _ = std::process::Command::new(program)
        .current_dir(dir)
        .output();
}
