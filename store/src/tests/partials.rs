//! Fetches that end early, and what is left of them.

use std::fs;

use base::{Cid, Codec, Multihash};
use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::dag::{Leaf, Profile, Taken, Walk, WalkLimits, build_file};
use crate::gc::{Goal, Order};
use crate::{Block, BlockStore, Limits, MemoryBlockStore, Partial, StoreError};

const CHUNK: usize = 1 << 20;
const WINDOW: usize = 8;

/// Whoever has everything.
pub(super) struct Seeder {
    pub(super) blocks: MemoryBlockStore,
    pub(super) root: Cid,
    pub(super) bytes: Vec<u8>,
}

pub(super) fn seeder(profile: Profile, bytes: Vec<u8>) -> Seeder {
    let blocks = MemoryBlockStore::new();
    let put = &mut |block: Block| blocks.put(&block).unwrap();
    let root = build_file(profile, &bytes[..], put).unwrap().cid;
    Seeder {
        blocks,
        root,
        bytes,
    }
}

/// A fetch as a node makes it, blocks arriving in the reverse of the order in which they were wanted. Ends early after so
/// many blocks of the seeder's; tells how many those were.
pub(super) fn fetch(
    store: &Store,
    seeder: &Seeder,
    blocks_max: usize,
) -> Result<(usize, Option<Blob>), StoreError> {
    fetch_counting(store, seeder, blocks_max, &|| ())
}

/// [`fetch`], telling of each block when it has left the seeder.
pub(super) fn fetch_counting(
    store: &Store,
    seeder: &Seeder,
    blocks_max: usize,
    sent: &dyn Fn(),
) -> Result<(usize, Option<Blob>), StoreError> {
    let mut partial = store.partial(&seeder.root)?;
    let mut walk = Walk::new(seeder.root, WalkLimits::default()).unwrap();
    let mut fetched = 0;
    loop {
        write_ready(&mut walk, &mut partial)?;
        if walk.is_done() {
            return Ok((fetched, Some(partial.finish(&Expected::anything())?)));
        }
        let mut wanted = walk.wants(WINDOW);
        wanted.reverse();
        for cid in wanted {
            let hash = Multihash::of(&cid).unwrap();
            let block = match partial.find(&hash)? {
                Some(block) => block,
                None if fetched == blocks_max => return Ok((fetched, None)),
                None => {
                    fetched += 1;
                    sent();
                    seeder.blocks.get(&hash)?.unwrap()
                }
            };
            match walk.handle_block(&block).unwrap() {
                Taken::Leaf { offset } => partial.keep_leaf(&block, offset)?,
                Taken::Node => partial.keep_node(&block)?,
                Taken::Unwanted => {}
            }
            partial.note()?;
        }
    }
}

fn write_ready(walk: &mut Walk, partial: &mut Partial) -> Result<(), StoreError> {
    while let Some(leaf) = walk.next_bytes().unwrap() {
        match &leaf {
            Leaf::Block(block) => partial.write_leaf(block)?,
            Leaf::Bytes(bytes) => partial.append(bytes)?,
        }
    }
    Ok(())
}

fn all(store: &Store, seeder: &Seeder) -> usize {
    let (fetched, blob) = fetch(store, seeder, usize::MAX).unwrap();
    let blob = blob.unwrap();
    assert_eq!(blob.sha256, Sha256::of(&seeder.bytes));
    assert_eq!(
        fs::read(path_of(store, &blob.sha256)).unwrap(),
        seeder.bytes
    );
    assert_eq!(
        store.verify_blob(&blob.sha256).unwrap(),
        crate::BlobState::Intact
    );
    assert_eq!(
        (file_count(store, "partial"), file_count(store, "tmp")),
        (0, 0)
    );
    fetched
}

/// The two files of the only partial.
fn files_of(store: &Store, seeder: &Seeder) -> (std::path::PathBuf, std::path::PathBuf) {
    let hash = Multihash::of(&seeder.root).unwrap();
    let name = base::block_cid(Codec::of(&seeder.root).unwrap(), &hash.digest()).to_string();
    let dir = store.root().join("partial");
    (dir.join(&name), dir.join(format!("{name}.blocks")))
}

