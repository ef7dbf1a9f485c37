//! Answers: blocks, HAVE and DONT_HAVE.

use std::time::Instant;

use base::Cid;

use super::{Client, Wake, is_block};
use crate::event::{Event, Misbehaviour, SessionId};
use crate::limits::{BLOCK_BYTES_MAX, WANTS_PER_PEER_MAX, WITHDRAWN_FOR};
use crate::message::{Block, Presence, WantType};
use crate::peer::{Link, PeerIx};
use crate::want::{Answer, Ask, Place, Want};

impl Client {
    /// Part of an unfinished frame came in.
    pub(crate) fn handle_receiving(&mut self, from: PeerIx, bytes: usize, now: Instant) {
        if let Some(peer) = self.peers.get_mut(&from) {
            peer.receiving(bytes, now);
        }
    }

    /// A block came in. Its name is the hash of its bytes, so whoever sent it: if it is wanted, this is it.
    pub(crate) fn handle_block(&mut self, from: PeerIx, block: Block, now: Instant) {
        let Some(peer) = self.peers.get_mut(&from).filter(|peer| !peer.banned) else {
            return;
        };
        let (cid, block) = (*block.cid(), block.into_verified());
        let bytes = block.len();
        if bytes > BLOCK_BYTES_MAX {
            return self.ban(from, Misbehaviour::OversizeBlock, now);
        }
        if !peer.is_near() {
            self.config.download.charge(bytes, now);
        }
        if let Some(want) = self.wants.remove(&cid) {
            peer.ledger.add_received(bytes);
            self.take_block(from, want, cid, block, now);
        } else if let Some(session) = peer.withdrawn.take(&cid) {
            peer.ledger.add_duplicate(bytes);
            if let Some(session) = self.sessions.get_mut(&session) {
                session.count(from, |share| {
                    share.duplicate_blocks += 1;
                    share.duplicate_bytes += bytes as u64;
                });
            }
            self.prove(from, session);
        } else {
            peer.ledger.add_unrequested(bytes);
            if peer.floods() {
                self.ban(from, Misbehaviour::UnrequestedBlocks, now);
            }
            return;
        }
        self.heard(from, now);
        self.refill(from, now);
    }

    /// Ends a want with its block.
    fn take_block(
        &mut self,
        from: PeerIx,
        mut want: Want,
        cid: Cid,
        block: base::Block,
        now: Instant,
    ) {
        let bytes = block.len();
        let answered = want.forget(from);
        if let Some(peer) = self.peers.get_mut(&from) {
            peer.list.answered(&cid);
            if answered.is_some_and(|ask| ask.upgraded) {
                peer.withdrawn.add(cid, want.sessions[0], now);
                self.timers.arm(Wake::Peer(from), now + WITHDRAWN_FOR);
            }
            if let Some(ask) = answered.filter(Ask::is_open) {
                let latency = now.saturating_duration_since(ask.at);
                peer.pace.on_answer(latency);
                if is_block(ask.want_type) {
                    peer.pace.on_block_answer(latency);
                }
                if ask.answer == Answer::Waiting {
                    peer.drop_waiting(ask.want_type);
                }
            }
            peer.pace.on_block(bytes, now);
        }
        for id in &want.sessions {
            let Some(session) = self.sessions.get_mut(id) else {
                continue;
            };
            session.remove(&cid);
            session.count(from, |share| {
                share.blocks += 1;
                share.bytes += bytes as u64;
            });
            if let Some(member) = session.peers.get_mut(&from) {
                member.prove();
            }
        }
        let first = want.sessions[0];
        for ask in &want.asks {
            self.withdraw(ask, &cid, first, now);
        }
        self.events.push_back(Event::Block {
            sessions: want.sessions,
            cid,
            block,
            from: Some(from),
        });
        for ask in want.asks.iter().filter(|ask| is_block(ask.want_type)) {
            self.refill(ask.peer, now);
        }
        if self.wants.is_empty() {
            self.next_priority = crate::limits::PRIORITY_FIRST;
        }
    }

    /// A complete answer came: the peer lives. If it had been given up, what it still owes counts again.
    fn heard(&mut self, from: PeerIx, now: Instant) {
        let Some(peer) = self.peers.get_mut(&from) else {
            return;
        };
        peer.answered(now);
        if !std::mem::take(&mut peer.stalled) {
            return;
        }
        for cid in peer.list.cids() {
            self.revive(from, &cid, now);
        }
        self.usable_again(from, now);
    }

    /// Something that was overdue is waited for again, or withdrawn if another peer is at it by now.
    fn revive(&mut self, from: PeerIx, cid: &Cid, now: Instant) {
        let Some(want) = self.wants.get_mut(cid) else {
            return;
        };
        let taken = want.in_flight() > 0;
        let Some(ask) = want.ask_mut(from).filter(|ask| ask.answer == Answer::Late) else {
            return;
        };
        if is_block(ask.want_type) && taken {
            let (ask, id) = (*ask, want.sessions[0]);
            want.moved = true;
            want.forget(from);
            return self.withdraw(&ask, cid, id, now);
        }
        ask.answer = Answer::Waiting;
        let want_type = ask.want_type;
        if is_block(want_type) {
            want.place = Place::Asked;
            want.lonely_since = None;
        }
        if let Some(peer) = self.peers.get_mut(&from) {
            peer.add_waiting(want_type, now);
            let due = peer.stall_due().unwrap_or(now);
            self.timers.arm(Wake::Peer(from), due);
        }
    }

