//! All blocks below a root: level by level, each level asked for at once.

use std::collections::HashSet;

use base::{Cid, Codec};
use store::Store;
use store::dag::{DagError, PbNode, Target};
use store::substitute::Progress;

use super::PathError;
use super::blocks::Blocks;
use crate::doors::Doors;

/// Most blocks below one root: a tree of thousands of packages has some ten thousand.
const BLOCKS_MAX: usize = 200_000;

/// Gets all blocks below a root into the store, from there, or from whom `doors` lead to. How many bytes they have.
///
/// # Errors
/// [`PathError`] when a block cannot be had or read, or there are more than `bytes_max`. What came until then stays.
pub fn fetch_blocks<'a>(
    doors: impl Into<Doors<'a>>,
    root: &Cid,
    bytes_max: u64,
    store: &Store,
    progress: &dyn Progress,
) -> Result<u64, PathError> {
    let mut blocks = Blocks::new(doors.into(), *root, store, progress);
    let (mut level, mut seen, mut bytes) = (vec![*root], HashSet::from([*root]), 0);
    while !level.is_empty() {
        let is_root = seen.len() == 1;
        blocks.ask_ahead(&level)?;
        let mut below = Vec::new();
        for cid in level {
            let (codec, block) = match Target::of(&cid)? {
                Target::Inline(codec, block) => (codec, block),
                Target::Block(codec, _) if is_root => (codec, blocks.get(&cid)?),
                Target::Block(codec, _) => (codec, blocks.get_below(&cid)?),
            };
            bytes += block.len() as u64;
            check("size of a tree", bytes, bytes_max)?;
            if codec == Codec::DagPb {
                let links = PbNode::decode(&block)?.links.into_iter();
                below.extend(links.map(|link| link.cid).filter(|cid| seen.insert(*cid)));
            }
            check("number of blocks", seen.len() as u64, BLOCKS_MAX as u64)?;
        }
        level = below;
    }
    Ok(bytes)
}

fn check(what: &'static str, found: u64, max: u64) -> Result<(), PathError> {
    if found > max {
        return Err(DagError::TooLarge { what, max }.into());
    }
    Ok(())
}
