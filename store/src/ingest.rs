//! Taking a file in: one pass that writes, hashes the whole and its chunks, then makes it durable and visible. A large
//! file is hashed on two threads, see `beside`.
//!
//! The order is what makes it safe to kill the process anywhere: the temporary file is synchronised first; then, under
//! the index's write lock, it gets its name among the blobs, the directory is synchronised, and the rows are committed.
//! The name is a second link: the temporary name goes last, so its presence tells the next opening that something was
//! cut short.

use std::fs::{self, File, Permissions};
use std::io::{self, Read, Seek as _, Write};
use std::num::NonZeroU64;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use base::{Cid, Hasher, Sha256};
use bytes::Bytes;
use rustix::fs::{Advice, fadvise};
use tempfile::NamedTempFile;

use crate::beside::each_piece;
use crate::blob::BlobRow;
use crate::crash;
use crate::digest::{Digested, FileDigest};
use crate::error::is_disk_full;
use crate::forget::forget_blob;
use crate::layout::{Stamp, locked_file, sync_dir};
use crate::partial::partial_bytes;
use crate::room::over_quota;
use crate::{Blob, Block, Store, StoreError};

/// Largest blob in bytes: keeps one file's records below 100 MB of memory.
const BLOB_BYTES_MAX: u64 = 1 << 40;
/// How often a file is made room for when others take it again.
const ROOM_ATTEMPTS: usize = 3;
/// Small writes are collected up to this many bytes.
const BUFFER_BYTES: usize = 64 << 10;
/// Bytes of a user's file read at a time.
const PIECE_BYTES: usize = 128 << 10;
/// Writing out starts every so many bytes: large enough for long runs on a disk.
const WRITEBACK_BYTES: u64 = 16 << 20;
/// Nobody writes a blob, not even we.
const BLOB_MODE: u32 = 0o444;

/// What a file must turn out to be. Fields that are `None` are not checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expected {
    /// SHA-256 of the plain file.
    pub sha256: Option<Sha256>,
    /// Length in bytes.
    pub size: Option<u64>,
    /// Root of the UnixFS file, profile unixfs-v1-2025.
    pub root: Option<Cid>,
}

impl Expected {
    /// Nothing is known beforehand.
    pub fn anything() -> Self {
        Self::default()
    }

    /// A file known by its SHA-256, as sources are.
    pub fn sha256(sha256: Sha256) -> Self {
        Self {
            sha256: Some(sha256),
            ..Self::default()
        }
    }

    /// An output as its realisation describes it.
    pub fn realisation(realisation: &base::Realisation) -> Self {
        Self {
            sha256: Some(realisation.sha256),
            size: Some(realisation.size),
            root: Some(realisation.output),
        }
    }

    pub(crate) fn check(&self, blob: &Blob) -> Result<(), StoreError> {
        check("size", self.size.as_ref(), &blob.size)?;
        check("sha256", self.sha256.as_ref(), &blob.sha256)?;
        check("root", self.root.as_ref(), &blob.root)
    }
}

fn check<T: PartialEq + ToString>(
    what: &'static str,
    expected: Option<&T>,
    got: &T,
) -> Result<(), StoreError> {
    match expected {
        Some(expected) if expected != got => Err(StoreError::Mismatch {
            what,
            expected: expected.to_string(),
            got: got.to_string(),
        }),
        _ => Ok(()),
    }
}

/// A file on its way into the store. Dropping it removes what was written.
#[derive(Debug)]
pub struct Ingest {
    store: Store,
    file: NamedTempFile,
    /// Bytes that were hashed but not written yet.
    buffer: Vec<u8>,
    digest: FileDigest,
    /// Bytes handed to the operating system, and those of them it was asked to write out.
    on_disk: u64,
    under_way: u64,
    /// A write failed; what is on disk and what was hashed may differ.
    is_broken: bool,
}

impl Ingest {
    /// Tells how long the file will be, so that a full disk is found out before the first byte is fetched.
    ///
    /// # Errors
    /// [`StoreError::DiskFull`] or [`StoreError::QuotaExceeded`] when it will not fit.
    pub fn reserve(&mut self, size: u64) -> Result<(), StoreError> {
        check_blob_size(size)?;
        let rest = size.saturating_sub(self.written());
        self.store.make_room(size, rest, None)
    }

    /// How many bytes were written so far.
    pub const fn written(&self) -> u64 {
        self.digest.size()
    }

