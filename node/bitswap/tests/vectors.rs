//! The wire: samples with known bytes, both ways, and what must be refused.

#![allow(clippy::unwrap_used)] // A vector that cannot be decoded is a failed test.

use base::{Cid, Codec, Sha256, block_cid, parse_cid};
use bytes::Bytes;
use p2pkgs_bitswap::{
    Block, DecodeError, Entry, FrameDecoder, Message, Presence, Version, WantType,
};

const HELLO: &[u8] = b"hello world\n";
const HELLO_V0: &str = "QmXEcsgyUTTLiLYpsVPXAaYS7ZvfqNTjPi4YqvPFXC1F9y";

fn hello() -> Cid {
    block_cid(Codec::Raw, &Sha256::of(HELLO))
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len())
        .step_by(2)
        .map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap())
        .collect()
}

fn want(want_type: WantType) -> Message {
    let entry = Entry::Want {
        cid: hello(),
        priority: i32::MAX,
        want_type,
        send_dont_have: true,
    };
    Message {
        wantlist: vec![entry],
        ..Message::default()
    }
}

fn presence(presence: Presence) -> Message {
    Message {
        presences: vec![(hello(), presence)],
        ..Message::default()
    }
}

/// Reads a framed message in single bytes and in one piece.
fn decode(framed: &[u8]) -> Result<Message, DecodeError> {
    let mut decoder = FrameDecoder::default();
    decoder.space()[..framed.len()].copy_from_slice(framed);
    decoder.filled(framed.len());
    let frame = decoder.next_frame()?.expect("the samples are complete");
    decoder.finish()?;
    Message::decode(&frame)
}

/// Frames a body given in hexadecimal and reads it.
fn decode_body(body: &str) -> Result<Message, DecodeError> {
    Message::decode(&Bytes::from(unhex(body)))
}

#[test]
fn every_sample_of_the_wire_is_written_and_read_as_boxo_does() {
    let block = Message {
        blocks: vec![Block::new(0x55, Bytes::from_static(HELLO))],
        ..Message::default()
    };
    let cancel = Message {
        wantlist: vec![Entry::Cancel(hello())],
        ..Message::default()
    };
    let samples = [
        (
            want(WantType::Have),
            "340a320a300a2401551220a948904f2f0f479b8f8197694b30184b0d2ed1c1cd2a1ec0fb85d299a192a44710ffffffff0720012801",
        ),
        (
            want(WantType::Block),
            "320a300a2e0a2401551220a948904f2f0f479b8f8197694b30184b0d2ed1c1cd2a1ec0fb85d299a192a44710ffffffff072801",
        ),
        (
            cancel,
            "2c0a2a0a280a2401551220a948904f2f0f479b8f8197694b30184b0d2ed1c1cd2a1ec0fb85d299a192a4471801",
        ),
        (
            presence(Presence::Have),
            "2a0a0022260a2401551220a948904f2f0f479b8f8197694b30184b0d2ed1c1cd2a1ec0fb85d299a192a447",
        ),
        (
            presence(Presence::DontHave),
            "2c0a0022280a2401551220a948904f2f0f479b8f8197694b30184b0d2ed1c1cd2a1ec0fb85d299a192a4471001",
        ),
        (block, "180a001a140a0401551220120c68656c6c6f20776f726c640a"),
    ];
    for (message, hex) in samples {
        assert_eq!(
            message.encode(Version::V1_2).to_vec(),
            unhex(hex),
            "{message:?}"
        );
        assert_eq!(decode(&unhex(hex)), Ok(message));
    }
}

