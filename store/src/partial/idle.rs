//! Partials that nobody writes: what they take, and how they go.
//!
//! One is kept for some days, because who was interrupted mostly comes back. After that, and as soon as room is needed, it
//! goes before any blob does: half a file is of less use than a whole one.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, SystemTime};

use rustix::fs::{FlockOperation, flock};

use super::{lock_journal, open_file};
use crate::gc::Goal;
use crate::layout::{JOURNAL_SUFFIX, Layout, Stamp, remove_if_there};
use crate::{Store, StoreError};

/// How long a partial waits for somebody to go on with it while there is room.
const KEPT_FOR: Duration = Duration::from_secs(7 * 24 * 3600);

/// A fetch that was not completed and that nobody goes on with just now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfinished {
    /// The root of the DAG; of a download `sha256-` and the digits of what it is to be.
    pub root: String,
    /// Bytes that it takes.
    pub bytes: u64,
    /// When something was last added, in seconds since 1970.
    pub touched_unix_secs: u64,
}

impl Store {
    /// The partials that nobody writes, the oldest first.
    pub(crate) fn unfinished(&self) -> Vec<Unfinished> {
        let mut found: Vec<_> = names(&self.layout.partials)
            .into_iter()
            .filter(|name| is_idle(&self.layout, name))
            .map(|root| Unfinished {
                bytes: bytes_of(&self.layout, &root),
                touched_unix_secs: touched(&self.layout, &root),
                root,
            })
            .collect();
        found.sort_by(|a, b| (a.touched_unix_secs, &a.root).cmp(&(b.touched_unix_secs, &b.root)));
        found
    }

    /// Removes a partial unless somebody has come to write it, or has added to it since.
    pub(crate) fn remove_unfinished(&self, unfinished: &Unfinished) -> Result<bool, StoreError> {
        let name = &unfinished.root;
        if touched(&self.layout, name) > unfinished.touched_unix_secs {
            return Ok(false);
        }
        let Some(_lock) = lock_journal(&self.layout, name)? else {
            return Ok(false);
        };
        remove_if_there(&self.layout.partial(name))?;
        remove_if_there(&self.layout.journal(name))?;
        Ok(true)
    }
}

/// Which of the partials, oldest first, go for a goal: for room as many as are needed, otherwise those that are old.
pub(crate) fn leaving(mut idle: Vec<Unfinished>, goal: &Goal, now: SystemTime) -> Vec<Unfinished> {
    let now = now
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let oldest_kept = now.saturating_sub(KEPT_FOR).as_secs();
    let mut freed = 0u64;
    idle.retain(|unfinished| match goal.free_bytes {
        None => unfinished.touched_unix_secs < oldest_kept,
        Some(wanted) if freed >= wanted => false,
        Some(_) => {
            freed = freed.saturating_add(unfinished.bytes);
            unfinished.bytes > 0
        }
    });
    idle
}

/// Bytes that all partials take, except for one.
pub(crate) fn partial_bytes(layout: &Layout, except: Option<&str>) -> u64 {
    let others = names(&layout.partials);
    let others = others.iter().filter(|name| Some(name.as_str()) != except);
    others.map(|name| bytes_of(layout, name)).sum()
}

/// The names of all partials, whichever of their two files there is.
fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let name = |entry: fs::DirEntry| {
        let name = entry.file_name().into_string().ok()?;
        Some(
            name.strip_suffix(JOURNAL_SUFFIX)
                .unwrap_or(&name)
                .to_owned(),
        )
    };
    let mut names: Vec<_> = entries.filter_map(name).collect();
    names.sort_unstable();
    names.dedup();
    names
}

fn is_idle(layout: &Layout, name: &str) -> bool {
    // A lock for a moment: who would write meanwhile works on a file of its own.
    open_file(&layout.journal(name)).map_or(true, |journal| {
        flock(&journal, FlockOperation::NonBlockingLockShared).is_ok()
    })
}

fn bytes_of(layout: &Layout, name: &str) -> u64 {
    let files = [layout.partial(name), layout.journal(name)];
    let found = files.iter().filter_map(|path| fs::metadata(path).ok());
    // A file with a second name is counted as a blob.
    found
        .filter(|found| found.nlink() == 1)
        .map(|found| found.blocks() * 512)
        .sum()
}

fn touched(layout: &Layout, name: &str) -> u64 {
    let files = [layout.partial(name), layout.journal(name)];
    let found = files.iter().filter_map(|path| fs::metadata(path).ok());
    let secs = found.map(|found| Stamp::of(&found).mtime_ns / 1_000_000_000);
    secs.max()
        .map_or(0, |secs| u64::try_from(secs).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gc::Order;

    #[test]
    fn the_oldest_go_for_room_and_the_stale_go_anyway() {
        let day = 24 * 3600;
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(100 * day);
        let aged = |days: u64, bytes| Unfinished {
            root: format!("{days} days old"),
            bytes,
            touched_unix_secs: (100 - days) * day,
        };
        let idle = || vec![aged(30, 10), aged(8, 0), aged(3, 20), aged(1, 30)];
        let goes = |free_bytes| {
            let order = Order::Commonest;
            let gone = leaving(idle(), &Goal { free_bytes, order }, now);
            gone.into_iter().map(|gone| gone.root).collect::<Vec<_>>()
        };
        assert_eq!(goes(None), ["30 days old", "8 days old"]);
        assert_eq!(goes(Some(0)), [""; 0]);
        assert_eq!(goes(Some(10)), ["30 days old"]);
        assert_eq!(goes(Some(11)), ["30 days old", "3 days old"]);
        assert_eq!(goes(Some(99)).len(), 3);
    }
}
