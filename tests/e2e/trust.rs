//! Whom users believe.

use std::process::Stdio;

use crate::support::{Daemon, Home, TestEnv, sandbox_works};

/// Builds a package in a home, publishes it, and runs the home's daemon; returns that and the builder's key.
fn builder(env: &TestEnv, name: &str, meeting: &Daemon, package: &str) -> (Daemon, String) {
    let home = env.home(name);
    home.ok(&["build", package]);
    home.ok(&["publish", package]);
    let daemon = home.daemon(&[meeting]);
    daemon.wait_until_all_is_announced();
    (daemon, home.key())
}

#[test]
fn as_many_keys_as_asked_for_must_agree() {
    if !sandbox_works() {
        return;
    }
    let env = TestEnv::new();
    let meeting = env.home("meeting").daemon(&[]);
    let (_one, one) = builder(&env, "one", &meeting, "hello");
    let user = env.home("user");
    user.bootstrap_from(&meeting);
    user.ok(&["key", "trust", "--threshold", "2", &one]);
    user.run(&["fetch", "hello"])
        .assert_exit(4)
        .assert_says("1 trusted key");
    let (_two, two) = builder(&env, "two", &meeting, "hello");
    user.run(&["fetch", "hello"]).assert_exit(4);
    user.ok(&["key", "trust", &two]);
    user.ok(&["fetch", "hello"]);
    // What is here already is judged again: a key that is no longer trusted takes its outputs with it.
    user.ok(&["key", "untrust", &two]);
    user.run(&["--offline", "fetch", "hello"]).assert_exit(4);
}

/// A user who trusts two builders of `flaky`, which is another output each time.
fn contradicted<'e>(env: &'e TestEnv, meeting: &Daemon) -> (Home<'e>, [(Daemon, String); 2]) {
    let builders = ["one", "two"].map(|name| builder(env, name, meeting, "flaky"));
    let user = env.home("user");
    user.bootstrap_from(meeting);
    for (_, key) in &builders {
        user.ok(&["key", "trust", key]);
    }
    (user, builders)
}

#[test]
fn trusted_keys_that_contradict_each_other_stop_everything_and_are_shown() {
    if !sandbox_works() {
        return;
    }
    let env = TestEnv::new();
    let meeting = env.home("meeting").daemon(&[]);
    let (user, [(_one, one), (_two, two)]) = contradicted(&env, &meeting);
    for command in ["fetch", "build"] {
        let refused = user.run(&[command, "flaky"]).assert_exit(4);
        for says in ["trusted keys vouch for different outputs", &one, &two] {
            assert!(refused.stderr.contains(says), "{}", refused.stderr);
        }
    }
    // Whoever gives up one of them has what the other says.
    user.ok(&["key", "untrust", &one]);
    user.ok(&["fetch", "flaky"]);
}

#[test]
fn trusted_keys_that_contradict_each_other_do_not_make_two_that_agree() {
    if !sandbox_works() {
        return;
    }
    let env = TestEnv::new();
    let meeting = env.home("meeting").daemon(&[]);
    let (user, _builders) = contradicted(&env, &meeting);
    user.ok(&["key", "trust", "--threshold", "2"]);
    user.run(&["fetch", "flaky"])
        .assert_exit(4)
        .assert_says("2 must agree");
}

#[test]
fn only_what_was_built_here_can_be_published() {
    if !sandbox_works() {
        return;
    }
    let env = TestEnv::new();
    let home = env.home("user");
    home.run(&["publish", "hello"])
        .assert_exit(3)
        .assert_says("`p2pkgs key new default`");
    home.ok(&["key", "new"]);
    home.run(&["publish", "hello"])
        .assert_exit(3)
        .assert_says("was not built here");
    home.ok(&["build", "hello"]);
    home.ok(&["key", "new", "other"]);
    let published = home.ok(&["publish", "--key", "other", "hello"]);
    let hash = home.ok(&["hash", "hello"]);
    assert!(published.starts_with(hash.trim_end()), "{published}");
}

#[test]
fn commands_at_the_same_time_do_not_undo_each_others_changes() {
    let env = TestEnv::new();
    let user = env.home("user");
    let keys: Vec<_> = (0..8)
        .map(|n| base::SecretKey::from_seed(&[n; 32]).public().to_string())
        .collect();
    let started: Vec<_> = keys
        .iter()
        .map(|key| {
            let mut command = user.command(&["key", "trust", key]);
            command.stderr(Stdio::null()).spawn().unwrap()
        })
        .collect();
    for mut command in started {
        assert!(command.wait().unwrap().success());
    }
    let listed = user.ok(&["key", "list"]);
    assert!(keys.iter().all(|key| listed.contains(key)), "{listed}");
}
