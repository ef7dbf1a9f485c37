//! How much of the disk the store may take, and what goes to stay within that.
//!
//! Room is made before it is needed: when a file's length becomes known, while one of unknown length grows, and before a
//! file becomes visible. What goes is cache only, what most others have before what is rare. If that cannot be enough,
//! nothing goes and the file is refused: an emptied cache would help nobody.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use base::Sha256;
use rusqlite::{Connection, OptionalExtension as _};
use rustix::fs::statvfs;

use crate::gc::{Goal, Order, Stays};
use crate::index::from_sql;
use crate::partial::partial_bytes;
use crate::{Store, StoreError};

/// Space left alone whatever the limits say, in bytes: room for the index, its log, and other people's small files.
const SPACE_SPARED_BYTES: u64 = 16 << 20;
/// A collection for the quota frees this part of it more than was asked for, so that not every file needs one.
const SLACK_DIVISOR: u64 = 64;

/// How often room is made for one file while others take it again.
const SWEEPS_MAX: usize = 3;

/// Limits of a store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Most bytes of blobs, loose blocks and unfinished fetches, files that others keep not counted; `None` is no limit.
    pub quota_bytes: Option<u64>,
    /// Bytes of the disk that are left free.
    pub keep_free_bytes: u64,
}

/// The limits of a handle, and what it knows of others.
#[derive(Clone, Default)]
pub(crate) struct Room {
    /// Shared by clones, so that a long-running process can change them.
    limits: Arc<RwLock<Limits>>,
    rarity: Option<Arc<Rarity>>,
}

/// How many others are known to have a blob.
type Rarity = dyn Fn(&Sha256) -> Option<u32> + Send + Sync;

impl Room {
    fn limits(&self) -> Limits {
        *self.limits.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Room {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.limits().fmt(f)
    }
}

/// How full a store is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Whole files.
    pub blobs: u64,
    /// Their bytes and those of loose blocks, files that others keep included.
    pub bytes: u64,
    /// Reasons for which files are kept.
    pub pins: u64,
    /// Bytes of the disk that are free for us.
    pub free_bytes: u64,
}

impl Store {
    /// How full the store is.
    ///
    /// # Errors
    /// [`StoreError`] when the index or the disk cannot say.
    pub fn usage(&self) -> Result<Usage, StoreError> {
        let (blobs, bytes, pins) = self.index.read(|connection| {
            let sql =
                "SELECT (SELECT count(*) FROM blob), (SELECT coalesce(sum(size), 0) FROM blob)
                       + (SELECT coalesce(sum(size), 0) FROM loose), (SELECT count(*) FROM pin)";
            connection
                .prepare_cached(sql)?
                .query_row([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        })?;
        Ok(Usage {
            blobs: from_sql(blobs),
            bytes: from_sql(bytes),
            pins: from_sql(pins),
            free_bytes: self.available_bytes()?,
        })
    }

    /// The limits of this handle.
    pub fn limits(&self) -> Limits {
        self.room.limits()
    }

    /// Goes on with other limits, this handle and its clones alike. What is here already stays.
    pub fn set_limits(&self, limits: Limits) {
        *self
            .room
            .limits
            .write()
            .unwrap_or_else(PoisonError::into_inner) = limits;
    }

    /// A handle that takes files in within these limits. Without, only the disk is one.
    #[must_use]
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.room.limits = Arc::new(RwLock::new(limits));
        self
    }

    /// A handle that asks how many others have a blob when it must make room; the rarest stay longest.
    #[must_use]
    pub fn with_rarity(
        mut self,
        rarity: impl Fn(&Sha256) -> Option<u32> + Send + Sync + 'static,
    ) -> Self {
        self.room.rarity = Some(Arc::new(rarity));
        self
    }

    /// Makes room for a file of `size` bytes, of which `rest` are not on the disk yet; `partial` is what it grows from.
    pub(crate) fn make_room(
        &self,
        size: u64,
        rest: u64,
        partial: Option<&str>,
    ) -> Result<(), StoreError> {
        if let Some(quota) = self.room.limits().quota_bytes {
            self.make_room_in_quota(quota, size, partial)?;
        }
        let reserve = self.room.limits().keep_free_bytes.max(SPACE_SPARED_BYTES);
        let needed = rest.saturating_add(reserve);
        let mut available = self.available_bytes()?;
        if available < needed && self.sweep(needed - available, 0)?.is_ok() {
            available = self.available_bytes()?;
        }
        if available < needed {
            return Err(StoreError::DiskFull {
                path: self.layout.root.clone(),
                needed: Some(needed),
                available: Some(available),
            });
        }
        Ok(())
    }

    /// Whether a file of `size` bytes fits without anything going for it.
    pub(crate) fn has_room(&self, size: u64) -> Result<bool, StoreError> {
        if let Some(quota) = self.room.limits().quota_bytes {
            let beside = partial_bytes(&self.layout, None).saturating_add(size);
            if self.index.read(|c| over_quota(c, quota, beside))? > 0 {
                return Ok(false);
            }
        }
        self.has_space(size)
    }

    /// Whether the disk has space for so many bytes that are soon gone again and count for no quota.
    pub(crate) fn has_space(&self, bytes: u64) -> Result<bool, StoreError> {
        let reserve = self.room.limits().keep_free_bytes.max(SPACE_SPARED_BYTES);
        Ok(self.available_bytes()? >= bytes.saturating_add(reserve))
    }

    fn make_room_in_quota(
        &self,
        quota: u64,
        size: u64,
        partial: Option<&str>,
    ) -> Result<(), StoreError> {
        for _ in 0..SWEEPS_MAX {
            let beside = partial_bytes(&self.layout, partial).saturating_add(size);
            let over = self.index.read(|c| over_quota(c, quota, beside))?;
            if over == 0 {
                return Ok(());
            }
            if let Err(kept) = self.sweep(over, quota / SLACK_DIVISOR)? {
                return Err(StoreError::QuotaExceeded {
                    quota,
                    needed: size,
                    kept,
                });
            }
        }
        Err(StoreError::Busy { waited_secs: 0 })
    }

    /// Frees so much, and a little more if there is more, unless somebody comes to need it meanwhile; or nothing, and says
    /// how much cannot go.
    fn sweep(&self, bytes: u64, slack: u64) -> Result<Result<(), u64>, StoreError> {
        let goal = Goal {
            free_bytes: Some(bytes.saturating_add(slack)),
            order: Order::Commonest,
        };
        let rarity = |sha256: &Sha256| self.room.rarity.as_ref().and_then(|ask| ask(sha256));
        let plan = self.plan_collection(&goal, &rarity)?;
        let kept = plan.staying(Stays::Pinned).1 + plan.staying(Stays::InUse).1;
        if plan.freed_bytes() < bytes {
            return Ok(Err(kept));
        }
        let collected = self.collect(&plan, &|| false)?;
        let (files, freed) = (collected.removed.len(), collected.freed_bytes());
        tracing::info!(files, freed, "made room");
        Ok(Ok(()))
    }

    fn available_bytes(&self) -> Result<u64, StoreError> {
        let path = &self.layout.temporary;
        let stat = statvfs(path).map_err(|e| StoreError::io("examine", path, e.into()))?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }
}

/// By how much the blobs and so many bytes beside them are over the quota.
pub(crate) fn over_quota(connection: &Connection, quota: u64, size: u64) -> rusqlite::Result<u64> {
    let total = connection
        .prepare_cached("SELECT bytes FROM total")?
        .query_row([], |row| row.get(0))
        .optional()?;
    let total = total.map_or(0, from_sql);
    Ok(total.saturating_add(size).saturating_sub(quota))
}
