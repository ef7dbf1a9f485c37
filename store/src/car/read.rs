//! Reading a CAR as a stream.

use std::io::{self, BufRead, BufReader, Read};

use base::{Cid, CidError, Multihash};
use bytes::Bytes;
use serde::Deserialize;

use super::{CAR_HEADER_BYTES_MAX, CAR_SECTION_BYTES_MAX, CarError};
use crate::{BLOCK_BYTES_MAX, Block};

/// Fixed part of a CARv2 after its pragma: characteristics, data offset, data size, index offset.
const V2_HEADER_BYTES: u64 = 40;
/// Where the data of a CARv2 begins at the earliest: after the pragma and the fixed part.
const V2_DATA_OFFSET_MIN: u64 = 51;
/// Most bytes of a varint of 64 bits.
const VARINT_BYTES_MAX: usize = 10;

/// The header of a CARv1, and the pragma of a CARv2, which is one without roots.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    version: u64,
    roots: Option<Vec<Cid>>,
}

/// One block of an archive, verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    /// The CID it stands under.
    pub cid: Cid,
    /// The block.
    pub block: Block,
    /// Where the block's bytes begin in the file.
    pub offset: u64,
}

/// Reads an archive. At most one block is in memory at a time.
#[derive(Debug)]
pub struct CarReader<R> {
    input: BufReader<R>,
    roots: Vec<Cid>,
    /// How far we are in the file.
    offset: u64,
    /// Where the blocks end: known for version 2, else where the file ends.
    end: Option<u64>,
}

impl<R: Read> CarReader<R> {
    /// Reads the header of either version.
    ///
    /// # Errors
    /// [`CarError`] when it is no CAR.
    pub fn new(input: R) -> Result<Self, CarError> {
        let mut reader = Self {
            input: BufReader::new(input),
            roots: Vec::new(),
            offset: 0,
            end: None,
        };
        reader.roots = match reader.header()? {
            Header {
                version: 1,
                roots: Some(roots),
            } => roots,
            Header {
                version: 2,
                roots: None,
            } => reader.inner_header()?,
            other => return Err(malformed(0, version_reason(&other))),
        };
        Ok(reader)
    }

    /// The roots its writer named. Their blocks need not be in it.
    pub fn roots(&self) -> &[Cid] {
        &self.roots
    }

    /// The next block; `None` at the end. Blocks that stand inside their CID are checked and left out.
    ///
    /// # Errors
    /// [`CarError`]; there is no reading on after one.
    pub fn next_section(&mut self) -> Result<Option<Section>, CarError> {
        while !self.is_at_end()? {
            if let Some(section) = self.section()? {
                return Ok(Some(section));
            }
        }
        Ok(None)
    }

    /// The header of the CARv1 inside a CARv2; from here on the end of the blocks is known.
    fn inner_header(&mut self) -> Result<Vec<Cid>, CarError> {
        let at = self.offset;
        let fixed = self.take(V2_HEADER_BYTES, "the header of a CARv2")?;
        let number = |from: usize| {
            let bytes = fixed[from..from + 8].try_into();
            u64::from_le_bytes(bytes.expect("eight bytes were sliced"))
        };
        let (data_offset, data_size) = (number(16), number(24));
        if data_offset < V2_DATA_OFFSET_MIN {
            return Err(malformed(at, "the data begins inside the header"));
        }
        let end = data_offset
            .checked_add(data_size)
            .ok_or_else(|| malformed(at, "the data ends beyond any file"))?;
        self.skip(data_offset - self.offset)?;
        self.end = Some(end);
        match self.header()? {
            Header {
                version: 1,
                roots: Some(roots),
            } => Ok(roots),
            other => Err(malformed(data_offset, version_reason(&other))),
        }
    }

    fn header(&mut self) -> Result<Header, CarError> {
        let at = self.offset;
        let length = self.length("a header", CAR_HEADER_BYTES_MAX)?;
        let bytes = self.take(length, "a header")?;
        serde_ipld_dagcbor::from_slice(&bytes)
            .map_err(|e| malformed(at, format!("unreadable header, {e}")))
    }

    fn is_at_end(&mut self) -> Result<bool, CarError> {
        match self.end {
            Some(end) => Ok(self.offset >= end),
            None => Ok(self.input.fill_buf().map_err(CarError::Read)?.is_empty()),
        }
    }

