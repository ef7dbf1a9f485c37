//! Directories in one block and sharded ones.

use std::collections::BTreeMap;

use base::Codec;

use super::*;
use crate::dag::testing::cid;
use crate::{Block, BlockStore as _, MemoryBlockStore};

/// Writes directories into a block store.
struct Directories {
    profile: Profile,
    blocks: MemoryBlockStore,
}

impl Directories {
    fn new(profile: Profile) -> Self {
        Self {
            profile,
            blocks: MemoryBlockStore::new(),
        }
    }

    fn file(&self, content: &[u8]) -> Subtree {
        build_file(self.profile, content, &mut |block| {
            self.blocks.put(&block).unwrap();
        })
        .unwrap()
    }

    fn node(&self, links: Vec<PbLink>, message: &UnixFs) -> Subtree {
        let below: u64 = links.iter().filter_map(|link| link.tsize).sum();
        let node = PbNode {
            links,
            data: Some(message.encode().into()),
        };
        let block = Block::of(node.encode().into());
        self.blocks.put(&block).unwrap();
        let v1 = block.cid(Codec::DagPb);
        let cid = if self.profile.cid_v0 {
            Cid::new_v0(*v1.hash()).unwrap()
        } else {
            v1
        };
        Subtree {
            cid,
            tsize: block.len() as u64 + below,
            size: 0,
        }
    }

    fn basic(&self, entries: &BTreeMap<String, Subtree>) -> Subtree {
        let links = entries
            .iter()
            .map(|(name, child)| link(name, child))
            .collect();
        self.node(links, &UnixFs::new(UnixFsKind::Directory))
    }

    fn sharded(&self, entries: &BTreeMap<String, Subtree>) -> Subtree {
        let entries: Vec<_> = entries
            .iter()
            .map(|(name, child)| (murmur3::hash(name.as_bytes()), name.as_str(), *child))
            .collect();
        self.shard(&entries, 0)
    }

    /// A shard of 256 buckets over entries that agree in the first `level` bytes of their hashes.
    fn shard(&self, entries: &[([u8; 8], &str, Subtree)], level: usize) -> Subtree {
        let mut buckets: BTreeMap<u8, Vec<_>> = BTreeMap::new();
        for entry in entries {
            buckets.entry(entry.0[level]).or_default().push(*entry);
        }
        let mut bitfield = [0u8; 32];
        let mut links = Vec::new();
        for (bucket, entries) in buckets {
            bitfield[31 - usize::from(bucket / 8)] |= 1 << (bucket % 8);
            links.push(match entries[..] {
                [(_, name, child)] => link(&format!("{bucket:02X}{name}"), &child),
                _ => link(&format!("{bucket:02X}"), &self.shard(&entries, level + 1)),
            });
        }
        let used = bitfield.iter().position(|byte| *byte != 0).unwrap_or(32);
        let message = UnixFs {
            data: Some(Bytes::copy_from_slice(&bitfield[used..])),
            hash_type: Some(0x22),
            fanout: Some(256),
            ..UnixFs::new(UnixFsKind::HamtShard)
        };
        self.node(links, &message)
    }

    fn load(&self, cid: &Cid) -> Result<Bytes, DagError> {
        let block = self.blocks.get_cid(cid).unwrap();
        block
            .map(Block::into_bytes)
            .ok_or(DagError::Malformed("block is missing"))
    }

    fn lookup(&self, root: &Cid, name: &str) -> Option<Cid> {
        lookup(root, name, |cid| self.load(cid)).unwrap()
    }

    fn list(&self, root: &Cid) -> Vec<DirEntry> {
        list(root, |cid| self.load(cid)).unwrap()
    }

    fn root_block_bytes(&self, root: &Subtree) -> usize {
        self.load(&root.cid).unwrap().len()
    }

    /// Every entry is found by name, and the listing has them all.
    fn check_reading(&self, root: &Subtree, entries: &BTreeMap<String, Subtree>) {
        // A directory in one block is decoded for each lookup, so large ones are looked at here and there.
        for (name, child) in entries.iter().step_by(1 + entries.len() / 100) {
            assert_eq!(self.lookup(&root.cid, name), Some(child.cid), "{name}");
        }
        assert_eq!(self.lookup(&root.cid, "no such name"), None);
        let mut listed: Vec<_> = self
            .list(&root.cid)
            .into_iter()
            .map(|entry| (entry.name, entry.cid))
            .collect();
        listed.sort_by(|a, b| a.0.cmp(&b.0));
        let expected: Vec<_> = entries
            .iter()
            .map(|(name, child)| (name.clone(), child.cid))
            .collect();
        assert_eq!(listed, expected);
    }
}

