//! The Bitswap message and its protobuf form: 1.2.0, and 1.1.0, which is the same without presences.
//!
//! Reading is strict where Kubo is (a missing or unreadable CID, prefix or hash condemns the whole message) and silent
//! where Kubo is (identity and oversize CIDs are passed over). Block data are slices of the frame: nothing is copied.
//!
//! **Reading a message hashes its blocks.** A [`Block`] cannot be made from a peer's bytes without hashing them, so the
//! name it carries is what it is, and the machine never sees an unverified one. It also puts the cost of hashing where
//! the frame was read, in the connection's own task, not into the machine that all connections share.
//!
//! Sources: `message.proto` and `message.go` of boxo; the sending of a v0 prefix as four varints is go-cid's.

use base::{Cid, Sha256};
use bytes::{Bytes, BytesMut};

use crate::error::DecodeError;
use crate::frame::Frame;
use crate::limits::{CID_BYTES_MAX, DIGEST_BYTES_MIN};
use crate::wire::{
    Reader, field_len, number_len, put_header, put_number, put_varint, split_unsigned_varint,
    varint_len,
};

const IDENTITY: u64 = 0x00;
const SHA2_256: u64 = 0x12;
const DAG_PB: u64 = 0x70;
/// Block data from this size on travel as a piece of their own; copying less is cheaper than one more write.
const OWN_PIECE_BYTES_MIN: usize = 4 * 1024;

/// The dialect a stream has negotiated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// `/ipfs/bitswap/1.1.0`: no presences, no want-have, no pending bytes.
    V1_1,
    /// `/ipfs/bitswap/1.2.0`: what everybody speaks.
    V1_2,
}

/// What an entry of a wantlist asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WantType {
    /// "Do you have it?"
    Have,
    /// "Send it."
    Block,
}

/// One line of a wantlist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// The sender wants this.
    Want {
        /// What it wants.
        cid: Cid,
        /// Larger is served first.
        priority: i32,
        /// Whether its presence is enough.
        want_type: WantType,
        /// Whether it wants to hear that the receiver has it not.
        send_dont_have: bool,
    },
    /// The sender wants this no longer.
    Cancel(Cid),
}

impl Entry {
    /// The CID the entry is about.
    pub const fn cid(&self) -> &Cid {
        match self {
            Self::Want { cid, .. } | Self::Cancel(cid) => cid,
        }
    }
}

/// An answer without a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Presence {
    /// The sender has the block.
    Have,
    /// The sender does not.
    DontHave,
}

/// Bytes and the CID they have. A block made from a peer's bytes has been hashed.
#[derive(Clone)]
pub struct Block {
    cid: Cid,
    payload: Payload,
}

#[derive(Clone)]
enum Payload {
    /// Hashed here: its name follows from its bytes.
    Hashed(base::Block),
    /// As our own store gave it, for a peer who will hash it.
    Stored(Bytes),
}

impl Block {
    /// The block that these bytes are under a v1 CID with the given codec.
    pub fn new(codec: u64, data: Bytes) -> Self {
        Self::named(1, codec, data).expect("every codec fits a CIDv1")
    }

    /// A block that our own store answered with, on its way to a peer.
    pub(crate) const fn from_store(cid: Cid, data: Bytes) -> Self {
        Self {
            cid,
            payload: Payload::Stored(data),
        }
    }

    /// A block as it travels: four varints that say how to name it, and its bytes.
    fn from_wire(prefix: &[u8], data: Bytes) -> Result<Self, DecodeError> {
        let (version, codec) = parse_prefix(prefix)?;
        Self::named(version, codec, data)
    }

    /// Hashes bytes and names them. The one place where what peers send is hashed.
    fn named(version: u64, codec: u64, data: Bytes) -> Result<Self, DecodeError> {
        let block = base::Block::of(data);
        let cid = sha2_256_cid(version, codec, &block.hash().digest())?;
        let payload = Payload::Hashed(block);
        Ok(Self { cid, payload })
    }

    /// The CID that the bytes hash to.
    pub const fn cid(&self) -> &Cid {
        &self.cid
    }

    /// The bytes.
    pub fn data(&self) -> &Bytes {
        match &self.payload {
            Payload::Hashed(block) => block.bytes(),
            Payload::Stored(data) => data,
        }
    }

    /// The bytes with the hash they were verified against.
    pub fn into_verified(self) -> base::Block {
        match self.payload {
            Payload::Hashed(block) => block,
            Payload::Stored(data) => base::Block::of(data),
        }
    }
}

