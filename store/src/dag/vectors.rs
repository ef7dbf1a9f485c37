//! The published test vectors of UnixFS: files, directories and shards of every profile, written and read back.
//!
//! Sources: the UnixFS specification, IPIP-499, and what Kubo prints. Shards are written by test code alone, which the
//! reader is then tested against.

use std::collections::BTreeMap;
use std::io::{self, Read};

use base::{Cid, Codec, Sha256};
use bytes::Bytes;
use chacha20::ChaCha20;
use chacha20::cipher::{KeyIvInit, StreamCipher};

use super::testing::{cid, hex};
use super::*;
use crate::{Block, BlockStore, MemoryBlockStore};

const V0: Profile = Profile::UNIXFS_V0_2015;
const V1: Profile = Profile::UNIXFS_V1_2025;
const V1_ONLY: Profile = Profile::CID_V1_ONLY;
const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

fn root_of(profile: Profile, reader: impl Read) -> Subtree {
    build_file(profile, reader, &mut |_| {}).unwrap()
}

/// The ChaCha20 keystream whose key is the digest of a seed, as IPIP-499 uses it.
struct Keystream(ChaCha20);

impl Keystream {
    fn new(seed: &str) -> Self {
        let key = *Sha256::of(seed.as_bytes()).as_bytes();
        Self(ChaCha20::new(&key.into(), &[0; 12].into()))
    }
}

impl Read for Keystream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        buf.fill(0);
        self.0.apply_keystream(buf);
        Ok(buf.len())
    }
}

/// 0, 1, 2, … as little-endian numbers of eight bytes.
fn counting(bytes: u64) -> impl Read {
    let numbers: Vec<u8> = (0..bytes / 8).flat_map(u64::to_le_bytes).collect();
    io::Cursor::new(numbers)
}

#[test]
fn small_files_have_the_roots_that_kubo_prints() {
    for (content, v0, v1) in [
        (
            "",
            "QmbFMke1KXqnYyBBWxB74N4c5SBnJMVAiMNRcGu6x1AwQH",
            "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku",
        ),
        (
            "hello world",
            "Qmf412jQZiuVUtdgnB36FXFX7xg5V6KEbSJ4dpQuhkLyfD",
            "bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e",
        ),
        (
            "hello world\n",
            "QmT78zSuBmuS4z925WZfrqQ1qHaJ56DQaTfyMUF7F8ff5o",
            "bafkreifjjcie6lypi6ny7amxnfftagclbuxndqonfipmb64f2km2devei4",
        ),
        (
            "x",
            "QmULKig5Fxrs2sC4qt9nNduucXfb92AFYQ6Hi3YRqDmrYC",
            "bafkreibnoelefnzgwbcacyt4vh52ymxvzbjq7mmqhtcnwarfq4lzegsiqe",
        ),
    ] {
        assert_eq!(root_of(V0, content.as_bytes()).cid, cid(v0), "{content:?}");
        assert_eq!(root_of(V1, content.as_bytes()).cid, cid(v1), "{content:?}");
    }
    assert_eq!(root_of(V0, &b"hello world\n"[..]).tsize, 20);
    assert_eq!(root_of(V0, &b"x"[..]).tsize, 9);
    assert_eq!(root_of(V1, &b"x"[..]).tsize, 1);
}

#[test]
fn the_dag_pb_form_of_the_empty_file_has_its_two_names() {
    let block = Block::of(hex("0a0408021800").into());
    let v1 = cid("bafybeif7ztnhq65lumvvtr4ekcwd2ifwgm3awq4zfr3srh462rwyinlb4y");
    assert_eq!(block.cid(Codec::DagPb), v1);
    let node = Node::decode(Codec::DagPb, block.bytes()).unwrap();
    assert!(matches!(node, Node::File(file) if file.size == 0 && file.links.is_empty()));
}

#[test]
fn symbolic_links_and_files_with_a_mode_have_the_published_roots() {
    let symlink = |target: &'static str| {
        let message = UnixFs {
            data: Some(Bytes::from_static(target.as_bytes())),
            ..UnixFs::new(UnixFsKind::Symlink)
        };
        PbNode {
            links: vec![],
            data: Some(message.encode().into()),
        }
        .encode()
    };
    let block = Block::of(symlink("foo").into());
    assert_eq!(block.bytes()[..], hex("0a0708041203666f6f"));
    let to_hello = Block::of(symlink("hello.txt").into()).cid(Codec::DagPb);
    assert_eq!(
        to_hello,
        cid("bafybeiar537gtgwbfdxiqzybddgre3qnehtxmegnc573cpzs3lza53a4la")
    );
    let with_mode = "0a220802120c68656c6c6f20776f726c640a180c38a403420b0880e2cfaa06157b000000";
    let block = Block::of(hex(with_mode).into());
    let root = cid("bafybeihfxmdrz4sjtoo5cndog7ml5obwehea3sgho66nzyoablbaq7cvti");
    assert_eq!(block.cid(Codec::DagPb), root);
    let Ok(Node::File(file)) = Node::decode(Codec::DagPb, block.bytes()) else {
        unreachable!()
    };
    assert_eq!(file.metadata.mode, Some(0o644));
    assert_eq!(&file.data[..], b"hello world\n");
}

