//! The asking half, step by step.

use std::time::Duration;

use super::*;
use crate::event::Misbehaviour;
use crate::limits;
use crate::message::{Block, Entry, Presence};
use crate::testing::{Fixture, block, cid};

mod hostile;

const ROUND_TRIP: Duration = Duration::from_millis(10);

/// A session of peers 1 to `peers` that wants blocks 0 to `wants`.
fn session(peers: u8, wants: u64) -> (Fixture, SessionId) {
    let names: Vec<u8> = (1..=peers).collect();
    let mut f = Fixture::new(&names);
    let id = f.x.open_session(f.now);
    for name in names {
        f.x.add_provider(id, name, f.now);
    }
    let cids: Vec<Cid> = (0..wants).map(cid).collect();
    f.x.want(id, &cids, f.now);
    (f, id)
}

fn blocks_got(events: &[Event<u8>]) -> Vec<Cid> {
    let got = |event: &Event<u8>| match event {
        Event::Block { cid, .. } => Some(*cid),
        _ => None,
    };
    events.iter().filter_map(got).collect()
}

/// The one peer that was sent a want-block for `wanted`.
fn asked(wants: &[(u8, &str, Cid)], wanted: Cid) -> u8 {
    let asked: Vec<u8> = wants
        .iter()
        .filter(|want| (want.1, want.2) == ("block", wanted))
        .map(|want| want.0)
        .collect();
    assert_eq!(asked.len(), 1, "{wants:?}");
    asked[0]
}

#[test]
fn the_first_want_goes_as_one_want_block_and_want_haves_to_the_others() {
    let (mut f, _) = session(4, 1);
    let wants = f.wants();
    let first = asked(&wants, cid(0));
    let haves: Vec<u8> = wants
        .iter()
        .filter(|want| want.1 == "have")
        .map(|want| want.0)
        .collect();
    assert_eq!(wants.len(), 4);
    assert_eq!(
        haves,
        (1..=4).filter(|peer| *peer != first).collect::<Vec<_>>()
    );
}

#[test]
fn a_block_ends_the_want_and_is_cancelled_where_it_is_still_wanted() {
    let (mut f, id) = session(3, 1);
    let first = asked(&f.wants(), cid(0));
    let others: Vec<u8> = (1..=3).filter(|peer| *peer != first).collect();
    // One of the others has answered, so its want-have is gone there.
    f.presence(others[0], cid(0), Presence::Have);
    f.block(first, block(0, 8));
    let verified = block(0, 8).into_verified();
    let got = Event::Block {
        sessions: vec![id],
        cid: cid(0),
        block: verified,
        from: Some(first),
    };
    assert_eq!(f.events(), [got]);
    assert_eq!(f.wants(), [(others[1], "cancel", cid(0))]);
    assert_eq!(f.x.session_stats(id).unwrap().wants, 0);
}

#[test]
fn two_sessions_that_want_the_same_ask_once_and_both_get_it() {
    let (mut f, first) = session(1, 1);
    let second = f.x.open_session(f.now);
    f.x.add_provider(second, 1, f.now);
    f.x.want(second, &[cid(0)], f.now);
    assert_eq!(f.wants(), [(1, "block", cid(0))]);
    f.block(1, block(0, 8));
    let Some(Event::Block { sessions, .. }) = f.x.poll_event() else {
        panic!("no block")
    };
    assert_eq!(sessions, [first, second]);
    assert_eq!(f.x.stats().wants, 0);
}

#[test]
fn one_session_may_cancel_what_another_still_wants() {
    let (mut f, first) = session(1, 1);
    let second = f.x.open_session(f.now);
    f.x.want(second, &[cid(0)], f.now);
    f.wants();
    f.x.cancel(first, &[cid(0)], f.now);
    assert_eq!(f.wants(), []);
    f.x.cancel(second, &[cid(0)], f.now);
    assert_eq!(f.wants(), [(1, "cancel", cid(0))]);
}