#[test]
fn what_has_come_is_not_fetched_again_whatever_the_layout() {
    for profile in [
        Profile::UNIXFS_V1_2025,
        Profile::UNIXFS_V0_2015,
        Profile::CID_V1_ONLY,
    ] {
        let seeder = seeder(profile, noise(1, 20 * CHUNK + 77));
        let (_dir, store) = store();
        let total = all(&store, &seeder);
        for stop in [1, 5, 11, total - 1] {
            let (_dir, store) = self::store();
            let (first, blob) = fetch(&store, &seeder, stop).unwrap();
            assert_eq!((first, blob), (stop, None));
            assert_eq!(file_count(&store, "partial"), 2);
            // Another process goes on.
            let store = Store::open(store.root()).unwrap();
            assert_eq!(stop + all(&store, &seeder), total, "stopped after {stop}");
        }
    }
}

#[test]
fn a_file_that_repeats_itself_and_small_ones_are_fetched_the_same_way() {
    let repeating = [
        noise(1, CHUNK),
        vec![0; 4 * CHUNK],
        noise(1, CHUNK),
        vec![0; CHUNK / 2],
    ];
    for bytes in [
        repeating.concat(),
        vec![7],
        Vec::new(),
        noise(2, CHUNK),
        noise(3, CHUNK + 1),
    ] {
        let seeder = seeder(Profile::UNIXFS_V1_2025, bytes);
        let (_dir, store) = store();
        fetch(&store, &seeder, 2).unwrap();
        all(&store, &seeder);
    }
}

#[test]
fn a_partial_takes_the_room_of_what_has_come_and_of_nothing_else() {
    let seeder = seeder(Profile::UNIXFS_V1_2025, noise(1, 40 * CHUNK));
    let (_dir, store) = store();
    fetch(&store, &seeder, 9).unwrap();
    let unfinished = store.unfinished();
    let bytes = unfinished[0].bytes;
    assert!((7 << 20..10 << 20).contains(&bytes), "{bytes}");
    assert_eq!(base::parse_cid(&unfinished[0].root).unwrap(), seeder.root);
}

#[test]
fn garbage_in_a_partial_costs_no_more_than_blocks() {
    type Damage = fn(&mut Vec<u8>);
    let damages: [(&str, Damage); 5] = [
        ("flipped", |bytes| {
            bytes.iter_mut().step_by(997).for_each(|byte| *byte ^= 1);
        }),
        ("cut", |bytes| bytes.truncate(bytes.len() / 2)),
        ("emptied", Vec::clear),
        ("lengthened", |bytes| bytes.extend_from_slice(&[1; 3 << 20])),
        ("replaced", |bytes| *bytes = noise(8, 30 * CHUNK)),
    ];
    let seeder = seeder(Profile::UNIXFS_V1_2025, noise(1, 12 * CHUNK + 5));
    for (what, damage) in damages {
        for of_journal in [false, true] {
            let (_dir, store) = store();
            fetch(&store, &seeder, 9).unwrap();
            let (data, journal) = files_of(&store, &seeder);
            let path = if of_journal { journal } else { data };
            let mut bytes = fs::read(&path).unwrap();
            damage(&mut bytes);
            fs::write(&path, bytes).unwrap();
            let fetched = all(&store, &seeder);
            assert!(fetched <= 14, "{what} {of_journal}: {fetched}");
        }
    }
}

#[test]
fn two_who_fetch_the_same_file_do_not_disturb_each_other() {
    let seeder = seeder(Profile::UNIXFS_V1_2025, noise(1, 10 * CHUNK));
    let (_dir, store) = store();
    let first = store.partial(&seeder.root).unwrap();
    let other = Store::open(store.root()).unwrap();
    assert_eq!(fetch(&other, &seeder, 4).unwrap(), (4, None));
    let (fetched, blob) = fetch(&other, &seeder, usize::MAX).unwrap();
    assert_eq!((fetched, blob.is_some()), (11, true));
    drop(first);
    // It was complete before this one looked.
    assert_eq!(all(&store, &seeder), 0);
}

