//! The little of protobuf that dag-pb and UnixFS use, read strictly and without copies.
//!
//! A generated codec would accept what the dag-pb specification forbids (unknown fields, any order), so it is read by hand.

use bytes::Bytes;

use super::DagError;

/// Wire type of a varint.
const VARINT: u64 = 0;
/// Wire type of eight fixed bytes.
const FIXED64: u64 = 1;
/// Wire type of length-delimited bytes.
const BYTES: u64 = 2;
/// Wire type of four fixed bytes.
const FIXED32: u64 = 5;

/// The value of one field.
#[derive(Debug)]
pub(super) enum Value {
    Varint(u64),
    Fixed32(u32),
    Fixed64,
    Bytes(Bytes),
}

impl Value {
    pub(super) fn varint(self) -> Result<u64, DagError> {
        match self {
            Self::Varint(value) => Ok(value),
            _ => Err(DagError::Malformed(
                "wrong wire type, a varint was expected",
            )),
        }
    }

    pub(super) fn bytes(self) -> Result<Bytes, DagError> {
        match self {
            Self::Bytes(value) => Ok(value),
            _ => Err(DagError::Malformed("wrong wire type, bytes were expected")),
        }
    }

    pub(super) fn fixed32(self) -> Result<u32, DagError> {
        match self {
            Self::Fixed32(value) => Ok(value),
            _ => Err(DagError::Malformed(
                "wrong wire type, four fixed bytes were expected",
            )),
        }
    }
}

/// Reads fields one after the other.
#[derive(Debug)]
pub(super) struct Reader {
    bytes: Bytes,
}

impl Reader {
    pub(super) const fn new(bytes: Bytes) -> Self {
        Self { bytes }
    }

    /// The next field number and its value; `None` at the end.
    pub(super) fn field(&mut self) -> Result<Option<(u64, Value)>, DagError> {
        if self.bytes.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let value = match tag & 7 {
            VARINT => Value::Varint(self.varint()?),
            FIXED64 => self.take(8).map(|_| Value::Fixed64)?,
            BYTES => {
                let length = self.varint()?;
                let length = usize::try_from(length).map_err(|_| TRUNCATED)?;
                Value::Bytes(self.take(length)?)
            }
            FIXED32 => {
                let bytes = self.take(4)?;
                let bytes = <[u8; 4]>::try_from(&bytes[..]).map_err(|_| TRUNCATED)?;
                Value::Fixed32(u32::from_le_bytes(bytes))
            }
            _ => return Err(DagError::Malformed("unknown wire type")),
        };
        Ok(Some((tag >> 3, value)))
    }

    /// An unsigned varint in its shortest form, as the multiformats specification demands.
    pub(super) fn varint(&mut self) -> Result<u64, DagError> {
        let mut value = 0u64;
        for (index, byte) in self.bytes.iter().enumerate().take(10) {
            let bits = u64::from(byte & 0x7f);
            let shift = 7 * u32::try_from(index).unwrap_or(u32::MAX);
            // The tenth byte holds bit 63 alone.
            if index == 9 && bits > 1 {
                return Err(DagError::Malformed("varint over 64 bits"));
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                if bits == 0 && index > 0 {
                    return Err(DagError::Malformed("varint in a longer form than needed"));
                }
                let _ = self.take(index + 1)?;
                return Ok(value);
            }
        }
        Err(DagError::Malformed("varint without an end"))
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    fn take(&mut self, length: usize) -> Result<Bytes, DagError> {
        if length > self.bytes.len() {
            return Err(TRUNCATED);
        }
        Ok(self.bytes.split_to(length))
    }
}

const TRUNCATED: DagError = DagError::Malformed("truncated field");

/// Appends a varint.
pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a varint field.
pub(super) fn put_varint_field(out: &mut Vec<u8>, field: u64, value: u64) {
    put_varint(out, field << 3 | VARINT);
    put_varint(out, value);
}

/// Appends a length-delimited field.
pub(super) fn put_bytes_field(out: &mut Vec<u8>, field: u64, bytes: &[u8]) {
    put_varint(out, field << 3 | BYTES);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Appends a field of four fixed bytes.
pub(super) fn put_fixed32_field(out: &mut Vec<u8>, field: u64, value: u32) {
    put_varint(out, field << 3 | FIXED32);
    out.extend_from_slice(&value.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn varints_must_be_short_bounded_and_complete() {
        let read = |bytes: &'static [u8]| Reader::new(Bytes::from_static(bytes)).varint();
        assert_eq!(read(&[0]), Ok(0));
        assert_eq!(read(&[0x80, 1]), Ok(128));
        assert_eq!(
            read(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]),
            Ok(u64::MAX)
        );
        for wrong in [
            &[][..],
            &[0x80],
            &[0x80, 0],
            &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2],
            &[0x80; 11],
        ] {
            assert!(
                Reader::new(Bytes::copy_from_slice(wrong)).varint().is_err(),
                "{wrong:?}"
            );
        }
    }

    proptest! {
        #[test]
        fn varints_survive_a_round_trip(value: u64) {
            let mut out = Vec::new();
            put_varint(&mut out, value);
            let mut reader = Reader::new(out.into());
            prop_assert_eq!(reader.varint(), Ok(value));
            prop_assert!(reader.is_empty());
        }
    }
}