#[test]
fn a_dont_have_moves_the_want_on_at_once() {
    let (mut f, _) = session(2, 1);
    let first = asked(&f.wants(), cid(0));
    f.presence(first, cid(0), Presence::DontHave);
    let wants = f.wants();
    assert_eq!(asked(&wants, cid(0)), 3 - first);
    // And the peer without it is not to send it later, only to tell if it gets it.
    assert!(wants.contains(&(first, "have", cid(0))));
}

#[test]
fn a_peer_that_refused_and_then_gets_the_block_is_asked_for_it_again() {
    let (mut f, _) = session(1, 1);
    f.wants();
    f.presence(1, cid(0), Presence::DontHave);
    assert_eq!(f.wants(), [(1, "have", cid(0))]);
    // Its answer to that is no news.
    f.presence(1, cid(0), Presence::DontHave);
    assert_eq!(f.wants(), []);
    f.presence(1, cid(0), Presence::Have);
    assert_eq!(f.wants(), [(1, "block", cid(0))]);
}

#[test]
fn a_peer_that_says_have_is_asked_before_one_that_said_nothing() {
    let (mut f, _) = session(3, 1);
    let first = asked(&f.wants(), cid(0));
    let holder = if first == 3 { 2 } else { 3 };
    f.presence(holder, cid(0), Presence::Have);
    f.presence(first, cid(0), Presence::DontHave);
    assert_eq!(asked(&f.wants(), cid(0)), holder);
}

#[test]
fn a_silent_peer_is_helped_out_first_and_then_given_up_and_its_late_block_still_counts() {
    let (mut f, id) = session(2, 1);
    let first = asked(&f.wants(), cid(0));
    let second = 3 - first;
    f.presence(second, cid(0), Presence::Have);
    f.wait(limits::STEAL_PATIENCE);
    assert_eq!(f.wants(), []);
    f.wait(limits::STALL_FIRST - limits::STEAL_PATIENCE - Duration::from_millis(1));
    assert_eq!(f.wants(), [(second, "block", cid(0))]);
    let stalls = |f: &Fixture| {
        let stats = f.x.session_stats(id).unwrap();
        stats
            .peers
            .iter()
            .find(|peer| peer.0 == first)
            .unwrap()
            .1
            .stalls
    };
    assert_eq!(stalls(&f), 0);
    f.wait(Duration::from_millis(1));
    assert_eq!(stalls(&f), 1);
    f.block(first, block(0, 8));
    assert_eq!(blocks_got(&f.events()), [cid(0)]);
    assert_eq!(f.wants(), [(second, "cancel", cid(0))]);
    // The other's copy crosses the cancel: a duplicate, and no misbehaviour.
    f.block(second, block(0, 8));
    let stats = f.x.session_stats(id).unwrap();
    assert_eq!((stats.total.blocks, stats.total.duplicate_blocks), (1, 1));
    assert_eq!(f.x.ledger(second).unwrap().blocks_unrequested, 0);
}

#[test]
fn a_peer_that_sends_other_blocks_or_parts_of_one_is_not_silent() {
    let (mut f, _) = session(1, 3);
    f.wants();
    f.block(1, block(0, 8));
    for _ in 0..20 {
        f.wait(Duration::from_millis(400));
        f.x.handle_receiving(1, limits::PROGRESS_BYTES, f.now);
    }
    assert_eq!(f.x.session_stats(SessionId(1)).unwrap().total.stalls, 0);
    f.wait(Duration::from_secs(1));
    assert_eq!(f.x.session_stats(SessionId(1)).unwrap().total.stalls, 1);
}

