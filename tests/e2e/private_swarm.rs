//! A closed network: only homes with the same swarm key talk to each other.

use std::fs;

use crate::support::{Home, TestEnv};

fn make_private(home: &Home<'_>) {
    let path = home.path("config.toml");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace("\"lan\"", "\"private\"")).unwrap();
}

#[test]
fn a_private_swarm_needs_its_key_and_lets_nobody_else_in() {
    let env = TestEnv::new();
    let (holder, member, other) = (env.home("holder"), env.home("member"), env.home("other"));
    for home in [&holder, &member, &other] {
        make_private(home);
    }
    let missing = holder.run(&["node", "run"]).assert_exit(1);
    assert!(
        missing.stderr.contains("p2pkgs key swarm"),
        "{}",
        missing.stderr
    );

    let key = holder.ok(&["key", "swarm"]);
    assert!(key.trim_end().ends_with("swarm.key"), "{key}");
    holder.run(&["key", "swarm"]).assert_exit(2);
    fs::copy(holder.path("swarm.key"), member.path("swarm.key")).unwrap();
    other.ok(&["key", "swarm"]);

    let file = env.path("file");
    fs::write(&file, "for members").unwrap();
    let listed = holder.ok(&["mirror", "add", file.to_str().unwrap()]);
    let sha256 = format!("sha256:{}", listed.split(' ').next().unwrap());
    let daemon = holder.daemon(&[]);
    for home in [&member, &other] {
        home.bootstrap_from(&daemon);
    }
    let got = env.path("got");
    let fetch = ["fetch", &sha256, "-o", got.to_str().unwrap()];
    other.run(&fetch).assert_exit(3);
    member.ok(&fetch);
    assert_eq!(fs::read(&got).unwrap(), b"for members");
}
