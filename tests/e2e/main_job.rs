//! The main job, with real processes that know only one peer: sources by their sha256 through the DHT, a build, a signed
//! output, users who fetch it from the builder and from each other, and a miss that says who was asked.

use std::fs;
use std::process::Command;

use crate::support::{
    COMMAND_DEADLINE, Daemon, Finished, Home, TestEnv, greeting, sandbox_works, wait_until,
};

#[test]
fn packages_travel_from_mirror_to_builder_to_user_to_the_next_user() {
    if !sandbox_works() {
        return;
    }
    let mut env = TestEnv::new();
    // The mirror has the sources from their origin; then the origin is switched off.
    env.home("mirror")
        .run(&["mirror", "seed", "greet"])
        .assert_exit(0)
        .assert_says("2 https");
    env.stop_origin();

    let meeting = env.home("meeting").daemon(&[]);
    let mirror = env.home("mirror").daemon(&[&meeting]);
    mirror.wait_until_all_is_announced();

    let (builder_home, key) = builder_of_greet(&env, &meeting);
    let key = key.as_str();
    let builder = builder_home.daemon(&[&meeting]);
    builder.wait_until_all_is_announced();

    // A user who trusts nobody is told whom to trust; one who trusts the builder fetches and never builds.
    let user_home = env.home("user");
    user_home.bootstrap_from(&meeting);
    user_home
        .run(&["fetch", "greet"])
        .assert_exit(4)
        .assert_says(&format!("`p2pkgs key trust {key}`"));
    user_home.ok(&["key", "trust", key]);
    let fetched = user_home.run(&["fetch", "greet"]).assert_exit(0);
    assert!(fetched.stderr.contains("2 LAN peers"), "{}", fetched.stderr);
    assert!(!fetched.stderr.contains("built"), "{}", fetched.stderr);
    let dir = env.path("venv");
    let script = user_home.ok(&["--offline", "venv", dir.to_str().unwrap(), "greet"]);
    let mut greet = Command::new(script.trim_end());
    greet.arg("greet");
    let greeted = Finished::of(greet, COMMAND_DEADLINE).assert_exit(0);
    assert_eq!(greeted.stdout, greeting().to_uppercase());
    let user = user_home.daemon(&[&meeting]);
    user.wait_until_all_is_announced();

    // Mirror and builder are gone: the next user has it from the first one.
    mirror.kill();
    builder.kill();
    let second_home = env.home("second");
    second_home.bootstrap_from(&meeting);
    second_home.ok(&["key", "trust", key]);
    let fetched = second_home.run(&["fetch", "greet"]).assert_exit(0);
    let short = &user.peer_id()[user.peer_id().len() - 8..];
    assert!(
        fetched.stderr.contains(short),
        "from the first user: {}",
        fetched.stderr
    );

    // With everyone gone a miss ends with 3 and says who was asked.
    user.kill();
    let miss = second_home.run(&["fetch", "big"]).assert_exit(3);
    assert!(miss.stderr.contains("asked "), "{}", miss.stderr);
    meeting.kill();
    second_home
        .run(&["fetch", "big"])
        .assert_exit(3)
        .assert_says("asked ");
}

/// A home that knows only the meeting point, which knows nobody's content, and builds and signs `greet`; and its key.
fn builder_of_greet<'e>(env: &'e TestEnv, meeting: &Daemon) -> (Home<'e>, String) {
    let builder_home = env.home("builder");
    builder_home.bootstrap_from(meeting);
    let built = builder_home.run(&["build", "greet"]).assert_exit(0);
    let built = built.assert_says("built greet").assert_says("fetched 2 (");
    assert!(
        built.stderr.contains("2 LAN peers"),
        "from the mirror: {}",
        built.stderr
    );
    builder_home
        .run(&["publish", "greet"])
        .assert_exit(0)
        .assert_says("no daemon runs");
    let key = builder_home.key();
    (builder_home, key)
}

#[test]
fn a_daemon_serves_what_its_home_gets_while_it_runs() {
    let mut env = TestEnv::new();
    let meeting = env.home("meeting").daemon(&[]);
    let mirror_home = env.home("mirror");
    let mirror = mirror_home.daemon(&[&meeting]);
    mirror_home.ok(&["mirror", "seed", "hello"]);
    mirror.wait_until_all_is_announced();
    env.stop_origin();
    let user = env.home("user");
    user.bootstrap_from(&meeting);
    user.run(&["fetch", "--sources", "hello"])
        .assert_exit(0)
        .assert_says("2 LAN peers");
    let found = user.ok(&["node", "find", sha_of_greeting()]);
    assert_eq!(found.trim_end(), mirror.peer_id());
    wait_until("the mirror counts what it sent", || {
        mirror.status()["uploaded_bytes"].as_u64() > Some(0)
    });
}

/// The sha256 of the greeting, as a key.
fn sha_of_greeting() -> &'static str {
    static TEXT: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    TEXT.get_or_init(|| base::Sha256::of(greeting().as_bytes()).to_string())
}

#[test]
fn a_command_beside_a_daemon_finds_peers_through_it() {
    let env = TestEnv::new();
    let meeting = env.home("meeting").daemon(&[]);
    let mirror_home = env.home("mirror");
    mirror_home.ok(&["mirror", "seed", "hello"]);
    let mirror = mirror_home.daemon(&[&meeting]);
    mirror.wait_until_all_is_announced();
    // The user's configuration names nobody; only its daemon was told of the meeting point.
    let user = env.home("user");
    let _daemon = user.daemon(&[&meeting]);
    fs::remove_file(env.path("origin/greeting.txt")).unwrap();
    user.run(&[
        "fetch",
        &format!("sha256:{}", sha_of_greeting()),
        "-o",
        "out",
    ])
    .assert_exit(0);
    assert_eq!(fs::read_to_string(env.path("out")).unwrap(), greeting());
}

#[test]
fn upstreams_variables_still_mean_what_they_meant() {
    let env = TestEnv::new();
    let meeting = env.home("meeting").daemon(&[]);
    let mirror_home = env.home("mirror");
    mirror_home.ok(&["mirror", "seed", "hello"]);
    let mirror = mirror_home.daemon(&[&meeting]);
    mirror.wait_until_all_is_announced();
    let user = env.home("user");
    user.bootstrap_from(&meeting);
    let mut command = user.command(&["fetch", "--sources", "hello"]);
    command.env("PKG_MIRROR_IPFS", "no");
    Finished::of(command, COMMAND_DEADLINE)
        .assert_exit(0)
        .assert_says("2 https");
    let mut command = user.command(&["build", "hello"]);
    command.env("PKG_FORCE_BINARY", "yes");
    Finished::of(command, COMMAND_DEADLINE).assert_exit(3);
}
