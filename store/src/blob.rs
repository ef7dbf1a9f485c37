//! Blobs.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use base::{Cid, Sha256};

use crate::{Store, StoreError};

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

impl Store {
    /// The blob with this SHA-256; `None` when it is missing.
    ///
    /// # Errors
    /// [`StoreError`] when the index or the file could not be read.
    pub fn blob(&self, sha256: &Sha256) -> Result<Option<Blob>, StoreError> {
        let _ = sha256;
        Ok(None)
    }

    /// The blob whose UnixFS root this is; `None` when it is missing.
    ///
    /// # Errors
    /// [`StoreError`] when the index or the file could not be read.
    pub fn blob_by_root(&self, root: &Cid) -> Result<Option<Blob>, StoreError> {
        let _ = root;
        Ok(None)
    }

    /// Opens a blob for reading; `None` when it is missing.
    ///
    /// # Errors
    /// [`StoreError`] when the index or the file could not be read.
    pub fn open_blob(&self, sha256: &Sha256) -> Result<Option<BlobFile>, StoreError> {
        let _ = sha256;
        Ok(None)
    }

    /// All blobs.
    ///
    /// # Errors
    /// [`StoreError`] when the index could not be read.
    pub fn blobs(&self) -> Result<Vec<Blob>, StoreError> {
        Ok(Vec::new())
    }

    /// Hashes a blob again. A damaged one is moved aside and forgotten, so that it can be fetched again.
    ///
    /// # Errors
    /// [`StoreError`] when the blob could not be read or moved.
    pub fn verify_blob(&self, sha256: &Sha256) -> Result<BlobState, StoreError> {
        let _ = sha256;
        Ok(BlobState::Missing)
    }
}
