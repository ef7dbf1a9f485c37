//! Several real processes on one store, and processes that are killed.
//!
//! A test starts this very test program again, asking it to run the one test named `child`, which does what the
//! environment says. Without being asked it does nothing.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use base::Multihash;

use super::*;
use crate::dag::Profile;
use crate::gc::{Goal, Order};
use crate::{BlobState, BlockStore as _};

const ROLE: &str = "P2PKGS_STORE_TEST_ROLE";
const ROOT: &str = "P2PKGS_STORE_TEST_ROOT";
const SEED: &str = "P2PKGS_STORE_TEST_SEED";
const CRASH_AT: &str = "P2PKGS_STORE_CRASH_AT";
/// How many files the processes that share their work take in.
const SHARED_FILES: u64 = 30;

fn spawn(root: &Path, role: &str, seed: u64, crash_at: &str) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "tests::processes::child", "--nocapture"])
        .env(ROLE, role)
        .env(ROOT, root)
        .env(SEED, seed.to_string())
        .env(CRASH_AT, crash_at)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// The files that everybody takes in, of sizes from nothing to some chunks.
fn file(number: u64) -> Vec<u8> {
    let sizes = [0, 1, 4000, 1 << 20, (1 << 20) + 1, 3 << 20];
    noise(
        number,
        sizes[usize::try_from(number).unwrap() % sizes.len()],
    )
}

#[test]
fn child() {
    let (Ok(role), Ok(root)) = (std::env::var(ROLE), std::env::var(ROOT)) else {
        return;
    };
    let seed: u64 = std::env::var(SEED).unwrap().parse().unwrap();
    let store = Store::open(Path::new(&root)).unwrap();
    // What a process works with must not be collected under it.
    let store = match role.as_str() {
        "share" => store.holding().unwrap(),
        _ => store,
    };
    match role.as_str() {
        "share" => share(&store, seed),
        "endless" => take_in_endlessly(&store, seed),
        "once" => drop(add(&store, &file(seed))),
        "fetch" => fetch_and_tell(&store, seed),
        "collect" => collect_until_told(&store),
        "collect once" => collect(&store),
        "hold" => hold_and_wait(&store, seed),
        other => unreachable!("{other}"),
    }
}

/// Takes in all files, in an order of its own, and reads what the others took in meanwhile.
fn share(store: &Store, seed: u64) {
    for step in 0..SHARED_FILES {
        let number = (step * 7 + seed * 11) % SHARED_FILES;
        let bytes = file(number);
        let blob = add(store, &bytes);
        assert_eq!(blob.sha256, Sha256::of(&bytes));
        let root = store.get(&Multihash::of(&blob.root).unwrap()).unwrap();
        assert!(root.is_some(), "a root is there as soon as its blob is");
        let other = Sha256::of(&file((step * 13 + seed) % SHARED_FILES));
        if store.blob(&other).unwrap().is_some() {
            // It may have been collected meanwhile.
            assert_ne!(store.verify_blob(&other).unwrap(), BlobState::Damaged);
        }
    }
}

fn collect(store: &Store) {
    let goal = Goal {
        free_bytes: None,
        order: Order::LeastRecentlyUsed,
    };
    let plan = store.plan_collection(&goal, &|_| None).unwrap();
    store.collect(&plan, &|| false).unwrap();
}

/// Collects again and again until the file `stop` appears beside the store.
fn collect_until_told(store: &Store) {
    let stop = store.root().with_file_name("stop");
    while !stop.exists() {
        collect(store);
    }
}

/// Takes a file in with a handle that holds it, says so, and waits to be killed.
#[allow(clippy::print_stdout, reason = "the parent reads it")]
fn hold_and_wait(store: &Store, seed: u64) {
    let holding = store.holding().unwrap();
    println!("done {}", add(&holding, &file(seed)).sha256);
    let _ = std::io::stdin().read_line(&mut String::new());
}

#[allow(clippy::print_stdout, reason = "the parent reads it")]
fn take_in_endlessly(store: &Store, seed: u64) {
    for number in 0.. {
        let blob = add(store, &file(seed * 1000 + number));
        println!("done {}", blob.sha256);
    }
}

/// The file that is fetched block by block.
fn fetched_file(seed: u64) -> partials::Seeder {
    partials::seeder(Profile::UNIXFS_V1_2025, noise(seed, (16 << 20) + 9))
}

#[allow(clippy::print_stdout, reason = "the parent reads it")]
fn fetch_and_tell(store: &Store, seed: u64) {
    let seeder = fetched_file(seed);
    let sent = || println!("sent");
    let (_, blob) = partials::fetch_counting(store, &seeder, usize::MAX, &sent).unwrap();
    println!("done {}", blob.unwrap().sha256);
}

