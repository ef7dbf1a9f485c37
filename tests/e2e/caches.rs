//! Package caches: directories that anything can serve.

use std::fs;
use std::io::Read as _;
use std::net::TcpListener;
use std::path::Path;

use crate::support::{COMMAND_DEADLINE, Finished, Home, Origin, TestEnv, sandbox_works};

/// A directory with `hello`, and the key of who built it.
fn export(env: &TestEnv) -> (String, String) {
    let builder = env.home("builder");
    let dir = env.path("cache");
    let dir = dir.to_str().unwrap().to_owned();
    let printed = builder.ok(&["cache", "export", &dir, "hello"]);
    assert!(printed.contains(" hello\n"), "{printed}");
    (dir, builder.key())
}

fn user<'e>(env: &'e TestEnv, name: &str, key: &str) -> Home<'e> {
    let user = env.home(name);
    user.ok(&["key", "trust", key]);
    user
}

/// The files of a directory, without those of its folders.
fn files(dir: &str) -> Vec<fs::DirEntry> {
    let entries = fs::read_dir(dir).unwrap().map(Result::unwrap);
    entries.filter(|entry| entry.path().is_file()).collect()
}

fn with_caches(home: &Home<'_>, urls: &str, args: &[&str]) -> Finished {
    let mut command = home.command(args);
    command.env("PKG_CACHE_URL", urls);
    Finished::of(command, COMMAND_DEADLINE)
}

#[test]
fn an_exported_directory_is_used_over_http_and_as_a_directory() {
    if !sandbox_works() {
        return;
    }
    let env = TestEnv::new();
    let (dir, key) = export(&env);
    // A second time nothing is written anew.
    env.home("builder").ok(&["cache", "export", &dir, "hello"]);
    let server = Origin::serve(Path::new(&dir));
    let over_http = user(&env, "http", &key);
    let fetched = with_caches(&over_http, &server.url(), &["fetch", "hello"]).assert_exit(0);
    assert!(fetched.stderr.contains("http"), "{}", fetched.stderr);
    assert!(server.requests() >= 2);
    let local = user(&env, "local", &key);
    let url = format!("file://{dir}");
    with_caches(&local, &url, &["fetch", "hello"]).assert_exit(0);
    // Without a network directories of this machine are still there.
    let copy = user(&env, "copy", &key);
    copy.ok(&["fetch", "--sources", "hello"]);
    with_caches(&copy, &url, &["--offline", "fetch", "hello"]).assert_exit(0);
    // Who trusts nobody is told whom the cache's statements come from.
    let stranger = env.home("stranger");
    let refused = with_caches(&stranger, &url, &["fetch", "hello"]).assert_exit(4);
    assert!(refused.stderr.contains(&key), "{}", refused.stderr);
}

#[test]
fn a_cache_that_is_down_silent_or_wrong_never_fails_a_build() {
    if !sandbox_works() {
        return;
    }
    let env = TestEnv::new();
    let (dir, key) = export(&env);
    // Truncates everything it gives.
    let broken = env.path("broken");
    fs::create_dir(&broken).unwrap();
    for entry in files(&dir) {
        let mut bytes = fs::read(entry.path()).unwrap();
        if entry.path().extension().is_some_and(|e| e == "zst") {
            bytes.truncate(bytes.len() / 2);
        }
        fs::write(broken.join(entry.file_name()), bytes).unwrap();
    }
    let garbage = env.path("garbage");
    fs::create_dir(&garbage).unwrap();
    for entry in files(&dir) {
        fs::write(garbage.join(entry.file_name()), "<html>404</html>").unwrap();
    }
    let (broken, garbage) = (Origin::serve(&broken), Origin::serve(&garbage));
    let dead = "http://127.0.0.1:1/cache";
    for (name, urls) in [
        ("dead", dead.to_owned()),
        ("broken", broken.url()),
        ("garbage", garbage.url()),
        ("nowhere", "file:///nowhere/at/all".to_owned()),
        ("all", format!("{dead} {} {}", broken.url(), garbage.url())),
    ] {
        let home = user(&env, name, &key);
        let built = with_caches(&home, &urls, &["build", "hello"]).assert_exit(0);
        if name == "broken" {
            // The whole reason, and not only its top.
            built.assert_says("cannot fetch `hello`: `http://");
        }
    }
    // With a good one among them nothing needs to be built.
    let home = user(&env, "lucky", &key);
    let urls = format!("{dead} {} {} file://{dir}", garbage.url(), broken.url());
    with_caches(&home, &urls, &["build", "--substitute-only", "hello"]).assert_exit(0);
    let miss = user(&env, "miss", &key);
    let miss = with_caches(&miss, dead, &["fetch", "hello"]).assert_exit(3);
    assert!(miss.stderr.contains("1 cache"), "{}", miss.stderr);
}

#[test]
fn a_cache_that_takes_connections_and_says_nothing_costs_its_deadline_once() {
    if !sandbox_works() {
        return;
    }
    let env = TestEnv::new();
    let (dir, key) = export(&env);
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let accepting = std::thread::spawn(move || {
        let (mut visitor, _) = silent.accept().unwrap();
        let mut bytes = Vec::new();
        let _ = visitor.read_to_end(&mut bytes);
    });
    // Somebody else knows enough: the silent one is not waited for at all.
    let home = user(&env, "user", &key);
    let started = std::time::Instant::now();
    let urls = format!("{url} file://{dir}");
    with_caches(&home, &urls, &["fetch", "hello"]).assert_exit(0);
    // Its deadline is 5 s here.
    assert!(started.elapsed().as_secs() < 4);
    accepting.join().unwrap();
}

#[test]
fn a_cache_of_an_unknown_kind_is_a_usage_error_that_names_the_key() {
    let env = TestEnv::new();
    with_caches(&env.home("user"), "ftp://a/b", &["fetch", "hello"])
        .assert_exit(2)
        .assert_says("`caches.urls` must be a list of");
}
