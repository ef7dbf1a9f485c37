//! What this crate's tests share.

use std::time::Instant;

use bytes::Bytes;

use crate::message::Block;

/// Some moment to count virtual time from.
#[allow(clippy::disallowed_methods)] // There is no other way to obtain an `Instant`, and only differences matter.
pub(crate) fn start() -> Instant {
    Instant::now()
}

/// The `n`th of a series of different blocks of `size` bytes.
pub(crate) fn block(n: u64, size: usize) -> Block {
    let mut data = n.to_le_bytes().to_vec();
    data.resize(size.max(8), n as u8);
    Block::new(0x55, Bytes::from(data))
}

/// The CID of the `n`th small block.
#[cfg(test)]
pub(crate) fn cid(n: u64) -> base::Cid {
    *block(n, 8).cid()
}