fn link(name: &str, child: &Subtree) -> PbLink {
    PbLink {
        cid: child.cid,
        name: Some(name.to_owned()),
        tsize: Some(child.tsize),
    }
}

#[test]
fn small_directories_have_the_published_roots() {
    for (profile, empty, hello, with_empty, sorted) in [
        (
            V0,
            "QmUNLLsPACCz1vLxQVkXqqLX5R1X345qqfHbsf67hvA3Nn",
            "QmfLiVjH2vujCVP2e75zyzBYmpcjktmDeU1YBz6Ct8BBsc",
            "QmW3UcsRkuw1Xe3QQaWQTyFQHH81ydk2qaUj2Qth7ysQeG",
            "QmaGNNrxccGS2FGpTBXqBsF9PKPkURChWCaHJjgDMKrQRx",
        ),
        (
            V1,
            "bafybeiczsscdsbs7ffqz55asqdf3smv6klcw3gofszvwlyarci47bgf354",
            "bafybeidhkumeonuwkebh2i4fc7o7lguehauradvlk57gzake6ggjsy372a",
            "bafybeigsjbqhv4lzofheqt6juwfjypeezae2ktwsw6oliem4ggr72iuoay",
            "bafybeigk2liskng66ujd6hrtcu2dv2qi4wtroyhnyfdiamrwlp2raijudi",
        ),
    ] {
        let writer = Directories::new(profile);
        assert_eq!(writer.basic(&BTreeMap::new()).cid, cid(empty));
        let mut entries = BTreeMap::new();
        entries.insert("hello.txt".to_owned(), writer.file(b"hello world\n"));
        let root = writer.basic(&entries);
        assert_eq!(root.cid, cid(hello));
        entries.insert("empty".to_owned(), writer.file(b""));
        let root = writer.basic(&entries);
        assert_eq!(root.cid, cid(with_empty));
        writer.check_reading(&root, &entries);
        let x = writer.file(b"x");
        let names = ["a", "a.b", "a-b", "B", "é", "Z", "z"];
        let entries = names.map(|name| (name.to_owned(), x)).into();
        let root = writer.basic(&entries);
        assert_eq!(root.cid, cid(sorted));
        writer.check_reading(&root, &entries);
    }
}

#[test]
fn a_directory_with_a_directory_and_a_large_file_has_the_published_root() {
    for (profile, expected) in [
        (V0, "QmTLtqAzHouw8aLpHLFMAuzPE4Tft3DmxTGxnaTmzCgPQP"),
        (
            V1,
            "bafybeifjoy4ssxwafu3ievxgzji435vdntfbr4j25hxtpjz6qtqmwjsswa",
        ),
    ] {
        let writer = Directories::new(profile);
        let hello = writer.file(b"hello world\n");
        let a = writer.basic(&BTreeMap::from([("hello.txt".to_owned(), hello)]));
        let zeros = root_of(profile, io::repeat(0).take(64 * MIB));
        let root = writer.basic(&BTreeMap::from([
            ("B.txt".to_owned(), hello),
            ("a".to_owned(), a),
            ("zeros.bin".to_owned(), zeros),
        ]));
        assert_eq!(root.cid, cid(expected));
    }
}

#[test]
fn ten_thousand_entries_are_sharded_and_found() {
    for (profile, sharded, root_bytes, tsize, basic, basic_bytes) in [
        (
            V0,
            "QmTBM8PWugJyzSX9oBY6HsaBPvDZqqbH8hDM8rwsvQwGCR",
            11_563,
            670_195,
            "QmZucvhv6vaGgSy1zM8SybFk14muqaREjw2hTqXERGM5Fn",
            480_004,
        ),
        (
            V1,
            "bafybeigezxmadp7oezduew5v5tkvk65u3utt4zyrstiirafugnbzpxuq6q",
            12_075,
            612_125,
            "bafybeic7drxqk76inzg4pqovgjdwson24sydoz56jpkg4owqs5f4kgmnu4",
            500_004,
        ),
    ] {
        let writer = Directories::new(profile);
        let x = writer.file(b"x");
        let entries: BTreeMap<_, _> = (0..10_000).map(|i| (format!("f{i:05}"), x)).collect();
        let root = writer.sharded(&entries);
        assert_eq!((root.cid, root.tsize), (cid(sharded), tsize));
        assert_eq!(writer.root_block_bytes(&root), root_bytes);
        writer.check_reading(&root, &entries);
        let root = writer.basic(&entries);
        assert_eq!(root.cid, cid(basic));
        assert_eq!(writer.root_block_bytes(&root), basic_bytes);
    }
}

