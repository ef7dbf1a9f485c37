//! The queue of DHT keys to announce. All processes of a home add to it; the node that runs longest works it off.

use base::{Multihash, Sha256};

use crate::index::{from_sql, to_sql};
use crate::{Store, StoreError};

/// A key is overdue this long after it was due, in seconds. Until then it is only waiting for its neighbours.
const OVERDUE_SECS: u64 = 3600;

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

/// How what a key stands for has come here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProvideOrigin {
    /// It was made, published or added here.
    Made,
    /// Others made it, and it was fetched because something needed it.
    Fetched,
}

/// Which keys are meant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProvideScope {
    /// All of the queue.
    #[default]
    All,
    /// Only those of [`ProvideOrigin::Made`].
    Made,
}

/// A key that was announced: when, and when it is due again, in seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Provided {
    /// The DHT key.
    pub key: Multihash,
    /// When it was announced.
    pub at_unix_secs: u64,
    /// When it is due again.
    pub next_unix_secs: u64,
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
    /// Keys that were announced and should have been again an hour ago.
    pub overdue: u64,
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

impl ProvideScope {
    /// Least value of the index's column `made`.
    const fn made_min(self) -> i64 {
        match self {
            Self::All => 0,
            Self::Made => 1,
        }
    }
}

impl Store {
    /// Adds the key of something that was made or added here, due at once. A key that is there already keeps its schedule.
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
        self.provide_as(ProvideOrigin::Made, keys)
    }

    /// [`Self::provide_all`] for what may only have been fetched. What was also made here stays so.
    ///
    /// # Errors
    /// [`StoreError`] when the index could not be written.
    pub fn provide_as(
        &self,
        origin: ProvideOrigin,
        keys: &[(Multihash, ProvideKind)],
    ) -> Result<(), StoreError> {
        self.index.write(|transaction| {
            let mut insert = transaction.prepare_cached(
                "INSERT INTO provide (hash, kind, due, provided, made) VALUES (?1, ?2, 0, NULL, ?3)
                 ON CONFLICT (hash) DO UPDATE SET made = 1 WHERE made < excluded.made",
            )?;
            for (key, kind) in keys {
                let made = origin == ProvideOrigin::Made;
                insert.execute((key.digest().as_bytes(), kind.code(), made))?;
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
        scope: ProvideScope,
        now_unix_secs: u64,
        limit: usize,
    ) -> Result<Vec<Provide>, StoreError> {
        let rows = self.index.read(|connection| {
            connection
                .prepare_cached(
                    "SELECT hash, kind, provided FROM provide WHERE due <= ?1 AND made >= ?2
                     ORDER BY due LIMIT ?3",
                )?
                .query_map(
                    (
                        to_sql(now_unix_secs),
                        scope.made_min(),
                        to_sql(limit as u64),
                    ),
                    |row| Ok((row.get::<_, [u8; 32]>(0)?, row.get(1)?, row.get(2)?)),
                )?
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

    /// All keys, due or not.
    ///
    /// # Errors
    /// [`StoreError`] when the index could not be read.
    pub fn provide_keys(&self, scope: ProvideScope) -> Result<Vec<Multihash>, StoreError> {
        self.index.read(|connection| {
            connection
                .prepare_cached("SELECT hash FROM provide WHERE made >= ?1")?
                .query_map([scope.made_min()], |row| {
                    let digest = Sha256::from_bytes(row.get(0)?);
                    Ok(Multihash::sha2_256(&digest))
                })?
                .collect()
        })
    }

    /// Notes that keys were announced.
    ///
    /// # Errors
    /// [`StoreError`] when the index could not be written.
    pub fn set_provided(&self, keys: &[Provided]) -> Result<(), StoreError> {
        self.index.write(|transaction| {
            let mut update = transaction
                .prepare_cached("UPDATE provide SET provided = ?2, due = ?3 WHERE hash = ?1")?;
            for provided in keys {
                let digest = provided.key.digest();
                update.execute((
                    digest.as_bytes(),
                    to_sql(provided.at_unix_secs),
                    to_sql(provided.next_unix_secs),
                ))?;
            }
            Ok(())
        })
    }

    /// Notes how many others provide keys. When room must be made, what the most others have goes first.
    ///
    /// # Errors
    /// [`StoreError`] when the index could not be written.
    pub fn set_other_providers(&self, counts: &[(Multihash, u32)]) -> Result<(), StoreError> {
        self.index.write(|transaction| {
            let mut update =
                transaction.prepare_cached("UPDATE provide SET others = ?2 WHERE hash = ?1")?;
            for (key, others) in counts {
                update.execute((key.digest().as_bytes(), others))?;
            }
            Ok(())
        })
    }

    /// Compares the addresses that announcements carry from now on with those that they carried: with a new one, every key is
    /// due now, because records that lead elsewhere are worth little. Returns whether that is so. An address that is gone
    /// changes nothing while the others remain. Addresses are whatever bytes the node tells them apart by.
    ///
    /// # Errors
    /// [`StoreError`] when the index could not be read or written.
    pub fn renew_provides(
        &self,
        addresses: &[Vec<u8>],
        now_unix_secs: u64,
    ) -> Result<bool, StoreError> {
        self.index.write(|transaction| {
            let known = |address: &Vec<u8>| {
                transaction
                    .prepare_cached("SELECT 1 FROM announced WHERE address = ?1")?
                    .exists([address])
            };
            let mut is_new = false;
            for address in addresses {
                is_new |= !known(address)?;
            }
            if is_new {
                transaction.execute("DELETE FROM announced", [])?;
                let mut insert =
                    transaction.prepare_cached("INSERT OR IGNORE INTO announced VALUES (?1)")?;
                for address in addresses {
                    insert.execute([address])?;
                }
                let now = to_sql(now_unix_secs);
                transaction.execute("UPDATE provide SET due = ?1 WHERE due > ?1", [now])?;
            }
            Ok(is_new)
        })
    }

    /// How the queue stands at a moment.
    ///
    /// # Errors
    /// [`StoreError`] when the index could not be read.
    pub fn provide_counts(
        &self,
        scope: ProvideScope,
        now_unix_secs: u64,
    ) -> Result<ProvideCounts, StoreError> {
        let overdue = now_unix_secs.saturating_sub(OVERDUE_SECS);
        self.index.read(|connection| {
            connection
                .prepare_cached(
                    "SELECT count(*), count(*) FILTER (WHERE provided IS NULL),
                     count(*) FILTER (WHERE due <= ?1),
                     count(*) FILTER (WHERE due <= ?2 AND provided IS NOT NULL),
                     count(*) FILTER (WHERE kind = 1), count(*) FILTER (WHERE kind = 2),
                     count(*) FILTER (WHERE kind = 3)
                     FROM provide WHERE made >= ?3",
                )?
                .query_row(
                    (to_sql(now_unix_secs), to_sql(overdue), scope.made_min()),
                    |row| {
                        Ok(ProvideCounts {
                            total: from_sql(row.get(0)?),
                            never: from_sql(row.get(1)?),
                            due: from_sql(row.get(2)?),
                            overdue: from_sql(row.get(3)?),
                            packages: from_sql(row.get(4)?),
                            sources: from_sql(row.get(5)?),
                            roots: from_sql(row.get(6)?),
                        })
                    },
                )
        })
    }
}
