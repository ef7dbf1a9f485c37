//! The answering half, step by step.

use base::{Codec, block_cid};

use super::*;
use crate::limits;
use crate::testing::{Fixture, block, cid};

const SIZE_LARGE: usize = 300 * 1024;
/// Messages of one such block that are handed out before one is written.
const SENT_UNWRITTEN: usize = limits::RESPONSES_PER_PEER_MAX;

fn want(cid: Cid, want_type: WantType, priority: i32) -> Entry {
    Entry::Want {
        cid,
        priority,
        want_type,
        send_dont_have: true,
    }
}

fn want_blocks(blocks: &[Block]) -> Vec<Entry> {
    blocks
        .iter()
        .map(|block| want(*block.cid(), WantType::Block, 1))
        .collect()
}

fn blocks(count: u64, size: usize) -> Vec<Block> {
    (0..count).map(|n| block(n, size)).collect()
}

/// HAVEs and DONT_HAVEs sent.
fn presences(f: &mut Fixture) -> Vec<(Cid, Presence)> {
    f.sent()
        .into_iter()
        .flat_map(|(_, message)| message.presences)
        .collect()
}

/// Reads and writes blocks until there are none; the messages they travelled in.
fn drain(f: &mut Fixture, content: &[Block]) -> Vec<crate::event::Transmit<u8>> {
    let mut all = Vec::new();
    loop {
        f.serve(content);
        let messages = f.block_messages(true);
        if messages.is_empty() {
            return all;
        }
        all.extend(messages);
    }
}

fn cids_of(messages: &[crate::event::Transmit<u8>]) -> Vec<Cid> {
    messages
        .iter()
        .flat_map(|t| &t.message.blocks)
        .map(|block| *block.cid())
        .collect()
}

#[test]
fn a_want_have_is_answered_with_have_or_a_small_block_or_dont_have() {
    let mut f = Fixture::new(&[1]);
    let (small, large) = (block(1, 1024), block(2, 1025));
    f.entries(
        1,
        vec![
            want(*small.cid(), WantType::Have, 1),
            want(*large.cid(), WantType::Have, 1),
            want(cid(3), WantType::Have, 1),
        ],
    );
    assert_eq!(f.serve(&[small.clone(), large.clone()]), (3, 1));
    let sent = f.sent();
    let presences: Vec<_> = sent.iter().flat_map(|(_, m)| m.presences.clone()).collect();
    assert_eq!(
        presences,
        [(*large.cid(), Presence::Have), (cid(3), Presence::DontHave)]
    );
    let blocks: Vec<_> = sent.iter().flat_map(|(_, m)| m.blocks.clone()).collect();
    assert_eq!(blocks, [small]);
}

#[test]
fn a_block_is_sent_under_the_cid_that_was_asked_for() {
    let mut f = Fixture::new(&[1]);
    let stored = block(1, 2000);
    let digest = Sha256::of(stored.data());
    let v1 = block_cid(Codec::DagPb, &digest);
    let v0 = Cid::try_from(&[&[0x12, 0x20], &digest.as_bytes()[..]].concat()[..]).unwrap();
    f.entries(
        1,
        vec![want(v0, WantType::Block, 2), want(v1, WantType::Block, 1)],
    );
    assert_eq!(cids_of(&drain(&mut f, &[stored])), [v0, v1]);
}

#[test]
fn without_send_dont_have_absence_is_silent_and_the_block_follows_when_it_arrives() {
    let mut f = Fixture::new(&[1, 2]);
    let late = block(1, 2000);
    let quiet = |want_type| Entry::Want {
        cid: *late.cid(),
        priority: 1,
        want_type,
        send_dont_have: false,
    };
    f.entries(1, vec![quiet(WantType::Block)]);
    f.entries(2, vec![quiet(WantType::Have)]);
    f.serve(&[]);
    assert_eq!(f.sent(), []);
    f.x.notify_new_block(late.cid());
    f.serve(std::slice::from_ref(&late));
    let sent = f.sent();
    assert!(
        sent.iter()
            .any(|(to, m)| *to == 1 && m.blocks == [late.clone()])
    );
    assert!(
        sent.iter()
            .any(|(to, m)| *to == 2 && m.presences == [(*late.cid(), Presence::Have)])
    );
    assert_eq!(f.x.residue(), 0);
}

#[test]
fn a_block_that_arrives_while_it_is_looked_for_is_found() {
    let mut f = Fixture::new(&[1]);
    f.entries(1, vec![want(cid(1), WantType::Block, 1)]);
    let Some(Event::LoadSize { id, .. }) = f.x.poll_event() else {
        panic!("no look-up")
    };
    f.x.notify_new_block(&cid(1));
    f.x.handle_size(id, None);
    f.serve(&[block(1, 8)]);
    assert_eq!(cids_of(&f.block_messages(true)), [cid(1)]);
}

