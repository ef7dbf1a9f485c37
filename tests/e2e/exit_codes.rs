//! The exit codes, one after the other: scripts branch on them.
//!
//! Those of the daily commands are asserted where the commands are tested, all others here.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt as _;

use rustix::fs::{FlockOperation, flock};

use crate::support::{
    COMMAND_DEADLINE, Finished, P2PKGS, TestEnv, may_unshare, project, static_busybox,
};

#[test]
fn every_exit_code_of_the_help_is_asserted_by_a_test() {
    let help = TestEnv::new().home("user").ok(&["--help"]);
    let (_, table) = help.split_once("Exit codes:").unwrap();
    let codes: BTreeSet<_> = table
        .lines()
        .filter_map(|line| line.trim().split_once(' ')?.0.parse::<u8>().ok())
        .collect();
    let contract = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 70, 130];
    assert_eq!(codes, BTreeSet::from(contract), "{table}");
    let folder = fs::read_dir(project().join("tests/e2e")).unwrap();
    let tests: String = folder
        .filter_map(|entry| fs::read_to_string(entry.unwrap().path()).ok())
        .collect();
    for code in codes {
        let assertion = format!("assert_exit({code})");
        assert!(tests.contains(&assertion), "no test has `{assertion}`");
    }
}

#[test]
fn something_that_is_not_needed_has_no_chain_and_ends_with_1() {
    let env = TestEnv::new();
    let home = env.home("user");
    home.run(&["why", "hello", "greet"])
        .assert_exit(1)
        .assert_says("does not need");
}

#[test]
fn first_peers_that_cannot_be_reached_end_with_7() {
    let env = TestEnv::new();
    let home = env.home("user");
    let gone = env.home("gone").daemon(&[]);
    home.bootstrap_from(&gone);
    gone.kill();
    home.run(&["doctor"]).assert_exit(7);
    home.run(&["--offline", "node", "find", &"0".repeat(64)])
        .assert_exit(7);
}

#[test]
fn a_machine_without_bubblewrap_is_told_with_8_how_to_install_it() {
    let env = TestEnv::new();
    let home = env.home("user");
    let mut command = home.command(&["doctor"]);
    command.env("PATH", env.path("nothing"));
    let doctor = Finished::of(command, COMMAND_DEADLINE)
        .assert_exit(8)
        .assert_says("hint: ");
    assert!(
        doctor.stdout.contains("fail sandbox: "),
        "{}",
        doctor.stdout
    );
    let mut command = home.command(&["build", "hello"]);
    command.env("PATH", env.path("nothing"));
    if static_busybox().is_some() {
        Finished::of(command, COMMAND_DEADLINE)
            .assert_exit(8)
            .assert_says("install");
    }
}

#[test]
fn a_bubblewrap_that_may_not_is_told_with_8() {
    let env = TestEnv::new();
    let folder = env.path("refused");
    fs::create_dir(&folder).unwrap();
    let script = "#!/bin/sh\necho 'bwrap: setting up uid map: Permission denied' >&2\nexit 1\n";
    fs::write(folder.join("bwrap"), script).unwrap();
    fs::set_permissions(folder.join("bwrap"), fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = env.home("user").command(&["--offline", "doctor"]);
    command.env("PATH", folder);
    let doctor = Finished::of(command, COMMAND_DEADLINE)
        .assert_exit(8)
        .assert_says("hint: ");
    assert!(
        doctor.stdout.contains("fail sandbox: ") && doctor.stdout.contains("uid map"),
        "{}",
        doctor.stdout
    );
}

#[test]
fn a_second_daemon_in_one_home_ends_with_9() {
    let env = TestEnv::new();
    let home = env.home("user");
    let daemon = home.daemon(&[]);
    home.run(&["node", "run"])
        .assert_exit(9)
        .assert_says("`p2pkgs node status`");
    assert_eq!(home.ok(&["node", "id"]).trim_end(), daemon.peer_id());
    let status = home.ok(&["node", "status"]);
    assert!(
        status.contains(&format!("peer id: {}", daemon.peer_id())),
        "{status}"
    );
    let json: serde_json::Value =
        serde_json::from_str(&home.ok(&["node", "status", "--json"])).unwrap();
    assert_eq!(json["pid"].as_u64(), Some(u64::from(daemon.pid())));
    assert_eq!(daemon.stop(), Some(0));
    home.run(&["node", "status"])
        .assert_exit(1)
        .assert_says("no daemon runs");
}

#[test]
fn a_store_that_another_process_holds_ends_with_9() {
    let env = TestEnv::new();
    let home = env.home("user");
    home.ok(&["mirror", "list"]);
    let lock = File::open(home.path("store/lock")).unwrap();
    flock(&lock, FlockOperation::LockExclusive).unwrap();
    home.run(&["mirror", "list"])
        .assert_exit(9)
        .assert_says("hint: try again");
}

#[test]
fn a_full_disk_ends_with_10_and_loses_nothing() {
    if !may_unshare() {
        return;
    }
    let env = TestEnv::new();
    let home = env.home("user");
    fs::create_dir(home.path("store")).unwrap();
    fs::write(env.path("small"), vec![1; 64 << 10]).unwrap();
    fs::write(env.path("large"), vec![2; 8 << 20]).unwrap();
    // A disk of its own for the store, as long as the script runs; 16 MiB of it are to stay free.
    let script = r#"
        mount -t tmpfs -o size=20m tmpfs "$P2PKGS_HOME/store" || exit 99
        "$0" mirror add small >/dev/null && "$0" mirror add large
        code=$?
        "$0" mirror list
        exit $code"#;
    let mut full = home.command_of("unshare", &["-Urm", "sh", "-c", script, P2PKGS]);
    full.env("P2PKGS_STORE_KEEP_FREE", "16 MiB");
    let full = Finished::of(full, COMMAND_DEADLINE)
        .assert_exit(10)
        .assert_says("free some space");
    assert!(full.stdout.ends_with("small\n"), "{}", full.stdout);
    assert_eq!(full.stdout.lines().count(), 1, "{}", full.stdout);
}

#[test]
fn an_output_that_cannot_be_written_ends_with_10() {
    let env = TestEnv::new();
    let home = env.home("user");
    let full = home.command_of("sh", &["-c", r#""$0" graph >/dev/full"#, P2PKGS]);
    Finished::of(full, COMMAND_DEADLINE).assert_exit(10);
}

/// The switch that provokes it is part of debug builds only.
#[cfg(debug_assertions)]
#[test]
fn a_bug_ends_with_70_says_so_and_leaves_a_home_that_works() {
    if !crate::support::sandbox_works() {
        return;
    }
    let env = TestEnv::new();
    let home = env.home("user");
    let mut command = home.command(&["build", "hello"]);
    // On one of the threads that build, while others wait for what it says.
    command.env("P2PKGS_DEBUG_PANIC", "build");
    Finished::of(command, COMMAND_DEADLINE)
        .assert_exit(70)
        .assert_says("error: bug in p2pkgs 0.")
        .assert_says("hint: please report")
        .assert_says("hint: the store is unharmed");
    home.ok(&["build", "hello"]);
    assert!(home.left_in_scratch().is_empty());
}
