//! Why bytes from a peer are no Bitswap message.
//!
//! Each of these ends the stream it came on and nothing else: the connection and the peer's other streams go on, as Kubo
//! has it.

/// Why a frame or a message was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The announced length exceeds [`MESSAGE_BYTES_MAX`](crate::limits::MESSAGE_BYTES_MAX); nothing was buffered.
    #[error("a message of {0} bytes is refused, the limit is 4 MiB")]
    TooLong(u64),
    /// The length prefix is no varint in its shortest form.
    #[error("the length prefix is not a shortest-form varint")]
    LengthPrefix,
    /// The stream ended inside a message.
    #[error("the stream ended after {have} of {announced} bytes")]
    Truncated {
        /// Bytes that arrived.
        have: usize,
        /// Bytes the length prefix announced.
        announced: usize,
    },
    /// Not protobuf, or a known field in a wrong form.
    #[error("not a protobuf message: {0}")]
    Protobuf(&'static str),
    /// A want or presence without a CID.
    #[error("an entry has no CID")]
    CidMissing,
    /// A want or presence whose CID cannot be read.
    #[error("an entry has an unreadable CID")]
    CidInvalid,
    /// A block whose CID prefix cannot be read.
    #[error("a block has an unreadable CID prefix")]
    PrefixInvalid,
    /// A block under a hash other than sha2-256, which we can never have asked for.
    #[error("a block under hash function 0x{0:x}, which is never asked for")]
    HashUnsupported(u64),
}
