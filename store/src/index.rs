//! The index: one SQLite database, open to several processes at once (architecture D13).
//!
//! WAL mode lets readers go on while somebody writes; `synchronous=FULL` makes a commit durable before it returns. Each
//! process writes through one connection behind a mutex, because SQLite's own waiting is unfair between threads.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags, Transaction, TransactionBehavior};

use crate::StoreError;

/// How long we wait for another process, in seconds: longer than any of our transactions by far (they hold no
/// hashing and no copying), short enough for a user to learn that something hangs.
pub(crate) const BUSY_SECS: u64 = 30;
/// Version of the layout: of this schema and of the directories.
const LAYOUT: i64 = 1;
/// Marks the database as ours ("p2pk" in ASCII).
const APPLICATION_ID: i64 = 0x7032_706b;
/// Idle connections kept for readers; more than this many readers at once open their own.
const IDLE_READERS_MAX: usize = 8;

/// `blob.id` is never used again (AUTOINCREMENT): who found a blob damaged must not remove the one that replaced it.
/// `leaf` has a row for each chunk of each blob: a chunk that occurs in two blobs survives the loss of one.
/// `block` holds dag-pb nodes, derivation texts and other small blocks. All hashes are bare SHA-256 digests.
const SCHEMA: &str = "
CREATE TABLE blob (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    sha256 BLOB NOT NULL UNIQUE,
    size INTEGER NOT NULL,
    root_codec INTEGER NOT NULL,
    root BLOB NOT NULL,
    mtime_ns INTEGER NOT NULL,
    inode INTEGER NOT NULL
) STRICT;
CREATE INDEX blob_by_root ON blob (root);
CREATE TABLE leaf (
    hash BLOB NOT NULL,
    blob INTEGER NOT NULL,
    offset INTEGER NOT NULL,
    length INTEGER NOT NULL,
    PRIMARY KEY (hash, blob)
) STRICT, WITHOUT ROWID;
CREATE TABLE block (
    id INTEGER PRIMARY KEY,
    hash BLOB NOT NULL UNIQUE,
    bytes BLOB NOT NULL
) STRICT;
CREATE TABLE derivation (pkghash BLOB NOT NULL PRIMARY KEY) STRICT, WITHOUT ROWID;
CREATE TABLE realisation (
    pkghash BLOB NOT NULL,
    bytes BLOB NOT NULL,
    output BLOB NOT NULL,
    PRIMARY KEY (pkghash, bytes)
) STRICT, WITHOUT ROWID;
CREATE TABLE pin (
    class INTEGER NOT NULL,
    sha256 BLOB NOT NULL,
    pkghash BLOB NOT NULL,
    name TEXT NOT NULL,
    added INTEGER NOT NULL,
    PRIMARY KEY (class, sha256, pkghash, name)
) STRICT, WITHOUT ROWID;
CREATE TABLE provide (
    hash BLOB NOT NULL PRIMARY KEY,
    kind INTEGER NOT NULL,
    due INTEGER NOT NULL,
    provided INTEGER
) STRICT, WITHOUT ROWID;
CREATE INDEX provide_by_due ON provide (due);
";

/// The index of one store.
#[derive(Debug)]
pub(crate) struct Index {
    path: PathBuf,
    writer: Mutex<Connection>,
    readers: Mutex<Vec<Connection>>,
}

impl Index {
    /// Opens the index, making it when it is missing. The caller holds the store's lock.
    pub(crate) fn open(path: &Path, root: &Path) -> Result<Self, StoreError> {
        let mut writer = connect(path)?;
        let prepared = prepare(&mut writer).map_err(|e| error(path, e))?;
        if prepared != LAYOUT {
            return Err(StoreError::Layout {
                root: root.to_owned(),
                found: prepared,
                known: LAYOUT,
            });
        }
        writer
            .execute_batch(crate::names::SCHEMA)
            .map_err(|e| error(path, e))?;
        let (writer, readers) = (Mutex::new(writer), Mutex::default());
        Ok(Self {
            path: path.to_owned(),
            writer,
            readers,
        })
    }

    /// Reads. Each statement sees a consistent state; two statements may see two.
    pub(crate) fn read<T>(
        &self,
        query: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        let idle = lock(&self.readers).pop();
        let connection = match idle {
            Some(connection) => connection,
            None => connect(&self.path)?,
        };
        let result = query(&connection);
        let mut readers = lock(&self.readers);
        if readers.len() < IDLE_READERS_MAX {
            readers.push(connection);
        }
        drop(readers);
        result.map_err(|e| error(&self.path, e))
    }

