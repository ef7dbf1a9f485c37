//! In-order traversal of a file's DAG.

use base::Cid;
use bytes::Bytes;

use super::DagError;
use crate::Block;

/// How much of a DAG a [`Walk`] follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WalkLimits {
    /// Largest file in bytes.
    pub bytes_max: u64,
    /// Most links followed, repeated ones counted each time.
    pub nodes_max: u64,
    /// Deepest tree.
    pub depth_max: usize,
}

/// The next bytes of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Leaf {
    /// Exactly the bytes of a raw block: its hash is known, see [`crate::Ingest::write_leaf`].
    Block(Block),
    /// Bytes from inside a dag-pb node or an identity CID.
    Bytes(Bytes),
}

impl Leaf {
    /// The bytes, either way.
    pub fn bytes(&self) -> &Bytes {
        match self {
            Self::Block(block) => block.bytes(),
            Self::Bytes(bytes) => bytes,
        }
    }
}

/// Fetches a file in order with look-ahead, without IO: says what is wanted, takes blocks, gives bytes.
#[derive(Debug)]
pub struct Walk {
    root: Cid,
}

impl Walk {
    /// Starts at a root.
    ///
    /// # Errors
    /// [`DagError`] when the root is of a codec or hash we do not read.
    pub fn new(root: Cid, limits: WalkLimits) -> Result<Self, DagError> {
        let _ = limits;
        Ok(Self { root })
    }

    /// The blocks newly wanted, in file order, so that at most `window` blocks are wanted or held at a time.
    pub fn wants(&mut self, window: usize) -> Vec<Cid> {
        let _ = window;
        vec![self.root]
    }

    /// Takes a block; one that is not wanted (any more) is ignored.
    ///
    /// # Errors
    /// [`DagError`] when the DAG is not a file that we read; the walk cannot go on then.
    pub fn handle_block(&mut self, block: Block) -> Result<(), DagError> {
        let _ = block;
        Ok(())
    }

    /// The next bytes of the file; `None` until more blocks came, and at the end.
    ///
    /// # Errors
    /// [`DagError`] when the DAG contradicts itself; the walk cannot go on then.
    pub fn next_bytes(&mut self) -> Result<Option<Leaf>, DagError> {
        Ok(None)
    }

    /// Whether all bytes were given out.
    pub fn is_done(&self) -> bool {
        false
    }

    /// The file's length in bytes as its root declares it; `None` until the root came.
    pub fn declared_size(&self) -> Option<u64> {
        None
    }
}
