//! A block read as what it is in UnixFS, with the checks that need both encodings.

use std::sync::Arc;

use base::{Cid, CidError, Codec, Multihash};
use bytes::Bytes;

use super::pb::PbNode;
use super::unixfs::{Mtime, UnixFs, UnixFsKind};
use super::{DagError, INLINE_BYTES_MAX};

/// Fewest and most buckets of a shard; the cap is boxo's, set after a denial of service (CVE-2023-23625).
const FANOUT_MIN: u64 = 8;
/// See [`FANOUT_MIN`].
const FANOUT_MAX: u64 = 1024;
/// Multicodec of murmur3-x64-64, the only hash function of shards.
const MURMUR3_X64_64: u64 = 0x22;

/// A UnixFS node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node {
    /// A file or a part of one.
    File(FileNode),
    /// A directory in one block.
    Directory(Directory),
    /// A part of a directory spread over many blocks.
    Shard(Shard),
    /// A symbolic link; the target is bytes, as in the file system.
    Symlink(Bytes, Metadata),
}

/// Optional attributes of a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Metadata {
    /// Permission bits.
    pub mode: Option<u32>,
    /// Time of last modification.
    pub mtime: Option<Mtime>,
}

/// A file or a part of one: own bytes first, then what the links lead to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileNode {
    /// Own bytes.
    pub data: Bytes,
    /// The rest, in order. Links to parts of zero bytes are left out: they hold nothing to fetch.
    pub links: Arc<[FileLink]>,
    /// Length of all of it in bytes.
    pub size: u64,
    /// Attributes.
    pub metadata: Metadata,
}

/// A link to a part of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileLink {
    /// Where the part is.
    pub target: Target,
    /// Its length in bytes as the parent claims it; never zero.
    pub size: u64,
}

/// What a link leads to, smaller in memory than a CID: a hostile node has 45 000 of them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// A block of its own.
    Block(Codec, Multihash),
    /// Bytes inside the CID.
    Inline(Codec, Bytes),
}

/// A directory in one block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directory {
    /// Entries in the order of the block. Names are as they came, see [`super::is_entry_name`].
    pub entries: Vec<DirEntry>,
    /// Attributes.
    pub metadata: Metadata,
}

/// An entry of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirEntry {
    /// Its name.
    pub name: String,
    /// Its root.
    pub cid: Cid,
}

/// A part of a directory spread over many blocks (a hash array mapped trie).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shard {
    /// Links in bucket order; their names begin with the bucket's number.
    pub links: Vec<DirEntry>,
    /// Buckets, a power of two.
    pub fanout: u64,
    /// Attributes.
    pub metadata: Metadata,
}

impl Node {
    /// Reads a block.
    ///
    /// # Errors
    /// [`DagError`] when it is no UnixFS node of a kind we read.
    pub fn decode(codec: Codec, block: &Bytes) -> Result<Self, DagError> {
        match codec {
            Codec::Raw => Ok(Self::File(FileNode::raw(block.clone()))),
            Codec::DagPb => Self::decode_pb(block),
            Codec::DagCbor => Err(DagError::Malformed("dag-cbor is no UnixFS")),
        }
    }

    /// Its kind, for messages.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::File(_) => "file",
            Self::Directory(_) | Self::Shard(_) => "directory",
            Self::Symlink(..) => "symbolic link",
        }
    }

    fn decode_pb(block: &Bytes) -> Result<Self, DagError> {
        let mut node = PbNode::decode(block)?;
        let data = node
            .data
            .take()
            .ok_or(DagError::Malformed("dag-pb without UnixFS data"))?;
        let message = UnixFs::decode(&data)?;
        let metadata = Metadata {
            mode: message.mode,
            mtime: message.mtime,
        };
        match message.kind {
            UnixFsKind::File | UnixFsKind::Raw => {
                FileNode::from_parts(&node, message).map(Self::File)
            }
            UnixFsKind::Directory => Ok(Self::Directory(Directory {
                entries: entries(node)?,
                metadata,
            })),
            UnixFsKind::HamtShard => Shard::from_parts(node, &message).map(Self::Shard),
            UnixFsKind::Symlink if node.links.is_empty() => {
                Ok(Self::Symlink(message.data.unwrap_or_default(), metadata))
            }
            UnixFsKind::Symlink => Err(DagError::Malformed("symbolic link with links")),
            UnixFsKind::Metadata => Err(DagError::Malformed("obsolete metadata node")),
        }
    }
}

impl FileNode {
    fn raw(data: Bytes) -> Self {
        let size = data.len() as u64;
        Self {
            data,
            links: Arc::from([]),
            size,
            metadata: Metadata::default(),
        }
    }

    fn from_parts(node: &PbNode, message: UnixFs) -> Result<Self, DagError> {
        if message.block_sizes.len() != node.links.len() {
            return Err(DagError::Malformed(
                "as many links as block sizes are needed",
            ));
        }
        let data = message.data.unwrap_or_default();
        let mut size = data.len() as u64;
        let mut links = Vec::with_capacity(node.links.len());
        for (link, part) in node.links.iter().zip(message.block_sizes) {
            size = size.checked_add(part).ok_or(DagError::TooLarge {
                what: "file",
                max: u64::MAX,
            })?;
            if part > 0 {
                links.push(FileLink {
                    target: Target::of(&link.cid)?,
                    size: part,
                });
            }
        }
        match message.file_size {
            Some(claimed) if claimed != size => Err(DagError::LyingSize {
                claimed,
                found: size,
            }),
            _ => {
                let metadata = Metadata {
                    mode: message.mode,
                    mtime: message.mtime,
                };
                Ok(Self {
                    data,
                    links: links.into(),
                    size,
                    metadata,
                })
            }
        }
    }
}

