//! What the DHT part of a node remembers: who provides what.
//!
//! The library's own `MemoryStore` stops at 1024 keys, counts our own among them, and frees expired records only when
//! somebody asks for their key, so that a busy node soon refuses everything, its own announcements included. Here our own
//! keys are kept apart, the records of others are bounded per key, per record and in total, and the peer that takes most
//! room makes way when it is full. Value records are kept by [`NameStore`].

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::iter;
use std::time::{Instant, SystemTime};

use base::{Multihash, Sha256};
use libp2p::PeerId;
use libp2p::kad::store::{Error, RecordStore, Result};
use libp2p::kad::{ProviderRecord, Record, RecordKey};

use crate::name_store::NameStore;

/// Providers remembered per key: the k of the DHT, and as many as fit a reply.
const PROVIDERS_PER_KEY_MAX: usize = 20;
/// Records remembered in total. At about 400 bytes each, 26 MB when full.
const RECORDS_MAX: usize = 65_536;
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
    others: HashMap<RecordKey, Vec<ProviderRecord>>,
    /// How many of them each peer has.
    per_peer: HashMap<PeerId, usize>,
    records: usize,
    records_max: usize,
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
            per_peer: HashMap::new(),
            records: 0,
            records_max,
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

    /// Forgets what has expired.
    pub(crate) fn collect(&mut self, now: Instant) {
        self.names.collect(now);
        let Self {
            others,
            per_peer,
            records,
            ..
        } = self;
        others.retain(|_, providers| {
            providers.retain(|record| {
                let keep = !record.is_expired(now);
                if !keep {
                    forget(per_peer, records, &record.provider);
                }
                keep
            });
            !providers.is_empty()
        });
    }

    /// Records kept for others.
    pub(crate) fn len(&self) -> usize {
        self.records
    }

    fn add_other(&mut self, record: ProviderRecord) -> Result<()> {
        let providers = self.others.get(&record.key);
        let known = providers.is_some_and(|all| all.iter().any(|r| r.provider == record.provider));
        if known {
            self.remove_provider(&record.key, &record.provider);
        } else {
            let key_is_full = providers.is_some_and(|all| all.len() >= PROVIDERS_PER_KEY_MAX);
            let is_full = self.records >= self.records_max;
            if key_is_full || (is_full && !self.make_room(&record.provider)) {
                return Err(Error::MaxProvidedKeys);
            }
        }
        *self.per_peer.entry(record.provider).or_default() += 1;
        self.records += 1;
        self.others
            .entry(record.key.clone())
            .or_default()
            .push(record);
        Ok(())
    }

    /// Drops one record of the peer that has most, unless that is the one who asks for more.
    fn make_room(&mut self, asking: &PeerId) -> bool {
        let Some(greediest) = self
            .per_peer
            .iter()
            .max_by_key(|(peer, count)| (**count, peer.to_bytes()))
        else {
            return false;
        };
        let greediest = *greediest.0;
        if greediest == *asking {
            return false;
        }
        let victim = self.others.iter().find_map(|(key, providers)| {
            providers
                .iter()
                .any(|record| record.provider == greediest)
                .then(|| key.clone())
        });
        victim.is_some_and(|key| {
            self.remove_provider(&key, &greediest);
            true
        })
    }
}

/// What is hashed in a key that is a sha2-256 multihash.
fn digest(key: &RecordKey) -> Option<Sha256> {
    let digest = key.as_ref().strip_prefix(&[0x12, 0x20])?;
    Some(Sha256::from_bytes(digest.try_into().ok()?))
}

fn forget(per_peer: &mut HashMap<PeerId, usize>, records: &mut usize, peer: &PeerId) {
    *records -= 1;
    if let Some(count) = per_peer.get_mut(peer) {
        *count -= 1;
        if *count == 0 {
            per_peer.remove(peer);
        }
    }
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
        let others = self.others.get(key).into_iter().flatten().cloned();
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
        let Some(providers) = self.others.get_mut(key) else {
            return;
        };
        let before = providers.len();
        providers.retain(|record| record.provider != *peer);
        let emptied = providers.is_empty();
        if before > providers.len() {
            forget(&mut self.per_peer, &mut self.records, peer);
        }
        if emptied {
            self.others.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

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
        assert_eq!(store.per_peer[&greedy], 9);
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
        assert_eq!(
            (store.len(), store.others.len(), store.per_peer.len()),
            (0, 0, 0)
        );
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
