//! The exchange with three peers that say anything at any time: it never panics, and when everything is closed
//! nothing is left.
#![no_main]

use std::time::{Duration, Instant};

use bitswap::{
    Config, Entry, Event, Exchange, LoadId, Message, Presence, Reach, TransmitId, WantType,
};
use bytes::Bytes;
use libfuzzer_sys::fuzz_target;

const RAW: u64 = 0x55;
const PEERS: u8 = 3;
const BLOCKS: u8 = 8;

#[derive(arbitrary::Arbitrary, Debug)]
enum Step {
    Open,
    Close(u8),
    Want(u8, Vec<u8>),
    Cancel(u8, u8),
    Provider(u8, u8),
    SearchEnded(u8),
    Connect(u8),
    Disconnect(u8),
    Blocks(u8, Vec<u8>),
    Presences(u8, Vec<(u8, bool)>),
    Wantlist(u8, bool, Vec<(u8, bool, bool, i32)>),
    Receiving(u8, u16),
    Sent(u8, bool),
    Loaded(u8, Option<u8>),
    NewBlock(u8),
    Wait(u16),
}

/// A block of each name; every other one is small enough to go in place of a HAVE.
fn block(name: u8) -> bitswap::Block {
    let name = name % BLOCKS;
    let length = if name.is_multiple_of(2) { 16 } else { 2000 };
    bitswap::Block::new(RAW, Bytes::from(vec![name; length]))
}

fuzz_target!(|steps: Vec<Step>| {
    let mut now = Instant::now();
    let mut exchange: Exchange<u8> = Exchange::new(Config::default(), 1);
    let mut sessions = Vec::new();
    let mut transmits: Vec<(u8, TransmitId)> = Vec::new();
    let mut loads: Vec<LoadId> = Vec::new();
    for step in steps {
        match step {
            Step::Open => sessions.push(exchange.open_session(now)),
            Step::Close(index) => {
                if let Some(session) = pick(&sessions, index) {
                    exchange.close_session(session, now);
                }
            }
            Step::Want(index, names) => {
                let cids: Vec<_> = names.iter().map(|name| *block(*name).cid()).collect();
                if let Some(session) = pick(&sessions, index) {
                    exchange.want(session, &cids, now);
                }
            }
            Step::Cancel(index, name) => {
                if let Some(session) = pick(&sessions, index) {
                    exchange.cancel(session, &[*block(name).cid()], now);
                }
            }
            Step::Provider(index, peer) => {
                if let Some(session) = pick(&sessions, index) {
                    exchange.add_provider(session, peer % PEERS, now);
                }
            }
            Step::SearchEnded(index) => {
                if let Some(session) = pick(&sessions, index) {
                    exchange.search_ended(session, now);
                }
            }
            Step::Connect(peer) => {
                let reach = if peer % PEERS == 0 { Reach::Near } else { Reach::Far };
                exchange.handle_connected(peer % PEERS, reach, now);
            }
            Step::Disconnect(peer) => {
                transmits.retain(|(to, _)| *to != peer % PEERS);
                exchange.handle_disconnected(peer % PEERS, now);
            }
            Step::Blocks(peer, names) => {
                let blocks = names.into_iter().map(block).collect();
                let message = Message { blocks, ..Message::default() };
                exchange.handle_message(peer % PEERS, message, now);
            }
            Step::Presences(peer, names) => {
                let presence = |have| if have { Presence::Have } else { Presence::DontHave };
                let presences = names
                    .into_iter()
                    .map(|(name, have)| (*block(name).cid(), presence(have)))
                    .collect();
                let message = Message { presences, ..Message::default() };
                exchange.handle_message(peer % PEERS, message, now);
            }
            Step::Wantlist(peer, full, entries) => {
                let wantlist = entries.into_iter().map(entry).collect();
                let message = Message { wantlist, full, ..Message::default() };
                exchange.handle_message(peer % PEERS, message, now);
            }
            Step::Receiving(peer, bytes) => {
                exchange.handle_receiving(peer % PEERS, usize::from(bytes), now);
            }
            Step::Sent(index, arrived) => {
                if let Some((to, id)) = take(&mut transmits, index) {
                    if arrived {
                        exchange.handle_sent(to, id, now);
                    } else {
                        exchange.handle_send_failed(to, id, now);
                    }
                }
            }
            Step::Loaded(index, name) => {
                if let Some(id) = take(&mut loads, index) {
                    // Whichever of the two it was that was asked for, the other is ignored.
                    let data = name.map(|name| block(name).data().clone());
                    exchange.handle_size(id, data.as_ref().map(|data| data.len() as u64));
                    exchange.handle_loaded(id, data);
                }
            }
            Step::NewBlock(name) => exchange.notify_new_block(block(name).cid()),
            Step::Wait(millis) => {
                now += Duration::from_millis(u64::from(millis));
                exchange.handle_timeout(now);
            }
        }
        while let Some(event) = exchange.poll_event() {
            if let Event::Load { id, .. } | Event::LoadSize { id, .. } = event {
                loads.push(id);
            }
        }
        while let Some(transmit) = exchange.poll_transmit(now) {
            transmits.push((transmit.to, transmit.id));
        }
    }
    for peer in 0..PEERS {
        exchange.handle_disconnected(peer, now);
    }
    for session in sessions {
        exchange.close_session(session, now);
    }
    let stats = exchange.stats();
    assert_eq!((stats.sessions, stats.wants), (0, 0), "{stats:?}");
});

fn entry((name, cancel, block_wanted, priority): (u8, bool, bool, i32)) -> Entry {
    let cid = *block(name).cid();
    if cancel {
        return Entry::Cancel(cid);
    }
    Entry::Want {
        cid,
        priority,
        want_type: if block_wanted { WantType::Block } else { WantType::Have },
        send_dont_have: priority % 2 == 0,
    }
}

fn pick<T: Copy>(list: &[T], index: u8) -> Option<T> {
    list.get(usize::from(index).checked_rem(list.len())?).copied()
}

fn take<T>(list: &mut Vec<T>, index: u8) -> Option<T> {
    let index = usize::from(index).checked_rem(list.len())?;
    Some(list.swap_remove(index))
}