#[test]
fn a_v0_block_is_sent_under_four_varints_and_read_under_two_as_well() {
    let v0 = parse_cid("QmbFMke1KXqnYyBBWxB74N4c5SBnJMVAiMNRcGu6x1AwQH").unwrap();
    let empty_file = [0x0a, 0x04, 0x08, 0x02, 0x18, 0x00];
    for body in [
        "1a0e0a040070122012060a0408021800",
        "1a0c0a02122012060a0408021800",
        "12060a0408021800",
    ] {
        let message = decode_body(body).unwrap();
        assert_eq!(message.blocks[0].cid(), &v0, "{body}");
        assert_eq!(message.blocks[0].data()[..], empty_file);
        let sent = message.encode(Version::V1_2).to_vec();
        assert_eq!(sent, unhex("120a001a0e0a040070122012060a0408021800"));
    }
    assert_ne!(parse_cid(HELLO_V0).unwrap(), v0);
}

#[test]
fn the_older_dialect_has_no_presences_no_want_haves_and_no_pending_bytes() {
    let mut message = want(WantType::Block);
    message.wantlist.extend(want(WantType::Have).wantlist);
    message.presences.push((hello(), Presence::Have));
    message.pending_bytes = 7;
    message.full = true;
    let read = decode(&message.encode(Version::V1_1).to_vec()).unwrap();
    let Entry::Want {
        want_type,
        send_dont_have,
        priority,
        ..
    } = read.wantlist[0]
    else {
        panic!("a want came back as a cancel")
    };
    assert_eq!(
        (want_type, send_dont_have, priority),
        (WantType::Block, false, i32::MAX)
    );
    assert!(read.full);
    assert_eq!(
        (
            read.wantlist.len(),
            read.presences.len(),
            read.pending_bytes
        ),
        (1, 0, 0)
    );
}

#[test]
fn one_bad_element_condemns_the_whole_message() {
    let good = "22260a2401551220a948904f2f0f479b8f8197694b30184b0d2ed1c1cd2a1ec0fb85d299a192a447";
    for (bad, why) in [
        ("0a020a00", DecodeError::CidMissing),
        ("0a040a020a00", DecodeError::CidMissing),
        ("0a060a040a020155", DecodeError::CidInvalid),
        ("2200", DecodeError::CidMissing),
        ("22040a020255", DecodeError::CidInvalid),
        ("1a00", DecodeError::PrefixInvalid),
        ("1a050a04015512", DecodeError::Protobuf("truncated field")),
        ("1a050a03015512", DecodeError::PrefixInvalid),
        ("1a060a0401551e20", DecodeError::HashUnsupported(0x1e)),
        ("1a060a0401551214", DecodeError::HashUnsupported(0x12)),
        ("1a060a0400551220", DecodeError::PrefixInvalid),
        ("1a060a0402551220", DecodeError::PrefixInvalid),
        ("0a0aff", DecodeError::Protobuf("truncated field")),
        ("0b", DecodeError::Protobuf("group or unknown wire type")),
        (
            "2a01ff",
            DecodeError::Protobuf("a number in another wire type"),
        ),
        ("0801", DecodeError::Protobuf("bytes in another wire type")),
    ] {
        assert_eq!(decode_body(&format!("{good}{bad}")), Err(why), "{bad}");
    }
}

#[test]
fn identity_oversize_and_toothless_cids_are_passed_over_in_silence() {
    let identity = "0a080a060a0401550000";
    let identity_128 = format!("0a8b010a88010a85010155008001{}", "42".repeat(128));
    let oversize = format!("0ab0010aad010aaa010155a0e402a301{}", "00".repeat(163));
    let short_digest = "0a0d0a0b0a0901551205aabbccddee";
    for ignored in [identity, &identity_128, &oversize, short_digest] {
        let read = decode_body(ignored);
        assert!(
            matches!(&read, Ok(message) if message.wantlist.is_empty()),
            "{ignored}: {read:?}"
        );
    }
}

#[test]
fn unknown_fields_are_skipped_and_an_empty_message_is_empty() {
    assert!(decode_body("").unwrap().is_empty());
    assert!(decode_body("0a00").unwrap().is_empty());
    let message = decode_body("32024142390000000000000000450000000048010a021001").unwrap();
    assert!(message.full && message.wantlist.is_empty());
}

#[test]
fn a_full_wantlist_that_is_empty_is_no_empty_message() {
    assert!(!decode_body("0a021001").unwrap().is_empty());
}
