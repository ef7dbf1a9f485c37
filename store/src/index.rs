//! The index: one SQLite database, open to several processes at once (architecture D13).
//!
//! WAL mode lets readers go on while somebody writes; `synchronous=FULL` makes a commit durable before it returns. Each
//! process writes through one connection behind a mutex, because SQLite's own waiting is unfair between threads.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base::Sha256;
use rusqlite::{Connection, ErrorCode, OpenFlags, Transaction, TransactionBehavior};

use crate::StoreError;
use crate::schema::{LAYOUT, STEPS};
use crate::usage::Uses;

/// How long we wait for another process, in seconds: longer than any of our transactions by far (they hold no
/// hashing and no copying), short enough for a user to learn that something hangs.
pub(crate) const BUSY_SECS: u64 = 30;
/// Marks the database as ours ("p2pk" in ASCII).
pub(crate) const APPLICATION_ID: i64 = 0x7032_706b;
/// Idle connections kept for readers; more than this many readers at once open their own.
const IDLE_READERS_MAX: usize = 8;

/// The index of one store.
#[derive(Debug)]
pub(crate) struct Index {
    path: PathBuf,
    writer: Mutex<Connection>,
    readers: Mutex<Vec<Connection>>,
    pub(crate) uses: Uses,
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
        let (writer, readers) = (Mutex::new(writer), Mutex::default());
        Ok(Self {
            path: path.to_owned(),
            writer,
            readers,
            uses: Uses::default(),
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

    /// Reads with many statements, which all see one state.
    pub(crate) fn read_together<T>(
        &self,
        query: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        // Dropped, it is rolled back, which for a transaction that only read is its end.
        self.read(|connection| query(&*connection.unchecked_transaction()?))
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

    /// Writes what is welcome but not needed: gives up at once when somebody else writes, and lets the disk take its
    /// time, so that a power cut may undo it.
    pub(crate) fn write_casually(
        &self,
        change: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<()>,
    ) -> Result<bool, StoreError> {
        let Ok(mut writer) = self.writer.try_lock() else {
            return Ok(false);
        };
        let work = || {
            writer.busy_timeout(Duration::ZERO)?;
            writer.execute_batch("PRAGMA synchronous=NORMAL")?;
            let transaction = writer.transaction_with_behavior(TransactionBehavior::Immediate)?;
            change(&transaction)?;
            transaction.commit()
        };
        let result = work().map_err(|e| error(&self.path, e));
        writer
            .busy_timeout(Duration::from_secs(BUSY_SECS))
            .and_then(|()| writer.execute_batch("PRAGMA synchronous=FULL"))
            .map_err(|e| error(&self.path, e))?;
        match result {
            Ok(()) => Ok(true),
            Err(StoreError::Busy { .. }) => Ok(false),
            Err(error) => Err(error),
        }
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

/// Brings an empty or older database to our layout; tells which layout there is.
fn prepare(connection: &mut Connection) -> rusqlite::Result<i64> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let pragma = |name: &str| {
        transaction.query_row(&format!("PRAGMA {name}"), [], |row| row.get::<_, i64>(0))
    };
    let (found, application) = (pragma("user_version")?, pragma("application_id")?);
    let is_new = found == 0 && application == 0;
    if !is_new && application != APPLICATION_ID {
        return Ok(-1);
    }
    let Ok(known) = usize::try_from(found) else {
        return Ok(found);
    };
    if found >= LAYOUT {
        return Ok(found);
    }
    for step in &STEPS[known..] {
        transaction.execute_batch(step)?;
    }
    hash_statements(&transaction)?;
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", LAYOUT)?;
    transaction.commit()?;
    Ok(LAYOUT)
}

/// Gives statements of an older layout the hash by which they are found.
fn hash_statements(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    let mut select = transaction.prepare("SELECT bytes FROM realisation WHERE hash IS NULL")?;
    let rows = select.query_map([], |row| row.get::<_, Vec<u8>>(0))?;
    let all = rows.collect::<rusqlite::Result<Vec<_>>>()?;
    let mut update = transaction.prepare("UPDATE realisation SET hash = ?1 WHERE bytes = ?2")?;
    for bytes in all {
        update.execute((Sha256::of(&bytes).as_bytes(), &bytes))?;
    }
    Ok(())
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
        connection
            .pragma_update(None, "user_version", LAYOUT + 1)
            .unwrap();
        drop(connection);
        let error = Index::open(&path, dir.path()).unwrap_err();
        assert!(
            matches!(
                error,
                StoreError::Layout {
                    found,
                    known: LAYOUT,
                    ..
                } if found == LAYOUT + 1
            ),
            "{error}"
        );
    }

    #[test]
    fn a_store_of_the_first_layout_is_brought_to_ours_with_all_it_holds() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("index.sqlite");
        let old = Connection::open(&path).unwrap();
        old.execute_batch(crate::schema::FIRST).unwrap();
        old.execute_batch(
            "PRAGMA user_version=1; PRAGMA application_id=0x7032706b; PRAGMA journal_mode=WAL;
             INSERT INTO blob VALUES (1, x'aa', 100, 85, x'aa', 7200000000000, 5);
             INSERT INTO blob VALUES (2, x'bb', 11, 85, x'bb', 0, 6);
             INSERT INTO leaf VALUES (x'aa', 1, 0, 100);
             INSERT INTO realisation VALUES (x'cc', x'616263', x'bb');
             INSERT INTO pin VALUES (1, x'aa', x'', 'source.tar', 9);
             INSERT INTO pin VALUES (2, x'bb', x'cc', 'package', 9);",
        )
        .unwrap();
        drop(old);
        drop(Index::open(&path, dir.path()).unwrap());
        let index = Index::open(&path, dir.path()).unwrap();
        let found: (i64, i64, i64, i64, String, String) = index
            .read(|c| {
                c.query_row(
                    "SELECT (SELECT user_version FROM pragma_user_version), (SELECT bytes FROM total),
                     (SELECT used FROM blob WHERE id = 1 AND path IS NULL), (SELECT count(*) FROM leaf),
                     (SELECT group_concat(name) FROM pin), (SELECT group_concat(name) FROM note)",
                    [],
                    |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?, row.get(5)?)),
                )
            })
            .unwrap();
        let (pins, notes) = ("source.tar".to_owned(), "package".to_owned());
        assert_eq!(found, (LAYOUT, 111, 2, 1, pins, notes));
        let hash: Vec<u8> = index
            .read(|c| c.query_row("SELECT hash FROM realisation", [], |row| row.get(0)))
            .unwrap();
        assert_eq!(hash, Sha256::of(b"abc").as_bytes());
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
