//! Blobs: whole files, kept as plain files and served in place.
//!
//! A blob's bytes were hashed when it came in. Whoever reads it later relies on the file not having changed since: size,
//! modification time and inode are compared each time it is opened, and it is hashed again when they differ. Blocks
//! cut from it are hashed each time they are read, because they go to others.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use base::{Cid, Codec, Hasher, Multihash, Sha256, block_cid};
use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension as _, Row};
use rustix::buffer::spare_capacity;
use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::{Errno, pread};

use crate::forget::{forget_blob, forget_keys};
use crate::index::from_sql;
use crate::layout::{Layout, Stamp};
use crate::reference::settled;
use crate::{BLOCK_BYTES_MAX, Block, Store, StoreError};

/// How much of a file is read at once for hashing, in bytes.
pub(crate) const READ_BYTES: usize = 256 << 10;

/// A whole file in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blob {
    /// SHA-256 of the plain file.
    pub sha256: Sha256,
    /// Root of the UnixFS file (profile unixfs-v1-2025) over the same bytes.
    pub root: Cid,
    /// Length in bytes.
    pub size: u64,
}

/// What [`Store::verify_blob`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlobState {
    /// The bytes are what the index says.
    Intact,
    /// The bytes were not; the file was moved aside and the blob is missing from now on.
    Damaged,
    /// There is no such blob.
    Missing,
}

/// An open blob. It can be linked or copied from [`Self::path`], never written. The store's own files never change; one that
/// lies where its owner keeps it was right when it was opened.
#[derive(Debug)]
pub struct BlobFile {
    file: File,
    path: PathBuf,
    blob: Blob,
}

impl BlobFile {
    /// Which blob this is.
    pub const fn blob(&self) -> &Blob {
        &self.blob
    }

    /// Length in bytes.
    pub const fn size(&self) -> u64 {
        self.blob.size
    }

    /// Where the file lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Copies what has not been read yet, as [`io::copy`] does. To another file the operating system does it alone, and
    /// shares the disk's blocks where the file system can.
    ///
    /// # Errors
    /// When the file cannot be read or `out` not written.
    pub fn copy_to<W: Write + ?Sized>(&mut self, out: &mut W) -> io::Result<u64> {
        io::copy(&mut self.file, out)
    }
}

impl Read for BlobFile {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.file.read(buf)
    }
}

impl Seek for BlobFile {
    fn seek(&mut self, pos: SeekFrom) -> io::Result<u64> {
        self.file.seek(pos)
    }
}

/// A row of the index.
#[derive(Clone, Debug)]
pub(crate) struct BlobRow {
    pub(crate) id: i64,
    pub(crate) blob: Blob,
    pub(crate) stamp: Stamp,
    /// Where its owner keeps the file, if it is not ours.
    pub(crate) reference: Option<PathBuf>,
    /// The hour of its last use.
    pub(crate) used: i64,
}

/// The columns [`BlobRow::read`] reads, in its order.
macro_rules! blob_columns {
    () => {
        "blob.id, blob.sha256, blob.size, blob.root_codec, blob.root, blob.mtime_ns, blob.inode, \
         blob.path, blob.used"
    };
}

impl BlobRow {
    /// The row of a blob.
    pub(crate) fn find(connection: &Connection, sha256: &Sha256) -> rusqlite::Result<Option<Self>> {
        connection
            .prepare_cached(concat!(
                "SELECT ",
                blob_columns!(),
                " FROM blob WHERE sha256 = ?1"
            ))?
            .query_row([sha256.as_bytes()], Self::read)
            .optional()
    }

    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        let size = from_sql(row.get(2)?);
        let sha256 = Sha256::from_bytes(row.get(1)?);
        let codec = if row.get::<_, i64>(3)? == 0x55 {
            Codec::Raw
        } else {
            Codec::DagPb
        };
        let root = block_cid(codec, &Sha256::from_bytes(row.get(4)?));
        let stamp = Stamp {
            size,
            mtime_ns: row.get(5)?,
            inode: row.get::<_, i64>(6)?.cast_unsigned(),
        };
        Ok(Self {
            id: row.get(0)?,
            blob: Blob { sha256, root, size },
            stamp,
            reference: row
                .get::<_, Option<Vec<u8>>>(7)?
                .map(|path| OsString::from_vec(path).into()),
            used: row.get(8)?,
        })
    }

    /// Where the file lies.
    pub(crate) fn file(&self, layout: &Layout) -> PathBuf {
        match &self.reference {
            Some(path) => path.clone(),
            None => layout.blob(&self.blob.sha256),
        }
    }
}

