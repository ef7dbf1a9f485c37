//! In-order traversal of a file's DAG with look-ahead: the part of a fetch that needs no network.
//!
//! Memory is bounded by the caller's window: at most that many chunks are wanted or held at a time, beside a bounded number
//! of inner nodes. No position is remembered for a block: every call walks the look-ahead again from the
//! current byte and asks which of the blocks met are there. So a block that occurs many times is wanted once and held
//! once while any occurrence is in sight, and there is no second structure that could disagree with the tree.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use base::{Cid, Codec, Multihash, block_cid};
use bytes::Bytes;

use super::DagError;
use super::node::{FileLink, FileNode, Node, Target};
use crate::Block;

/// Most links in nodes that are kept although the window does not reach them: 3 MiB of memory.
const LINKS_UNSEEN_MAX: usize = 1 << 16;

/// How much of a DAG a [`Walk`] follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WalkLimits {
    /// Largest file in bytes.
    pub bytes_max: u64,
    /// Most links followed, repeated ones counted each time.
    pub nodes_max: u64,
    /// Deepest tree; the root alone is depth 1.
    pub depth_max: usize,
}

impl Default for WalkLimits {
    fn default() -> Self {
        Self {
            // Four times the largest archive in the field (a whole TeX tree, a debug build of a browser).
            bytes_max: 64 << 30,
            // That many bytes in chunks of 64 KiB, a quarter of the smallest chunk any tool writes by default.
            nodes_max: 1 << 20,
            // Balanced trees of that size have 4 levels, trickle trees about 12.
            depth_max: 24,
        }
    }
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

/// What a block was to a walk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// Nothing that is wanted.
    Unwanted,
    /// Bytes of the file, all of it, as they are.
    Leaf {
        /// Where in the file they begin, in bytes; the first place where that is known to be.
        offset: u64,
    },
    /// More than bytes of the file.
    Node,
}

/// How a wanted block will be read.
type Key = (Codec, Multihash);

/// What is known about a wanted block.
#[derive(Clone, Debug)]
enum Held {
    /// Wanted; where in the file it begins, the first place in sight.
    Awaited(u64),
    Leaf(Block),
    Node(FileNode),
}

impl Held {
    /// Whether it takes the room of a chunk: everything but an inner node.
    fn is_large(&self) -> bool {
        match self {
            Self::Awaited(_) | Self::Leaf(_) => true,
            Self::Node(node) => node.links.is_empty() || !node.data.is_empty(),
        }
    }
}

/// The node whose links are being followed.
#[derive(Clone, Debug)]
struct Frame {
    links: Arc<[FileLink]>,
    next: usize,
}

/// Fetches a file in order with look-ahead, without IO: says what is wanted, takes blocks, gives bytes.
///
/// A round is: [`Self::wants`] and fetch them, [`Self::handle_block`] for what came, [`Self::next_bytes`] until it
/// gives nothing more, and again until [`Self::is_done`].
#[derive(Debug)]
pub struct Walk {
    root: Cid,
    limits: WalkLimits,
    /// The way to the current byte. At first one frame whose only link is the root.
    path: Vec<Frame>,
    held: HashMap<Key, Held>,
    /// Which of the blocks held were used already.
    passed: HashSet<Key>,
    declared_size: Option<u64>,
    /// Bytes given out.
    position: u64,
    /// Links followed so far.
    nodes: u64,
}

impl Walk {
    /// Starts at a root.
    ///
    /// # Errors
    /// [`DagError`] when the root is of a codec or hash we do not read.
    pub fn new(root: Cid, limits: WalkLimits) -> Result<Self, DagError> {
        let target = Target::of(&root)?;
        if matches!(
            target,
            Target::Block(Codec::DagCbor, _) | Target::Inline(Codec::DagCbor, _)
        ) {
            let reason = "dag-cbor is no file".to_owned();
            return Err(DagError::Unsupported {
                cid: root.to_string(),
                reason,
            });
        }
        // The size is set when the root came; it must not be zero, for links of zero bytes are skipped elsewhere.
        let links = Arc::from([FileLink { target, size: 0 }]);
        let path = vec![Frame { links, next: 0 }];
        Ok(Self {
            root,
            limits,
            path,
            held: HashMap::new(),
            passed: HashSet::new(),
            declared_size: None,
            position: 0,
            nodes: 0,
        })
    }

