//! Rules about keys: who counts for what, until when, and how many of whom must agree. The numbered rules stand in
//! `docs/caches.md`. Nobody is asked over a network here: builders export directories.

use std::fs;

use crate::support::{COMMAND_DEADLINE, Finished, Home, TestEnv, sandbox_works};

/// A builder's directory with a package, and the builder's key.
struct Cache {
    url: String,
    key: String,
}

/// Builds a package in a home of that name and exports it. `flaky` is another output each time.
fn builder(env: &TestEnv, name: &str, package: &str) -> Cache {
    let home = env.home(name);
    let dir = env.path(&format!("{name}-{package}"));
    home.ok(&["cache", "export", dir.to_str().unwrap(), package]);
    Cache {
        url: format!("file://{}", dir.display()),
        key: home.key(),
    }
}

/// Runs a command that knows only these caches.
fn with(home: &Home<'_>, caches: &[&Cache], args: &[&str]) -> Finished {
    let urls: Vec<_> = caches.iter().map(|cache| cache.url.as_str()).collect();
    let args = [&["--offline"], args].concat();
    let mut command = home.command(&args);
    command.env("PKG_CACHE_URL", urls.join(" "));
    Finished::of(command, COMMAND_DEADLINE)
}

#[test]
fn a_nested_rule_decides_and_what_is_missing_is_said() {
    if !sandbox_works() {
        return;
    }
    let env = TestEnv::new();
    let [alice, bob, ci] = ["alice", "bob", "ci"].map(|name| builder(&env, name, "hello"));
    let user = env.home("user");
    // The seed, which no cache has.
    user.ok(&["fetch", "--sources", "hello"]);
    for (name, cache) in [("alice", &alice), ("bob", &bob), ("ci", &ci)] {
        user.ok(&["key", "trust", &cache.key, "--name", name]);
    }
    user.ok(&["key", "policy", "2 of {alice, any 1 of {bob, ci}}"]);
    let rule = user.ok(&["key", "policy"]);
    assert_eq!(rule, "2 of {alice, 1 of {bob, ci}}\n");
    with(&user, &[&bob, &ci], &["fetch", "hello"])
        .assert_exit(4)
        .assert_says("the rule is: 2 of {alice, 1 of {bob, ci}}")
        .assert_says(&format!("ci {} signed ", ci.key));
    with(&user, &[&alice, &ci], &["fetch", "hello"]).assert_exit(0);
}

#[test]
fn a_rule_that_does_not_fit_the_keys_is_refused_and_changes_nothing() {
    let env = TestEnv::new();
    let user = env.home("user");
    let key = env.home("alice").ok(&["key", "new"]);
    user.ok(&["key", "trust", key.trim_end(), "--name", "alice"]);
    for (rule, says) in [
        (
            "1 of {alice, bob}",
            "character 14 of the rule: no trusted key is called `bob`",
        ),
        (
            "2 of {alice}",
            "character 1 of the rule: 2 of 1 is no threshold",
        ),
        (
            "1 of {alice",
            "character 12 of the rule: expected `,` or `}`",
        ),
    ] {
        user.run(&["key", "policy", rule])
            .assert_exit(2)
            .assert_says(says);
    }
    assert_eq!(user.ok(&["key", "policy"]), "1 of trusted\n");
    user.ok(&["key", "policy", "1 of {alice, own}"]);
    // Whom the rule names cannot leave before the rule does.
    user.run(&["key", "untrust", "alice"])
        .assert_exit(2)
        .assert_says("no trusted key is called `alice`");
    user.ok(&["key", "trust", "--threshold", "1"]);
    user.ok(&["key", "untrust", "alice"]);
}

