//! Peers that lie, flood or pretend.

use super::*;

#[test]
fn a_peer_that_only_pretends_to_send_is_given_up_in_the_end() {
    let (mut f, id) = session(1, 1);
    f.wants();
    for _ in 0..500 {
        f.wait(Duration::from_millis(400));
        f.x.handle_receiving(1, limits::PROGRESS_BYTES, f.now);
        f.sent();
    }
    assert!(f.events().contains(&Event::Missing {
        session: id,
        cid: cid(0)
    }));
}

#[test]
fn wrong_bytes_are_never_accepted_and_in_the_end_the_liar_is_dropped() {
    let (mut f, _) = session(2, 200);
    let wants = f.wants();
    let mut events = Vec::new();
    for n in 0..=limits::UNREQUESTED_BLOCKS_MAX as u64 {
        f.block(1, block(1_000_000 + n, 8));
        events.extend(f.events());
    }
    let what = Misbehaviour::UnrequestedBlocks;
    assert_eq!(events, [Event::PeerMisbehaved { peer: 1, what }]);
    // What it was asked went to the other at once, as far as that one has room.
    let moved = f.wants();
    let lost = wants
        .iter()
        .filter(|want| want.0 == 1 && want.1 == "block")
        .count();
    let cancelled = moved
        .iter()
        .filter(|want| want.0 == 1 && want.1 == "cancel")
        .count();
    assert!(lost > 0 && cancelled >= lost);
    assert!(moved.iter().all(|want| want.0 == 2 || want.1 == "cancel"));
    f.block(1, block(0, 8));
    assert_eq!(f.events(), [], "a banned peer is not listened to");
}

#[test]
fn a_block_above_the_limit_is_refused() {
    let mut f = Fixture::new(&[1]);
    let id = f.x.open_session(f.now);
    let huge = Block::new(0x55, vec![0; limits::BLOCK_BYTES_MAX + 1].into());
    f.x.add_provider(id, 1, f.now);
    f.x.want(id, &[*huge.cid()], f.now);
    f.wants();
    f.block(1, huge);
    let what = Misbehaviour::OversizeBlock;
    assert!(
        f.events()
            .contains(&Event::PeerMisbehaved { peer: 1, what })
    );
}

#[test]
fn what_follows_from_its_name_is_not_asked_for_and_what_cannot_be_verified_is_missing() {
    let (mut f, id) = session(1, 0);
    let empty = *Block::new(0x55, bytes::Bytes::new()).cid();
    let identity = Cid::try_from(&[1, 0x55, 0, 0][..]).unwrap();
    f.x.want(id, &[empty, identity], f.now);
    assert_eq!(f.wants(), []);
    let got = Event::Block {
        sessions: vec![id],
        cid: empty,
        block: base::Block::empty(),
        from: None,
    };
    assert_eq!(
        f.events(),
        [
            got,
            Event::Missing {
                session: id,
                cid: identity
            }
        ]
    );
}