    /// The blocks newly wanted, in file order, so that at most `window` blocks are wanted or held as leaves at a time
    /// (one more when the very next block of the file is the one that is missing). A window of 0 is read as 1.
    pub fn wants(&mut self, window: usize) -> Vec<Cid> {
        let window = window.max(1);
        let mut scan = Scan::new(window, self.position);
        for (depth, frame) in self.path.iter().enumerate().rev() {
            if !scan.links(
                &frame.links[frame.next..],
                depth + 1,
                &self.held,
                &self.limits,
            ) {
                break;
            }
        }
        self.forget_all_but(&scan.seen);
        let in_memory = self.held.values().filter(|held| held.is_large()).count();
        let mut room = window.saturating_sub(in_memory);
        if room == 0 && scan.is_front_missing {
            room = 1;
        }
        scan.wanted.truncate(room);
        self.held.extend(
            scan.wanted
                .iter()
                .map(|(key, at)| (*key, Held::Awaited(*at))),
        );
        scan.wanted
            .into_iter()
            .map(|(key, _)| self.cid_of(key))
            .collect()
    }

    /// Takes a block and says what it was; one that is not wanted (any more) is ignored.
    ///
    /// # Errors
    /// [`DagError`] when the DAG is not a file that we read; the walk cannot go on then.
    pub fn handle_block(&mut self, block: &Block) -> Result<Taken, DagError> {
        let mut taken = Taken::Unwanted;
        for codec in [Codec::Raw, Codec::DagPb] {
            let key = (codec, *block.hash());
            let Some(Held::Awaited(offset)) = self.held.get(&key) else {
                continue;
            };
            let offset = *offset;
            let held = if codec == Codec::Raw {
                taken = Taken::Leaf { offset };
                Held::Leaf(block.clone())
            } else {
                taken = Taken::Node;
                Held::Node(self.file_node(codec, block.bytes())?)
            };
            self.held.insert(key, held);
        }
        Ok(taken)
    }

    /// The next bytes of the file; `None` until more blocks came, and at the end.
    ///
    /// # Errors
    /// [`DagError`] when the DAG contradicts itself; the walk cannot go on then.
    pub fn next_bytes(&mut self) -> Result<Option<Leaf>, DagError> {
        while let Some(frame) = self.path.last_mut() {
            let Some(link) = frame.links.get(frame.next) else {
                self.path.pop();
                continue;
            };
            let link = link.clone();
            // Before asking whether it is here: what lies too deep is never wanted.
            if self.path.len() > self.limits.depth_max {
                let max = self.limits.depth_max as u64;
                return Err(DagError::TooLarge {
                    what: "depth of a file",
                    max,
                });
            }
            let Some(part) = self.part(&link.target)? else {
                return Ok(None);
            };
            self.advance(&link, &part)?;
            let leaf = match part {
                Part::Leaf(block) => Leaf::Block(block),
                Part::Node(node) => {
                    self.path.push(Frame {
                        links: node.links,
                        next: 0,
                    });
                    Leaf::Bytes(node.data)
                }
            };
            if !leaf.bytes().is_empty() {
                self.position += leaf.bytes().len() as u64;
                return Ok(Some(leaf));
            }
        }
        Ok(None)
    }

    /// Whether all bytes were given out.
    pub fn is_done(&self) -> bool {
        self.path
            .iter()
            .all(|frame| frame.next == frame.links.len())
    }

    /// The file's length in bytes as its root declares it; `None` until the root was reached by [`Self::next_bytes`].
    pub const fn declared_size(&self) -> Option<u64> {
        self.declared_size
    }

    /// Drops what was passed and does not occur again in sight.
    ///
    /// Inner nodes that are still to come stay although out of sight: the window slides over a row of them when the
    /// leaves of the first come into sight. They are small unless somebody means harm, and then there are too many.
    fn forget_all_but(&mut self, seen: &HashSet<Key>) {
        let links_unseen: usize = self
            .held
            .iter()
            .filter(|(key, _)| !seen.contains(*key))
            .map(|(_, held)| {
                if let Held::Node(node) = held {
                    node.links.len()
                } else {
                    0
                }
            })
            .sum();
        let passed = &self.passed;
        self.held.retain(|key, held| match held {
            _ if seen.contains(key) => true,
            Held::Awaited(_) => true,
            Held::Leaf(_) => !passed.contains(key),
            Held::Node(_) => !passed.contains(key) && links_unseen <= LINKS_UNSEEN_MAX,
        });
        self.passed.retain(|key| self.held.contains_key(key));
    }

    /// What a link leads to, if it is here.
    fn part(&self, target: &Target) -> Result<Option<Part>, DagError> {
        match target {
            Target::Inline(codec, bytes) => self.file_node(*codec, bytes).map(Part::Node).map(Some),
            Target::Block(Codec::Raw, hash) if Block::is_empty_hash(hash) => {
                Ok(Some(Part::Leaf(Block::empty())))
            }
            Target::Block(codec, hash) => Ok(match self.held.get(&(*codec, *hash)) {
                Some(Held::Leaf(block)) => Some(Part::Leaf(block.clone())),
                Some(Held::Node(node)) => Some(Part::Node(node.clone())),
                Some(Held::Awaited(_)) | None => None,
            }),
        }
    }