    /// Appends bytes. The same as [`Write::write_all`], with errors told apart.
    ///
    /// # Errors
    /// [`StoreError`] when the bytes could not be written; the file cannot be finished then.
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        check_blob_size(self.written().saturating_add(bytes.len() as u64))?;
        self.digest.update(bytes);
        self.write_out(bytes)
    }

    /// Appends all that can be read, as [`io::copy`] does, but a large file is hashed on two processors.
    ///
    /// # Errors
    /// When `source` could not be read or the bytes not written; the file cannot be finished then.
    pub fn copy_from(&mut self, source: &mut impl Read) -> io::Result<u64> {
        let before = self.written();
        each_piece(
            source,
            |error| error,
            |piece| self.append_shared(&piece).map_err(into_io),
        )?;
        Ok(self.written() - before)
    }

    fn append_shared(&mut self, bytes: &Bytes) -> Result<(), StoreError> {
        check_blob_size(self.written().saturating_add(bytes.len() as u64))?;
        self.digest.update_shared(bytes);
        self.write_out(bytes)
    }

    /// Appends the bytes of a verified block; where it is exactly one chunk, its hash is not computed again.
    ///
    /// # Errors
    /// [`StoreError`] when the bytes could not be written; the file cannot be finished then.
    pub fn write_leaf(&mut self, leaf: &Block) -> Result<(), StoreError> {
        check_blob_size(self.written().saturating_add(leaf.len() as u64))?;
        self.digest.update_leaf(leaf);
        self.write_out(leaf.bytes())
    }

    /// Checks the file against `expected`, makes it durable and visible.
    ///
    /// # Errors
    /// [`StoreError::Mismatch`] when it is another file; then, as after every error, nothing is kept.
    pub fn finish(mut self, expected: &Expected) -> Result<Blob, StoreError> {
        self.flush_buffer()?;
        if self.is_broken {
            return Err(StoreError::corrupt("an earlier write to this file failed"));
        }
        let digest = std::mem::replace(&mut self.digest, FileDigest::new());
        let digested = digest.finish();
        let blob = &digested.blob;
        expected.check(blob)?;
        if self.store.blob(&blob.sha256)?.as_ref() != Some(blob) {
            let file = &self.file;
            publish(&self.store, &digested, file.path(), file.as_file(), None)?;
        }
        Ok(digested.blob)
    }

    fn write_out(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        if bytes.len() < BUFFER_BYTES - self.buffer.len() {
            self.buffer.extend_from_slice(bytes);
        } else {
            self.flush_buffer()?;
            self.write_file(bytes)?;
        }
        Ok(())
    }

    fn flush_buffer(&mut self) -> Result<(), StoreError> {
        let mut buffer = std::mem::take(&mut self.buffer);
        let result = self.write_file(&buffer);
        buffer.clear();
        self.buffer = buffer;
        result
    }

    fn write_file(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        let result = self.file.as_file_mut().write_all(bytes);
        self.is_broken |= result.is_err();
        self.on_disk += bytes.len() as u64;
        result.map_err(|e| StoreError::io("write", self.file.path(), e))?;
        if self.start_writeback() {
            // Nobody may have told how long the file gets, and others write to the same disk.
            let room = self.store.make_room(self.on_disk, 0, None);
            self.is_broken |= room.is_err();
            room?;
        }
        Ok(())
    }
}

impl Ingest {
    /// Lets the disk work while we hash, instead of all at once at the end; `true` each time it does. For pages that are still dirty this
    /// advice starts writing them and drops nothing; it is only advice, so its failure means nothing.
    fn start_writeback(&mut self) -> bool {
        if let Some(length) = NonZeroU64::new(self.on_disk - self.under_way)
            && length.get() >= WRITEBACK_BYTES
        {
            let _ = fadvise(
                self.file.as_file(),
                self.under_way,
                Some(length),
                Advice::DontNeed,
            );
            self.under_way = self.on_disk;
            return true;
        }
        false
    }
}

impl Write for Ingest {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.append(buf).map_err(into_io)?;
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.flush_buffer().map_err(into_io)
    }
}

impl Store {
    /// Starts taking a file in.
    ///
    /// # Errors
    /// [`StoreError`] when no temporary file could be made.
    pub fn ingest(&self) -> Result<Ingest, StoreError> {
        Ok(Ingest {
            store: self.clone(),
            file: locked_file(&self.layout.temporary, "ingest-")?,
            buffer: Vec::new(),
            digest: FileDigest::new(),
            on_disk: 0,
            under_way: 0,
            is_broken: false,
        })
    }
}

