//! Whom users believe.

use crate::support::{Daemon, TestEnv, sandbox_works};

/// Builds `hello` in a home, publishes it, and runs its daemon; returns that and the builder's key.
fn builder(env: &TestEnv, name: &str, meeting: &Daemon) -> (Daemon, String) {
    let home = env.home(name);
    home.ok(&["build", "hello"]);
    home.ok(&["publish", "hello"]);
    let daemon = home.daemon(&[meeting]);
    daemon.wait_until_all_is_announced();
    let list = home.ok(&["key", "list"]);
    (daemon, list.split_whitespace().nth(1).unwrap().to_owned())
}

#[test]
fn as_many_keys_as_asked_for_must_agree() {
    if !sandbox_works() {
        return;
    }
    let env = TestEnv::new();
    let meeting = env.home("meeting").daemon(&[]);
    let (_one, one) = builder(&env, "one", &meeting);
    let user = env.home("user");
    user.bootstrap_from(&meeting);
    user.ok(&["key", "trust", "--threshold", "2", &one]);
    user.run(&["fetch", "hello"])
        .assert_exit(4)
        .assert_says("1 trusted key");
    let (_two, two) = builder(&env, "two", &meeting);
    user.run(&["fetch", "hello"]).assert_exit(4);
    user.ok(&["key", "trust", &two]);
    user.ok(&["fetch", "hello"]);
    // What is here already is judged again: a key that is no longer trusted takes its outputs with it.
    user.ok(&["key", "untrust", &two]);
    user.run(&["--offline", "fetch", "hello"]).assert_exit(4);
}

#[test]
fn trusted_keys_that_contradict_each_other_stop_everything() {
    if !sandbox_works() {
        return;
    }
    let env = TestEnv::new();
    let meeting = env.home("meeting").daemon(&[]);
    let user = env.home("user");
    user.bootstrap_from(&meeting);
    let mut daemons = Vec::new();
    for name in ["one", "two"] {
        // `flaky` is another output each time, so the two builders sign different ones.
        let home = env.home(name);
        home.ok(&["build", "flaky"]);
        home.ok(&["publish", "flaky"]);
        let daemon = home.daemon(&[&meeting]);
        daemon.wait_until_all_is_announced();
        daemons.push(daemon);
        let list = home.ok(&["key", "list"]);
        user.ok(&["key", "trust", list.split_whitespace().nth(1).unwrap()]);
    }
    // Which of the two is met first is chance; that both are met is not: a threshold of two asks everybody.
    user.ok(&["key", "trust", "--threshold", "2"]);
    user.run(&["fetch", "flaky"]).assert_exit(4);
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