/// Where a chunk lies.
#[derive(Debug)]
struct LeafRow {
    row: BlobRow,
    offset: u64,
    length: u64,
}

impl Store {
    /// The blob with this SHA-256; `None` when it is missing.
    ///
    /// # Errors
    /// [`StoreError`] when the index or the file could not be read.
    pub fn blob(&self, sha256: &Sha256) -> Result<Option<Blob>, StoreError> {
        Ok(self.find_and_open(sha256)?.map(|(_, file)| file.blob))
    }

    /// The blob whose UnixFS root this is; `None` when it is missing.
    ///
    /// # Errors
    /// [`StoreError`] when the index or the file could not be read.
    pub fn blob_by_root(&self, root: &Cid) -> Result<Option<Blob>, StoreError> {
        let (Ok(codec), Ok(hash)) = (Codec::of(root), Multihash::of(root)) else {
            return Ok(None);
        };
        let root = block_cid(codec, &hash.digest());
        let digest = hash.digest();
        let row = self.index.read(|connection| {
            connection
                .prepare_cached(concat!(
                    "SELECT ",
                    blob_columns!(),
                    " FROM blob WHERE root = ?1"
                ))?
                .query_row([digest.as_bytes()], BlobRow::read)
                .optional()
        })?;
        match row.filter(|row| row.blob.root == root) {
            Some(row) => self.blob(&row.blob.sha256),
            None => Ok(None),
        }
    }

    /// Opens a blob for reading; `None` when it is missing.
    ///
    /// # Errors
    /// [`StoreError`] when the index or the file could not be read.
    pub fn open_blob(&self, sha256: &Sha256) -> Result<Option<BlobFile>, StoreError> {
        let Some((row, file)) = self.find_and_open(sha256)? else {
            return Ok(None);
        };
        self.index.note_use(row.id, row.used);
        Ok(Some(file))
    }

    fn find_and_open(&self, sha256: &Sha256) -> Result<Option<(BlobRow, BlobFile)>, StoreError> {
        let Some(row) = self.blob_row(sha256)? else {
            return Ok(None);
        };
        let path = row.file(&self.layout);
        let file = match self.open_unchanged(&row, &path)? {
            Opened::Unchanged(file) => file,
            Opened::Changed(mut file) => {
                if self.verify_open(&row, &mut file)? != BlobState::Intact {
                    return Ok(None);
                }
                file.rewind()
                    .map_err(|e| StoreError::io("read", &path, e))?;
                file
            }
            Opened::Missing => return Ok(None),
        };
        // Tells the collector to leave the file. Refused only while it is being removed or has just been written: what is
        // open can be read to its end even so.
        let _ = flock(&file, FlockOperation::NonBlockingLockShared);
        let blob = row.blob.clone();
        Ok(Some((row, BlobFile { file, path, blob })))
    }

    /// All blobs the index knows, by SHA-256.
    ///
    /// # Errors
    /// [`StoreError`] when the index could not be read.
    pub fn blobs(&self) -> Result<Vec<Blob>, StoreError> {
        self.index.read(|connection| {
            connection
                .prepare_cached(concat!(
                    "SELECT ",
                    blob_columns!(),
                    " FROM blob ORDER BY sha256"
                ))?
                .query_map([], |row| BlobRow::read(row).map(|row| row.blob))?
                .collect()
        })
    }

    /// Hashes a blob again. A damaged one is moved aside and forgotten, so that it can be fetched again.
    ///
    /// # Errors
    /// [`StoreError`] when the blob could not be read or moved.
    pub fn verify_blob(&self, sha256: &Sha256) -> Result<BlobState, StoreError> {
        let Some(row) = self.blob_row(sha256)? else {
            return Ok(BlobState::Missing);
        };
        match self.open_unchanged(&row, &row.file(&self.layout))? {
            Opened::Unchanged(mut file) | Opened::Changed(mut file) => {
                self.verify_open(&row, &mut file)
            }
            Opened::Missing => Ok(BlobState::Missing),
        }
    }

