//! The records of names that this node keeps for others, as a server of the DHT.
//!
//! Only what verifies is kept, only the newest of each name, and only until it expires. When there is no room, the record
//! whose key lies farthest from us makes way: the others who keep it are nearer, and who looks for it asks them.

use std::collections::HashMap;
use std::time::{Duration, Instant, SystemTime};

use libp2p::PeerId;
use libp2p::kad::{KBucketDistance, KBucketKey, Record, RecordKey};

use crate::ipns::{IpnsError, IpnsName, IpnsNameError, IpnsRecord};

/// Records kept: 20 MiB if all were as large as they may be; real ones have 400 bytes.
const RECORDS_MAX: usize = 2048;
/// How long a record is kept after it came, as in the public network; who wants it longer publishes it again.
const KEPT: Duration = Duration::from_secs(48 * 3600);

/// Why a record is not kept.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotKept {
    /// No record of a name; the DHT's other kinds of values nobody needs any more.
    #[error("not under the key of a name")]
    Key(#[source] IpnsNameError),
    /// It does not verify, or has expired.
    #[error("not a valid record")]
    Invalid(#[source] IpnsError),
    /// A newer one is here.
    #[error("older than the record that is kept")]
    Older,
    /// There is no room, and all that is kept lies nearer to us.
    #[error("no room")]
    Full,
}

/// Records by key.
#[derive(Debug)]
pub(crate) struct NameStore {
    local: KBucketKey<PeerId>,
    kept: HashMap<RecordKey, Record>,
    records_max: usize,
}

impl NameStore {
    /// An empty store of the node `local`.
    pub(crate) fn new(local: PeerId) -> Self {
        Self {
            local: local.into(),
            kept: HashMap::new(),
            records_max: RECORDS_MAX,
        }
    }

    /// Keeps a record unless it is invalid or a newer one is here.
    pub(crate) fn keep(
        &mut self,
        mut record: Record,
        now: Instant,
        clock: SystemTime,
    ) -> Result<(), NotKept> {
        let name = IpnsName::of_dht_key(record.key.as_ref()).map_err(NotKept::Key)?;
        let new = IpnsRecord::verify(&name, &record.value, clock).map_err(NotKept::Invalid)?;
        if let Some(old) = self.kept.get(&record.key) {
            let old = IpnsRecord::verify(&name, &old.value, clock);
            if old.is_ok_and(|old| old.is_newer_than(&new)) {
                return Err(NotKept::Older);
            }
        } else if self.kept.len() >= self.records_max {
            self.make_room(&record.key)?;
        }
        let left = new.expires().duration_since(clock).unwrap_or_default();
        let latest = now + left.min(KEPT);
        record.expires = Some(record.expires.map_or(latest, |asked| asked.min(latest)));
        self.kept.insert(record.key.clone(), record);
        Ok(())
    }

    /// The record under a key.
    pub(crate) fn get(&self, key: &RecordKey) -> Option<&Record> {
        self.kept.get(key)
    }

    pub(crate) fn remove(&mut self, key: &RecordKey) {
        self.kept.remove(key);
    }

    /// Forgets what has expired.
    pub(crate) fn collect(&mut self, now: Instant) {
        self.kept.retain(|_, record| !record.is_expired(now));
    }

    /// Drops the record farthest from us, unless that would be the new one.
    fn make_room(&mut self, new: &RecordKey) -> Result<(), NotKept> {
        let farthest = self
            .kept
            .keys()
            .max_by_key(|key| self.distance(key))
            .cloned();
        match farthest {
            Some(key) if self.distance(&key) > self.distance(new) => {
                self.kept.remove(&key);
                Ok(())
            }
            _ => Err(NotKept::Full),
        }
    }

    fn distance(&self, key: &RecordKey) -> KBucketDistance {
        self.local.distance(&KBucketKey::new(key.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Keypair, identity};

    const HOUR: Duration = Duration::from_secs(3600);

    fn clock() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
    }

    fn record(key: &Keypair, sequence: u64, lives: Duration) -> Record {
        let signed =
            IpnsRecord::sign(key, b"/ipfs/bafkqaaa", sequence, clock() + lives, HOUR).unwrap();
        let dht_key = RecordKey::new(&signed.name().dht_key());
        Record::new(dht_key, signed.bytes().to_vec())
    }

    fn keep(store: &mut NameStore, record: &Record) -> Result<(), NotKept> {
        store.keep(record.clone(), Instant::now(), clock())
    }

    #[test]
    fn the_newest_record_of_a_name_is_kept() {
        let mut store = NameStore::new(PeerId::random());
        let key = identity::ephemeral();
        let (old, new) = (record(&key, 1, HOUR), record(&key, 2, HOUR));
        keep(&mut store, &old).unwrap();
        keep(&mut store, &new).unwrap();
        assert_eq!(keep(&mut store, &old), Err(NotKept::Older));
        keep(&mut store, &new).unwrap();
        assert_eq!(store.get(&old.key).unwrap().value, new.value);
    }

    #[test]
    fn what_does_not_verify_is_not_kept() {
        let mut store = NameStore::new(PeerId::random());
        let key = identity::ephemeral();
        let good = record(&key, 1, HOUR);
        let mut damaged = good.clone();
        *damaged.value.last_mut().unwrap() ^= 1;
        assert_eq!(
            keep(&mut store, &damaged),
            Err(NotKept::Invalid(IpnsError::Signature))
        );
        let others = record(&identity::ephemeral(), 1, HOUR);
        let swapped = Record::new(good.key.clone(), others.value);
        assert!(matches!(
            keep(&mut store, &swapped),
            Err(NotKept::Invalid(_))
        ));
        let elsewhere = Record::new(RecordKey::new(b"/pk/x"), good.value.clone());
        assert!(matches!(keep(&mut store, &elsewhere), Err(NotKept::Key(_))));
        let expired = record(&key, 1, Duration::ZERO);
        assert_eq!(
            keep(&mut store, &expired),
            Err(NotKept::Invalid(IpnsError::Expired))
        );
        assert!(store.kept.is_empty());
    }

    #[test]
    fn a_record_is_kept_until_its_end_and_two_days_at_most() {
        let mut store = NameStore::new(PeerId::random());
        let now = Instant::now();
        let (short, long) = (
            record(&identity::ephemeral(), 1, HOUR),
            record(&identity::ephemeral(), 1, 1000 * HOUR),
        );
        for record in [&short, &long] {
            store.keep(record.clone(), now, clock()).unwrap();
        }
        store.collect(now + HOUR - Duration::from_secs(1));
        assert_eq!(store.kept.len(), 2);
        store.collect(now + HOUR);
        assert!(store.get(&short.key).is_none() && store.get(&long.key).is_some());
        store.collect(now + KEPT);
        assert!(store.kept.is_empty());
    }

    #[test]
    fn a_full_store_keeps_what_is_nearest() {
        let mut store = NameStore::new(PeerId::random());
        store.records_max = 3;
        let mut records: Vec<_> = (0..8)
            .map(|_| record(&identity::ephemeral(), 1, HOUR))
            .collect();
        let outcomes: Vec<_> = records.iter().map(|r| keep(&mut store, r)).collect();
        assert!(
            outcomes
                .iter()
                .all(|o| matches!(o, Ok(()) | Err(NotKept::Full)))
        );
        records.sort_by_key(|record| store.distance(&record.key));
        for (place, record) in records.iter().enumerate() {
            assert_eq!(store.get(&record.key).is_some(), place < 3);
        }
    }
}