#[test]
fn poison_by_a_stranger_or_by_one_of_two_required_keys_installs_nothing() {
    if !sandbox_works() {
        return;
    }
    let env = TestEnv::new();
    let [alice, mallory] = ["alice", "mallory"].map(|name| builder(&env, name, "flaky"));
    let place = env.path("placed");
    let fetch = ["fetch", "flaky", "--into", place.to_str().unwrap()];
    let careless = env.home("careless");
    careless.ok(&["key", "trust", &alice.key, "--name", "alice"]);
    with(&careless, &[&mallory], &fetch)
        .assert_exit(4)
        .assert_says("only vouched for by keys that are not trusted")
        .assert_says(&mallory.key);
    let careful = env.home("careful");
    careful.ok(&["key", "trust", &alice.key, "--name", "alice"]);
    careful.ok(&["key", "trust", &mallory.key, "--name", "mallory"]);
    careful.ok(&["key", "policy", "2 of {alice, mallory}"]);
    with(&careful, &[&alice, &mallory], &fetch)
        .assert_exit(4)
        .assert_says(&format!("alice {} signed ", alice.key))
        .assert_says(&format!("mallory {} signed ", mallory.key));
    assert!(!place.exists());
}

#[test]
fn a_key_counts_for_its_packages_and_to_its_last_day() {
    if !sandbox_works() {
        return;
    }
    let env = TestEnv::new();
    let alice = builder(&env, "alice", "hello");
    let user = env.home("user");
    user.ok(&["fetch", "--sources", "hello"]);
    let trust = |limit: &[&str]| {
        user.ok(&[&["key", "trust", &alice.key, "--name", "alice"], limit].concat());
    };
    trust(&["--for", "gcc-*", "--for", "make"]);
    with(&user, &[&alice], &["fetch", "hello"])
        .assert_exit(4)
        .assert_says("which does not count: it is trusted for `gcc-*`, `make`");
    let listed = user.ok(&["key", "list"]);
    assert!(listed.contains("alice for gcc-* for make\n"), "{listed}");
    trust(&["--until", "2020-02-29"]);
    with(&user, &[&alice], &["fetch", "hello"])
        .assert_exit(4)
        .assert_says("which does not count: it was trusted until 2020-02-29");
    let listed = user.ok(&["key", "list"]);
    assert!(
        listed.contains("until 2020-02-29, does not count: it was"),
        "{listed}"
    );
    // Whoever may build is told as well, and builds.
    let builds = env.home("builds");
    builds.ok(&["key", "trust", &alice.key, "--until", "2020-02-29"]);
    builds.ok(&["fetch", "--sources", "hello"]);
    with(&builds, &[&alice], &["build", "hello"])
        .assert_exit(0)
        .assert_says("which does not count: it was trusted until 2020-02-29");
    trust(&["--for", "hell?", "--until", "9999-12-31"]);
    with(&user, &[&alice], &["fetch", "hello"]).assert_exit(0);
    user.run(&["key", "trust", &alice.key, "--until", "2020-02-30"])
        .assert_exit(2)
        .assert_says("2027-01-31");
}

#[test]
fn anyone_is_believed_for_one_command_when_that_is_typed_and_nobody_contradicts() {
    if !sandbox_works() {
        return;
    }
    let env = TestEnv::new();
    let [one, two] = ["one", "two"].map(|name| builder(&env, name, "flaky"));
    let user = env.home("user");
    let any = ["fetch", "--trust", "any", "flaky"];
    with(&user, &[&one, &two], &any)
        .assert_exit(4)
        .assert_says(&one.key)
        .assert_says(&two.key);
    with(&user, &[&one], &any)
        .assert_exit(0)
        .assert_says("warning: `--trust any`");
    // The next command asks again whom to believe.
    with(&user, &[&one], &["fetch", "flaky"]).assert_exit(4);
    with(&user, &[&one], &["fetch", "--trust", "all", "flaky"]).assert_exit(2);
}