    /// One section; `None` when its block stands inside its CID.
    fn section(&mut self) -> Result<Option<Section>, CarError> {
        let at = self.offset;
        let length = self.length("a section", CAR_SECTION_BYTES_MAX)?;
        let bytes = Bytes::from(self.take(length, "a section")?);
        let mut rest = &bytes[..];
        let cid = Cid::read_bytes(&mut rest)
            .map_err(|e| malformed(at, format!("unreadable CID, {e}")))?;
        let offset = self.offset - rest.len() as u64;
        let data = bytes.slice(bytes.len() - rest.len()..);
        if data.len() > BLOCK_BYTES_MAX {
            return Err(CarError::TooLarge {
                offset: at,
                what: "a block",
                size: data.len() as u64,
                max: BLOCK_BYTES_MAX as u64,
            });
        }
        if cid.hash().code() == 0 {
            return if cid.hash().digest() == &data[..] {
                Ok(None)
            } else {
                Err(malformed(
                    at,
                    format!("other bytes than are inside `{cid}`"),
                ))
            };
        }
        let hash = Multihash::of(&cid).map_err(|e: CidError| CarError::Unsupported {
            offset: at,
            cid: cid.to_string(),
            reason: e.to_string(),
        })?;
        let block = Block::verify(hash, data).map_err(|source| CarError::Mismatch {
            offset: at,
            cid: cid.to_string(),
            source,
        })?;
        Ok(Some(Section { cid, block, offset }))
    }

    /// The varint before a header or a section, within its limit.
    fn length(&mut self, what: &'static str, max: usize) -> Result<u64, CarError> {
        let at = self.offset;
        let length = self.varint(what)?;
        if length == 0 {
            return Err(malformed(at, format!("{what} of zero bytes")));
        }
        if length > max as u64 {
            return Err(CarError::TooLarge {
                offset: at,
                what,
                size: length,
                max: max as u64,
            });
        }
        Ok(length)
    }

    /// A varint in its shortest form, as the multiformats specification demands.
    fn varint(&mut self, what: &'static str) -> Result<u64, CarError> {
        let at = self.offset;
        let mut value = 0u64;
        for index in 0..VARINT_BYTES_MAX {
            let byte = self.take(1, what)?[0];
            // The tenth byte holds bit 63 alone.
            if index == VARINT_BYTES_MAX - 1 && byte > 1 {
                return Err(malformed(at, "length over 64 bits"));
            }
            value |= u64::from(byte & 0x7f) << (7 * index);
            if byte & 0x80 == 0 {
                return if byte == 0 && index > 0 {
                    Err(malformed(at, "length in a longer form than needed"))
                } else {
                    Ok(value)
                };
            }
        }
        Err(malformed(at, "length without an end"))
    }

    /// The next bytes. Memory grows with what is really there, not with what was announced.
    fn take(&mut self, length: u64, inside: &'static str) -> Result<Vec<u8>, CarError> {
        if self
            .end
            .is_some_and(|end| end - self.offset.min(end) < length)
        {
            let offset = self.end.unwrap_or(self.offset);
            return Err(CarError::Truncated { offset, inside });
        }
        let mut bytes = Vec::new();
        let read = self
            .input
            .by_ref()
            .take(length)
            .read_to_end(&mut bytes)
            .map_err(CarError::Read)? as u64;
        self.offset += read;
        if read < length {
            let offset = self.offset;
            return Err(CarError::Truncated { offset, inside });
        }
        Ok(bytes)
    }

    fn skip(&mut self, length: u64) -> Result<(), CarError> {
        let mut padding = self.input.by_ref().take(length);
        let skipped = io::copy(&mut padding, &mut io::sink()).map_err(CarError::Read)?;
        self.offset += skipped;
        if skipped < length {
            return Err(CarError::Truncated {
                offset: self.offset,
                inside: "the padding of a CARv2",
            });
        }
        Ok(())
    }
}

fn malformed(offset: u64, reason: impl Into<String>) -> CarError {
    CarError::Malformed {
        offset,
        reason: reason.into(),
    }
}

fn version_reason(header: &Header) -> String {
    match (header.version, &header.roots) {
        (1, None) => "version 1 without roots".to_owned(),
        (2, Some(_)) => "version 2 with roots in its first header".to_owned(),
        (2, None) => "version 2 inside version 2".to_owned(),
        (other, _) => format!("version {other} is not known"),
    }
}
