//! Pins: which blobs are kept, and why. Notes: what a blob is that nobody asked to keep.
//!
//! Both are written alike, so that listings can tell what lies in a store. Only pins are roots of the collection.

use std::error::Error;

use base::{PackageName, PkgHash, Sha256};

use crate::index::{from_sql, to_sql};
use crate::{Store, StoreError};

/// A blob that is kept for a reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pin {
    /// The blob.
    pub sha256: Sha256,
    /// Why it is kept.
    pub kind: PinKind,
    /// When the pin was made first, in seconds since 1970.
    pub added_unix_secs: u64,
}

/// The reason for a pin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PinKind {
    /// A source that is mirrored here.
    Source {
        /// The name under which recipes download it.
        file_name: String,
    },
    /// The output of a package.
    Output {
        /// Which build of it.
        pkghash: PkgHash,
        /// The package's name when it was pinned.
        package: PackageName,
    },
    /// A bootstrap seed.
    Seed {
        /// The seed's name.
        name: String,
    },
    /// A user's own wish.
    Other {
        /// What the user calls it.
        name: String,
    },
}

impl PinKind {
    /// Which class of reasons this is.
    pub const fn class(&self) -> PinClass {
        match self {
            Self::Source { .. } => PinClass::Source,
            Self::Output { .. } => PinClass::Output,
            Self::Seed { .. } => PinClass::Seed,
            Self::Other { .. } => PinClass::Other,
        }
    }
}

/// Classes of pins, for listing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PinClass {
    /// Sources that are mirrored.
    Source,
    /// Outputs of packages.
    Output,
    /// Bootstrap seeds.
    Seed,
    /// Users' own wishes.
    Other,
}

impl PinClass {
    /// As the index writes it.
    pub(crate) const fn code(self) -> i64 {
        match self {
            Self::Source => 1,
            Self::Output => 2,
            Self::Seed => 3,
            Self::Other => 4,
        }
    }
}

/// The statements for one of the two tables, which have the same columns.
macro_rules! sql {
    (insert $table:literal) => {
        concat!(
            "INSERT OR IGNORE INTO ",
            $table,
            " (class, sha256, pkghash, name, added) VALUES (?1, ?2, ?3, ?4, ?5)"
        )
    };
    (select $table:literal) => {
        concat!(
            "SELECT class, sha256, pkghash, name, added FROM ",
            $table,
            " WHERE ?1 IS NULL OR class = ?1 ORDER BY added, name, sha256"
        )
    };
}

impl Store {
    /// Keeps a blob for a reason, whether or not it is here yet. The same blob and reason again change nothing.
    ///
    /// # Errors
    /// [`StoreError`] when the index could not be written.
    pub fn pin(&self, pin: &Pin) -> Result<(), StoreError> {
        self.insert(sql!(insert "pin"), pin)
    }

    /// Says what a blob is, without keeping it. The note goes when the blob is collected.
    ///
    /// # Errors
    /// [`StoreError`] when the index could not be written.
    pub fn note(&self, note: &Pin) -> Result<(), StoreError> {
        self.insert(sql!(insert "note"), note)
    }

    /// The pins of a class, or all, the oldest first.
    ///
    /// # Errors
    /// [`StoreError`] when the index could not be read.
    pub fn pins(&self, class: Option<PinClass>) -> Result<Vec<Pin>, StoreError> {
        self.select(sql!(select "pin"), class)
    }

    /// The notes of a class, or all, the oldest first.
    ///
    /// # Errors
    /// [`StoreError`] when the index could not be read.
    pub fn notes(&self, class: Option<PinClass>) -> Result<Vec<Pin>, StoreError> {
        self.select(sql!(select "note"), class)
    }

    /// Drops one reason; `false` when there was no such pin. The blob itself stays until it is collected, and so long a note
    /// says what it is, unless it was only a user's wish.
    ///
    /// # Errors
    /// [`StoreError`] when the index could not be written.
    pub fn unpin(&self, sha256: &Sha256, kind: &PinKind) -> Result<bool, StoreError> {
        let (class, pkghash, name) = kind.columns();
        let pin = (class, sha256.as_bytes(), pkghash, name);
        self.index.write(|transaction| {
            transaction.execute(
                "INSERT OR IGNORE INTO note SELECT class, sha256, pkghash, name, added FROM pin
                 WHERE class = ?1 AND sha256 = ?2 AND pkghash = ?3 AND name = ?4
                 AND class != 4 AND EXISTS (SELECT 1 FROM blob WHERE blob.sha256 = pin.sha256)",
                pin,
            )?;
            let removed = transaction.execute(
                "DELETE FROM pin WHERE class = ?1 AND sha256 = ?2 AND pkghash = ?3 AND name = ?4",
                pin,
            )?;
            Ok(removed > 0)
        })
    }

    fn insert(&self, sql: &str, pin: &Pin) -> Result<(), StoreError> {
        let (class, pkghash, name) = pin.kind.columns();
        self.index.write(|transaction| {
            let (sha256, added) = (pin.sha256.as_bytes(), to_sql(pin.added_unix_secs));
            transaction.execute(sql, (class, sha256, pkghash, name, added))?;
            Ok(())
        })
    }

    fn select(&self, sql: &str, class: Option<PinClass>) -> Result<Vec<Pin>, StoreError> {
        let class = class.map(PinClass::code);
        let rows = self.index.read(|connection| {
            connection
                .prepare_cached(sql)?
                .query_map([class], |row| {
                    Ok(Row {
                        class: row.get(0)?,
                        sha256: row.get(1)?,
                        pkghash: row.get(2)?,
                        name: row.get(3)?,
                        added: row.get(4)?,
                    })
                })?
                .collect::<rusqlite::Result<Vec<_>>>()
        })?;
        rows.into_iter().map(Row::into_pin).collect()
    }
}

impl PinKind {
    /// Class, package hash and name, as the index keeps them.
    fn columns(&self) -> (i64, &[u8], &str) {
        let class = self.class().code();
        match self {
            Self::Source { file_name } => (class, &[], file_name),
            Self::Output { pkghash, package } => {
                (class, pkghash.digest().as_bytes(), package.as_str())
            }
            Self::Seed { name } | Self::Other { name } => (class, &[], name),
        }
    }
}

/// A row of the index.
struct Row {
    class: i64,
    sha256: [u8; 32],
    pkghash: Vec<u8>,
    name: String,
    added: i64,
}

impl Row {
    fn into_pin(self) -> Result<Pin, StoreError> {
        let name = self.name;
        let kind = match self.class {
            1 => PinKind::Source { file_name: name },
            2 => {
                let digest = <[u8; 32]>::try_from(self.pkghash)
                    .map_err(|_| StoreError::corrupt("pin of an output without a package hash"))?;
                let package = name.parse().map_err(|e| StoreError::Corrupt {
                    what: "pin of an output without a package name".into(),
                    source: Some(Box::new(e) as Box<dyn Error + Send + Sync>),
                })?;
                PinKind::Output {
                    pkghash: PkgHash::from_digest(Sha256::from_bytes(digest)),
                    package,
                }
            }
            3 => PinKind::Seed { name },
            4 => PinKind::Other { name },
            other => return Err(StoreError::corrupt(format!("pin of unknown class {other}"))),
        };
        Ok(Pin {
            sha256: Sha256::from_bytes(self.sha256),
            kind,
            added_unix_secs: from_sql(self.added),
        })
    }
}
