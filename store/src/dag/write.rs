//! Writing what is no plain file: directories, symbolic links, and files with a mode. The same entries give the same root.

use base::{Cid, Codec};
use bytes::Bytes;

use super::layout::Subtree;
use super::pb::{PbLink, PbNode};
use super::unixfs::{UnixFs, UnixFsKind};
use crate::Block;

/// Writes a directory in one block, its entries sorted by the bytes of their names, which the caller keeps apart.
pub fn build_directory(
    mut entries: Vec<(String, Subtree)>,
    sink: &mut impl FnMut(Block),
) -> Subtree {
    entries.sort_by(|(a, _), (b, _)| a.as_bytes().cmp(b.as_bytes()));
    let below = entries.iter().map(|(_, entry)| entry.tsize).sum();
    let link = |(name, entry): (String, Subtree)| PbLink {
        cid: entry.cid,
        name: Some(name),
        tsize: Some(entry.tsize),
    };
    let links = entries.into_iter().map(link).collect();
    node(links, &UnixFs::new(UnixFsKind::Directory), below, 0, sink)
}

/// Writes a symbolic link.
pub fn build_symlink(target: Bytes, sink: &mut impl FnMut(Block)) -> Subtree {
    let message = UnixFs {
        data: Some(target),
        ..UnixFs::new(UnixFsKind::Symlink)
    };
    node(Vec::new(), &message, 0, 0, sink)
}

/// Gives a file a mode: a node above it, since leaves of plain bytes can carry none.
pub fn with_mode(file: Subtree, mode: u32, sink: &mut impl FnMut(Block)) -> Subtree {
    let message = UnixFs {
        file_size: Some(file.size),
        block_sizes: vec![file.size],
        mode: Some(mode),
        ..UnixFs::new(UnixFsKind::File)
    };
    let link = PbLink {
        cid: file.cid,
        name: Some(String::new()),
        tsize: Some(file.tsize),
    };
    node(vec![link], &message, file.tsize, file.size, sink)
}

fn node(
    links: Vec<PbLink>,
    message: &UnixFs,
    below: u64,
    size: u64,
    sink: &mut impl FnMut(Block),
) -> Subtree {
    let node = PbNode {
        links,
        data: Some(message.encode().into()),
    };
    let block = Block::of(node.encode().into());
    let cid: Cid = block.cid(Codec::DagPb);
    let tsize = block.len() as u64 + below;
    sink(block);
    Subtree { cid, tsize, size }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::dag::{DagError, Node, Profile, build_file, list, lookup};

    #[test]
    fn what_is_written_is_read_and_the_order_of_entries_does_not_count() {
        let mut blocks = HashMap::new();
        let mut sink = |block: Block| {
            blocks.insert(block.cid(Codec::DagPb).hash().digest().to_vec(), block);
        };
        let plain = build_file(Profile::UNIXFS_V1_2025, &b"#!/bin/sh\n"[..], &mut sink).unwrap();
        let program = with_mode(plain, 0o755, &mut sink);
        let link = build_symlink(Bytes::from_static(b"b"), &mut sink);
        let entries = vec![("b".to_owned(), program), ("a".to_owned(), link)];
        let reversed = entries.iter().rev().cloned().collect();
        let root = build_directory(entries, &mut sink);
        assert_eq!(build_directory(reversed, &mut sink), root);
        let load = |cid: &Cid| -> Result<Bytes, DagError> {
            Ok(blocks[cid.hash().digest()].bytes().clone())
        };
        let names: Vec<_> = list(&root.cid, load).unwrap();
        assert_eq!(names[0].name, "a");
        let found = lookup(&root.cid, "b", load).unwrap().unwrap();
        let Node::File(file) = Node::decode(Codec::DagPb, &load(&found).unwrap()).unwrap() else {
            panic!("a file was written");
        };
        assert_eq!((file.metadata.mode, file.size), (Some(0o755), 10));
    }

    #[test]
    fn an_empty_directory_is_the_one_that_all_of_ipfs_knows() {
        let root = build_directory(Vec::new(), &mut |_| ());
        let known = "bafybeiczsscdsbs7ffqz55asqdf3smv6klcw3gofszvwlyarci47bgf354";
        assert_eq!(root.cid.to_string(), known);
    }
}
