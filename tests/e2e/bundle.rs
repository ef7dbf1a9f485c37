//! Packages with all they are made from in one file: `bundle`, `bundle import`.

use std::fs;

use crate::support::{Home, TestEnv, greeting, sandbox_works};

/// Builds `greet` and writes a bundle of it; the file, and the key that signed the package.
fn bundle(env: &TestEnv, flags: &[&str]) -> (String, String) {
    let builder = env.home("builder");
    let file = env.path("greet.car").to_str().unwrap().to_owned();
    builder.ok(&["build", "greet"]);
    let printed = builder.ok(&[&["bundle", "-o", &file], flags, &["greet"]].concat());
    assert_eq!(printed.trim_end(), file);
    (file, builder.key())
}

/// A command in the tree that a bundle has brought, on a machine without a network.
fn offline<'a>(tree: &'a str, args: &[&'a str]) -> Vec<&'a str> {
    [&["--offline", "--tree", tree], args].concat()
}

fn import(home: &Home<'_>, file: &str, tree: &str) {
    let printed = home.ok(&["--offline", "bundle", "import", file, "--into", tree]);
    assert_eq!(printed, "hello\ngreet\n");
}

#[test]
fn what_a_bundle_brings_is_installed_or_built_without_a_network() {
    if !sandbox_works() {
        return;
    }
    let mut env = TestEnv::new();
    let (file, key) = bundle(&env, &[]);
    env.stop_origin();
    let tree = |name: &str| env.path(name).to_str().unwrap().to_owned();

    let believer = env.home("believer");
    believer.ok(&["key", "trust", &key]);
    let dir = tree("believers-tree");
    import(&believer, &file, &dir);
    let run = offline(&dir, &["run", "--substitute-only", "greet", "--", "greet"]);
    assert_eq!(believer.ok(&run), greeting().to_uppercase());

    // The same file for who believes nobody: what was built is not used, and everything is there to build it.
    let sceptic = env.home("sceptic");
    let dir = tree("sceptics-tree");
    import(&sceptic, &file, &dir);
    let refused = sceptic.run(&offline(&dir, &["fetch", "greet"]));
    refused.assert_exit(4).assert_says(&key);
    let build = offline(&dir, &["run", "greet", "--", "greet"]);
    assert_eq!(sceptic.ok(&build), greeting().to_uppercase());
    let (theirs, ours) = (offline(&dir, &["hash", "greet"]), ["hash", "greet"]);
    assert_eq!(sceptic.ok(&theirs), env.home("builder").ok(&ours));
}

#[test]
fn a_bundle_can_leave_out_the_sources_or_what_was_built() {
    if !sandbox_works() {
        return;
    }
    let env = TestEnv::new();
    let (whole, _) = bundle(&env, &[]);
    let size = |file: &str| fs::metadata(file).unwrap().len();
    let whole = size(&whole);
    let (file, key) = bundle(&env, &["--no-sources"]);
    assert!(size(&file) < whole);
    let home = env.home("installer");
    home.ok(&["key", "trust", &key]);
    home.ok(&["--offline", "bundle", "import", &file]);
    home.ok(&["--offline", "fetch", "greet"]);
    assert!(!home.ok(&["mirror", "list"]).contains("greeting.txt"));
    let (file, _) = bundle(&env, &["--no-packages"]);
    assert!(size(&file) < whole);
    let home = env.home("other");
    assert_eq!(home.ok(&["--offline", "bundle", "import", &file]), "");
    assert!(home.ok(&["mirror", "list"]).contains("greeting.txt"));
}

#[test]
fn what_is_no_whole_bundle_is_refused_and_writes_no_tree() {
    if !sandbox_works() {
        return;
    }
    let env = TestEnv::new();
    let (file, _) = bundle(&env, &[]);
    let home = env.home("victim");
    let tree = env.path("tree-of-it");
    let into = tree.to_str().unwrap();
    let bytes = fs::read(&file).unwrap();
    let bad = |name: &str, bytes: &[u8]| {
        let path = env.path(name);
        fs::write(&path, bytes).unwrap();
        let path = path.to_str().unwrap();
        home.run(&["--offline", "bundle", "import", path, "--into", into])
            .assert_exit(4)
            .assert_says(name);
        assert!(!tree.exists(), "{name}");
    };
    bad("cut", &bytes[..bytes.len() / 2]);
    let mut flipped = bytes.clone();
    flipped[bytes.len() / 2] ^= 1;
    bad("flipped", &flipped);
    bad("text", b"no archive at all");
    // An archive in order, of something else.
    let builder = env.home("builder");
    let other = env.path("other.car");
    builder.ok(&["car", "export", "hello", "-o", other.to_str().unwrap()]);
    bad("other", &fs::read(&other).unwrap());

    home.run(&["bundle", "hello"]).assert_exit(2);
    fs::create_dir(&tree).unwrap();
    home.run(&["bundle", "import", &file, "--into", into])
        .assert_exit(2)
        .assert_says("exists already");
}
