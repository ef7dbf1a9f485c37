//! How a file becomes a DAG: chunks of fixed size, and a balanced tree over them.

use std::io::{self, Read};

use base::{Cid, Codec, block_cid};
use bytes::Bytes;

use super::pb::{PbLink, PbNode};
use super::unixfs::{UnixFs, UnixFsKind};
use crate::Block;

/// What the leaves of a file look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeafForm {
    /// Plain bytes under the raw codec.
    Raw,
    /// UnixFS files in dag-pb.
    DagPb,
}

/// A way to lay out files. The same file under two profiles has two roots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Profile {
    /// Length of a chunk in bytes.
    pub chunk_bytes: usize,
    /// Most links in a node.
    pub links_max: usize,
    /// Form of the leaves.
    pub leaves: LeafForm,
    /// Whether dag-pb nodes are named by CIDv0.
    pub cid_v0: bool,
}

impl Profile {
    /// The profile this system writes (IPIP-499): 1 MiB raw leaves, 1024 links, CIDv1.
    pub const UNIXFS_V1_2025: Self = Self {
        chunk_bytes: 1 << 20,
        links_max: 1024,
        leaves: LeafForm::Raw,
        cid_v0: false,
    };
    /// Kubo's old default (IPIP-499): 256 KiB dag-pb leaves, 174 links, CIDv0. Upstream's mirror list is of this kind.
    pub const UNIXFS_V0_2015: Self = Self {
        chunk_bytes: 256 << 10,
        links_max: 174,
        leaves: LeafForm::DagPb,
        cid_v0: true,
    };
    /// `ipfs add --cid-version=1` without a profile: 256 KiB raw leaves, 174 links, CIDv1.
    pub const CID_V1_ONLY: Self = Self {
        chunk_bytes: 256 << 10,
        links_max: 174,
        leaves: LeafForm::Raw,
        cid_v0: false,
    };

    /// The CID of a dag-pb block.
    fn node_cid(&self, block: &Block) -> Cid {
        let v1 = block.cid(Codec::DagPb);
        match Cid::new_v0(*v1.hash()) {
            Ok(v0) if self.cid_v0 => v0,
            _ => v1,
        }
    }

    /// The block and subtree of one chunk.
    pub fn leaf(&self, chunk: Bytes) -> (Block, Subtree) {
        let size = chunk.len() as u64;
        match self.leaves {
            LeafForm::Raw => {
                let block = Block::of(chunk);
                let cid = block.cid(Codec::Raw);
                (
                    block,
                    Subtree {
                        cid,
                        tsize: size,
                        size,
                    },
                )
            }
            LeafForm::DagPb => {
                let message = UnixFs {
                    data: Some(chunk),
                    file_size: Some(size),
                    ..UnixFs::new(UnixFsKind::File)
                };
                let node = PbNode {
                    links: Vec::new(),
                    data: Some(message.encode().into()),
                };
                let block = Block::of(node.encode().into());
                let (cid, tsize) = (self.node_cid(&block), block.len() as u64);
                (block, Subtree { cid, tsize, size })
            }
        }
    }
}

/// A part of a file: the root of its DAG.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subtree {
    /// Its root.
    pub cid: Cid,
    /// Size of all its blocks in bytes, repeated ones counted each time.
    pub tsize: u64,
    /// Length of the file's part in bytes.
    pub size: u64,
}

impl Subtree {
    /// A raw leaf whose digest is known.
    pub fn raw_leaf(digest: &base::Sha256, size: u64) -> Self {
        Self {
            cid: block_cid(Codec::Raw, digest),
            tsize: size,
            size,
        }
    }
}

/// Builds the balanced tree over leaves given in order. Holds at most one incomplete node per level.
#[derive(Debug)]
pub struct TreeBuilder {
    profile: Profile,
    /// Subtrees waiting for a parent, the lowest level first.
    levels: Vec<Vec<Subtree>>,
}

impl TreeBuilder {
    /// A builder that has seen no leaf.
    pub const fn new(profile: Profile) -> Self {
        Self {
            profile,
            levels: Vec::new(),
        }
    }

    /// Adds the next leaf; nodes that become complete go to `sink`.
    pub fn push(&mut self, leaf: Subtree, sink: &mut impl FnMut(Block)) {
        self.push_at(0, leaf, sink);
    }

    /// Completes the tree. A file without any leaf pushed has no root: even an empty file has one empty leaf.
    pub fn finish(mut self, sink: &mut impl FnMut(Block)) -> Option<Subtree> {
        let mut level = 0;
        loop {
            let waiting = std::mem::take(self.levels.get_mut(level)?);
            let is_top = level + 1 == self.levels.len();
            match &waiting[..] {
                [] => {}
                [root] if is_top => return Some(*root),
                // A single trailing node is wrapped too: all leaves lie equally deep.
                children => {
                    let parent = self.parent(children, sink);
                    self.push_at(level + 1, parent, sink);
                }
            }
            level += 1;
        }
    }

    fn push_at(&mut self, level: usize, subtree: Subtree, sink: &mut impl FnMut(Block)) {
        if self.levels.len() == level {
            self.levels.push(Vec::new());
        }
        self.levels[level].push(subtree);
        if self.levels[level].len() == self.profile.links_max {
            let children = std::mem::take(&mut self.levels[level]);
            let parent = self.parent(&children, sink);
            self.push_at(level + 1, parent, sink);
        }
    }

    fn parent(&self, children: &[Subtree], sink: &mut impl FnMut(Block)) -> Subtree {
        let size = children.iter().map(|child| child.size).sum();
        let message = UnixFs {
            file_size: Some(size),
            block_sizes: children.iter().map(|child| child.size).collect(),
            ..UnixFs::new(UnixFsKind::File)
        };
        let links = children
            .iter()
            .map(|child| PbLink {
                cid: child.cid,
                name: Some(String::new()),
                tsize: Some(child.tsize),
            })
            .collect();
        let node = PbNode {
            links,
            data: Some(message.encode().into()),
        };
        let block = Block::of(node.encode().into());
        let below: u64 = children.iter().map(|child| child.tsize).sum();
        let subtree = Subtree {
            cid: self.profile.node_cid(&block),
            tsize: block.len() as u64 + below,
            size,
        };
        sink(block);
        subtree
    }
}

/// Lays out a whole file; every block, leaves included, goes to `sink`. [`crate::Ingest`] does the same in place.
///
/// # Errors
/// The reader's.
pub fn build_file(
    profile: Profile,
    mut reader: impl Read,
    sink: &mut impl FnMut(Block),
) -> io::Result<Subtree> {
    let mut tree = TreeBuilder::new(profile);
    let mut first = true;
    loop {
        let mut chunk = Vec::with_capacity(profile.chunk_bytes);
        reader
            .by_ref()
            .take(profile.chunk_bytes as u64)
            .read_to_end(&mut chunk)?;
        if chunk.is_empty() && !first {
            break;
        }
        let last = chunk.len() < profile.chunk_bytes;
        let (block, leaf) = profile.leaf(chunk.into());
        sink(block);
        tree.push(leaf, sink);
        first = false;
        if last {
            break;
        }
    }
    Ok(tree.finish(sink).expect("at least one leaf was pushed"))
}
