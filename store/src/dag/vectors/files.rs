//! Files.

use base::Codec;

use super::*;
use crate::Block;
use crate::dag::testing::{cid, hex};

const KIB: u64 = 1 << 10;

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
            last = Some(block);
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