impl PartialEq for Block {
    fn eq(&self, other: &Self) -> bool {
        (&self.cid, self.data()) == (&other.cid, other.data())
    }
}

impl Eq for Block {}

impl std::fmt::Debug for Block {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Block({}, {} bytes)", self.cid, self.data().len())
    }
}

/// One message: any part may be empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// What the sender wants and no longer wants.
    pub wantlist: Vec<Entry>,
    /// Whether `wantlist` replaces everything the sender wanted before.
    pub full: bool,
    /// Blocks the receiver asked for.
    pub blocks: Vec<Block>,
    /// Answers without a block.
    pub presences: Vec<(Cid, Presence)>,
    /// Block bytes the sender still has queued for the receiver.
    pub pending_bytes: u32,
}

impl Message {
    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.wantlist.is_empty()
            && !self.full
            && self.blocks.is_empty()
            && self.presences.is_empty()
    }

    /// Sum of the sizes of its blocks.
    pub fn block_bytes(&self) -> usize {
        self.blocks.iter().map(|block| block.data().len()).sum()
    }

    /// Reads a message from a frame without its length prefix, and hashes its blocks.
    ///
    /// # Errors
    /// [`DecodeError`]; the stream it came on should be reset.
    pub fn decode(frame: &Bytes) -> Result<Self, DecodeError> {
        let mut message = Self::default();
        let mut reader = Reader::new(frame);
        while let Some((field, wire_type)) = reader.field()? {
            match field {
                1 => message.decode_wantlist(reader.bytes(wire_type)?)?,
                2 => {
                    let data = frame.slice_ref(reader.bytes(wire_type)?);
                    message.blocks.push(Block::named(0, DAG_PB, data)?);
                }
                3 => message
                    .blocks
                    .push(decode_block(frame, reader.bytes(wire_type)?)?),
                4 => message
                    .presences
                    .extend(decode_presence(reader.bytes(wire_type)?)?),
                5 => message.pending_bytes = decode_pending(reader.number(wire_type)?),
                _ => reader.skip(wire_type)?,
            }
        }
        Ok(message)
    }

    fn decode_wantlist(&mut self, bytes: &[u8]) -> Result<(), DecodeError> {
        let mut reader = Reader::new(bytes);
        while let Some((field, wire_type)) = reader.field()? {
            match field {
                1 => self
                    .wantlist
                    .extend(decode_entry(reader.bytes(wire_type)?)?),
                2 => self.full = reader.number(wire_type)? != 0,
                _ => reader.skip(wire_type)?,
            }
        }
        Ok(())
    }

    /// The message with its length prefix, ready to be written.
    ///
    /// A 1.1.0 peer would take a want-have for a want-block, so these are left out for it, as presences are.
    pub fn encode(&self, version: Version) -> Frame {
        let modern = version >= Version::V1_2;
        let mut writer = Writer::default();
        let wants = || {
            self.wantlist
                .iter()
                .filter(|entry| modern || !is_want_have(entry))
        };
        let wantlist_len = wants()
            .map(|entry| field_len(entry_len(entry, modern)))
            .sum::<usize>()
            + number_len(u64::from(self.full));
        let presences = if modern { &self.presences[..] } else { &[] };
        let pending = if modern {
            u64::from(self.pending_bytes)
        } else {
            0
        };
        let length = field_len(wantlist_len)
            + self
                .blocks
                .iter()
                .map(|block| field_len(block_len(block)))
                .sum::<usize>()
            + presences
                .iter()
                .map(|(cid, p)| field_len(presence_len(cid, *p)))
                .sum::<usize>()
            + number_len(pending);
        put_varint(&mut writer.open, length as u64);
        // boxo always writes the wantlist, even an empty one.
        put_header(&mut writer.open, 1, wantlist_len);
        wants().for_each(|entry| put_entry(&mut writer.open, entry, modern));
        put_number(&mut writer.open, 2, u64::from(self.full));
        self.blocks.iter().for_each(|block| writer.put_block(block));
        presences
            .iter()
            .for_each(|(cid, p)| put_presence(&mut writer.open, cid, *p));
        put_number(&mut writer.open, 5, pending);
        writer.finish()
    }
}

/// Collects a frame's pieces: small fields run together, large block data stay apart.
#[derive(Default)]
struct Writer {
    pieces: Vec<Bytes>,
    open: BytesMut,
}

