//! Files of every shape, hostile ones too, read through a network that answers in any order.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;
use crate::dag::testing::cid;
use crate::dag::{LeafForm, PbLink, PbNode, Profile, UnixFs, UnixFsKind, build_file};

/// What a traversal did.
#[derive(Debug, Default)]
struct Seen {
    bytes: Vec<u8>,
    fetched: HashMap<Multihash, usize>,
    /// Most blocks wanted or held as leaves at a time.
    in_memory_max: usize,
}

/// Blocks of files under construction.
#[derive(Default)]
struct World(HashMap<Multihash, Block>);

impl World {
    fn add(&mut self, block: Block) -> Block {
        self.0.insert(*block.hash(), block.clone());
        block
    }

    fn file(&mut self, profile: Profile, bytes: &[u8]) -> Cid {
        build_file(profile, bytes, &mut |block| drop(self.add(block)))
            .unwrap()
            .cid
    }

    fn raw(&mut self, bytes: &[u8]) -> Cid {
        self.add(Block::of(Bytes::copy_from_slice(bytes)))
            .cid(Codec::Raw)
    }

    fn node(&mut self, kind: UnixFsKind, data: &[u8], parts: &[(Cid, u64)]) -> Cid {
        let size = data.len() as u64 + parts.iter().map(|part| part.1).sum::<u64>();
        let message = UnixFs {
            data: Some(Bytes::copy_from_slice(data)),
            file_size: Some(size),
            block_sizes: parts.iter().map(|part| part.1).collect(),
            ..UnixFs::new(kind)
        };
        let link = |part: &(Cid, u64)| PbLink {
            cid: part.0,
            name: Some(String::new()),
            tsize: None,
        };
        let links = parts.iter().map(link).collect();
        let node = PbNode {
            links,
            data: Some(message.encode().into()),
        };
        self.add(Block::of(node.encode().into())).cid(Codec::DagPb)
    }

    /// Reads a file; `pick` says which of the blocks under way arrives next.
    fn read(
        &self,
        root: Cid,
        window: usize,
        limits: WalkLimits,
        mut pick: impl FnMut(usize) -> usize,
    ) -> Result<Seen, DagError> {
        let mut walk = Walk::new(root, limits)?;
        let mut seen = Seen::default();
        let mut under_way = Vec::new();
        loop {
            under_way.extend(walk.wants(window));
            let leaves = walk
                .held
                .values()
                .filter(|held| !matches!(held, Held::Node(_)))
                .count();
            seen.in_memory_max = seen.in_memory_max.max(leaves);
            if !under_way.is_empty() {
                let cid = under_way.swap_remove(pick(under_way.len()) % under_way.len());
                let hash = Multihash::of(&cid).unwrap();
                *seen.fetched.entry(hash).or_default() += 1;
                walk.handle_block(&self.0[&hash])?;
            }
            while let Some(leaf) = walk.next_bytes()? {
                seen.bytes.extend_from_slice(leaf.bytes());
            }
            if walk.is_done() {
                assert_eq!(walk.declared_size(), Some(seen.bytes.len() as u64));
                return Ok(seen);
            }
        }
    }

    fn read_in_order(&self, root: Cid) -> Result<Seen, DagError> {
        self.read(root, 4, WalkLimits::default(), |_| 0)
    }
}

const TINY: Profile = Profile {
    chunk_bytes: 4,
    links_max: 3,
    leaves: LeafForm::Raw,
    cid_v0: false,
};

proptest! {
    #[test]
    fn every_file_is_read_in_order_whatever_order_blocks_come_in(
        bytes in proptest::collection::vec(0u8..3, 0..300),
        window in 1usize..12,
        is_old in any::<bool>(),
        picks in proptest::collection::vec(any::<u16>(), 1..50),
    ) {
        let leaves = if is_old { LeafForm::DagPb } else { LeafForm::Raw };
        let mut world = World::default();
        let root = world.file(Profile { leaves, cid_v0: is_old, ..TINY }, &bytes);
        let mut picks = picks.into_iter().cycle();
        let seen = world
            .read(root, window, WalkLimits::default(), |_| usize::from(picks.next().unwrap()))
            .unwrap();
        prop_assert_eq!(seen.bytes, bytes);
        prop_assert!(seen.in_memory_max <= window + 1, "{} in memory", seen.in_memory_max);
    }
}

