//! dag-pb and UnixFS, without IO: what blocks mean, and how a file becomes blocks and bytes again.
//!
//! * [`PbNode`], [`UnixFs`]: the two encodings, one inside the other.
//! * [`Node`]: a block read as a file, directory, shard or symbolic link, with all cross-checks done.
//! * [`Profile`], [`TreeBuilder`], [`build_file`]: writing files; [`build_directory`] and its neighbours: all else.
//! * [`Walk`]: reading a file in order while its blocks arrive from a network.
//! * [`chunks`]: what the plain bytes of a file are checked against.
//! * [`lookup`], [`list`]: directories of both kinds.
//!
//! Where the UnixFS text and all published CIDs disagree, the CIDs win; comments name the places.

mod chunks;
mod directory;
mod layout;
mod murmur3;
mod node;
mod pb;
#[cfg(test)]
pub(crate) mod testing;
mod unixfs;
#[cfg(test)]
mod vectors;
mod walk;
mod wire;
mod write;

use base::Cid;
use bytes::Bytes;

pub use chunks::{Chunk, chunks, inner_nodes};
pub use directory::{LISTING_ENTRIES_MAX, is_entry_name, list, lookup};
pub use layout::{LeafForm, Profile, Subtree, TreeBuilder, build_file};
pub use node::{DirEntry, Directory, FileLink, FileNode, Metadata, Node, Shard, Target};
pub use pb::{PbLink, PbNode};
pub use unixfs::{Mtime, UnixFs, UnixFsKind};
pub use walk::{Leaf, Taken, Walk, WalkLimits};
pub(crate) use wire::put_varint;
pub use write::{build_directory, build_symlink, with_mode};

/// Largest identity CID we decode, in bytes (the limit of Kubo).
pub const INLINE_BYTES_MAX: usize = 128;

/// The bytes an identity CID carries inside; `None` for every other CID and above [`INLINE_BYTES_MAX`].
pub fn inline_block(cid: &Cid) -> Option<Bytes> {
    let digest = cid.hash().digest();
    (cid.hash().code() == 0 && digest.len() <= INLINE_BYTES_MAX)
        .then(|| Bytes::copy_from_slice(digest))
}

/// Why a DAG is no UnixFS that we read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DagError {
    /// Not dag-pb or UnixFS, or not in their strict form.
    #[error("malformed node: {0}")]
    Malformed(&'static str),
    /// A CID of a hash or codec that we do not read.
    #[error("cannot read `{cid}`: {reason}")]
    Unsupported {
        /// The CID.
        cid: String,
        /// What is unusual about it.
        reason: String,
    },
    /// Something else than was asked for.
    #[error("`{cid}` is a {found}, not a {wanted}")]
    WrongKind {
        /// The CID.
        cid: String,
        /// What it is.
        found: &'static str,
        /// What was asked for.
        wanted: &'static str,
    },
    /// A node claims another size than what lies below it.
    #[error("node claims {claimed} bytes where there are {found}")]
    LyingSize {
        /// Size claimed by the parent, or by the node itself.
        claimed: u64,
        /// Size found.
        found: u64,
    },
    /// Larger, deeper or wider than we follow.
    #[error("{what} is over the limit of {max}")]
    TooLarge {
        /// Which measure.
        what: &'static str,
        /// Its limit.
        max: u64,
    },
}
