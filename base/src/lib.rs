//! The words every other crate shares: digests, package hashes, names, content identifiers, blocks, signed realisations, rec files.
//!
//! This crate sits at the bottom of the hierarchy: it depends on nothing of ours, touches no file, socket or clock,
//! and holds no policy. A type belongs here only when two crates that may not know each other must both say it.
//! `tests/tidy.rs` caps its size so that it cannot become a drawer for odds and ends.

mod block;
mod cid;
mod digest;
mod key;
mod name;
mod pkghash;
mod realisation;
pub mod rec;

pub use crate::block::{BLOCK_BYTES_MAX, Block, BlockMismatch};
pub use crate::cid::{CidError, Codec, Multihash, block_cid, parse_cid, parse_root};
pub use crate::digest::{Hasher, ParseDigestError, Sha256};
pub use crate::key::{KeyError, PublicKey, SecretKey, Signature};
pub use crate::name::{NAME_BYTES_MAX, NameError, PackageName};
pub use crate::pkghash::PkgHash;
pub use crate::realisation::{
    Realisation, RealisationError, SIGNED_REALISATION_BYTES_MAX, SignedRealisation,
};
pub use ::cid::Cid;