#[test]
fn larger_files_have_the_published_roots_under_every_profile() {
    let zeros = |length: u64| -> Box<dyn Read> { Box::new(io::repeat(0).take(length)) };
    let check = |content: &dyn Fn() -> Box<dyn Read>, v0: &str, v1: &str, v1_only: &str| {
        for (profile, expected) in [(V0, v0), (V1, v1), (V1_ONLY, v1_only)] {
            if !expected.is_empty() {
                assert_eq!(
                    root_of(profile, content()).cid,
                    cid(expected),
                    "{profile:?}"
                );
            }
        }
    };
    check(
        &|| Box::new(io::repeat(0xaa).take(600_000)),
        "QmbD3dC3dqY2zTx3C3mb6EXqnSBDuy4iqxv9DyaRsmGvhy",
        "bafkreicvpcswjwvvebiahmalhpxhosm5zmj2prumfma6mk4xpx6mu3chye",
        "bafybeiajx5hkrc4dzue5zsxm5bdqvulpkcv4imx7otkkalxo5zobun2qdi",
    );
    check(
        &|| zeros(262_145),
        "QmbVuw4C4vcmVKqxoWtgDVobvcHrSn51qsmQmyxjk4sB2Q",
        "bafkreifspibstbhkrjv6y4amhvxwh6h47p4p7dxyp2lsrep63jhousvnbq",
        "",
    );
    check(
        &|| zeros(MIB),
        "QmVkbauSDEaMP4Tkq6Epm9uW75mWm136n81YH8fGtfwdHU",
        "bafkreibq4fevl27rgurgnxbp7adh42aqiyd6ouflxhj3gzmcxcxzbh6lla",
        "bafybeiggzq4ryi7hscq5hzvzcnk4urnxt3asp37dhgvnjilf7exskximla",
    );
    check(
        &|| zeros(MIB + 1),
        "Qmeb988ZjF9Ui6AVPR8Sjg5sAv1B6DauS5rUjCoNs7ftZ1",
        "bafybeihd4yzq7n5umhjngdum4r6k2to7egxfkf2jz6thvwzf6djus22cmq",
        "bafybeihhq4imxfkfucfxjbnqvrvzdknmfbzvxaivz7jzdnumfkabdbq3yq",
    );
    check(
        &|| zeros(174 * 256 * KIB),
        "QmY4HSz1oVGdUzb8poVYPLsoqBZjH6LZrtgnme9wWn2Qko",
        "bafybeidoa6tva5z3p2c545zsnczdfmen3cshhpkym72zynvebarw7qahie",
        "bafybeibxsa3ioclowpaq7b6gxl65gzqneopfr3fnhedak6sqr4bjz5lnyq",
    );
    check(
        &|| zeros(174 * 256 * KIB + 1),
        "QmehMASWcBsX7VcEQqs6rpR5AHoBfKyBVEgmkJHjpPg8jq",
        "bafybeihp2d7d2jdhoqc4hit3misyawmwdz4r5uy2lyr2waty7rm65hwdke",
        "bafybeihqwzd3o6q6v3pmwhzjy22vokhr767burokmqemg63hptx2nqd7ym",
    );
    check(
        &|| zeros(64 * MIB),
        "QmfKyrN38oa8CrSYirAYZq4X4Hvq73JtVkgSgeVzHCkAuT",
        "bafybeiddb2fdwjucpixyky7spnksaakgyzodgfqj6yl6wj2zqmjwhc2unm",
        "bafybeibpxmdkdzzpscuubma2rys2qkjbn5brxel7kfc2zr652r2vi3crpq",
    );
    check(
        &|| Box::new(counting(64 * MIB)),
        "QmYiRBiawk9vyZDV6Xozo1grqRNnqAS3VHYPHBxsgbNE5q",
        "bafybeifpq5b5qlens2u3szquocpdoxfbi4xfwadcclqkmbpzly7huwb4yq",
        "bafybeieoovevv6qgpgv56p7xukumkdkg6sdzem2t7uttbpxomn4kdi6cdq",
    );
}

