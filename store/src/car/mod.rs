//! CAR: a DAG's blocks in one file, to carry where no peer reaches (IPLD specifications "CARv1" and "CARv2").
//!
//! * [`CarReader`]: reads both versions as a stream, one verified block at a time.
//! * [`CarWriter`]: writes version 1, each block once.
//! * [`crate::Store::import_car`], [`crate::Store::export_car`]: what a store does with them.
//! * [`Outline`]: a file's nodes without its chunks, by which its plain bytes are checked.
//! * [`Selection`], [`crate::Store::export_selection`]: a part of a DAG, as gateways give it.
//!
//! An archive comes from anybody, so nothing in it is believed: every length is bounded before memory is taken for it, and a
//! block that does not have the hash of its CID ends the reading. The index that a CARv2 may carry is not read, for it
//! could only contradict the blocks.

mod outline;
mod read;
mod select;
mod transfer;
mod write;

use std::io;

use crate::dag::DagError;
use crate::{BLOCK_BYTES_MAX, BlockMismatch, StoreError};

pub use outline::{OUTLINE_BYTES_MAX, Outline};
pub use read::{CarReader, Section};
pub use select::{ByteRange, Located, Scope, Selection};
pub use transfer::CarImport;
pub use write::CarWriter;

/// Largest header in bytes: about 25 000 roots. Real archives have one root, sixty bytes.
pub const CAR_HEADER_BYTES_MAX: usize = 1 << 20;
/// Longest binary CID in bytes: the longest digest that the CID type holds (64), and four varints.
const CID_BYTES_MAX: usize = 64 + 4 * 10;
/// Largest section in bytes: a CID and a block.
pub const CAR_SECTION_BYTES_MAX: usize = CID_BYTES_MAX + BLOCK_BYTES_MAX;

/// Why a CAR could not be read, written, imported or exported.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CarError {
    /// The file ends where more was announced.
    #[error("archive ends at byte {offset}, inside {inside}")]
    Truncated {
        /// Where it ends.
        offset: u64,
        /// What was being read.
        inside: &'static str,
    },
    /// Not a CAR, or not in the form the specifications demand.
    #[error("archive is malformed at byte {offset}: {reason}")]
    Malformed {
        /// Where.
        offset: u64,
        /// What is wrong.
        reason: String,
    },
    /// Something in it is larger, or more numerous, than we take.
    #[error("archive has {what} of {size} at byte {offset}, the limit is {max}")]
    TooLarge {
        /// Where.
        offset: u64,
        /// Which object.
        what: &'static str,
        /// Its size in bytes, or their number.
        size: u64,
        /// The limit.
        max: u64,
    },
    /// A block is not what its CID says.
    #[error("archive has other bytes than `{cid}` at byte {offset}")]
    Mismatch {
        /// Where the section begins.
        offset: u64,
        /// The CID it stands under.
        cid: String,
        /// Both hashes.
        #[source]
        source: BlockMismatch,
    },
    /// A block of a hash that we cannot verify, and so do not take.
    #[error("archive has `{cid}` at byte {offset}: {reason}")]
    Unsupported {
        /// Where the section begins.
        offset: u64,
        /// The CID.
        cid: String,
        /// What is unusual about it.
        reason: String,
    },
    /// The file could not be read.
    #[error("cannot read the archive")]
    Read(#[source] io::Error),
    /// The file could not be written.
    #[error("cannot write the archive")]
    Write(#[source] io::Error),
    /// The DAG to export is not all here.
    #[error("block `{cid}` of the DAG below `{root}` is not in the store")]
    Missing {
        /// The block.
        cid: String,
        /// The root it was needed for.
        root: String,
    },
    /// The links of a block could not be followed.
    #[error("cannot follow the links of `{cid}`")]
    Dag {
        /// The block.
        cid: String,
        /// What is wrong with it.
        #[source]
        source: DagError,
    },
    /// Our own store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

#[cfg(test)]
mod tests;