#[test]
fn a_file_of_zeros_is_fetched_once_per_distinct_block() {
    let mut world = World::default();
    let bytes = vec![0; 40 << 20];
    let root = world.file(Profile::UNIXFS_V0_2015, &bytes);
    let seen = world.read_in_order(root).unwrap();
    assert!(seen.bytes == bytes);
    // A leaf, two inner nodes, and the root: 160 leaves are all one.
    assert_eq!(seen.fetched.len(), world.0.len());
    assert!(
        seen.fetched.values().all(|count| *count == 1),
        "{:?}",
        seen.fetched
    );
}

#[test]
fn rows_of_nodes_are_not_fetched_again_when_their_turn_comes() {
    let mut world = World::default();
    let bytes: Vec<u8> = (0..2000u32).flat_map(u32::to_le_bytes).collect();
    let root = world.file(
        Profile {
            links_max: 16,
            ..TINY
        },
        &bytes,
    );
    let seen = world.read(root, 32, WalkLimits::default(), |_| 0).unwrap();
    assert!(seen.bytes == bytes);
    assert!(seen.fetched.values().all(|count| *count == 1));
}

#[test]
fn all_file_shapes_of_the_field_are_read() {
    let mut world = World::default();
    let inline = Cid::read_bytes(&b"\x01\x55\x00\x06inline"[..]).unwrap();
    let old_leaf = world.node(UnixFsKind::Raw, b"old", &[]);
    let new_leaf = world.node(UnixFsKind::File, b"new", &[]);
    let raw = world.raw(b"raw");
    let empty = world.raw(b"");
    // As the trickle layout has it: leaves and subtrees side by side, at different depths.
    let deep = world.node(UnixFsKind::File, b"", &[(old_leaf, 3), (raw, 3)]);
    let parts = [
        (raw, 3),
        (new_leaf, 3),
        (empty, 0),
        (deep, 6),
        (inline, 6),
        (deep, 6),
        (old_leaf, 3),
    ];
    let root = world.node(UnixFsKind::File, b"own bytes first ", &parts);
    let seen = world.read_in_order(root).unwrap();
    assert_eq!(seen.bytes, b"own bytes first rawnewoldrawinlineoldrawold");
    assert!(
        !seen.fetched.contains_key(Block::empty().hash()),
        "nothing to fetch there"
    );
}

#[test]
fn an_empty_file_needs_no_block_and_an_inlined_one_neither() {
    let world = World::default();
    for (root, bytes) in [
        (
            cid("bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku"),
            &b""[..],
        ),
        (Cid::read_bytes(&b"\x01\x55\x00\x00"[..]).unwrap(), b""),
        (Cid::read_bytes(&b"\x01\x55\x00\x02ab"[..]).unwrap(), b"ab"),
    ] {
        let seen = world.read_in_order(root).unwrap();
        assert_eq!(seen.bytes, bytes);
        assert!(seen.fetched.is_empty());
    }
}

#[test]
fn a_parent_that_lies_about_sizes_is_found_out() {
    let mut world = World::default();
    let raw = world.raw(b"four");
    for claimed in [3, 5, u64::MAX / 2] {
        let root = world.node(UnixFsKind::File, b"", &[(raw, claimed)]);
        let limits = WalkLimits {
            bytes_max: u64::MAX,
            ..WalkLimits::default()
        };
        let error = world.read(root, 4, limits, |_| 0).unwrap_err();
        assert_eq!(error, DagError::LyingSize { claimed, found: 4 });
    }
    let child = world.node(UnixFsKind::File, b"", &[(raw, 4), (raw, 4)]);
    let root = world.node(UnixFsKind::File, b"", &[(child, 9)]);
    let error = world.read_in_order(root).unwrap_err();
    assert_eq!(
        error,
        DagError::LyingSize {
            claimed: 9,
            found: 8
        }
    );
}

