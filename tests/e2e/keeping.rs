//! What is kept and what goes: pins, the collection of what nobody needs.

use std::fs;
use std::process::Stdio;

use base::Sha256;
use rustix::process::Signal;
use serde_json::Value;

use crate::support::{
    COMMAND_DEADLINE, Finished, Home, TestEnv, greeting, sandbox_works, signal, wait_until,
};

fn json(home: &Home<'_>, args: &[&str]) -> Value {
    let args: Vec<_> = ["--json"].iter().chain(args).copied().collect();
    serde_json::from_str(&home.ok(&args)).unwrap()
}

/// How many files `gc` would remove, and how many it leaves for each reason.
fn plan(home: &Home<'_>) -> [u64; 3] {
    let plan = json(home, &["gc", "--dry-run"]);
    assert_eq!(plan["dry_run"], true);
    [
        plan["removed"].as_array().unwrap().len() as u64,
        plan["stays"]["pinned"]["files"].as_u64().unwrap(),
        plan["stays"]["in_use"]["files"].as_u64().unwrap(),
    ]
}

#[test]
fn mirrored_sources_stay_until_they_are_unpinned_and_then_come_again() {
    let env = TestEnv::new();
    let home = env.home("mirror");
    let sha256 = Sha256::of(greeting().as_bytes()).to_string();
    home.ok(&["mirror", "seed", "hello"]);
    assert_eq!(plan(&home), [0, 2, 0]);
    assert!(
        home.ok(&["pin"])
            .contains(&format!("{sha256} source greeting.txt\n"))
    );
    assert_eq!(
        home.ok(&["unpin", "greeting.txt"]),
        format!("{sha256} source greeting.txt\n")
    );
    assert_eq!(plan(&home), [1, 1, 0]);
    assert!(
        home.ok(&["mirror", "list"]).contains(&sha256),
        "not gone yet"
    );
    let gone = home
        .run(&["gc"])
        .assert_exit(0)
        .assert_says("freed 49 B in 1 file; stays: pinned 1 file");
    assert_eq!(gone.stdout, format!("{sha256} 49 source greeting.txt\n"));
    assert!(!home.ok(&["mirror", "list"]).contains(&sha256));
    home.ok(&["mirror", "seed", "hello"]);
    assert!(home.ok(&["mirror", "list"]).contains(&sha256));
}

#[test]
fn content_is_pinned_by_any_name_it_has() {
    let env = TestEnv::new();
    let home = env.home("user");
    fs::write(env.path("file"), "content").unwrap();
    let added = json(&home, &["mirror", "add", "file"]);
    let (sha256, cid) = (
        format!("sha256:{}", added[0]["sha256"].as_str().unwrap()),
        added[0]["cid"].as_str().unwrap(),
    );
    home.ok(&["pin", &sha256]);
    home.ok(&["pin", cid, "--name", "mine"]);
    home.ok(&["unpin", "file"]);
    assert_eq!(plan(&home), [0, 1, 0]);
    home.ok(&["unpin", "mine"]);
    assert_eq!(plan(&home), [0, 1, 0]);
    home.ok(&["unpin", cid]);
    assert_eq!(plan(&home), [1, 0, 0]);
    assert_eq!(home.ok(&["pin"]), "");
}

#[test]
fn a_file_is_mirrored_where_it_is_until_it_changes() {
    let env = TestEnv::new();
    let home = env.home("mirror");
    let text = "the same bytes, on the disk once\n".repeat(100_000);
    fs::write(env.path("file.tar"), &text).unwrap();
    let added = json(&home, &["mirror", "add", "--reference", "file.tar"]);
    let path = fs::canonicalize(env.path("file.tar")).unwrap();
    assert_eq!(added[0]["path"], path.to_str().unwrap());
    let blobs = fs::read_dir(home.path("store/blobs")).unwrap();
    assert_eq!(blobs.count(), 0, "nothing was copied");
    let meeting = env.home("meeting").daemon(&[]);
    let daemon = home.daemon(&[&meeting]);
    daemon.wait_until_all_is_announced();
    let cid = added[0]["cid"].as_str().unwrap();
    let [first, second] = ["first", "second"].map(|name| {
        let user = env.home(name);
        user.bootstrap_from(&meeting);
        user
    });
    first.ok(&["fetch", cid, "-o", "got"]);
    assert_eq!(fs::read_to_string(env.path("got")).unwrap(), text);
    home.ok(&["gc"]);
    assert!(home.ok(&["mirror", "list"]).contains(" file.tar\n"));
    fs::write(&path, text.replace("once", "anew")).unwrap();
    second.run(&["fetch", cid, "-o", "wrong"]).assert_exit(3);
    assert!(!env.path("wrong").exists());
    home.run(&["mirror", "list"])
        .assert_exit(0)
        .assert_says("`file.tar` is pinned but not here");
    assert!(path.exists());
    home.ok(&["mirror", "add", "--reference", "file.tar"]);
    fs::remove_file(&path).unwrap();
    home.run(&["mirror", "list"])
        .assert_exit(0)
        .assert_says("is not the file any more that was added");
}

