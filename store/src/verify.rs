//! Looking for damage: everything is read and hashed, and nothing is changed unless it is to be repaired.
//!
//! What is damaged is found when it is used, too; this finds it while others may still have what was lost.

use std::io::Read as _;

use base::{Hasher, PkgHash, Sha256};
use rusqlite::OptionalExtension as _;

use crate::blob::{BlobRow, READ_BYTES, open_file};
use crate::digest::FileDigest;
use crate::loose::claim_block;
use crate::{BlobState, Store, StoreError};

/// Blocks read at once: two megabytes each at most.
const BLOCKS_PER_READ: i64 = 16;

/// A block of the index that is not what its name says, or is missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DamagedBlock {
    /// The digest it should have.
    pub sha256: Sha256,
    /// The blob whose root node it is.
    pub root_of: Option<Sha256>,
    /// The package whose derivation it is.
    pub derivation: Option<PkgHash>,
}

impl Store {
    /// Hashes a blob and changes nothing; one whose file is gone is [`BlobState::Missing`], one that the index does not know
    /// is `None`.
    ///
    /// # Errors
    /// [`StoreError`] when the index or the file could not be read.
    pub fn examine_blob(&self, sha256: &Sha256) -> Result<Option<BlobState>, StoreError> {
        let row = self
            .index
            .read(|connection| BlobRow::find(connection, sha256))?;
        let Some(row) = row else {
            return Ok(None);
        };
        Ok(Some(match self.digest_file(&row)? {
            Some(digest) if digest == row.blob.sha256 => BlobState::Intact,
            Some(_) => BlobState::Damaged,
            None => BlobState::Missing,
        }))
    }

    /// Hashes every block of the index and looks for the roots of all blobs; returns what is wrong.
    ///
    /// # Errors
    /// [`StoreError`] when the index could not be read.
    pub fn damaged_blocks(
        &self,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Vec<DamagedBlock>, StoreError> {
        let mut damaged = self.index.read(|connection| {
            connection
                .prepare_cached(
                    "SELECT root FROM blob WHERE root_codec != 0x55
                     AND NOT EXISTS (SELECT 1 FROM block WHERE hash = root)",
                )?
                .query_map([], |row| Ok(Sha256::from_bytes(row.get(0)?)))?
                .collect::<rusqlite::Result<Vec<_>>>()
        })?;
        let mut last = 0;
        while !cancelled() {
            let blocks = self.blocks_after(last)?;
            let Some((id, ..)) = blocks.last() else { break };
            last = *id;
            let wrong = blocks
                .iter()
                .filter(|(_, hash, bytes)| Sha256::of(bytes) != *hash);
            damaged.extend(wrong.map(|(_, hash, _)| *hash));
        }
        damaged.iter().map(|hash| self.whose(hash)).collect()
    }

    /// Forgets a damaged block, so that it is fetched again; the root node of a blob that is here is made anew.
    ///
    /// # Errors
    /// [`StoreError`] when the index could not be written, or the blob not read.
    pub fn repair_block(&self, damaged: &DamagedBlock) -> Result<(), StoreError> {
        let digest = damaged.sha256;
        self.index.write(|transaction| {
            transaction.execute("DELETE FROM block WHERE hash = ?1", [digest.as_bytes()])?;
            Ok(())
        })?;
        let Some(sha256) = damaged.root_of else {
            return Ok(());
        };
        let row = self
            .index
            .read(|connection| BlobRow::find(connection, &sha256))?;
        let Some(row) = row else { return Ok(()) };
        let mut digest = FileDigest::new();
        self.read_file(&row, |bytes| digest.update(bytes))?;
        let digested = digest.finish();
        if digested.blob == row.blob {
            self.index.write(|transaction| {
                let mut nodes = digested.nodes.iter();
                Ok(nodes.try_for_each(|node| claim_block(transaction, node))?)
            })?;
        }
        Ok(())
    }

    fn digest_file(&self, row: &BlobRow) -> Result<Option<Sha256>, StoreError> {
        let mut hasher = Hasher::new();
        let is_there = self.read_file(row, |bytes| hasher.update(bytes))?;
        Ok(is_there.then(|| hasher.finish()))
    }

    /// Reads the file of a blob as it is now; `false` when there is none.
    fn read_file(&self, row: &BlobRow, mut each: impl FnMut(&[u8])) -> Result<bool, StoreError> {
        let path = row.file(&self.layout);
        let mut file = match open_file(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(false),
            Err(e) => return Err(StoreError::io("open", &path, e)),
        };
        let mut buffer = vec![0; READ_BYTES];
        loop {
            match file.read(&mut buffer) {
                Ok(0) => return Ok(true),
                Ok(length) => each(&buffer[..length]),
                Err(e) => return Err(StoreError::io("read", &path, e)),
            }
        }
    }

    fn blocks_after(&self, id: i64) -> Result<Vec<(i64, Sha256, Vec<u8>)>, StoreError> {
        self.index.read(|connection| {
            connection
                .prepare_cached(
                    "SELECT id, hash, bytes FROM block WHERE id > ?1 ORDER BY id LIMIT ?2",
                )?
                .query_map([id, BLOCKS_PER_READ], |row| {
                    Ok((row.get(0)?, Sha256::from_bytes(row.get(1)?), row.get(2)?))
                })?
                .collect()
        })
    }

    fn whose(&self, hash: &Sha256) -> Result<DamagedBlock, StoreError> {
        self.index.read(|connection| {
            let root_of = connection
                .prepare_cached("SELECT sha256 FROM blob WHERE root = ?1 AND root_codec != 0x55")?
                .query_row([hash.as_bytes()], |row| Ok(Sha256::from_bytes(row.get(0)?)))
                .optional()?;
            let is_derivation = connection
                .prepare_cached("SELECT 1 FROM derivation WHERE pkghash = ?1")?
                .exists([hash.as_bytes()])?;
            Ok(DamagedBlock {
                sha256: *hash,
                root_of,
                derivation: is_derivation.then(|| PkgHash::from_digest(*hash)),
            })
        })
    }
}
