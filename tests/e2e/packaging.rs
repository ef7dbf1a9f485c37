//! What packagers use: `new`, `check`, which tries what was built where nothing else is, `lint`, which reads what was written,
//! and `refresh`.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use crate::support::{Home, TestEnv, sandbox_works};

/// Gives a package of the toy tree a file, executable.
fn write(env: &TestEnv, path: &str, text: &str) {
    let path = env.tree().join("pkg").join(path);
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn a_package_is_tried_in_a_root_of_its_run_closure_alone() {
    if !sandbox_works() {
        return;
    }
    let env = TestEnv::new();
    let home = env.home("user");
    write(
        &env,
        "hello/check",
        "#!/bin/sh\nset -eu\ntest \"$(hello)\" = \"$(cat /share/hello/greeting.txt)\"\ntest ! -e /bin/greet\ntest -z \"${DESTDIR:-}\"\n",
    );
    write(
        &env,
        "greet/check",
        "#!/bin/sh\necho it is broken\nexit 3\n",
    );
    let tried = home
        .run(&["check", "hello", "greet", "flaky"])
        .assert_exit(5);
    assert_eq!(
        tried.stdout,
        "hello: works\ngreet: does not work\nflaky: has no check\n"
    );
    tried
        .assert_says("it is broken")
        .assert_says("check of `greet` failed with exit status 3");
    let table = home
        .run(&["check", "--markdown", "--reproduce", "flaky", "hello"])
        .assert_exit(6);
    let rows: Vec<_> = table.stdout.lines().collect();
    assert_eq!(
        rows[0],
        "| package | builds | works | reproducible | size | built in |"
    );
    assert!(
        rows[2].starts_with("| flaky | yes | – | no | "),
        "{}",
        rows[2]
    );
    assert!(
        rows[3].starts_with("| hello | yes | yes | yes | "),
        "{}",
        rows[3]
    );
}

#[test]
fn a_missing_run_dependency_is_found_though_the_check_brings_it() {
    if !sandbox_works() {
        return;
    }
    let env = TestEnv::new();
    let home = env.home("user");
    // Its script wants a shell, which a user of it alone would not have.
    fs::remove_file(env.tree().join("pkg/hello/run-deps")).unwrap();
    write(&env, "hello/check", "#!/bin/sh\nhello\n");
    write(&env, "hello/check-deps", "../toy\n");
    home.run(&["check", "hello"])
        .assert_exit(5)
        .assert_says("`bin/hello` is a script for `/bin/sh`, which is not there")
        .assert_says("pkg/hello/run-deps");
    fs::write(env.tree().join("pkg/hello/run-deps"), "../toy\n").unwrap();
    home.run(&["check", "hello"]).assert_exit(0);
}

#[test]
fn a_check_is_no_part_of_the_package() {
    let env = TestEnv::new();
    let home = env.home("user");
    let before = hash(&home);
    write(&env, "hello/check", "#!/bin/sh\n");
    write(&env, "hello/check-deps", "../greet\n");
    assert_eq!(hash(&home), before);
}

fn hash(home: &Home<'_>) -> String {
    home.run(&["hash", "hello"]).assert_exit(0).stdout
}

#[test]
fn lint_reads_recipes_and_what_they_built() {
    if !sandbox_works() {
        return;
    }
    let env = TestEnv::new();
    let home = env.home("user");
    write(&env, "hello/check", "#!/bin/sh\nset -eu\nhello\n");
    let fetch = env.tree().join("pkg/hello/fetch");
    let text = fs::read_to_string(&fetch).unwrap();
    fs::write(
        &fetch,
        text.replace("sha256", "url: mirror://gnu/greeting.txt\nsha256"),
    )
    .unwrap();
    home.run(&["lint", "hello"])
        .assert_exit(1)
        .assert_says("1 remark");
    let build = fs::read_to_string(env.tree().join("pkg/hello/build")).unwrap();
    let more = "mkdir -p \"$DESTDIR/lib\"\ndate >\"$DESTDIR/lib/made.la\"\n";
    write(&env, "hello/build", &(build + more));
    home.run(&["build", "hello"]).assert_exit(0);
    let said = home.run(&["lint", "hello"]).assert_exit(1).stdout;
    assert!(
        said.contains("pkg/hello/build:9: `date` says something else"),
        "{said}"
    );
    assert!(
        said.contains("output of hello: `lib/made.la`: libtool's notes"),
        "{said}"
    );
}

#[test]
fn a_new_package_has_its_source_and_builds_when_it_is_filled_in() {
    let env = TestEnv::new();
    let home = env.home("user");
    fs::write(env.path("origin").join("pub_said-1.2.txt"), "what was said").unwrap();
    let url = format!("{}/pub/said-1.2.txt", env.origin.as_ref().unwrap().url());
    let made = home
        .run(&["new", "said", "--from", &url])
        .assert_exit(0)
        .assert_says("nobody vouches for its sha256 but you");
    let dir = env.tree().join("pkg/said");
    assert_eq!(made.stdout.trim(), dir.to_str().unwrap());
    let sha256 = base::Sha256::of(b"what was said");
    let fetch = fs::read_to_string(dir.join("fetch")).unwrap();
    assert_eq!(fetch, format!("url: {url}\nsha256: {sha256}\n"));
    home.run(&["new", "said"])
        .assert_exit(2)
        .assert_says("there is a package `said` already");
    home.run(&["new", "gone", "--from", &format!("{url}.gone")])
        .assert_exit(3);
    assert!(!env.tree().join("pkg/gone").exists());
    if !sandbox_works() {
        return;
    }
    let build = "#!/bin/sh\nset -eu\nmkdir \"$DESTDIR/share\"\ncp said-*.txt \"$DESTDIR/share/\"\n";
    write(&env, "said/build", build);
    fs::write(dir.join("build-deps"), "../toy\n").unwrap();
    home.run(&["build", "said"]).assert_exit(0);
}

#[test]
fn newer_releases_are_found_in_the_directory_of_a_source() {
    let env = TestEnv::new();
    let home = env.home("user");
    let origin = env.origin.as_ref().unwrap().url();
    let fetch = |file: &str| format!("url: {origin}/pub/{file}\nsha256: {}\n", "0".repeat(64));
    let listing = "<a href=\"one-1.9.tar.gz\">x</a> <a href=\"one-1.10.tar.gz\">x</a> <a href=\"one-2.0rc1.tar.gz\">x</a> <a href=\"two-3.tar.gz\">";
    fs::write(env.path("origin").join("pub_"), listing).unwrap();
    for (name, file) in [("one", "one-1.9.tar.gz"), ("two", "two-3.tar.gz")] {
        fs::create_dir(env.tree().join("pkg").join(name)).unwrap();
        write(&env, &format!("{name}/build"), "#!/bin/sh\n");
        fs::write(env.tree().join("pkg").join(name).join("fetch"), fetch(file)).unwrap();
    }
    let told = home.run(&["refresh", "one", "two"]).assert_exit(0);
    assert_eq!(
        told.stdout,
        format!("one 1.9 1.10 {origin}/pub/one-1.10.tar.gz\n")
    );
    home.run(&["--offline", "refresh", "one"])
        .assert_exit(7)
        .assert_says("no server's listing could be read");
}
