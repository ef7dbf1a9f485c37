//! What the DHT part of a node remembers: who provides what.
//!
//! The library's own `MemoryStore` stops at 1024 keys, counts our own among them, and frees expired records only when
//! somebody asks for their key, so that a busy node soon refuses everything, its own announcements included. Here our own
//! keys are kept apart, the records of others are bounded per key, per record and in total, and the peer that takes most
//! room makes way when it is full. Value records are kept by [`NameStore`].

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::iter;
use std::time::{Duration, Instant, SystemTime};

use base::{Multihash, Sha256};
use libp2p::kad::store::{Error, RecordStore, Result};
use libp2p::kad::{ProviderRecord, Record, RecordKey};
use libp2p::{Multiaddr, PeerId};

use crate::name_store::NameStore;

/// Providers remembered per key: the k of the DHT, and as many as fit a reply.
const PROVIDERS_PER_KEY_MAX: usize = 20;
/// Records remembered in total: those of two mirrors with 100,000 keys each, in a network so small that each of its nodes
/// keeps all. At about 150 bytes each, 40 MB when full.
const RECORDS_MAX: usize = 262_144;
/// Time between two searches for what has expired. Looking at all records takes some milliseconds.
const COLLECT_AGAIN: Duration = Duration::from_secs(60);
/// Addresses kept of one record. A host with a LAN, a VPN and IPv6 has six.
const ADDRESSES_MAX: usize = 8;
/// Longest key, in bytes: the limit of Go peers. Ours have 34.
const KEY_BYTES_MAX: usize = 80;

/// Provider records, ours and those of others.
#[derive(Debug)]
pub(crate) struct ProviderStore {
    local: PeerId,
    names: NameStore,
    /// Keys that we announce, all of them sha2-256 multihashes: 40 bytes for each.
    own: HashSet<Sha256>,
    /// Records that others asked us to keep.
    others: HashMap<Box<[u8]>, Vec<Kept>>,
    peers: Peers,
    records: usize,
    records_max: usize,
    collect_at: Option<Instant>,
}

/// A record of another peer.
#[derive(Clone, Copy, Debug)]
struct Kept {
    by: Slot,
    expires: Option<Instant>,
}

/// A peer in [`Peers`].
type Slot = u32;

/// Who has records here. What is the same in all records of a peer is kept once: its addresses are those of its newest.
#[derive(Debug, Default)]
struct Peers {
    slots: Vec<Option<Peer>>,
    free: Vec<Slot>,
    by_id: HashMap<PeerId, Slot>,
}

#[derive(Debug)]
struct Peer {
    id: PeerId,
    addresses: Vec<Multiaddr>,
    records: usize,
}

impl Peers {
    /// Counts one more record of a peer.
    fn add(&mut self, id: PeerId, addresses: Vec<Multiaddr>) -> Slot {
        if let Some(slot) = self.by_id.get(&id).copied() {
            if let Some(peer) = &mut self.slots[slot as usize] {
                peer.addresses = addresses;
                peer.records += 1;
            }
            return slot;
        }
        let peer = Peer {
            id,
            addresses,
            records: 1,
        };
        let slot = self.free.pop().unwrap_or(self.slots.len() as Slot);
        match self.slots.get_mut(slot as usize) {
            Some(place) => *place = Some(peer),
            None => self.slots.push(Some(peer)),
        }
        self.by_id.insert(id, slot);
        slot
    }

    /// Counts one record less, and forgets the peer with its last.
    fn remove(&mut self, slot: Slot) {
        let Some(place) = self.slots.get_mut(slot as usize) else {
            return;
        };
        if let Some(peer) = place {
            peer.records -= 1;
            if peer.records == 0 {
                self.by_id.remove(&peer.id);
                *place = None;
                self.free.push(slot);
            }
        }
    }

    fn get(&self, slot: Slot) -> Option<&Peer> {
        self.slots.get(slot as usize)?.as_ref()
    }

