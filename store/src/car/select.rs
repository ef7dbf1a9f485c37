//! A part of a DAG as a CAR: what the Trustless Gateway specification calls `dag-scope`, `entity-bytes` and `dups`.
//!
//! The archive begins with the blocks that prove the path from its root to where it ends, so that a client can follow them
//! itself. Whether the path leads anywhere is known before the first byte is written; a block that is missing further down
//! ends the writing with an error.

use std::io::Write;

use base::{Cid, Codec};
use bytes::Bytes;

use super::transfer::{dag_error, links};
use super::{CarError, CarWriter};
use crate::dag::{self, DagError, FileNode, Node, PbNode, Target, UnixFs};
use crate::{BlockStore as _, Store};

/// Most blocks of one answer, repeated ones counted each time: 256 GiB in chunks of 256 KiB.
const SELECTED_BLOCKS_MAX: usize = 1 << 20;
/// Most blocks that wait to be visited: 100 MB of memory.
const AHEAD_MAX: usize = 1 << 20;

/// How much below the end of a path is wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scope {
    /// The block alone.
    Block,
    /// What it takes to read it: all of a file, the list of a directory.
    Entity,
    /// Everything.
    #[default]
    All,
}

/// Bytes of a file, both ends included; negative numbers count from its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByteRange {
    /// The first byte.
    pub from: i64,
    /// The last byte; `None` is that of the file.
    pub to: Option<i64>,
}

/// What is wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// How much.
    pub scope: Scope,
    /// Of a file, only these bytes. Matters for [`Scope::Entity`] alone.
    pub bytes: Option<ByteRange>,
    /// Whether a block that occurs several times is written each time.
    pub duplicates: bool,
}

/// A path that was followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Located {
    /// The blocks on the way, its end not included.
    pub proof: Vec<Cid>,
    /// Where each part of the path leads.
    pub parts: Vec<Cid>,
    /// Where it ends.
    pub end: Cid,
}

impl ByteRange {
    /// The positions in a file of `size` bytes, the end not included; `None` when no byte of it is meant.
    fn resolve(self, size: u64) -> Option<(u64, u64)> {
        let absolute = |at: i64| match at {
            0.. => at.unsigned_abs(),
            _ => size.saturating_sub(at.unsigned_abs()),
        };
        let last = self.to.map_or(size, |to| match to {
            ..0 if to.unsigned_abs() > size => 0,
            _ => absolute(to).saturating_add(1).min(size),
        });
        let first = absolute(self.from);
        (first < last).then_some((first, last))
    }
}

impl Store {
    /// Follows a path through directories that are here. `None` when a directory has no such entry.
    ///
    /// # Errors
    /// [`CarError::Missing`] when a block on the way or at the end is not here, other [`CarError`]s when it cannot be read.
    pub fn locate(&self, root: &Cid, path: &[String]) -> Result<Option<Located>, CarError> {
        let (mut proof, mut parts, mut end) = (Vec::new(), Vec::new(), *root);
        for name in path {
            let found = dag::lookup(&end, name, |cid| {
                proof.push(*cid);
                Ok::<_, LoadError>(self.load(cid, root)?)
            });
            match found.map_err(|e| e.into_car(&end))? {
                Some(next) => end = next,
                None => return Ok(None),
            }
            parts.push(end);
        }
        let is_here = match Target::of(&end).map_err(|e| dag_error(&end, e))? {
            Target::Inline(..) => true,
            Target::Block(_, hash) => self.has(&hash)?,
        };
        if !is_here {
            return Err(missing(&end, root));
        }
        Ok(Some(Located { proof, parts, end }))
    }

    /// Writes what was selected below the end of a path as a CARv1, depth first. Its root is where the path ends.
    ///
    /// # Errors
    /// [`CarError::Missing`] when a block is not here, other [`CarError`]s when it cannot be read or written.
    pub fn export_selection<W: Write>(
        &self,
        located: &Located,
        selection: &Selection,
        output: W,
    ) -> Result<W, CarError> {
        let mut writer = CarWriter::new(output, &[located.end])?;
        if selection.duplicates {
            writer = writer.with_duplicates();
        }
        let mut export = Export {
            store: self,
            root: located.end,
            writer,
            blocks: 0,
        };
        for cid in &located.proof {
            export.write(cid)?;
        }
        match (selection.scope, selection.bytes) {
            (Scope::Block, _) => {
                export.write(&located.end)?;
            }
            (Scope::All, _) => export.everything(&located.end)?,
            (Scope::Entity, range) => export.entity(&located.end, range)?,
        }
        export.writer.finish()
    }

    fn load(&self, cid: &Cid, root: &Cid) -> Result<Bytes, CarError> {
        match Target::of(cid).map_err(|e| dag_error(cid, e))? {
            Target::Inline(_, bytes) => Ok(bytes),
            Target::Block(_, hash) => {
                let block = self.get(&hash)?.ok_or_else(|| missing(cid, root))?;
                Ok(block.into_bytes())
            }
        }
    }
}