#[test]
fn three_names_in_a_shard_stand_in_bucket_order() {
    let v0 = "QmegWX1ahzNz19U58L6vTzVdPAHf3V1uTsg8L9Nx48v9bZ";
    let v1 = "bafybeihvox67xi6shuzc27uwvu4zdm4cvchxqutphzptgrbmwmgh23jcg4";
    for (profile, expected) in [(V0, v0), (V1, v1)] {
        let writer = Directories::new(profile);
        let empty = writer.file(b"");
        let entries = ["a", "b", "c"].map(|name| (name.to_owned(), empty)).into();
        let root = writer.sharded(&entries);
        assert_eq!(root.cid, cid(expected));
        let listed: Vec<_> = writer
            .list(&root.cid)
            .into_iter()
            .map(|entry| entry.name)
            .collect();
        assert_eq!(listed, ["b", "a", "c"]);
        writer.check_reading(&root, &entries);
    }
}

/// Names as IPIP-499 makes them, of the given lengths.
fn names(seed: &str, lengths: impl Iterator<Item = usize>) -> Vec<String> {
    const ALPHABET: &[u8; 39] = b"abcdefghijklmnopqrstuvwxyz01234567890-_";
    let mut stream = Keystream::new(seed);
    let name = |length| {
        let mut bytes = vec![0; length];
        stream.read_exact(&mut bytes).unwrap();
        bytes
            .iter()
            .map(|byte| char::from(ALPHABET[usize::from(byte % 39)]))
            .collect()
    };
    lengths.map(name).collect()
}

#[test]
fn the_directories_of_ipip_499_have_their_roots() {
    let repeat = std::iter::repeat_n::<usize>;
    for (profile, seed, lengths, is_sharded, expected, root_bytes) in [
        (
            V0,
            "hamt-unixfs-v0-2015",
            repeat(30, 4096).collect::<Vec<_>>(),
            false,
            "QmX5GtRk3TSSEHtdrykgqm4eqMEn3n2XhfkFAis5fjyZmN",
            294_916,
        ),
        (
            V0,
            "hamt-unixfs-v0-2015",
            repeat(31, 4033).collect(),
            true,
            "QmeMiJzmhpJAUgynAcxTQYek5PPKgdv3qEvFsdV3XpVnvP",
            11_563,
        ),
        (
            V1,
            "hamt-unixfs-v1-2025",
            repeat(11, 4765).chain([21]).collect(),
            false,
            "bafybeic3h7rwruealwxkacabdy45jivq2crwz6bufb5ljwupn36gicplx4",
            262_144,
        ),
        (
            V1,
            "hamt-unixfs-v1-2025",
            repeat(11, 4765).chain([22]).collect(),
            true,
            "bafybeiegvuterwurhdtkikfhbxcldohmxp566vpjdofhzmnhv6o4freidu",
            12_075,
        ),
    ] {
        let writer = Directories::new(profile);
        let x = writer.file(b"x");
        let names = names(seed, lengths.into_iter());
        let entries = names.into_iter().map(|name| (name, x)).collect();
        let root = if is_sharded {
            writer.sharded(&entries)
        } else {
            writer.basic(&entries)
        };
        assert_eq!(root.cid, cid(expected), "{seed}");
        assert_eq!(writer.root_block_bytes(&root), root_bytes);
        writer.check_reading(&root, &entries);
    }
}

#[test]
fn a_file_is_no_directory_and_hostile_shards_end() {
    let writer = Directories::new(V1);
    let file = writer.file(b"x").cid;
    let error = list(&file, |cid| writer.load(cid)).unwrap_err();
    assert!(matches!(
        error,
        DagError::WrongKind {
            found: "file",
            wanted: "directory",
            ..
        }
    ));
    // A shard below itself cannot exist, but a chain of shards that never ends in an entry can.
    let message = UnixFs {
        data: Some(Bytes::from_static(&[1])),
        hash_type: Some(0x22),
        fanout: Some(256),
        ..UnixFs::new(UnixFsKind::HamtShard)
    };
    let mut child = writer.node(vec![link("00x", &writer.file(b"x"))], &message);
    for _ in 0..9 {
        child = writer.node(vec![link("00", &child)], &message);
    }
    let error = list(&child.cid, |cid| writer.load(cid)).unwrap_err();
    assert_eq!(
        error,
        DagError::TooLarge {
            what: "depth of a shard",
            max: 64
        }
    );
    let empty = writer.node(
        vec![],
        &UnixFs {
            data: None,
            ..message.clone()
        },
    );
    let parent = writer.node(vec![link("00", &empty)], &message);
    assert!(list(&parent.cid, |cid| writer.load(cid)).is_err());
}
