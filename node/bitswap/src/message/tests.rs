//! The codec against an independent one: types derived by `prost` from the published message definition.

use bytes::BufMut;
use proptest::prelude::*;
use prost::Message as _;

use super::*;

#[derive(Clone, PartialEq, prost::Message)]
struct PbMessage {
    #[prost(message, optional, tag = "1")]
    wantlist: Option<PbWantlist>,
    #[prost(bytes = "vec", repeated, tag = "2")]
    blocks: Vec<Vec<u8>>,
    #[prost(message, repeated, tag = "3")]
    payload: Vec<PbBlock>,
    #[prost(message, repeated, tag = "4")]
    block_presences: Vec<PbPresence>,
    #[prost(int32, tag = "5")]
    pending_bytes: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PbWantlist {
    #[prost(message, repeated, tag = "1")]
    entries: Vec<PbEntry>,
    #[prost(bool, tag = "2")]
    full: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PbEntry {
    #[prost(bytes = "vec", tag = "1")]
    block: Vec<u8>,
    #[prost(int32, tag = "2")]
    priority: i32,
    #[prost(bool, tag = "3")]
    cancel: bool,
    #[prost(int32, tag = "4")]
    want_type: i32,
    #[prost(bool, tag = "5")]
    send_dont_have: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PbBlock {
    #[prost(bytes = "vec", tag = "1")]
    prefix: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    data: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PbPresence {
    #[prost(bytes = "vec", tag = "1")]
    cid: Vec<u8>,
    #[prost(int32, tag = "2")]
    r#type: i32,
}

/// What the derived codec should see in `message`.
fn oracle(message: &Message) -> PbMessage {
    let entries = message.wantlist.iter().map(|entry| match entry {
        Entry::Cancel(cid) => PbEntry {
            block: cid.to_bytes(),
            cancel: true,
            ..PbEntry::default()
        },
        Entry::Want {
            cid,
            priority,
            want_type,
            send_dont_have,
        } => PbEntry {
            block: cid.to_bytes(),
            priority: *priority,
            cancel: false,
            want_type: i32::from(*want_type == WantType::Have),
            send_dont_have: *send_dont_have,
        },
    });
    let payload = message.blocks.iter().map(|block| {
        let mut prefix = Vec::new();
        for number in prefix_of(&block.cid) {
            assert!(
                number < 0x80 || number == 0x0129,
                "codecs of this test fit two varint bytes"
            );
            match number {
                0x0129 => prefix.extend_from_slice(&[0xa9, 0x02]),
                small => prefix.push(small as u8),
            }
        }
        PbBlock {
            prefix,
            data: block.data().to_vec(),
        }
    });
    let presences = message.presences.iter().map(|(cid, presence)| PbPresence {
        cid: cid.to_bytes(),
        r#type: i32::from(*presence == Presence::DontHave),
    });
    PbMessage {
        wantlist: Some(PbWantlist {
            entries: entries.collect(),
            full: message.full,
        }),
        blocks: Vec::new(),
        payload: payload.collect(),
        block_presences: presences.collect(),
        pending_bytes: message.pending_bytes.cast_signed(),
    }
}

fn arbitrary_cid() -> impl Strategy<Value = Cid> {
    (
        any::<[u8; 32]>(),
        prop_oneof![Just((0, DAG_PB)), Just((1, 0x55)), Just((1, 0x0129))],
    )
        .prop_map(|(digest, (version, codec))| {
            sha2_256_cid(version, codec, &Sha256::from_bytes(digest)).unwrap()
        })
}

fn arbitrary_entry() -> impl Strategy<Value = Entry> {
    prop_oneof![
        arbitrary_cid().prop_map(Entry::Cancel),
        (arbitrary_cid(), any::<i32>(), any::<bool>(), any::<bool>()).prop_map(
            |(cid, priority, have, send_dont_have)| Entry::Want {
                cid,
                priority,
                want_type: if have {
                    WantType::Have
                } else {
                    WantType::Block
                },
                send_dont_have,
            }
        ),
    ]
}

fn arbitrary_block() -> impl Strategy<Value = Block> {
    let data = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..50),
        Just(vec![1; OWN_PIECE_BYTES_MIN]),
        Just(vec![2; 20_000]),
    ];
    (
        data,
        prop_oneof![Just((0, DAG_PB)), Just((1, 0x55)), Just((1, 0x0129))],
    )
        .prop_map(|(data, (version, codec))| Block::named(version, codec, data.into()).unwrap())
}

prop_compose! {
    fn arbitrary_message()(
        wantlist in prop::collection::vec(arbitrary_entry(), 0..6),
        full: bool,
        blocks in prop::collection::vec(arbitrary_block(), 0..4),
        presences in prop::collection::vec(
            (arbitrary_cid(), prop_oneof![Just(Presence::Have), Just(Presence::DontHave)]), 0..6),
        pending_bytes in 0..=i32::MAX.cast_unsigned(),
    ) -> Message {
        Message { wantlist, full, blocks, presences, pending_bytes }
    }
}

/// The body of an encoded message, its length prefix checked and removed.
fn body(message: &Message) -> Bytes {
    let framed = message.encode(Version::V1_2).to_vec();
    let mut reader = Reader::new(&framed);
    let length = reader.varint().unwrap() as usize;
    assert_eq!(framed.len(), varint_len(length as u64) + length);
    Bytes::from(framed).split_off(varint_len(length as u64))
}

proptest! {
    #[test]
    fn what_we_write_the_derived_codec_reads(message in arbitrary_message()) {
        prop_assert_eq!(PbMessage::decode(body(&message)).unwrap(), oracle(&message));
    }

    #[test]
    fn what_the_derived_codec_writes_we_read(message in arbitrary_message()) {
        let written = Bytes::from(oracle(&message).encode_to_vec());
        prop_assert_eq!(Message::decode(&written), Ok(message));
    }

    #[test]
    fn arbitrary_bytes_never_panic(frame: Vec<u8>) {
        let _ = Message::decode(&Bytes::from(frame));
    }

    #[test]
    fn a_damaged_message_never_panics(message in arbitrary_message(), at: usize, with: u8, cut: usize) {
        let mut frame = body(&message).to_vec();
        if !frame.is_empty() {
            let length = frame.len();
            frame[at % length] = with;
            frame.truncate(cut % (length + 1));
        }
        let _ = Message::decode(&Bytes::from(frame));
    }
}

#[test]
fn block_data_are_slices_of_the_frame_and_of_the_store() {
    let data = Bytes::from(vec![9; 100_000]);
    let message = Message {
        blocks: vec![Block::new(0x55, data.clone())],
        ..Message::default()
    };
    let frame = message.encode(Version::V1_2);
    assert_eq!(frame.pieces()[1].as_ptr(), data.as_ptr());
    let read = body(&message);
    let decoded = Message::decode(&read).unwrap();
    assert!(
        read.as_ptr_range()
            .contains(&decoded.blocks[0].data().as_ptr())
    );
}

#[test]
fn a_frame_of_minimal_elements_is_refused_at_the_first_one() {
    for key in [0x1a, 0x22] {
        let mut frame = BytesMut::new();
        for _ in 0..1_000_000 {
            frame.put_slice(&[key, 0x00]);
        }
        assert!(Message::decode(&frame.freeze()).is_err());
    }
}

#[test]
fn a_negative_priority_takes_ten_bytes_and_comes_back() {
    let cid = sha2_256_cid(1, 0x55, &Sha256::of(b"x")).unwrap();
    let want = Entry::Want {
        cid,
        priority: -1,
        want_type: WantType::Block,
        send_dont_have: false,
    };
    let message = Message {
        wantlist: vec![want],
        ..Message::default()
    };
    assert_eq!(Message::decode(&body(&message)), Ok(message));
}

#[test]
fn a_block_is_named_by_its_hash_whatever_its_sender_says() {
    let block = Block::from_wire(&[1, 0x55, 0x12, 0x20], Bytes::from_static(b"lies")).unwrap();
    assert_eq!(
        block.cid,
        sha2_256_cid(1, 0x55, &Sha256::of(b"lies")).unwrap()
    );
}