    /// Writes, all or nothing, while no other thread or process does.
    pub(crate) fn write<T>(
        &self,
        change: impl FnOnce(&Transaction<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut writer = lock(&self.writer);
        let transaction = writer
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(|e| error(&self.path, e))?;
        let result = change(&transaction)?;
        transaction.commit().map_err(|e| error(&self.path, e))?;
        Ok(result)
    }
}

/// Inside `Index::write`, errors of statements become ours without repeating the path.
impl From<rusqlite::Error> for StoreError {
    fn from(source: rusqlite::Error) -> Self {
        error(Path::new("index.sqlite"), source)
    }
}

/// SQLite knows signed integers only; sizes and times of ours stay far below the difference.
pub(crate) fn to_sql(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// The reverse of [`to_sql`]; what cannot have been written by it reads as 0, and the checks that follow fail.
pub(crate) fn from_sql(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

/// A poisoned lock guards connections whose open transaction was rolled back by the panic: they are fit for use.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn connect(path: &Path) -> Result<Connection, StoreError> {
    // No SQLITE_OPEN_NO_MUTEX doubts: a connection is used by one thread at a time here.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let open = || {
        let connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(Duration::from_secs(BUSY_SECS))?;
        connection.execute_batch("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;")?;
        Ok(connection)
    };
    open().map_err(|e| error(path, e))
}

/// Makes the schema in an empty database; tells which layout there is.
fn prepare(connection: &mut Connection) -> rusqlite::Result<i64> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let pragma = |name: &str| {
        transaction.query_row(&format!("PRAGMA {name}"), [], |row| row.get::<_, i64>(0))
    };
    let (found, application) = (pragma("user_version")?, pragma("application_id")?);
    if found == 0 && application == 0 {
        transaction.execute_batch(SCHEMA)?;
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
        transaction.pragma_update(None, "user_version", LAYOUT)?;
        transaction.commit()?;
        return Ok(LAYOUT);
    }
    Ok(if application == APPLICATION_ID {
        found
    } else {
        -1
    })
}

fn error(path: &Path, source: rusqlite::Error) -> StoreError {
    match source.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => StoreError::Busy {
            waited_secs: BUSY_SECS,
        },
        Some(ErrorCode::DiskFull) => StoreError::DiskFull {
            path: path.to_owned(),
            needed: None,
            available: None,
        },
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => StoreError::Corrupt {
            what: format!("`{}` is damaged", path.display()),
            source: Some(Box::new(source)),
        },
        _ => StoreError::Index(source),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layout_of_another_version_is_named_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("index.sqlite");
        drop(Index::open(&path, dir.path()).unwrap());
        let connection = Connection::open(&path).unwrap();
        connection.pragma_update(None, "user_version", 2).unwrap();
        drop(connection);
        let error = Index::open(&path, dir.path()).unwrap_err();
        assert!(
            matches!(
                error,
                StoreError::Layout {
                    found: 2,
                    known: 1,
                    ..
                }
            ),
            "{error}"
        );
    }

    #[test]
    fn a_foreign_or_damaged_database_is_no_store() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("index.sqlite");
        Connection::open(&path)
            .unwrap()
            .execute_batch("PRAGMA user_version=1")
            .unwrap();
        let error = Index::open(&path, dir.path()).unwrap_err();
        assert!(
            matches!(error, StoreError::Layout { found: -1, .. }),
            "{error}"
        );
        std::fs::write(
            &path,
            "these bytes are no database at all, and long enough to be read as one",
        )
        .unwrap();
        let error = Index::open(&path, dir.path()).unwrap_err();
        assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
    }

    #[test]
    fn a_failed_change_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let index = Index::open(&dir.path().join("index.sqlite"), dir.path()).unwrap();
        let result: Result<(), _> = index.write(|transaction| {
            transaction.execute("INSERT INTO derivation VALUES (x'00')", [])?;
            Err(StoreError::corrupt("on purpose"))
        });
        assert!(result.is_err());
        let count = index
            .read(|c| {
                c.query_row("SELECT count(*) FROM derivation", [], |row| {
                    row.get::<_, i64>(0)
                })
            })
            .unwrap();
        assert_eq!(count, 0);
    }
}
