//! The command line itself.

use std::fs;
use std::process::Stdio;

use crate::support::{COMMAND_DEADLINE, Finished, TestEnv, wait_with_deadline};

#[test]
fn mistakes_on_the_command_line_end_with_2() {
    let env = TestEnv::new();
    let home = env.home("user");
    for args in [
        &["frobnicate"][..],
        &["hash"],
        &["build", "--jobs", "0", "hello"],
        &["build", "--substitute-only", "--no-substitutes", "hello"],
        &["fetch", "--all"],
        &["fetch", "--profile", "nowhere", "hello"],
        &["fetch", "hello", "-o", "out"],
        &["hash", "HELLO"],
        &["hash", "../etc/passwd"],
        &["hash", "no-such-package"],
        &["key", "trust", "ed25519:12"],
        &["key", "untrust", "nobody"],
        &["key", "new", "../escape"],
        &["mirror", "add"],
        &["export", "--format", "zip", "-o", "x", "hello"],
        &["--offline", "node", "run"],
        &["node", "run", "--listen", "127.0.0.1:4001"],
    ] {
        let finished = home.run(args);
        assert_eq!(finished.code, Some(2), "{args:?}: {}", finished.stderr);
        assert!(
            finished.stdout.is_empty(),
            "{args:?} printed data: {}",
            finished.stdout
        );
        assert!(
            finished.stderr.starts_with("error: "),
            "{args:?}: {}",
            finished.stderr
        );
    }
}

#[test]
fn help_and_version_go_to_stdout() {
    let env = TestEnv::new();
    let home = env.home("user");
    let help = home.run(&["--help"]).assert_exit(0);
    assert!(help.stderr.is_empty());
    for word in ["fetch", "build", "bootstrap", "Exit codes:"] {
        assert!(
            help.stdout.contains(word),
            "no `{word}` in: {}",
            help.stdout
        );
    }
    assert!(home.ok(&["--version"]).starts_with("p2pkgs 0."));
    for shell in ["bash", "zsh", "fish"] {
        assert!(home.ok(&["completions", shell]).contains("p2pkgs"));
    }
}

#[test]
fn a_tree_is_found_from_below_and_its_absence_is_told() {
    let env = TestEnv::new();
    let home = env.home("user");
    let expected = home.ok(&["hash", "hello"]);
    let mut command = home.command(&["hash", "hello"]);
    command
        .env_remove("P2PKGS_TREE")
        .current_dir(env.tree().join("pkg/greet/files"));
    let found = Finished::of(command, COMMAND_DEADLINE).assert_exit(0);
    assert_eq!(found.stdout, expected);
    let mut command = home.command(&["hash", "hello"]);
    command.env_remove("P2PKGS_TREE").current_dir("/");
    Finished::of(command, COMMAND_DEADLINE)
        .assert_exit(2)
        .assert_says("hint: ");
}

#[test]
fn settings_know_who_set_them_and_unknown_ones_are_told() {
    let env = TestEnv::new();
    let home = env.home("user");
    let path = home.path("config.toml");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(
        &path,
        text.replace("[network]", "[limits]\nconections = 3\n\n[network]"),
    )
    .unwrap();
    let mut command = home.command(&["--offline", "config", "show", "--origin"]);
    command.env("P2PKGS_LIMITS_CONNECTIONS", "12");
    let shown = Finished::of(command, COMMAND_DEADLINE)
        .assert_exit(0)
        .assert_says("did you mean `limits.connections`?");
    for line in [
        "limits.connections = 12  # $P2PKGS_LIMITS_CONNECTIONS",
        "network.enabled = false  # `--offline`",
        "trust.threshold = 1  # profile `lan`",
    ] {
        assert!(
            shown.stdout.lines().any(|l| l == line),
            "no `{line}` in: {}",
            shown.stdout
        );
    }
    let of_file = format!("# `{}`", path.display());
    assert!(
        shown
            .stdout
            .lines()
            .any(|l| l.starts_with("deadlines.dial-secs = 5") && l.ends_with(&of_file))
    );
}

#[test]
fn a_bad_setting_stops_only_commands_that_use_it() {
    let env = TestEnv::new();
    let home = env.home("user");
    fs::write(home.path("config.toml"), "trust.threshold = \"many\"\n").unwrap();
    home.ok(&["hash", "hello"]);
    home.ok(&["config", "show"]);
    home.ok(&["mirror", "list"]);
    home.run(&["--offline", "fetch", "hello"])
        .assert_exit(2)
        .assert_says("`trust.threshold` must be a whole number");
    fs::write(home.path("config.toml"), "this is no toml").unwrap();
    home.ok(&["hash", "hello"]);
    home.run(&["--offline", "fetch", "hello"])
        .assert_exit(2)
        .assert_says("is not valid TOML");
}

#[test]
fn keys_are_made_listed_trusted_and_forgotten() {
    let env = TestEnv::new();
    let (ann, bob) = (env.home("ann"), env.home("bob"));
    let key = ann.ok(&["key", "new"]);
    let key = key.trim_end();
    assert!(key.starts_with("ed25519:"));
    ann.run(&["key", "new"])
        .assert_exit(2)
        .assert_says("already");
    assert_eq!(ann.ok(&["key", "list"]), format!("own {key} default\n"));
    bob.ok(&["key", "trust", "--name", "ann", key]);
    bob.ok(&["key", "trust", "--threshold", "2"]);
    let list = bob
        .run(&["key", "list"])
        .assert_exit(0)
        .assert_says("2 trusted keys must agree");
    assert_eq!(list.stdout, format!("trusted {key} ann\n"));
    bob.ok(&["key", "untrust", "ann"]);
    assert_eq!(bob.ok(&["key", "list"]), "");
}

#[test]
fn a_miss_without_a_network_ends_at_once_with_3_and_says_so() {
    let env = TestEnv::new();
    let home = env.home("user");
    home.run(&["--offline", "fetch", "hello"])
        .assert_exit(3)
        .assert_says("asked nobody")
        .assert_says("hint: `p2pkgs build hello` builds it from source");
    let digits = "0".repeat(64);
    let nothing = format!("sha256:{digits}");
    home.run(&["--offline", "fetch", &nothing, "-o", "out"])
        .assert_exit(3);
    assert!(!env.path("out").exists());
    home.run(&["log", "hello"]).assert_exit(3);
}

#[test]
fn a_reader_that_went_away_is_no_failure() {
    let env = TestEnv::new();
    let mut child = env
        .home("user")
        .command(&["graph"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let status = wait_with_deadline(&mut child, COMMAND_DEADLINE).unwrap();
    assert_eq!(status.code(), Some(0));
}
