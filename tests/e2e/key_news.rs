//! Statements about keys that come along with packages, from caches, bundles and the HTTP door, without anybody importing a file.

use std::fs;

use base::SecretKey;
use trust::{KeyStatement, SignedKeyStatement};

use crate::support::{COMMAND_DEADLINE, Finished, Home, Origin, TestEnv, sandbox_works};

/// A builder's directory with `flaky`, and the builder's key.
struct Cache<'e> {
    builder: Home<'e>,
    dir: String,
    key: String,
}

impl<'e> Cache<'e> {
    fn of(env: &'e TestEnv) -> Self {
        let builder = env.home("builder");
        let dir = env.path("cache").to_str().unwrap().to_owned();
        builder.ok(&["cache", "export", &dir, "flaky"]);
        let key = builder.key();
        Self { builder, dir, key }
    }

    /// Puts statements beside the packages, as they are on the way to somebody.
    fn say(&self, statements: &[SignedKeyStatement]) {
        let bytes = SignedKeyStatement::print_file(statements);
        fs::write(format!("{}/key-statements", self.dir), bytes).unwrap();
    }

    fn secret(&self) -> SecretKey {
        let text = fs::read_to_string(self.builder.path("keys/default.key")).unwrap();
        SecretKey::from_text(text.trim_end()).unwrap()
    }

    fn fetch(&self, user: &Home<'_>) -> Finished {
        let url = format!("file://{}", self.dir);
        with(user, &url)
    }
}

fn with(home: &Home<'_>, url: &str) -> Finished {
    let mut command = home.command(&["fetch", "flaky"]);
    command.env("PKG_CACHE_URL", url);
    Finished::of(command, COMMAND_DEADLINE)
}

fn user<'e>(env: &'e TestEnv, name: &str, trusted: &str) -> Home<'e> {
    let user = env.home(name);
    user.ok(&["fetch", "--sources", "flaky"]);
    user.ok(&["key", "trust", trusted, "--name", "project"]);
    user
}

fn root() -> SecretKey {
    SecretKey::from_seed(&[3; 32])
}

fn delegation(cache: &Cache<'_>) -> SignedKeyStatement {
    let statement = KeyStatement::Delegation {
        root: root().public(),
        key: cache.secret().public(),
        scope: trust::Scope::default(),
        until_unix_secs: None,
    };
    statement.sign(&[&root()]).unwrap()
}

fn revocation(key: &SecretKey, by: &SecretKey) -> SignedKeyStatement {
    let (key, by_key) = (key.public(), by.public());
    let statement = KeyStatement::Revocation { key, by: by_key };
    statement.sign(&[by]).unwrap()
}

#[test]
fn a_delegation_and_its_end_come_with_the_packages_and_count_for_them() {
    if !sandbox_works() {
        return;
    }
    let env = TestEnv::new();
    let cache = Cache::of(&env);
    cache.say(&[delegation(&cache)]);
    let root_key = root().public().to_string();
    let believer = user(&env, "believer", &root_key);
    // In the command that hears of it.
    cache.fetch(&believer).assert_exit(0).assert_says(&format!(
        "learned from file://{}: {root_key} delegates",
        cache.dir
    ));
    let stranger = env.home("stranger");
    stranger.ok(&["fetch", "--sources", "flaky"]);
    cache.fetch(&stranger).assert_exit(4);
    assert!(!stranger.path("key-statements").exists());
    cache.say(&[revocation(&cache.secret(), &root()), delegation(&cache)]);
    let late = user(&env, "late", &root_key);
    cache
        .fetch(&late)
        .assert_exit(4)
        .assert_says("which does not count: it was revoked");
    // Who hands out the old delegation alone again changes nothing any more.
    cache.say(&[delegation(&cache)]);
    cache
        .fetch(&late)
        .assert_exit(4)
        .assert_says("which does not count: it was revoked");
}