#[test]
fn a_key_that_signed_two_outputs_does_not_count_and_the_proof_stays() {
    if !sandbox_works() {
        return;
    }
    let env = TestEnv::new();
    let one = builder(&env, "one", "flaky");
    // The same key, and another output.
    let again = env.home("again");
    fs::create_dir_all(again.path("keys")).unwrap();
    let secret = env.home("one").path("keys/default.key");
    fs::copy(secret, again.path("keys/default.key")).unwrap();
    let again = builder(&env, "again", "flaky");
    assert_eq!(one.key, again.key);
    let user = env.home("user");
    user.ok(&["key", "trust", &one.key, "--name", "one"]);
    with(&user, &[&one, &again], &["fetch", "flaky"])
        .assert_exit(4)
        .assert_says(&format!("one {} signed two outputs", one.key))
        .assert_says("which does not count: it signed different outputs of this package");
    // Who hears only one side of it later remembers the other.
    with(&user, &[&one], &["fetch", "flaky"]).assert_exit(4);
    let faults = user.ok(&["key", "faults"]);
    let (hash, key) = (env.home("one").ok(&["hash", "flaky"]), &one.key);
    assert!(
        faults.contains(hash.trim_end()) && faults.contains(key),
        "{faults}"
    );
    assert_eq!(faults.lines().count(), 1, "{faults}");
    // Nobody else suffers from it.
    let other = builder(&env, "other", "flaky");
    user.ok(&["key", "trust", &other.key]);
    with(&user, &[&one, &again, &other], &["fetch", "flaky"]).assert_exit(0);
}

/// A file in the test's folder, as text.
fn file(env: &TestEnv, name: &str) -> String {
    env.path(name).to_str().unwrap().to_owned()
}

#[test]
fn an_offline_root_names_a_builder_and_takes_it_back() {
    if !sandbox_works() {
        return;
    }
    let env = TestEnv::new();
    let ci = builder(&env, "ci", "flaky");
    // The root's secret half lies on a stick.
    let root = env.home("stick").ok(&["key", "new", "root"]);
    let secret = env.home("stick").path("keys/root.key");
    let secret = secret.to_str().unwrap();
    let project = env.home("project");
    let (named, taken) = (file(&env, "named"), file(&env, "taken"));
    let delegate = [
        "key", "delegate", &ci.key, "--root", secret, "--for", "fla*",
    ];
    project.ok(&[&delegate[..], &["--until", "9999-12-31", "-o", &named]].concat());
    let user = env.home("user");
    user.ok(&["key", "trust", root.trim_end(), "--name", "project"]);
    user.ok(&["key", "policy", "1 of {project, own}"]);
    with(&user, &[&ci], &["fetch", "flaky"]).assert_exit(4);
    let said = user.ok(&["key", "import", &named]);
    assert!(said.contains("for `fla*` until 9999-12-31"), "{said}");
    let listed = user.ok(&["key", "list"]);
    assert!(
        listed.contains(&format!("delegated {} project\n", ci.key)),
        "{listed}"
    );
    with(&user, &[&ci], &["fetch", "flaky"]).assert_exit(0);
    project.ok(&["key", "revoke", &ci.key, "--root", secret, "-o", &taken]);
    user.ok(&["key", "import", &taken, &named]);
    with(&user, &[&ci], &["fetch", "flaky"])
        .assert_exit(4)
        .assert_says(&format!("project {} signed ", ci.key))
        .assert_says("which does not count: it was revoked");
    // Everything that is known can be handed on in one file.
    let all = file(&env, "all");
    user.ok(&["key", "export", "-o", &all, "project"]);
    let other = env.home("other");
    assert_eq!(other.ok(&["key", "import", &all]).lines().count(), 2);
}