    pub(crate) fn handle_presence(
        &mut self,
        from: PeerIx,
        cid: &Cid,
        presence: Presence,
        now: Instant,
    ) {
        if !self
            .peers
            .get(&from)
            .is_some_and(|peer| peer.link == Link::Up && !peer.banned)
        {
            return;
        }
        match presence {
            Presence::Have => self.handle_have(from, cid, now),
            Presence::DontHave => self.handle_dont_have(from, cid, now),
        }
    }

    fn handle_have(&mut self, from: PeerIx, cid: &Cid, now: Instant) {
        let Some(peer) = self.peers.get_mut(&from) else {
            return;
        };
        let Some(want) = self.wants.get_mut(cid) else {
            // Its block came from elsewhere before the answer did; it says something about the peer all the same.
            if let Some(id) = peer.withdrawn.take(cid) {
                self.prove(from, id);
                self.heard(from, now);
                self.refill(from, now);
            }
            return;
        };
        let is_news = |ask: &&mut Ask| match ask.answer {
            Answer::Has => false,
            Answer::HasNot => !ask.said_have,
            Answer::Waiting | Answer::Late => true,
        };
        let Some(ask) = want.ask_mut(from).filter(is_news) else {
            return;
        };
        if !is_block(ask.want_type) {
            if ask.is_open() {
                peer.pace.on_answer(now.saturating_duration_since(ask.at));
            }
            if ask.answer == Answer::Waiting {
                peer.drop_waiting(ask.want_type);
            }
            ask.answer = Answer::Has;
            peer.list.answered(cid);
        }
        let orphaned = matches!(want.place, Place::Orphaned { .. });
        for id in want.sessions.clone() {
            self.prove(from, id);
        }
        self.heard(from, now);
        if orphaned {
            self.requeue(&[*cid], now);
        }
        if let Some(want) = self.wants.get(cid) {
            for id in want.sessions.clone() {
                self.offered(id, from, cid, now);
            }
        }
        self.refill(from, now);
    }

    fn prove(&mut self, from: PeerIx, id: SessionId) {
        let session = self.sessions.get_mut(&id);
        if let Some(member) = session.and_then(|session| session.peers.get_mut(&from)) {
            member.prove();
        }
    }

    fn handle_dont_have(&mut self, from: PeerIx, cid: &Cid, now: Instant) {
        let Some(peer) = self.peers.get_mut(&from) else {
            return;
        };
        let Some(ask) = self.wants.get(cid).and_then(|want| want.ask(from)).copied() else {
            // It crossed our cancel.
            if peer.withdrawn.take(cid).is_some() {
                self.clear_probe(from, cid);
                self.heard(from, now);
            }
            return;
        };
        if ask.answer == Answer::HasNot {
            return;
        }
        if ask.is_open() {
            peer.pace.on_answer(now.saturating_duration_since(ask.at));
        }
        self.leave_word(from, cid, now);
        self.refuse(from, cid, ask, now);
        self.heard(from, now);
        self.refill(from, now);
    }

    /// A peer that has it not keeps a want-have: it will tell when it gets the block. A want-block would make it send what
    /// we may get from elsewhere by then. Where that would fill its list, the want is taken back.
    fn leave_word(&mut self, with: PeerIx, cid: &Cid, now: Instant) {
        let (Some(peer), Some(want)) = (self.peers.get_mut(&with), self.wants.get_mut(cid)) else {
            return;
        };
        let priority = want.priority;
        let Some(ask) = want.ask_mut(with) else {
            return;
        };
        if peer.list.len() > WANTS_PER_PEER_MAX / 2 {
            peer.list.cancel(cid);
        } else if is_block(ask.want_type) {
            ask.want_type = WantType::Have;
            peer.list.want(*cid, WantType::Have, priority, now);
        } else {
            return;
        }
        self.dirty.insert(with);
    }

    /// A peer has it not, by its own word or because it was silent for too long.
    pub(super) fn refuse(&mut self, from: PeerIx, cid: &Cid, ask: Ask, now: Instant) {
        let Some(want) = self.wants.get_mut(cid) else {
            return;
        };
        if let Some(ask) = want.ask_mut(from) {
            ask.answer = Answer::HasNot;
        }
        let homeless = want.place == Place::Asked && want.in_flight() == 0;
        let (sessions, orphaned) = (want.sessions.clone(), want.place != Place::Asked);
        if ask.answer == Answer::Waiting
            && let Some(peer) = self.peers.get_mut(&from)
        {
            peer.drop_waiting(ask.want_type);
        }
        let mut found_out = Vec::new();
        for id in sessions {
            let Some(session) = self.sessions.get_mut(&id) else {
                continue;
            };
            session.count(from, |share| share.dont_haves += 1);
            if let Some(member) = session.peers.get_mut(&from) {
                if !std::mem::replace(&mut member.lacks, true) && !member.fellow {
                    found_out.push(id);
                }
                member.dont_haves += 1;
                member.proven &= ask.answer != Answer::Has && !member.is_demoted();
                member.probe.take_if(|(probe, _)| probe == cid);
            }
            if orphaned {
                self.timers.arm(Wake::Session(id), now);
            }
        }
        for id in found_out {
            self.canvass_all(id, from, now);
        }
        if homeless {
            self.requeue(&[*cid], now);
        }
    }

    /// The peer is asked for nothing any more; what it was asked goes to others at once.
    fn ban(&mut self, ix: PeerIx, what: Misbehaviour, now: Instant) {
        let Some(peer) = self.peers.get_mut(&ix) else {
            return;
        };
        peer.banned = true;
        peer.drop_all_waiting();
        let told = peer.list.cids();
        for cid in &told {
            peer.list.cancel(cid);
        }
        self.dirty.insert(ix);
        self.events
            .push_back(Event::PeerMisbehaved { peer: ix, what });
        self.release(ix, &told, now);
    }
}
