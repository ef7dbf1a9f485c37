//! Heads of package caches: what a cache should have is signed, so an old copy, or one that keeps something back, is noticed. It
//! is never more than a warning.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use base::SecretKey;
use trust::{CacheIndex, Head, SignedHead};

use crate::support::{COMMAND_DEADLINE, Finished, Home, Origin, TestEnv, sandbox_works};

/// What a builder filled.
struct Cache<'e> {
    env: &'e TestEnv,
    builder: Home<'e>,
    dir: PathBuf,
    key: String,
}

impl<'e> Cache<'e> {
    fn of(env: &'e TestEnv, package: &str) -> Self {
        let builder = env.home("builder");
        builder.ok(&["fetch", "--sources", "--all"]);
        let mut cache = Self {
            env,
            dir: env.path("cache"),
            builder,
            key: String::new(),
        };
        cache.export(package).assert_exit(0);
        cache.key = cache.builder.key();
        cache
    }

    fn export(&self, package: &str) -> Finished {
        let dir = self.dir.to_str().unwrap();
        self.builder.run(&["cache", "export", dir, package])
    }

    fn url(&self) -> String {
        format!("file://{}", self.dir.display())
    }

    fn user(&self, name: &str) -> Home<'e> {
        let user = self.env.home(name);
        user.ok(&["key", "trust", &self.key]);
        user.ok(&["fetch", "--sources", "--all"]);
        user
    }

    fn head(&self) -> Head {
        let bytes = fs::read(self.dir.join("head")).unwrap();
        SignedHead::from_bytes(&bytes).unwrap().head().clone()
    }

    /// Puts another head there, signed with the builder's own key.
    fn forge(&self, change: impl FnOnce(&mut Head)) {
        let mut head = self.head();
        change(&mut head);
        let secret = fs::read_to_string(self.builder.path("keys/default.key")).unwrap();
        let secret = SecretKey::from_text(secret.trim_end()).unwrap();
        let signed = head.sign(&secret).unwrap();
        fs::write(self.dir.join("head"), signed.to_bytes()).unwrap();
    }

    fn file(&self, package: &str, ending: &str) -> PathBuf {
        let hash = self.builder.ok(&["hash", package]);
        self.dir.join(format!("{}.{ending}", hash.trim_end()))
    }
}