#[test]
fn whoever_trusts_a_key_follows_its_rotation_once() {
    if !sandbox_works() {
        return;
    }
    let env = TestEnv::new();
    let home = env.home("alice");
    let old = home.ok(&["key", "new"]);
    let old = old.trim_end();
    let stolen = env.home("thief");
    fs::create_dir_all(stolen.path("keys")).unwrap();
    fs::copy(
        home.path("keys/default.key"),
        stolen.path("keys/default.key"),
    )
    .unwrap();
    let user = env.home("user");
    user.ok(&["key", "trust", old, "--name", "alice"]);
    user.ok(&["key", "policy", "alice"]);
    let (rotation, theft) = (file(&env, "rotation"), file(&env, "theft"));
    let new = home.ok(&["key", "rotate", "-o", &rotation]);
    let new = new.trim_end();
    let own = home.ok(&["key", "list"]);
    assert!(
        own.contains(&format!("own {new} default\n")) && own.contains(old),
        "{own}"
    );
    let alice = env.path("alice-flaky");
    home.ok(&["cache", "export", alice.to_str().unwrap(), "flaky"]);
    let alice = Cache {
        url: format!("file://{}", alice.display()),
        key: new.to_owned(),
    };
    // The cache brings it along; who has the file has it already.
    with(&user, &[&alice], &["fetch", "flaky"])
        .assert_exit(0)
        .assert_says(&format!("{old} is replaced by {new}"));
    assert_eq!(user.ok(&["key", "import", &rotation]), "");
    let listed = user.ok(&["key", "list"]);
    assert!(
        listed.contains(&format!("follows {new} alice\n")),
        "{listed}"
    );
    assert!(
        listed.contains(&format!("it was replaced by {new}")),
        "{listed}"
    );
    // Whoever stole the old key comes too late, and cannot be heard by accident.
    stolen.ok(&["key", "rotate", "-o", &theft]);
    user.run(&["key", "import", &theft])
        .assert_exit(4)
        .assert_says("was rotated to");
    // The cache brings what was said of its keys along.
    let brought = env.path("alice-flaky/key-statements");
    let other = env.home("other");
    other.ok(&["key", "import", brought.to_str().unwrap()]);
}

#[test]
fn a_revoked_key_is_put_away_and_believed_by_nobody_who_heard_of_it() {
    if !sandbox_works() {
        return;
    }
    let env = TestEnv::new();
    let alice = builder(&env, "alice", "flaky");
    let (user, revoked) = (env.home("user"), file(&env, "revoked"));
    user.ok(&["key", "trust", &alice.key]);
    with(&user, &[&alice], &["fetch", "flaky"]).assert_exit(0);
    let home = env.home("alice");
    home.ok(&["key", "revoke", "default", "-o", &revoked]);
    assert!(!home.ok(&["key", "list"]).contains(&alice.key));
    user.ok(&["key", "import", &revoked]);
    with(&user, &[&alice], &["fetch", "flaky"])
        .assert_exit(4)
        .assert_says("it was revoked");
    with(&user, &[&alice], &["fetch", "--trust", "any", "flaky"]).assert_exit(4);
    user.run(&["key", "trust", &alice.key])
        .assert_exit(0)
        .assert_says("does not count: it was revoked");
    // A changed byte is noticed.
    let mut bytes = fs::read(&revoked).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&revoked, bytes).unwrap();
    user.run(&["key", "import", &revoked])
        .assert_exit(4)
        .assert_says("does not verify");
}

#[test]
fn with_what_an_output_was_built_can_be_looked_up_by_who_doubts_it() {
    if !sandbox_works() {
        return;
    }
    let env = TestEnv::new();
    let alice = builder(&env, "alice", "hello");
    let home = env.home("alice");
    let mine = home.ok(&["key", "audit", "hello"]);
    assert!(
        mine.starts_with("same ") && mine.contains(&alice.key),
        "{mine}"
    );
    let user = env.home("user");
    user.ok(&["key", "trust", &alice.key]);
    user.ok(&["fetch", "--sources", "hello"]);
    with(&user, &[&alice], &["fetch", "hello"]).assert_exit(0);
    // The list travels only when somebody asks for it.
    user.run(&["--offline", "key", "audit", "hello"])
        .assert_exit(3);
    let daemon = home.daemon(&[]);
    user.bootstrap_from(&daemon);
    assert_eq!(user.ok(&["key", "audit", "hello"]), mine);
    // Nobody who has signed it, nothing to look up.
    env.home("nobody")
        .run(&["key", "audit", "hello"])
        .assert_exit(3);
}