impl Writer {
    fn put_block(&mut self, block: &Block) {
        put_header(&mut self.open, 3, block_len(block));
        let prefix = prefix_of(&block.cid);
        put_header(&mut self.open, 1, prefix_len(&prefix));
        prefix
            .iter()
            .for_each(|number| put_varint(&mut self.open, *number));
        if block.data().is_empty() {
            return;
        }
        put_header(&mut self.open, 2, block.data().len());
        if block.data().len() < OWN_PIECE_BYTES_MIN {
            self.open.extend_from_slice(block.data());
        } else {
            self.pieces.push(self.open.split().freeze());
            self.pieces.push(block.data().clone());
        }
    }

    fn finish(mut self) -> Frame {
        if !self.open.is_empty() {
            self.pieces.push(self.open.freeze());
        }
        Frame::new(self.pieces)
    }
}

const fn is_want_have(entry: &Entry) -> bool {
    matches!(
        entry,
        Entry::Want {
            want_type: WantType::Have,
            ..
        }
    )
}

/// The fields of an entry after its CID, as protobuf numbers: priority, cancel, wantType, sendDontHave.
fn entry_numbers(entry: &Entry, modern: bool) -> [u64; 4] {
    match entry {
        Entry::Cancel(_) => [0, 1, 0, 0],
        Entry::Want {
            priority,
            want_type,
            send_dont_have,
            ..
        } => [
            i64::from(*priority).cast_unsigned(),
            0,
            u64::from(modern && *want_type == WantType::Have),
            u64::from(modern && *send_dont_have),
        ],
    }
}

fn entry_len(entry: &Entry, modern: bool) -> usize {
    let numbers = entry_numbers(entry, modern).map(number_len);
    field_len(entry.cid().encoded_len()) + numbers.iter().sum::<usize>()
}

fn put_entry(out: &mut BytesMut, entry: &Entry, modern: bool) {
    put_header(out, 1, entry_len(entry, modern));
    put_cid(out, entry.cid());
    for (field, number) in (2..).zip(entry_numbers(entry, modern)) {
        put_number(out, field, number);
    }
}

fn presence_len(cid: &Cid, presence: Presence) -> usize {
    field_len(cid.encoded_len()) + number_len(presence as u64)
}

fn put_presence(out: &mut BytesMut, cid: &Cid, presence: Presence) {
    put_header(out, 4, presence_len(cid, presence));
    put_cid(out, cid);
    put_number(out, 2, presence as u64);
}

/// Writes a CID as field 1, where every message has it.
fn put_cid(out: &mut BytesMut, cid: &Cid) {
    put_header(out, 1, cid.encoded_len());
    out.extend_from_slice(&cid.to_bytes());
}

fn block_len(block: &Block) -> usize {
    let data_len = if block.data().is_empty() {
        0
    } else {
        field_len(block.data().len())
    };
    field_len(prefix_len(&prefix_of(&block.cid))) + data_len
}

/// Version, codec, hash function and digest length: four varints, for a CIDv0 too.
fn prefix_of(cid: &Cid) -> [u64; 4] {
    [
        cid.version().into(),
        cid.codec(),
        cid.hash().code(),
        u64::from(cid.hash().size()),
    ]
}

fn prefix_len(prefix: &[u64; 4]) -> usize {
    prefix.iter().map(|number| varint_len(*number)).sum()
}

fn decode_entry(bytes: &[u8]) -> Result<Option<Entry>, DecodeError> {
    let (mut cid, mut priority, mut cancel) = (&[][..], 0, false);
    let (mut want_type, mut send_dont_have) = (WantType::Block, false);
    let mut reader = Reader::new(bytes);
    while let Some((field, wire_type)) = reader.field()? {
        match field {
            1 => cid = reader.bytes(wire_type)?,
            2 => priority = decode_int32(reader.number(wire_type)?),
            3 => cancel = reader.number(wire_type)? != 0,
            4 if reader.number(wire_type)? == 1 => want_type = WantType::Have,
            4 => want_type = WantType::Block,
            5 => send_dont_have = reader.number(wire_type)? != 0,
            _ => reader.skip(wire_type)?,
        }
    }
    Ok(parse_cid(cid)?.map(|cid| match cancel {
        true => Entry::Cancel(cid),
        false => Entry::Want {
            cid,
            priority,
            want_type,
            send_dont_have,
        },
    }))
}