fn with(home: &Home<'_>, url: &str, args: &[&str]) -> Finished {
    let mut command = home.command(args);
    command.env("PKG_CACHE_URL", url);
    Finished::of(command, COMMAND_DEADLINE)
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.path().is_dir() {
            copy(&entry.path(), &to.join(entry.file_name()));
        } else {
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

#[test]
fn an_old_copy_of_a_cache_is_told_and_one_that_began_anew_can_be_forgotten() {
    if !sandbox_works() {
        return;
    }
    let env = TestEnv::new();
    let cache = Cache::of(&env, "hello");
    let old = env.path("old");
    copy(&cache.dir, &old);
    cache
        .export("greet")
        .assert_exit(0)
        .assert_says("revision 2 of the cache `cache-")
        .assert_says("lists 2 packages");
    let user = cache.user("user");
    let fetched = with(&user, &cache.url(), &["fetch", "hello"]).assert_exit(0);
    assert!(!fetched.stderr.contains("warning"), "{}", fetched.stderr);
    let listed = user.ok(&["cache", "list"]);
    assert!(
        listed.starts_with(&cache.url()) && listed.contains(" 2 20"),
        "{listed}"
    );
    fs::rename(&cache.dir, env.path("new")).unwrap();
    fs::rename(&old, &cache.dir).unwrap();
    with(&user, &cache.url(), &["fetch", "greet"])
        .assert_exit(3)
        .assert_says("is an old copy: it shows revision 1")
        .assert_says("revision 2 was seen before")
        .assert_says("cache forget");
    user.ok(&["cache", "forget", &cache.url()]);
    let miss = with(&user, &cache.url(), &["fetch", "greet"]).assert_exit(3);
    assert!(!miss.stderr.contains("old copy"), "{}", miss.stderr);
    // A build does not fail for it.
    with(&user, &cache.url(), &["build", "greet"]).assert_exit(0);
}

#[test]
fn a_cache_that_keeps_back_what_its_head_lists_is_told_and_fails_no_build() {
    if !sandbox_works() {
        return;
    }
    let env = TestEnv::new();
    let cache = Cache::of(&env, "greet");
    let server = Origin::serve(&cache.dir);
    let says = "keeps back 1 package that revision 1 of its head lists: greet";
    fs::remove_file(cache.file("greet", "tar.zst")).unwrap();
    let user = cache.user("statement");
    with(&user, &server.url(), &["fetch", "greet"]).assert_says(says);
    fs::remove_file(cache.file("greet", "realisations")).unwrap();
    let user = cache.user("nothing");
    with(&user, &server.url(), &["fetch", "greet"])
        .assert_exit(3)
        .assert_says(says);
    with(&user, &server.url(), &["build", "greet"])
        .assert_exit(0)
        .assert_says(says);
    // What the head does not list is nobody's fault.
    let miss = with(&user, &server.url(), &["fetch", "flaky"]).assert_exit(3);
    assert!(!miss.stderr.contains("keeps back"), "{}", miss.stderr);
    fs::remove_dir_all(cache.dir.join("index")).unwrap();
    with(&user, &server.url(), &["fetch", "flaky"])
        .assert_exit(3)
        .assert_says("does not give the list of what it holds");
}

#[test]
fn a_frozen_contradicting_renamed_or_missing_head_is_told() {
    if !sandbox_works() {
        return;
    }
    let env = TestEnv::new();
    let cache = Cache::of(&env, "hello");
    let user = cache.user("user");
    let fetch = |package: &str| with(&user, &cache.url(), &["fetch", package]);
    fetch("hello").assert_exit(0);
    cache.forge(|head| head.expires_unix_secs = 1_700_000_000);
    fetch("greet")
        .assert_exit(3)
        .assert_says("has expired, its last day was 2023-11-14");
    cache.forge(|head| head.root = CacheIndex::default().parts().0);
    fetch("greet")
        .assert_exit(3)
        .assert_says("contradicts what was seen of the cache")
        .assert_says(".1.proof-1`");
    cache.forge(|head| head.name = "other".parse().unwrap());
    fetch("greet")
        .assert_exit(3)
        .assert_says("shows the head of `other` now");
    // By somebody whom nobody trusts, which is as good as none.
    let mallory = SecretKey::from_seed(&[7; 32]);
    let forged = cache.head().sign(&mallory).unwrap();
    let head = cache.dir.join("head");
    fs::write(&head, forged.to_bytes()).unwrap();
    let says = "shows no head any more by anybody whom you trust";
    fetch("greet").assert_exit(3).assert_says(says);
    fs::write(&head, "no head").unwrap();
    fetch("greet").assert_exit(3).assert_says(says);
    fs::remove_file(&head).unwrap();
    fetch("greet").assert_exit(3).assert_says(says);
    // Who never saw one misses nothing.
    let other = cache.user("other");
    let fetched = with(&other, &cache.url(), &["fetch", "hello"]).assert_exit(0);
    assert!(!fetched.stderr.contains("warning"), "{}", fetched.stderr);
    assert_eq!(other.ok(&["cache", "list"]), "");
}

#[test]
fn a_head_is_renewed_without_news_and_old_parts_of_the_index_go() {
    if !sandbox_works() {
        return;
    }
    let env = TestEnv::new();
    let cache = Cache::of(&env, "hello");
    let first = cache.head();
    for revision in [2, 3, 4] {
        cache.export("hello").assert_exit(0);
        let head = cache.head();
        assert_eq!((head.revision, head.root), (revision, first.root));
        assert_eq!(head.name, first.name);
    }
    cache.export("greet").assert_exit(0);
    cache.export("greet").assert_exit(0);
    let parts = fs::read_dir(cache.dir.join("index")).unwrap().count();
    assert!(parts <= 3, "{parts}");
    // A directory that others filled, or an older program, is listed as its statements say.
    let old = env.path("old");
    copy(&cache.dir, &old);
    fs::remove_file(old.join("head")).unwrap();
    fs::remove_dir_all(old.join("index")).unwrap();
    let old = old.to_str().unwrap();
    cache
        .builder
        .run(&[
            "cache",
            "export",
            old,
            "hello",
            "--name",
            "ours",
            "--expires",
            "1",
        ])
        .assert_exit(0)
        .assert_says("revision 1 of the cache `ours` lists 2 packages");
}

#[test]
fn several_people_sign_one_head_if_the_directory_holds_what_it_lists() {
    if !sandbox_works() {
        return;
    }
    let env = TestEnv::new();
    let cache = Cache::of(&env, "greet");
    let bob = env.home("bob");
    bob.ok(&["key", "new"]);
    let dir = cache.dir.to_str().unwrap();
    bob.run(&["cache", "sign", dir])
        .assert_exit(0)
        .assert_says("revision 1 of the cache `cache-")
        .assert_says("has 2 signatures");
    let bytes = fs::read(cache.dir.join("head")).unwrap();
    let signed = SignedHead::from_bytes(&bytes).unwrap();
    assert_eq!(signed.signers().count(), 2);
    fs::remove_file(cache.file("greet", "tar.zst")).unwrap();
    bob.run(&["cache", "sign", dir])
        .assert_exit(4)
        .assert_says("does not hold what its head lists")
        .assert_says("no output ");
    cache.forge(|head| head.root = CacheIndex::default().parts().0);
    bob.run(&["cache", "sign", dir]).assert_exit(4);
    bob.run(&["cache", "sign", env.path("").to_str().unwrap()])
        .assert_exit(3);
}

/// Answers for files of a directory, and says nothing when it is asked for its head or for statements about keys.
fn serve_but_hide(dir: PathBuf) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for mut visitor in listener.incoming().flatten() {
            let dir = dir.clone();
            std::thread::spawn(move || answer(&mut visitor, &dir));
        }
    });
    url
}

