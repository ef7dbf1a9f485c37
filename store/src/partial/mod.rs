//! Partials: files that are being fetched block by block, and what is left of them when their process dies.
//!
//! A partial is named by the root of its DAG (or, see `plain`, by its SHA-256) and has two files: the bytes, each leaf at its own offset as soon as it has
//! arrived, whatever the order; and a journal that says which blocks are there and holds the nodes. A block is written
//! before its line, and nothing is synchronised: a killed process leaves the kernel with all it wrote, and after a power
//! cut a block that is not what its line says is fetched again, because **every block is hashed when it is read**. The same
//! makes garbage in a partial harmless, and lets others be served from it.
//!
//! When the last block is there the file is the blob. It is hashed as the prefix grows, gets its second name among the
//! blobs as every file taken in does, and then loses the first one.
//!
//! A lock on the journal tells that somebody writes. Who comes second works on a file of its own that nobody can go on
//! with; so does who fetches a single block.

mod idle;
mod journal;
mod plain;
mod shared;

use std::fs::{self, File, Permissions};
use std::io;
use std::num::NonZeroU64;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use base::{Block, Cid, Codec, Multihash, block_cid};
use rustix::fs::{Advice, FlockOperation, fadvise, flock};
use tempfile::NamedTempFile;

pub use self::idle::Unfinished;
pub(crate) use self::idle::{leaving, partial_bytes};
use self::journal::{MAGIC, Place};
pub(crate) use self::shared::Partials;
use self::shared::{Body, read_lines};
use crate::blob::open_file;
use crate::digest::FileDigest;
use crate::ingest::{Expected, check_blob_size, publish};
use crate::layout::{Layout, locked_file, remove_if_there};
use crate::{Blob, BlockStore as _, Store, StoreError, crash};

/// How often a journal is opened again that could not be locked, or was removed before it was.
const OPEN_ATTEMPTS: usize = 4;
/// Pause before that: longer than anybody looks at a lock.
const LOCK_RETRY: Duration = Duration::from_millis(1);
/// Writing out starts every so many bytes, as for files that are taken in.
const WRITEBACK_BYTES: u64 = 16 << 20;
/// A partial's file while it is written.
const PARTIAL_MODE: u32 = 0o644;

/// A file on its way into the store, block by block. Dropping it keeps what has come, for the next time.
#[derive(Debug)]
pub struct Partial {
    store: Store,
    files: Files,
    /// The file up to here, hashed.
    digest: FileDigest,
    /// Bytes handed to the operating system, and up to where it was asked to write them out.
    on_disk: u64,
    under_way: u64,
    /// A write failed; what is on disk and what was hashed may differ.
    is_broken: bool,
}

#[derive(Debug)]
enum Files {
    Kept(Kept),
    /// Gone when it is dropped.
    Own(NamedTempFile),
}

/// A partial that can be gone on with. Its journal is locked as long as this lives.
#[derive(Debug)]
struct Kept {
    name: String,
    body: Arc<Body>,
    /// Length of the journal, lines that were not written yet, and the blocks that they are about.
    journal_bytes: u64,
    lines: Vec<u8>,
    pending: Vec<(base::Sha256, Place)>,
    /// Its files were removed; others may have made new ones of that name.
    is_gone: bool,
}

impl Store {
    /// Starts to fetch the file below `root`, or goes on where an earlier attempt ended.
    ///
    /// # Errors
    /// [`StoreError`] when no file could be made.
    pub fn partial(&self, root: &Cid) -> Result<Partial, StoreError> {
        let kept = match (Codec::of(root), Multihash::of(root)) {
            // A single block is there or not.
            (Ok(codec), Ok(hash)) if codec != Codec::Raw => {
                Kept::open(self, block_cid(codec, &hash.digest()).to_string())?
            }
            _ => None,
        };
        let files = match kept {
            Some(kept) => Files::Kept(kept),
            None => Files::Own(locked_file(&self.layout.temporary, "fetch-")?),
        };
        Ok(Partial::new(self, files))
    }
}

