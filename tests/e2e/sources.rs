//! Sources: where they come from, and that their sha256 has the last word.

use std::fs;

use base::Sha256;

use crate::support::{TestEnv, greeting};

#[test]
fn a_mirror_fetches_the_sources_of_a_tree_once_and_lists_them() {
    let env = TestEnv::new();
    let home = env.home("mirror");
    let seeded = home
        .run(&["mirror", "seed", "hello"])
        .assert_exit(0)
        .assert_says("2 https");
    let seeded = seeded.assert_says("no daemon runs");
    let sha256 = Sha256::of(greeting().as_bytes());
    let line = format!("{sha256}  greeting.txt");
    assert!(
        seeded.stdout.lines().any(|l| l == line),
        "{}",
        seeded.stdout
    );
    let requests = env.origin.as_ref().unwrap().requests();
    home.ok(&["mirror", "seed", "--all"]);
    home.ok(&["mirror", "seed", "--all"]);
    let more = env.origin.as_ref().unwrap().requests() - requests;
    assert_eq!(more, 1, "only what was missing is fetched, once");
    let list = home.ok(&["mirror", "list"]);
    assert_eq!(list.lines().count(), 3);
    assert!(
        list.lines()
            .any(|l| l.starts_with(&sha256.to_string()) && l.ends_with(" greeting.txt"))
    );
}

#[test]
fn files_of_ones_own_are_taken_in_and_given_out_by_every_name() {
    let env = TestEnv::new();
    let home = env.home("mirror");
    let file = env.path("some file.tar");
    fs::write(&file, "content").unwrap();
    let added = home.ok(&["--json", "mirror", "add", file.to_str().unwrap()]);
    let added: serde_json::Value = serde_json::from_str(&added).unwrap();
    assert_eq!(added[0]["file"], "some file.tar");
    let sha256 = format!("sha256:{}", Sha256::of(b"content"));
    let cid = added[0]["cid"].as_str().unwrap();
    for name in [sha256.as_str(), cid] {
        home.ok(&["--offline", "fetch", name, "-o", "out"]);
        assert_eq!(fs::read_to_string(env.path("out")).unwrap(), "content");
    }
    assert_eq!(home.ok(&["--offline", "fetch", cid, "-o", "-"]), "content");
    home.run(&["mirror", "add", "no such file"])
        .assert_exit(1)
        .assert_says("cannot add");
    home.run(&["mirror", "add", "/dev/null"]).assert_exit(2);
}

#[test]
fn an_origin_that_sends_other_bytes_ends_with_4_and_says_who_what_and_what_instead() {
    let env = TestEnv::new();
    let home = env.home("user");
    fs::write(env.path("origin/greeting.txt"), "something else\n").unwrap();
    let (expected, got) = (
        Sha256::of(greeting().as_bytes()),
        Sha256::of(b"something else\n"),
    );
    home.run(&["fetch", "--sources", "hello"])
        .assert_exit(4)
        .assert_says(&expected.to_string())
        .assert_says(&got.to_string())
        .assert_says(&env.origin.as_ref().unwrap().url());
    let list = home.ok(&["mirror", "list"]);
    assert!(
        !list.contains(&got.to_string()),
        "nothing that does not match is kept"
    );
}

#[test]
fn sources_are_placed_under_their_names() {
    let env = TestEnv::new();
    let home = env.home("user");
    home.ok(&["fetch", "--sources", "hello", "--into", "here"]);
    assert_eq!(
        fs::read_to_string(env.path("here/greeting.txt")).unwrap(),
        greeting()
    );
}

#[test]
fn a_source_that_is_nowhere_ends_with_3_and_the_others_are_fetched() {
    let env = TestEnv::new();
    let home = env.home("user");
    fs::remove_file(env.path("origin/noise.bin")).unwrap();
    let failed = home.run(&["fetch", "--sources", "--all"]).assert_exit(3);
    let failed = failed.assert_says("cannot fetch source `noise.bin for big`");
    assert!(failed.stdout.contains("greeting.txt"));
}

#[test]
fn a_list_of_mirrored_sources_is_refused_with_the_line_that_is_wrong() {
    let env = TestEnv::new();
    let home = env.home("mirror");
    fs::write(
        env.path("list"),
        "source_url: https://a/b\nsha256: 00\ncid: x\n",
    )
    .unwrap();
    home.run(&["mirror", "import", "list"])
        .assert_exit(1)
        .assert_says("cannot read the list `list`: line 1: bad `sha256`");
    home.run(&["mirror", "import", "nowhere"]).assert_exit(1);
}
