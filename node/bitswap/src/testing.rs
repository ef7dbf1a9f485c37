//! What this crate's tests share.

use std::time::Instant;

use bytes::Bytes;

use crate::message::Block;

/// Some moment to count virtual time from.
#[allow(clippy::disallowed_methods)] // There is no other way to obtain an `Instant`, and only differences matter.
pub(crate) fn start() -> Instant {
    Instant::now()
}

/// The `n`th of a series of different blocks of `size` bytes.
pub(crate) fn block(n: u64, size: usize) -> Block {
    let mut data = n.to_le_bytes().to_vec();
    data.resize(size.max(8), n as u8);
    Block::new(0x55, Bytes::from(data))
}

#[cfg(test)]
pub(crate) use self::fixture::{Fixture, cid};

/// One machine, and a hand that plays its peers, its store and its clock.
#[cfg(test)]
mod fixture {
    use std::time::{Duration, Instant};

    use base::Cid;

    use super::{block, start};
    use crate::config::Config;
    use crate::event::{Event, Lane, Transmit};
    use crate::exchange::Exchange;
    use crate::message::{Block, Entry, Message, Presence, WantType};

    /// The CID of the `n`th small block.
    pub(crate) fn cid(n: u64) -> Cid {
        *block(n, 8).cid()
    }

    pub(crate) struct Fixture {
        pub(crate) x: Exchange<u8>,
        pub(crate) now: Instant,
    }

    impl Fixture {
        pub(crate) fn new(peers: &[u8]) -> Self {
            Self::with(Config::default(), peers)
        }

        pub(crate) fn with(config: Config, peers: &[u8]) -> Self {
            let (mut x, now) = (Exchange::new(config, 7), start());
            for peer in peers {
                x.handle_connected(*peer, crate::Reach::Far, now);
            }
            Self { x, now }
        }

        pub(crate) fn wait(&mut self, time: Duration) {
            let end = self.now + time;
            while let Some(at) = self.x.poll_timeout().filter(|at| *at <= end) {
                self.now = self.now.max(at);
                self.x.handle_timeout(self.now);
            }
            self.now = end;
        }

        pub(crate) fn events(&mut self) -> Vec<Event<u8>> {
            std::iter::from_fn(|| self.x.poll_event()).collect()
        }

        /// What the machine wants to send, none of it written yet.
        pub(crate) fn unsent(&mut self) -> Vec<Transmit<u8>> {
            std::iter::from_fn(|| self.x.poll_transmit(self.now)).collect()
        }

        /// What the machine sends, all of it written at once.
        pub(crate) fn sent(&mut self) -> Vec<(u8, Message)> {
            let mut sent = Vec::new();
            while let Some(Transmit {
                id, to, message, ..
            }) = self.x.poll_transmit(self.now)
            {
                sent.push((to, message));
                self.x.handle_sent(to, id, self.now);
            }
            sent
        }

        /// The wants and cancels sent, in short.
        pub(crate) fn wants(&mut self) -> Vec<(u8, &'static str, Cid)> {
            let short = |entry: &Entry| match entry {
                Entry::Want {
                    cid,
                    want_type: WantType::Block,
                    ..
                } => ("block", *cid),
                Entry::Want {
                    cid,
                    want_type: WantType::Have,
                    ..
                } => ("have", *cid),
                Entry::Cancel(cid) => ("cancel", *cid),
            };
            let mut wants = Vec::new();
            for (to, message) in self.sent() {
                wants.extend(
                    message
                        .wantlist
                        .iter()
                        .map(short)
                        .map(|(what, cid)| (to, what, cid)),
                );
            }
            wants
        }

        pub(crate) fn block(&mut self, from: u8, block: Block) {
            let message = Message {
                blocks: vec![block],
                ..Message::default()
            };
            self.x.handle_message(from, message, self.now);
        }

        pub(crate) fn presence(&mut self, from: u8, cid: Cid, presence: Presence) {
            let message = Message {
                presences: vec![(cid, presence)],
                ..Message::default()
            };
            self.x.handle_message(from, message, self.now);
        }

        pub(crate) fn entries(&mut self, from: u8, wantlist: Vec<Entry>) {
            let message = Message {
                wantlist,
                ..Message::default()
            };
            self.x.handle_message(from, message, self.now);
        }

        /// Answers size look-ups and loads from a series of equal blocks; returns how many of each there were.
        pub(crate) fn serve(&mut self, blocks: &[Block]) -> (usize, usize) {
            let (mut sizes, mut loads) = (0, 0);
            while let Some(event) = self.x.poll_event() {
                let find = |cid: &Cid| blocks.iter().find(|block| block.cid().hash() == cid.hash());
                match event {
                    Event::LoadSize { id, cid } => {
                        sizes += 1;
                        self.x
                            .handle_size(id, find(&cid).map(|block| block.data().len() as u64));
                    }
                    Event::Load { id, cid } => {
                        loads += 1;
                        self.x
                            .handle_loaded(id, find(&cid).map(|block| block.data().clone()));
                    }
                    other => panic!("unexpected {other:?}"),
                }
            }
            (sizes, loads)
        }

        /// Messages of blocks, written at once only if `write`.
        pub(crate) fn block_messages(&mut self, write: bool) -> Vec<Transmit<u8>> {
            let mut messages = Vec::new();
            while let Some(transmit) = self.x.poll_transmit(self.now) {
                if write || transmit.lane == Lane::Control {
                    self.x.handle_sent(transmit.to, transmit.id, self.now);
                }
                if transmit.lane == Lane::Blocks {
                    messages.push(transmit);
                }
            }
            messages
        }
    }
}