impl Store {
    /// Takes in a file of the user, of which `path` is the name. Where room would have to be made for it, it is read once more
    /// before: one that is here already needs none, and nothing goes for it.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot be read or kept.
    pub fn add_file(&self, path: &Path, file: &mut File) -> Result<Blob, StoreError> {
        let unreadable = |e| StoreError::io("read", path, e);
        let size = file.metadata().map_err(unreadable)?.len();
        if !self.has_room(size)? {
            let sha256 = sha256_of(file).map_err(unreadable)?;
            if let Some(blob) = self.blob(&sha256)? {
                return Ok(blob);
            }
            file.rewind().map_err(unreadable)?;
        }
        let mut ingest = self.ingest()?;
        ingest.reserve(size)?;
        ingest.copy_from(file).map_err(unreadable)?;
        ingest.finish(&Expected::anything())
    }
}

fn sha256_of(file: &mut File) -> io::Result<Sha256> {
    let mut hasher = Hasher::new();
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        match file.read(&mut piece) {
            Ok(0) => return Ok(hasher.finish()),
            Ok(length) => hasher.update(&piece[..length]),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

/// Makes a finished file durable and visible. `partial` names what it grew from, which does not count beside it.
pub(crate) fn publish(
    store: &Store,
    digested: &Digested,
    temporary: &Path,
    file: &File,
    partial: Option<&str>,
) -> Result<(), StoreError> {
    let blob = &digested.blob;
    file.set_permissions(Permissions::from_mode(BLOB_MODE))
        .and_then(|()| file.sync_all())
        .map_err(|e| StoreError::io("synchronise", temporary, e))?;
    let metadata = file
        .metadata()
        .map_err(|e| StoreError::io("examine", temporary, e))?;
    let stamp = Stamp::of(&metadata);
    crash::point("synchronised");
    // Before the row is there: no collector sees the one without the other.
    store.hold(&blob.sha256)?;
    for _ in 0..ROOM_ATTEMPTS {
        store.make_room(blob.size, 0, partial)?;
        if name_and_insert(store, digested, temporary, &stamp, partial)? {
            crash::point("committed");
            return Ok(());
        }
    }
    Err(StoreError::Busy { waited_secs: 0 })
}

/// Makes a durable file visible; `false` when others took the room that was made for it.
fn name_and_insert(
    store: &Store,
    digested: &Digested,
    temporary: &Path,
    stamp: &Stamp,
    partial: Option<&str>,
) -> Result<bool, StoreError> {
    let blob = &digested.blob;
    let path = store.layout.blob(&blob.sha256);
    store.index.write(|transaction| {
        if let Some(row) = BlobRow::find(transaction, &blob.sha256)? {
            // Another process was faster; its file is as good as ours if it is there as it left it.
            let file = row.file(&store.layout);
            if fs::metadata(file).is_ok_and(|found| Stamp::of(&found) == row.stamp) {
                return Ok(true);
            }
            forget_blob(transaction, &row)?;
        }
        let quota = store.limits().quota_bytes.unwrap_or(u64::MAX);
        if quota < u64::MAX {
            let beside = partial_bytes(&store.layout, partial).saturating_add(blob.size);
            if over_quota(transaction, quota, beside)? > 0 {
                return Ok(false);
            }
        }
        give_name(temporary, &path)?;
        crash::point("named");
        sync_dir(&store.layout.blobs)?;
        digested.insert(transaction, stamp, None)?;
        crash::point("inserted");
        Ok(true)
    })
}

/// Gives a finished file its name among the blobs, replacing what a dead process may have left there.
fn give_name(temporary: &Path, path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Ok(()) => {}
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(StoreError::io("replace", path, e)),
    }
    match fs::hard_link(temporary, path) {
        Ok(()) => Ok(()),
        Err(e) if is_disk_full(&e) => Err(StoreError::io("create", path, e)),
        // File systems without hard links: a crash from here to the commit leaves a file that nobody knows of.
        Err(_) => fs::rename(temporary, path).map_err(|e| StoreError::io("create", path, e)),
    }
}

pub(crate) fn check_blob_size(size: u64) -> Result<(), StoreError> {
    if size > BLOB_BYTES_MAX {
        return Err(StoreError::TooLarge {
            what: "blob",
            size,
            max: BLOB_BYTES_MAX,
        });
    }
    Ok(())
}

/// Keeps the operating system's own error visible through [`Write`].
fn into_io(error: StoreError) -> io::Error {
    match error {
        StoreError::Io { source, .. } => source,
        StoreError::DiskFull { .. } | StoreError::QuotaExceeded { .. } => {
            io::Error::new(io::ErrorKind::StorageFull, error)
        }
        other => io::Error::other(other),
    }
}
