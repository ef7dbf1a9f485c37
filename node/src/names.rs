//! Publishing and resolving names (IPNS) through the DHT, as seen by who wants it.
//!
//! A record that was ever seen is remembered in the store, and no older one is taken again: neither from the DHT, where anybody
//! may answer, nor from a command of this home that knows less than another.

use std::sync::Arc;
use std::time::SystemTime;

use store::substitute::{Asked, Progress};
use store::{NameRecord, Store, StoreError};

use crate::client::{BlockingClient, Client};
use crate::command::Command;
use crate::error::ClientError;
use crate::ipns::{IpnsName, IpnsRecord};

/// What a name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// The record that counts.
    pub record: IpnsRecord,
    /// Whether nobody had it but our own memory.
    pub is_remembered: bool,
    /// Who was asked.
    pub asked: Asked,
}

/// Why a name was not resolved or published.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// Nobody has a valid record.
    #[error("no valid record of `{name}` was found: {asked}")]
    Missing {
        /// The name.
        name: IpnsName,
        /// Who was asked.
        asked: Asked,
    },
    /// Only records older than one that was seen before, and that one has expired.
    #[error("`{name}` was rolled back: record {seen} was seen before, now only {got} is found")]
    RolledBack {
        /// The name.
        name: IpnsName,
        /// Highest sequence ever seen.
        seen: u64,
        /// Highest sequence found.
        got: u64,
    },
    /// The record to be published is older than one that was seen before.
    #[error("cannot publish record {sequence} of `{name}`, a newer one was seen before")]
    Older {
        /// The name.
        name: IpnsName,
        /// Sequence of the refused record.
        sequence: u64,
    },
    /// Our own store could not say or keep what was seen.
    #[error("cannot remember the records of names")]
    Store(#[source] Arc<StoreError>),
    /// The node did not answer.
    #[error(transparent)]
    Client(#[from] ClientError),
}

impl From<StoreError> for NameError {
    fn from(error: StoreError) -> Self {
        Self::Store(Arc::new(error))
    }
}

impl Client {
    /// Puts a record of a name of ours into the DHT; how many nodes have it now, by their own answer when it was asked back.
    /// Who refused it, or has a newer one, is not counted.
    ///
    /// # Errors
    /// [`NameError::Older`] when a newer record was seen before, and the failures of store and node.
    pub async fn publish_ipns(&self, record: IpnsRecord) -> Result<u32, NameError> {
        let record = Box::new(record);
        self.request(|reply| Command::PublishName { record, reply })
            .await?
    }

    /// Asks the DHT for the records of a name until all have answered or the deadline comes, and takes the newest valid one,
    /// that which was seen before included.
    ///
    /// # Errors
    /// [`NameError::Missing`], [`NameError::RolledBack`], and the failures of store and node.
    pub async fn resolve_ipns(&self, name: IpnsName) -> Result<Resolved, NameError> {
        self.request(|reply| Command::ResolveName { name, reply })
            .await?
    }
}

impl BlockingClient {
    /// See [`Client::publish_ipns`].
    ///
    /// # Errors
    /// As there.
    pub fn publish_ipns(&self, record: IpnsRecord) -> Result<u32, NameError> {
        self.block_on(self.client().publish_ipns(record))
    }

    /// See [`Client::resolve_ipns`]. Ends soon after `progress` says that it should.
    ///
    /// # Errors
    /// As there, and [`ClientError::Cancelled`].
    pub fn resolve_ipns(
        &self,
        name: IpnsName,
        progress: &dyn Progress,
    ) -> Result<Resolved, NameError> {
        self.block_on_unless(self.client().resolve_ipns(name), progress)?
    }
}

/// What a name stood for when it was last seen, if that still counts.
///
/// # Errors
/// [`NameError::Missing`], [`NameError::Store`].
pub fn remembered_name(
    store: &Store,
    name: &IpnsName,
    now: SystemTime,
) -> Result<Resolved, NameError> {
    settle(store, name, None, Asked::default(), now)
}

/// Takes the newest of what was found and what was seen before, and remembers it.
pub(crate) fn settle(
    store: &Store,
    name: &IpnsName,
    found: Option<&IpnsRecord>,
    asked: Asked,
    now: SystemTime,
) -> Result<Resolved, NameError> {
    let bytes = name.to_bytes();
    loop {
        let seen = store.name_record(&bytes)?;
        let resolved = decide(name, found, seen.as_ref(), asked, now)?;
        let record = &resolved.record;
        // Another process may have seen a newer one just now; then that one is looked at, too.
        if store.keep_name_record(&bytes, record.sequence(), record.bytes())? {
            return Ok(resolved);
        }
    }
}

fn decide(
    name: &IpnsName,
    found: Option<&IpnsRecord>,
    seen: Option<&NameRecord>,
    asked: Asked,
    now: SystemTime,
) -> Result<Resolved, NameError> {
    let remembered = seen.and_then(|seen| IpnsRecord::verify(name, &seen.record, now).ok());
    let (record, is_remembered) = match (found, remembered) {
        (Some(found), Some(remembered)) if remembered.is_newer_than(found) => (remembered, true),
        (Some(found), _) => (found.clone(), false),
        (None, Some(remembered)) => (remembered, true),
        (None, None) => return Err(NameError::Missing { name: *name, asked }),
    };
    let got = record.sequence();
    match seen {
        Some(seen) if seen.sequence > got => Err(NameError::RolledBack {
            name: *name,
            seen: seen.sequence,
            got,
        }),
        _ => Ok(Resolved {
            record,
            is_remembered,
            asked,
        }),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::identity;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn the_newest_counts_whether_found_or_remembered_and_nothing_goes_back() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let key = identity::ephemeral();
        let name = IpnsName::of(&key.public());
        let now = SystemTime::UNIX_EPOCH + 500_000 * HOUR;
        let record = |sequence, lives| {
            IpnsRecord::sign(&key, b"/ipfs/bafkqaaa", sequence, now + lives, HOUR).unwrap()
        };
        let (one, two) = (record(1, 9 * HOUR), record(2, 2 * HOUR));
        let at =
            |found: Option<&IpnsRecord>, now| settle(&store, &name, found, Asked::default(), now);
        assert!(matches!(at(None, now), Err(NameError::Missing { .. })));
        assert_eq!(at(Some(&two), now).unwrap().record, two);
        let resolved = at(Some(&one), now).unwrap();
        assert_eq!(
            (resolved.record, resolved.is_remembered),
            (two.clone(), true)
        );
        assert_eq!(at(None, now + HOUR).unwrap().record, two);
        let late = now + 3 * HOUR;
        assert!(matches!(at(None, late), Err(NameError::Missing { .. })));
        assert!(matches!(
            at(Some(&one), late),
            Err(NameError::RolledBack {
                seen: 2,
                got: 1,
                ..
            })
        ));
        let three = record(3, 9 * HOUR);
        assert_eq!(at(Some(&three), late).unwrap().record, three);
    }
}
