//! Forgetting a blob: its rows, the nodes that only it was made of, and what would still lead others to it.

use base::{Cid, Codec, Multihash, Sha256, block_cid};
use rusqlite::{OptionalExtension as _, Transaction};

use crate::Blob;
use crate::blob::BlobRow;
use crate::dag::PbNode;
use crate::digest::ONE_NODE_BYTES;
use crate::index::to_sql;

/// Removes the rows of a blob; `false` when there were none. The chunks' rows and the nodes that nothing else is made of
/// go with it.
pub(crate) fn forget_blob(transaction: &Transaction<'_>, row: &BlobRow) -> rusqlite::Result<bool> {
    let removed = transaction
        .prepare_cached("DELETE FROM blob WHERE id = ?1")?
        .execute([row.id])?;
    if removed == 0 {
        return Ok(false);
    }
    transaction
        .prepare_cached("DELETE FROM leaf WHERE blob = ?1")?
        .execute([row.id])?;
    let mut nodes = Vec::new();
    add_nodes(transaction, &row.blob.root, &mut nodes)?;
    if row.blob.size >= ONE_NODE_BYTES {
        // Only files of this length have nodes below the root, or a root that can be such a node of a longer file.
        let mut others = Vec::new();
        let mut longer = transaction
            .prepare_cached("SELECT root FROM blob WHERE size >= ?1 AND root_codec != 0x55")?;
        let mut rows = longer.query([to_sql(ONE_NODE_BYTES)])?;
        while let Some(row) = rows.next()? {
            let root = block_cid(Codec::DagPb, &Sha256::from_bytes(row.get(0)?));
            add_nodes(transaction, &root, &mut others)?;
        }
        nodes.retain(|node| !others.contains(node));
    }
    let mut delete = transaction.prepare_cached("DELETE FROM block WHERE hash = ?1")?;
    for node in nodes {
        delete.execute([node.as_bytes()])?;
    }
    Ok(true)
}

/// Collects the dag-pb nodes of a tree, as far as they are here. Trees of ours are three nodes deep at most.
fn add_nodes(
    transaction: &Transaction<'_>,
    root: &Cid,
    nodes: &mut Vec<Sha256>,
) -> rusqlite::Result<()> {
    let (Ok(Codec::DagPb), Ok(hash)) = (Codec::of(root), Multihash::of(root)) else {
        return Ok(());
    };
    let digest = hash.digest();
    let bytes = transaction
        .prepare_cached("SELECT bytes FROM block WHERE hash = ?1")?
        .query_row([digest.as_bytes()], |row| row.get::<_, Vec<u8>>(0))
        .optional()?;
    let Some(bytes) = bytes else { return Ok(()) };
    nodes.push(digest);
    // A damaged node leads nowhere: what lies below it stays, which costs some kilobytes.
    let links = PbNode::decode(&bytes.into()).map_or(Vec::new(), |node| node.links);
    links
        .iter()
        .try_for_each(|link| add_nodes(transaction, &link.cid, nodes))
}

/// Takes what leads to a blob that is gone out of the queue of keys to announce, and drops the derivations of which no
/// output is left. Statements about it stay: they are small, and save asking when it is wanted again.
pub(crate) fn forget_keys(transaction: &Transaction<'_>, blob: &Blob) -> rusqlite::Result<()> {
    let mut unprovide = transaction.prepare_cached("DELETE FROM provide WHERE hash = ?1")?;
    unprovide.execute([blob.sha256.as_bytes()])?;
    if let Ok(root) = Multihash::of(&blob.root) {
        unprovide.execute([root.digest().as_bytes()])?;
    }
    let mut packages = transaction.prepare_cached(
        "SELECT DISTINCT pkghash FROM realisation AS gone WHERE output = ?1 AND NOT EXISTS (
             SELECT 1 FROM realisation AS other JOIN blob ON blob.sha256 = other.output
             WHERE other.pkghash = gone.pkghash)",
    )?;
    let packages = packages
        .query_map([blob.sha256.as_bytes()], |row| row.get::<_, [u8; 32]>(0))?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    for pkghash in packages {
        unprovide.execute([pkghash])?;
        let known = transaction
            .prepare_cached("DELETE FROM derivation WHERE pkghash = ?1")?
            .execute([pkghash])?;
        if known > 0 {
            transaction
                .prepare_cached("DELETE FROM block WHERE hash = ?1")?
                .execute([pkghash])?;
        }
    }
    Ok(())
}