/// Everything the index knows is intact, everything in the directory is known.
fn check(store: &Store) {
    let blobs = store.blobs().unwrap();
    for blob in &blobs {
        assert_eq!(store.verify_blob(&blob.sha256).unwrap(), BlobState::Intact);
        assert!(store.has(&Multihash::of(&blob.root).unwrap()).unwrap());
    }
    assert_eq!(file_count(store, "blobs"), blobs.len());
    assert_eq!(
        (file_count(store, "tmp"), file_count(store, "damaged")),
        (0, 0)
    );
    let integrity: String = store
        .index
        .read(|c| c.query_row("PRAGMA integrity_check", [], |row| row.get(0)))
        .unwrap();
    assert_eq!(integrity, "ok");
}

#[test]
fn several_processes_make_and_fill_one_store_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("store");
    let children: Vec<_> = (0..4).map(|seed| spawn(&root, "share", seed, "")).collect();
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stdout)
        );
    }
    let store = Store::open(&root).unwrap();
    check(&store);
    let distinct: std::collections::HashSet<_> = (0..SHARED_FILES)
        .map(|number| Sha256::of(&file(number)))
        .collect();
    assert_eq!(store.blobs().unwrap().len(), distinct.len());
}

#[test]
fn collectors_and_processes_that_fill_the_store_do_not_disturb_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("store");
    let collectors: Vec<_> = (0..2).map(|n| spawn(&root, "collect", n, "")).collect();
    let fillers: Vec<_> = (0..3).map(|seed| spawn(&root, "share", seed, "")).collect();
    // What this one takes in may go at once, and it is killed in the middle of it.
    let mut careless = spawn(&root, "endless", 9, "");
    let succeed = |child: Child| {
        let output = child.wait_with_output().unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stdout)
        );
    };
    fillers.into_iter().for_each(succeed);
    careless.kill().unwrap();
    careless.wait().unwrap();
    std::fs::write(dir.path().join("stop"), "").unwrap();
    collectors.into_iter().for_each(succeed);
    let store = Store::open(&root).unwrap();
    check(&store);
    collect(&store);
    check(&store);
    assert_eq!(store.blobs().unwrap(), []);
    assert_eq!(file_count(&store, "holds"), 0, "no process is left");
}

#[test]
fn what_a_process_holds_is_kept_while_it_lives_and_no_longer() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("store")).unwrap();
    let mut child = spawn(store.root(), "hold", 3, "");
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let line = lines.find(|line| line.as_ref().unwrap().contains("done "));
    assert!(line.is_some());
    collect(&store);
    assert_eq!(store.blobs().unwrap().len(), 1);
    child.kill().unwrap();
    child.wait().unwrap();
    collect(&store);
    assert_eq!(store.blobs().unwrap(), []);
    check(&store);
}

#[test]
fn a_collector_killed_between_any_two_steps_leaves_all_or_nothing_of_a_blob() {
    use std::os::unix::process::ExitStatusExt as _;
    for (crash_at, is_gone) in [("forgetting", false), ("forgotten", true), ("moved", true)] {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("store");
        let bytes = file(5);
        let blob = add(&Store::open(&root).unwrap(), &bytes);
        let mut child = spawn(&root, "collect once", 0, crash_at);
        assert_eq!(child.wait().unwrap().signal(), Some(9), "{crash_at}");
        let store = Store::open(&root).unwrap();
        check(&store);
        let found = store.blob(&blob.sha256).unwrap();
        assert_eq!(found.is_none(), is_gone, "{crash_at}");
        add(&store, &bytes);
        check(&store);
    }
}

