//! Taking a file in.

use std::io::{self, Write};

use base::{Cid, Sha256};

use crate::{Blob, Block, Store, StoreError};

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
}

/// A file on its way into the store. Dropping it removes what was written.
#[derive(Debug)]
pub struct Ingest {
    size: u64,
}

impl Ingest {
    /// Tells how long the file will be, so that a full disk is found out before the first byte is fetched.
    ///
    /// # Errors
    /// [`StoreError::DiskFull`] when it will not fit.
    pub fn reserve(&mut self, size: u64) -> Result<(), StoreError> {
        let _ = size;
        Ok(())
    }

    /// How many bytes were written so far.
    pub const fn written(&self) -> u64 {
        self.size
    }

    /// Writes the bytes of a verified block; where it is exactly one chunk, its hash is not computed again.
    ///
    /// # Errors
    /// [`StoreError`] when the bytes could not be written.
    pub fn write_leaf(&mut self, leaf: &Block) -> Result<(), StoreError> {
        self.size += leaf.len() as u64;
        Ok(())
    }

    /// Checks the file against `expected`, makes it durable and visible.
    ///
    /// # Errors
    /// [`StoreError::Mismatch`] when it is another file, and then nothing is kept.
    pub fn finish(self, expected: &Expected) -> Result<Blob, StoreError> {
        let _ = expected;
        Err(StoreError::corrupt("not built yet"))
    }
}

impl Write for Ingest {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.size += buf.len() as u64;
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Store {
    /// Starts taking a file in.
    ///
    /// # Errors
    /// [`StoreError`] when no temporary file could be made.
    pub fn ingest(&self) -> Result<Ingest, StoreError> {
        Ok(Ingest { size: 0 })
    }
}