    /// Who has most records.
    fn greediest(&self) -> Option<(Slot, PeerId)> {
        let present = (0..).zip(&self.slots);
        let peers = present.filter_map(|(slot, peer)| Some((slot, peer.as_ref()?)));
        let (slot, peer) = peers.max_by_key(|(slot, peer)| (peer.records, *slot))?;
        Some((slot, peer.id))
    }
}

impl ProviderStore {
    /// An empty store of the node `local`.
    pub(crate) fn new(local: PeerId) -> Self {
        Self::with_capacity(local, RECORDS_MAX)
    }

    fn with_capacity(local: PeerId, records_max: usize) -> Self {
        Self {
            local,
            names: NameStore::new(local),
            own: HashSet::new(),
            others: HashMap::new(),
            peers: Peers::default(),
            records: 0,
            records_max,
            collect_at: None,
        }
    }

    /// Whether a record from another peer may be kept. The library has already compared its provider with its sender.
    pub(crate) fn accepts(record: &ProviderRecord) -> bool {
        let key = record.key.as_ref();
        (1..=KEY_BYTES_MAX).contains(&key.len()) && !record.addresses.is_empty()
    }

    /// The records of names.
    pub(crate) const fn names_mut(&mut self) -> &mut NameStore {
        &mut self.names
    }

    /// Notes that we announce a key.
    pub(crate) fn add_own(&mut self, key: &Multihash) {
        self.own.insert(key.digest());
    }

    /// Notes that these are all the keys that we announce.
    pub(crate) fn set_own(&mut self, keys: &[Multihash]) {
        self.own = keys.iter().map(Multihash::digest).collect();
    }

    /// Forgets what has expired, once a minute.
    pub(crate) fn collect(&mut self, now: Instant) {
        self.names.collect(now);
        if self.collect_at.is_some_and(|at| now < at) {
            return;
        }
        self.collect_at = Some(now + COLLECT_AGAIN);
        let Self {
            others,
            peers,
            records,
            ..
        } = self;
        others.retain(|_, kept| {
            kept.retain(|record| {
                let keep = record.expires.is_none_or(|at| now < at);
                if !keep {
                    *records -= 1;
                    peers.remove(record.by);
                }
                keep
            });
            !kept.is_empty()
        });
    }

    /// Records kept for others.
    pub(crate) fn len(&self) -> usize {
        self.records
    }

    fn add_other(&mut self, record: ProviderRecord) -> Result<()> {
        let key = record.key.as_ref();
        let slot = self.peers.by_id.get(&record.provider).copied();
        let kept = self.others.get(key).map_or(&[][..], Vec::as_slice);
        let known = slot.filter(|slot| kept.iter().any(|kept| kept.by == *slot));
        match known {
            Some(slot) => self.remove_other(key, slot),
            None => {
                let key_is_full = kept.len() >= PROVIDERS_PER_KEY_MAX;
                let is_full = self.records >= self.records_max;
                if key_is_full || (is_full && !self.make_room(&record.provider)) {
                    return Err(Error::MaxProvidedKeys);
                }
            }
        }
        self.records += 1;
        let kept = Kept {
            by: self.peers.add(record.provider, record.addresses),
            expires: record.expires,
        };
        match self.others.get_mut(key) {
            Some(others) => others.push(kept),
            // With room for one: most keys have one provider.
            None => drop(self.others.insert(key.into(), vec![kept])),
        }
        Ok(())
    }

    /// Drops one record of the peer that has most, unless that is the one who asks for more.
    fn make_room(&mut self, asking: &PeerId) -> bool {
        let Some((slot, greediest)) = self.peers.greediest() else {
            return false;
        };
        if greediest == *asking {
            return false;
        }
        let is_theirs = |kept: &Kept| kept.by == slot;
        let mut others = self.others.iter();
        let victim = others.find(|(_, kept)| kept.iter().any(is_theirs));
        let Some(key) = victim.map(|(key, _)| key.clone()) else {
            return false;
        };
        self.remove_other(&key, slot);
        true
    }