    /// Steps over a link whose part is here, checking what its parent claimed.
    fn advance(&mut self, link: &FileLink, part: &Part) -> Result<(), DagError> {
        let found = match part {
            Part::Leaf(block) => block.len() as u64,
            Part::Node(node) => node.size,
        };
        if self.declared_size.is_none() {
            self.declared_size = Some(found);
            if found > self.limits.bytes_max {
                return Err(DagError::TooLarge {
                    what: "file",
                    max: self.limits.bytes_max,
                });
            }
        } else if link.size != found {
            return Err(DagError::LyingSize {
                claimed: link.size,
                found,
            });
        }
        self.nodes += 1;
        if self.nodes > self.limits.nodes_max {
            let max = self.limits.nodes_max;
            return Err(DagError::TooLarge {
                what: "number of nodes",
                max,
            });
        }
        if self.path.len() > self.limits.depth_max {
            let max = self.limits.depth_max as u64;
            return Err(DagError::TooLarge {
                what: "depth of a file",
                max,
            });
        }
        if let Target::Block(codec, hash) = link.target {
            self.passed.insert((codec, hash));
        }
        if let Some(frame) = self.path.last_mut() {
            frame.next += 1;
        }
        Ok(())
    }

    fn file_node(&self, codec: Codec, bytes: &Bytes) -> Result<FileNode, DagError> {
        match Node::decode(codec, bytes)? {
            Node::File(node) => Ok(node),
            other => Err(DagError::WrongKind {
                cid: self.root.to_string(),
                found: other.kind(),
                wanted: "file",
            }),
        }
    }

    /// The CID to ask peers for. The root is asked for as it was given, version 0 included.
    fn cid_of(&self, (codec, hash): Key) -> Cid {
        match Multihash::of(&self.root) {
            Ok(root) if root == hash => self.root,
            _ => block_cid(codec, &hash.digest()),
        }
    }
}

/// A part of the file that is here.
enum Part {
    Leaf(Block),
    Node(FileNode),
}

/// One pass over the look-ahead.
struct Scan {
    /// Blocks that may still be looked at.
    left: usize,
    /// Where in the file the next link begins.
    offset: u64,
    seen: HashSet<Key>,
    wanted: Vec<(Key, u64)>,
    /// The very next block is neither here nor under way.
    is_front_missing: bool,
    is_first: bool,
}

impl Scan {
    fn new(window: usize, offset: u64) -> Self {
        Self {
            left: window,
            offset,
            seen: HashSet::new(),
            wanted: Vec::new(),
            is_front_missing: false,
            is_first: true,
        }
    }

    /// Looks at links in order; `false` when the window is full.
    fn links(
        &mut self,
        links: &[FileLink],
        depth: usize,
        held: &HashMap<Key, Held>,
        limits: &WalkLimits,
    ) -> bool {
        links
            .iter()
            .all(|link| self.link(link, depth, held, limits))
    }

    fn link(
        &mut self,
        link: &FileLink,
        depth: usize,
        held: &HashMap<Key, Held>,
        limits: &WalkLimits,
    ) -> bool {
        let offset = self.offset;
        self.offset = offset.saturating_add(link.size);
        let Target::Block(codec, hash) = &link.target else {
            return self.take();
        };
        if *codec == Codec::Raw && Block::is_empty_hash(hash) {
            return true;
        }
        // What lies too deep is refused when the walk gets there; until then it is not fetched.
        if depth > limits.depth_max || !self.take() {
            return false;
        }
        let key = (*codec, *hash);
        let is_new = self.seen.insert(key);
        let is_first = std::mem::replace(&mut self.is_first, false);
        match held.get(&key) {
            None if is_new => {
                self.is_front_missing |= is_first;
                self.wanted.push((key, offset));
            }
            // One that is not as long as its parent says is refused when the walk gets there. The root has no parent.
            Some(Held::Node(node)) if node.size == link.size || depth == 1 => {
                self.offset = offset.saturating_add(node.data.len() as u64);
                return self.links(&node.links, depth + 1, held, limits);
            }
            _ => {}
        }
        true
    }

    fn take(&mut self) -> bool {
        let free = self.left > 0;
        self.left = self.left.saturating_sub(1);
        free
    }
}

#[cfg(test)]
mod tests;
