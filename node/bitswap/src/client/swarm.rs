//! Peers that have parts: others who fetch the same thing, and holders of half of it.
//!
//! Such a peer is asked what it has before it is asked for it, by a want-have for all that a session wants, which it keeps and
//! answers when it gets a block. So what one downloader has got is known to the others within a latency, and they take it
//! from there instead of from the one peer that has everything. That works the better the more different the things
//! are that they got from it, so beside such peers most wants are not placed in order.

use std::collections::BTreeSet;
use std::time::Instant;

use base::Cid;

use super::Client;
use crate::event::SessionId;
use crate::limits::{IN_ORDER_ONE_IN, SESSION_FELLOWS_MAX, WANTS_PER_PEER_MAX};
use crate::message::WantType;
use crate::peer::{Peer, PeerIx};
use crate::rng::Rng;
use crate::session::{Session, SessionPeer};
use crate::want::{Answer, Place, Want};

impl Client {
    /// A peer asks us for blocks. Where we want them ourselves, it is fetching what we are fetching.
    pub(crate) fn handle_asked<'a>(
        &mut self,
        from: PeerIx,
        cids: impl Iterator<Item = &'a Cid>,
        now: Instant,
    ) {
        if self.wants.is_empty() {
            return;
        }
        let asked = cids.filter_map(|cid| self.wants.get(cid));
        let ids: BTreeSet<SessionId> = asked.flat_map(|want| &want.sessions).copied().collect();
        for id in ids {
            let Some(session) = self.sessions.get(&id) else {
                continue;
            };
            let known = session.peers.get(&from);
            let is_full = known.is_none() && session.peers.len() >= SESSION_FELLOWS_MAX;
            if is_full || known.is_some_and(|member| member.fellow) {
                continue;
            }
            self.join(id, from);
            let session = self.sessions.get_mut(&id);
            if let Some(member) = session.and_then(|session| session.peers.get_mut(&from)) {
                member.fellow = true;
            }
            self.canvass_all(id, from, now);
        }
    }

    /// Asks all who have, or will have, parts whether they have these; they will also say when they get them.
    pub(super) fn canvass(&mut self, id: SessionId, cids: &[Cid], now: Instant) {
        let Some(session) = self.sessions.get(&id) else {
            return;
        };
        let partial = |member: &SessionPeer| member.is_partial() && !member.is_demoted();
        let members = session.peers.iter().filter(|(_, member)| partial(member));
        for ix in members.map(|(ix, _)| *ix).collect::<Vec<_>>() {
            self.canvass_peer(ix, cids, now);
        }
    }

    fn canvass_peer(&mut self, ix: PeerIx, cids: &[Cid], now: Instant) {
        for cid in cids {
            let is_usable = |peer: &&Peer| peer.is_usable() && peer.list.has_room();
            let Some(peer) = self.peers.get(&ix).filter(is_usable) else {
                return;
            };
            // What was taken back from it may be on its way: asked again, a small block would come twice.
            let is_open = |want: &Want| {
                want.ask(ix).is_none() && !(want.moved && peer.withdrawn.contains(cid))
            };
            if self.wants.get(cid).is_some_and(is_open) {
                self.ask(ix, cid, WantType::Have, now);
            }
        }
    }

    /// A peer has turned out to have parts only: it is asked which of all that a session wants.
    pub(super) fn canvass_all(&mut self, id: SessionId, ix: PeerIx, now: Instant) {
        if let Some(session) = self.sessions.get(&id) {
            let mut cids: Vec<Cid> = session.wants.iter().copied().collect();
            // In their order, and not in that of a hash map.
            cids.sort_unstable_by_key(|cid| {
                let priority = self.wants.get(cid).map_or(0, |want| want.priority);
                (std::cmp::Reverse(priority), *cid)
            });
            self.canvass_peer(ix, &cids, now);
        }
    }

    /// Asks a peer for what it said it has, as far as nobody else is asked for it and it has room.
    pub(super) fn take_offers(&mut self, id: SessionId, ix: PeerIx, now: Instant) {
        while self.has_room(ix, id, now) {
            let session = self.sessions.get_mut(&id);
            let member = session.and_then(|session| session.peers.get_mut(&ix));
            let Some(cid) = member.and_then(|member| member.offers.pop_front()) else {
                return;
            };
            self.take_offer(id, ix, &cid, now);
        }
    }

    /// Asks a peer for one thing that it said it has, or takes it over for it from a peer that would need much longer.
    fn take_offer(&mut self, id: SessionId, ix: PeerIx, cid: &Cid, now: Instant) {
        let Some(want) = self.wants.get(cid) else {
            return;
        };
        if want.ask(ix).is_none_or(|ask| ask.answer != Answer::Has) {
            return;
        }
        match want.place {
            Place::Queued => self.ask(ix, cid, WantType::Block, now),
            Place::Asked if want.in_flight() == 1 => {
                let asked = want.asks.iter().find(|ask| ask.is_in_flight());
                let (Some(asked), Some(peer)) = (asked.copied(), self.peers.get(&ix)) else {
                    return;
                };
                let victim = self.peers.get(&asked.peer);
                let waiting = victim.map_or(0, |victim| victim.blocks_waiting);
                let remaining = victim.and_then(|victim| victim.remaining(now));
                // The last one is probably on its way.
                let eta = peer.pace.eta(peer.blocks_waiting + 1);
                if waiting > 1 && remaining.is_some_and(|time| time > eta) {
                    self.move_over(id, cid, asked.peer, ix, now);
                    self.refill(asked.peer, now);
                }
            }
            Place::Asked | Place::Orphaned { .. } => {}
        }
    }

    /// A peer said that it has this: it is asked at once if it has room, or kept in mind.
    pub(super) fn offered(&mut self, id: SessionId, ix: PeerIx, cid: &Cid, now: Instant) {
        if self.has_room(ix, id, now) {
            return self.take_offer(id, ix, cid, now);
        }
        let session = self.sessions.get_mut(&id);
        if let Some(member) = session.and_then(|session| session.peers.get_mut(&ix)) {
            if member.offers.len() >= WANTS_PER_PEER_MAX {
                member.offers.pop_front();
            }
            member.offers.push_back(*cid);
        }
    }

    /// The next want that nobody was asked for. Beside others who fetch the same, mostly not the first in order: who gets
    /// the same blocks at the same time has nothing to give to each other.
    pub(super) fn next_fresh(&mut self, id: SessionId) -> Option<Cid> {
        let session = self.sessions.get_mut(&id)?;
        let at = any_of(session.fresh.len(), 0, session, &mut self.rng);
        session.fresh.remove(at)
    }

    /// The same of those that came back, with its place; so many were tried and put back.
    pub(super) fn next_retry(&mut self, id: SessionId, skipped: usize) -> Option<(usize, Cid)> {
        let session = self.sessions.get_mut(&id)?;
        let at = any_of(session.retry.len(), skipped, session, &mut self.rng);
        Some((at, session.retry.remove(at)?))
    }
}

/// Which of a number of queued wants comes next; `first` where order matters.
fn any_of(length: usize, first: usize, session: &Session, rng: &mut Rng) -> usize {
    if length < 2 || !session.is_swarm() || rng.one_in(IN_ORDER_ONE_IN) {
        return first;
    }
    rng.below(length as u64) as usize
}
