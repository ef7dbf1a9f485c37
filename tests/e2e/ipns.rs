//! Names that can be pointed elsewhere: published, resolved, followed, and never rolled back.

use std::fs;

use crate::support::TestEnv;

fn add(home: &crate::support::Home<'_>, env: &TestEnv, content: &str) -> String {
    let file = env.path("added");
    fs::write(&file, content).unwrap();
    let added = home.ok(&["--json", "mirror", "add", file.to_str().unwrap()]);
    let added: serde_json::Value = serde_json::from_str(&added).unwrap();
    added[0]["cid"].as_str().unwrap().to_owned()
}

#[test]
fn a_name_is_published_resolved_and_fetched_and_follows_its_owner() {
    let env = TestEnv::new();
    let (owner, user) = (env.home("owner"), env.home("user"));
    let (old, new) = (add(&owner, &env, "old"), add(&owner, &env, "new"));
    let meeting = env.home("meeting").daemon(&[]);
    let daemon = owner.daemon(&[&meeting]);
    daemon.wait_until_all_is_announced();
    user.bootstrap_from(&meeting);

    let publish = |cid: &str| owner.ok(&["name", "publish", cid]).trim_end().to_owned();
    let name = publish(&old);
    assert!(name.starts_with("k51"), "{name}");
    assert_eq!(
        user.ok(&["name", "resolve", &name]),
        format!("/ipfs/{old}\n")
    );
    let uri = format!("ipns://{name}");
    user.ok(&["fetch", &uri, "-o", "out"]);
    assert_eq!(fs::read_to_string(env.path("out")).unwrap(), "old");

    assert_eq!(publish(&new), name, "the same key is the same name");
    user.ok(&["fetch", &uri, "-o", "out"]);
    assert_eq!(fs::read_to_string(env.path("out")).unwrap(), "new");
    let told = user.ok(&["--json", "--offline", "name", "resolve", &uri]);
    let told: serde_json::Value = serde_json::from_str(&told).unwrap();
    assert_eq!(told["value"], format!("/ipfs/{new}"));
    assert_eq!(told["sequence"], 1);

    let other = owner.ok(&["name", "publish", &new, "--key", "other"]);
    assert_ne!(other.trim_end(), name);
}

#[test]
fn what_was_published_without_a_network_is_published_by_the_daemon() {
    let env = TestEnv::new();
    let (owner, user) = (env.home("owner"), env.home("user"));
    let cid = add(&owner, &env, "content");
    let name = owner.ok(&["--offline", "name", "publish", &cid]);
    let name = name.trim_end();
    owner
        .run(&["name", "publish", &cid])
        .assert_exit(7)
        .assert_says("p2pkgs node run");
    let meeting = env.home("meeting").daemon(&[]);
    let _daemon = owner.daemon(&[&meeting]);
    user.bootstrap_from(&meeting);
    crate::support::wait_until("the name is found", || {
        user.run(&["name", "resolve", name]).code == Some(0)
    });
    assert_eq!(
        user.ok(&["name", "resolve", name]),
        format!("/ipfs/{cid}\n")
    );
}

#[test]
fn names_that_are_none_or_nobodys_are_told_apart() {
    let env = TestEnv::new();
    let user = env.home("user");
    let nobodys = "k51qzi5uqu5dgy8qsq67hbz73jqkw87l3fgf4a91qb0d9b5173tir7n4vxk1oe";
    user.run(&["--offline", "name", "resolve", nobodys])
        .assert_exit(3)
        .assert_says("no valid record");
    user.run(&["name", "resolve", "example.org"])
        .assert_exit(2)
        .assert_says("a DNS name");
    user.run(&["--offline", "name", "publish", "no-such-package"])
        .assert_exit(2);
    user.run(&[
        "--offline",
        "fetch",
        &format!("ipns://{nobodys}/a"),
        "-o",
        "out",
    ])
    .assert_exit(3);
}