#[test]
fn what_is_forged_or_nobodys_business_is_not_kept_and_fails_nothing() {
    if !sandbox_works() {
        return;
    }
    let env = TestEnv::new();
    let cache = Cache::of(&env);
    let believer = user(&env, "believer", &cache.key);
    let mallory = SecretKey::from_seed(&[66; 32]);
    // A stranger takes back the builder's key, and names a crowd.
    let mut crowd: Vec<_> = (0..200)
        .map(|n| {
            let other = SecretKey::from_seed(&[n; 32]).public();
            let statement = KeyStatement::Revocation {
                key: other,
                by: mallory.public(),
            };
            statement.sign(&[&mallory]).unwrap()
        })
        .collect();
    crowd.push(revocation(&cache.secret(), &mallory));
    cache.say(&crowd);
    cache.fetch(&believer).assert_exit(0);
    assert!(!believer.path("key-statements").exists());
    // A true revocation with a changed byte is none.
    let other = user(&env, "other", &cache.key);
    cache.say(&[revocation(&cache.secret(), &cache.secret())]);
    let path = format!("{}/key-statements", cache.dir);
    let whole = fs::read(&path).unwrap();
    let mut bytes = whole.clone();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&path, bytes).unwrap();
    cache.fetch(&other).assert_exit(0);
    assert!(!other.path("key-statements").exists());
    // The true one counts for what came with it.
    fs::write(&path, whole).unwrap();
    let late = user(&env, "late", &cache.key);
    cache
        .fetch(&late)
        .assert_exit(4)
        .assert_says("is revoked")
        .assert_says("which does not count: it was revoked");
}

#[test]
fn a_revocation_comes_over_the_http_door_and_in_a_bundle() {
    if !sandbox_works() {
        return;
    }
    let env = TestEnv::new();
    let cache = Cache::of(&env);
    let users = ["gateway", "bundle", "web"].map(|name| user(&env, name, &cache.key));
    let bundle = env.path("flaky.car");
    let bundle = bundle.to_str().unwrap();
    let revoked = env.path("revoked");
    cache
        .builder
        .ok(&["key", "revoke", "default", "-o", revoked.to_str().unwrap()]);
    // What is built again is signed with a new key; what the old one signed is still handed out.
    cache.builder.ok(&["bundle", "-o", bundle, "flaky"]);
    let says = format!("{} is revoked", cache.key);
    let daemon = cache.builder.daemon(&[]);
    let mut fetch = users[0].command(&["fetch", "flaky"]);
    fetch.env("P2PKGS_GATEWAYS_URLS", daemon.http());
    Finished::of(fetch, COMMAND_DEADLINE)
        .assert_exit(4)
        .assert_says(&says);
    let import = users[1].run(&["--offline", "bundle", "import", bundle]);
    import.assert_exit(0).assert_says(&says);
    users[1]
        .run(&["--offline", "fetch", "flaky"])
        .assert_exit(4);
    let export = ["cache", "export", cache.dir.as_str(), "flaky"];
    cache.builder.ok(&export);
    let server = Origin::serve(cache.dir.as_ref());
    with(&users[2], &server.url())
        .assert_exit(4)
        .assert_says(&says);
}

#[test]
fn a_revocation_comes_from_the_peer_that_brings_the_package() {
    if !sandbox_works() {
        return;
    }
    let env = TestEnv::new();
    let cache = Cache::of(&env);
    let user = user(&env, "user", &cache.key);
    let revoked = env.path("revoked");
    let revoke = ["key", "revoke", "default", "-o", revoked.to_str().unwrap()];
    cache.builder.ok(&revoke);
    let daemon = cache.builder.daemon(&[]);
    user.bootstrap_from(&daemon);
    user.run(&["fetch", "flaky"])
        .assert_exit(4)
        .assert_says("learned from peer ")
        .assert_says(&format!("{} is revoked", cache.key))
        .assert_says("which does not count: it was revoked");
}