#[test]
fn a_lost_connection_is_dialled_again_and_told_the_full_wantlist() {
    let (mut f, _) = session(1, 3);
    f.wants();
    f.block(1, block(0, 8));
    f.wants();
    f.x.handle_disconnected(1, f.now);
    f.events();
    f.wait(limits::RECONNECT_AFTER);
    assert_eq!(f.events(), [Event::Connect { peer: 1 }]);
    f.x.handle_connected(1, crate::Reach::Far, f.now);
    let sent = f.sent();
    let [(1, message)] = &sent[..] else {
        panic!("{sent:?}")
    };
    assert!(message.full);
    let cids: Vec<Cid> = message.wantlist.iter().map(|entry| *entry.cid()).collect();
    assert_eq!(cids, [cid(1), cid(2)]);
}

#[test]
fn an_unreachable_provider_is_dialled_once_and_given_up() {
    let mut f = Fixture::new(&[]);
    let id = f.x.open_session(f.now);
    f.x.add_provider(id, 9, f.now);
    f.x.want(id, &[cid(0)], f.now);
    let find = Event::FindProviders {
        session: id,
        cid: cid(0),
    };
    assert_eq!(f.events(), [Event::Connect { peer: 9 }, find]);
    f.x.search_ended(id, f.now);
    f.wait(limits::CONNECT_TIMEOUT - Duration::from_millis(1));
    assert_eq!(f.events(), [], "it may still come");
    f.wait(Duration::from_secs(2));
    assert_eq!(
        f.events(),
        [Event::Missing {
            session: id,
            cid: cid(0)
        }]
    );
}

#[test]
fn a_want_that_nobody_can_serve_is_missing_when_its_deadline_passes() {
    let mut f = Fixture::new(&[]);
    let id = f.x.open_session(f.now);
    f.x.want(id, &[cid(0)], f.now);
    assert_eq!(
        f.events(),
        [Event::FindProviders {
            session: id,
            cid: cid(0)
        }]
    );
    f.wait(limits::PROVIDERS_DEADLINE - Duration::from_millis(2));
    assert_eq!(f.events(), []);
    f.wait(Duration::from_secs(1));
    assert!(f.events().contains(&Event::Missing {
        session: id,
        cid: cid(0)
    }));
    assert_eq!(f.x.session_stats(id).unwrap().missing, 1);
    assert_eq!(f.x.poll_timeout(), None);
}

#[test]
fn a_want_ends_at_once_when_all_refused_and_the_search_is_over() {
    let (mut f, id) = session(2, 1);
    f.wants();
    f.presence(1, cid(0), Presence::DontHave);
    f.presence(2, cid(0), Presence::DontHave);
    f.wants();
    f.events();
    f.x.search_ended(id, f.now);
    f.wait(Duration::from_millis(1));
    assert_eq!(
        f.events(),
        [Event::Missing {
            session: id,
            cid: cid(0)
        }]
    );
    // A want-have had stayed with both peers, in case the block arrives there.
    let told: Vec<_> = f.wants().into_iter().map(|want| want.1).collect();
    assert_eq!(told, ["cancel", "cancel"]);
}

#[test]
fn a_provider_that_the_search_finds_is_asked_for_the_orphans() {
    let mut f = Fixture::new(&[5]);
    let id = f.x.open_session(f.now);
    f.x.want(id, &[cid(0), cid(1)], f.now);
    assert_eq!(f.wants(), []);
    f.x.add_provider(id, 5, f.now);
    assert_eq!(asked(&f.wants(), cid(0)), 5);
    f.block(5, block(0, 8));
    assert_eq!(asked(&f.wants(), cid(1)), 5);
}

#[test]
fn providers_are_looked_for_when_the_first_peers_stay_silent_for_a_second() {
    let (mut f, id) = session(1, 1);
    assert_eq!(f.events(), []);
    f.wait(limits::SEARCH_DELAY);
    assert_eq!(
        f.events(),
        [Event::FindProviders {
            session: id,
            cid: cid(0)
        }]
    );
}