#[test]
fn blocks_are_read_only_when_the_stream_can_take_them() {
    let mut f = Fixture::new(&[1]);
    let content = blocks(40, SIZE_LARGE);
    f.entries(1, want_blocks(&content));
    assert_eq!(f.serve(&content), (40, 1), "one message's worth");
    let (mut reads, mut messages) = (1, Vec::new());
    loop {
        messages.extend(f.block_messages(false));
        match f.serve(&content) {
            (0, 0) => break,
            (_, loads) => reads += loads,
        }
    }
    assert_eq!((reads, messages.len()), (SENT_UNWRITTEN, SENT_UNWRITTEN));
    let pending = messages[SENT_UNWRITTEN - 1].message.pending_bytes as usize;
    assert_eq!(pending, (40 - SENT_UNWRITTEN) * SIZE_LARGE);
    f.x.handle_sent(1, messages[0].id, f.now);
    assert_eq!(f.serve(&content), (0, 1));
}

#[test]
fn a_slow_reader_never_holds_more_than_its_share_and_all_together_no_more_than_the_total() {
    let peers: Vec<u8> = (1..=60).collect();
    let mut f = Fixture::new(&peers);
    let content = blocks(10, 2 << 20);
    for peer in peers {
        f.entries(peer, want_blocks(&content));
    }
    let mut unwritten = 0;
    loop {
        f.serve(&content);
        let messages = f.block_messages(false);
        if messages.is_empty() {
            break;
        }
        unwritten += messages.len();
        let held = f.x.stats().response_bytes;
        assert!(held <= limits::RESPONSE_BYTES_TOTAL_MAX, "{held}");
    }
    assert_eq!(unwritten, limits::RESPONSE_BYTES_TOTAL_MAX / (2 << 20));
}

#[test]
fn small_blocks_share_a_message_and_large_ones_travel_alone() {
    let mut f = Fixture::new(&[1]);
    let mut content = blocks(20, 10_000);
    content.push(block(99, 2 << 20));
    f.entries(1, want_blocks(&content));
    f.serve(&content);
    let mut messages = f.block_messages(true);
    while f.serve(&content).1 > 0 {
        messages.extend(f.block_messages(true));
    }
    let counts: Vec<usize> = messages.iter().map(|t| t.message.blocks.len()).collect();
    // The first is read as soon as it is known to be there, the others as soon as it is on its way.
    assert_eq!(counts, [1, 13, 6, 1]);
}

#[test]
fn more_important_wants_are_served_first() {
    let mut f = Fixture::new(&[1]);
    let content = blocks(3, 800_000);
    let wants = (0..3)
        .map(|n| want(*content[n].cid(), WantType::Block, n as i32))
        .collect();
    f.entries(1, wants);
    let order = cids_of(&drain(&mut f, &content));
    // The first is on its way before the others are known.
    assert_eq!(order.len(), 3);
    assert_eq!(order[1..], [*content[2].cid(), *content[1].cid()]);
}

#[test]
fn a_cancelled_want_is_not_sent_even_if_its_block_is_being_read() {
    let mut f = Fixture::new(&[1]);
    let content = blocks(2, 2000);
    f.entries(1, want_blocks(&content));
    let mut loads = Vec::new();
    while let Some(event) = f.x.poll_event() {
        match event {
            Event::LoadSize { id, .. } => f.x.handle_size(id, Some(2000)),
            Event::Load { id, cid } => loads.push((id, cid)),
            other => panic!("{other:?}"),
        }
    }
    f.entries(1, vec![Entry::Cancel(*content[0].cid())]);
    for (id, _) in loads {
        f.x.handle_loaded(id, Some(content[0].data().clone()));
    }
    f.serve(&content);
    assert_eq!(cids_of(&f.block_messages(true)), [*content[1].cid()]);
    assert_eq!(f.x.residue(), 0);
}

#[test]
fn a_full_wantlist_replaces_the_one_before() {
    let mut f = Fixture::new(&[1]);
    f.entries(
        1,
        vec![
            want(cid(1), WantType::Block, 1),
            want(cid(2), WantType::Block, 1),
        ],
    );
    f.serve(&[]);
    let wantlist = vec![
        want(cid(2), WantType::Block, 1),
        want(cid(3), WantType::Block, 1),
    ];
    let message = Message {
        wantlist,
        full: true,
        ..Message::default()
    };
    f.x.handle_message(1, message, f.now);
    f.serve(&[]);
    assert_eq!(f.x.stats().served_wants, 2);
    f.x.handle_message(
        1,
        Message {
            full: true,
            ..Message::default()
        },
        f.now,
    );
    assert_eq!(f.x.stats().served_wants, 0);
}

