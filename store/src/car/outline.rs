//! The outline of a file: its nodes without its chunks, as a CARv1.
//!
//! It lies beside a file that is given as plain bytes. Whoever has it, and knows the root, checks every chunk as it comes,
//! whoever sends it, and takes the next one from somebody else.

use std::collections::HashMap;
use std::io::{Read, Write};

use base::{Block, Cid, Codec, Multihash};

use super::{CarError, CarReader, CarWriter};
use crate::dag::{self, Chunk, DagError};
use crate::{BlockStore as _, Store, StoreError};

/// Longest outline that is read, in bytes: about 70 000 chunks.
pub const OUTLINE_BYTES_MAX: u64 = 4 << 20;

/// What a file consists of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outline {
    /// The chunks, in order; nothing else is in the file.
    pub chunks: Vec<Chunk>,
    /// The nodes, the root first. A file of one chunk has none.
    pub nodes: Vec<Block>,
}

impl Outline {
    /// The outline that needs no nodes: that of a file which is one chunk.
    pub fn of_one_chunk(root: &Cid, size: u64) -> Option<Self> {
        let is_one = Codec::of(root) == Ok(Codec::Raw);
        let hash = Multihash::of(root).ok().filter(|_| is_one)?;
        let (offset, length) = (0, size);
        let chunk = Chunk {
            hash,
            offset,
            length,
        };
        Some(Self {
            chunks: vec![chunk],
            nodes: Vec::new(),
        })
    }

    /// Reads the outline of the file of `size` bytes below `root`; `None` when a node is missing, or the file is of another form
    /// than ours.
    ///
    /// # Errors
    /// [`CarError`] when it is something else.
    pub fn read(input: impl Read, root: &Cid, size: u64) -> Result<Option<Self>, CarError> {
        let mut reader = CarReader::new(input.take(OUTLINE_BYTES_MAX))?;
        let mut blocks = HashMap::new();
        while let Some(section) = reader.next_section()? {
            blocks.insert(*section.block.hash(), section.block);
        }
        let mut nodes = Vec::new();
        let node = |hash: &Multihash| {
            let block = blocks.get(hash).cloned();
            nodes.extend(block.clone());
            Ok(block)
        };
        let chunks = dag::chunks(root, size, node).map_err(|e: DagError| dag_error(root, e))?;
        Ok(chunks.map(|chunks| Self { chunks, nodes }))
    }
}

impl Store {
    /// Writes the outline of a file that is here. Of one that is a single chunk it is empty.
    ///
    /// # Errors
    /// [`CarError`] when the store fails, or the output cannot be written.
    pub fn write_outline<W: Write>(&self, root: &Cid, output: W) -> Result<W, CarError> {
        let mut writer = CarWriter::new(output, std::slice::from_ref(root))?;
        let nodes = dag::inner_nodes(root, |hash| self.get(hash).map_err(Trouble::Store));
        for block in nodes.map_err(|trouble| trouble.into_error(root))? {
            writer.write(&block.cid(Codec::DagPb), &block)?;
        }
        writer.finish()
    }
}

/// Why nodes could not be listed.
enum Trouble {
    Store(StoreError),
    Dag(DagError),
}

impl From<DagError> for Trouble {
    fn from(error: DagError) -> Self {
        Self::Dag(error)
    }
}

impl Trouble {
    fn into_error(self, root: &Cid) -> CarError {
        match self {
            Self::Store(error) => error.into(),
            Self::Dag(error) => dag_error(root, error),
        }
    }
}

fn dag_error(root: &Cid, source: DagError) -> CarError {
    CarError::Dag {
        cid: root.to_string(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Expected;

    #[test]
    fn an_outline_survives_its_way_and_belongs_to_one_file() {
        let home = tempfile::tempdir().unwrap();
        let store = Store::open(home.path()).unwrap();
        let bytes: Vec<u8> = (0..3_000_000_u32).map(|n| (n / 7) as u8).collect();
        let mut ingest = store.ingest().unwrap();
        ingest.append(&bytes).unwrap();
        let blob = ingest.finish(&Expected::anything()).unwrap();
        let written = store.write_outline(&blob.root, Vec::new()).unwrap();
        assert!(written.len() < 400, "{} bytes", written.len());
        let read = |bytes: &[u8], root, size| Outline::read(bytes, root, size);
        let outline = read(&written, &blob.root, blob.size).unwrap().unwrap();
        assert_eq!((outline.chunks.len(), outline.nodes.len()), (3, 1));
        // Of another file it says nothing, and it cannot be bent.
        let other = base::block_cid(Codec::DagPb, &base::Sha256::of(b"other"));
        assert_eq!(read(&written, &other, blob.size).unwrap(), None);
        assert!(read(&written, &blob.root, blob.size + 1).is_err());
        assert!(read(&written[..written.len() - 1], &blob.root, blob.size).is_err());
        assert!(read(b"<html>", &blob.root, blob.size).is_err());
    }

    #[test]
    fn a_file_of_one_chunk_has_an_outline_of_its_own() {
        let root = base::block_cid(Codec::Raw, &base::Sha256::of(b"one"));
        let outline = Outline::of_one_chunk(&root, 3).unwrap();
        assert_eq!((outline.chunks.len(), outline.nodes.len()), (1, 0));
        let node = base::block_cid(Codec::DagPb, &base::Sha256::of(b"one"));
        assert_eq!(Outline::of_one_chunk(&node, 3), None);
    }
}
