//! dag-pb and UnixFS.

mod walk;

use base::Cid;
use bytes::Bytes;

pub use walk::{Leaf, Walk, WalkLimits};

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
    /// Not dag-pb, or not in its strict form.
    #[error("malformed dag-pb node: {0}")]
    Malformed(&'static str),
}