#[test]
fn a_quota_is_kept_by_what_may_go_and_refuses_what_does_not_fit() {
    let env = TestEnv::new();
    let home = env.home("mirror");
    let config = home.path("config.toml");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text + "\n[store]\nquota = \"10 kB\"\n").unwrap();
    for (name, byte) in [("one", b"1"), ("two", b"2"), ("three", b"3")] {
        fs::write(env.path(name), byte.repeat(4000)).unwrap();
    }
    home.ok(&["mirror", "add", "one"]);
    home.ok(&["mirror", "add", "two"]);
    home.run(&["mirror", "add", "three"])
        .assert_exit(10)
        .assert_says("store is over its quota of 10000 bytes: 4000 needed, 8000 are pinned")
        .assert_says("hint: `p2pkgs pin` lists what is pinned");
    home.ok(&["unpin", "one"]);
    home.ok(&["mirror", "add", "three"]);
    let list = home.ok(&["mirror", "list"]);
    let names: Vec<_> = list
        .lines()
        .filter_map(|line| line.split(' ').next_back())
        .collect();
    assert_eq!(names, ["three", "two"]);
    let text = fs::read_to_string(&config).unwrap();
    let text = text.replace("quota = \"10 kB\"", "keep-free = \"1000 TiB\"");
    fs::write(&config, text).unwrap();
    home.run(&["mirror", "add", "one"])
        .assert_exit(10)
        .assert_says("no space left for");
    home.ok(&["mirror", "list"]);
}

#[test]
fn damage_is_found_named_and_repaired_by_fetching_again() {
    let env = TestEnv::new();
    let home = env.home("mirror");
    home.ok(&["mirror", "seed", "hello"]);
    home.run(&["store", "verify"])
        .assert_exit(0)
        .assert_says("all are what they should be");
    let sha256 = Sha256::of(greeting().as_bytes()).to_string();
    let path = home.path("store/blobs").join(&sha256);
    fs::remove_file(&path).unwrap();
    fs::write(&path, "not what it was").unwrap();
    let line = format!("{sha256} damaged file source greeting.txt\n");
    for _ in 0..2 {
        let found = home
            .run(&["store", "verify"])
            .assert_exit(4)
            .assert_says("hint: `p2pkgs store verify --repair`");
        assert_eq!(found.stdout, line);
    }
    assert_eq!(home.ok(&["store", "verify", "--repair"]), line);
    assert!(home.path("store/damaged").join(&sha256).exists());
    home.ok(&["store", "verify"]);
    home.ok(&["mirror", "seed", "hello"]);
    assert_eq!(fs::read_to_string(&path).unwrap(), greeting());
}

#[test]
fn what_is_not_there_cannot_be_pinned_nor_freed() {
    let env = TestEnv::new();
    let home = env.home("user");
    let nothing = format!("sha256:{}", "0".repeat(64));
    home.run(&["pin", &nothing])
        .assert_exit(3)
        .assert_says("hint: `p2pkgs fetch sha256:000");
    home.run(&["--offline", "pin", "hello"])
        .assert_exit(3)
        .assert_says("`toy` is not in the store");
    home.run(&["unpin", "nobody"])
        .assert_exit(3)
        .assert_says("nothing is pinned as `nobody`");
    home.ok(&["mirror", "seed", "hello"]);
    home.run(&["gc", "--free", "1 GiB"])
        .assert_exit(10)
        .assert_says("hint: `p2pkgs pin` lists what is pinned");
    home.run(&["gc", "--free", "much"]).assert_exit(2);
    assert_eq!(plan(&home), [0, 2, 0]);
}

#[test]
fn what_was_built_is_a_cache_until_it_is_pinned_with_what_it_needs_to_run() {
    if !sandbox_works() {
        return;
    }
    let env = TestEnv::new();
    let home = env.home("user");
    home.ok(&["build", "greet"]);
    // Two outputs and a source; the seed is kept.
    assert_eq!(plan(&home), [3, 1, 0]);
    home.ok(&["pin", "greet"]);
    home.ok(&["pin", "hello", "--name", "other"]);
    assert_eq!(plan(&home), [1, 3, 0]);
    home.ok(&["gc"]);
    home.ok(&["unpin", "greet"]);
    assert_eq!(plan(&home), [1, 2, 0], "`hello` has another pin");
    home.ok(&["gc"]);
    home.ok(&["--offline", "fetch", "hello"]);
    home.run(&["--offline", "fetch", "greet"]).assert_exit(3);
    home.ok(&["build", "greet"]);
}

#[test]
fn what_a_build_found_stays_while_it_runs_and_goes_when_it_is_killed() {
    if !sandbox_works() {
        return;
    }
    let env = TestEnv::new();
    let home = env.home("user");
    fs::write(env.tree().join("pkg/slow/build-deps"), "../hello\n../toy\n").unwrap();
    let child = home
        .command(&["build", "slow"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    wait_until("the build runs", || {
        home.run(&["log", "slow"]).stdout.contains("started")
    });
    assert_eq!(
        plan(&home),
        [0, 1, 2],
        "the output of `hello` and its source"
    );
    home.ok(&["gc"]);
    home.ok(&["--offline", "fetch", "hello"]);
    signal(child.id(), Signal::KILL);
    Finished::wait(child, "build slow".into(), COMMAND_DEADLINE);
    home.ok(&["gc"]);
    home.run(&["--offline", "fetch", "hello"]).assert_exit(3);
}
