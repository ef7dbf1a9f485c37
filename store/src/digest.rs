//! What a file is: its SHA-256, its chunks and its DAG, from one pass over its bytes.
//!
//! Memory is one small record per MiB, nothing in proportion to the bytes. Where they come from and whether they are
//! written anywhere is the caller's business: files taken in are, files served in place are not.

use std::ops::Range;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use base::{Codec, Hasher, Multihash, Sha256};
use bytes::Bytes;
use rusqlite::Transaction;

use crate::beside::Whole;
use crate::dag::{Profile, Subtree, TreeBuilder};
use crate::index::to_sql;
use crate::layout::Stamp;
use crate::loose::claim_block;
use crate::usage::this_hour;
use crate::{Blob, Block};

/// The layout of every blob's DAG.
const PROFILE: Profile = Profile::UNIXFS_V1_2025;
/// Length of a chunk in bytes.
pub(crate) const CHUNK_BYTES: usize = PROFILE.chunk_bytes;
/// Files below this length in bytes have no node but the root.
pub(crate) const ONE_NODE_BYTES: u64 = (CHUNK_BYTES * PROFILE.links_max) as u64;
/// From this length in bytes on, a file is worth a thread that hashes the whole: what takes some milliseconds.
const BESIDE_BYTES: u64 = 4 << 20;

const _: () = assert!(BESIDE_BYTES > CHUNK_BYTES as u64);

/// A file of which a part was seen.
#[derive(Debug)]
pub(crate) struct FileDigest {
    size: u64,
    whole: Whole,
    chunk: Chunk,
    leaves: Vec<Sha256>,
    tree: TreeBuilder,
    nodes: Vec<Block>,
}

/// The chunk that is not complete yet.
#[derive(Debug)]
enum Chunk {
    /// The first chunk needs no hashing of its own: until it ends, the whole file is the chunk.
    First { length: usize },
    /// A later chunk.
    Hashing { length: usize, hasher: Hasher },
    /// A verified block shorter than a chunk, which is the last leaf unless more follows.
    Known(Block),
}

impl FileDigest {
    pub(crate) fn new() -> Self {
        Self {
            size: 0,
            whole: Whole::new(),
            chunk: Chunk::First { length: 0 },
            leaves: Vec::new(),
            tree: TreeBuilder::new(PROFILE),
            nodes: Vec::new(),
        }
    }

    /// How many bytes were seen.
    pub(crate) const fn size(&self) -> u64 {
        self.size
    }

    /// The SHA-256 of what was seen.
    pub(crate) fn sha256(&mut self) -> Sha256 {
        self.whole.wait()
    }

