//! A file as the list of its chunks: what whoever gets the plain bytes from somewhere checks them against, piece by piece.
//!
//! The nodes of a file say the hash of every chunk, and are small: 50 bytes for each MiB. So one who has them, and they are
//! checked by the root, can tell wrong bytes from right ones where they begin and not only at the end of the file.

use base::{Block, Cid, Codec, Multihash};
use bytes::Bytes;

use super::DagError;
use super::node::{FileNode, Node, Target};

/// Most chunks of a file that are listed: 64 GiB in chunks of 1 MiB, at 56 bytes each in memory.
pub const CHUNKS_MAX: usize = 1 << 16;

/// A part of a file that is one block, and nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// What the bytes hash to.
    pub hash: Multihash,
    /// Where in the file they begin.
    pub offset: u64,
    /// How many they are.
    pub length: u64,
}

/// The chunks of the file below a root, in order; `None` for files of other forms than ours (bytes inside nodes or CIDs) and for
/// those of which `node` has not all nodes. Chunks themselves are never asked for.
///
/// # Errors
/// [`DagError`] when the nodes are no file of `size` bytes.
pub fn chunks<E: From<DagError>>(
    root: &Cid,
    size: u64,
    mut node: impl FnMut(&Multihash) -> Result<Option<Block>, E>,
) -> Result<Option<Vec<Chunk>>, E> {
    let mut list = Vec::new();
    let mut ahead = vec![(Target::of(root)?, size)];
    let mut offset = 0;
    while let Some((target, length)) = ahead.pop() {
        match target {
            Target::Inline(..) | Target::Block(Codec::DagCbor, _) => return Ok(None),
            Target::Block(Codec::Raw, hash) => {
                list.push(Chunk {
                    hash,
                    offset,
                    length,
                });
                offset += length;
            }
            Target::Block(Codec::DagPb, hash) => {
                let Some(block) = node(&hash)? else {
                    return Ok(None);
                };
                let Some(file) = plain(block.bytes(), length)? else {
                    return Ok(None);
                };
                let links = file.links.iter().rev();
                ahead.extend(links.map(|link| (link.target.clone(), link.size)));
            }
        }
        if list.len() + ahead.len() > CHUNKS_MAX {
            return Ok(None);
        }
    }
    Ok(Some(list))
}

/// A node that has nothing but links, which are as long as was claimed of it.
fn plain(block: &Bytes, claimed: u64) -> Result<Option<FileNode>, DagError> {
    let Node::File(file) = Node::decode(Codec::DagPb, block)? else {
        return Err(DagError::Malformed("no file"));
    };
    if file.size != claimed {
        let found = file.size;
        return Err(DagError::LyingSize { claimed, found });
    }
    Ok(file.data.is_empty().then_some(file))
}

/// The nodes of a file that are more than bytes of it, in the order in which they are met from the root on.
///
/// # Errors
/// What `node` says, or [`DagError`] for what is no file. A node that is missing ends the list.
pub fn inner_nodes<E: From<DagError>>(
    root: &Cid,
    mut node: impl FnMut(&Multihash) -> Result<Option<Block>, E>,
) -> Result<Vec<Block>, E> {
    let mut nodes = Vec::new();
    let mut ahead = vec![Target::of(root)?];
    while let Some(target) = ahead.pop() {
        let Target::Block(Codec::DagPb, hash) = target else {
            continue;
        };
        let Some(block) = node(&hash)? else {
            return Ok(nodes);
        };
        if let Node::File(file) = Node::decode(Codec::DagPb, block.bytes())? {
            ahead.extend(file.links.iter().rev().map(|link| link.target.clone()));
        }
        nodes.push(block);
        if nodes.len() > CHUNKS_MAX {
            return Ok(nodes);
        }
    }
    Ok(nodes)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use base::Sha256;

    use super::super::{LeafForm, Profile, build_file};
    use super::*;

    const SMALL: Profile = Profile {
        chunk_bytes: 10,
        links_max: 3,
        leaves: LeafForm::Raw,
        cid_v0: false,
    };

    fn blocks(bytes: &[u8], profile: &Profile) -> (Cid, HashMap<Multihash, Block>) {
        let mut blocks = HashMap::new();
        let file = build_file(*profile, bytes, &mut |block: Block| {
            blocks.insert(*block.hash(), block);
        });
        (file.unwrap().cid, blocks)
    }

    fn list(root: &Cid, size: u64, blocks: &HashMap<Multihash, Block>) -> Option<Vec<Chunk>> {
        let node = |hash: &Multihash| Ok::<_, DagError>(blocks.get(hash).cloned());
        chunks(root, size, node).unwrap()
    }

    #[test]
    fn the_chunks_of_a_file_of_several_levels_are_its_bytes_in_order() {
        let bytes: Vec<u8> = (0..=255).collect();
        let (root, blocks) = blocks(&bytes, &SMALL);
        let list = list(&root, 256, &blocks).unwrap();
        assert_eq!(list.len(), 26);
        for chunk in &list {
            let from = chunk.offset as usize;
            let part = &bytes[from..from + chunk.length as usize];
            assert_eq!(chunk.hash.digest(), Sha256::of(part));
        }
        assert_eq!(list[25].offset + list[25].length, 256);
        let node = |hash: &Multihash| Ok::<_, DagError>(blocks.get(hash).cloned());
        let nodes = inner_nodes(&root, node).unwrap();
        assert_eq!(nodes.len(), blocks.len() - 26);
        assert_eq!(nodes[0].cid(Codec::DagPb), root);
    }

    #[test]
    fn a_file_of_one_block_needs_no_nodes() {
        let (root, _) = blocks(b"short", &SMALL);
        let list = list(&root, 5, &HashMap::new()).unwrap();
        assert_eq!((list.len(), list[0].length), (1, 5));
    }

    #[test]
    fn what_is_not_all_there_or_of_another_form_has_no_list() {
        let bytes = [7; 100];
        let (root, mut here) = blocks(&bytes, &SMALL);
        assert_eq!(list(&root, 100, &HashMap::new()), None);
        here.retain(|hash, _| Multihash::of(&root).unwrap() == *hash);
        assert_eq!(list(&root, 100, &here), None);
        let (root, here) = blocks(&bytes, &Profile::UNIXFS_V0_2015);
        assert_eq!(list(&root, 100, &here), None);
    }

    #[test]
    fn a_file_of_another_length_is_refused() {
        let (root, here) = blocks(&[7; 100], &SMALL);
        let node = |hash: &Multihash| Ok::<_, DagError>(here.get(hash).cloned());
        let refused = chunks(&root, 99, node);
        assert!(matches!(refused, Err(DagError::LyingSize { .. })));
    }
}
