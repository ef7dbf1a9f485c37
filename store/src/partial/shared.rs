//! The blocks of all partials, those of other processes included: what can be served before its file is complete.
//!
//! A process knows its own partials because it writes them. Those of others it finds by their journals: the directory is
//! listed now and then, and what was appended since is read. So a daemon serves what a command beside it downloads,
//! and neither has to talk to the other.

use std::collections::HashMap;
use std::fs::{self, File, Metadata};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use base::{Block, Multihash, Sha256};

use super::journal::{self, Place};
use super::plain;
use crate::blob::{open_file, read_at};
use crate::layout::{JOURNAL_SUFFIX, Layout};
use crate::{Store, StoreError};

/// How often the journals of other processes are looked at, at most.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);
/// Blocks of one partial that are remembered: a file of 256 GiB in chunks of 1 MiB, at 64 bytes each.
const BLOCKS_MAX: usize = 1 << 18;
/// Partials of other processes that are followed at a time: more than anybody downloads at once.
const FOLLOWED_MAX: usize = 64;
/// What is read of a journal at a time, in bytes. A line is at most one block and its head.
const READ_BYTES: usize = 4 << 20;

/// Every partial that this process knows.
#[derive(Debug, Default)]
pub(crate) struct Partials(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    own: HashMap<String, Arc<Body>>,
    followed: HashMap<String, Followed>,
    looked_at: Option<Instant>,
    /// Blocks that were found since the last time somebody asked for news; `None` where nobody does.
    news: Option<Vec<Sha256>>,
    /// Partials that became blobs or went: who looked before may have missed a block that is there.
    gone: u64,
}

/// A partial of another process.
#[derive(Debug)]
struct Followed {
    body: Arc<Body>,
    /// Up to where its journal was read, and whether that is of any use.
    read: u64,
    is_damaged: bool,
}

/// The files of one partial, and where in them its blocks lie.
#[derive(Debug)]
pub(super) struct Body {
    pub(super) data: File,
    pub(super) journal: File,
    places: Mutex<HashMap<Sha256, Place>>,
}

impl Body {
    pub(super) fn new(data: File, journal: File) -> Self {
        let places = Mutex::default();
        Self {
            data,
            journal,
            places,
        }
    }

    fn places(&self) -> MutexGuard<'_, HashMap<Sha256, Place>> {
        // Every change is one insertion or removal, so a panic elsewhere leaves the map whole.
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn place(&self, digest: &Sha256) -> Option<Place> {
        self.places().get(digest).copied()
    }

    /// Notes where blocks lie. The last word counts: a block is fetched again where the first was a lie.
    pub(super) fn note(&self, blocks: impl IntoIterator<Item = (Sha256, Place)>) {
        let mut places = self.places();
        for (digest, place) in blocks {
            if places.len() < BLOCKS_MAX {
                places.insert(digest, place);
            }
        }
    }

    fn forget(&self, digest: &Sha256) {
        self.places().remove(digest);
    }

    /// Reads a block and hashes it. One that is not what it should be is not there.
    fn block(&self, hash: &Multihash) -> Option<Block> {
        let digest = hash.digest();
        let place = self.place(&digest)?;
        let (file, offset) = match place {
            Place::File { offset, .. } => (&self.data, offset),
            Place::Journal { offset, .. } => (&self.journal, offset),
        };
        let length = usize::try_from(place.length()).ok()?;
        let read = read_at(file, offset, length).ok();
        let block = read.and_then(|bytes| Block::verify(*hash, bytes).ok());
        if block.is_none() {
            tracing::debug!(%digest, "a block of a partial is damaged");
            self.forget(&digest);
        }
        block
    }
}

impl Followed {
    fn open(layout: &Layout, name: &str) -> Option<Self> {
        let data = open_file(&layout.partial(name)).ok()?;
        let journal = open_file(&layout.journal(name)).ok()?;
        Some(Self {
            body: Arc::new(Body::new(data, journal)),
            read: 0,
            is_damaged: false,
        })
    }

    /// Whether its name still leads to it: it may have gone, and another fetch of the same file have begun.
    fn is_current(&self, layout: &Layout, name: &str) -> bool {
        let inode = |found: std::io::Result<Metadata>| found.ok().map(|found| found.ino());
        let found = inode(fs::metadata(layout.journal(name)));
        found.is_some() && found == inode(self.body.journal.metadata())
    }

    /// Takes in what was appended; `true` when that was something.
    fn read_on(&mut self, news: &mut Option<Vec<Sha256>>) -> bool {
        let before = self.read;
        while !self.is_damaged {
            let Ok(lines) = read_lines(&self.body.journal, self.read) else {
                break;
            };
            self.is_damaged = lines.is_damaged;
            if lines.whole == 0 {
                break;
            }
            self.read += lines.whole as u64;
            if let Some(news) = news {
                let room = BLOCKS_MAX - news.len().min(BLOCKS_MAX);
                news.extend(lines.blocks.iter().take(room).map(|(digest, _)| *digest));
            }
            self.body.note(lines.blocks);
        }
        self.read > before
    }
}

