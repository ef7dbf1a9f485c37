//! An output put together again from an earlier one and the segments of a delta.

use std::io::{self, Write};

use base::Sha256;

use super::segment::expand;
use super::{
    DeltaError, REFERENCE_BYTES_MAX, Segment, Unpacked, segment_range, segments, tar_bytes_max,
};
use crate::archive::{ArchiveError, packer};
use crate::{Blob, Expected, Ingest, Store};

/// An output that is being put together. Dropping it leaves nothing.
pub struct Assembly {
    old: Unpacked,
    tar: zstd::Encoder<'static, Bounded>,
    tar_bytes: u64,
    next: u64,
}

impl Assembly {
    /// Begins with an earlier output of the store; `size` is what the archive must have, `tar_bytes` what the tar inside is
    /// said to have. `None` when the earlier output cannot be used after all.
    ///
    /// # Errors
    /// [`DeltaError`] when that cannot be right, or there is no room.
    pub fn begin(
        store: &Store,
        old: &Sha256,
        size: u64,
        tar_bytes: u64,
    ) -> Result<Option<Self>, DeltaError> {
        if tar_bytes == 0 || tar_bytes > tar_bytes_max(size) {
            return Err(DeltaError::Invalid("a tar of no likely length"));
        }
        let Some(old) = store.unpack_output(old)? else {
            return Ok(None);
        };
        let mut ingest = store.ingest()?;
        ingest.reserve(size)?;
        let tar = packer(Bounded { ingest, size })?;
        Ok(Some(Self {
            old,
            tar,
            tar_bytes,
            next: 0,
        }))
    }

    /// Takes the next segment.
    ///
    /// # Errors
    /// [`DeltaError::Invalid`] when it cannot be right: nothing of this assembly is of any use then.
    pub fn push(&mut self, segment: &Segment) -> Result<(), DeltaError> {
        let Some(range) = segment_range(self.next, self.tar_bytes) else {
            return Err(DeltaError::Invalid("a segment too many"));
        };
        if segment.tar_bytes != self.tar_bytes {
            return Err(DeltaError::Invalid("another tar than before"));
        }
        let end = segment.from.checked_add(segment.length);
        let end = end.filter(|end| *end <= self.old.size());
        let end = end.filter(|_| segment.length <= REFERENCE_BYTES_MAX);
        let end = end.ok_or(DeltaError::Invalid("a reference that does not exist"))?;
        let reference = self.old.read(segment.from..end)?;
        let length = usize::try_from(range.end - range.start).unwrap_or(0);
        let bytes = expand(&reference, &segment.packed, length)?;
        self.tar.write_all(&bytes).map_err(not_written)?;
        self.next += 1;
        Ok(())
    }

    /// The number of the segment that is needed next; `None` when all are here.
    pub fn next(&self) -> Option<u64> {
        (self.next < segments(self.tar_bytes)).then_some(self.next)
    }

    /// Bytes of the archive so far. The compressor keeps some back.
    pub fn written(&self) -> u64 {
        self.tar.get_ref().ingest.written()
    }

    /// Checks the archive, makes it durable and visible.
    ///
    /// # Errors
    /// [`DeltaError`] when it is another file; then nothing is kept.
    pub fn finish(self, expected: &Expected) -> Result<Blob, DeltaError> {
        if self.next().is_some() {
            return Err(DeltaError::Invalid("a segment is missing"));
        }
        let bounded = self.tar.finish().map_err(not_written)?;
        Ok(bounded.ingest.finish(expected)?)
    }
}

impl std::fmt::Debug for Assembly {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Assembly")
            .field("tar_bytes", &self.tar_bytes)
            .field("next", &self.next)
            .finish_non_exhaustive()
    }
}

fn not_written(error: io::Error) -> DeltaError {
    match error.kind() {
        io::ErrorKind::FileTooLarge => DeltaError::Invalid("an archive longer than it must be"),
        _ => ArchiveError::Write(error).into(),
    }
}

/// Takes no more bytes than the archive must have: what is wrong costs no more disk than what is right.
struct Bounded {
    ingest: Ingest,
    size: u64,
}

impl Write for Bounded {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        if self.ingest.written().saturating_add(buf.len() as u64) > self.size {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.ingest.write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.ingest.flush()
    }
}
