//! The package tree as signed heads: published, synced, and not to be rolled back, frozen, mixed or changed unnoticed.

use std::fs;
use std::path::{Path, PathBuf};

use crate::support::{COMMAND_DEADLINE, Finished, Home, Origin, TestEnv, start, wait_until};

/// A key of a home.
fn key(home: &Home<'_>) -> String {
    home.ok(&["key", "new"]).trim_end().to_owned()
}

/// The next revision, in a directory of that name.
fn publish(env: &TestEnv, home: &Home<'_>, dir: &str) -> PathBuf {
    let dir = env.path(dir);
    home.ok(&["tree", "publish", "--into", text(&dir)]);
    dir
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn url(dir: &Path) -> String {
    format!("file://{}", dir.display())
}

/// Changes a recipe of the tree that is published.
fn edit(env: &TestEnv, text: &str) {
    fs::write(env.tree().join("pkg/hello/note"), text).unwrap();
}

/// A user with a tree in the folder `synced-NAME`, from a source, signed by whom the rule names.
struct User<'e> {
    home: Home<'e>,
    into: PathBuf,
}

impl<'e> User<'e> {
    fn new(env: &'e TestEnv, name: &str) -> Self {
        Self {
            home: env.home(name),
            into: env.path(&format!("synced-{name}")),
        }
    }

    fn first(&self, source: &str, signers: &str) -> Finished {
        let into = text(&self.into);
        self.home
            .run(&["tree", "sync", source, "--into", into, "--signers", signers])
    }

    fn sync(&self, args: &[&str]) -> Finished {
        self.home.run(&[&["tree", "sync"], args].concat())
    }

    fn note(&self) -> String {
        fs::read_to_string(self.into.join("pkg/hello/note")).unwrap()
    }
}

fn hello_hash(home: &Home<'_>, tree: &Path) -> String {
    home.ok(&["--tree", text(tree), "hash", "hello"])
}

#[test]
fn a_tree_goes_through_a_directory_and_a_web_server_and_means_the_same() {
    let env = TestEnv::new();
    let owner = env.home("owner");
    let key = key(&owner);
    edit(&env, "one");
    let dir = publish(&env, &owner, "www");
    let server = Origin::serve(&dir);
    for (name, source) in [("local", url(&dir)), ("web", server.url())] {
        let user = User::new(&env, name);
        user.first(&source, &key)
            .assert_exit(0)
            .assert_says("revision 1 of `default` is here");
        assert_eq!(user.note(), "one");
        let ours = hello_hash(&user.home, &user.into);
        assert_eq!(ours, hello_hash(&user.home, &env.tree()));
        user.sync(&[])
            .assert_exit(0)
            .assert_says("was here already");
    }
    edit(&env, "two");
    publish(&env, &owner, "www");
    let user = User::new(&env, "web");
    user.sync(&[]).assert_exit(0).assert_says("revision 2");
    assert_eq!(user.note(), "two");
    let list = user.home.ok(&["tree", "list"]);
    assert!(list.starts_with("default 2 20"), "{list}");
    assert!(list.contains(&server.url()), "{list}");
    user.home
        .run(&["--offline", "tree", "sync"])
        .assert_exit(7)
        .assert_says("switched off");
    drop(server);
    user.sync(&[]).assert_exit(7);
    let nowhere = url(&env.path("nowhere"));
    user.sync(&[&nowhere]).assert_exit(3);
    assert_eq!(user.note(), "two");
}

#[test]
fn an_old_tree_is_refused_a_stale_one_warned_of_and_a_contradiction_kept() {
    let env = TestEnv::new();
    let owner = env.home("owner");
    let key = key(&owner);
    edit(&env, "one");
    let one = publish(&env, &owner, "one");
    edit(&env, "two");
    let two = publish(&env, &owner, "two");
    let user = User::new(&env, "user");
    user.first(&url(&two), &key).assert_exit(0);
    user.sync(&[&url(&one)])
        .assert_exit(4)
        .assert_says("rolled back: this is revision 1, and revision 2 was seen before")
        .assert_says("tree forget");
    assert_eq!(user.note(), "two");
    // The same key signs another tree as revision 2, as if it had forgotten.
    owner.ok(&["tree", "forget"]);
    edit(&env, "other two");
    publish(&env, &owner, "other");
    let other = publish(&env, &owner, "other");
    user.sync(&[&url(&other)])
        .assert_exit(4)
        .assert_says("another tree was seen as revision 2 before")
        .assert_says(&key)
        .assert_says("proof-1");
    assert!(user.home.path("trees/default.2.proof-2").exists());
    assert_eq!(user.note(), "two");
    // A refused source is not remembered: the last good one is asked again.
    user.sync(&[]).assert_exit(0);
}