    fn blob_row(&self, sha256: &Sha256) -> Result<Option<BlobRow>, StoreError> {
        let row = self
            .index
            .read(|connection| BlobRow::find(connection, sha256))?;
        self.held(row)
    }

    /// A row that was found, held if this handle holds things; `None` when a collector was faster.
    fn held(&self, row: Option<BlobRow>) -> Result<Option<BlobRow>, StoreError> {
        let Some(row) = row else { return Ok(None) };
        let sha256 = row.blob.sha256;
        if !self.hold(&sha256)? {
            return Ok(Some(row));
        }
        self.index
            .write(|transaction| Ok(BlobRow::find(transaction, &sha256)?))
    }

    /// The block that is a chunk of some blob, hashed while it was read.
    pub(crate) fn leaf_block(&self, hash: &Multihash) -> Result<Option<Block>, StoreError> {
        for leaf in self.leaves(hash)? {
            if let Some((_, bytes)) = self.read_leaf(&leaf)?
                && let Some(block) = self.check_leaf(hash, &leaf, bytes)?
            {
                return Ok(Some(block));
            }
        }
        Ok(None)
    }

    /// The bytes of a chunk of some blob, for a peer. A file of our own whose stamp is that of the day when it was
    /// hashed is not hashed again: nobody writes there, and the peer would find out.
    pub(crate) fn leaf_bytes(&self, hash: &Multihash) -> Result<Option<Bytes>, StoreError> {
        for leaf in self.leaves(hash)? {
            let Some((unchanged, bytes)) = self.read_leaf(&leaf)? else {
                continue;
            };
            if unchanged && leaf.row.reference.is_none() {
                self.index.note_use(leaf.row.id, leaf.row.used);
                return Ok(Some(bytes));
            }
            if let Some(block) = self.check_leaf(hash, &leaf, bytes)? {
                return Ok(Some(block.into_bytes()));
            }
        }
        Ok(None)
    }

    fn leaves(&self, hash: &Multihash) -> Result<Vec<LeafRow>, StoreError> {
        let digest = hash.digest();
        self.index.read(|connection| {
            connection
                .prepare_cached(concat!(
                    "SELECT ",
                    blob_columns!(),
                    ", leaf.offset, leaf.length FROM leaf JOIN blob ON blob.id = leaf.blob WHERE leaf.hash = ?1"
                ))?
                .query_map([digest.as_bytes()], |row| {
                    let (offset, length) = (from_sql(row.get(9)?), from_sql(row.get(10)?));
                    Ok(LeafRow { row: BlobRow::read(row)?, offset, length })
                })?
                .collect::<rusqlite::Result<Vec<_>>>()
        })
    }

    /// Reads a chunk, and says whether its file is as it was when it was hashed.
    fn read_leaf(&self, leaf: &LeafRow) -> Result<Option<(bool, Bytes)>, StoreError> {
        let path = leaf.row.file(&self.layout);
        let (unchanged, file) = match self.open_unchanged(&leaf.row, &path)? {
            Opened::Unchanged(file) => (true, file),
            Opened::Changed(file) => (false, file),
            Opened::Missing => return Ok(None),
        };
        let length = usize::try_from(leaf.length)
            .ok()
            .filter(|length| *length <= BLOCK_BYTES_MAX)
            .ok_or_else(|| StoreError::corrupt("chunk in the index is larger than a block"))?;
        let bytes = read_at(&file, leaf.offset, length);
        let bytes = bytes.map_err(|e| StoreError::io("read", &path, e))?;
        Ok(Some((unchanged, bytes)))
    }

    /// Hashes a chunk that was read. A wrong one proves that its blob is damaged.
    fn check_leaf(
        &self,
        hash: &Multihash,
        leaf: &LeafRow,
        bytes: Bytes,
    ) -> Result<Option<Block>, StoreError> {
        match Block::verify(*hash, bytes) {
            Ok(block) => {
                self.index.note_use(leaf.row.id, leaf.row.used);
                Ok(Some(block))
            }
            Err(mismatch) => {
                let path = leaf.row.file(&self.layout);
                tracing::warn!(path = %path.display(), %mismatch, "blob is damaged");
                self.quarantine(&leaf.row)?;
                Ok(None)
            }
        }
    }

