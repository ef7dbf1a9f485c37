//! Small records: derivation texts and signed realisations.

use base::{Cid, Codec, PkgHash, Sha256, SignedRealisation, block_cid};
use bytes::Bytes;
use rusqlite::Connection;

use crate::block::check_block_size;
use crate::index::from_sql;
use crate::loose::{claim_block, insert_loose};
use crate::{Block, BlockStore as _, Store, StoreError};

/// Most realisations kept for one package. Real packages have a handful of signers; the bound keeps the answer to a
/// peer below one message.
const REALISATIONS_MAX: i64 = 1000;

impl Store {
    /// Keeps a derivation text. It is served to peers as an ordinary raw block under its package hash.
    ///
    /// # Errors
    /// [`StoreError::TooLarge`] when it is larger than a block, other [`StoreError`]s when the index fails.
    pub fn put_derivation(&self, text: &[u8]) -> Result<PkgHash, StoreError> {
        let block = Block::of(Bytes::copy_from_slice(text));
        check_block_size(&block)?;
        let pkghash = PkgHash::from_digest(block.hash().digest());
        self.index.write(|transaction| {
            claim_block(transaction, &block)?;
            transaction.execute(
                "INSERT OR IGNORE INTO derivation (pkghash) VALUES (?1)",
                [pkghash.digest().as_bytes()],
            )?;
            Ok(())
        })?;
        Ok(pkghash)
    }

    /// The text behind a package hash; `None` when it is missing.
    ///
    /// # Errors
    /// [`StoreError`] when the index could not be read.
    pub fn derivation(&self, pkghash: &PkgHash) -> Result<Option<Vec<u8>>, StoreError> {
        let is_known = self.index.read(|connection| {
            connection
                .prepare_cached("SELECT 1 FROM derivation WHERE pkghash = ?1")?
                .exists([pkghash.digest().as_bytes()])
        })?;
        if !is_known {
            return Ok(None);
        }
        Ok(self
            .get(&pkghash.dht_key())?
            .map(|block| block.bytes().to_vec()))
    }

    /// Keeps the list of what an output was built with, as an ordinary raw block: a cache as the output is, and kept while
    /// that is pinned.
    ///
    /// # Errors
    /// [`StoreError::TooLarge`] when it is larger than a block, other [`StoreError`]s when the index fails.
    pub fn put_inputs(&self, text: &[u8], output: &Sha256) -> Result<Cid, StoreError> {
        let block = Block::of(Bytes::copy_from_slice(text));
        check_block_size(&block)?;
        self.index
            .write(|transaction| Ok(insert_loose(transaction, &block, Some(output))?))?;
        Ok(block_cid(Codec::Raw, &block.hash().digest()))
    }

    /// Keeps a realisation, which is served as a block too: see [`SignedRealisation::cid`]. It stands beside those of other signers, and beside contradicting ones of the same signer.
    ///
    /// # Errors
    /// [`StoreError::TooLarge`] when the package has a thousand already, other [`StoreError`]s when the index fails.
    pub fn put_realisation(&self, signed: &SignedRealisation) -> Result<(), StoreError> {
        let realisation = signed.realisation();
        let pkghash = realisation.pkghash.digest().as_bytes();
        let bytes = signed.to_bytes();
        self.index.write(|transaction| {
            let (count, has): (i64, bool) = transaction.query_row(
                "SELECT count(*), coalesce(max(bytes = ?2), 0) FROM realisation WHERE pkghash = ?1",
                (pkghash, &bytes),
                |row| Ok((row.get(0)?, row.get(1)?)),
            )?;
            if count >= REALISATIONS_MAX && !has {
                let (size, max) = (from_sql(count) + 1, from_sql(REALISATIONS_MAX));
                return Err(StoreError::TooLarge {
                    what: "number of realisations",
                    size,
                    max,
                });
            }
            transaction.execute(
                "INSERT OR IGNORE INTO realisation (pkghash, bytes, output, hash)
                 VALUES (?1, ?2, ?3, ?4)",
                (
                    pkghash,
                    &bytes,
                    realisation.sha256.as_bytes(),
                    Sha256::of(&bytes).as_bytes(),
                ),
            )?;
            Ok(())
        })
    }

    /// All realisations of a package that are kept here, whether or not their outputs are.
    ///
    /// # Errors
    /// [`StoreError`] when the index could not be read.
    pub fn realisations(&self, pkghash: &PkgHash) -> Result<Vec<SignedRealisation>, StoreError> {
        let rows = self
            .index
            .read(|connection| realisations(connection, pkghash))?;
        decode(rows, pkghash)
    }

    /// The packages of which more than one realisation is kept: where signers agree, contradict each other or themselves.
    ///
    /// # Errors
    /// [`StoreError`] when the index could not be read.
    pub fn packages_said_twice(&self) -> Result<Vec<PkgHash>, StoreError> {
        self.index.read(|connection| {
            connection
                .prepare_cached(
                    "SELECT pkghash FROM realisation GROUP BY pkghash HAVING count(*) > 1
                     ORDER BY pkghash",
                )?
                .query_map([], |row| {
                    Ok(PkgHash::from_digest(Sha256::from_bytes(row.get(0)?)))
                })?
                .collect()
        })
    }

    /// The packages of which a realisation and the output it names are here.
    ///
    /// # Errors
    /// [`StoreError`] when the index could not be read.
    pub fn realised(&self) -> Result<Vec<PkgHash>, StoreError> {
        self.index.read(|connection| {
            connection
                .prepare_cached(
                    "SELECT DISTINCT pkghash FROM realisation JOIN blob ON blob.sha256 = output
                     ORDER BY pkghash",
                )?
                .query_map([], |row| {
                    Ok(PkgHash::from_digest(Sha256::from_bytes(row.get(0)?)))
                })?
                .collect()
        })
    }
}

/// The realisations of a package, as they are kept.
pub(crate) fn realisations(
    connection: &Connection,
    pkghash: &PkgHash,
) -> rusqlite::Result<Vec<Vec<u8>>> {
    connection
        .prepare_cached("SELECT bytes FROM realisation WHERE pkghash = ?1 ORDER BY bytes")?
        .query_map([pkghash.digest().as_bytes()], |row| row.get(0))?
        .collect()
}

/// What was kept. A signed realisation exists only verified, so what was put here was.
pub(crate) fn decode(
    rows: Vec<Vec<u8>>,
    pkghash: &PkgHash,
) -> Result<Vec<SignedRealisation>, StoreError> {
    let decode = |bytes: Vec<u8>| {
        SignedRealisation::from_verified_bytes(&bytes).map_err(|e| StoreError::Corrupt {
            what: format!("realisation of `{pkghash}` cannot be read"),
            source: Some(Box::new(e)),
        })
    };
    rows.into_iter().map(decode).collect()
}
