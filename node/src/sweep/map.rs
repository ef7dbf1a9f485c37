//! What is known of the network for a while: peers, and the parts of the keyspace in which no other peers are.
//!
//! A lookup that names the 20 peers closest to a target has also shown that there are no others as close. So it covers
//! the smallest part around the target that does not reach as far as the last of them. A key's closest peers are certain
//! once the smallest part around it with 20 known peers is covered, by one lookup or by several together.

use std::collections::{HashMap, VecDeque};

use libp2p::{Multiaddr, PeerId};

use super::position::{Position, Span};

/// Peers that keep each record: the k of the DHT.
pub(crate) const REPLICAS: usize = 20;
/// How long what a lookup said is believed, in seconds. In the public network half of the servers stay for hours.
const BELIEVED_SECS: u64 = 600;
/// How long a peer that took no records is left out, in seconds: until its keys are tried again.
const SHUNNED_SECS: u64 = 60;
/// Most peers remembered, and most lookups, so that a network of liars cannot fill the memory. With a few addresses each
/// they take 5 MB; the public network has about 10,000 servers.
const PEERS_MAX: usize = 16_384;
const LOOKUPS_MAX: usize = 8_192;
/// Addresses kept of one peer.
const ADDRESSES_MAX: usize = 8;

/// A peer and where it can be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Contact {
    pub(crate) peer: PeerId,
    pub(crate) addresses: Vec<Multiaddr>,
}

impl Contact {
    fn position(&self) -> Position {
        Position::of(&self.peer.to_bytes())
    }
}

/// Who keeps the records of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Closest {
    /// These peers do, the closest first.
    Certain(Vec<PeerId>),
    /// There may be closer ones than those known, from the first position of this span on.
    Gap(Span),
}

#[derive(Clone, Debug)]
struct Known {
    addresses: Vec<Multiaddr>,
    seen: u64,
}

/// The map.
#[derive(Debug, Default)]
pub(crate) struct Map {
    /// All known peers by position.
    order: Vec<(Position, PeerId)>,
    peers: HashMap<PeerId, Known>,
    /// What each lookup covered, and when; the oldest first.
    lookups: VecDeque<(u64, Span)>,
    /// All of that together, in order, without overlaps.
    covered: Vec<Span>,
    shunned: HashMap<PeerId, u64>,
}

impl Map {
    /// Takes the answer of a lookup that went to its end. Where there are fewer than [`REPLICAS`] peers, that is the whole
    /// network. Returns how many first bits the covered part has in common.
    pub(crate) fn learn(&mut self, target: Position, found: Vec<Contact>, now: u64) -> u32 {
        let bits = if found.len() < REPLICAS {
            0
        } else {
            let shared = found
                .iter()
                .map(|contact| contact.position().shared_bits(target));
            (shared.min().unwrap_or(0) + 1).min(u64::BITS)
        };
        self.add_peers(found, now);
        let span = target.span(bits);
        if self.lookups.len() >= LOOKUPS_MAX {
            self.lookups.drain(..LOOKUPS_MAX / 2);
            self.rebuild();
        }
        self.lookups.push_back((now, span));
        self.cover(span);
        bits
    }

    /// Takes peers of whom nothing more is known than that they are there.
    pub(crate) fn add_peers(&mut self, found: Vec<Contact>, now: u64) {
        for mut contact in found {
            if self.is_shunned(&contact.peer, now) {
                continue;
            }
            if self.peers.len() >= PEERS_MAX && !self.peers.contains_key(&contact.peer) {
                *self = Self::default();
            }
            let position = contact.position();
            contact.addresses.truncate(ADDRESSES_MAX);
            let known = Known {
                addresses: contact.addresses,
                seen: now,
            };
            if self.peers.insert(contact.peer, known).is_none() {
                let at = self.order.partition_point(|(other, _)| *other < position);
                self.order.insert(at, (position, contact.peer));
            }
        }
    }

    /// Forgets what is too old to be believed.
    pub(crate) fn expire(&mut self, now: u64) {
        let is_old = |seen: u64| seen + BELIEVED_SECS <= now;
        self.shunned.retain(|_, until| *until > now);
        let before = self.lookups.len();
        self.lookups.retain(|(seen, _)| !is_old(*seen));
        if self.lookups.len() < before {
            self.rebuild();
        }
        let before = self.peers.len();
        self.peers.retain(|_, known| !is_old(known.seen));
        if self.peers.len() < before {
            let Self { order, peers, .. } = self;
            order.retain(|(_, peer)| peers.contains_key(peer));
        }
    }