    /// Opens the file of a row. One that is gone or has another length is dealt with at once.
    fn open_unchanged(&self, row: &BlobRow, path: &Path) -> Result<Opened, StoreError> {
        let file = match open_file(path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                tracing::warn!(path = %path.display(), "blob has vanished");
                self.quarantine(row)?;
                return Ok(Opened::Missing);
            }
            Err(e) => return Err(StoreError::io("open", path, e)),
        };
        let metadata = file
            .metadata()
            .map_err(|e| StoreError::io("examine", path, e))?;
        let stamp = Stamp::of(&metadata);
        if stamp.size != row.blob.size || !metadata.is_file() {
            tracing::warn!(path = %path.display(), "blob has another length than it had");
            self.quarantine(row)?;
            return Ok(Opened::Missing);
        }
        Ok(if stamp == row.stamp {
            Opened::Unchanged(file)
        } else {
            Opened::Changed(file)
        })
    }

    fn verify_open(&self, row: &BlobRow, file: &mut File) -> Result<BlobState, StoreError> {
        let path = row.file(&self.layout);
        let got = hash_file(file).map_err(|e| StoreError::io("read", &path, e))?;
        if got != row.blob.sha256 {
            tracing::warn!(path = %path.display(), %got, "blob is damaged");
            self.quarantine(row)?;
            return Ok(BlobState::Damaged);
        }
        let metadata = file
            .metadata()
            .map_err(|e| StoreError::io("examine", &path, e))?;
        let mut stamp = Stamp::of(&metadata);
        if row.reference.is_some() {
            stamp = settled(stamp);
        }
        if stamp != row.stamp {
            self.index.write(|transaction| {
                transaction.execute(
                    "UPDATE blob SET mtime_ns = ?2, inode = ?3 WHERE id = ?1",
                    (row.id, stamp.mtime_ns, stamp.inode.cast_signed()),
                )?;
                Ok(())
            })?;
        }
        Ok(BlobState::Intact)
    }

    /// Forgets a blob and moves its file aside, unless another process has replaced it meanwhile. A file of somebody else
    /// stays where it is.
    fn quarantine(&self, row: &BlobRow) -> Result<(), StoreError> {
        let sha256 = &row.blob.sha256;
        let (from, to) = (self.layout.blob(sha256), self.layout.damaged(sha256));
        self.index.write(|transaction| {
            if !forget_blob(transaction, row)? {
                return Ok(());
            }
            forget_keys(transaction, &row.blob)?;
            if row.reference.is_some() {
                return Ok(());
            }
            match fs::rename(&from, &to) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => {
                    Err(StoreError::io("move aside", &from, e))
                }
                _ => Ok(()),
            }
        })
    }
}

/// What [`Store::open_unchanged`] found.
enum Opened {
    Unchanged(File),
    Changed(File),
    Missing,
}

/// Opens a file for reading. Where its owner keeps it, anything may lie by now; a pipe would keep us waiting for a writer.
pub(crate) fn open_file(path: &Path) -> io::Result<File> {
    let nonblocking = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or(0);
    File::options()
        .read(true)
        .custom_flags(nonblocking)
        .open(path)
}

/// Reads so many bytes from an offset on. Memory is not zeroed before, which costs as much as a third of the reading.
pub(crate) fn read_at(file: &File, offset: u64, length: usize) -> io::Result<Bytes> {
    let mut bytes = Vec::with_capacity(length);
    while bytes.len() < length {
        let at = offset + bytes.len() as u64;
        match pread(file, spare_capacity(&mut bytes), at) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    bytes.truncate(length);
    Ok(bytes.into())
}

fn hash_file(file: &mut File) -> io::Result<Sha256> {
    file.rewind()?;
    let mut hasher = Hasher::new();
    let mut buffer = vec![0; READ_BYTES];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hasher.finish()),
            length => hasher.update(&buffer[..length]),
        }
    }
}