impl Kept {
    /// Opens or makes a partial; `None` when somebody else writes it.
    fn open(store: &Store, name: String) -> Result<Option<Self>, StoreError> {
        let layout = &store.layout;
        let Some(journal) = lock_journal(layout, &name)? else {
            return Ok(None);
        };
        let data = open_data(&layout.partial(&name))?;
        let body = Body::new(data, journal);
        let path = layout.journal(&name);
        let journal_bytes = take_up(&body).map_err(|e| StoreError::io("read", &path, e))?;
        let body = Arc::new(body);
        store.partials.add(&name, &body);
        Ok(Some(Self {
            name,
            body,
            journal_bytes,
            lines: Vec::new(),
            pending: Vec::new(),
            is_gone: false,
        }))
    }

    /// Writes the lines of what has come.
    fn write_lines(&mut self) -> io::Result<()> {
        if self.lines.is_empty() {
            return Ok(());
        }
        // By its offset: a line that was written in part only is written over.
        self.body
            .journal
            .write_all_at(&self.lines, self.journal_bytes)?;
        self.journal_bytes += self.lines.len() as u64;
        self.lines.clear();
        self.body.note(self.pending.drain(..));
        Ok(())
    }

    /// Whether nothing has come that somebody could go on with.
    fn is_empty(&self) -> bool {
        let is_empty = |data: &File| data.metadata().is_ok_and(|found| found.len() == 0);
        self.journal_bytes <= MAGIC.len() as u64 && is_empty(&self.body.data)
    }

    fn knows(&self, digest: &base::Sha256) -> bool {
        self.body.place(digest).is_some() || self.pending.iter().any(|(known, _)| known == digest)
    }
}

impl Partial {
    fn new(store: &Store, files: Files) -> Self {
        Self {
            store: store.clone(),
            files,
            digest: FileDigest::new(),
            on_disk: 0,
            under_way: 0,
            is_broken: false,
        }
    }

    /// Tells how long the file will be, so that a full disk is found out before the first byte is fetched.
    ///
    /// # Errors
    /// [`StoreError::DiskFull`] or [`StoreError::QuotaExceeded`] when it will not fit.
    pub fn reserve(&mut self, size: u64) -> Result<(), StoreError> {
        check_blob_size(size)?;
        let have = match &self.files {
            Files::Kept(kept) => allocated(&kept.body.data),
            Files::Own(_) => 0,
        };
        let rest = size.saturating_sub(have);
        self.store.make_room(size, rest, self.name())
    }

    /// A block that need not be fetched: it is here, or in another file of the store.
    ///
    /// # Errors
    /// [`StoreError`] when the store could not be read.
    pub fn find(&self, hash: &Multihash) -> Result<Option<Block>, StoreError> {
        match self.store.partial_block(hash) {
            Some(block) => Ok(Some(block)),
            None => self.store.get(hash),
        }
    }

    /// Keeps a verified block that is bytes of the file from `offset` on, and nothing else.
    ///
    /// # Errors
    /// [`StoreError`] when it could not be written; the file cannot be finished then.
    pub fn keep_leaf(&mut self, block: &Block, offset: u64) -> Result<(), StoreError> {
        let Files::Kept(kept) = &mut self.files else {
            return Ok(());
        };
        let digest = block.hash().digest();
        if block.is_empty() || kept.knows(&digest) {
            return Ok(());
        }
        check_blob_size(offset.saturating_add(block.len() as u64))?;
        let length = block.len() as u32;
        journal::put_leaf(&mut kept.lines, &digest, offset, length);
        kept.pending.push((digest, Place::File { offset, length }));
        self.write_at(block.bytes(), offset)
    }

    /// Keeps a verified block that is more than bytes of the file.
    ///
    /// # Errors
    /// [`StoreError`] when it could not be written; the file cannot be finished then.
    pub fn keep_node(&mut self, block: &Block) -> Result<(), StoreError> {
        let Files::Kept(kept) = &mut self.files else {
            return Ok(());
        };
        let digest = block.hash().digest();
        if block.is_empty() || kept.knows(&digest) {
            return Ok(());
        }
        let line = kept.journal_bytes + kept.lines.len() as u64;
        let start = journal::put_node(&mut kept.lines, &digest, block.bytes());
        let (offset, length) = (line + start as u64, block.len() as u32);
        kept.pending
            .push((digest, Place::Journal { offset, length }));
        self.wrote(block.len() as u64)
    }

