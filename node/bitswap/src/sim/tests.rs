//! Properties of the whole, by seed. `SIM_SEED=17 cargo test -p p2pkgs-bitswap sim` replays one.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use super::*;
use crate::testing::block;

/// Seeds that each property is tried with.
const SEEDS: u64 = 256;
/// Longer than any run may take in virtual time.
const FOREVER: Duration = Duration::from_secs(3600);

/// Tries a property with every seed, on all cores; a failure names its seed.
#[allow(clippy::disallowed_methods, clippy::print_stderr)] // The seed to replay comes from outside, and seeds are independent of each other.
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
        assert!(
            world.run(FOREVER),
            "{} wants never ended",
            world.open_wants()
        );
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

/// A world of equal honest peers that all have the content, and one that fetches it from them.
struct Swarm {
    world: World,
    leecher: NodeId,
    session: SessionId,
    bytes: usize,
}

impl Swarm {
    fn new(seed: u64, providers: &[NodeConfig], link: &LinkConfig, content: &[Block]) -> Self {
        let mut world = World::new(seed);
        world.link = link.clone();
        let providers: Vec<NodeId> = providers
            .iter()
            .map(|config| world.add_node(config.clone(), content))
            .collect();
        let leecher = world.add_node(NodeConfig::default(), &[]);
        let session = world.fetch(leecher, &cids(content), &providers);
        let bytes = content.iter().map(|block| block.data().len()).sum();
        Self {
            world,
            leecher,
            session,
            bytes,
        }
    }

    /// Fetches everything; bytes per second.
    fn rate(&mut self) -> f64 {
        assert!(self.world.run(FOREVER));
        assert_eq!(self.world.received_bytes(self.leecher), self.bytes);
        self.bytes as f64 / self.world.elapsed().as_secs_f64()
    }

    fn stats(&self) -> SessionStats<NodeId> {
        let stats = self
            .world
            .exchange(self.leecher)
            .session_stats(self.session);
        stats.expect("the session is open")
    }
}

fn line(up_bytes_per_sec: u64) -> NodeConfig {
    NodeConfig {
        up_bytes_per_sec,
        ..NodeConfig::default()
    }
}

#[test]
fn without_failures_hardly_a_block_comes_twice() {
    let totals = std::sync::Mutex::new((0, 0));
    for_each_seed(|seed| {
        let mut rng = Rng::new(seed ^ 0xd0b1);
        let providers: Vec<NodeConfig> = (0..rng.between(2, 5))
            .map(|_| line(rng.between(200_000, 5_000_000)))
            .collect();
        let latency = Duration::from_millis(rng.between(1, 100));
        let jitter = Duration::from_millis(rng.below(20));
        let link = LinkConfig {
            latency,
            jitter,
            loss_one_in: 0,
            ..LinkConfig::default()
        };
        let content = blocks(rng.between(50, 300), rng.between(500, 8_000) as usize);
        let mut swarm = Swarm::new(seed, &providers, &link, &content);
        swarm.rate();
        let stats = swarm.stats();
        // A want-have for a small block is answered by the block.
        assert!(stats.total.duplicate_blocks <= 5, "{stats:?}");
        let mut totals = totals.lock().expect("no thread panicked");
        *totals = (
            totals.0 + stats.total.bytes,
            totals.1 + stats.total.duplicate_bytes,
        );
    });
    let (bytes, duplicate_bytes) = totals.into_inner().expect("no thread panicked");
    assert!(
        duplicate_bytes * 100 <= bytes,
        "{duplicate_bytes} of {bytes} bytes came twice"
    );
}

#[test]
fn four_equal_providers_are_nearly_four_times_as_fast_as_one() {
    // Long enough that the first round trips, in which nobody's rate is known, do not decide.
    let content = blocks(1200, 16 * 1024);
    for latency in [5, 50] {
        let latency = Duration::from_millis(latency);
        let link = LinkConfig {
            latency,
            ..LinkConfig::default()
        };
        let mut swarm = Swarm::new(1, &vec![line(1_000_000); 4], &link, &content);
        let rate = swarm.rate();
        assert!(rate > 0.85 * 4e6, "{rate} bytes per second at {latency:?}");
        let stats = swarm.stats();
        for (peer, share) in &stats.peers {
            assert!(share.blocks.abs_diff(300) < 60, "{peer} gave {share:?}");
        }
    }
}