fn answer(visitor: &mut TcpStream, dir: &Path) {
    let mut request = [0; 4096];
    let read = visitor.read(&mut request).unwrap_or(0);
    let text = String::from_utf8_lossy(&request[..read]).into_owned();
    let name = text.split(' ').nth(1).unwrap_or_default();
    let name = name.trim_start_matches('/');
    if matches!(name, "head" | "key-statements") {
        // Until the visitor has had enough.
        let _ = visitor.read(&mut request);
        return;
    }
    let (code, body) = match fs::read(dir.join(name)) {
        Ok(body) => ("200 OK", body),
        Err(_) => ("404 Not Found", Vec::new()),
    };
    let length = body.len();
    let head = format!("HTTP/1.1 {code}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
    let _ = visitor.write_all(head.as_bytes());
    let _ = visitor.write_all(&body);
}

#[test]
fn a_cache_that_says_nothing_of_its_head_costs_a_moment_and_is_told() {
    if !sandbox_works() {
        return;
    }
    let env = TestEnv::new();
    let cache = Cache::of(&env, "greet");
    let url = serve_but_hide(cache.dir.clone());
    let user = cache.user("user");
    let started = Instant::now();
    let fetched = with(&user, &url, &["fetch", "hello"]).assert_exit(0);
    // Twice two seconds, and what the fetch takes on a busy machine.
    assert!(started.elapsed() < Duration::from_secs(12));
    assert!(!fetched.stderr.contains("warning"), "{}", fetched.stderr);
}

#[test]
fn users_of_a_cache_tell_each_other_which_heads_they_saw() {
    if !sandbox_works() {
        return;
    }
    let env = TestEnv::new();
    let cache = Cache::of(&env, "hello");
    let old = env.path("old");
    copy(&cache.dir, &old);
    cache.export("greet").assert_exit(0);
    let ahead = cache.user("ahead");
    with(&ahead, &cache.url(), &["fetch", "hello"]).assert_exit(0);
    let daemon = ahead.daemon(&[]);
    // Has never seen the cache, and is shown an old copy.
    let behind = cache.user("behind");
    behind.bootstrap_from(&daemon);
    let url = format!("file://{}", old.display());
    with(&behind, &url, &["fetch", "greet"])
        .assert_exit(3)
        .assert_says("shows revision 1 of `cache-")
        .assert_says(" has seen revision 2: it may keep back what came since");
    let other = Cache { dir: old, ..cache };
    other.forge(|head| {
        head.revision = 2;
        head.root = CacheIndex::default().parts().0;
    });
    with(&behind, &url, &["fetch", "greet"])
        .assert_exit(3)
        .assert_says("contradicts what peer ")
        .assert_says(".2.proof-1`");
}
