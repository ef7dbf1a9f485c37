//! Blocks out: read from the store turn by turn, handed to the transport in batches, and accounted for until they are sent.

use base::Cid;
use bytes::Bytes;

use super::*;

impl Server {
    /// Reads blocks for peers whose streams can take them, turn by turn.
    pub(super) fn read_blocks(&mut self) {
        while self.block_loads < LOADS_MAX {
            let Some(ix) = self.round.pop_front() else {
                return;
            };
            let Some(peer) = self.peers.get_mut(&ix) else {
                continue;
            };
            peer.in_round = false;
            let Some((_, size)) = peer.next_queued().filter(|_| peer.has_room()) else {
                peer.deficit = 0;
                continue;
            };
            if self.bytes_held > 0 && self.bytes_held + size > self.config.response_bytes_total_max
            {
                // Its turn comes first when bytes are set free.
                peer.in_round = true;
                return self.round.push_front(ix);
            }
            peer.deficit = (peer.deficit + RESPONSE_BYTES_TARGET).min(DEFICIT_BYTES_MAX);
            self.read_batch(ix);
            self.enter_round(ix);
        }
    }

    /// Starts to read one message's worth of blocks for a peer, as far as its deficit reaches.
    fn read_batch(&mut self, ix: PeerIx) {
        let is_shared = self.peers.len() > 1;
        let Some(peer) = self.peers.get_mut(&ix) else {
            return;
        };
        self.batches += 1;
        let mut batch = Batch {
            id: self.batches,
            awaited: 0,
            bytes: 0,
            blocks: Vec::new(),
        };
        let mut wanted = Vec::new();
        while let Some((cid, size)) = peer.rarest_queued(&self.sent) {
            let fits = wanted.is_empty() || batch.bytes + size <= RESPONSE_BYTES_TARGET;
            let held = self.bytes_held + batch.bytes;
            let within = held == 0 || held + size <= self.config.response_bytes_total_max;
            let reads = self.block_loads + batch.awaited;
            if !fits || !within || size > peer.deficit || reads >= LOADS_MAX {
                break;
            }
            peer.deficit -= size;
            peer.set_stage(&cid, Some(Stage::Sending));
            batch.bytes += size;
            if size == 0 {
                batch.blocks.push(Block::from_store(cid, Bytes::new()));
            } else {
                batch.awaited += 1;
            }
            wanted.push((cid, size));
            if is_shared {
                self.sent.add(cid);
            }
        }
        if peer.next_queued().is_none() {
            peer.deficit = 0;
        }
        if wanted.is_empty() {
            return;
        }
        self.bytes_held += batch.bytes;
        let (id, awaited) = (batch.id, batch.awaited);
        peer.batch = Some(batch);
        for (cid, size) in wanted.into_iter().filter(|(_, size)| *size > 0) {
            let id = self.load(Load {
                peer: ix,
                cid,
                batch: Some((id, size)),
            });
            self.block_loads += 1;
            self.events.push_back(Event::Load { id, cid });
        }
        if awaited == 0 {
            self.ready.push_back(ix);
        }
    }

    pub(crate) fn handle_loaded(&mut self, id: LoadId, data: Option<Bytes>) {
        let Some(Load {
            peer: ix,
            cid,
            batch: Some((batch_id, size)),
        }) = self
            .loads
            .get(&id)
            .filter(|load| load.batch.is_some())
            .copied()
        else {
            return;
        };
        self.loads.remove(&id);
        self.block_loads -= 1;
        self.bytes_held -= size;
        self.take_loaded(ix, cid, batch_id, size, data);
        self.read_blocks();
    }

