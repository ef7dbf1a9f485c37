//! A new version of a package comes as what changed since the one that is here, and as a whole to who has none.

use std::fs;
use std::io::Write as _;
use std::path::Path;

use crate::support::{Daemon, TestEnv, sandbox_works};

/// Bytes of blocks and deltas that a daemon has sent by now; it tells of itself every few seconds.
fn sent(daemon: &Daemon) -> u64 {
    let uptime = |status: &serde_json::Value| status["uptime_secs"].as_u64().unwrap();
    let before = uptime(&daemon.status());
    daemon.wait_for_status("news of the daemon", |status| uptime(status) > before + 1);
    daemon.status()["uploaded_bytes"].as_u64().unwrap()
}

/// Another version of the package `big`: a file more, which stands before the large one.
fn change(tree: &Path) {
    let build = tree.join("pkg/big/build");
    let mut script = fs::OpenOptions::new().append(true).open(build).unwrap();
    writeln!(script, "echo new >\"$DESTDIR/share/news\"").unwrap();
}

#[test]
fn a_new_version_moves_only_what_changed() {
    if !sandbox_works() {
        return;
    }
    let env = TestEnv::new();
    let builder = env.home("builder");
    builder.ok(&["build", "big"]);
    let daemon = builder.daemon(&[]);
    let key = builder.key();
    let user = env.home("user");
    user.bootstrap_from(&daemon);
    user.ok(&["key", "trust", &key]);
    let beside = user.daemon(&[&daemon]);
    user.run(&["fetch", "big"])
        .assert_exit(0)
        .assert_says("LAN peer");
    let whole = sent(&daemon);
    assert!(whole > 40 << 20, "{whole}");

    change(&env.tree());
    builder
        .run(&["build", "big"])
        .assert_exit(0)
        .assert_says("built big");
    let fetched = user.run(&["fetch", "big"]).assert_exit(0);
    assert!(fetched.stderr.contains("; reused 4"), "{}", fetched.stderr);
    let moved = sent(&daemon) - whole;
    assert!(moved * 20 < whole, "{moved} of {whole}");
    // Here it is the archive that was signed, byte for byte.
    let [theirs, ours] = [&builder, &user].map(|home| {
        let out = home.ok(&["--offline", "build", "big"]);
        fs::read(out.trim_end()).unwrap()
    });
    assert!(theirs == ours);

    // Who has no earlier version gets the whole, from either.
    let other = env.home("other");
    other.bootstrap_from(&daemon);
    other.ok(&["key", "trust", &key]);
    let before = sent(&daemon) + sent(&beside);
    let fetched = other.run(&["fetch", "big"]).assert_exit(0);
    assert!(!fetched.stderr.contains("reused"), "{}", fetched.stderr);
    assert!(sent(&daemon) + sent(&beside) - before > 40 << 20);
}
