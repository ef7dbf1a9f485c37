//! The vectors of the specifications, and archives that mean harm.

use base::{Cid, Codec};
use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::Block;
use crate::dag::testing::{cid, hex};

/// A CARv1 of the one raw block `hello world\n`, as go-car writes it.
const HELLO: &str = "3aa265726f6f747381d82a58250001551220a948904f2f0f479b8f8197694b30184b0d2ed1c1cd2a1ec0fb85d299a192a447\
                     6776657273696f6e01\
                     3001551220a948904f2f0f479b8f8197694b30184b0d2ed1c1cd2a1ec0fb85d299a192a44768656c6c6f20776f726c640a";
const HELLO_CID: &str = "bafkreifjjcie6lypi6ny7amxnfftagclbuxndqonfipmb64f2km2devei4";
/// Length of its header, with the varint before it.
const HEADER: usize = 59;

fn read(bytes: &[u8]) -> Result<(Vec<Cid>, Vec<Section>), CarError> {
    let mut reader = CarReader::new(bytes)?;
    let mut sections = Vec::new();
    while let Some(section) = reader.next_section()? {
        sections.push(section);
    }
    Ok((reader.roots().to_vec(), sections))
}

fn refused(bytes: &[u8]) -> String {
    read(bytes).unwrap_err().to_string()
}

fn write(roots: &[Cid], blocks: &[(Cid, Block)]) -> Vec<u8> {
    let mut writer = CarWriter::new(Vec::new(), roots).unwrap();
    for (cid, block) in blocks {
        writer.write(cid, block).unwrap();
    }
    writer.finish().unwrap()
}

/// The archive as a CARv2 with `padding` bytes before its data and `after` behind it.
fn version_2(inner: &[u8], padding: usize, after: &[u8]) -> Vec<u8> {
    let mut bytes = hex("0aa16776657273696f6e02");
    bytes.extend([0; 16]);
    let offset = 51 + padding as u64;
    let index = if after.is_empty() {
        0
    } else {
        offset + inner.len() as u64
    };
    for number in [offset, inner.len() as u64, index] {
        bytes.extend(number.to_le_bytes());
    }
    bytes.extend(vec![0; padding]);
    bytes.extend(inner);
    bytes.extend(after);
    bytes
}

#[test]
fn the_published_archive_is_read_and_written_byte_for_byte() {
    let bytes = hex(HELLO);
    assert_eq!(bytes.len(), 108);
    let (roots, sections) = read(&bytes).unwrap();
    assert_eq!(roots, [cid(HELLO_CID)]);
    assert_eq!(sections.len(), 1);
    assert_eq!(sections[0].block.bytes(), &b"hello world\n"[..]);
    assert_eq!(sections[0].offset, 96);
    let block = (sections[0].cid, sections[0].block.clone());
    assert_eq!(
        write(&roots, &[block.clone(), block]),
        bytes,
        "twice is once"
    );
}

#[test]
fn version_2_is_read_and_its_index_is_not_believed() {
    let inner = hex(HELLO);
    let plain = read(&inner).unwrap();
    for (padding, index) in [
        (0, &b""[..]),
        (0, b"\x81\x08nonsense"),
        (1000, b"more nonsense"),
    ] {
        let (roots, sections) = read(&version_2(&inner, padding, index)).unwrap();
        assert_eq!(roots, plain.0);
        assert_eq!(sections[0].block, plain.1[0].block);
        assert_eq!(sections[0].offset, 96 + 51 + padding as u64);
    }
}

#[test]
fn every_cut_but_the_one_between_sections_is_noticed() {
    let bytes = hex(HELLO);
    for length in 0..bytes.len() {
        let result = read(&bytes[..length]);
        if length == HEADER {
            assert_eq!(result.unwrap().1, []);
        } else {
            let error = result.unwrap_err();
            let CarError::Truncated { offset, .. } = error else {
                panic!("{length}: {error}");
            };
            assert_eq!(offset, length as u64);
        }
    }
    let bytes = version_2(&hex(HELLO), 3, b"");
    for length in 0..bytes.len() {
        assert!(
            matches!(read(&bytes[..length]), Err(CarError::Truncated { .. })),
            "{length}"
        );
    }
}

#[test]
fn a_section_that_reaches_beyond_the_data_of_version_2_is_refused() {
    let mut bytes = version_2(&hex(HELLO), 0, b"an index");
    bytes[35] -= 1;
    assert_eq!(
        refused(&bytes),
        "archive ends at byte 158, inside a section"
    );
}

#[test]
fn other_bytes_than_the_cid_names_are_refused_with_their_place() {
    let mut bytes = hex(HELLO);
    *bytes.last_mut().unwrap() ^= 1;
    assert_eq!(
        refused(&bytes),
        format!("archive has other bytes than `{HELLO_CID}` at byte {HEADER}")
    );
}

