//! Reading directories, in one block or sharded. Blocks come through a closure, so this module stays without IO.

use base::Cid;
use bytes::Bytes;

use super::node::{DirEntry, Node, Shard};
use super::{DagError, Target, murmur3};

/// Most entries of a listing. A directory of more is walked by nobody on purpose.
pub const LISTING_ENTRIES_MAX: usize = 1_000_000;
/// Bits of the hash that a shard's levels consume: deeper shards cannot exist.
const HASH_BITS: u32 = 64;

/// Whether a name may become a name in a file system: not empty, not `.` or `..`, no slash, no NUL.
pub fn is_entry_name(name: &str) -> bool {
    !matches!(name, "" | "." | "..") && !name.contains(['/', '\0'])
}

/// Finds an entry of a directory by name; `None` when there is none. Of several with one name the first counts.
///
/// # Errors
/// The loader's, or [`DagError`] when the root is no directory.
pub fn lookup<E: From<DagError>>(
    root: &Cid,
    name: &str,
    mut load: impl FnMut(&Cid) -> Result<Bytes, E>,
) -> Result<Option<Cid>, E> {
    let mut shard = match load_node(root, &mut load)? {
        Node::Directory(directory) => return Ok(find(&directory.entries, name)),
        Node::Shard(shard) => shard,
        other => return Err(wrong_kind(root, &other).into()),
    };
    let mut bits = HashBits(
        u64::from_be_bytes(murmur3::hash(name.as_bytes())),
        HASH_BITS,
    );
    loop {
        let digits = shard.prefix_digits();
        let Some(bucket) = bits.take(shard.fanout.ilog2()) else {
            return Err(TOO_DEEP.into());
        };
        let prefix = format!("{bucket:0digits$X}");
        let Some(child) = shard
            .links
            .iter()
            .find(|link| link.name.starts_with(&prefix))
        else {
            return Ok(None);
        };
        match &child.name[prefix.len()..] {
            "" => shard = load_shard(&child.cid, shard.fanout, &mut load)?,
            found if found == name => return Ok(Some(child.cid)),
            _ => return Ok(None),
        }
    }
}

/// All entries of a directory: in the order of the block, or depth first in bucket order.
///
/// # Errors
/// The loader's, or [`DagError`] when the root is no directory or has more than [`LISTING_ENTRIES_MAX`] entries.
pub fn list<E: From<DagError>>(
    root: &Cid,
    mut load: impl FnMut(&Cid) -> Result<Bytes, E>,
) -> Result<Vec<DirEntry>, E> {
    match load_node(root, &mut load)? {
        Node::Directory(directory) => Ok(directory.entries),
        Node::Shard(shard) => {
            let mut entries = Vec::new();
            list_shard(&shard, HASH_BITS, &mut entries, &mut load)?;
            Ok(entries)
        }
        other => Err(wrong_kind(root, &other).into()),
    }
}

fn list_shard<E: From<DagError>>(
    shard: &Shard,
    bits_left: u32,
    entries: &mut Vec<DirEntry>,
    load: &mut impl FnMut(&Cid) -> Result<Bytes, E>,
) -> Result<(), E> {
    let bits_left = bits_left
        .checked_sub(shard.fanout.ilog2())
        .ok_or(TOO_DEEP)?;
    let digits = shard.prefix_digits();
    for link in &shard.links {
        let name = link.name.get(digits..).ok_or(DagError::Malformed(
            "name in a shard without a bucket number",
        ))?;
        if name.is_empty() {
            let child = load_shard(&link.cid, shard.fanout, load)?;
            // An empty sub-shard holds nothing; refusing it keeps the work below proportional to the entries.
            if child.links.is_empty() {
                return Err(DagError::Malformed("empty shard below a shard").into());
            }
            list_shard(&child, bits_left, entries, load)?;
        } else if entries.len() == LISTING_ENTRIES_MAX {
            let max = LISTING_ENTRIES_MAX as u64;
            return Err(DagError::TooLarge {
                what: "directory",
                max,
            }
            .into());
        } else {
            entries.push(DirEntry {
                name: name.to_owned(),
                cid: link.cid,
            });
        }
    }
    Ok(())
}

const TOO_DEEP: DagError = DagError::TooLarge {
    what: "depth of a shard",
    max: 64,
};

fn find(entries: &[DirEntry], name: &str) -> Option<Cid> {
    entries
        .iter()
        .find(|entry| entry.name == name)
        .map(|entry| entry.cid)
}

fn load_shard<E: From<DagError>>(
    cid: &Cid,
    fanout: u64,
    load: &mut impl FnMut(&Cid) -> Result<Bytes, E>,
) -> Result<Shard, E> {
    match load_node(cid, load)? {
        Node::Shard(shard) if shard.fanout == fanout => Ok(shard),
        Node::Shard(_) => Err(DagError::Malformed("fanout changes inside a directory").into()),
        _ => Err(DagError::Malformed("shard link that leads to no shard").into()),
    }
}

fn load_node<E: From<DagError>>(
    cid: &Cid,
    load: &mut impl FnMut(&Cid) -> Result<Bytes, E>,
) -> Result<Node, E> {
    Ok(match Target::of(cid)? {
        Target::Inline(codec, bytes) => Node::decode(codec, &bytes)?,
        Target::Block(codec, _) => Node::decode(codec, &load(cid)?)?,
    })
}

fn wrong_kind(cid: &Cid, node: &Node) -> DagError {
    DagError::WrongKind {
        cid: cid.to_string(),
        found: node.kind(),
        wanted: "directory",
    }
}

/// Bits of a hash, most significant first, and how many are left.
struct HashBits(u64, u32);

impl HashBits {
    fn take(&mut self, count: u32) -> Option<u64> {
        let left = self.1.checked_sub(count)?;
        let taken = (self.0 >> left) & ((1 << count) - 1);
        self.1 = left;
        Some(taken)
    }
}