#[test]
fn threads_that_fetch_the_same_file_all_get_it() {
    let seeder = seeder(Profile::UNIXFS_V1_2025, noise(1, 10 * CHUNK));
    let (_dir, store) = store();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let store = Store::open(store.root()).unwrap();
                for stop in [3, 6, usize::MAX] {
                    fetch(&store, &seeder, stop).unwrap();
                }
            });
        }
    });
    let blob = store.blob(&Sha256::of(&seeder.bytes)).unwrap().unwrap();
    assert_eq!(
        store.verify_blob(&blob.sha256).unwrap(),
        crate::BlobState::Intact
    );
    all(&store, &seeder);
}

#[test]
fn what_has_come_is_served_by_this_process_and_by_others_and_is_in_no_way_in_the_store() {
    let seeder = seeder(Profile::UNIXFS_V1_2025, noise(1, 10 * CHUNK));
    let (_dir, store) = store();
    let daemon = Store::open(store.root()).unwrap();
    assert_eq!(daemon.news_of_partials(), []);
    fetch(&store, &seeder, 6).unwrap();
    let root = Multihash::of(&seeder.root).unwrap();
    let leaf = |n: usize| Bytes::copy_from_slice(&seeder.bytes[n * CHUNK..(n + 1) * CHUNK]);
    let wait = || while daemon.news_of_partials().is_empty() {};
    wait();
    for store in [&daemon, &Store::open(store.root()).unwrap()] {
        assert!(store.serve(&root).unwrap().is_some());
        // The window's first leaves came last first.
        let block = Block::of(leaf(7));
        assert_eq!(store.served_size(block.hash()).unwrap(), Some(CHUNK as u64));
        assert_eq!(store.serve(block.hash()).unwrap(), Some(leaf(7)));
        assert_eq!(store.serve(Block::of(leaf(0)).hash()).unwrap(), None);
        assert!(!store.has(block.hash()).unwrap());
        assert_eq!(store.get(block.hash()).unwrap(), None);
    }
    // Between two looks at other processes, too.
    drop(store.partial(&seeder.root).unwrap());
    assert!(store.serve(&root).unwrap().is_some());
    // More of it, and then all.
    fetch(&store, &seeder, 4).unwrap();
    wait();
    assert_eq!(
        daemon.serve(Block::of(leaf(0)).hash()).unwrap(),
        Some(leaf(0))
    );
    all(&store, &seeder);
    assert_eq!(
        daemon.serve(Block::of(leaf(9)).hash()).unwrap(),
        Some(leaf(9))
    );
    // Begun anew under the same name.
    let other = self::seeder(Profile::UNIXFS_V1_2025, noise(4, 10 * CHUNK));
    fetch(&store, &other, 3).unwrap();
    wait();
    store.partial(&other.root).unwrap().discard().unwrap();
    fetch(&store, &other, 4).unwrap();
    wait();
    let last = Block::of(Bytes::copy_from_slice(&other.bytes[7 * CHUNK..8 * CHUNK]));
    assert!(daemon.serve(last.hash()).unwrap().is_some());
    // What lies there damaged is not served.
    let other = self::seeder(Profile::UNIXFS_V1_2025, noise(2, 10 * CHUNK));
    fetch(&store, &other, 9).unwrap();
    let (data, _) = files_of(&store, &other);
    fs::write(data, noise(3, 10 * CHUNK)).unwrap();
    let block = Block::of(Bytes::copy_from_slice(&other.bytes[7 * CHUNK..8 * CHUNK]));
    wait();
    assert_eq!(daemon.serve(block.hash()).unwrap(), None);
}

#[test]
fn a_block_of_another_file_need_not_be_fetched() {
    let (_dir, store) = store();
    let (same, bytes) = (noise(1, 4 * CHUNK), noise(2, CHUNK));
    add(&store, &same);
    let seeder = seeder(Profile::UNIXFS_V1_2025, [same, bytes].concat());
    assert_eq!(all(&store, &seeder), 2);
}

#[test]
fn what_is_not_what_was_wanted_leaves_nothing_to_go_on_with() {
    let seeder = seeder(Profile::UNIXFS_V1_2025, noise(1, 3 * CHUNK));
    let (_dir, store) = store();
    fetch(&store, &seeder, 4).unwrap();
    let mut partial = store.partial(&seeder.root).unwrap();
    partial.append(b"something else").unwrap();
    let expected = Expected::sha256(Sha256::of(&seeder.bytes));
    let error = partial.finish(&expected).unwrap_err();
    assert!(matches!(error, StoreError::Mismatch { .. }), "{error}");
    assert_eq!(file_count(&store, "partial"), 0);
}