/// The lines of a journal from an offset on, as many as are read at once.
pub(super) fn read_lines(journal: &File, offset: u64) -> std::io::Result<journal::Lines> {
    let rest = journal.metadata()?.len().saturating_sub(offset);
    let mut bytes = vec![0; READ_BYTES.min(usize::try_from(rest).unwrap_or(READ_BYTES))];
    let mut filled = 0;
    while filled < bytes.len() {
        match journal.read_at(&mut bytes[filled..], offset + filled as u64)? {
            0 => break,
            length => filled += length,
        }
    }
    Ok(journal::parse(&bytes[..filled], offset))
}

impl Partials {
    fn known(&self) -> MutexGuard<'_, Known> {
        // A panic in between leaves at worst a partial that is not served.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn add(&self, name: &str, body: &Arc<Body>) {
        let mut known = self.known();
        known.followed.remove(name);
        known.own.insert(name.to_owned(), Arc::clone(body));
    }

    pub(super) fn remove(&self, name: &str) {
        let mut known = self.known();
        known.own.remove(name);
        // What is left of it is found like that of any other process, and at once.
        known.looked_at = None;
        known.gone += 1;
    }

    fn gone(&self) -> u64 {
        self.known().gone
    }

    /// Follows the journals of other processes; `true` when they say something new.
    fn look(&self, layout: &Layout) -> bool {
        let mut guard = self.known();
        let known = &mut *guard;
        let now = Instant::now();
        if known
            .looked_at
            .is_some_and(|at| now.duration_since(at) < LOOK_INTERVAL)
        {
            return false;
        }
        known.looked_at = Some(now);
        let names = names(&layout.partials);
        let before = known.followed.len();
        known
            .followed
            .retain(|name, followed| followed.is_current(layout, name));
        known.gone += (before - known.followed.len()) as u64;
        let mut is_news = false;
        for name in names {
            if known.own.contains_key(&name) {
                continue;
            }
            if !known.followed.contains_key(&name) && known.followed.len() < FOLLOWED_MAX {
                let opened = Followed::open(layout, &name);
                known
                    .followed
                    .extend(opened.map(|opened| (name.clone(), opened)));
            }
            if let Some(followed) = known.followed.get_mut(&name) {
                is_news |= followed.read_on(&mut known.news);
            }
        }
        is_news
    }

    /// A partial that has this block by its own word.
    fn holder(&self, digest: &Sha256) -> Option<(Arc<Body>, Place)> {
        let known = self.known();
        let followed = known.followed.values().map(|followed| &followed.body);
        let mut bodies = known.own.values().chain(followed);
        bodies.find_map(|body| Some((Arc::clone(body), body.place(digest)?)))
    }
}

/// The partials of a directory that may have blocks to serve.
fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let name = |entry: fs::DirEntry| {
        let name = entry.file_name();
        Some(name.to_str()?.strip_suffix(JOURNAL_SUFFIX)?.to_owned())
    };
    // Of a download nothing is known to be right before all of it is.
    let names = entries.filter_map(name);
    names.filter(|name| !plain::is_download(name)).collect()
}

impl Store {
    /// What other processes have fetched of files that are not complete since this was asked last. Whoever serves this
    /// store should ask from time to time, and tell those who wait for a block.
    pub fn news_of_partials(&self) -> Vec<Multihash> {
        self.partials.look(&self.layout);
        let news = self.partials.known().news.replace(Vec::new());
        let news = news.unwrap_or_default();
        news.iter().map(Multihash::sha2_256).collect()
    }

    /// A block of a file that is not complete yet, hashed while it was read.
    pub(crate) fn partial_block(&self, hash: &Multihash) -> Option<Block> {
        let find = || {
            let (body, _) = self.partials.holder(&hash.digest())?;
            body.block(hash)
        };
        find().or_else(|| self.partials.look(&self.layout).then(find)?)
    }

    pub(crate) fn partial_size(&self, hash: &Multihash) -> Option<u64> {
        let find = || {
            let (_, place) = self.partials.holder(&hash.digest())?;
            Some(place.length())
        };
        find().or_else(|| self.partials.look(&self.layout).then(find)?)
    }

    /// Asks the index, then the partials, and the index again if a partial has become a blob meanwhile.
    pub(crate) fn anywhere<T>(
        &self,
        indexed: impl Fn() -> Result<Option<T>, StoreError>,
        partial: impl FnOnce() -> Option<T>,
    ) -> Result<Option<T>, StoreError> {
        let gone = self.partials.gone();
        if let Some(found) = indexed()? {
            return Ok(Some(found));
        }
        match partial() {
            None if self.partials.gone() != gone => indexed(),
            found => Ok(found),
        }
    }
}