    /// Makes the blocks that were kept visible, to those who go on later and to those who are served; says which.
    ///
    /// # Errors
    /// [`StoreError`] when the journal could not be written.
    pub fn note(&mut self) -> Result<Vec<Multihash>, StoreError> {
        let Files::Kept(kept) = &mut self.files else {
            return Ok(Vec::new());
        };
        let news = kept.pending.iter();
        let news = news
            .map(|(digest, _)| Multihash::sha2_256(digest))
            .collect();
        let written = kept.write_lines();
        let path = self.store.layout.journal(&kept.name);
        written.map_err(|e| StoreError::io("write", &path, e))?;
        crash::point("noted");
        Ok(news)
    }

    /// The next bytes of the file in order, of a verified block; they are written unless they are there.
    ///
    /// # Errors
    /// [`StoreError`] when they could not be written; the file cannot be finished then.
    pub fn write_leaf(&mut self, leaf: &Block) -> Result<(), StoreError> {
        let offset = self.digest.size();
        check_blob_size(offset.saturating_add(leaf.len() as u64))?;
        self.digest.update_leaf(leaf);
        let is_there = match &self.files {
            Files::Kept(kept) => matches!(
                kept.body.place(&leaf.hash().digest()),
                Some(Place::File { offset: at, .. }) if at == offset
            ),
            Files::Own(_) => false,
        };
        if !is_there {
            self.write_at(leaf.bytes(), offset)?;
        }
        self.start_writeback();
        Ok(())
    }

    /// The next bytes of the file in order.
    ///
    /// # Errors
    /// [`StoreError`] when they could not be written; the file cannot be finished then.
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        let offset = self.digest.size();
        check_blob_size(offset.saturating_add(bytes.len() as u64))?;
        self.digest.update(bytes);
        self.write_at(bytes, offset)?;
        self.start_writeback();
        Ok(())
    }

    /// Checks the file against `expected`, makes it durable and visible.
    ///
    /// # Errors
    /// [`StoreError::Mismatch`] when it is another file; then nothing is kept. After other errors it can be gone on with.
    pub fn finish(mut self, expected: &Expected) -> Result<Blob, StoreError> {
        if self.is_broken {
            return Err(StoreError::corrupt("an earlier write to this file failed"));
        }
        let digest = std::mem::replace(&mut self.digest, FileDigest::new());
        let digested = digest.finish();
        if let Err(error) = expected.check(&digested.blob) {
            self.remove_files()?;
            return Err(error);
        }
        let blob = digested.blob.clone();
        let is_here = self.store.blob(&blob.sha256)?.as_ref() == Some(&blob);
        match &self.files {
            _ if is_here => {}
            Files::Own(file) => {
                publish(&self.store, &digested, file.path(), file.as_file(), None)?;
            }
            Files::Kept(kept) => {
                let path = self.store.layout.partial(&kept.name);
                // An earlier attempt may have left bytes behind the end.
                let cut = kept.body.data.set_len(blob.size);
                cut.map_err(|e| StoreError::io("write", &path, e))?;
                // Its presence without its lock tells the next opening that something was cut short.
                let trace = locked_file(&self.store.layout.temporary, "partial-")?;
                let name = Some(kept.name.as_str());
                publish(&self.store, &digested, &path, &kept.body.data, name)?;
                self.remove_files()?;
                drop(trace);
                return Ok(blob);
            }
        }
        self.remove_files()?;
        Ok(blob)
    }

    /// Throws away what has come: it is not what was wanted.
    ///
    /// # Errors
    /// [`StoreError`] when a file could not be removed.
    pub fn discard(mut self) -> Result<(), StoreError> {
        self.remove_files()
    }

    fn remove_files(&mut self) -> Result<(), StoreError> {
        if let Files::Kept(kept) = &mut self.files
            && !kept.is_gone
        {
            // The journal last: its lock keeps others away from the file.
            remove_if_there(&self.store.layout.partial(&kept.name))?;
            crash::point("unlinked");
            remove_if_there(&self.store.layout.journal(&kept.name))?;
            kept.is_gone = true;
        }
        Ok(())
    }

    fn file(&self) -> &File {
        match &self.files {
            Files::Kept(kept) => &kept.body.data,
            Files::Own(file) => file.as_file(),
        }
    }

    fn path(&self) -> PathBuf {
        match &self.files {
            Files::Kept(kept) => self.store.layout.partial(&kept.name),
            Files::Own(file) => file.path().to_owned(),
        }
    }

    fn name(&self) -> Option<&str> {
        match &self.files {
            Files::Kept(kept) => Some(&kept.name),
            Files::Own(_) => None,
        }
    }

    fn write_at(&mut self, bytes: &[u8], offset: u64) -> Result<(), StoreError> {
        let written = self.file().write_all_at(bytes, offset);
        self.is_broken |= written.is_err();
        written.map_err(|e| StoreError::io("write", &self.path(), e))?;
        self.wrote(bytes.len() as u64)
    }

    /// Counts what was written. Nobody may have told how long the file gets, and others write to the same disk.
    fn wrote(&mut self, bytes: u64) -> Result<(), StoreError> {
        let before = self.on_disk / WRITEBACK_BYTES;
        self.on_disk += bytes;
        if self.on_disk / WRITEBACK_BYTES > before {
            let room = self.store.make_room(self.on_disk, 0, self.name());
            self.is_broken |= room.is_err();
            room?;
        }
        Ok(())
    }

    /// Lets the disk work while the file grows, see `Ingest`.
    fn start_writeback(&mut self) {
        let until = self.digest.size();
        if let Some(length) = NonZeroU64::new(until - self.under_way)
            && length.get() >= WRITEBACK_BYTES
        {
            let _ = fadvise(self.file(), self.under_way, Some(length), Advice::DontNeed);
            self.under_way = until;
        }
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        let is_empty = match &mut self.files {
            Files::Kept(kept) => kept.write_lines().is_ok() && kept.is_empty(),
            Files::Own(_) => false,
        };
        if is_empty {
            let _ = self.remove_files();
        }
        if let Files::Kept(kept) = &self.files {
            self.store.partials.remove(&kept.name);
        }
    }
}