#[test]
fn unfinished_fetches_count_and_go_before_any_blob_when_room_is_needed() {
    let quota = 20 << 20;
    let (_dir, store) = store();
    let limits = Limits {
        quota_bytes: Some(quota),
        keep_free_bytes: 0,
    };
    let store = store.with_limits(limits);
    let cached = add(&store, &noise(1, 4 << 20));
    let seeder = seeder(Profile::UNIXFS_V1_2025, noise(2, 12 << 20));
    // One that is being written stays, and there is no room beside it.
    let (_, none) = fetch(&store, &seeder, 10).unwrap();
    assert_eq!(none, None);
    let writing = store.partial(&seeder.root).unwrap();
    let mut ingest = store.ingest().unwrap();
    let error = ingest.reserve(12 << 20).unwrap_err();
    assert!(matches!(error, StoreError::QuotaExceeded { .. }), "{error}");
    drop(writing);
    ingest.reserve(12 << 20).unwrap();
    drop(ingest);
    assert_eq!(file_count(&store, "partial"), 0);
    assert!(store.blob(&cached.sha256).unwrap().is_some());
    // It does not stand in its own way.
    all(&store, &seeder);
}

#[test]
fn a_collection_removes_unfinished_fetches_that_are_old() {
    let seeder = seeder(Profile::UNIXFS_V1_2025, noise(2, 12 << 20));
    let (_dir, store) = store();
    fetch(&store, &seeder, 5).unwrap();
    let goal = |free_bytes| Goal {
        free_bytes,
        order: Order::LeastRecentlyUsed,
    };
    let plan = store.plan_collection(&goal(None), &|_| None).unwrap();
    assert_eq!((plan.unfinished.len(), plan.freed_bytes()), (0, 0));
    let (data, journal) = files_of(&store, &seeder);
    let old = std::time::SystemTime::now() - std::time::Duration::from_secs(9 * 24 * 3600);
    for path in [data, journal] {
        fs::File::options()
            .write(true)
            .open(path)
            .unwrap()
            .set_modified(old)
            .unwrap();
    }
    let plan = store.plan_collection(&goal(None), &|_| None).unwrap();
    assert_eq!(plan.unfinished.len(), 1);
    assert!(plan.freed_bytes() > 3 << 20);
    let collected = store.collect(&plan, &|| false).unwrap();
    assert_eq!(collected.unfinished, plan.unfinished);
    assert_eq!(collected.freed_bytes(), plan.freed_bytes());
    assert_eq!(file_count(&store, "partial"), 0);
    // Somebody goes on with another between the plan and its end.
    fetch(&store, &seeder, 5).unwrap();
    let plan = store.plan_collection(&goal(Some(1)), &|_| None).unwrap();
    let writing = store.partial(&seeder.root).unwrap();
    assert_eq!(store.collect(&plan, &|| false).unwrap().unfinished, []);
    drop(writing);
    assert_eq!(file_count(&store, "partial"), 2);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn however_often_a_fetch_ends_early_each_block_comes_once(
        stops in proptest::collection::vec(0usize..9, 0..8),
        length in 0usize..24 * CHUNK,
        small: bool,
    ) {
        let profile = if small { Profile::UNIXFS_V0_2015 } else { Profile::UNIXFS_V1_2025 };
        let seeder = seeder(profile, noise(length as u64, length));
        let (_whole_dir, whole) = store();
        let total = all(&whole, &seeder);
        let (_dir, store) = store();
        let mut fetched = 0;
        for stop in stops {
            // What is complete is not fetched at all: who asks looks for the blob first.
            if store.blob(&Sha256::of(&seeder.bytes)).unwrap().is_none() {
                fetched += fetch(&store, &seeder, stop).unwrap().0;
            }
        }
        if store.blob(&Sha256::of(&seeder.bytes)).unwrap().is_none() {
            fetched += all(&store, &seeder);
        }
        // The one block of a small file is there or not.
        prop_assert!(fetched == total || total <= 1, "{} of {}", fetched, total);
    }
}