    /// Leaves a peer out for a while: it did not take our records.
    pub(crate) fn shun(&mut self, peer: PeerId, now: u64) {
        if self.shunned.len() < PEERS_MAX {
            self.shunned.insert(peer, now + SHUNNED_SECS);
        }
        self.peers.remove(&peer);
        self.order.retain(|(_, known)| *known != peer);
        self.doubt_if_small();
    }

    /// Makes sure that the next key is looked up, where that costs little: fewer than [`REPLICAS`] peers are the whole network,
    /// and each that comes or goes changes where every record belongs.
    pub(crate) fn doubt_if_small(&mut self) {
        if self.order.len() < REPLICAS {
            self.lookups.clear();
            self.covered.clear();
        }
    }

    /// Whether a peer is left out at the moment.
    pub(crate) fn is_shunned(&self, peer: &PeerId, now: u64) -> bool {
        self.shunned.get(peer).is_some_and(|until| *until > now)
    }

    /// Where a known peer can be reached.
    pub(crate) fn addresses(&self, peer: &PeerId) -> &[Multiaddr] {
        self.peers.get(peer).map_or(&[], |known| &known.addresses)
    }

    /// Who keeps the records of a key at `key`.
    pub(crate) fn closest(&self, key: Position) -> Closest {
        let bits = self.smallest_full(key);
        let span = bits.map_or(Span::ALL, |bits| key.span(bits));
        if let Some(gap) = self.gap(span) {
            return Closest::Gap(gap);
        }
        Closest::Certain(self.nearest(key, span))
    }

    /// Known peers that keep the records of a key at `key` and take records, the closest first. Closer ones may be unknown.
    pub(crate) fn keepers(&self, key: Position, now: u64) -> Vec<PeerId> {
        let bits = self.smallest_full(key);
        let known = self.nearest(key, bits.map_or(Span::ALL, |bits| key.span(bits)));
        let is_willing = |peer: &PeerId| !self.is_shunned(peer, now);
        known.into_iter().filter(is_willing).collect()
    }

    fn nearest(&self, key: Position, span: Span) -> Vec<PeerId> {
        let mut peers = self.within(span).to_vec();
        peers.sort_unstable_by_key(|(position, _)| position.distance(key));
        peers.truncate(REPLICAS);
        peers.into_iter().map(|(_, peer)| peer).collect()
    }

    /// Whether no unknown peer can be right at a position.
    pub(crate) fn covers(&self, position: Position) -> bool {
        self.gap(position.span(u64::BITS)).is_none()
    }

    /// The most first bits in common with `key` that [`REPLICAS`] known peers have.
    fn smallest_full(&self, key: Position) -> Option<u32> {
        let is_full = |bits: &u32| self.within(key.span(*bits)).len() >= REPLICAS;
        (0..u64::BITS).take_while(is_full).last()
    }

    fn within(&self, span: Span) -> &[(Position, PeerId)] {
        let start = self.order.partition_point(|(at, _)| at.0 < span.first);
        let end = self.order.partition_point(|(at, _)| at.0 <= span.last);
        &self.order[start..end]
    }

    /// The first part of `span` that no lookup has covered.
    fn gap(&self, span: Span) -> Option<Span> {
        let next = self
            .covered
            .partition_point(|covered| covered.last < span.first);
        let mut first = span.first;
        let mut last = span.last;
        if let Some(covered) = self.covered.get(next) {
            if covered.first <= first {
                first = match covered.last.checked_add(1) {
                    Some(after) if after <= span.last => after,
                    _ => return None,
                };
                if let Some(following) = self.covered.get(next + 1) {
                    last = last.min(following.first - 1);
                }
            } else {
                last = last.min(covered.first - 1);
            }
        }
        Some(Span { first, last })
    }

    fn cover(&mut self, span: Span) {
        // What ends right before it, or begins right after it, becomes one with it.
        let start = self
            .covered
            .partition_point(|c| c.last.saturating_add(1) < span.first);
        let end = self
            .covered
            .partition_point(|c| c.first <= span.last.saturating_add(1));
        let touched = &self.covered[start..end];
        let first = touched
            .first()
            .map_or(span.first, |c| c.first.min(span.first));
        let last = touched.last().map_or(span.last, |c| c.last.max(span.last));
        self.covered.splice(start..end, [Span { first, last }]);
    }

