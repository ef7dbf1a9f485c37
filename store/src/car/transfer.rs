//! What a store does with archives: takes one in, gives a DAG out.
//!
//! An archive is read twice. The first time every block is verified and only its place is remembered, so that a file among
//! the roots can then be put together in its own order, straight from the archive into the store's file, whatever the
//! order of the blocks; what is left goes into the index. Nothing is stored twice that way, and a broken block
//! is found before anything is kept.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt as _;

use base::{Cid, Codec, Multihash, Sha256};
use bytes::Bytes;

use super::{CarError, CarReader, CarWriter};
use crate::dag::{DagError, Leaf, Node, PbNode, Target, Walk, WalkLimits};
use crate::loose::{insert_loose, use_loose};
use crate::{Blob, Block, BlockStore as _, Expected, Store};

/// Most blocks of one archive: their places take 120 MB of memory. In chunks of 256 KiB that is 256 GiB.
const CAR_BLOCKS_MAX: usize = 1 << 20;
/// Bytes of blocks that go into the index in one commit: each commit waits for the disk.
const COMMIT_BYTES: usize = 8 << 20;
/// Chunks looked at ahead while a file is put together. They are on this disk already.
const WINDOW_BLOCKS: usize = 4;

/// What an archive brought.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CarImport {
    /// The roots its writer named.
    pub roots: Vec<Cid>,
    /// Different blocks in it.
    pub blocks: u64,
    /// The files among the roots, which are blobs now.
    pub files: Vec<(Cid, Blob)>,
    /// Roots that are files, but not whole: neither here nor in the archive is all of them.
    pub incomplete: Vec<Cid>,
}

impl Store {
    /// Takes in all blocks of an archive. Files among its roots become blobs, as if they had been fetched.
    ///
    /// # Errors
    /// [`CarError`]. Of an archive with a broken block nothing is kept; of one with a file that contradicts itself, the
    /// files before it.
    pub fn import_car(&self, archive: &File) -> Result<CarImport, CarError> {
        let contents = Contents::read(archive)?;
        let mut import = CarImport {
            blocks: contents.places.len() as u64,
            ..CarImport::default()
        };
        let mut wholes = HashMap::new();
        for root in &contents.roots {
            if !contents.is_file(self, root)? {
                contents.note_parts(root, &mut wholes)?;
                continue;
            }
            let parts = RefCell::new(Vec::new());
            let load = |hash: &Multihash| {
                parts.borrow_mut().push(*hash);
                contents.get(self, hash)
            };
            match put_together(self, root, load)? {
                Some(blob) => {
                    for hash in parts.into_inner() {
                        wholes.entry(hash).or_insert(blob.sha256);
                    }
                    import.files.push((*root, blob));
                }
                None => import.incomplete.push(*root),
            }
        }
        contents.keep_rest(self, &wholes)?;
        import.roots = contents.roots;
        Ok(import)
    }

    /// Writes the DAGs below some roots as a CARv1, depth first, each block once.
    ///
    /// # Errors
    /// [`CarError::Missing`] when a block is not here, other [`CarError`]s when it cannot be read or written.
    pub fn export_car<W: Write>(&self, roots: &[Cid], output: W) -> Result<W, CarError> {
        let mut writer = CarWriter::new(output, roots)?;
        for root in roots {
            let mut ahead = vec![*root];
            while let Some(cid) = ahead.pop() {
                let links = match Target::of(&cid).map_err(|e| dag_error(&cid, e))? {
                    Target::Inline(codec, bytes) => links(&cid, codec, &bytes)?,
                    target @ Target::Block(..) if writer.has(&target) => continue,
                    Target::Block(codec, hash) => {
                        let block = self.get(&hash)?.ok_or(CarError::Missing {
                            cid: cid.to_string(),
                            root: root.to_string(),
                        })?;
                        writer.write(&cid, &block)?;
                        links(&cid, codec, block.bytes())?
                    }
                };
                ahead.extend(links.into_iter().rev());
            }
        }
        writer.finish()
    }

    /// Makes a blob of the file below a root if all its blocks are here; `None` when one is missing.
    ///
    /// # Errors
    /// [`CarError::Dag`] when it is no file, [`CarError::Store`] when the store fails.
    pub fn blob_of_blocks(&self, root: &Cid) -> Result<Option<Blob>, CarError> {
        put_together(self, root, |hash| Ok(self.get(hash)?))
    }
}

/// The blocks of an archive by their places in it. All of them were verified.
struct Contents<'a> {
    archive: &'a File,
    roots: Vec<Cid>,
    places: HashMap<Multihash, (u64, usize)>,
}

impl<'a> Contents<'a> {
    fn read(archive: &'a File) -> Result<Self, CarError> {
        let mut reader = CarReader::new(archive)?;
        let mut places = HashMap::new();
        while let Some(section) = reader.next_section()? {
            let offset = section.offset;
            places.insert(*section.block.hash(), (offset, section.block.len()));
            if places.len() > CAR_BLOCKS_MAX {
                return Err(CarError::TooLarge {
                    offset,
                    what: "a number of blocks",
                    size: places.len() as u64,
                    max: CAR_BLOCKS_MAX as u64,
                });
            }
        }
        Ok(Self {
            archive,
            roots: reader.roots().to_vec(),
            places,
        })
    }

    /// A block of the archive, or one that is in the store already. It is verified again, for files change.
    fn get(&self, store: &Store, hash: &Multihash) -> Result<Option<Block>, CarError> {
        match self.places.get(hash) {
            Some(place) => self.read_block(hash, *place).map(Some),
            None => Ok(store.get(hash)?),
        }
    }

