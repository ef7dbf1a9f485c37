//! Blobs: whole files, kept as plain files and served in place.
//!
//! A blob's bytes were hashed when it came in. Whoever reads it later relies on the file not having changed since: size,
//! modification time and inode are compared each time it is opened, and it is hashed again when they differ. Blocks
//! cut from it are hashed each time they are read, because they go to others.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use base::{Cid, Codec, Hasher, Multihash, Sha256, block_cid};
use bytes::BytesMut;
use rusqlite::{Connection, OptionalExtension as _, Row, Transaction};

use crate::index::from_sql;
use crate::layout::Stamp;
use crate::{BLOCK_BYTES_MAX, Block, Store, StoreError};

/// How much of a file is read at once for hashing, in bytes.
const READ_BYTES: usize = 256 << 10;

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

/// An open blob. The file never changes; it can be linked or copied from [`Self::path`], never written.
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
}

/// The columns [`BlobRow::read`] reads, in its order.
macro_rules! blob_columns {
    () => {
        "blob.id, blob.sha256, blob.size, blob.root_codec, blob.root, blob.mtime_ns, blob.inode"
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
        })
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
        Ok(self.open_blob(sha256)?.map(|file| file.blob))
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
        let Some(row) = self.blob_row(sha256)? else {
            return Ok(None);
        };
        let path = self.layout.blob(sha256);
        match self.open_unchanged(&row, &path)? {
            Opened::Unchanged(file) => Ok(Some(BlobFile {
                file,
                path,
                blob: row.blob,
            })),
            Opened::Changed(mut file) => match self.verify_open(&row, &mut file)? {
                BlobState::Intact => {
                    file.rewind()
                        .map_err(|e| StoreError::io("read", &path, e))?;
                    Ok(Some(BlobFile {
                        file,
                        path,
                        blob: row.blob,
                    }))
                }
                BlobState::Damaged | BlobState::Missing => Ok(None),
            },
            Opened::Missing => Ok(None),
        }
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
        match self.open_unchanged(&row, &self.layout.blob(sha256))? {
            Opened::Unchanged(mut file) | Opened::Changed(mut file) => {
                self.verify_open(&row, &mut file)
            }
            Opened::Missing => Ok(BlobState::Missing),
        }
    }

    fn blob_row(&self, sha256: &Sha256) -> Result<Option<BlobRow>, StoreError> {
        self.index
            .read(|connection| BlobRow::find(connection, sha256))
    }

    /// The block that is a chunk of some blob, hashed while it was read.
    pub(crate) fn leaf_block(&self, hash: &Multihash) -> Result<Option<Block>, StoreError> {
        let digest = hash.digest();
        let leaves = self.index.read(|connection| {
            connection
                .prepare_cached(concat!(
                    "SELECT ",
                    blob_columns!(),
                    ", leaf.offset, leaf.length FROM leaf JOIN blob ON blob.id = leaf.blob WHERE leaf.hash = ?1"
                ))?
                .query_map([digest.as_bytes()], |row| {
                    let (offset, length) = (from_sql(row.get(7)?), from_sql(row.get(8)?));
                    Ok(LeafRow { row: BlobRow::read(row)?, offset, length })
                })?
                .collect::<rusqlite::Result<Vec<_>>>()
        })?;
        for leaf in leaves {
            if let Some(block) = self.read_leaf(hash, &leaf)? {
                return Ok(Some(block));
            }
        }
        Ok(None)
    }

    /// Reads a chunk. A wrong one proves that its blob is damaged.
    fn read_leaf(&self, hash: &Multihash, leaf: &LeafRow) -> Result<Option<Block>, StoreError> {
        let path = self.layout.blob(&leaf.row.blob.sha256);
        let file = match self.open_unchanged(&leaf.row, &path)? {
            Opened::Unchanged(file) | Opened::Changed(file) => file,
            Opened::Missing => return Ok(None),
        };
        let length = usize::try_from(leaf.length)
            .ok()
            .filter(|length| *length <= BLOCK_BYTES_MAX)
            .ok_or_else(|| StoreError::corrupt("chunk in the index is larger than a block"))?;
        let mut bytes = BytesMut::zeroed(length);
        file.read_exact_at(&mut bytes, leaf.offset)
            .map_err(|e| StoreError::io("read", &path, e))?;
        match Block::verify(*hash, bytes.freeze()) {
            Ok(block) => Ok(Some(block)),
            Err(mismatch) => {
                tracing::warn!(path = %path.display(), %mismatch, "blob is damaged");
                self.quarantine(&leaf.row)?;
                Ok(None)
            }
        }
    }

    /// Opens the file of a row. One that is gone or has another length is dealt with at once.
    fn open_unchanged(&self, row: &BlobRow, path: &Path) -> Result<Opened, StoreError> {
        let file = match File::open(path) {
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
        if stamp.size != row.blob.size {
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
        let path = self.layout.blob(&row.blob.sha256);
        let got = hash_file(file).map_err(|e| StoreError::io("read", &path, e))?;
        if got != row.blob.sha256 {
            tracing::warn!(path = %path.display(), %got, "blob is damaged");
            self.quarantine(row)?;
            return Ok(BlobState::Damaged);
        }
        let metadata = file
            .metadata()
            .map_err(|e| StoreError::io("examine", &path, e))?;
        let stamp = Stamp::of(&metadata);
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

    /// Forgets a blob and moves its file aside, unless another process has replaced it meanwhile.
    fn quarantine(&self, row: &BlobRow) -> Result<(), StoreError> {
        let sha256 = &row.blob.sha256;
        let (from, to) = (self.layout.blob(sha256), self.layout.damaged(sha256));
        self.index.write(|transaction| {
            if forget_blob(transaction, row.id, &row.blob)? {
                match fs::rename(&from, &to) {
                    Ok(()) => {}
                    Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                    Err(e) => return Err(StoreError::io("move aside", &from, e)),
                }
            }
            Ok(())
        })
    }
}

/// Removes the rows of a blob; `false` when there were none. The chunks' rows and the root node go with it.
pub(crate) fn forget_blob(
    transaction: &Transaction<'_>,
    id: i64,
    blob: &Blob,
) -> Result<bool, StoreError> {
    let removed = transaction.execute("DELETE FROM blob WHERE id = ?1", [id])?;
    if removed == 0 {
        return Ok(false);
    }
    // Inner nodes of larger trees stay: other blobs may share them. Without the root nobody asks for them.
    transaction.execute("DELETE FROM leaf WHERE blob = ?1", [id])?;
    if let (Ok(Codec::DagPb), Ok(hash)) = (Codec::of(&blob.root), Multihash::of(&blob.root)) {
        transaction.execute(
            "DELETE FROM block WHERE hash = ?1",
            [hash.digest().as_bytes()],
        )?;
    }
    Ok(true)
}

/// What [`Store::open_unchanged`] found.
enum Opened {
    Unchanged(File),
    Changed(File),
    Missing,
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