#[test]
fn a_head_that_has_expired_is_warned_of() {
    use base::{SecretKey, parse_root};
    let env = TestEnv::new();
    let owner = env.home("owner");
    let key_text = key(&owner);
    edit(&env, "one");
    let dir = publish(&env, &owner, "www");
    // Signed as the owner would have, long ago.
    let secret = fs::read_to_string(owner.path("keys/default.key")).unwrap();
    let secret = SecretKey::from_text(secret.trim_end()).unwrap();
    let signed = trust::SignedHead::from_bytes(&fs::read(dir.join("head")).unwrap()).unwrap();
    let root = parse_root(&signed.head().root.to_string()).unwrap();
    let old = trust::Head {
        expires_unix_secs: 1_700_000_000,
        root,
        ..signed.head().clone()
    };
    fs::write(dir.join("head"), old.sign(&secret).unwrap().to_bytes()).unwrap();
    let user = User::new(&env, "user");
    user.first(&url(&dir), &key_text)
        .assert_exit(0)
        .assert_says("has expired, its last day was 2023-11-14");
    assert_eq!(user.note(), "one");
    let hash = |tree: &Path| user.home.run(&["--tree", text(tree), "hash", "hello"]);
    hash(&user.into)
        .assert_exit(0)
        .assert_says("has expired: `p2pkgs tree sync --name default`");
    let elsewhere = hash(&env.tree()).assert_exit(0);
    assert!(!elsewhere.stderr.contains("expired"));
}

#[test]
fn nobody_but_those_who_were_named_may_sign() {
    let env = TestEnv::new();
    let [alice, bob, carol] = ["alice", "bob", "carol"].map(|name| env.home(name));
    let keys = [&alice, &bob, &carol].map(key);
    edit(&env, "one");
    let dir = publish(&env, &alice, "www");
    let user = User::new(&env, "user");
    // Nobody is named by default, and who is believed in what he builds may not choose the recipes.
    user.home.ok(&["key", "trust", &keys[0], "--name", "alice"]);
    user.home.ok(&["key", "trust", &keys[1], "--name", "bob"]);
    let into = text(&user.into);
    user.sync(&[&url(&dir), "--into", into])
        .assert_exit(4)
        .assert_says("is not signed by those whom you named")
        .assert_says(&format!("alice {} signed, which does not count", keys[0]));
    user.first(&url(&dir), &keys[2]).assert_exit(4);
    user.home
        .run(&[
            "tree",
            "sync",
            &url(&dir),
            "--name",
            "other",
            "--into",
            into,
        ])
        .assert_exit(4)
        .assert_says("a head of the tree `default`, not of `other`");
    user.first(&url(&dir), "2 of {alice, mallory}")
        .assert_exit(2);
    assert!(!user.into.exists());
    // Two of three.
    let rule = format!("2 of {{alice, bob, {}}}", keys[2]);
    user.first(&url(&dir), &rule).assert_exit(4);
    let head = dir.join("head");
    edit(&env, "not what alice signed");
    bob.run(&["tree", "sign", text(&head)])
        .assert_exit(4)
        .assert_says("the tree here is another one");
    edit(&env, "one");
    let one_signature = fs::read(&head).unwrap();
    bob.ok(&["tree", "sign", text(&head)]);
    user.first(&url(&dir), &rule)
        .assert_exit(0)
        .assert_says("2 signatures");
    // The head with both signatures can be handed on in any way.
    let again = env.path("again");
    carol.ok(&[
        "tree",
        "publish",
        "--head",
        text(&head),
        "--into",
        text(&again),
    ]);
    assert_eq!(
        fs::read(again.join("head")).unwrap(),
        fs::read(&head).unwrap()
    );
    // Nobody signs or hands on what is older than that.
    alice.ok(&["tree", "publish", "--into", text(&dir)]);
    fs::write(&head, one_signature).unwrap();
    for command in [&["tree", "sign"][..], &["tree", "publish", "--head"]] {
        alice
            .run(&[command, &[text(&head)]].concat())
            .assert_exit(4)
            .assert_says("rolled back");
    }
}

