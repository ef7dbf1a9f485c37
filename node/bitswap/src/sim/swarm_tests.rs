//! Many who fetch the same thing, and several who have it: who sends how much.

use super::*;
use crate::event::Reach;
use crate::testing::block;

/// Longer than any run may take in virtual time.
const FOREVER: Duration = Duration::from_secs(3600);

fn blocks(count: u64, size: usize) -> Vec<Block> {
    (0..count).map(|n| block(n, size)).collect()
}

fn cids(blocks: &[Block]) -> Vec<Cid> {
    blocks.iter().map(|block| *block.cid()).collect()
}

fn bytes(blocks: &[Block]) -> u64 {
    blocks.iter().map(|block| block.data().len() as u64).sum()
}

fn line(up_bytes_per_sec: u64) -> NodeConfig {
    NodeConfig {
        up_bytes_per_sec,
        ..NodeConfig::default()
    }
}

/// Cold nodes that know each other and one seeder; the seeder's upload in files, and the time it took.
fn swarm(seed: u64, nodes: usize, content: &[Block], seeder: u64, leecher: u64) -> (f64, Duration) {
    let mut world = World::new(seed);
    let seeder = world.add_node(line(seeder), content);
    let leechers: Vec<_> = (0..nodes)
        .map(|_| world.add_node(line(leecher), &[]))
        .collect();
    for node in &leechers {
        let others = leechers.iter().filter(|other| *other != node);
        let known: Vec<_> = others.copied().chain([seeder]).collect();
        world.fetch(*node, &cids(content), &known);
    }
    assert!(world.run(FOREVER));
    let sent = world.exchange(seeder).stats().total.bytes_sent;
    for node in leechers {
        assert_eq!(world.received_bytes(node) as u64, bytes(content));
    }
    (sent as f64 / bytes(content) as f64, world.elapsed())
}

#[test]
fn a_seeder_sends_a_file_a_few_times_however_many_want_it() {
    let content = blocks(64, 16 << 10);
    for (seed, nodes, files_max) in [(1, 4, 3.0), (2, 8, 4.0), (3, 8, 4.0), (4, 32, 8.0)] {
        let (sent, time) = swarm(seed, nodes, &content, 1_000_000, 1_000_000);
        assert!(sent < files_max, "{nodes} nodes: {sent:.2} files");
        // All are served as soon as the seeder has sent what it sends.
        let alone = Duration::from_secs_f64(nodes as f64 * bytes(&content) as f64 / 1e6);
        assert!(
            time < alone.mul_f64(files_max / nodes as f64 * 1.2),
            "{nodes} nodes: {time:?}"
        );
    }
}

/// One who fetches from five with everything, each with a line of its own.
struct Five {
    world: World,
    leecher: NodeId,
    session: SessionId,
    providers: Vec<NodeId>,
}

impl Five {
    fn new(seed: u64, lines: [u64; 5], content: &[Block]) -> Self {
        let mut rng = Rng::new(seed ^ 0xf1fe);
        let mut world = World::new(seed);
        let providers: Vec<_> = lines
            .into_iter()
            .map(|up| world.add_node(line(up), content))
            .collect();
        let leecher = world.add_node(NodeConfig::default(), &[]);
        for provider in &providers {
            let latency = Duration::from_millis(rng.between(1, 120));
            let jitter = Duration::from_millis(rng.below(20));
            let link = LinkConfig {
                latency,
                jitter,
                ..LinkConfig::default()
            };
            world.set_link(leecher, *provider, link);
        }
        let session = world.fetch(leecher, &cids(content), &providers);
        Self {
            world,
            leecher,
            session,
            providers,
        }
    }

    fn finish(&mut self, content: &[Block]) -> SessionStats<NodeId> {
        assert!(self.world.run(FOREVER));
        assert_eq!(
            self.world.received_bytes(self.leecher) as u64,
            bytes(content)
        );
        let exchange = self.world.exchange(self.leecher);
        exchange.session_stats(self.session).expect("it is open")
    }
}

/// Speeds that differ by up to a hundred times.
fn lines(seed: u64) -> [u64; 5] {
    let mut rng = Rng::new(seed ^ 0x11e5);
    [(); 5].map(|()| 50_000 * rng.between(1, 10) * rng.between(1, 10))
}

#[test]
fn of_five_providers_hardly_a_byte_comes_twice() {
    let content = blocks(300, 16 << 10);
    for seed in 0..24 {
        let mut five = Five::new(seed, lines(seed), &content);
        let stats = five.finish(&content);
        assert!(stats.duplicate_ratio() <= 0.02, "{seed}: {stats:?}");
    }
}

#[test]
fn a_provider_of_five_that_stalls_in_the_middle_costs_little_time_and_hardly_a_byte() {
    let content = blocks(300, 16 << 10);
    for seed in 0..24 {
        let lines = lines(seed);
        let total: u64 = lines.iter().sum();
        let mut five = Five::new(seed, lines, &content);
        let stalled = five.providers[seed as usize % 5];
        let half = bytes(&content) as f64 / total as f64 / 2.0;
        five.world
            .line_after(Duration::from_secs_f64(half), stalled, 0);
        let stats = five.finish(&content);
        assert!(stats.duplicate_ratio() <= 0.02, "{seed}: {stats:?}");
        let rest = total - lines[seed as usize % 5];
        let fair = bytes(&content) as f64 / rest as f64;
        // Its silence must last before it is one.
        let most = Duration::from_secs_f64(1.5 * fair) + limits::STALL_MAX;
        assert!(
            five.world.elapsed() < most,
            "{seed}: {:?}",
            five.world.elapsed()
        );
    }
}

