//! Whom to ask: the one peer per block, the probes beside it, and the help that idle peers give to slow ones.

use std::time::{Duration, Instant};

use base::Cid;

use super::{Client, Wake, is_block};
use crate::event::{Reach, SessionId};
use crate::limits::{
    DUPLICATE_MARGIN, PROBES_PER_WANT_MAX, RETRY_SCAN_MAX, SESSION_TURN_WANTS, STEAL_MARGIN,
    STEAL_SCAN_MAX, TRIES_MAX,
};
use crate::message::WantType;
use crate::peer::PeerIx;
use crate::session::Session;
use crate::want::{Answer, Ask, Place, Want};

/// What became of an attempt to assign a want.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Placement {
    /// A peer was asked.
    Placed,
    /// Peers that may have it have no room.
    Full,
    /// There is nobody to ask.
    Nobody,
    /// The want is gone, or somebody was asked meanwhile.
    Stale,
}

/// Compared from left to right, smaller is better: how sure the peer is to have it, how near it is, when it would deliver, a
/// tie-breaker. A near peer is preferred while it has room, and its room is what it keeps up with.
type Score = (u8, Reach, Duration, u64);

impl Client {
    /// Assigns up to `wants_max` queued wants of a session; returns how many.
    pub(super) fn dispatch(&mut self, id: SessionId, wants_max: usize, now: Instant) -> usize {
        let mut placed = 0;
        if self.is_full(id, now) {
            self.probe_front(id, now);
            self.await_download(id, now);
            return 0;
        }
        let mut skipped = 0;
        while placed < wants_max && skipped < RETRY_SCAN_MAX {
            let Some((at, cid)) = self.next_retry(id, skipped) else {
                break;
            };
            match self.place(id, &cid, now) {
                Placement::Full => {
                    let Some(session) = self.sessions.get_mut(&id) else {
                        break;
                    };
                    session.retry.insert(at.min(session.retry.len()), cid);
                    skipped += 1;
                }
                outcome => placed += usize::from(outcome == Placement::Placed),
            }
        }
        while placed < wants_max {
            let Some(cid) = self.next_fresh(id) else {
                break;
            };
            let outcome = self.place(id, &cid, now);
            placed += usize::from(outcome == Placement::Placed);
            if outcome == Placement::Full && !self.put_back(id, cid) {
                break;
            }
        }
        self.probe_front(id, now);
        self.await_download(id, now);
        placed
    }

    /// Queues a fresh want again that only peers without room could serve. False if that holds for all behind it too.
    fn put_back(&mut self, id: SessionId, cid: Cid) -> bool {
        let particular = self
            .wants
            .get(&cid)
            .is_some_and(|want| !want.asks.is_empty());
        if let Some(session) = self.sessions.get_mut(&id) {
            if particular {
                session.retry.push_back(cid);
            } else {
                session.fresh.push_front(cid);
            }
        }
        particular
    }

    /// Whether a session has peers to ask and none of them has room: then there is no point in trying.
    fn is_full(&self, id: SessionId, now: Instant) -> bool {
        let Some(session) = self.sessions.get(&id) else {
            return true;
        };
        let is_open = self.may_download(now);
        let (mut usable, mut room) = (false, false);
        let (mut usable_whole, mut room_whole) = (false, false);
        for (ix, member) in &session.peers {
            let Some(peer) = self.peers.get(ix).filter(|peer| peer.is_usable()) else {
                continue;
            };
            let has_room =
                (is_open || peer.is_near()) && peer.room(member.proven, &self.config) > 0;
            let is_whole = !member.is_partial();
            usable = true;
            room |= has_room;
            usable_whole |= is_whole;
            room_whole |= is_whole && has_room;
        }
        // Those who have parts take their share when they say what they have.
        if usable_whole {
            !room_whole
        } else {
            usable && !room
        }
    }

    /// Gives a peer with room the next wants of its sessions, turn by turn, then lets it help slower peers.
    pub(super) fn refill(&mut self, ix: PeerIx, now: Instant) {
        let Some(peer) = self.peers.get(&ix).filter(|peer| peer.is_usable()) else {
            return;
        };
        if self.room(ix, true, now) == 0 || peer.sessions.is_empty() {
            return;
        }
        let after = peer
            .sessions
            .range(peer.turn..)
            .skip_while(|id| **id == peer.turn);
        let ids: Vec<SessionId> = after
            .chain(peer.sessions.range(..=peer.turn))
            .copied()
            .collect();
        for id in &ids {
            self.take_offers(*id, ix, now);
        }
        loop {
            let mut placed = 0;
            for id in &ids {
                if self.sessions.get(id).is_some_and(Session::is_hungry) {
                    placed += self.dispatch(*id, SESSION_TURN_WANTS, now);
                    if let Some(peer) = self.peers.get_mut(&ix) {
                        peer.turn = *id;
                    }
                }
            }
            if placed == 0 || self.room(ix, true, now) == 0 {
                break;
            }
        }
        for id in ids {
            self.steal(id, ix, now);
        }
    }

