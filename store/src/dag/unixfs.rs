//! The UnixFS `Data` message, which says what a dag-pb node is (UnixFS specification; proto2).
//!
//! Unknown fields are skipped, for the format has grown before (mode and mtime came with version 1.5).

use bytes::Bytes;

use super::DagError;
use super::wire::{Reader, Value, put_bytes_field, put_fixed32_field, put_varint_field};

const TYPE: u64 = 1;
const DATA: u64 = 2;
const FILE_SIZE: u64 = 3;
const BLOCK_SIZES: u64 = 4;
const HASH_TYPE: u64 = 5;
const FANOUT: u64 = 6;
const MODE: u64 = 7;
const MTIME: u64 = 8;
const MTIME_SECONDS: u64 = 1;
const MTIME_NANOSECONDS: u64 = 2;

/// Bits of `mode` that mean something.
const MODE_BITS: u64 = 0o7777;
/// Largest fraction of a second, in nanoseconds.
const NANOSECONDS_MAX: u32 = 999_999_999;

/// What a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnixFsKind {
    /// A leaf of a file, as old writers and the trickle layout make it.
    Raw,
    /// A directory in one block.
    Directory,
    /// A file or a part of it.
    File,
    /// Obsolete; nothing reads it.
    Metadata,
    /// A symbolic link.
    Symlink,
    /// A part of a directory spread over many blocks.
    HamtShard,
}

/// Time of last modification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mtime {
    /// Seconds since 1970, possibly before.
    pub seconds: i64,
    /// Fraction of a second, below 10^9.
    pub nanoseconds: u32,
}

/// The message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnixFs {
    /// What the node is.
    pub kind: UnixFsKind,
    /// Bytes of a file, target of a symbolic link, or bitfield of a shard.
    pub data: Option<Bytes>,
    /// Length of the file below this node in bytes.
    pub file_size: Option<u64>,
    /// Length of the part of the file below each link in bytes.
    pub block_sizes: Vec<u64>,
    /// Hash function of a shard (a multicodec).
    pub hash_type: Option<u64>,
    /// Buckets of a shard.
    pub fanout: Option<u64>,
    /// Permission bits.
    pub mode: Option<u32>,
    /// Time of last modification.
    pub mtime: Option<Mtime>,
}

impl UnixFs {
    /// A message with its kind alone.
    pub const fn new(kind: UnixFsKind) -> Self {
        Self {
            kind,
            data: None,
            file_size: None,
            block_sizes: Vec::new(),
            hash_type: None,
            fanout: None,
            mode: None,
            mtime: None,
        }
    }

    /// Decodes the data of a dag-pb node.
    ///
    /// # Errors
    /// [`DagError::Malformed`] when it is no UnixFS message.
    pub fn decode(bytes: &Bytes) -> Result<Self, DagError> {
        let mut kind = None;
        let mut message = Self::new(UnixFsKind::Raw);
        let mut reader = Reader::new(bytes.clone());
        while let Some((field, value)) = reader.field()? {
            match field {
                TYPE => set(&mut kind, decode_kind(value.varint()?)?)?,
                DATA => set(&mut message.data, value.bytes()?)?,
                FILE_SIZE => set(&mut message.file_size, value.varint()?)?,
                BLOCK_SIZES => decode_block_sizes(value, &mut message.block_sizes)?,
                HASH_TYPE => set(&mut message.hash_type, value.varint()?)?,
                FANOUT => set(&mut message.fanout, value.varint()?)?,
                MODE => {
                    let mode = u32::try_from(value.varint()? & MODE_BITS).unwrap_or(0);
                    set(&mut message.mode, mode)?;
                }
                MTIME => set(&mut message.mtime, decode_mtime(value.bytes()?)?)?,
                _ => {}
            }
        }
        message.kind = kind.ok_or(DagError::Malformed("UnixFS message without a type"))?;
        Ok(message)
    }

    /// The message's bytes, in the field order and with the omissions of the reference writers.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_varint_field(&mut out, TYPE, encode_kind(self.kind));
        if let Some(data) = self.data.as_ref().filter(|data| !data.is_empty()) {
            put_bytes_field(&mut out, DATA, data);
        }
        if let Some(size) = self.file_size {
            put_varint_field(&mut out, FILE_SIZE, size);
        }
        for size in &self.block_sizes {
            put_varint_field(&mut out, BLOCK_SIZES, *size);
        }
        if let Some(hash_type) = self.hash_type {
            put_varint_field(&mut out, HASH_TYPE, hash_type);
        }
        if let Some(fanout) = self.fanout {
            put_varint_field(&mut out, FANOUT, fanout);
        }
        if let Some(mode) = self.mode {
            put_varint_field(&mut out, MODE, u64::from(mode));
        }
        if let Some(mtime) = self.mtime {
            put_bytes_field(&mut out, MTIME, &encode_mtime(mtime));
        }
        out
    }
}

