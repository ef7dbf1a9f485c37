//! The few protobuf and multiformats primitives that messages are made of, read without copying and written in one pass.
//!
//! A derived protobuf type would first build every element of a repeated field and let us look at it afterwards: two
//! bytes on the wire become fifty in memory, so one 4 MiB frame could cost 100 MiB. This reader hands out one field at a
//! time, and the first malformed element ends the message.

use bytes::{BufMut, BytesMut};

use crate::error::DecodeError;

/// Longest protobuf varint in bytes: ten times seven bits cover 64.
const VARINT_BYTES_MAX: usize = 10;
/// Longest multiformats varint in bytes (unsigned-varint specification).
const UNSIGNED_VARINT_BYTES_MAX: usize = 9;

/// The protobuf wire types in use; groups ended with proto2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WireType {
    Varint,
    Fixed64,
    Bytes,
    Fixed32,
}

/// Walks over the fields of one protobuf message.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// The next field's number and wire type, or `None` at the end of the message.
    pub(crate) fn field(&mut self) -> Result<Option<(u64, WireType)>, DecodeError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let key = self.varint()?;
        let wire_type = match key & 7 {
            0 => WireType::Varint,
            1 => WireType::Fixed64,
            2 => WireType::Bytes,
            5 => WireType::Fixed32,
            _ => return Err(DecodeError::Protobuf("group or unknown wire type")),
        };
        Ok(Some((key >> 3, wire_type)))
    }

    /// A varint value; protobuf does not ask for the shortest form.
    pub(crate) fn varint(&mut self) -> Result<u64, DecodeError> {
        let (value, length) = leb128(self.rest, VARINT_BYTES_MAX)
            .ok_or(DecodeError::Protobuf("truncated or overlong varint"))?;
        self.rest = &self.rest[length..];
        Ok(value)
    }

    /// A varint field's value, if that is its wire type.
    pub(crate) fn number(&mut self, wire_type: WireType) -> Result<u64, DecodeError> {
        if wire_type != WireType::Varint {
            return Err(DecodeError::Protobuf("a number in another wire type"));
        }
        self.varint()
    }

    /// A length-delimited field's bytes, if that is its wire type.
    pub(crate) fn bytes(&mut self, wire_type: WireType) -> Result<&'a [u8], DecodeError> {
        if wire_type != WireType::Bytes {
            return Err(DecodeError::Protobuf("bytes in another wire type"));
        }
        let length = self.varint()?;
        self.take(length)
    }

    /// Passes over a field nobody knows, as protobuf asks.
    pub(crate) fn skip(&mut self, wire_type: WireType) -> Result<(), DecodeError> {
        match wire_type {
            WireType::Varint => self.varint().map(drop),
            WireType::Fixed64 => self.take(8).map(drop),
            WireType::Bytes => self.bytes(wire_type).map(drop),
            WireType::Fixed32 => self.take(4).map(drop),
        }
    }

    fn take(&mut self, length: u64) -> Result<&'a [u8], DecodeError> {
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let (taken, rest) = self
            .rest
            .split_at_checked(length)
            .ok_or(DecodeError::Protobuf("truncated field"))?;
        self.rest = rest;
        Ok(taken)
    }
}

/// Splits a multiformats varint (at most nine bytes, shortest form) off the front.
pub(crate) fn split_unsigned_varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (value, length) = leb128(bytes, UNSIGNED_VARINT_BYTES_MAX)?;
    (length == varint_len(value)).then(|| (value, &bytes[length..]))
}

/// Value and length of the varint at the front, if it ends within `bytes_max` bytes and 64 bits.
fn leb128(bytes: &[u8], bytes_max: usize) -> Option<(u64, usize)> {
    let mut value = 0_u64;
    for (position, byte) in bytes.iter().take(bytes_max).enumerate() {
        let bits = u64::from(byte & 0x7f);
        if position == 9 && bits > 1 {
            return None;
        }
        value |= bits << (7 * position);
        if byte & 0x80 == 0 {
            return Some((value, position + 1));
        }
    }
    None
}

/// Length in bytes of the shortest varint of `value`.
pub(crate) const fn varint_len(value: u64) -> usize {
    let bits = 64 - (value | 1).leading_zeros() as usize;
    bits.div_ceil(7)
}

/// Appends the shortest varint of `value`.
pub(crate) fn put_varint(out: &mut BytesMut, mut value: u64) {
    while value >= 0x80 {
        out.put_u8((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

/// Appends a varint field unless it has its default value, which protobuf leaves out.
pub(crate) fn put_number(out: &mut BytesMut, field: u64, value: u64) {
    if value != 0 {
        put_varint(out, field << 3);
        put_varint(out, value);
    }
}

/// Encoded length of [`put_number`]'s output for a field number below 16.
pub(crate) const fn number_len(value: u64) -> usize {
    if value == 0 { 0 } else { 1 + varint_len(value) }
}

/// Appends the key and length of a length-delimited field; the caller appends the bytes.
pub(crate) fn put_header(out: &mut BytesMut, field: u64, length: usize) {
    put_varint(out, field << 3 | 2);
    put_varint(out, length as u64);
}

/// Encoded length of a length-delimited field with a number below 16.
pub(crate) const fn field_len(length: usize) -> usize {
    1 + varint_len(length as u64) + length
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_overlong_multiformats_varint_is_refused_and_an_overlong_protobuf_one_is_not() {
        assert_eq!(split_unsigned_varint(&[0x55, 7]), Some((0x55, &[7][..])));
        assert_eq!(split_unsigned_varint(&[0xd5, 0x00]), None);
        assert_eq!(split_unsigned_varint(&[0x80]), None);
        assert_eq!(Reader::new(&[0xd5, 0x00]).varint(), Ok(0x55));
    }

    #[test]
    fn a_varint_beyond_64_bits_is_refused() {
        let mut bytes = [0xff; 10];
        bytes[9] = 0x02;
        assert!(Reader::new(&bytes).varint().is_err());
        bytes[9] = 0x01;
        assert_eq!(Reader::new(&bytes).varint(), Ok(u64::MAX));
        assert!(Reader::new(&[0xff; 11]).varint().is_err());
    }

    #[test]
    fn a_field_that_announces_more_than_there_is_is_refused() {
        let mut reader = Reader::new(&[0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f, 1, 2]);
        let (field, wire_type) = reader.field().unwrap().unwrap();
        assert_eq!(field, 1);
        assert!(reader.bytes(wire_type).is_err());
    }

    proptest! {
        #[test]
        fn varints_survive_a_round_trip_at_their_announced_length(value: u64) {
            let mut out = BytesMut::new();
            put_varint(&mut out, value);
            prop_assert_eq!(out.len(), varint_len(value));
            prop_assert_eq!(Reader::new(&out).varint(), Ok(value));
        }
    }
}
