//! A Bitswap stream cut anywhere: it is read or refused, and what was read is written and read again as the same.
#![no_main]

use bitswap::{FrameDecoder, Message, Version};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u8, &[u8])| {
    let (piece, mut wire) = input;
    let mut decoder = FrameDecoder::default();
    while !wire.is_empty() {
        let space = decoder.space();
        assert!(!space.is_empty());
        let length = space.len().min(wire.len()).min(1 + usize::from(piece));
        space[..length].copy_from_slice(&wire[..length]);
        wire = &wire[length..];
        decoder.filled(length);
        loop {
            match decoder.next_frame() {
                Ok(Some(frame)) => check(&frame),
                Ok(None) => break,
                Err(_) => return,
            }
        }
    }
    let _ = decoder.finish();
});

fn check(frame: &bytes::Bytes) {
    let Ok(message) = Message::decode(frame) else {
        return;
    };
    let _ = message.encode(Version::V1_1);
    let again = message.encode(Version::V1_2).to_vec();
    let mut decoder = FrameDecoder::default();
    let mut rest = &again[..];
    while !rest.is_empty() {
        let space = decoder.space();
        let length = space.len().min(rest.len());
        space[..length].copy_from_slice(&rest[..length]);
        rest = &rest[length..];
        decoder.filled(length);
    }
    let frame = decoder.next_frame().expect("we wrote it").expect("all of it is there");
    assert_eq!(Message::decode(&frame).expect("we wrote it"), message);
}