/// One archive being written.
struct Export<'a, W> {
    store: &'a Store,
    root: Cid,
    writer: CarWriter<W>,
    blocks: usize,
}

impl<W: Write> Export<'_, W> {
    /// Writes one block and returns its codec and bytes.
    fn write(&mut self, cid: &Cid) -> Result<(Codec, Bytes), CarError> {
        match Target::of(cid).map_err(|e| dag_error(cid, e))? {
            Target::Inline(codec, bytes) => Ok((codec, bytes)),
            Target::Block(codec, hash) => {
                self.blocks += 1;
                check("blocks of an archive", self.blocks, SELECTED_BLOCKS_MAX)?;
                let block = self.store.get(&hash)?;
                let block = block.ok_or_else(|| missing(cid, &self.root))?;
                self.writer.write(cid, &block)?;
                Ok((codec, block.into_bytes()))
            }
        }
    }

    /// Whether a block, and so everything below it, was written already and need not be again.
    fn is_done(&self, cid: &Cid) -> Result<bool, CarError> {
        let target = Target::of(cid).map_err(|e| dag_error(cid, e))?;
        Ok(self.writer.has(&target))
    }

    fn everything(&mut self, root: &Cid) -> Result<(), CarError> {
        let mut ahead = vec![*root];
        while let Some(cid) = ahead.pop() {
            // The blocks that prove the path were written without what lies below them.
            if cid != *root && self.is_done(&cid)? {
                continue;
            }
            let (codec, block) = self.write(&cid)?;
            ahead.extend(links(&cid, codec, &block)?.into_iter().rev());
            check("blocks ahead", ahead.len(), AHEAD_MAX)?;
        }
        Ok(())
    }

    fn entity(&mut self, end: &Cid, range: Option<ByteRange>) -> Result<(), CarError> {
        let (codec, block) = self.write(end)?;
        match Node::decode(codec, &block) {
            Ok(Node::File(file)) => self.file(end, &file, (codec, block), range),
            Ok(Node::Shard(_)) => {
                let (root, mut loaded) = (self.root, Vec::new());
                // Reading the whole list visits exactly the blocks that hold it.
                let listed = dag::list(end, |cid| {
                    loaded.push(*cid);
                    Ok::<_, LoadError>(self.store.load(cid, &root)?)
                });
                listed.map_err(|e| e.into_car(end))?;
                loaded.iter().skip(1).try_for_each(|cid| {
                    self.write(cid)?;
                    Ok(())
                })
            }
            // What is no UnixFS has no more to it than its block.
            Ok(Node::Directory(_) | Node::Symlink(..)) | Err(_) => Ok(()),
        }
    }

    /// Writes the parts of a file, the node itself excepted.
    fn file(
        &mut self,
        end: &Cid,
        file: &FileNode,
        (codec, block): (Codec, Bytes),
        range: Option<ByteRange>,
    ) -> Result<(), CarError> {
        let wanted = match range {
            None => None,
            Some(range) => match range.resolve(file.size) {
                None => return Ok(()),
                some => some,
            },
        };
        // Each part with the position at which it begins.
        let mut ahead: Vec<(u64, Cid)> = Vec::new();
        let (mut start, mut cid, mut codec, mut block) = (0, *end, codec, block);
        loop {
            let parts = parts(codec, &block, start).map_err(|e| dag_error(&cid, e))?;
            let is_wanted = |(begin, end, _): &(u64, u64, Cid)| {
                wanted.is_none_or(|(first, last)| *begin < last && *end > first)
            };
            let parts = parts.into_iter().filter(is_wanted).rev();
            ahead.extend(parts.map(|(begin, _, cid)| (begin, cid)));
            check("blocks ahead", ahead.len(), AHEAD_MAX)?;
            let Some(next) = ahead.pop() else {
                return Ok(());
            };
            (start, cid) = next;
            (codec, block) = self.write(&cid)?;
        }
    }
}

/// What a node of a file links to, with the positions in the file at which each part begins and ends. The links are those of
/// the block, for a part must stand in the archive under the CID by which it is linked.
fn parts(codec: Codec, block: &Bytes, start: u64) -> Result<Vec<(u64, u64, Cid)>, DagError> {
    // Checks that the lists below belong together.
    let Node::File(file) = Node::decode(codec, block)? else {
        return Err(DagError::Malformed("part of a file that is no file"));
    };
    if codec == Codec::Raw {
        return Ok(Vec::new());
    }
    let node = PbNode::decode(block)?;
    let sizes = match &node.data {
        Some(data) => UnixFs::decode(data)?.block_sizes,
        None => Vec::new(),
    };
    let mut at = start.saturating_add(file.data.len() as u64);
    let links = node.links.into_iter().zip(sizes);
    Ok(links
        .map(|(link, size)| {
            let begin = at;
            at = at.saturating_add(size);
            (begin, at, link.cid)
        })
        .collect())
}

fn check(what: &'static str, found: usize, max: usize) -> Result<(), CarError> {
    if found <= max {
        return Ok(());
    }
    Err(CarError::TooLarge {
        offset: 0,
        what,
        size: found as u64,
        max: max as u64,
    })
}

