//! The content-addressed store on disk, and the contracts by which others fill it.
//!
//! Whole files (sources, package outputs, seeds) lie as plain files and are served in place; one SQLite index maps
//! the multihash of each block to its place in a file, so nothing is stored twice. Several processes use one store
//! at the same time, and a process may be killed at any moment: data is made durable before the index names it.
//!
//! * [`Store`], [`Ingest`], [`Partial`], [`Blob`]: the store itself, its records, pins and the queue of keys to announce.
//! * [`Block`], [`BlockStore`]: units of exchange; a `Block` cannot exist unverified.
//! * [`dag`]: dag-pb and UnixFS, without IO. [`archive`]: canonical packing and hostile-safe unpacking.
//! * [`gc`]: what goes when space is wanted, and why the rest stays.
//! * [`car`]: a DAG in one file, read and written.
//! * [`delta`]: outputs as what changed since an earlier one.
//! * [`substitute`]: who can get outputs and sources from elsewhere. The network implements it, the builder uses it.

pub mod archive;
mod beside;
mod blob;
mod block;
pub mod car;
mod crash;
pub mod dag;
pub mod delta;
mod digest;
mod error;
mod forget;
pub mod gc;
mod heats;
mod hold;
mod index;
mod ingest;
mod layout;
mod loose;
mod many;
mod names;
mod partial;
mod pins;
mod provide;
mod race;
mod records;
mod reference;
mod room;
mod schema;
mod store;
pub mod substitute;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
#[cfg(test)]
mod tests;
mod usage;
mod verify;

pub use base::{BLOCK_BYTES_MAX, Block, BlockMismatch};

pub use crate::blob::{Blob, BlobFile, BlobState};
pub use crate::block::{BlockStore, MemoryBlockStore};
pub use crate::error::StoreError;
pub use crate::ingest::{Expected, Ingest};
pub use crate::names::NameRecord;
pub use crate::partial::{Partial, Unfinished};
pub use crate::pins::{Pin, PinClass, PinKind};
pub use crate::provide::{
    Provide, ProvideCounts, ProvideKind, ProvideOrigin, ProvideScope, Provided,
};
pub use crate::room::{Limits, Usage};
pub use crate::store::Store;
pub use crate::verify::DamagedBlock;