#[test]
fn a_process_killed_at_any_time_leaves_a_store_that_is_right() {
    const KILLS: u64 = 24;
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("store");
    let mut done = Vec::new();
    for kill in 0..KILLS {
        let mut child = spawn(&root, "endless", kill, "");
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut finished = 0;
        // Killed upon a line, the child is anywhere in the work for the next one.
        while finished <= kill % 5 {
            let line = lines.next().unwrap().unwrap();
            if let Some(sha256) = line.strip_prefix("done ") {
                done.push(sha256.parse::<Sha256>().unwrap());
                finished += 1;
            }
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let store = Store::open(&root).unwrap();
        check(&store);
        for sha256 in &done {
            assert!(
                store.blob(sha256).unwrap().is_some(),
                "what was reported is there"
            );
        }
    }
}

#[test]
fn a_process_killed_between_any_two_steps_leaves_all_or_nothing() {
    use std::os::unix::process::ExitStatusExt as _;
    for (number, (crash_at, is_kept)) in [
        ("synchronised", false),
        ("named", false),
        ("inserted", false),
        ("committed", true),
    ]
    .into_iter()
    .enumerate()
    {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("store");
        let before = add(&Store::open(&root).unwrap(), b"was there before");
        let number = number as u64 + 2;
        let status = spawn(&root, "once", number, crash_at).wait().unwrap();
        assert_eq!(status.signal(), Some(9), "{crash_at}");
        assert_eq!(std::fs::read_dir(root.join("tmp")).unwrap().count(), 1);
        let store = Store::open(&root).unwrap();
        check(&store);
        let bytes = file(number);
        assert_eq!(
            store.blob(&Sha256::of(&bytes)).unwrap().is_some(),
            is_kept,
            "{crash_at}"
        );
        assert_eq!(store.blob(&before.sha256).unwrap(), Some(before));
        add(&store, &bytes);
        check(&store);
    }
}

/// How many blocks a killed child was sent.
fn sent_to(child: &mut Child) -> usize {
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    lines
        .filter(|line| line.as_ref().unwrap() == "sent")
        .count()
}

#[test]
fn a_fetch_killed_between_any_two_steps_is_gone_on_with_and_no_block_comes_twice() {
    use std::os::unix::process::ExitStatusExt as _;
    let seeder = fetched_file(1);
    let total = 18;
    // By then it has them all, but for the first point; and whether the file is there.
    for (crash_at, is_kept) in [
        ("noted", false),
        ("synchronised", false),
        ("named", false),
        ("inserted", false),
        ("committed", true),
        ("unlinked", true),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("store");
        let mut child = spawn(&root, "fetch", 1, crash_at);
        let first = sent_to(&mut child);
        assert_eq!(child.wait().unwrap().signal(), Some(9), "{crash_at}");
        let store = Store::open(&root).unwrap();
        check(&store);
        let blob = store.blob(&Sha256::of(&seeder.bytes)).unwrap();
        assert_eq!(blob.is_some(), is_kept, "{crash_at}");
        let (second, blob) = partials::fetch(&store, &seeder, usize::MAX).unwrap();
        assert_eq!(first + second, total, "{crash_at}");
        assert_eq!(blob.unwrap().sha256, Sha256::of(&seeder.bytes));
        check(&store);
        assert_eq!(file_count(&store, "partial"), 0, "{crash_at}");
    }
}

#[test]
fn a_fetch_killed_at_any_time_costs_no_more_than_what_was_on_its_way() {
    const KILLS: usize = 12;
    let seeder = fetched_file(1);
    let (total, mut sent) = (18, 0);
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("store");
    for kill in 0..KILLS {
        let mut child = spawn(&root, "fetch", 1, "");
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut left = kill % 3 + 1;
        while left > 0 {
            // It may have been done before it could be killed.
            let Some(line) = lines.next() else { break };
            let line = line.unwrap();
            left -= usize::from(line == "sent" || line.starts_with("done"));
            sent += usize::from(line == "sent");
        }
        let was_done = left > 0;
        child.kill().unwrap();
        sent += lines
            .filter(|line| line.as_ref().is_ok_and(|line| line == "sent"))
            .count();
        assert!(child.wait().unwrap().success() || !was_done);
        let store = Store::open(&root).unwrap();
        check(&store);
        assert!(!was_done || !store.blobs().unwrap().is_empty());
        if !store.blobs().unwrap().is_empty() {
            break;
        }
    }
    let store = Store::open(&root).unwrap();
    if store.blobs().unwrap().is_empty() {
        sent += partials::fetch(&store, &seeder, usize::MAX).unwrap().0;
    }
    check(&store);
    // One block is on its way when a process is killed.
    assert!((total..=total + KILLS).contains(&sent), "{sent}");
    assert_eq!(store.blobs().unwrap()[0].sha256, Sha256::of(&seeder.bytes));
}

#[test]
fn a_file_left_under_its_final_name_is_never_believed() {
    // Without hard links a crash can leave a file that no temporary name tells of; its bytes may be anything.
    let (_dir, store) = store();
    let bytes = noise(1, 5000);
    let sha256 = Sha256::of(&bytes);
    std::fs::write(path_of(&store, &sha256), "half of it").unwrap();
    assert_eq!(store.blob(&sha256).unwrap(), None);
    add(&store, &bytes);
    assert_eq!(store.verify_blob(&sha256).unwrap(), BlobState::Intact);
}
