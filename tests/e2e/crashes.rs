//! Processes that are killed, and homes that survive it.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Child, Stdio};

use crate::support::{
    COMMAND_DEADLINE, Counting, Finished, Home, NOISE_BYTES, TestEnv, sandbox_works, start,
    wait_until,
};

/// What may be between two stores: handed to the connection, in its windows and in sockets, or read and not written yet.
const ON_THE_WAY_BYTES: u64 = 16 << 20;

#[test]
fn a_killed_build_leaves_a_home_that_works_and_is_cleaned_up() {
    if !sandbox_works() {
        return;
    }
    let env = TestEnv::new();
    let home = env.home("user");
    let mut build = home.start_slow_build();
    build.kill().unwrap();
    build.wait().unwrap();
    assert!(!home.left_in_scratch().is_empty());
    // The next build removes what the killed one left.
    home.ok(&["build", "hello"]);
    assert!(home.left_in_scratch().is_empty());
}

#[test]
fn a_killed_daemon_is_simply_started_again() {
    let env = TestEnv::new();
    let home = env.home("mirror");
    home.ok(&["mirror", "seed", "hello"]);
    let meeting = env.home("meeting").daemon(&[]);
    let first = home.daemon(&[&meeting]);
    let peer_id = first.peer_id().to_owned();
    first.wait_until_all_is_announced();
    first.kill();
    home.run(&["node", "status"])
        .assert_exit(1)
        .assert_says("no daemon runs");
    let second = home.daemon(&[&meeting]);
    assert_eq!(second.peer_id(), peer_id);
    home.ok(&["node", "status"]);
    let user = env.home("user");
    user.bootstrap_from(&second);
    user.run(&["fetch", "--sources", "hello"])
        .assert_exit(0)
        .assert_says("2 LAN peers");
}

#[test]
fn a_provider_that_dies_during_a_transfer_is_replaced() {
    let mut env = TestEnv::new();
    let meeting = env.home("meeting").daemon(&[]);
    let seed = |name: &str| {
        let home = env.home(name);
        home.ok(&["mirror", "seed", "big"]);
        let daemon = home.daemon(&[&meeting]);
        daemon.wait_until_all_is_announced();
        daemon
    };
    let (first, _second) = (seed("one"), seed("two"));
    env.stop_origin();
    let user = env.home("user");
    user.bootstrap_from(&meeting);
    let child = start(user.command(&["fetch", "--sources", "big"]));
    // The blocks come from both, so the first is sending when some have arrived.
    let partial = user.path("store/partial");
    wait_until("a transfer has begun", || bytes_below(&partial) > 4 << 20);
    first.kill();
    let finished = Finished::wait(child, "fetch --sources big".into(), COMMAND_DEADLINE);
    finished.assert_exit(0).assert_says("LAN peer");
}

/// Bytes of the files in a folder, 0 while there is none.
fn bytes_below(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter_map(|e| e.metadata().ok())
        .map(|m| m.len())
        .sum()
}

/// Starts to fetch the large source, to be killed.
fn start_fetching(user: &Home<'_>) -> Child {
    let mut command = user.command(&["fetch", "--sources", "big"]);
    command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

#[test]
fn a_command_that_is_killed_while_it_fetches_starts_again_from_a_clean_store() {
    let mut env = TestEnv::new();
    env.home("mirror").ok(&["mirror", "seed", "big"]);
    env.stop_origin();
    let mirror = env.home("mirror").daemon(&[]);
    let user = env.home("user");
    user.bootstrap_from(&mirror);
    for _ in 0..3 {
        let mut child = start_fetching(&user);
        let store = user.path("store");
        wait_until("something is in the store", || store.exists());
        child.kill().unwrap();
        child.wait().unwrap();
    }
    user.run(&["fetch", "--sources", "big"]).assert_exit(0);
    let listed = user.ok(&["mirror", "list"]);
    assert!(listed.contains("noise.bin"), "{listed}");
}

#[test]
fn a_fetch_that_is_killed_in_the_middle_is_gone_on_with_and_hardly_a_byte_is_sent_twice() {
    let mut env = TestEnv::new();
    env.home("mirror").ok(&["mirror", "seed", "big"]);
    env.stop_origin();
    let mirror = env.home("mirror").daemon(&[]);
    let user = env.home("user");
    user.bootstrap_from(&mirror);
    let mut child = start_fetching(&user);
    let partial = user.path("store/partial");
    wait_until("a transfer has begun", || {
        allocated_below(&partial) > 4 << 20
    });
    child.kill().unwrap();
    child.wait().unwrap();
    let here = allocated_below(&partial);
    assert!(here > 4 << 20, "what has come stays");
    user.run(&["fetch", "--sources", "big"]).assert_exit(0);
    assert_eq!(allocated_below(&partial), 0);
    let sent = |status: &serde_json::Value| status["uploaded_bytes"].as_u64();
    mirror.wait_for_status("the upload", |status| {
        sent(status) > Some(NOISE_BYTES as u64 - 1)
    });
    let sent = sent(&mirror.status()).unwrap();
    assert!(sent <= NOISE_BYTES as u64 + ON_THE_WAY_BYTES, "{sent} sent");
}

/// Bytes that the files in a folder take, holes not counted.
fn allocated_below(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter_map(|e| e.metadata().ok())
        .map(|m| m.blocks() * 512)
        .sum()
}

#[test]
fn a_download_over_http_that_is_killed_in_the_middle_is_gone_on_with_and_no_byte_is_sent_twice() {
    let env = TestEnv::new();
    let noise = std::fs::read(env.path("origin/noise.bin")).unwrap();
    // The seed of the tree comes from the origin as ever.
    let recipe = env.tree().join("pkg/big/fetch");
    let middle = NOISE_BYTES / 3;
    let server = Counting::serve(noise, middle);
    let old = env.origin.as_ref().unwrap().url();
    let text = std::fs::read_to_string(&recipe).unwrap();
    std::fs::write(&recipe, text.replace(&old, server.url())).unwrap();
    let user = env.home("user");
    let mut child = start_fetching(&user);
    let partial = user.path("store/partial");
    // Its bytes, and the head of the journal beside them.
    wait_until("all that was sent has arrived", || {
        bytes_below(&partial) >= middle as u64
    });
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(server.sent_bytes(), middle as u64);
    let finished = user.run(&["fetch", "--sources", "big"]).assert_exit(0);
    assert!(finished.stderr.contains("http"), "{}", finished.stderr);
    assert_eq!(
        (server.requests(), server.sent_bytes()),
        (2, NOISE_BYTES as u64)
    );
    assert_eq!(bytes_below(&partial), 0);
    // It is in the store as it should be.
    user.ok(&["store", "verify"]);
}
