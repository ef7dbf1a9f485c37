//! The queue of DHT keys to announce. All processes of a home add to it; the node that runs longest works it off.

use base::{Multihash, Sha256};

use crate::index::{from_sql, to_sql};
use crate::{Store, StoreError};

/// What a key stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ProvideKind {
    /// A package hash of which we hold a realisation and the output.
    Package,
    /// The plain SHA-256 of a source we hold.
    Source,
    /// The root of a blob we hold.
    Root,
}

/// One key of the queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Provide {
    /// The DHT key.
    pub key: Multihash,
    /// What it stands for.
    pub kind: ProvideKind,
    /// When it was announced last, in seconds since 1970; `None` when never.
    pub provided_unix_secs: Option<u64>,
}

/// How the queue stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProvideCounts {
    /// All keys.
    pub total: u64,
    /// Keys that were never announced.
    pub never: u64,
    /// Keys whose time has come, the never announced ones included.
    pub due: u64,
    /// Package hashes among all keys.
    pub packages: u64,
    /// Sources among all keys.
    pub sources: u64,
    /// Roots among all keys.
    pub roots: u64,
}

impl ProvideKind {
    /// As the index writes it.
    const fn code(self) -> i64 {
        match self {
            Self::Package => 1,
            Self::Source => 2,
            Self::Root => 3,
        }
    }

    const fn of_code(code: i64) -> Option<Self> {
        match code {
            1 => Some(Self::Package),
            2 => Some(Self::Source),
            3 => Some(Self::Root),
            _ => None,
        }
    }
}

impl Store {
    /// Adds a key, due at once. A key that is there already keeps its schedule.
    ///
    /// # Errors
    /// [`StoreError`] when the index could not be written.
    pub fn provide(&self, key: &Multihash, kind: ProvideKind) -> Result<(), StoreError> {
        self.provide_all(&[(*key, kind)])
    }

    /// [`Self::provide`] for many keys, in one commit.
    ///
    /// # Errors
    /// [`StoreError`] when the index could not be written.
    pub fn provide_all(&self, keys: &[(Multihash, ProvideKind)]) -> Result<(), StoreError> {
        self.index.write(|transaction| {
            let mut insert = transaction.prepare_cached(
                "INSERT OR IGNORE INTO provide (hash, kind, due, provided) VALUES (?1, ?2, 0, NULL)",
            )?;
            for (key, kind) in keys {
                insert.execute((key.digest().as_bytes(), kind.code()))?;
            }
            Ok(())
        })
    }

    /// Removes a key; `false` when it was not there.
    ///
    /// # Errors
    /// [`StoreError`] when the index could not be written.
    pub fn unprovide(&self, key: &Multihash) -> Result<bool, StoreError> {
        self.index.write(|transaction| {
            let digest = key.digest();
            let removed =
                transaction.execute("DELETE FROM provide WHERE hash = ?1", [digest.as_bytes()])?;
            Ok(removed > 0)
        })
    }

    /// The keys that are due, the longest overdue first; keys never announced come before all others.
    ///
    /// # Errors
    /// [`StoreError`] when the index could not be read.
    pub fn provides_due(
        &self,
        now_unix_secs: u64,
        limit: usize,
    ) -> Result<Vec<Provide>, StoreError> {
        let rows = self.index.read(|connection| {
            connection
                .prepare_cached(
                    "SELECT hash, kind, provided FROM provide WHERE due <= ?1 ORDER BY due LIMIT ?2",
                )?
                .query_map((to_sql(now_unix_secs), to_sql(limit as u64)), |row| {
                    Ok((row.get::<_, [u8; 32]>(0)?, row.get(1)?, row.get::<_, Option<i64>>(2)?))
                })?
                .collect::<rusqlite::Result<Vec<_>>>()
        })?;
        let provide = |(digest, kind, provided): ([u8; 32], i64, Option<i64>)| {
            let kind = ProvideKind::of_code(kind)
                .ok_or_else(|| StoreError::corrupt(format!("key of unknown kind {kind}")))?;
            let key = Multihash::sha2_256(&Sha256::from_bytes(digest));
            Ok(Provide {
                key,
                kind,
                provided_unix_secs: provided.map(from_sql),
            })
        };
        rows.into_iter().map(provide).collect()
    }

    /// Notes that keys were announced at `at_unix_secs` and are due again at `next_unix_secs`.
    ///
    /// # Errors
    /// [`StoreError`] when the index could not be written.
    pub fn set_provided(
        &self,
        keys: &[Multihash],
        at_unix_secs: u64,
        next_unix_secs: u64,
    ) -> Result<(), StoreError> {
        self.index.write(|transaction| {
            let mut update = transaction
                .prepare_cached("UPDATE provide SET provided = ?2, due = ?3 WHERE hash = ?1")?;
            for key in keys {
                let digest = key.digest();
                update.execute((
                    digest.as_bytes(),
                    to_sql(at_unix_secs),
                    to_sql(next_unix_secs),
                ))?;
            }
            Ok(())
        })
    }

    /// How the queue stands at a moment.
    ///
    /// # Errors
    /// [`StoreError`] when the index could not be read.
    pub fn provide_counts(&self, now_unix_secs: u64) -> Result<ProvideCounts, StoreError> {
        self.index.read(|connection| {
            connection
                .prepare_cached(
                    "SELECT count(*), count(*) FILTER (WHERE provided IS NULL),
                     count(*) FILTER (WHERE due <= ?1), count(*) FILTER (WHERE kind = 1),
                     count(*) FILTER (WHERE kind = 2), count(*) FILTER (WHERE kind = 3)
                     FROM provide",
                )?
                .query_row([to_sql(now_unix_secs)], |row| {
                    Ok(ProvideCounts {
                        total: from_sql(row.get(0)?),
                        never: from_sql(row.get(1)?),
                        due: from_sql(row.get(2)?),
                        packages: from_sql(row.get(3)?),
                        sources: from_sql(row.get(4)?),
                        roots: from_sql(row.get(5)?),
                    })
                })
        })
    }
}
