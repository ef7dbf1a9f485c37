//! Peers that lie, each in one way.

use bytes::Bytes;

use super::{NodeId, World};
use crate::event::Lane;
use crate::message::{Block, Entry, Message, Presence, Version, WantType};

/// Blocks sent by a flooder at a time.
const FLOOD_BLOCKS: usize = 8;
/// Size of a block nobody asked for.
const FLOOD_BLOCK_BYTES: usize = 20_000;
/// Wants in each of a flooder's messages: more than anybody keeps.
const FLOOD_WANTS: u64 = 1100;
/// Messages after which even a flooder rests, so that a run ends.
const FLOOD_MESSAGES_MAX: usize = 12;

/// One way to lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    /// Claims to have everything and sends wrong bytes under the right prefix.
    WrongBytes,
    /// Never says anything.
    Mute,
    /// Claims to have everything and never sends it.
    Promise,
    /// Claims to have everything, and denies it when asked for the block.
    Deny,
    /// Sends blocks nobody asked for and wants everything, without end.
    Flood,
    /// Sends a block above the size limit.
    Oversize,
    /// Sends bytes that are no message.
    Garbage,
}

impl Lie {
    /// Every way to lie.
    pub const ALL: [Self; 7] = [
        Self::WrongBytes,
        Self::Mute,
        Self::Promise,
        Self::Deny,
        Self::Flood,
        Self::Oversize,
        Self::Garbage,
    ];
}

impl World {
    pub(super) fn lie_on_connect(&mut self, liar: NodeId, peer: NodeId) {
        if self.nodes[liar].config.lie == Some(Lie::Flood) {
            self.flood(liar, peer);
        }
    }

    /// A liar answers a message.
    pub(super) fn lie(&mut self, liar: NodeId, to: NodeId, message: &Message) {
        let Some(lie) = self.nodes[liar].config.lie else {
            return;
        };
        let mut answer = Message::default();
        for entry in &message.wantlist {
            let Entry::Want { cid, want_type, .. } = entry else {
                continue;
            };
            match (lie, want_type) {
                (Lie::Mute, _) => {}
                (Lie::Flood, _) => return self.flood(liar, to),
                (Lie::Garbage, _) => {
                    self.travel(
                        (liar, to),
                        Lane::Control,
                        None,
                        vec![5, 0xff, 0xff, 0xff, 0xff, 0xff],
                    );
                    return;
                }
                (Lie::Promise, WantType::Block) => {}
                (Lie::Deny, WantType::Block) => answer.presences.push((*cid, Presence::DontHave)),
                (Lie::WrongBytes, WantType::Block) => answer.blocks.push(self.wrong(liar)),
                (Lie::Oversize, WantType::Block) if answer.blocks.is_empty() => {
                    let data = Bytes::from(vec![1; crate::limits::BLOCK_BYTES_MAX + 1]);
                    answer.blocks.push(Block::new(0x55, data));
                }
                (Lie::Oversize, WantType::Block) => {}
                (_, WantType::Have) => answer.presences.push((*cid, Presence::Have)),
            }
        }
        if !answer.is_empty() {
            self.travel(
                (liar, to),
                Lane::Blocks,
                None,
                answer.encode(Version::V1_2).to_vec(),
            );
        }
    }

    /// Bytes that nobody ever asked for.
    fn wrong(&mut self, liar: NodeId) -> Block {
        self.nodes[liar].lied += 1;
        let mut data = vec![0x66; FLOOD_BLOCK_BYTES];
        data[..8].copy_from_slice(&self.rng.next().to_le_bytes());
        Block::new(0x55, Bytes::from(data))
    }

    fn flood(&mut self, liar: NodeId, to: NodeId) {
        if self.nodes[liar].lied > FLOOD_MESSAGES_MAX * FLOOD_BLOCKS {
            return;
        }
        let blocks = (0..FLOOD_BLOCKS).map(|_| self.wrong(liar)).collect();
        let first = self.rng.next() >> 1;
        let want = |n| Entry::Want {
            cid: *crate::testing::block(first + n, 8).cid(),
            priority: n as i32,
            want_type: if n % 2 == 0 {
                WantType::Block
            } else {
                WantType::Have
            },
            send_dont_have: n % 3 == 0,
        };
        let wantlist = (0..FLOOD_WANTS).map(want).collect();
        let message = Message {
            blocks,
            wantlist,
            ..Message::default()
        };
        self.travel(
            (liar, to),
            Lane::Blocks,
            None,
            message.encode(Version::V1_2).to_vec(),
        );
    }

    /// Silences every liar from now on, so that a run can come to rest.
    pub fn silence_liars(&mut self) {
        for node in &mut self.nodes {
            if node.config.lie.is_some() {
                node.config.lie = Some(Lie::Mute);
            }
        }
    }
}