/// Opens or makes a journal and locks it; `None` when somebody else has.
fn lock_journal(layout: &Layout, name: &str) -> Result<Option<File>, StoreError> {
    let path = layout.journal(name);
    for _ in 0..OPEN_ATTEMPTS {
        let journal = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(|e| StoreError::io("create", &path, e))?;
        if flock(&journal, FlockOperation::NonBlockingLockExclusive).is_err() {
            // Perhaps somebody only looks whether it is locked.
            thread::sleep(LOCK_RETRY);
            continue;
        }
        // Between opening and locking its owner may have finished and removed it.
        let opened = journal
            .metadata()
            .map_err(|e| StoreError::io("examine", &path, e))?;
        if fs::metadata(&path).is_ok_and(|found| found.ino() == opened.ino()) {
            return Ok(Some(journal));
        }
    }
    Ok(None)
}

/// Opens or makes the file of a partial whose journal is locked. One that has a second name is a blob by now, and nobody
/// writes a blob.
fn open_data(path: &Path) -> Result<File, StoreError> {
    let failed = |e| StoreError::io("open", path, e);
    match fs::symlink_metadata(path) {
        Ok(found) if !found.is_file() || found.nlink() > 1 => remove_if_there(path)?,
        Ok(_) => fs::set_permissions(path, Permissions::from_mode(PARTIAL_MODE)).map_err(failed)?,
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(failed(e)),
    }
    File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .map_err(failed)
}

/// Reads the journal of an earlier attempt; its length up to where it can be read. What follows is cut off.
fn take_up(body: &Body) -> io::Result<u64> {
    let mut read = 0;
    loop {
        let lines = read_lines(&body.journal, read)?;
        if lines.whole == 0 {
            break;
        }
        read += lines.whole as u64;
        body.note(lines.blocks);
    }
    if read == 0 {
        body.journal.write_all_at(MAGIC, 0)?;
        read = MAGIC.len() as u64;
    }
    body.journal.set_len(read)?;
    Ok(read)
}

/// Bytes that a file takes on the disk; holes take none.
fn allocated(file: &File) -> u64 {
    file.metadata().map_or(0, |found| found.blocks() * 512)
}