#[test]
fn a_full_list_lets_go_of_what_we_lack_and_of_the_less_important_first() {
    let mut f = Fixture::new(&[1]);
    let max = limits::SERVED_WANTS_PER_PEER_MAX as u64;
    let held = blocks(max, 2000);
    f.entries(1, want_blocks(&held[1..]));
    f.entries(1, vec![want(cid(9_000), WantType::Block, 100)]);
    f.serve(&held);
    let served = |f: &Fixture| f.x.stats().served_wants;
    assert_eq!(served(&f), max as usize);
    // In place of the one that is missing here, though that was the more important.
    f.entries(1, vec![want(*held[0].cid(), WantType::Block, 2)]);
    f.serve(&held);
    assert_eq!(served(&f), max as usize);
    // Everything is held now: an equal one is dropped, a better one pushes out a worse one.
    f.entries(1, vec![want(cid(9_001), WantType::Block, 1)]);
    assert_eq!(f.serve(&held), (0, 0));
    f.entries(1, vec![want(cid(9_001), WantType::Block, 3)]);
    assert_eq!(f.serve(&held).0, 1);
    assert_eq!(served(&f), max as usize);
}

#[test]
fn one_message_cannot_fill_more_than_one_list() {
    let mut f = Fixture::new(&[1]);
    f.entries(
        1,
        (0..5000)
            .map(|n| want(cid(n), WantType::Block, 1))
            .collect(),
    );
    f.serve(&[]);
    assert_eq!(f.x.stats().served_wants, limits::SERVED_WANTS_PER_PEER_MAX);
}

#[test]
fn wanting_and_cancelling_over_and_over_holds_nothing() {
    let mut f = Fixture::new(&[1]);
    for n in 0..20_000 {
        f.entries(1, vec![want(cid(n % 50), WantType::Have, 1)]);
        f.entries(1, vec![Entry::Cancel(cid(n % 50))]);
    }
    assert!(f.x.stats().loads <= limits::SIZE_LOADS_MAX);
    assert!(f.x.residue() < 3 * limits::SERVED_WANTS_PER_PEER_MAX + 2 * limits::SIZE_LOADS_MAX);
    f.serve(&[]);
    assert_eq!(f.x.residue(), 0);
}

#[test]
fn the_empty_block_is_made_and_not_read() {
    let mut f = Fixture::new(&[1]);
    let empty = Block::new(0x55, bytes::Bytes::new());
    f.entries(1, want_blocks(std::slice::from_ref(&empty)));
    assert_eq!(f.serve(&[]), (0, 0));
    assert_eq!(cids_of(&f.block_messages(true)), [*empty.cid()]);
    assert_eq!(f.x.residue(), 0);
}

#[test]
fn hashes_we_do_not_keep_and_blocks_above_the_limit_count_as_absent() {
    let mut f = Fixture::new(&[1]);
    let mut blake3 = vec![1, 0x55, 0x1e, 32];
    blake3.extend([7; 32]);
    let blake3 = Cid::try_from(&blake3[..]).unwrap();
    f.entries(
        1,
        vec![
            want(blake3, WantType::Block, 1),
            want(cid(1), WantType::Block, 1),
        ],
    );
    let Some(Event::LoadSize { id, .. }) = f.x.poll_event() else {
        panic!("no look-up")
    };
    f.x.handle_size(id, Some(limits::BLOCK_BYTES_MAX as u64 + 1));
    let refused = presences(&mut f);
    assert_eq!(
        refused,
        [(blake3, Presence::DontHave), (cid(1), Presence::DontHave)]
    );
}

#[test]
fn a_node_that_does_not_serve_says_so() {
    let mut f = Fixture::with(
        Config {
            serve: false,
            ..Config::default()
        },
        &[1],
    );
    f.entries(1, vec![want(cid(1), WantType::Block, 1)]);
    assert_eq!(f.events(), []);
    assert_eq!(presences(&mut f), [(cid(1), Presence::DontHave)]);
    assert_eq!(f.x.stats().served_wants, 0);
}