fn set<T>(slot: &mut Option<T>, value: T) -> Result<(), DagError> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(DagError::Malformed("field repeated in a UnixFS message")),
    }
}

const fn decode_kind(value: u64) -> Result<UnixFsKind, DagError> {
    match value {
        0 => Ok(UnixFsKind::Raw),
        1 => Ok(UnixFsKind::Directory),
        2 => Ok(UnixFsKind::File),
        3 => Ok(UnixFsKind::Metadata),
        4 => Ok(UnixFsKind::Symlink),
        5 => Ok(UnixFsKind::HamtShard),
        _ => Err(DagError::Malformed("unknown UnixFS type")),
    }
}

const fn encode_kind(kind: UnixFsKind) -> u64 {
    match kind {
        UnixFsKind::Raw => 0,
        UnixFsKind::Directory => 1,
        UnixFsKind::File => 2,
        UnixFsKind::Metadata => 3,
        UnixFsKind::Symlink => 4,
        UnixFsKind::HamtShard => 5,
    }
}

/// Writers put one varint per field; protobuf lets them pack all into one.
fn decode_block_sizes(value: Value, sizes: &mut Vec<u64>) -> Result<(), DagError> {
    match value {
        Value::Bytes(packed) => {
            let mut reader = Reader::new(packed);
            while !reader.is_empty() {
                sizes.push(reader.varint()?);
            }
        }
        single => sizes.push(single.varint()?),
    }
    Ok(())
}

fn decode_mtime(bytes: Bytes) -> Result<Mtime, DagError> {
    let (mut seconds, mut nanoseconds) = (None, None);
    let mut reader = Reader::new(bytes);
    while let Some((field, value)) = reader.field()? {
        match field {
            MTIME_SECONDS => set(&mut seconds, value.varint()?.cast_signed())?,
            MTIME_NANOSECONDS => set(&mut nanoseconds, value.fixed32()?)?,
            _ => {}
        }
    }
    let seconds = seconds.ok_or(DagError::Malformed("time without seconds"))?;
    let nanoseconds = nanoseconds.unwrap_or(0);
    if nanoseconds > NANOSECONDS_MAX {
        return Err(DagError::Malformed("fraction of a second out of range"));
    }
    Ok(Mtime {
        seconds,
        nanoseconds,
    })
}

fn encode_mtime(mtime: Mtime) -> Vec<u8> {
    let mut out = Vec::new();
    put_varint_field(&mut out, MTIME_SECONDS, mtime.seconds.cast_unsigned());
    if mtime.nanoseconds > 0 {
        put_fixed32_field(&mut out, MTIME_NANOSECONDS, mtime.nanoseconds);
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::dag::testing::hex;

    fn decode(text: &str) -> Result<UnixFs, DagError> {
        UnixFs::decode(&hex(text).into())
    }

    #[test]
    fn mode_and_time_are_read_and_written() {
        let bytes = "0802120c68656c6c6f20776f726c640a180c38a403420b0880e2cfaa06157b000000";
        let message = decode(bytes).unwrap();
        assert_eq!(message.mode, Some(0o644));
        assert_eq!(
            message.mtime,
            Some(Mtime {
                seconds: 1_700_000_000,
                nanoseconds: 123
            })
        );
        assert_eq!(message.encode(), hex(bytes));
        let before_1970 = UnixFs {
            mtime: Some(Mtime {
                seconds: -1,
                nanoseconds: 0,
            }),
            ..UnixFs::new(UnixFsKind::Directory)
        };
        assert_eq!(
            UnixFs::decode(&before_1970.encode().into()),
            Ok(before_1970)
        );
    }

    #[test]
    fn packed_block_sizes_and_unknown_fields_are_tolerated() {
        let message = decode("080222030102034a0161").unwrap();
        assert_eq!(message.block_sizes, [1, 2, 3]);
    }

    #[test]
    fn nonsense_is_refused() {
        for (bytes, reason) in [
            ("", "UnixFS message without a type"),
            ("0806", "unknown UnixFS type"),
            ("08020802", "field repeated in a UnixFS message"),
            ("08024200", "time without seconds"),
            (
                "08024207080115ffffffff",
                "fraction of a second out of range",
            ),
        ] {
            assert_eq!(decode(bytes), Err(DagError::Malformed(reason)), "{bytes}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let _ = UnixFs::decode(&bytes.into());
        }
    }
}