    /// After a session withdrew wants, its peers have room.
    pub(super) fn refill_session(&mut self, id: SessionId, now: Instant) {
        let Some(session) = self.sessions.get(&id) else {
            return;
        };
        for ix in session.peers.keys().copied().collect::<Vec<_>>() {
            self.refill(ix, now);
        }
    }

    pub(super) fn has_room(&self, ix: PeerIx, id: SessionId, now: Instant) -> bool {
        let proven = self
            .sessions
            .get(&id)
            .is_some_and(|session| session.is_proven(ix));
        self.room(ix, proven, now) > 0
    }

    /// Puts wants that lost their last asked peer back into the queues of their sessions.
    pub(super) fn requeue(&mut self, cids: &[Cid], now: Instant) {
        let mut ids = std::collections::BTreeSet::new();
        for cid in cids {
            let Some(want) = self.wants.get_mut(cid) else {
                continue;
            };
            want.place = Place::Queued;
            for id in &want.sessions {
                if let Some(session) = self.sessions.get_mut(id) {
                    session.retry.push_back(*cid);
                    ids.insert(*id);
                }
            }
        }
        for id in ids {
            self.dispatch(id, usize::MAX, now);
        }
    }

    /// Puts a session's orphans back into its queue: somebody new can be asked.
    pub(super) fn adopt(&mut self, id: SessionId) {
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        for orphan in session.orphans.drain(..) {
            let Some(want) = self.wants.get_mut(&orphan.cid) else {
                continue;
            };
            if want.place
                == (Place::Orphaned {
                    since: orphan.since,
                })
            {
                want.place = Place::Queued;
                session.retry.push_back(orphan.cid);
            }
        }
    }

    /// Finds the best peer with room for a queued want and asks it.
    fn place(&mut self, id: SessionId, cid: &Cid, now: Instant) -> Placement {
        let Some(want) = self.wants.get(cid) else {
            return Placement::Stale;
        };
        if want.place != Place::Queued || !want.sessions.contains(&id) {
            return Placement::Stale;
        }
        if want.tries >= TRIES_MAX {
            self.give_up(cid, now);
            return Placement::Nobody;
        }
        let (mut best, mut anybody): (Option<(Score, PeerIx)>, bool) = (None, false);
        let mut best_whole = None;
        let mut is_anybody_whole = false;
        let is_open = self.may_download(now);
        for session in want.sessions.iter().filter_map(|id| self.sessions.get(id)) {
            for (ix, member) in &session.peers {
                let Some(peer) = self.peers.get(ix).filter(|peer| peer.is_usable()) else {
                    continue;
                };
                let has = want.ask(*ix).is_some_and(|ask| ask.answer == Answer::Has);
                if !want.allows(*ix) || (member.is_demoted() && !has) {
                    continue;
                }
                anybody = true;
                let is_sure = has || !member.is_partial();
                is_anybody_whole |= is_sure;
                let is_barred = !is_open && !peer.is_near();
                if is_barred || peer.room(member.proven, &self.config) == 0 {
                    continue;
                }
                let doubt = match (has || member.dont_haves == 0, member.proven) {
                    (true, true) => 0,
                    (true, false) if has => 0,
                    (_, true) => 1,
                    (_, false) => 2,
                };
                let eta = peer.pace.eta(peer.blocks_waiting + 1);
                let score = (doubt, peer.reach, eta, peer.salt);
                let best = if is_sure { &mut best_whole } else { &mut best };
                if best.is_none_or(|(least, _)| score < least) {
                    *best = Some((score, *ix));
                }
            }
        }
        // Who has parts is not asked on a guess while somebody else has all.
        let best = if is_anybody_whole { best_whole } else { best };
        match (best, anybody) {
            (Some((_, ix)), _) => {
                self.ask(ix, cid, WantType::Block, now);
                self.probe(id, cid, now);
                Placement::Placed
            }
            (None, true) => Placement::Full,
            (None, false) => {
                self.orphan(cid, now);
                Placement::Nobody
            }
        }
    }

    /// Asks one peer for a want.
    pub(super) fn ask(&mut self, ix: PeerIx, cid: &Cid, want_type: WantType, now: Instant) {
        let (Some(want), Some(peer)) = (self.wants.get_mut(cid), self.peers.get_mut(&ix)) else {
            return;
        };
        let earlier = want.forget(ix);
        let said_have = earlier.is_some_and(|ask| ask.answer == Answer::Has);
        let earlier = earlier.filter(|ask| ask.answer == Answer::Waiting);
        if let Some(earlier) = earlier {
            peer.drop_waiting(earlier.want_type);
        }
        want.asks.push(Ask {
            peer: ix,
            want_type,
            at: now,
            answer: Answer::Waiting,
            upgraded: earlier.is_some_and(|ask| ask.want_type != want_type),
            said_have,
        });
        if is_block(want_type) {
            want.place = Place::Asked;
            want.lonely_since = None;
            want.tries += 1;
        }
        peer.add_waiting(want_type, now);
        peer.list.want(*cid, want_type, want.priority, now);
        if peer.room(true, &self.config) == 0 {
            peer.pace.filled(now);
        }
        let due = peer.stall_due().unwrap_or(now);
        self.dirty.insert(ix);
        self.timers.arm(Wake::Peer(ix), due);
    }

