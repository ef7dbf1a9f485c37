//! Properties of the whole, by seed. `SIM_SEED=17 cargo test -p p2pkgs-bitswap sim` replays one.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use super::*;
use crate::testing::block;

/// Seeds that each property is tried with.
const SEEDS: u64 = 256;
/// Longer than any run may take in virtual time.
const FOREVER: Duration = Duration::from_secs(3600);

/// Tries a property with every seed, on all cores; a failure names its seed.
#[allow(clippy::disallowed_methods)] // The seed to replay comes from outside, and seeds are independent of each other.
fn for_each_seed(property: impl Fn(u64) + Sync) {
    let try_seed = |seed| {
        if let Err(failure) = catch_unwind(AssertUnwindSafe(|| property(seed))) {
            eprintln!("replay with SIM_SEED={seed}");
            resume_unwind(failure);
        }
    };
    if let Ok(seed) = std::env::var("SIM_SEED") {
        return try_seed(seed.parse().expect("SIM_SEED is a number"));
    }
    std::thread::scope(|scope| {
        for half in 0..2 {
            scope.spawn(move || (half..SEEDS).step_by(2).for_each(try_seed));
        }
    });
}

fn blocks(count: u64, size: usize) -> Vec<Block> {
    (0..count).map(|n| block(n, size)).collect()
}

fn cids(blocks: &[Block]) -> Vec<Cid> {
    blocks.iter().map(|block| *block.cid()).collect()
}

/// A world drawn from its seed: sizes, speeds, faults and liars.
struct Chaos {
    world: World,
    leechers: Vec<(NodeId, SessionId)>,
    available: Vec<Cid>,
    absent: Vec<Cid>,
    parted: bool,
}

impl Chaos {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed ^ 0xc4a0);
        let mut world = World::new(seed);
        world.link.latency = Duration::from_millis(rng.between(1, 150));
        world.link.jitter = Duration::from_millis(rng.below(30));
        world.link.loss_one_in = if rng.one_in(2) {
            0
        } else {
            rng.between(15, 100)
        };
        let size_max = if rng.one_in(4) { 30_000 } else { 3_000 };
        let content: Vec<Block> = (0..rng.between(1, 100))
            .map(|n| block(n, rng.between(8, size_max) as usize))
            .collect();
        let absent: Vec<Cid> = (0..rng.below(4))
            .map(|n| *block(1_000_000 + n, 9).cid())
            .collect();
        let providers = add_providers(&mut world, &mut rng, &content);
        let parted = rng.one_in(4);
        if parted {
            let island = providers
                .iter()
                .copied()
                .filter(|_| rng.one_in(2))
                .collect();
            let from = rng.below(4000);
            world.part_after(Duration::from_millis(from), island);
            world.part_after(
                Duration::from_millis(from + rng.between(1, 20_000)),
                Vec::new(),
            );
        }
        let available = cids(&content);
        let mut leechers = Vec::new();
        for _ in 0..rng.between(1, 3) {
            let node = world.add_node(speed(&mut rng), &[]);
            let named: Vec<NodeId> = providers
                .iter()
                .copied()
                .filter(|_| rng.one_in(2))
                .collect();
            let session = world.fetch(node, &available, &named);
            world.want(node, session, &absent);
            leechers.push((node, session));
            if rng.one_in(2) {
                world.announced.push(node);
            }
        }
        Self {
            world,
            leechers,
            available,
            absent,
            parted,
        }
    }
}

fn speed(rng: &mut Rng) -> NodeConfig {
    NodeConfig {
        up_bytes_per_sec: rng.between(20_000, 5_000_000),
        down_bytes_per_sec: rng.between(100_000, 50_000_000),
        store_delay_max: Duration::from_millis(rng.below(20)),
        ..NodeConfig::default()
    }
}

/// One peer with everything, some with a part, some that lie. All are announced.
fn add_providers(world: &mut World, rng: &mut Rng, content: &[Block]) -> Vec<NodeId> {
    let mut providers = vec![world.add_node(speed(rng), content)];
    for _ in 0..rng.below(4) {
        let part: Vec<Block> = content.iter().filter(|_| !rng.one_in(3)).cloned().collect();
        providers.push(world.add_node(speed(rng), &part));
    }
    for _ in 0..rng.below(4) {
        let lie = Lie::ALL[rng.below(Lie::ALL.len() as u64) as usize];
        let config = NodeConfig {
            lie: Some(lie),
            ..speed(rng)
        };
        providers.push(world.add_node(config, &[]));
    }
    world.announced.clone_from(&providers);
    providers
}

#[test]
fn every_want_ends_whatever_goes_wrong_and_nothing_is_left_behind() {
    for_each_seed(|seed| {
        let Chaos {
            mut world,
            leechers,
            available,
            absent,
            parted,
        } = Chaos::new(seed);
        let ok = world.run(FOREVER);
        if !ok
            || (!parted
                && leechers.iter().any(|(n, s)| {
                    available
                        .iter()
                        .any(|c| world.outcome(*n, *s, c) != Some(Outcome::Got))
                }))
        {
            for (n, s) in &leechers {
                if available
                    .iter()
                    .any(|c| world.outcome(*n, *s, c) != Some(Outcome::Got))
                {
                    eprintln!("node {n} {s:?} t={:?}", world.elapsed());
                    world.exchange(*n).dump();
                    break;
                }
            }
            for (i, n) in world.nodes.iter().enumerate() {
                eprintln!("{i} {:?} store {}", n.config, n.store.len());
            }
            eprintln!("links {:?}", world.links.keys());
        }
        assert!(ok, "{} wants never ended", world.open_wants());
        for (node, session) in &leechers {
            for cid in &absent {
                let outcome = world.outcome(*node, *session, cid);
                assert_eq!(outcome, Some(Outcome::Missing), "nobody has it");
            }
            let missing = |cid: &&Cid| world.outcome(*node, *session, cid) != Some(Outcome::Got);
            let missing = available.iter().filter(missing).count();
            assert!(
                parted || missing == 0,
                "{missing} blocks missing though a peer has them all"
            );
        }
        for (node, session) in leechers {
            assert!(world.close(node, session).is_some());
        }
        world.silence_liars();
        world.disconnect_all();
        world.run_until(Duration::from_secs(120), |_| false);
        for node in 0..world.nodes.len() {
            assert_eq!(world.residue(node), 0, "node {node} holds on to something");
        }
    });
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for seed in 0..8 {
        let run = || {
            let Chaos { mut world, .. } = Chaos::new(seed);
            world.run(FOREVER);
            (world.trace(), world.steps(), world.elapsed())
        };
        let (first, second) = (run(), run());
        assert!(first.1 > 10);
        assert_eq!(first, second);
        assert_ne!(first.0, {
            let Chaos { mut world, .. } = Chaos::new(seed + 1000);
            world.run(FOREVER);
            world.trace()
        });
    }
}
