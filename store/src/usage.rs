//! When blobs were used last: what the collector goes by, so it must be cheap rather than exact.
//!
//! A use is noted once an hour for each blob. Notes are collected in memory and written many at a time, by whoever adds one
//! when the time has come; a process that is killed loses a minute of them, which changes no more than the order in
//! which a cache is emptied.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::index::Index;

/// So many noted uses are written at once: a millisecond of work.
const BATCH: usize = 256;
/// A noted use waits at most so long for others, as long as anything is used.
const WAIT: Duration = Duration::from_secs(60);
/// Seconds of an hour.
const HOUR_SECS: u64 = 3600;

/// Uses that are not in the index yet.
#[derive(Debug, Default)]
pub(crate) struct Uses(Mutex<Pending>);

#[derive(Debug, Default)]
struct Pending {
    /// The hour of the use by `blob.id`.
    hours: HashMap<i64, i64>,
    since: Option<Instant>,
}

impl Uses {
    fn lock(&self) -> MutexGuard<'_, Pending> {
        // Every change is one insertion, so a panic elsewhere leaves the map whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Index {
    /// Notes that a blob is used now; `known` is the hour that its row says.
    pub(crate) fn note_use(&self, id: i64, known: i64) {
        let now = this_hour();
        if known >= now {
            return;
        }
        let mut pending = self.uses.lock();
        pending.hours.insert(id, now);
        let since = *pending.since.get_or_insert_with(Instant::now);
        let is_time = pending.hours.len() >= BATCH || since.elapsed() >= WAIT;
        drop(pending);
        if is_time {
            self.write_uses();
        }
    }

    /// Writes the noted uses, unless somebody else writes just now: then they wait for the next time.
    pub(crate) fn write_uses(&self) {
        let hours = {
            let mut pending = self.uses.lock();
            pending.since = None;
            std::mem::take(&mut pending.hours)
        };
        if hours.is_empty() {
            return;
        }
        let written = self.write_casually(|transaction| {
            let mut update =
                transaction.prepare_cached("UPDATE blob SET used = max(used, ?2) WHERE id = ?1")?;
            for use_ in &hours {
                update.execute(use_)?;
            }
            Ok(())
        });
        match written {
            Ok(true) => {}
            Ok(false) => {
                let mut pending = self.uses.lock();
                for (id, hour) in hours {
                    pending.hours.entry(id).or_insert(hour);
                }
                pending.since = Some(Instant::now());
            }
            Err(error) => {
                let error: &dyn std::error::Error = &error;
                tracing::warn!(error, "cannot note which blobs were used");
            }
        }
    }
}

impl Drop for Index {
    fn drop(&mut self) {
        self.write_uses();
    }
}

/// Hours since 1970.
pub(crate) fn this_hour() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    crate::index::to_sql(now.map_or(0, |since| since.as_secs() / HOUR_SECS))
}