#[test]
fn a_peer_with_sixteen_refusals_is_asked_only_as_a_last_resort() {
    let (mut f, _) = session(2, 1);
    let useless = asked(&f.wants(), cid(0));
    let useful = 3 - useless;
    f.presence(useful, cid(0), Presence::Have);
    for n in 0..limits::DONT_HAVES_IN_A_ROW_MAX.into() {
        // Only the useless one is left room, by letting the other one be silent about nothing else.
        f.x.want(SessionId(1), &[cid(n)], f.now);
        let wants = f.wants();
        for (peer, _, cid) in wants
            .iter()
            .filter(|want| want.0 == useless && want.1 != "cancel")
        {
            f.presence(*peer, *cid, Presence::DontHave);
        }
    }
    let refusals = |f: &Fixture| {
        let stats = f.x.session_stats(SessionId(1)).unwrap();
        stats
            .peers
            .iter()
            .find(|peer| peer.0 == useless)
            .unwrap()
            .1
            .dont_haves
    };
    while refusals(&f) < limits::DONT_HAVES_IN_A_ROW_MAX.into() {
        f.presence(useful, cid(0), Presence::Have);
        let next = 100 + refusals(&f);
        f.x.want(SessionId(1), &[cid(next)], f.now);
        let wants = f.wants();
        let to_useless: Vec<_> = wants
            .iter()
            .filter(|want| want.0 == useless && want.1 != "cancel")
            .collect();
        if to_useless.is_empty() {
            break;
        }
        for (peer, _, cid) in to_useless {
            f.presence(*peer, *cid, Presence::DontHave);
        }
    }
    f.x.want(SessionId(1), &[cid(500)], f.now);
    let wants = f.wants();
    assert!(
        !wants
            .iter()
            .any(|want| want.0 == useless && want.1 == "block"),
        "{wants:?}"
    );
}

#[test]
fn an_unanswered_want_is_sent_again_after_thirty_seconds() {
    let (mut f, _) = session(1, 2);
    f.wants();
    f.block(1, block(1, 8));
    f.wants();
    let mut again = 0;
    for _ in 0..100 {
        // The peer is alive: parts of something keep coming.
        f.wait(Duration::from_millis(400));
        f.x.handle_receiving(1, limits::PROGRESS_BYTES, f.now);
        again += f
            .wants()
            .iter()
            .filter(|want| **want == (1, "block", cid(0)))
            .count();
    }
    assert_eq!(again, 1);
}

#[test]
fn no_peer_is_ever_told_more_wants_than_it_would_keep() {
    let config = Config {
        window_wants_max: 100_000,
        window_bytes_max: usize::MAX / 2,
        ..Config::default()
    };
    let mut f = Fixture::with(config, &[1]);
    let id = f.x.open_session(f.now);
    f.x.add_provider(id, 1, f.now);
    let cids: Vec<Cid> = (0..5000).map(cid).collect();
    f.x.want(id, &cids, f.now);
    let (mut open, mut most) = (Vec::new(), 0);
    for _ in 0..200 {
        let wants = f.wants();
        open.extend(
            wants
                .into_iter()
                .filter(|want| want.1 == "block")
                .map(|want| want.2),
        );
        most = most.max(open.len());
        f.now += ROUND_TRIP;
        for cid in open.drain(..open.len().min(300)) {
            let n = cids.iter().position(|known| *known == cid).unwrap();
            f.block(1, block(n as u64, 8));
        }
    }
    assert!(most <= limits::WANTS_PER_PEER_MAX, "{most}");
    assert!(most > limits::WINDOW_WANTS_MAX);
    assert_eq!(f.x.stats().wants, 0);
}

