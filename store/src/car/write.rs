//! Writing a CAR.

use std::collections::HashSet;
use std::io::Write;

use base::Cid;
use serde::Serialize;

use super::CarError;
use crate::dag::Target;
use crate::{Block, dag};

#[derive(Serialize)]
struct Header<'a> {
    version: u64,
    roots: &'a [Cid],
}

/// Writes a CARv1: each block once, in the order given.
#[derive(Debug)]
pub struct CarWriter<W> {
    output: W,
    /// `None` when blocks may be repeated.
    written: Option<HashSet<Target>>,
}

impl<W: Write> CarWriter<W> {
    /// Writes the header.
    ///
    /// # Errors
    /// [`CarError::Write`].
    pub fn new(output: W, roots: &[Cid]) -> Result<Self, CarError> {
        let header = Header { version: 1, roots };
        let header = serde_ipld_dagcbor::to_vec(&header).expect("a number and links encode");
        let mut writer = Self {
            output,
            written: Some(HashSet::new()),
        };
        writer.put(&[&varint(header.len()), &header])?;
        Ok(writer)
    }

    /// Writes a block as often as it is given.
    #[must_use]
    pub fn with_duplicates(mut self) -> Self {
        self.written = None;
        self
    }

    /// Whether [`Self::write`] would leave this block out: it was written already.
    pub fn has(&self, target: &Target) -> bool {
        self.written
            .as_ref()
            .is_some_and(|written| written.contains(target))
    }

    /// Writes a block under the CID by which it is linked, unless it is there or stands inside its CID.
    ///
    /// # Errors
    /// [`CarError::Write`], or [`CarError::Dag`] for a codec we do not read.
    pub fn write(&mut self, cid: &Cid, block: &Block) -> Result<(), CarError> {
        let target = Target::of(cid).map_err(|source| CarError::Dag {
            cid: cid.to_string(),
            source,
        })?;
        let is_repeated = |written: &mut HashSet<Target>| !written.insert(target);
        if dag::inline_block(cid).is_some() || self.written.as_mut().is_some_and(is_repeated) {
            return Ok(());
        }
        let cid = cid.to_bytes();
        let length = varint(cid.len() + block.len());
        self.put(&[&length, &cid, block.bytes()])
    }

    /// Hands out what is buffered, and gives the output back.
    ///
    /// # Errors
    /// [`CarError::Write`].
    pub fn finish(mut self) -> Result<W, CarError> {
        self.output.flush().map_err(CarError::Write)?;
        Ok(self.output)
    }

    fn put(&mut self, parts: &[&[u8]]) -> Result<(), CarError> {
        for part in parts {
            self.output.write_all(part).map_err(CarError::Write)?;
        }
        Ok(())
    }
}

fn varint(length: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    dag::put_varint(&mut bytes, length as u64);
    bytes
}