impl Shard {
    fn from_parts(node: PbNode, message: &UnixFs) -> Result<Self, DagError> {
        if message.hash_type != Some(MURMUR3_X64_64) {
            return Err(DagError::Malformed(
                "shard with another hash than murmur3-x64-64",
            ));
        }
        let fanout = message.fanout.unwrap_or(0);
        if !fanout.is_power_of_two() || !(FANOUT_MIN..=FANOUT_MAX).contains(&fanout) {
            return Err(DagError::Malformed("fanout of a shard out of range"));
        }
        let bits: usize = message
            .data
            .iter()
            .flatten()
            .map(|byte| byte.count_ones() as usize)
            .sum();
        if bits != node.links.len() {
            return Err(DagError::Malformed(
                "bitfield of a shard does not fit its links",
            ));
        }
        let metadata = Metadata {
            mode: message.mode,
            mtime: message.mtime,
        };
        Ok(Self {
            links: entries(node)?,
            fanout,
            metadata,
        })
    }

    /// Digits of a bucket's number in the names of links.
    pub const fn prefix_digits(&self) -> usize {
        (self.fanout.ilog2() as usize).div_ceil(4)
    }
}

impl Target {
    /// What a CID leads to.
    ///
    /// # Errors
    /// [`DagError::Unsupported`] for hashes and codecs that we do not read.
    pub fn of(cid: &Cid) -> Result<Self, DagError> {
        let unsupported = |e: CidError| DagError::Unsupported {
            cid: cid.to_string(),
            reason: e.to_string(),
        };
        let codec = Codec::of(cid).map_err(unsupported)?;
        if let Some(bytes) = super::inline_block(cid) {
            return Ok(Self::Inline(codec, bytes));
        }
        if cid.hash().code() == 0 {
            let max = INLINE_BYTES_MAX as u64;
            return Err(DagError::TooLarge {
                what: "identity CID",
                max,
            });
        }
        Ok(Self::Block(codec, Multihash::of(cid).map_err(unsupported)?))
    }
}

fn entries(node: PbNode) -> Result<Vec<DirEntry>, DagError> {
    let entry = |link: super::PbLink| {
        let name = link
            .name
            .ok_or(DagError::Malformed("entry of a directory without a name"))?;
        Ok(DirEntry {
            name,
            cid: link.cid,
        })
    };
    node.links.into_iter().map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dag::testing::{cid, hex};

    fn decode(block: &str) -> Result<Node, DagError> {
        Node::decode(Codec::DagPb, &hex(block).into())
    }

    #[test]
    fn the_empty_dag_pb_block_is_no_unixfs() {
        assert_eq!(
            decode(""),
            Err(DagError::Malformed("dag-pb without UnixFS data"))
        );
    }

    #[test]
    fn a_symbolic_link_has_its_target() {
        let target = Bytes::from_static(b"foo");
        assert_eq!(
            decode("0a0708041203666f6f"),
            Ok(Node::Symlink(target, Metadata::default()))
        );
    }

    #[test]
    fn sizes_that_contradict_each_other_are_refused() {
        // One inline byte, but a file size of two.
        assert_eq!(
            decode("0a0708021201611802"),
            Err(DagError::LyingSize {
                claimed: 2,
                found: 1
            })
        );
        // A block size without a link.
        let reason = "as many links as block sizes are needed";
        assert_eq!(decode("0a06080218012001"), Err(DagError::Malformed(reason)));
    }

    #[test]
    fn metadata_nodes_and_wild_shards_are_refused() {
        assert!(decode("0a020803").is_err());
        for (data, reason) in [
            ("0805", "shard with another hash than murmur3-x64-64"),
            ("08052822", "fanout of a shard out of range"),
            ("080528223004", "fanout of a shard out of range"),
            ("0805282230ff01", "fanout of a shard out of range"),
            ("080528223080808001", "fanout of a shard out of range"),
            (
                "080512010128223008",
                "bitfield of a shard does not fit its links",
            ),
        ] {
            let block = format!("0a{:02x}{data}", data.len() / 2);
            assert_eq!(decode(&block), Err(DagError::Malformed(reason)), "{block}");
        }
    }

    #[test]
    fn identity_cids_are_read_up_to_128_bytes() {
        let inline = Cid::read_bytes(&hex("01550003616263")[..]).unwrap();
        let target = Target::of(&inline).unwrap();
        assert_eq!(
            target,
            Target::Inline(Codec::Raw, Bytes::from_static(b"abc"))
        );
        // 129 identity bytes do not even fit the CID type's digest; 128 do not either, 64 do.
        let long = [&hex("01550040")[..], &[0x42; 64]].concat();
        assert!(matches!(
            Target::of(&Cid::read_bytes(&long[..]).unwrap()),
            Ok(Target::Inline(_, bytes)) if bytes.len() == 64
        ));
        let v0 = cid("QmbFMke1KXqnYyBBWxB74N4c5SBnJMVAiMNRcGu6x1AwQH");
        assert!(matches!(
            Target::of(&v0),
            Ok(Target::Block(Codec::DagPb, _))
        ));
    }
}