fn missing(cid: &Cid, root: &Cid) -> CarError {
    CarError::Missing {
        cid: cid.to_string(),
        root: root.to_string(),
    }
}

/// Why a directory could not be read: its block, or what is in it.
enum LoadError {
    Car(CarError),
    Dag(DagError),
}

impl LoadError {
    fn into_car(self, cid: &Cid) -> CarError {
        match self {
            Self::Car(error) => error,
            Self::Dag(error) => dag_error(cid, error),
        }
    }
}

impl From<CarError> for LoadError {
    fn from(error: CarError) -> Self {
        Self::Car(error)
    }
}

impl From<DagError> for LoadError {
    fn from(error: DagError) -> Self {
        Self::Dag(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Expected;
    use crate::car::CarReader;
    use crate::dag::{PbLink, UnixFsKind};

    const MIB: usize = 1 << 20;

    /// A store with a file of five chunks, the last of them like the first, in a directory.
    fn store() -> (tempfile::TempDir, Store, Cid, Cid) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let mut ingest = store.ingest().unwrap();
        for fill in [1, 2, 3, 4, 1] {
            ingest.append(&vec![fill; MIB]).unwrap();
        }
        let file = ingest.finish(&Expected::anything()).unwrap().root;
        let node = PbNode {
            links: vec![PbLink {
                name: Some("file".to_owned()),
                cid: file,
                tsize: None,
            }],
            data: Some(UnixFs::new(UnixFsKind::Directory).encode().into()),
        };
        let block = crate::Block::of(node.encode().into());
        store.put(&block).unwrap();
        let directory = block.cid(Codec::DagPb);
        (dir, store, directory, file)
    }

    fn selected(store: &Store, root: &Cid, path: &[&str], selection: Selection) -> Vec<Cid> {
        let path: Vec<_> = path.iter().map(ToString::to_string).collect();
        let located = store.locate(root, &path).unwrap().unwrap();
        let bytes = store
            .export_selection(&located, &selection, Vec::new())
            .unwrap();
        let mut reader = CarReader::new(&bytes[..]).unwrap();
        let mut cids = Vec::new();
        while let Some(section) = reader.next_section().unwrap() {
            cids.push(section.cid);
        }
        cids
    }

    fn of(scope: Scope) -> Selection {
        Selection {
            scope,
            ..Selection::default()
        }
    }

    #[test]
    fn a_scope_says_how_much_comes_after_the_proof_of_the_path() {
        let (_dir, store, directory, file) = store();
        let count = |path: &[&str], scope| selected(&store, &directory, path, of(scope)).len();
        assert_eq!(
            selected(&store, &directory, &[], of(Scope::Block)),
            [directory]
        );
        assert_eq!(
            selected(&store, &directory, &[], of(Scope::Entity)),
            [directory]
        );
        assert_eq!(count(&[], Scope::All), 6, "directory, file, four chunks");
        let block = selected(&store, &directory, &["file"], of(Scope::Block));
        assert_eq!(block, [directory, file]);
        assert_eq!(count(&["file"], Scope::Entity), 6);
        assert_eq!(count(&["file"], Scope::All), 6);
        let twice = Selection {
            duplicates: true,
            ..of(Scope::Entity)
        };
        assert_eq!(
            selected(&store, &file, &[], twice).len(),
            6,
            "one chunk twice"
        );
    }

    #[test]
    fn a_range_of_bytes_takes_the_chunks_it_touches() {
        let (_dir, store, _, file) = store();
        let chunks = |from, to| {
            let selection = Selection {
                bytes: Some(ByteRange { from, to }),
                duplicates: true,
                ..of(Scope::Entity)
            };
            selected(&store, &file, &[], selection).len() - 1
        };
        let mib = MIB as i64;
        assert_eq!(chunks(0, None), 5);
        assert_eq!(chunks(0, Some(0)), 1);
        assert_eq!(chunks(mib, Some(2 * mib)), 2);
        assert_eq!(chunks(-1, None), 1);
        assert_eq!(chunks(-mib - 1, Some(-1)), 2);
        assert_eq!(chunks(0, Some(-4 * mib - 1)), 1);
        assert_eq!(chunks(5 * mib, None), 0);
        assert_eq!(chunks(3, Some(2)), 0);
        assert_eq!(chunks(i64::MIN, Some(i64::MAX)), 5);
        assert_eq!(chunks(0, Some(i64::MIN)), 0);
    }

    #[test]
    fn a_path_that_leads_nowhere_is_told_from_one_that_is_not_here() {
        let (_dir, store, directory, _) = store();
        let located = store.locate(&directory, &["other".to_owned()]).unwrap();
        assert_eq!(located, None);
        let elsewhere = crate::Block::of("elsewhere".into()).cid(Codec::Raw);
        let error = store.locate(&elsewhere, &[]).unwrap_err();
        assert!(matches!(error, CarError::Missing { .. }), "{error}");
        let empty: Cid = "bafkqaaa".parse().unwrap();
        assert_eq!(selected(&store, &empty, &[], Selection::default()), []);
    }
}