#[test]
fn sizes_of_whole_dags_are_the_published_ones() {
    let zeros = |length| io::repeat(0).take(length);
    for (profile, length, tsize) in [
        (V0, MIB, 1_048_832),
        (V1_ONLY, MIB, 1_048_784),
        (V0, MIB + 1, 1_048_885),
        (V1, MIB + 1, 1_048_681),
        (V1_ONLY, MIB + 1, 1_048_831),
        (V0, 64 * MIB, 67_124_865),
        (V1, 64 * MIB, 67_112_074),
        (V1_ONLY, 64 * MIB, 67_121_797),
    ] {
        assert_eq!(
            root_of(profile, zeros(length)).tsize,
            tsize,
            "{profile:?} {length}"
        );
    }
}

#[test]
fn root_blocks_are_the_published_bytes() {
    for (profile, length, expected) in [
        (
            V0,
            262_145,
            "122a0a221220328f549938f9ca71d855f81335f36dafa2a8ba0e8ec8595c583e08e2f70995f81200188e8010\
             12280a221220388622abfbc1740349afae54d4d20ae66af9b121e25cb6a6b9a5623fafc4736d12001809\
             0a0c080218818010208080102001",
        ),
        (
            V1,
            MIB + 1,
            "122c0a240155122030e14955ebf1352266dc2ff8067e68104607e750abb9d3b36582b8af909fcb581200188080\
             40122a0a24015512206e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d1200\
             18010a0c080218818040208080402001",
        ),
    ] {
        let mut last = None;
        build_file(profile, io::repeat(0).take(length), &mut |block| {
            last = Some(block)
        })
        .unwrap();
        let root = last.expect("a file has blocks");
        assert_eq!(root.bytes()[..], hex(&expected.replace(' ', "")));
    }
}

#[test]
fn the_files_of_ipip_499_have_their_roots() {
    for (profile, seed, length, expected, tsize) in [
        (
            V0,
            "chunk-v0-seed",
            262_144,
            "QmWmRj3dFDZdb6ABvbmKhEL6TmPbAfBZ1t5BxsEyJrcZhE",
            262_158,
        ),
        (
            V0,
            "chunk-v0-seed",
            262_145,
            "QmYyLxtzZyW22zpoVAtKANLRHpDjZtNeDjQdJrcQNWoRkJ",
            262_267,
        ),
        (
            V0,
            "v0-seed",
            174 * 262_144,
            "QmUbBALi174SnogsUzLpYbD4xPiBSFANF4iztWCsHbMKh2",
            45_623_854,
        ),
        (
            V0,
            "v0-seed",
            174 * 262_144 + 1,
            "QmV81WL765sC8DXsRhE5fJv2rwhS4icHRaf3J9Zk5FdRnW",
            45_624_016,
        ),
        (
            V1,
            "chunk-v1-seed",
            MIB,
            "bafkreiacndfy443ter6qr2tmbbdhadvxxheowwf75s6zehscklu6ezxmta",
            1_048_576,
        ),
        (
            V1,
            "chunk-v1-seed",
            MIB + 1,
            "bafybeigmix7t42i6jacydtquhet7srwvgpizfg7gjbq7627d35mjomtu64",
            1_048_681,
        ),
    ] {
        let tree = root_of(profile, Keystream::new(seed).take(length));
        assert_eq!(
            (tree.cid, tree.tsize),
            (cid(expected), tsize),
            "{seed} {length}"
        );
    }
}

#[test]
fn a_gibibyte_is_one_level_and_a_byte_more_is_two() {
    let mut stream = Keystream::new("v1-2025-seed");
    let mut chunk = vec![0; V1.chunk_bytes];
    let mut tree = TreeBuilder::new(V1);
    let mut longer = TreeBuilder::new(V1);
    for _ in 0..1024 {
        stream.read_exact(&mut chunk).unwrap();
        let leaf = Subtree::raw_leaf(&Sha256::of(&chunk), V1.chunk_bytes as u64);
        tree.push(leaf, &mut |_| {});
        longer.push(leaf, &mut |_| {});
    }
    stream.read_exact(&mut chunk[..1]).unwrap();
    longer.push(Subtree::raw_leaf(&Sha256::of(&chunk[..1]), 1), &mut |_| {});
    let (tree, longer) = (
        tree.finish(&mut |_| {}).unwrap(),
        longer.finish(&mut |_| {}).unwrap(),
    );
    let exact = cid("bafybeihmf37wcuvtx4hpu7he5zl5qaf2ineo2lqlfrapokkm5zzw7zyhvm");
    assert_eq!((tree.cid, tree.tsize), (exact, 1_073_793_035));
    let one_more = cid("bafybeibdsi225ugbkmpbdohnxioyab6jsqrmkts3twhpvfnzp77xtzpyhe");
    assert_eq!((longer.cid, longer.tsize), (one_more, 1_073_793_198));
}

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
            self.blocks.put(&block).unwrap()
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