    fn remove_other(&mut self, key: &[u8], by: Slot) {
        let Some(kept) = self.others.get_mut(key) else {
            return;
        };
        let before = kept.len();
        kept.retain(|kept| kept.by != by);
        let removed = before > kept.len();
        if kept.is_empty() {
            self.others.remove(key);
        }
        if removed {
            self.records -= 1;
            self.peers.remove(by);
        }
    }

    fn restore(&self, key: &RecordKey, kept: &Kept) -> Option<ProviderRecord> {
        let peer = self.peers.get(kept.by)?;
        let record = ProviderRecord::new(key.clone(), peer.id, peer.addresses.clone());
        Some(ProviderRecord {
            expires: kept.expires,
            ..record
        })
    }
}

/// What is hashed in a key that is a sha2-256 multihash.
fn digest(key: &RecordKey) -> Option<Sha256> {
    let digest = key.as_ref().strip_prefix(&[0x12, 0x20])?;
    Some(Sha256::from_bytes(digest.try_into().ok()?))
}

impl RecordStore for ProviderStore {
    type RecordsIter<'a> = iter::Empty<Cow<'a, Record>>;
    type ProvidedIter<'a> = iter::Empty<Cow<'a, ProviderRecord>>;

    fn get(&self, key: &RecordKey) -> Option<Cow<'_, Record>> {
        self.names.get(key).map(Cow::Borrowed)
    }

    /// Records of our own; the library knows no error that says more.
    fn put(&mut self, record: Record) -> Result<()> {
        self.names
            .keep(record, Instant::now(), SystemTime::now())
            .map_err(|_| Error::MaxRecords)
    }

    fn remove(&mut self, key: &RecordKey) {
        self.names.remove(key);
    }

    /// Empty on purpose: who published a record publishes it again, and others must not keep it alive.
    fn records(&self) -> Self::RecordsIter<'_> {
        iter::empty()
    }

    fn add_provider(&mut self, mut record: ProviderRecord) -> Result<()> {
        if record.provider == self.local {
            self.own.extend(digest(&record.key));
            return Ok(());
        }
        record.addresses.truncate(ADDRESSES_MAX);
        self.add_other(record)
    }

    fn providers(&self, key: &RecordKey) -> Vec<ProviderRecord> {
        let ours = digest(key)
            .is_some_and(|digest| self.own.contains(&digest))
            .then(|| ProviderRecord::new(key.clone(), self.local, Vec::new()));
        let kept = self.others.get(key.as_ref()).into_iter().flatten();
        let others = kept.filter_map(|kept| self.restore(key, kept));
        ours.into_iter().chain(others).collect()
    }

    /// Empty on purpose: the library would announce all of these again at once; `providers` has its own schedule.
    fn provided(&self) -> Self::ProvidedIter<'_> {
        iter::empty()
    }

    fn remove_provider(&mut self, key: &RecordKey, peer: &PeerId) {
        if *peer == self.local {
            if let Some(digest) = digest(key) {
                self.own.remove(&digest);
            }
            return;
        }
        if let Some(slot) = self.peers.by_id.get(peer).copied() {
            self.remove_other(key.as_ref(), slot);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: u32) -> RecordKey {
        RecordKey::new(&name.to_be_bytes())
    }

    fn record(name: u32, provider: PeerId) -> ProviderRecord {
        ProviderRecord::new(
            key(name),
            provider,
            vec!["/ip4/10.0.0.1/tcp/1".parse().unwrap()],
        )
    }

    #[test]
    fn our_own_keys_take_no_room_are_never_pushed_out_and_never_republished_by_the_library() {
        let local = PeerId::random();
        let mut store = ProviderStore::with_capacity(local, 10);
        let own = |n: u32| Multihash::sha2_256(&Sha256::of(&n.to_be_bytes()));
        let record_key = |n| RecordKey::new(own(n).as_bytes());
        let keys: Vec<_> = (0..1000).map(own).collect();
        store.set_own(&keys);
        store.add_own(&own(1000));
        for name in 0..100 {
            // Others fill it, and some of them provide what we do.
            let _ = store.add_provider(record(name, PeerId::random()));
            let theirs = ProviderRecord {
                key: record_key(name),
                ..record(name, PeerId::random())
            };
            let _ = store.add_provider(theirs);
        }
        assert_eq!((store.len(), store.provided().count()), (10, 0));
        for name in 0..=1000 {
            assert_eq!(store.providers(&record_key(name))[0].provider, local);
        }
        store.remove_provider(&record_key(7), &local);
        assert!(
            store
                .providers(&record_key(7))
                .iter()
                .all(|r| r.provider != local)
        );
        store.set_own(&keys[..1]);
        assert!(
            store
                .providers(&record_key(8))
                .iter()
                .all(|r| r.provider != local)
        );
        assert_eq!(store.providers(&record_key(0))[0].provider, local);
    }

    #[test]
    fn records_are_bounded_per_key_and_a_repeated_one_only_refreshes() {
        let mut store = ProviderStore::new(PeerId::random());
        let first = PeerId::random();
        store.add_provider(record(1, first)).unwrap();
        for _ in 1..PROVIDERS_PER_KEY_MAX {
            store.add_provider(record(1, PeerId::random())).unwrap();
        }
        assert!(store.add_provider(record(1, PeerId::random())).is_err());
        let mut again = record(1, first);
        again.addresses = vec!["/ip4/10.9.9.9/tcp/9".parse().unwrap(); 50];
        store.add_provider(again).unwrap();
        assert_eq!(store.len(), PROVIDERS_PER_KEY_MAX);
        let kept = store
            .providers(&key(1))
            .into_iter()
            .find(|r| r.provider == first)
            .unwrap();
        assert_eq!(kept.addresses.len(), ADDRESSES_MAX);
    }

    #[test]
    fn a_full_store_takes_from_who_has_most_and_never_feeds_the_greediest() {
        let mut store = ProviderStore::with_capacity(PeerId::random(), 10);
        let (greedy, modest) = (PeerId::random(), PeerId::random());
        for name in 0..10 {
            store.add_provider(record(name, greedy)).unwrap();
        }
        assert!(store.add_provider(record(99, greedy)).is_err());
        store.add_provider(record(50, modest)).unwrap();
        assert_eq!(store.len(), 10);
        let slot = store.peers.by_id[&greedy];
        assert_eq!(store.peers.get(slot).unwrap().records, 9);
        assert_eq!(store.providers(&key(50)).len(), 1);
    }

    #[test]
    fn expired_records_free_their_room() {
        let mut store = ProviderStore::new(PeerId::random());
        let now = Instant::now();
        let mut short = record(1, PeerId::random());
        short.expires = Some(now + Duration::from_secs(1));
        let mut long = record(1, PeerId::random());
        long.expires = Some(now + Duration::from_secs(10));
        store.add_provider(short).unwrap();
        store.add_provider(long).unwrap();
        store.collect(now + Duration::from_secs(5));
        assert_eq!((store.len(), store.providers(&key(1)).len()), (1, 1));
        store.collect(now + Duration::from_secs(11));
        assert_eq!(store.len(), 1, "not looked for yet");
        store.collect(now + Duration::from_secs(5) + COLLECT_AGAIN);
        let left = (store.len(), store.others.len(), store.peers.by_id.len());
        assert_eq!(left, (0, 0, 0));
        // The places of those who are gone are given to others.
        for name in 0..3 {
            store.add_provider(record(name, PeerId::random())).unwrap();
        }
        assert_eq!((store.len(), store.peers.slots.len()), (3, 3));
    }

    #[test]
    fn records_without_addresses_or_with_odd_keys_are_not_accepted() {
        let peer = PeerId::random();
        assert!(ProviderStore::accepts(&record(1, peer)));
        assert!(!ProviderStore::accepts(&ProviderRecord::new(
            key(1),
            peer,
            Vec::new()
        )));
        let long = ProviderRecord {
            key: RecordKey::new(&[0; 81]),
            ..record(1, peer)
        };
        assert!(!ProviderStore::accepts(&long));
        let empty = ProviderRecord {
            key: RecordKey::new(b""),
            ..record(1, peer)
        };
        assert!(!ProviderStore::accepts(&empty));
    }
}
