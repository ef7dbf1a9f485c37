//! Loose blocks: those that the index holds and no file here is made of.
//!
//! Directories on the way to a file, and what an archive brings beside files in our own layout. They are cache like any file
//! that nobody pinned: they count towards the quota, and the oldest go first. What is another form of a file here, as
//! the blocks of an old tool's layout are, stays while that file is pinned.

use base::{Block, Multihash, Sha256};
use rusqlite::Transaction;

use crate::gc::Entry;
use crate::index::to_sql;
use crate::store::insert_block;
use crate::usage::this_hour;

/// Keeps a block that no file is made of. `file` is the file that it is part of another form of, if there is one.
pub(crate) fn insert_loose(
    transaction: &Transaction<'_>,
    block: &Block,
    file: Option<&Sha256>,
) -> rusqlite::Result<()> {
    let hash = block.hash().digest();
    let is_new = insert_block(transaction, block)?;
    if !is_new {
        return use_loose(transaction, block.hash(), file);
    }
    transaction
        .prepare_cached("INSERT INTO loose (hash, size, used, file) VALUES (?1, ?2, ?3, ?4)")?
        .execute((
            hash.as_bytes(),
            to_sql(block.len() as u64),
            this_hour(),
            file.map(Sha256::as_bytes),
        ))?;
    Ok(())
}

/// Notes that a block was brought again. Nothing happens to one that is not loose.
pub(crate) fn use_loose(
    transaction: &Transaction<'_>,
    hash: &Multihash,
    file: Option<&Sha256>,
) -> rusqlite::Result<()> {
    transaction
        .prepare_cached(
            "UPDATE loose SET used = max(used, ?2), file = coalesce(?3, file) WHERE hash = ?1",
        )?
        .execute((
            hash.digest().as_bytes(),
            this_hour(),
            file.map(Sha256::as_bytes),
        ))?;
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

/// Removes a loose block and what leads to it; `false` if it is needed by now.
pub(crate) fn forget_loose(transaction: &Transaction<'_>, entry: &Entry) -> rusqlite::Result<bool> {
    let hash = entry.sha256.as_bytes();
    let removed = transaction
        .prepare_cached(
            "DELETE FROM block WHERE hash = ?1 AND EXISTS (
                 SELECT 1 FROM loose WHERE hash = ?1 AND used <= ?2 AND NOT EXISTS (
                     SELECT 1 FROM pin WHERE pin.sha256 IN (loose.hash, loose.file)))",
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