#[test]
fn what_was_tampered_with_is_refused_and_the_old_tree_stays() {
    let env = TestEnv::new();
    let owner = env.home("owner");
    let key = key(&owner);
    edit(&env, "one");
    let dir = publish(&env, &owner, "www");
    let user = User::new(&env, "user");
    user.first(&url(&dir), &key).assert_exit(0);
    edit(&env, "two");
    publish(&env, &owner, "www");
    let head = fs::read(dir.join("head")).unwrap();
    let root = trust::SignedHead::from_bytes(&head).unwrap().head().root;
    let archive = dir.join(format!("{root}.car"));
    let whole = fs::read(&archive).unwrap();
    let bad = |bytes: &[u8], code| {
        fs::write(&archive, bytes).unwrap();
        user.sync(&[]).assert_exit(code);
        assert_eq!(user.note(), "one");
    };
    let mut changed = whole.clone();
    let last = changed.len() - 1;
    changed[last] ^= 1;
    bad(&changed, 4);
    bad(&whole[..last], 4);
    bad(b"<html>404</html>", 4);
    let mut moved = head.clone();
    moved[head.len() / 2] ^= 1;
    fs::write(dir.join("head"), moved).unwrap();
    bad(&whole, 4);
    // Nothing was remembered of what was refused.
    fs::write(dir.join("head"), head).unwrap();
    user.sync(&[]).assert_exit(0);
    assert_eq!(user.note(), "two");
}

#[test]
fn local_changes_are_not_overwritten_and_other_folders_not_touched() {
    let env = TestEnv::new();
    let owner = env.home("owner");
    let key = key(&owner);
    edit(&env, "one");
    let dir = publish(&env, &owner, "www");
    let user = User::new(&env, "user");
    fs::create_dir(&user.into).unwrap();
    fs::write(user.into.join("mine"), "").unwrap();
    user.first(&url(&dir), &key)
        .assert_exit(2)
        .assert_says("something else than a synced tree");
    fs::remove_file(user.into.join("mine")).unwrap();
    user.first(&url(&dir), &key).assert_exit(0);
    fs::write(user.into.join("mine"), "beside the packages").unwrap();
    fs::write(user.into.join("pkg/hello/note"), "mine").unwrap();
    edit(&env, "two");
    publish(&env, &owner, "www");
    user.sync(&[]).assert_exit(1).assert_says("were changed");
    assert_eq!(user.note(), "mine");
    // What is no recipe counts, too: it would be gone.
    fs::write(user.into.join("pkg/hello/note"), "one").unwrap();
    fs::create_dir(user.into.join("pkg/hello/my notes")).unwrap();
    user.sync(&[]).assert_exit(1).assert_says("were changed");
    user.sync(&["--force"]).assert_exit(0);
    assert_eq!(user.note(), "two");
    assert!(user.into.join("mine").exists());
}

#[test]
fn a_sync_that_is_killed_leaves_a_whole_tree_and_the_next_one_goes_on() {
    let env = TestEnv::new();
    let owner = env.home("owner");
    let key = key(&owner);
    edit(&env, "0");
    let dir = publish(&env, &owner, "www");
    let user = User::new(&env, "user");
    user.first(&url(&dir), &key).assert_exit(0);
    let files = || fs::read_dir(user.into.join("pkg")).unwrap().count();
    let all = files();
    for round in 1..=12u64 {
        edit(&env, &round.to_string());
        publish(&env, &owner, "www");
        let mut child = start(user.home.command(&["tree", "sync"]));
        // Killed at another step each time: when the next tree begins to be written, when its head is remembered, when
        // it is there, and at once.
        let beside = user.into.join(".p2pkgs-tree.next");
        let remembered = || fs::read(user.home.path("trees/default.head")).unwrap();
        let (before, last) = (remembered(), (round - 1).to_string());
        wait_until("the sync is as far", || {
            let is_far = match round % 4 {
                0 => beside.exists(),
                1 => remembered() != before,
                2 => user.note() != last,
                _ => true,
            };
            is_far || child.try_wait().unwrap().is_some()
        });
        let _ = child.kill();
        child.wait().unwrap();
        let note: u64 = user.note().parse().unwrap();
        assert!(note == round || note + 1 == round, "{note} of {round}");
        assert_eq!(files(), all);
        user.sync(&[]).assert_exit(0);
        assert_eq!(user.note(), round.to_string());
        assert!(!beside.exists());
    }
}