/// The share of the bytes that one near peer gives beside three far ones, once everybody's pace is known.
fn share_of_near(near_line: u64, seed: u64) -> f64 {
    const WINDOW: usize = 32;
    let content = blocks(600, 16 << 10);
    let mut world = World::new(seed);
    let near = world.add_node(line(near_line), &content);
    let far = [(); 3].map(|()| world.add_node(line(4_000_000), &content));
    let leecher = world.add_node(NodeConfig::default(), &[]);
    let link = LinkConfig {
        latency: Duration::from_millis(1),
        jitter: Duration::ZERO,
        reach: Reach::Near,
        ..LinkConfig::default()
    };
    world.set_link(leecher, near, link);
    let session = world.fetch(leecher, &[], &[&far[..], &[near]].concat());
    let given = |world: &World| {
        let stats = world.exchange(leecher).session_stats(session);
        let peers = stats.expect("it is open").peers;
        let near = peers.iter().find(|(peer, _)| *peer == near);
        near.map_or(0, |(_, share)| share.bytes)
    };
    // As a file is fetched: so many blocks are wanted at a time.
    let mut before = 0;
    for (number, block) in content.iter().enumerate() {
        assert!(world.run_until(FOREVER, |world| world.open_wants() < WINDOW));
        world.want(leecher, session, &[*block.cid()]);
        if number == content.len() / 2 {
            before = given(&world);
        }
    }
    assert!(world.run(FOREVER));
    (given(&world) - before) as f64 / bytes(&content[content.len() / 2..]) as f64
}

#[test]
fn near_peers_are_asked_first_as_long_as_they_keep_up() {
    for seed in 0..8 {
        let (fast, slow) = (
            share_of_near(50_000_000, seed),
            share_of_near(100_000, seed),
        );
        assert!(fast > 0.9, "{seed}: {fast}");
        assert!(slow < 0.2, "{seed}: {slow}");
    }
}

#[test]
fn the_only_holder_may_pause_for_some_seconds_and_nothing_is_missing_for_it() {
    let content = blocks(200, 16 << 10);
    for (seed, pause) in [(1, 1), (2, 5), (3, 12), (4, 14)] {
        let mut world = World::new(seed);
        let holder = world.add_node(line(1_000_000), &content);
        let leecher = world.add_node(NodeConfig::default(), &[]);
        world.fetch(leecher, &cids(&content), &[holder]);
        world.line_after(Duration::from_secs(1), holder, 0);
        world.line_after(Duration::from_secs(1 + pause), holder, 1_000_000);
        assert!(world.run(FOREVER));
        assert_eq!(
            world.received_bytes(leecher) as u64,
            bytes(&content),
            "{pause} s"
        );
    }
}

/// Bytes that a leecher fetches from three far nodes within its own limit, and how long that takes.
fn limited(limit: u64, size: usize, seed: u64) -> (f64, f64) {
    let content = blocks(30 * limit / size as u64, size);
    let mut world = World::new(seed);
    let far = [(); 3].map(|()| world.add_node(line(4_000_000), &content));
    let leecher = world.add_node(
        NodeConfig {
            download_bytes_per_sec: Some(limit),
            ..NodeConfig::default()
        },
        &[],
    );
    world.fetch(leecher, &cids(&content), &far);
    assert!(world.run(FOREVER));
    assert_eq!(world.received_bytes(leecher) as u64, bytes(&content));
    (bytes(&content) as f64, world.elapsed().as_secs_f64())
}

#[test]
fn a_download_limit_holds_and_is_used_whatever_the_size_of_blocks() {
    for (limit, size) in [
        (1_000_000, 16 << 10),
        (1_000_000, 1 << 20),
        (200_000, 1 << 20),
    ] {
        for seed in 0..4 {
            let (bytes, secs) = limited(limit, size, seed);
            // The first second's credit; and a block is asked for as soon as there is any.
            let most = limit as f64 * (secs + 1.0) + 3.0 * size as f64;
            assert!(bytes < most, "{limit} in {size}: {bytes} in {secs}");
            let least = limit as f64 * secs * 0.8;
            assert!(bytes > least, "{limit} in {size}: {bytes} in {secs}");
        }
    }
}

#[test]
fn near_peers_are_not_held_up_by_the_download_limit() {
    let content = blocks(100, 1 << 20);
    let mut world = World::new(1);
    let near = world.add_node(line(50_000_000), &content);
    let far = world.add_node(line(50_000_000), &content);
    let leecher = world.add_node(
        NodeConfig {
            download_bytes_per_sec: Some(100_000),
            ..NodeConfig::default()
        },
        &[],
    );
    let link = LinkConfig {
        reach: Reach::Near,
        ..LinkConfig::default()
    };
    world.set_link(leecher, near, link);
    let session = world.fetch(leecher, &cids(&content), &[near, far]);
    assert!(world.run(FOREVER));
    assert!(
        world.elapsed() < Duration::from_secs(20),
        "{:?}",
        world.elapsed()
    );
    let stats = world.exchange(leecher).session_stats(session);
    let peers = stats.expect("it is open").peers;
    let of_far = peers.iter().find(|(peer, _)| *peer == far);
    assert!(of_far.is_none_or(|(_, share)| share.bytes <= 4 << 20));
}