#[test]
fn lengths_are_bounded_before_anything_is_read() {
    let header = &hex(HELLO)[..HEADER];
    let with = |section: &str| [header, &hex(section)].concat();
    assert_eq!(
        refused(&with("ffffffffffffffffff01")),
        "archive has a section of 18446744073709551615 at byte 59, the limit is 2097256"
    );
    assert_eq!(
        refused(&hex("808080808001")),
        "archive has a header of 34359738368 at byte 0, the limit is 1048576"
    );
    assert_eq!(
        refused(&with("00")),
        "archive is malformed at byte 59: a section of zero bytes"
    );
    assert_eq!(
        refused(&with("8000")),
        "archive is malformed at byte 59: length in a longer form than needed"
    );
    assert_eq!(
        refused(&with("ffffffffffffffffff02")),
        "archive is malformed at byte 59: length over 64 bits"
    );
    assert!(refused(&with("0401551220")).contains("unreadable CID"));
}

#[test]
fn a_block_over_the_limit_of_peers_is_refused_even_where_the_section_would_fit() {
    let block = Block::of(vec![7; BLOCK_BYTES_MAX + 1].into());
    let bytes = write(&[], &[(block.cid(Codec::Raw), block)]);
    assert!(refused(&bytes).contains("a block of 2097153"));
    let largest = Block::of(vec![7; BLOCK_BYTES_MAX].into());
    let bytes = write(&[], &[(largest.cid(Codec::Raw), largest)]);
    assert_eq!(read(&bytes).unwrap().1.len(), 1);
}

#[test]
fn headers_of_another_form_are_refused() {
    for (header, reason) in [
        // {"version": 1}, {"version": 3, "roots": []}, {"roots": [], "version": 1, "x": 0}, [], a root that is no link.
        ("0aa16776657273696f6e01", "version 1 without roots"),
        (
            "11a265726f6f7473806776657273696f6e03",
            "version 3 is not known",
        ),
        (
            "14a3617800 65726f6f7473806776657273696f6e01",
            "unreadable header",
        ),
        ("0180", "unreadable header"),
        (
            "12a265726f6f747381006776657273696f6e01",
            "unreadable header",
        ),
        (
            "11a265726f6f7473806776657273696f6e02",
            "version 2 with roots in its first header",
        ),
    ] {
        let error = refused(&hex(&header.replace(' ', "")));
        assert!(error.contains(reason), "{header}: {error}");
    }
    let nested = version_2(&version_2(&hex(HELLO), 0, b""), 0, b"");
    assert!(refused(&nested).contains("version 2 inside version 2"));
    let mut early = version_2(&hex(HELLO), 0, b"");
    early[27] = 50;
    assert!(refused(&early).contains("the data begins inside the header"));
    let mut endless = version_2(&hex(HELLO), 0, b"");
    endless[35..43].fill(0xff);
    assert!(refused(&endless).contains("the data ends beyond any file"));
}

#[test]
fn blocks_inside_their_cid_are_checked_and_left_out() {
    let header = &hex(HELLO)[..HEADER];
    // `01 55 00 03 616263`, then the same bytes, then others.
    let good = [header, &hex("0a01550003616263616263")].concat();
    assert_eq!(read(&good).unwrap().1, []);
    let bad = [header, &hex("0a01550003616263616264")].concat();
    assert!(refused(&bad).contains("other bytes than are inside"));
}

#[test]
fn a_hash_that_cannot_be_verified_is_refused_by_name() {
    let header = &hex(HELLO)[..HEADER];
    // sha1 of nothing.
    let section = "1801551114da39a3ee5e6b4b0d3255bfef95601890afd80709";
    let error = refused(&[header, &hex(section)].concat());
    assert!(
        error.contains("hash function 0x11 is not supported"),
        "{error}"
    );
}

#[test]
fn the_old_form_of_cids_is_kept() {
    let block = Block::of(Bytes::from_static(b"\x0a\x04\x08\x02\x18\x00"));
    let v0 = cid("QmbFMke1KXqnYyBBWxB74N4c5SBnJMVAiMNRcGu6x1AwQH");
    assert_eq!(base::Multihash::of(&v0).unwrap(), *block.hash());
    let bytes = write(&[v0], &[(v0, block.clone())]);
    assert_eq!(
        bytes[bytes.len() - 41],
        34 + 6,
        "34 bytes of CID, 6 of block"
    );
    let (roots, sections) = read(&bytes).unwrap();
    assert_eq!((roots[0], sections[0].cid), (v0, v0));
}

proptest! {
    #[test]
    fn archives_survive_a_round_trip(blocks: Vec<Vec<u8>>, roots in 0usize..3) {
        let blocks: Vec<_> = blocks
            .into_iter()
            .map(|bytes| Block::of(bytes.into()))
            .map(|block| (block.cid(Codec::Raw), block))
            .collect();
        let roots: Vec<_> = blocks.iter().take(roots).map(|(cid, _)| *cid).collect();
        let (found_roots, sections) = read(&write(&roots, &blocks)).unwrap();
        prop_assert_eq!(found_roots, roots);
        let mut once = Vec::new();
        for block in blocks {
            if !once.contains(&block) {
                once.push(block);
            }
        }
        let found: Vec<_> = sections.into_iter().map(|s| (s.cid, s.block)).collect();
        prop_assert_eq!(found, once);
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes: Vec<u8>, at in 0usize..160, value: u8) {
        let _ = read(&bytes);
        let mut damaged = version_2(&hex(HELLO), 0, b"");
        if let Some(byte) = damaged.get_mut(at) {
            *byte = value;
        }
        let _ = read(&damaged);
    }
}
