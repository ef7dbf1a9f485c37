//! End-to-end tests: the real program, real processes, real sandboxes, loopback only.
//!
//! One binary, so that it is linked once. Each module is one concern; the last test here finds files that nobody listed.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr)] // What must not happen fails the test.

/// What the tests stand on.
mod support;

/// Names and hashes: `hash`, `closure`, `why`, `graph`, on a tree whose hashes are pinned.
mod names;

/// The command line itself: usage errors, help, configuration, keys, stdout and stderr.
mod cli;

/// Comparing with what others signed: `challenge`.
mod challenge;

/// The exit codes.
mod exit_codes;

/// Building: sandbox, logs, failures, `--check`, `--dry-run`, interruption, several processes at once.
mod build;

/// Building on another machine over a real ssh: `build --on`.
mod remote;

/// Writing packages: `check`, `lint`.
mod packaging;

/// Using what was built: `venv`, `run`, `export`.
mod usage;

/// Images that others load and run: `export --format oci|squashfs|spdx`.
mod images;

/// Sources: mirrors, origins, other content, where bytes came from.
mod sources;

/// Content in one file: `car export`, `car import`, paths through directories.
mod car;

/// Packages with all they are made from in one file: `bundle`, `bundle import`.
mod bundle;

/// Names that can be pointed elsewhere: `name publish`, `name resolve`, `fetch ipns://…`.
mod ipns;

/// The package tree as signed heads: `tree publish`, `tree sync`, `tree sign`.
mod tree_heads;

/// The main job: mirror, bootstrap peer, builder, user, second user, a miss.
mod main_job;

/// A new version of a package, of which only moves what changed.
mod dedup;

/// Machines that find each other on the local network.
mod lan;

/// Package caches over every door.
mod caches;

/// Package caches that say, signed, what they hold.
mod cache_heads;

/// Statements about keys that come along with packages.
mod key_news;

/// Several caches at once, most of them bad, and closures that are asked for at once.
mod doors;
/// The daemon's HTTP door: files, blocks, metrics, the status page in a real browser.
mod http;

/// Machines behind address translation.
mod nat;
/// The daemon as a service: what it tells its manager, limits that change while it runs.
mod service;

/// Closed networks.
mod private_swarm;

/// What of a tree can be had from others: `weather`.
mod weather;

/// Groups that share a key in an open network.
mod group;

/// Whom users believe.
mod trust;

/// Rules about keys: packages, days, nested thresholds, faults, statements about keys.
mod policy;

/// What is kept and what goes: `pin`, `unpin`, `gc`.
mod keeping;

/// Processes that are killed, and homes that survive it.
mod crashes;

/// Peers that lie, one file per attack.
mod hostile;

/// A test file that is not listed above would never run.
#[test]
fn no_test_file_is_forgotten() {
    let here = support::project().join("tests/e2e");
    for (folder, index) in [(here.clone(), "main.rs"), (here.join("hostile"), "mod.rs")] {
        let text = std::fs::read_to_string(folder.join(index)).unwrap();
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            let is_index = path.file_name().unwrap() == index;
            assert!(
                is_index || text.contains(&format!("mod {name};")),
                "{} is not listed",
                path.display()
            );
        }
    }
}