#[test]
fn a_control_message_waits_for_the_one_before_it_and_a_lost_one_is_told_anew() {
    let (mut f, id) = session(1, 1);
    let unsent = f.unsent();
    let [first] = &unsent[..] else {
        panic!("{unsent:?}")
    };
    f.x.cancel(id, &[cid(0)], f.now);
    f.x.want(id, &[cid(1)], f.now);
    assert_eq!(f.unsent(), []);
    f.x.handle_send_failed(1, first.id, f.now);
    assert_eq!(f.unsent(), [], "a failing stream is not hammered");
    f.wait(Duration::from_millis(100));
    let sent = f.sent();
    let [(1, message)] = &sent[..] else {
        panic!("{sent:?}")
    };
    assert!(message.full);
    assert!(matches!(message.wantlist[..], [Entry::Want { cid: wanted, .. }] if wanted == cid(1)));
}

#[test]
fn a_new_session_asks_peers_that_served_us_before() {
    let (mut f, first) = session(2, 1);
    let server = asked(&f.wants(), cid(0));
    f.now += ROUND_TRIP;
    f.block(server, block(0, 8));
    f.x.close_session(first, f.now);
    f.sent();
    let second = f.x.open_session(f.now);
    f.x.want(second, &[cid(7)], f.now);
    assert_eq!(f.wants(), [(server, "block", cid(7))]);
}

#[test]
fn an_idle_peer_takes_over_what_a_slow_one_has_queued() {
    let (mut f, id) = session(2, 2);
    f.wants();
    for n in 0..2 {
        f.presence(1, cid(n), Presence::Have);
        f.presence(2, cid(n), Presence::Have);
    }
    f.x.want(id, &(2..14).map(cid).collect::<Vec<_>>(), f.now);
    let wants = f.wants();
    let of = |wants: &[(u8, &str, Cid)], peer| -> Vec<Cid> {
        wants
            .iter()
            .filter(|want| want.0 == peer && want.1 == "block")
            .map(|want| want.2)
            .collect()
    };
    let slow = of(&wants, 1);
    assert!(slow.len() > 2);
    // Peer 2 delivers all it was asked for, peer 1 a byte now and then.
    f.now += ROUND_TRIP;
    for n in 0..14 {
        if !slow.contains(&cid(n)) {
            f.block(2, block(n, 8));
        }
    }
    let mut moved = Vec::new();
    for _ in 0..10 {
        f.x.handle_receiving(1, limits::PROGRESS_BYTES, f.now);
        f.wait(Duration::from_millis(400));
        moved.extend(f.wants());
    }
    let taken = of(&moved, 2);
    assert!(!taken.is_empty(), "{moved:?}");
    for cid in &taken[..taken.len() - 1] {
        assert!(moved.contains(&(1, "cancel", *cid)));
    }
}

#[test]
fn closing_a_session_withdraws_its_wants_and_returns_what_it_got() {
    let (mut f, id) = session(1, 2);
    f.wants();
    f.block(1, block(0, 8));
    f.wants();
    let stats = f.x.close_session(id, f.now).unwrap();
    assert_eq!(
        (stats.total.blocks, stats.total.bytes, stats.wants),
        (1, 8, 0)
    );
    assert_eq!(stats.peers.len(), 1);
    assert_eq!(stats.duplicate_ratio(), 0.0);
    assert_eq!(f.wants(), [(1, "cancel", cid(1))]);
    assert_eq!(f.x.close_session(id, f.now), None);
    f.wait(limits::WITHDRAWN_FOR);
    assert_eq!((f.x.residue(), f.x.poll_timeout()), (0, None));
}

#[test]
fn a_flapping_peer_does_not_keep_a_want_alive_for_ever() {
    let (mut f, id) = session(1, 1);
    let mut ended = false;
    for _ in 0..2000 {
        f.sent();
        f.wait(Duration::from_millis(50));
        f.x.handle_disconnected(1, f.now);
        f.wait(Duration::from_millis(150));
        f.x.handle_connected(1, crate::Reach::Far, f.now);
        ended |= f.events().contains(&Event::Missing {
            session: id,
            cid: cid(0),
        });
    }
    assert!(ended);
}