    fn take_loaded(&mut self, ix: PeerIx, cid: Cid, id: u64, size: usize, data: Option<Bytes>) {
        let Some(peer) = self.peers.get_mut(&ix) else {
            return;
        };
        let Some(batch) = peer.batch.as_mut().filter(|batch| batch.id == id) else {
            return;
        };
        batch.awaited -= 1;
        batch.bytes -= size;
        let finished = batch.awaited == 0;
        let wanted = peer
            .wants
            .get(&cid)
            .is_some_and(|want| want.stage == Stage::Sending);
        match data.filter(|data| data.len() <= BLOCK_BYTES_MAX) {
            Some(data) if wanted => {
                batch.bytes += data.len();
                self.bytes_held += data.len();
                batch.blocks.push(Block::from_store(cid, data));
            }
            // Cancelled while it was read.
            Some(_) => {}
            // Deleted after its size was told.
            None if wanted => {
                if let Ok(hash) = Multihash::of(&cid) {
                    self.waiting.entry(hash).or_default().push((ix, cid));
                }
                self.refuse(ix, cid);
            }
            None => {}
        }
        if finished {
            self.finish_batch(ix);
        }
    }

    /// All blocks of a batch are read: it can be sent, unless none is left.
    fn finish_batch(&mut self, ix: PeerIx) {
        let Some(peer) = self.peers.get_mut(&ix) else {
            return;
        };
        if peer
            .batch
            .as_ref()
            .is_some_and(|batch| batch.blocks.is_empty())
        {
            peer.batch = None;
            self.enter_round(ix);
        } else {
            self.ready.push_back(ix);
        }
    }

    /// The next message of blocks.
    pub(crate) fn poll_blocks(
        &mut self,
        next_id: &mut u64,
    ) -> Option<(PeerIx, TransmitId, Message)> {
        loop {
            let ix = self.ready.pop_front()?;
            let Some(peer) = self.peers.get_mut(&ix) else {
                continue;
            };
            let Some(mut batch) = peer.batch.take() else {
                continue;
            };
            // Cancelled since they were read.
            let wants = &peer.wants;
            batch.blocks.retain(|block| {
                wants
                    .get(block.cid())
                    .is_some_and(|want| want.stage == Stage::Sending)
            });
            let cids = batch
                .blocks
                .iter()
                .map(|block| (*block.cid(), block.data().len()))
                .collect();
            let bytes = batch.blocks.iter().map(|block| block.data().len()).sum();
            self.bytes_held -= batch.bytes - bytes;
            let sent = (!batch.blocks.is_empty()).then(|| {
                *next_id += 1;
                let id = TransmitId(*next_id);
                peer.in_transit.push(InTransit { id, bytes, cids });
                let pending_bytes = peer.queued_bytes().min(i32::MAX as usize) as u32;
                (
                    ix,
                    id,
                    Message {
                        blocks: batch.blocks,
                        pending_bytes,
                        ..Message::default()
                    },
                )
            });
            self.enter_round(ix);
            self.read_blocks();
            if sent.is_some() {
                return sent;
            }
        }
    }

    /// The transport wrote a message of blocks, or could not.
    pub(crate) fn handle_sent(&mut self, to: PeerIx, id: TransmitId, written: bool) {
        let Some(peer) = self.peers.get_mut(&to) else {
            return;
        };
        let Some(position) = peer.in_transit.iter().position(|message| message.id == id) else {
            return;
        };
        let message = peer.in_transit.swap_remove(position);
        self.bytes_held -= message.bytes;
        for (cid, size) in message.cids {
            let Some(peer) = self.peers.get_mut(&to) else {
                return;
            };
            if written {
                peer.ledger.add_sent(size);
            }
            let Some(want) = peer
                .wants
                .get_mut(&cid)
                .filter(|want| want.stage == Stage::Sending)
            else {
                continue;
            };
            want.failures += u8::from(!written);
            let (failures, priority) = (want.failures, want.priority);
            if written || failures > SEND_FAILURES_MAX {
                peer.set_stage(&cid, None);
            } else {
                self.enqueue(to, cid, priority, size);
            }
        }
        self.enter_round(to);
        self.read_blocks();
    }

    // ---- output ----
}