#[test]
fn one_slow_peer_does_not_slow_the_others() {
    let content = blocks(600, 16 * 1024);
    let link = LinkConfig::default();
    let mut fast = Swarm::new(1, &vec![line(1_000_000); 3], &link, &content);
    let mut providers = vec![line(1_000_000); 3];
    providers.push(line(10_000));
    let mut mixed = Swarm::new(1, &providers, &link, &content);
    let (alone, with_slow) = (fast.rate(), mixed.rate());
    assert!(
        with_slow > 0.9 * alone,
        "{with_slow} beside {alone} bytes per second"
    );
    assert!(
        mixed.stats().duplicate_ratio() < 0.02,
        "{:?}",
        mixed.stats()
    );
}

#[test]
fn two_downloaders_get_equal_shares_whatever_the_size_of_their_blocks() {
    let (large, small) = (blocks(300, 32 * 1024), blocks(4000, 2 * 1024));
    let mut world = World::new(3);
    let content = [&large[..], &small[..]].concat();
    let server = world.add_node(line(1_000_000), &content);
    let first = world.add_node(NodeConfig::default(), &[]);
    let second = world.add_node(NodeConfig::default(), &[]);
    world.fetch(first, &cids(&large), &[server]);
    world.fetch(second, &cids(&small), &[server]);
    world.run_until(Duration::from_secs(8), |_| false);
    let got = [first, second].map(|node| world.received_bytes(node) as f64);
    assert!(got[0] + got[1] > 7e6, "{got:?}");
    assert!((0.8..1.25).contains(&(got[0] / got[1])), "{got:?}");
}

#[test]
fn peers_that_hold_different_halves_give_a_whole() {
    for_each_seed(|seed| {
        let content = blocks(60, 1000);
        let mut world = World::new(seed);
        let first = world.add_node(NodeConfig::default(), &content[..30]);
        let second = world.add_node(NodeConfig::default(), &content[30..]);
        let leecher = world.add_node(NodeConfig::default(), &[]);
        world.fetch(leecher, &cids(&content), &[first, second]);
        assert!(world.run(FOREVER));
        assert_eq!(world.received_bytes(leecher), 60_000);
        assert!(
            world.elapsed() < Duration::from_secs(5),
            "{:?}",
            world.elapsed()
        );
    });
}

#[test]
fn a_liar_costs_seconds_and_no_block() {
    for lie in Lie::ALL {
        let content = blocks(150, 4000);
        let mut world = World::new(5);
        let honest = world.add_node(line(500_000), &content);
        let liar = world.add_node(
            NodeConfig {
                lie: Some(lie),
                ..NodeConfig::default()
            },
            &[],
        );
        let leecher = world.add_node(NodeConfig::default(), &[]);
        let session = world.fetch(leecher, &cids(&content), &[liar, honest]);
        assert!(world.run(FOREVER));
        assert_eq!(world.received_bytes(leecher), 600_000, "{lie:?}");
        assert!(
            world.elapsed() < Duration::from_secs(12),
            "{lie:?}: {:?}",
            world.elapsed()
        );
        let stats = world.close(leecher, session).unwrap();
        assert!(stats.total.duplicate_blocks <= 2, "{lie:?}: {stats:?}");
        let caught = matches!(lie, Lie::WrongBytes | Lie::Flood | Lie::Oversize);
        assert!(
            !caught || world.accused == BTreeSet::from([liar]),
            "{lie:?}"
        );
        assert!(caught || world.accused.is_empty(), "{lie:?}");
    }
}

#[test]
fn a_provider_that_dies_in_the_middle_is_replaced() {
    let content = blocks(200, 4000);
    let mut world = World::new(6);
    let providers: Vec<NodeId> = (0..2)
        .map(|_| world.add_node(line(200_000), &content))
        .collect();
    let leecher = world.add_node(NodeConfig::default(), &[]);
    world.fetch(leecher, &cids(&content), &providers);
    world.part_after(Duration::from_secs(1), vec![providers[0]]);
    assert!(world.run(FOREVER));
    assert_eq!(world.received_bytes(leecher), 800_000);
    assert!(
        world.elapsed() < Duration::from_secs(5),
        "{:?}",
        world.elapsed()
    );
}

#[test]
fn leechers_serve_each_other_what_they_have() {
    let content = blocks(100, 4000);
    let mut world = World::new(7);
    let seeder = world.add_node(line(50_000), &content);
    let leechers: Vec<NodeId> = (0..4).map(|_| world.add_node(line(500_000), &[])).collect();
    let all: Vec<NodeId> = leechers.iter().copied().chain([seeder]).collect();
    for leecher in &leechers {
        let others: Vec<NodeId> = all.iter().copied().filter(|node| node != leecher).collect();
        world.fetch(*leecher, &cids(&content), &others);
    }
    assert!(world.run(FOREVER));
    // Alone the seeder would need 32 seconds.
    assert!(
        world.elapsed() < Duration::from_secs(24),
        "{:?}",
        world.elapsed()
    );
}
