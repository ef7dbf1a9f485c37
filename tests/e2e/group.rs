//! A group in an open network: homes with the same key find each other, others see nothing.

use std::fs;

use crate::support::{Home, TestEnv};

fn join(home: &Home<'_>) {
    let path = home.path("config.toml");
    let text = fs::read_to_string(&path).unwrap();
    let with_key = text.replace("[network]\n", "[network]\ngroup-key = \"group.key\"\n");
    assert_ne!(text, with_key);
    fs::write(&path, with_key).unwrap();
}

#[test]
fn a_group_is_found_by_its_members_only() {
    let env = TestEnv::new();
    let (holder, member, stranger) = (env.home("holder"), env.home("member"), env.home("other"));
    for home in [&holder, &member] {
        join(home);
    }
    let missing = holder.run(&["node", "run"]).assert_exit(1);
    missing.assert_says("p2pkgs key group");

    let key = holder.ok(&["key", "group"]);
    assert!(key.trim_end().ends_with("group.key"), "{key}");
    holder.run(&["key", "group"]).assert_exit(2);
    fs::copy(holder.path("group.key"), member.path("group.key")).unwrap();

    let file = env.path("file");
    fs::write(&file, "for members").unwrap();
    let listed = holder.ok(&["mirror", "add", file.to_str().unwrap()]);
    let sha256 = format!("sha256:{}", listed.split(' ').next().unwrap());
    let daemon = holder.daemon(&[]);
    for home in [&member, &stranger] {
        home.bootstrap_from(&daemon);
    }
    let got = env.path("got");
    let fetch = ["fetch", &sha256, "-o", got.to_str().unwrap()];
    stranger.run(&fetch).assert_exit(3);
    member.ok(&fetch);
    assert_eq!(fs::read(&got).unwrap(), b"for members");
}
