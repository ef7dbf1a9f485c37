//! Names and hashes, on a tree that is the same on every machine.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use crate::support::{Home, TestEnv};

/// A seed, and two packages that build on it; nothing in it depends on the machine.
fn pinned_tree(env: &TestEnv) -> PathBuf {
    let tree = env.path("pinned");
    let write = |path: &str, text: &str| {
        let path = tree.join("pkg").join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        let executable = path.file_name().unwrap() == "build";
        let mode = if executable { 0o755 } else { 0o644 };
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    };
    let zeros = "0".repeat(64);
    write(
        "seed/fetch",
        &format!("url: https://example.org/seed.tar\nsha256: {zeros}\n"),
    );
    write("lib/build", "#!/bin/sh\ntrue\n");
    write("lib/build-deps", "../seed\n");
    write(
        "lib/fetch",
        &format!("url: mirror://gnu/lib-1.tar\nsha256: {zeros}\n"),
    );
    write("tool/build", "#!/bin/sh\nfalse\n");
    write("tool/build-deps", "../lib\n../seed\n");
    write("tool/run-deps", "../lib\n");
    write("tool/files/sub/fix.patch", "patch\n");
    tree
}

fn in_tree(home: &Home<'_>, tree: &Path, args: &[&str]) -> String {
    let mut all = vec!["--tree", tree.to_str().unwrap()];
    all.extend(args);
    home.ok(&all)
}

#[test]
fn hashes_closures_chains_and_graphs_of_a_fixed_tree_are_pinned() {
    let env = TestEnv::new();
    let (home, tree) = (env.home("user"), pinned_tree(&env));
    let ask = |args: &[&str]| in_tree(&home, &tree, args);
    assert_eq!(
        ask(&["hash", "seed", "pkg/lib", "./pkg/tool/"]),
        "ce784120cd6f75ad833c430d1266e2d5aee5311ae413463dbffb10f519c2a372\n\
         16f9f70084f85c0028a94863c7ac79c4f07b28a36cd8b5f8ee0a4ac29d683651\n\
         a7ab8a6876e2c99bd02204ea447e45552f903e4c8da9f9b89e9f9f4846be2582\n"
    );
    assert_eq!(ask(&["closure", "tool"]), "lib\n");
    assert_eq!(ask(&["closure", "--build", "tool"]), "lib\nseed\n");
    assert_eq!(ask(&["closure", "seed"]), "");
    assert_eq!(ask(&["why", "tool", "seed"]), "tool -build-> seed\n");
    assert_eq!(
        ask(&["graph", "tool"]),
        "lib -build-> seed\ntool -build-> lib\ntool -build-> seed\ntool -run-> lib\n"
    );
    assert_eq!(
        ask(&["graph"]),
        ask(&["graph", "tool"]),
        "without names the whole tree is meant"
    );
    let dot = ask(&["graph", "--dot", "tool"]);
    assert!(
        dot.starts_with("digraph packages {\n") && dot.contains("\"tool\" -> \"lib\""),
        "{dot}"
    );
}

#[test]
fn urls_and_the_place_of_the_tree_do_not_count_and_everything_else_does() {
    let env = TestEnv::new();
    let (home, tree) = (env.home("user"), pinned_tree(&env));
    let hash = || in_tree(&home, &tree, &["hash", "tool"]);
    let before = hash();
    let fetch = tree.join("pkg/lib/fetch");
    let text = fs::read_to_string(&fetch).unwrap();
    fs::write(
        &fetch,
        text.replace("mirror://gnu", "https://example.org/x"),
    )
    .unwrap();
    assert_eq!(hash(), before, "a URL is not part of the package");
    let moved = env.path("elsewhere");
    fs::rename(&tree, &moved).unwrap();
    assert_eq!(in_tree(&home, &moved, &["hash", "tool"]), before);
    fs::write(moved.join("pkg/lib/build"), "#!/bin/sh\ntrue \n").unwrap();
    assert_ne!(
        in_tree(&home, &moved, &["hash", "tool"]),
        before,
        "a dependency's script is"
    );
}

#[test]
fn json_says_the_same_with_names() {
    let env = TestEnv::new();
    let (home, tree) = (env.home("user"), pinned_tree(&env));
    let text = in_tree(&home, &tree, &["--json", "hash", "tool"]);
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(value[0]["name"], "tool");
    let hash = in_tree(&home, &tree, &["hash", "tool"]);
    assert_eq!(value[0]["pkghash"], hash.trim_end());
    let text = in_tree(&home, &tree, &["--json", "closure", "--build", "tool"]);
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(value.as_array().unwrap().len(), 2);
    let text = in_tree(&home, &tree, &["--json", "graph"]);
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(value[2]["run_deps"][0], "lib");
}

#[test]
fn a_derivation_is_the_text_whose_sha256_is_the_hash() {
    let env = TestEnv::new();
    let (home, tree) = (env.home("user"), pinned_tree(&env));
    let text = in_tree(&home, &tree, &["hash", "--derivation", "tool"]);
    let hash = in_tree(&home, &tree, &["hash", "tool"]);
    assert_eq!(
        base::Sha256::of(text.as_bytes()).to_string(),
        hash.trim_end()
    );
}

#[test]
fn mistakes_in_a_tree_are_told_with_file_and_line() {
    let env = TestEnv::new();
    let (home, tree) = (env.home("user"), pinned_tree(&env));
    let tree_flag = tree.to_str().unwrap();
    let refused = |what: &str| {
        home.run(&["--tree", tree_flag, "hash", "tool"])
            .assert_exit(1)
            .assert_says(what);
    };
    fs::write(tree.join("pkg/lib/build-deps"), "../seed\n../tool\n").unwrap();
    refused("dependency cycle: lib -build-> tool -build-> lib");
    fs::write(tree.join("pkg/lib/build-deps"), "../seed\n../../etc\n").unwrap();
    refused("pkg/lib/build-deps:2");
    fs::write(tree.join("pkg/lib/build-deps"), "../sede\n").unwrap();
    refused("did you mean `seed`?");
    fs::write(tree.join("pkg/lib/build-deps"), "../seed\n").unwrap();
    fs::write(
        tree.join("pkg/lib/fetch"),
        "url: https://example.org/x\nsha256: 12\n",
    )
    .unwrap();
    refused("pkg/lib/fetch:2");
    fs::write(tree.join("pkg/lib/fetch"), b"url: \xff\n").unwrap();
    refused("pkg/lib/fetch:1");
    // What is wrong in `lib` does not matter to who does not need it.
    home.ok(&["--tree", tree_flag, "hash", "seed"]);
}
