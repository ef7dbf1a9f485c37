//! The newest record seen of each name (IPNS), so that nobody can answer with an older one later.
//!
//! What a record means is the network's business; here it is bytes under a number that only grows. The records of our own
//! names lie here too, for whoever publishes them again.

use rusqlite::OptionalExtension as _;

use crate::index::{from_sql, to_sql};
use crate::{Store, StoreError};

/// The newest record seen of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameRecord {
    /// Its sequence number.
    pub sequence: u64,
    /// The record as it travels.
    pub record: Vec<u8>,
    /// When we published it last, in seconds since 1970; `None` when never.
    pub published_unix_secs: Option<u64>,
}

impl Store {
    /// The newest record seen of a name, which may have expired meanwhile; `None` when none was ever seen.
    ///
    /// # Errors
    /// [`StoreError`] when the index could not be read.
    pub fn name_record(&self, name: &[u8]) -> Result<Option<NameRecord>, StoreError> {
        self.index.read(|connection| {
            connection
                .prepare_cached(
                    "SELECT sequence, record, published FROM name_record WHERE name = ?1",
                )?
                .query_row([name], |row| {
                    Ok(NameRecord {
                        sequence: u64::from_be_bytes(row.get(0)?),
                        record: row.get(1)?,
                        published_unix_secs: row.get::<_, Option<i64>>(2)?.map(from_sql),
                    })
                })
                .optional()
        })
    }

    /// Remembers a record of a name instead of an older one; `false` when a higher sequence was seen before.
    ///
    /// # Errors
    /// [`StoreError`] when the index could not be written.
    pub fn keep_name_record(
        &self,
        name: &[u8],
        sequence: u64,
        record: &[u8],
    ) -> Result<bool, StoreError> {
        let sequence = sequence.to_be_bytes();
        self.index.write(|transaction| {
            transaction.execute(
                "INSERT INTO name_record (name, sequence, record, published)
                 VALUES (?1, ?2, ?3, NULL)
                 ON CONFLICT (name) DO UPDATE
                 SET sequence = excluded.sequence, record = excluded.record, published = NULL
                 WHERE excluded.sequence >= sequence AND excluded.record <> record",
                (name, sequence, record),
            )?;
            let is_newest = transaction
                .prepare_cached("SELECT 1 FROM name_record WHERE name = ?1 AND sequence = ?2")?
                .exists((name, sequence))?;
            Ok(is_newest)
        })
    }

    /// Notes when the record of a name was published, unless it is another one by now.
    ///
    /// # Errors
    /// [`StoreError`] when the index could not be written.
    pub fn set_name_published(
        &self,
        name: &[u8],
        record: &[u8],
        at_unix_secs: u64,
    ) -> Result<(), StoreError> {
        self.index.write(|transaction| {
            transaction.execute(
                "UPDATE name_record SET published = ?3 WHERE name = ?1 AND record = ?2",
                (name, record, to_sql(at_unix_secs)),
            )?;
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        (dir, store)
    }

    #[test]
    fn a_sequence_never_goes_back() {
        let (_dir, store) = store();
        let newest = || store.name_record(b"name").unwrap().unwrap();
        assert_eq!(store.name_record(b"name").unwrap(), None);
        assert!(store.keep_name_record(b"name", 0, b"zero").unwrap());
        assert!(store.keep_name_record(b"name", u64::MAX, b"last").unwrap());
        assert!(!store.keep_name_record(b"name", 7, b"seven").unwrap());
        assert_eq!(newest().record, b"last");
        assert_eq!(newest().sequence, u64::MAX);
        assert!(store.keep_name_record(b"other", 7, b"seven").unwrap());
    }

    #[test]
    fn a_new_record_is_due_for_publishing_and_the_same_one_stays_published() {
        let (_dir, store) = store();
        let published = || {
            store
                .name_record(b"n")
                .unwrap()
                .unwrap()
                .published_unix_secs
        };
        store.keep_name_record(b"n", 1, b"first").unwrap();
        store.set_name_published(b"n", b"first", 5).unwrap();
        assert!(store.keep_name_record(b"n", 1, b"first").unwrap());
        assert_eq!(published(), Some(5));
        assert!(store.keep_name_record(b"n", 1, b"longer").unwrap());
        assert_eq!(published(), None);
        store.set_name_published(b"n", b"first", 6).unwrap();
        assert_eq!(published(), None, "that was another record");
    }
}