    /// Takes in bytes.
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.update_with(bytes, |whole, at| whole.update(&bytes[at]));
    }

    /// Takes in bytes that a thread may hash beside us, when the file has turned out to be a large one.
    pub(crate) fn update_shared(&mut self, bytes: &Bytes) {
        self.share();
        self.update_with(bytes, |whole, at| whole.update_shared(&bytes.slice(at)));
    }

    fn share(&mut self) {
        if self.size >= BESIDE_BYTES {
            self.whole.move_beside();
        }
    }

    fn update_with(&mut self, bytes: &[u8], whole: impl Fn(&mut Whole, Range<usize>)) {
        self.size += bytes.len() as u64;
        let mut at = 0;
        while at < bytes.len() {
            let length = (bytes.len() - at).min(CHUNK_BYTES - self.chunk.length());
            let piece = &bytes[at..at + length];
            whole(&mut self.whole, at..at + length);
            self.chunk.update(piece);
            if self.chunk.length() == CHUNK_BYTES {
                self.end_chunk();
            }
            at += length;
        }
    }

    /// Takes in the bytes of a verified block; where it is exactly one chunk, its hash is not computed again.
    pub(crate) fn update_leaf(&mut self, leaf: &Block) {
        if self.chunk.length() > 0 || leaf.len() > CHUNK_BYTES || leaf.is_empty() {
            return self.update_shared(leaf.bytes());
        }
        self.share();
        self.size += leaf.len() as u64;
        self.whole.update_shared(leaf.bytes());
        self.chunk = Chunk::Known(leaf.clone());
        if leaf.len() == CHUNK_BYTES {
            self.end_chunk();
        }
    }

    /// The file that these bytes are.
    pub(crate) fn finish(mut self) -> Digested {
        if self.chunk.length() > 0 || self.leaves.is_empty() {
            self.end_chunk();
        }
        let mut nodes = self.nodes;
        let root = self
            .tree
            .finish(&mut |node| nodes.push(node))
            .expect("even an empty file has a leaf")
            .cid;
        let (sha256, size) = (self.whole.finish(), self.size);
        Digested {
            blob: Blob { sha256, root, size },
            leaves: self.leaves,
            nodes,
        }
    }

    fn end_chunk(&mut self) {
        let next = Chunk::Hashing {
            length: 0,
            hasher: Hasher::new(),
        };
        let (digest, length) = match std::mem::replace(&mut self.chunk, next) {
            Chunk::First { length } => {
                let digest = self.whole.so_far();
                (digest.expect("no thread before the second chunk"), length)
            }
            Chunk::Hashing { length, hasher } => (hasher.finish(), length),
            Chunk::Known(block) => (block.hash().digest(), block.len()),
        };
        self.leaves.push(digest);
        let nodes = &mut self.nodes;
        let leaf = Subtree::raw_leaf(&digest, length as u64);
        self.tree.push(leaf, &mut |node| nodes.push(node));
    }
}

impl Chunk {
    fn length(&self) -> usize {
        match self {
            Self::First { length } | Self::Hashing { length, .. } => *length,
            Self::Known(block) => block.len(),
        }
    }

    /// Takes in bytes that the whole file's hasher has taken in already.
    fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::First { length } => *length += bytes.len(),
            Self::Hashing { length, hasher } => {
                hasher.update(bytes);
                *length += bytes.len();
            }
            Self::Known(block) => {
                // It was not the last leaf after all, so its bytes count towards a longer chunk.
                let mut hasher = Hasher::new();
                hasher.update(block.bytes());
                hasher.update(bytes);
                *self = Self::Hashing {
                    length: block.len() + bytes.len(),
                    hasher,
                };
            }
        }
    }
}

/// A whole file: what the index says of it.
#[derive(Debug)]
pub(crate) struct Digested {
    pub(crate) blob: Blob,
    leaves: Vec<Sha256>,
    pub(crate) nodes: Vec<Block>,
}

impl Digested {
    /// Writes the rows of a blob that has none; `path` is where it lies unless that is among the store's own files.
    pub(crate) fn insert(
        &self,
        transaction: &Transaction<'_>,
        stamp: &Stamp,
        path: Option<&Path>,
    ) -> rusqlite::Result<()> {
        let Blob { sha256, root, size } = &self.blob;
        let digest = Multihash::of(root)
            .expect("our own roots are sha2-256")
            .digest();
        let codec = Codec::of(root)
            .expect("our own roots are raw or dag-pb")
            .code();
        transaction.execute(
            "INSERT INTO blob (sha256, size, root_codec, root, mtime_ns, inode, path, used)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            (
                sha256.as_bytes(),
                to_sql(*size),
                to_sql(codec),
                digest.as_bytes(),
                stamp.mtime_ns,
                stamp.inode.cast_signed(),
                path.map(|path| path.as_os_str().as_bytes()),
                this_hour(),
            ),
        )?;
        let id = transaction.last_insert_rowid();
        // A chunk that occurs twice in one file needs one row.
        let mut insert = transaction.prepare_cached(
            "INSERT OR IGNORE INTO leaf (hash, blob, offset, length) VALUES (?1, ?2, ?3, ?4)",
        )?;
        let mut offset = 0;
        for leaf in &self.leaves {
            let length = (size - offset).min(CHUNK_BYTES as u64);
            insert.execute((leaf.as_bytes(), id, to_sql(offset), to_sql(length)))?;
            offset += length;
        }
        self.nodes
            .iter()
            .try_for_each(|node| claim_block(transaction, node))
    }
}