#[test]
fn sizes_beyond_all_numbers_are_refused() {
    let mut world = World::default();
    let raw = world.raw(b"x");
    let message = UnixFs {
        block_sizes: vec![u64::MAX, 1],
        ..UnixFs::new(UnixFsKind::File)
    };
    let link = PbLink {
        cid: raw,
        name: None,
        tsize: None,
    };
    let node = PbNode {
        links: vec![link.clone(), link],
        data: Some(message.encode().into()),
    };
    let root = world.add(Block::of(node.encode().into())).cid(Codec::DagPb);
    let error = world.read_in_order(root).unwrap_err();
    assert_eq!(
        error,
        DagError::TooLarge {
            what: "file",
            max: u64::MAX
        }
    );
}

#[test]
fn a_small_dag_that_stands_for_a_huge_file_is_refused_at_its_root() {
    let mut world = World::default();
    let mut part = (world.raw(&[0; 1024]), 1024);
    for _ in 0..4 {
        part = (
            world.node(UnixFsKind::File, b"", &[part; 1000]),
            part.1 * 1000,
        );
    }
    let limits = WalkLimits {
        bytes_max: 1 << 30,
        ..WalkLimits::default()
    };
    let mut walk = Walk::new(part.0, limits).unwrap();
    let root = walk.wants(64);
    walk.handle_block(&world.0[&Multihash::of(&root[0]).unwrap()])
        .unwrap();
    let error = walk.next_bytes().unwrap_err();
    assert_eq!(
        error,
        DagError::TooLarge {
            what: "file",
            max: 1 << 30
        }
    );
}

#[test]
fn too_many_nodes_and_too_deep_trees_are_refused() {
    let mut world = World::default();
    let raw = world.raw(b"x");
    let wide = world.node(UnixFsKind::File, b"", &[(raw, 1); 2000]);
    let limits = WalkLimits {
        nodes_max: 1000,
        ..WalkLimits::default()
    };
    let error = world.read(wide, 16, limits, |_| 0).unwrap_err();
    assert_eq!(
        error,
        DagError::TooLarge {
            what: "number of nodes",
            max: 1000
        }
    );
    let mut deep = (raw, 1);
    for _ in 0..30 {
        deep = (world.node(UnixFsKind::File, b"", &[deep]), 1);
    }
    let error = world
        .read(deep.0, 64, WalkLimits::default(), |_| 0)
        .unwrap_err();
    assert_eq!(
        error,
        DagError::TooLarge {
            what: "depth of a file",
            max: 24
        }
    );
}

#[test]
fn what_is_no_file_is_named() {
    let mut world = World::default();
    let directory = PbNode {
        links: Vec::new(),
        data: Some(UnixFs::new(UnixFsKind::Directory).encode().into()),
    };
    let root = world
        .add(Block::of(directory.encode().into()))
        .cid(Codec::DagPb);
    let error = world.read_in_order(root).unwrap_err();
    assert!(matches!(
        error,
        DagError::WrongKind {
            found: "directory",
            wanted: "file",
            ..
        }
    ));
    let cbor = block_cid(Codec::DagCbor, &base::Sha256::of(b"x"));
    let error = Walk::new(cbor, WalkLimits::default()).unwrap_err();
    assert!(matches!(error, DagError::Unsupported { .. }));
}

#[test]
fn blocks_nobody_wants_are_ignored() {
    let mut world = World::default();
    let root = world.file(TINY, b"some bytes");
    let mut walk = Walk::new(root, WalkLimits::default()).unwrap();
    let stranger = Block::of(Bytes::from_static(b"stranger"));
    walk.handle_block(&stranger).unwrap();
    assert_eq!(walk.wants(4), [root]);
    walk.handle_block(&stranger).unwrap();
    assert_eq!(walk.next_bytes(), Ok(None));
    assert!(walk.wants(4).is_empty(), "nothing is wanted twice");
}

#[test]
fn a_root_of_version_0_is_asked_for_as_such() {
    let mut world = World::default();
    let root = world.file(Profile::UNIXFS_V0_2015, b"hello");
    let mut walk = Walk::new(root, WalkLimits::default()).unwrap();
    assert_eq!(walk.wants(1), [root]);
    assert_eq!(
        root.version(),
        ::base::parse_cid("QmbFMke1KXqnYyBBWxB74N4c5SBnJMVAiMNRcGu6x1AwQH")
            .unwrap()
            .version()
    );
}