fn decode_presence(bytes: &[u8]) -> Result<Option<(Cid, Presence)>, DecodeError> {
    let (mut cid, mut presence) = (&[][..], Presence::Have);
    let mut reader = Reader::new(bytes);
    while let Some((field, wire_type)) = reader.field()? {
        match field {
            1 => cid = reader.bytes(wire_type)?,
            2 if reader.number(wire_type)? == 1 => presence = Presence::DontHave,
            2 => presence = Presence::Have,
            _ => reader.skip(wire_type)?,
        }
    }
    Ok(parse_cid(cid)?.map(|cid| (cid, presence)))
}

fn decode_block(frame: &Bytes, bytes: &[u8]) -> Result<Block, DecodeError> {
    let (mut prefix, mut data) = (&[][..], &[][..]);
    let mut reader = Reader::new(bytes);
    while let Some((field, wire_type)) = reader.field()? {
        match field {
            1 => prefix = reader.bytes(wire_type)?,
            2 => data = reader.bytes(wire_type)?,
            _ => reader.skip(wire_type)?,
        }
    }
    Block::from_wire(
        prefix,
        if data.is_empty() {
            Bytes::new()
        } else {
            frame.slice_ref(data)
        },
    )
}

/// An int32 as protobuf sends it: sign-extended to 64 bits, the upper half ignored.
const fn decode_int32(number: u64) -> i32 {
    number as u32 as i32
}

/// Pending bytes are an int32 on the wire; a negative count means nothing.
fn decode_pending(number: u64) -> u32 {
    decode_int32(number).max(0).cast_unsigned()
}

/// Reads a binary CID. `None`: well-formed, but one that no block travels under (identity) or beyond the limits.
fn parse_cid(bytes: &[u8]) -> Result<Option<Cid>, DecodeError> {
    if bytes.is_empty() {
        return Err(DecodeError::CidMissing);
    }
    if bytes.len() > CID_BYTES_MAX {
        return Ok(None);
    }
    if bytes.len() != 34 || !bytes.starts_with(&[0x12, 0x20]) {
        let (hash, digest) = split_cid_v1(bytes).ok_or(DecodeError::CidInvalid)?;
        if hash == IDENTITY || !(DIGEST_BYTES_MIN..=64).contains(&digest.len()) {
            return Ok(None);
        }
    }
    Cid::try_from(bytes)
        .map(Some)
        .map_err(|_| DecodeError::CidInvalid)
}

/// Hash function and digest of a well-formed CIDv1.
fn split_cid_v1(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (version, rest) = split_unsigned_varint(bytes)?;
    let (_codec, rest) = split_unsigned_varint(rest)?;
    let (hash, rest) = split_unsigned_varint(rest)?;
    let (length, digest) = split_unsigned_varint(rest)?;
    (version == 1 && length == digest.len() as u64).then_some((hash, digest))
}

/// Version and codec of a block's CID prefix.
fn parse_prefix(prefix: &[u8]) -> Result<(u64, u64), DecodeError> {
    // Some send a v0 prefix as the two bytes that a CIDv0 begins with; it can mean nothing else.
    if prefix == [0x12, 0x20] {
        return Ok((0, DAG_PB));
    }
    let numbers = || {
        let (version, rest) = split_unsigned_varint(prefix)?;
        let (codec, rest) = split_unsigned_varint(rest)?;
        let (hash, rest) = split_unsigned_varint(rest)?;
        let (length, rest) = split_unsigned_varint(rest)?;
        rest.is_empty().then_some([version, codec, hash, length])
    };
    let [version, codec, hash, length] = numbers().ok_or(DecodeError::PrefixInvalid)?;
    if hash != SHA2_256 || length != Sha256::LEN as u64 {
        return Err(DecodeError::HashUnsupported(hash));
    }
    match (version, codec) {
        (0, DAG_PB) | (1, _) => Ok((version, codec)),
        _ => Err(DecodeError::PrefixInvalid),
    }
}

/// The CID of a digest under a given version and codec.
fn sha2_256_cid(version: u64, codec: u64, digest: &Sha256) -> Result<Cid, DecodeError> {
    let mut bytes = BytesMut::with_capacity(48);
    if version == 1 {
        put_varint(&mut bytes, 1);
        put_varint(&mut bytes, codec);
    }
    bytes.extend_from_slice(&[SHA2_256 as u8, Sha256::LEN as u8]);
    bytes.extend_from_slice(digest.as_bytes());
    Cid::try_from(&bytes[..]).map_err(|_| DecodeError::PrefixInvalid)
}

#[cfg(test)]
mod tests;