    fn read_block(
        &self,
        hash: &Multihash,
        (offset, length): (u64, usize),
    ) -> Result<Block, CarError> {
        let mut bytes = vec![0; length];
        self.archive
            .read_exact_at(&mut bytes, offset)
            .map_err(CarError::Read)?;
        Block::verify(*hash, bytes.into()).map_err(|source| CarError::Mismatch {
            offset,
            cid: base::block_cid(Codec::Raw, &hash.digest()).to_string(),
            source,
        })
    }

    /// Whether a root is a file that may become a blob. What is no UnixFS is kept as the blocks it is.
    fn is_file(&self, store: &Store, root: &Cid) -> Result<bool, CarError> {
        let Ok(Target::Block(codec, hash)) = Target::of(root) else {
            return Ok(false);
        };
        if codec == Codec::Raw {
            return Ok(true);
        }
        Ok(self
            .get(store, &hash)?
            .is_some_and(|block| matches!(Node::decode(codec, block.bytes()), Ok(Node::File(_)))))
    }

    /// Notes which blocks are below a root that is no file, as far as nothing else has them.
    fn note_parts(
        &self,
        root: &Cid,
        wholes: &mut HashMap<Multihash, Sha256>,
    ) -> Result<(), CarError> {
        let Ok(Target::Block(codec, hash)) = Target::of(root) else {
            return Ok(());
        };
        let whole = hash.digest();
        let mut ahead = vec![(codec, hash)];
        while let Some((codec, hash)) = ahead.pop() {
            let Some(place) = self.places.get(&hash) else {
                continue;
            };
            if wholes.contains_key(&hash) {
                continue;
            }
            wholes.insert(hash, whole);
            if codec != Codec::DagPb {
                continue;
            }
            let block = self.read_block(&hash, *place)?;
            // Any bytes may stand under any codec here; what is no node has nothing below it.
            let node = PbNode::decode(block.bytes());
            for link in node.into_iter().flat_map(|node| node.links) {
                if let Ok(Target::Block(codec, hash)) = Target::of(&link.cid) {
                    ahead.push((codec, hash));
                }
            }
        }
        Ok(())
    }

    /// Puts the blocks that are not parts of a blob into the index, in the order of the archive. `wholes` tells of what a block
    /// is part.
    fn keep_rest(
        &self,
        store: &Store,
        wholes: &HashMap<Multihash, Sha256>,
    ) -> Result<(), CarError> {
        let mut places: Vec<_> = self.places.iter().collect();
        places.sort_unstable_by_key(|(_, (offset, _))| *offset);
        let mut rest = Vec::new();
        let (mut here, mut size) = (Vec::new(), 0);
        for (hash, place) in places {
            if store.has(hash)? {
                here.push(hash);
            } else {
                size += place.1 as u64;
                rest.push((hash, place));
            }
        }
        for whole in wholes.values() {
            store.hold(whole)?;
        }
        // For all at once: what came first must not go for what comes last.
        store.make_room(size, size, None)?;
        store.index.write(|transaction| {
            for hash in here {
                use_loose(transaction, hash, wholes.get(hash))?;
            }
            Ok(())
        })?;
        let (mut waiting, mut bytes) = (Vec::new(), 0);
        for (hash, place) in rest {
            let block = self.read_block(hash, *place)?;
            bytes += block.len();
            waiting.push((block, wholes.get(hash)));
            if bytes >= COMMIT_BYTES {
                keep(store, &waiting)?;
                waiting.clear();
                bytes = 0;
            }
        }
        keep(store, &waiting)
    }
}

fn keep(store: &Store, blocks: &[(Block, Option<&Sha256>)]) -> Result<(), CarError> {
    Ok(store.index.write(|transaction| {
        for (block, whole) in blocks {
            insert_loose(transaction, block, *whole)?;
        }
        Ok(())
    })?)
}

/// Makes a blob of the file below a root; `None` when a block is nowhere.
fn put_together(
    store: &Store,
    root: &Cid,
    load: impl Fn(&Multihash) -> Result<Option<Block>, CarError>,
) -> Result<Option<Blob>, CarError> {
    let bad = |e| dag_error(root, e);
    let mut walk = Walk::new(*root, WalkLimits::default()).map_err(bad)?;
    let mut ingest = store.ingest()?;
    while !walk.is_done() {
        for cid in walk.wants(WINDOW_BLOCKS) {
            let hash = Multihash::of(&cid).expect("a walk wants sha2-256 blocks only");
            let Some(block) = load(&hash)? else {
                return Ok(None);
            };
            walk.handle_block(&block).map_err(bad)?;
        }
        while let Some(leaf) = walk.next_bytes().map_err(bad)? {
            match &leaf {
                Leaf::Block(block) => ingest.write_leaf(block)?,
                Leaf::Bytes(bytes) => ingest.append(bytes)?,
            }
        }
    }
    Ok(Some(ingest.finish(&Expected::anything())?))
}

/// What a block links to, in its order, whether or not it is UnixFS.
pub(super) fn links(cid: &Cid, codec: Codec, block: &Bytes) -> Result<Vec<Cid>, CarError> {
    match codec {
        Codec::Raw => Ok(Vec::new()),
        Codec::DagPb => {
            let node = PbNode::decode(block).map_err(|e| dag_error(cid, e))?;
            Ok(node.links.into_iter().map(|link| link.cid).collect())
        }
        Codec::DagCbor => {
            let reason = "links of dag-cbor are not followed".to_owned();
            let cid_text = cid.to_string();
            Err(dag_error(
                cid,
                DagError::Unsupported {
                    cid: cid_text,
                    reason,
                },
            ))
        }
    }
}

pub(super) fn dag_error(cid: &Cid, source: DagError) -> CarError {
    CarError::Dag {
        cid: cid.to_string(),
        source,
    }
}
