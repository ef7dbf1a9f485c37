//! Loose blocks: those that the index holds and no file here is made of.
//!
//! Directories on the way to a file, and what an archive brings beside files in our own layout. They are cache like any file
//! that nobody pinned: they count towards the quota, and the oldest go first. What is part of something that is pinned
//! stays: of a file here in another form, as an old tool lays it out, or of a directory that an archive brought.

use std::collections::HashSet;

use base::{Block, Multihash, Sha256};
use rusqlite::{Connection, Transaction};

use crate::gc::Entry;
use crate::index::to_sql;
use crate::store::insert_block;
use crate::usage::this_hour;

/// Keeps a block that no file is made of. `whole` is what it is part of, as a pin names it.
pub(crate) fn insert_loose(
    transaction: &Transaction<'_>,
    block: &Block,
    whole: Option<&Sha256>,
) -> rusqlite::Result<()> {
    if insert_block(transaction, block)? {
        transaction
            .prepare_cached("INSERT INTO loose (hash, size, used) VALUES (?1, ?2, ?3)")?
            .execute((
                block.hash().digest().as_bytes(),
                to_sql(block.len() as u64),
                this_hour(),
            ))?;
    }
    use_loose(transaction, block.hash(), whole)
}

/// Notes that a block was brought again. Nothing happens to one that is not loose.
pub(crate) fn use_loose(
    transaction: &Transaction<'_>,
    hash: &Multihash,
    whole: Option<&Sha256>,
) -> rusqlite::Result<()> {
    let hash = hash.digest();
    let is_loose = transaction
        .prepare_cached("UPDATE loose SET used = max(used, ?2) WHERE hash = ?1")?
        .execute((hash.as_bytes(), this_hour()))?;
    if let (Some(whole), 1..) = (whole, is_loose) {
        transaction
            .prepare_cached("INSERT OR IGNORE INTO loose_part (whole, hash) VALUES (?1, ?2)")?
            .execute((whole.as_bytes(), hash.as_bytes()))?;
    }
    Ok(())
}

/// A block is part of something of its own from now on, and goes with that.
pub(crate) fn claim_block(transaction: &Transaction<'_>, block: &Block) -> rusqlite::Result<()> {
    insert_block(transaction, block)?;
    transaction
        .prepare_cached("DELETE FROM loose WHERE hash = ?1")?
        .execute([block.hash().digest().as_bytes()])?;
    Ok(())
}

/// The loose blocks that are part of any of these.
pub(crate) fn parts_of(
    connection: &Connection,
    wholes: &HashSet<Sha256>,
) -> rusqlite::Result<Vec<Sha256>> {
    let mut parts = Vec::new();
    let mut find = connection.prepare_cached("SELECT hash FROM loose_part WHERE whole = ?1")?;
    for whole in wholes {
        let mut rows = find.query([whole.as_bytes()])?;
        while let Some(row) = rows.next()? {
            parts.push(Sha256::from_bytes(row.get(0)?));
        }
    }
    Ok(parts)
}

/// Removes a loose block and what leads to it; `false` if it is needed by now.
pub(crate) fn forget_loose(transaction: &Transaction<'_>, entry: &Entry) -> rusqlite::Result<bool> {
    let hash = entry.sha256.as_bytes();
    let removed = transaction
        .prepare_cached(
            "DELETE FROM block WHERE hash = ?1
             AND EXISTS (SELECT 1 FROM loose WHERE hash = ?1 AND used <= ?2)
             AND NOT EXISTS (SELECT 1 FROM loose_part JOIN pin ON pin.sha256 = whole
                             WHERE loose_part.hash = ?1)",
        )?
        .execute((hash, to_sql(entry.used_unix_hours)))?;
    if removed == 0 {
        return Ok(false);
    }
    transaction
        .prepare_cached("DELETE FROM provide WHERE hash = ?1")?
        .execute([hash])?;
    Ok(true)
}