#[test]
fn a_tree_is_synced_from_peers_below_a_name_and_handed_on_by_those_who_have_it() {
    let env = TestEnv::new();
    let owner = env.home("owner");
    let key = key(&owner);
    edit(&env, "one");
    let meeting = env.home("meeting").daemon(&[]);
    let daemon = owner.daemon(&[&meeting]);
    let name = owner.ok(&["tree", "publish"]).trim_end().to_owned();
    assert!(name.starts_with("ipns://k51"), "{name}");
    daemon.wait_until_all_is_announced();
    let first = User::new(&env, "first");
    first.home.bootstrap_from(&meeting);
    first.first(&name, &key).assert_exit(0);
    assert_eq!(first.note(), "one");
    // The publisher goes, and so does who kept the record. The first user's daemon has all that the publisher had.
    daemon.kill();
    drop(meeting);
    let meeting = env.home("new-meeting").daemon(&[]);
    let helper = first.home.daemon(&[&meeting]);
    helper.wait_until_all_is_announced();
    let second = User::new(&env, "second");
    second.home.bootstrap_from(&meeting);
    wait_until("the name is found", || {
        second.first(&name, &key).code == Some(0)
    });
    assert_eq!(second.note(), "one");
    drop(helper);
}

#[test]
fn a_tree_is_synced_below_a_name_through_a_gateway_without_any_peer() {
    let env = TestEnv::new();
    let owner = env.home("owner");
    let key = key(&owner);
    edit(&env, "one");
    let name = owner.ok(&["--offline", "tree", "publish"]);
    // The tree is kept when everything else goes.
    owner.ok(&["gc"]);
    let daemon = owner.daemon(&[]);
    let user = User::new(&env, "user");
    let mut sync = user.home.command(&["tree", "sync", name.trim_end()]);
    sync.args(["--into", text(&user.into), "--signers", &key])
        .env("P2PKGS_GATEWAYS_URLS", daemon.http());
    Finished::of(sync, COMMAND_DEADLINE).assert_exit(0);
    assert_eq!(user.note(), "one");
}

#[test]
fn users_tell_each_other_which_heads_they_saw() {
    let env = TestEnv::new();
    let [owner, mallory] = ["owner", "mallory"].map(|name| env.home(name));
    let (owners, mallorys) = (key(&owner), key(&mallory));
    edit(&env, "one");
    let one = publish(&env, &owner, "one");
    edit(&env, "two");
    let two = publish(&env, &owner, "two");
    let ahead = User::new(&env, "ahead");
    ahead.first(&url(&two), &owners).assert_exit(0);
    let daemon = ahead.home.daemon(&[]);
    let user = |name: &str| {
        let user = User::new(&env, name);
        user.home.bootstrap_from(&daemon);
        user
    };
    // Who is kept behind gets what the other one has.
    let behind = user("behind");
    behind
        .first(&url(&one), &owners)
        .assert_exit(0)
        .assert_says("the source hands out revision 1 of `default`, and peer ")
        .assert_says(" has seen revision 2")
        .assert_says("revision 2 of `default` is here");
    assert_eq!(behind.note(), "two");
    // Two trees as one revision.
    owner.ok(&["tree", "forget"]);
    edit(&env, "other two");
    publish(&env, &owner, "other");
    let other = publish(&env, &owner, "other");
    let shown = user("shown");
    shown
        .first(&url(&other), &owners)
        .assert_exit(4)
        .assert_says(" has seen another tree")
        .assert_says("default.2.proof-2");
    assert!(!shown.into.exists());
    // What others than those whom this user named have signed is nothing to him.
    edit(&env, "mallory's");
    let theirs = publish(&env, &mallory, "mallorys");
    let careless = user("careless");
    let synced = careless.first(&url(&theirs), &mallorys).assert_exit(0);
    assert!(!synced.stderr.contains("has seen"), "{}", synced.stderr);
    assert_eq!(careless.note(), "mallory's");
}