    fn probe_front(&mut self, id: SessionId, now: Instant) {
        let front = self
            .sessions
            .get(&id)
            .and_then(|session| session.fresh.front())
            .copied();
        if let Some(cid) = front {
            self.probe(id, &cid, now);
        }
    }

    /// Asks peers that have shown nothing yet whether they have this one.
    fn probe(&mut self, id: SessionId, cid: &Cid, now: Instant) {
        let (Some(session), Some(want)) = (self.sessions.get(&id), self.wants.get(cid)) else {
            return;
        };
        let unknown = session.peers.iter().filter(|(ix, member)| {
            let untried = !member.proven && !member.is_probed(now) && !member.is_demoted();
            let peer = || self.peers.get(*ix).filter(|peer| peer.is_usable());
            untried && want.ask(**ix).is_none() && peer().is_some_and(|peer| peer.list.has_room())
        });
        let unknown: Vec<PeerIx> = unknown
            .map(|(ix, _)| *ix)
            .take(PROBES_PER_WANT_MAX)
            .collect();
        for ix in unknown {
            self.ask(ix, cid, WantType::Have, now);
            let session = self.sessions.get_mut(&id);
            if let Some(member) = session.and_then(|session| session.peers.get_mut(&ix)) {
                member.probe = Some((*cid, now));
            }
        }
    }

    /// Takes a want from one peer and gives it to another.
    pub(super) fn move_over(
        &mut self,
        id: SessionId,
        cid: &Cid,
        victim: PeerIx,
        thief: PeerIx,
        now: Instant,
    ) {
        let ask = self.wants.get_mut(cid).and_then(|want| {
            want.moved = true;
            want.forget(victim)
        });
        if let Some(ask) = ask {
            self.withdraw(&ask, cid, id, now);
        }
        self.ask(thief, cid, WantType::Block, now);
    }

    /// Lets an idle peer take over wants of one that would need much longer for them.
    ///
    /// A want that is far back in the slow peer's queue moves over and costs nothing. The last one is probably on its
    /// way; it is asked for twice, and whoever comes second is the price for not waiting.
    pub(super) fn steal(&mut self, id: SessionId, thief: PeerIx, now: Instant) {
        while self.has_room(thief, id, now) {
            let Some(session) = self
                .sessions
                .get(&id)
                .filter(|session| !session.is_hungry())
            else {
                return;
            };
            let Some(peer) = self.peers.get(&thief) else {
                return;
            };
            let own = 2 * peer.turnaround();
            let slowest = session
                .peers
                .keys()
                .filter(|ix| **ix != thief)
                .filter_map(|ix| self.peers.get(ix).map(|peer| (*ix, peer)))
                .filter(|(_, peer)| peer.is_usable() && peer.blocks_waiting > 0)
                .filter_map(|(ix, peer)| Some((peer.remaining(now)?, peer.blocks_waiting, ix)))
                .max();
            let Some((remaining, waiting, victim)) = slowest else {
                return;
            };
            let margin = if waiting > 1 {
                STEAL_MARGIN
            } else {
                DUPLICATE_MARGIN
            };
            if remaining <= own + margin {
                return;
            }
            let Some(cid) = self.loot(id, victim, thief) else {
                return;
            };
            if waiting > 1 {
                self.move_over(id, &cid, victim, thief, now);
            } else {
                self.ask(thief, &cid, WantType::Block, now);
            }
        }
    }

    /// A want of the session that only the victim was asked for, the latest asked first.
    fn loot(&self, id: SessionId, victim: PeerIx, thief: PeerIx) -> Option<Cid> {
        let member = self.sessions.get(&id)?.peers.get(&thief)?;
        let may_have = |want: &Want| {
            !member.is_partial() || want.ask(thief).is_some_and(|ask| ask.answer == Answer::Has)
        };
        self.peers
            .get(&victim)?
            .list
            .latest(STEAL_SCAN_MAX)
            .find(|cid| {
                self.wants.get(cid).is_some_and(|want| {
                    may_have(want)
                        && want.sessions.contains(&id)
                        && want.in_flight() == 1
                        && want.ask(victim).is_some_and(Ask::is_in_flight)
                        && want.allows(thief)
                })
            })
    }
}
