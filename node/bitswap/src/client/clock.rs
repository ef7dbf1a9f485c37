//! What time does: stalls, resendings, deadlines, searches.

use std::time::Instant;

use base::Cid;

use super::{Client, Wake};
use crate::event::{Event, SessionId};
use crate::limits::{
    ORPHAN_TICK, RESEND_AFTER, SEARCH_DELAY, SEARCH_PERIOD, SILENCE_MAX, TAIL_TICK, WANT_AGE_MAX,
};
use crate::message::WantType;
use crate::peer::{Link, Peer, PeerIx};
use crate::session::{Orphan, SessionPeer};
use crate::want::{Answer, Ask, Place};

impl Client {
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        while let Some(wake) = self.timers.pop_due(now) {
            let next = match wake {
                Wake::Peer(ix) => self.check_peer(ix, now),
                Wake::Session(id) => self.check_session(id, now),
                Wake::Download => self.resume_downloads(now),
            };
            if let Some(next) = next {
                // What is due now was done now; a wake-up in the past would spin.
                self.timers
                    .arm(wake, next.max(now + std::time::Duration::from_millis(1)));
            }
        }
    }

    // ---- peers ----

    /// Does what is due for a peer; when to look again.
    fn check_peer(&mut self, ix: PeerIx, now: Instant) -> Option<Instant> {
        match self.peers.get(&ix)?.link {
            Link::Up => {}
            Link::Dialling { until } | Link::Pausing { until } if until > now => {
                return Some(until);
            }
            Link::Dialling { .. } => {
                self.handle_disconnected(ix, now);
                return None;
            }
            Link::Pausing { .. } => {
                self.dial_again(ix, now);
                return None;
            }
            Link::Idle | Link::Lost => return None,
        }
        if self
            .peers
            .get(&ix)?
            .stall_due()
            .is_some_and(|due| due <= now)
        {
            self.stall(ix, now);
        }
        let resend_due = self.check_oldest(ix, now);
        let peer = self.peers.get_mut(&ix)?;
        let withdrawn_due = peer.withdrawn.expire(now);
        [peer.stall_due(), resend_due, withdrawn_due]
            .into_iter()
            .flatten()
            .min()
    }

    /// Dials a lost peer once more, if a session still wants something.
    fn dial_again(&mut self, ix: PeerIx, now: Instant) {
        let Some(peer) = self.peers.get_mut(&ix) else {
            return;
        };
        let wanting = |id: &SessionId| self.sessions.get(id).is_some_and(|s| !s.wants.is_empty());
        if peer.sessions.iter().any(wanting) {
            self.dial(ix, now);
        } else {
            peer.link = Link::Idle;
        }
    }

    /// The peer made no progress for too long: its wants may go to others. It may still deliver.
    fn stall(&mut self, ix: PeerIx, now: Instant) {
        let Some(peer) = self.peers.get_mut(&ix) else {
            return;
        };
        peer.stalled = true;
        peer.drop_all_waiting();
        let told = peer.list.cids();
        for id in &peer.sessions {
            let Some(session) = self.sessions.get_mut(id) else {
                continue;
            };
            session.count(ix, |share| share.stalls += 1);
            if let Some(member) = session.peers.get_mut(&ix) {
                member.probe = None;
            }
        }
        let mut homeless = Vec::new();
        for cid in told {
            let Some(want) = self.wants.get_mut(&cid) else {
                continue;
            };
            let Some(ask) = want.ask_mut(ix).filter(|ask| ask.answer == Answer::Waiting) else {
                continue;
            };
            ask.answer = Answer::Late;
            if want.place == Place::Asked && want.in_flight() == 0 {
                homeless.push(cid);
            }
        }
        self.requeue(&homeless, now);
    }

    /// Sends the longest unanswered wants again, or counts them as refused; when the next one is due.
    fn check_oldest(&mut self, ix: PeerIx, now: Instant) -> Option<Instant> {
        loop {
            let (since, cid) = self.peers.get_mut(&ix)?.list.oldest()?;
            let ask = self.wants.get(&cid).and_then(|want| want.ask(ix)).copied();
            let Some(ask) = ask.filter(Ask::is_open) else {
                self.peers.get_mut(&ix)?.list.pass_oldest();
                continue;
            };
            if since + RESEND_AFTER > now {
                return Some(since + RESEND_AFTER);
            }
            let peer = self.peers.get_mut(&ix)?;
            let silence = now.saturating_duration_since(ask.at.max(peer.answered_at));
            if silence >= SILENCE_MAX || now.saturating_duration_since(ask.at) >= WANT_AGE_MAX {
                peer.list.pass_oldest();
                peer.list.cancel(&cid);
                self.dirty.insert(ix);
                self.refuse(ix, &cid, ask, now);
            } else {
                let priority = self.wants.get(&cid).map_or(1, |want| want.priority);
                peer.list.want(cid, ask.want_type, priority, now);
                self.dirty.insert(ix);
            }
        }
    }

    // ---- sessions ----

    /// Does what is due for a session; when to look again.
    fn check_session(&mut self, id: SessionId, now: Instant) -> Option<Instant> {
        let orphan_due = self.check_orphans(id, now);
        if self.sessions.get(&id)?.wants.is_empty() {
            return None;
        }
        let search_due = self.check_search(id, now);
        let tail_due = self.check_tail(id, now);
        [orphan_due, search_due, tail_due]
            .into_iter()
            .flatten()
            .min()
    }

    /// Nobody is left to ask for this want: look for providers, and let it end as missing if none comes.
    pub(super) fn orphan(&mut self, cid: &Cid, now: Instant) {
        let Some(want) = self.wants.get_mut(cid) else {
            return;
        };
        let since = *want.lonely_since.get_or_insert(now);
        want.place = Place::Orphaned { since };
        for id in want.sessions.clone() {
            self.search_if_due(id, cid, now);
            self.ask_demoted(id, cid, now);
            let Some(session) = self.sessions.get_mut(&id) else {
                continue;
            };
            let search_start = if session.search.active {
                since
            } else {
                session.search.next(now)
            };
            let due = search_start + self.config.providers_deadline;
            session.orphans.push_back(Orphan {
                since,
                due,
                cid: *cid,
            });
            self.timers
                .arm(Wake::Session(id), due.min(now + ORPHAN_TICK));
        }
    }

    /// Before a want is given up, even those who refused all others are asked whether they have it.
    fn ask_demoted(&mut self, id: SessionId, cid: &Cid, now: Instant) {
        let (Some(session), Some(want)) = (self.sessions.get(&id), self.wants.get(cid)) else {
            return;
        };
        let unasked = session.peers.iter().filter(|(ix, member)| {
            let peer = || self.peers.get(*ix).filter(|peer| peer.is_usable());
            member.is_demoted()
                && want.ask(**ix).is_none()
                && peer().is_some_and(|peer| peer.list.has_room())
        });
        for ix in unasked.map(|(ix, _)| *ix).collect::<Vec<_>>() {
            self.ask(ix, cid, WantType::Have, now);
        }
    }

    /// Ends orphans whose time has come; when the next one's comes.
    fn check_orphans(&mut self, id: SessionId, now: Instant) -> Option<Instant> {
        let coming = self
            .sessions
            .get(&id)?
            .peers
            .keys()
            .any(|ix| self.peers.get(ix).is_some_and(Peer::is_coming));
        loop {
            let session = self.sessions.get_mut(&id)?;
            let Orphan { since, due, cid } = *session.orphans.front()?;
            let valid = session.wants.contains(&cid)
                && self
                    .wants
                    .get(&cid)
                    .is_some_and(|w| w.place == Place::Orphaned { since });
            if valid && due > now {
                return Some(due.min(session.search.next(now).max(now + ORPHAN_TICK)));
            }
            if valid && (coming || self.awaits_answer(&cid)) {
                return Some(now + ORPHAN_TICK);
            }
            self.sessions.get_mut(&id)?.orphans.pop_front();
            if valid {
                self.miss(id, &cid, now);
            }
        }
    }

    /// Whether somebody who was asked for this want may still answer.
    fn awaits_answer(&self, cid: &Cid) -> bool {
        self.wants.get(cid).is_some_and(|want| {
            want.asks.iter().any(|ask| {
                let usable = || self.peers.get(&ask.peer).is_some_and(Peer::is_usable);
                ask.answer == Answer::Waiting && usable()
            })
        })
    }

    /// Ends a want of a session without its block.
    fn miss(&mut self, id: SessionId, cid: &Cid, now: Instant) {
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        session.missing += 1;
        session.remove(cid);
        self.events.push_back(Event::Missing {
            session: id,
            cid: *cid,
        });
        self.unwant(cid, id, now);
    }

    /// Ends a want for every session: so many peers were asked in vain that one more would not help.
    pub(super) fn give_up(&mut self, cid: &Cid, now: Instant) {
        let Some(want) = self.wants.get(cid) else {
            return;
        };
        for id in want.sessions.clone() {
            self.miss(id, cid, now);
        }
    }

    /// Looks for providers when the first peers stay silent, when orphans lack any, and every now and then.
    fn check_search(&mut self, id: SessionId, now: Instant) -> Option<Instant> {
        let session = self.sessions.get(&id)?;
        let starving = !session.orphans.is_empty();
        let proven = session.peers.values().any(|member| member.proven);
        let due = match session.search.asked_at {
            _ if starving => session.search.next(now),
            None if !proven => session.wanting_since + SEARCH_DELAY,
            asked_at => asked_at.unwrap_or(session.wanting_since) + SEARCH_PERIOD,
        };
        if due > now {
            return Some(due);
        }
        let orphan = session.orphans.front().map(|orphan| orphan.cid);
        let cid = orphan.or_else(|| session.wants.iter().next().copied())?;
        self.search(id, cid, now);
        Some(now + SEARCH_PERIOD)
    }

    fn search_if_due(&mut self, id: SessionId, cid: &Cid, now: Instant) {
        if self
            .sessions
            .get(&id)
            .is_some_and(|session| session.search.next(now) <= now)
        {
            self.search(id, *cid, now);
        }
    }

    fn search(&mut self, id: SessionId, cid: Cid, now: Instant) {
        if let Some(session) = self.sessions.get_mut(&id) {
            session.search.asked_at = Some(now);
            session.search.active = true;
            self.events
                .push_back(Event::FindProviders { session: id, cid });
        }
    }

    /// The search brought all it will bring: orphans need not wait for it any longer.
    pub(crate) fn search_ended(&mut self, id: SessionId, now: Instant) {
        let Some(session) = self.sessions.get_mut(&id).filter(|s| s.search.active) else {
            return;
        };
        session.search.active = false;
        let (wants, peers, members) = (&self.wants, &self.peers, &session.peers);
        for orphan in &mut session.orphans {
            let Some(want) = wants.get(&orphan.cid) else {
                continue;
            };
            // A connected peer that is only slow keeps its time, even if it was not asked for this one yet.
            let may_answer = |(ix, member): (&PeerIx, &SessionPeer)| {
                let is_slow = |peer: &Peer| peer.link == Link::Up && peer.stalled && !peer.banned;
                let is_silent = |ask: &Ask| ask.answer != Answer::HasNot;
                let is_open = want.ask(*ix).map_or(member.proven, is_silent);
                is_open && peers.get(ix).is_some_and(is_slow)
            };
            if !members.iter().any(may_answer) {
                orphan.due = now;
            }
        }
        // Those that end now first: only the front is looked at.
        session
            .orphans
            .make_contiguous()
            .sort_by_key(|orphan| orphan.due);
        self.timers.arm(Wake::Session(id), now);
    }

    /// With nothing left to assign, idle peers help the slow ones.
    fn check_tail(&mut self, id: SessionId, now: Instant) -> Option<Instant> {
        let session = self.sessions.get(&id)?;
        if session.is_hungry() || session.peers.len() < 2 {
            return Some(now + 4 * TAIL_TICK);
        }
        for ix in session.peers.keys().copied().collect::<Vec<_>>() {
            self.steal(id, ix, now);
        }
        Some(now + TAIL_TICK)
    }
}