#[test]
fn a_block_that_could_not_be_written_is_tried_again_and_then_dropped() {
    let mut f = Fixture::new(&[1]);
    let content = blocks(1, 2000);
    f.entries(1, want_blocks(&content));
    for _ in 0..=SEND_FAILURES_MAX {
        f.serve(&content);
        let messages = f.block_messages(false);
        assert_eq!(messages.len(), 1);
        f.x.handle_send_failed(1, messages[0].id, f.now);
    }
    assert_eq!(f.serve(&content), (0, 0));
    assert_eq!(f.x.residue(), 0);
    assert_eq!(f.x.ledger(1).unwrap().blocks_sent, 0);
}

#[test]
fn a_block_deleted_between_look_up_and_read_is_refused() {
    let mut f = Fixture::new(&[1]);
    f.entries(1, vec![want(cid(1), WantType::Block, 1)]);
    let Some(Event::LoadSize { id, .. }) = f.x.poll_event() else {
        panic!("no look-up")
    };
    f.x.handle_size(id, Some(8));
    assert_eq!(f.serve(&[]), (0, 1));
    assert_eq!(presences(&mut f), [(cid(1), Presence::DontHave)]);
    assert_eq!(f.x.stats().response_bytes, 0);
}

#[test]
fn answers_of_the_store_for_a_peer_that_left_are_ignored() {
    let mut f = Fixture::new(&[1]);
    let content = blocks(5, 2000);
    f.entries(1, want_blocks(&content));
    let mut loads = Vec::new();
    while let Some(event) = f.x.poll_event() {
        match event {
            Event::LoadSize { id, .. } => f.x.handle_size(id, Some(2000)),
            Event::Load { id, .. } => loads.push(id),
            other => panic!("{other:?}"),
        }
    }
    f.x.handle_loaded(loads[0], Some(content[0].data().clone()));
    f.x.handle_disconnected(1, f.now);
    f.x.handle_connected(1, crate::Reach::Far, f.now);
    for id in loads {
        f.x.handle_loaded(id, Some(content[0].data().clone()));
    }
    assert_eq!(f.sent(), []);
    assert_eq!(f.x.residue(), 0);
}

#[test]
fn several_entries_for_one_cid_become_one() {
    let wants = |want_type, send_dont_have| Entry::Want {
        cid: cid(1),
        priority: 5,
        want_type,
        send_dont_have,
    };
    let merged = merge(vec![
        wants(WantType::Block, false),
        wants(WantType::Have, true),
    ]);
    let change = Change::Want {
        priority: 5,
        want_type: WantType::Block,
        send_dont_have: true,
    };
    assert_eq!(merged, [(cid(1), change)]);
    let merged = merge(vec![Entry::Cancel(cid(1)), wants(WantType::Block, true)]);
    assert_eq!(merged, [(cid(1), Change::Cancel)]);
}

#[test]
fn a_stranger_is_answered_as_by_somebody_who_has_nothing() {
    let content = blocks(2, 4 << 10);
    let mut f = Fixture::new(&[]);
    f.x.handle_stranger(1, f.now);
    let mut silent = want_blocks(&content[1..]);
    for entry in &mut silent {
        if let Entry::Want { send_dont_have, .. } = entry {
            *send_dont_have = false;
        }
    }
    f.entries(1, want_blocks(&content[..1]));
    f.entries(1, silent);
    assert_eq!(f.serve(&content), (0, 0), "the store is not even asked");
    let dont_have = (*content[0].cid(), Presence::DontHave);
    assert_eq!(presences(&mut f), [dont_have]);
    // What arrives later is no news to it.
    f.x.notify_new_block(content[0].cid());
    assert_eq!(presences(&mut f), []);
    assert_eq!(f.serve(&content), (0, 0));
    // Asked again, as when it turns out to be no stranger.
    f.entries(1, want_blocks(&content[..1]));
    assert_eq!(presences(&mut f), [dont_have]);
    f.x.handle_connected(1, crate::Reach::Far, f.now);
    assert_eq!(cids_of(&drain(&mut f, &content)).len(), 2);
}

#[test]
fn a_stranger_is_asked_nothing_and_forgotten_when_it_leaves() {
    let content = blocks(1, 4 << 10);
    let mut f = Fixture::new(&[]);
    f.x.handle_stranger(1, f.now);
    let session = f.x.open_session(f.now);
    f.x.want(session, &[*content[0].cid()], f.now);
    // It wants the same, and offers what was not asked for.
    f.entries(1, want_blocks(&content));
    f.block(1, content[0].clone());
    f.presence(1, *content[0].cid(), Presence::Have);
    let wants = f.wants();
    assert!(wants.is_empty(), "{wants:?}");
    f.x.handle_disconnected(1, f.now);
    f.x.close_session(session, f.now);
    f.events();
    assert_eq!(f.x.residue(), 0);
    assert!(f.x.ledger(1).is_none());
}