    fn rebuild(&mut self) {
        self.covered.clear();
        for index in 0..self.lookups.len() {
            self.cover(self.lookups[index].1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contact(name: u32) -> Contact {
        Contact {
            peer: super::super::tests::peer(name),
            addresses: vec!["/ip4/10.0.0.1/tcp/1".parse().unwrap()],
        }
    }

    fn spans(map: &Map) -> Vec<(u64, u64)> {
        map.covered
            .iter()
            .map(|span| (span.first, span.last))
            .collect()
    }

    #[test]
    fn covered_parts_grow_together_and_gaps_between_them_are_found() {
        let mut map = Map::default();
        let quarter = 1 << 62;
        assert_eq!(map.gap(Span::ALL), Some(Span::ALL));
        map.cover(Position(quarter).span(2));
        map.cover(Position(3 * quarter).span(2));
        assert_eq!(
            spans(&map),
            [(quarter, 2 * quarter - 1), (3 * quarter, u64::MAX)]
        );
        let gap = |first, last| Some(Span { first, last });
        assert_eq!(map.gap(Span::ALL), gap(0, quarter - 1));
        assert_eq!(map.gap(Position(quarter).span(1)), gap(0, quarter - 1));
        assert_eq!(
            map.gap(Position(u64::MAX).span(1)),
            gap(2 * quarter, 3 * quarter - 1)
        );
        assert_eq!(map.gap(Position(quarter + 5).span(64)), None);
        map.cover(Position(0).span(2));
        assert_eq!(spans(&map), [(0, 2 * quarter - 1), (3 * quarter, u64::MAX)]);
        map.cover(Position(2 * quarter).span(2));
        assert_eq!(
            (spans(&map), map.gap(Span::ALL)),
            (vec![(0, u64::MAX)], None)
        );
        map.cover(Position(9).span(5));
        assert_eq!(spans(&map), [(0, u64::MAX)]);
    }

    #[test]
    fn a_small_network_is_known_after_one_lookup_and_forgotten_in_time() {
        let mut map = Map::default();
        let found: Vec<_> = (0..5).map(contact).collect();
        assert_eq!(map.learn(Position(7), found.clone(), 100), 0);
        let Closest::Certain(peers) = map.closest(Position(u64::MAX / 3)) else {
            panic!("not certain")
        };
        assert_eq!(peers.len(), 5);
        map.shun(peers[0], 101);
        assert_eq!(map.closest(Position(9)), Closest::Gap(Span::ALL));
        map.learn(Position(7), found.clone(), 102);
        assert!(!map.peers.contains_key(&peers[0]), "still left out");
        map.learn(Position(7), found, 101 + SHUNNED_SECS);
        assert_eq!(map.peers.len(), 5);
        map.expire(101 + SHUNNED_SECS + BELIEVED_SECS);
        assert_eq!(map.closest(Position(9)), Closest::Gap(Span::ALL));
        assert!(map.peers.is_empty() && map.order.is_empty() && map.shunned.is_empty());
    }

    #[test]
    fn the_closest_are_certain_only_where_everybody_is_known() {
        let mut all: Vec<_> = (0..400).map(contact).collect();
        let mut map = Map::default();
        let target = Position(0x5555_5555_5555_5555);
        let nearest = |all: &mut Vec<Contact>, to: Position| {
            all.sort_unstable_by_key(|contact| contact.position().distance(to));
            all[..REPLICAS].to_vec()
        };
        let bits = map.learn(target, nearest(&mut all, target), 0);
        assert!((4..=6).contains(&bits), "{bits}");
        let mut lookups = 1;
        while let Closest::Gap(gap) = map.closest(target) {
            let to = Position(gap.first);
            map.learn(to, nearest(&mut all, to), 0);
            lookups += 1;
        }
        assert!(lookups <= 5, "{lookups}");
        // Every other key of that part is served without another lookup, and rightly.
        let part = target.span(map.smallest_full(target).unwrap());
        for step in 0..100 {
            let key = Position(part.first + (part.last - part.first) / 100 * step);
            if let Closest::Certain(peers) = map.closest(key) {
                let expected: Vec<_> = nearest(&mut all, key).into_iter().map(|c| c.peer).collect();
                assert_eq!(peers, expected);
            }
        }
    }
}
