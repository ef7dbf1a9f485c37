//! The tar inside an output, unpacked to a temporary file, with a map of what lies where.

use std::io::{BufWriter, Write as _};
use std::ops::Range;
use std::os::unix::fs::FileExt as _;

use tempfile::NamedTempFile;

use super::DeltaError;
use super::align::Map;
use crate::archive::{UnpackLimits, unpack_tar};
use crate::layout::locked_file;
use crate::{BlobFile, Store, StoreError};

/// Bytes written at a time.
const PIECE_BYTES: usize = 128 << 10;

/// A tar on the disk. The file goes when this is dropped.
#[derive(Debug)]
pub struct Unpacked {
    file: NamedTempFile,
    map: Map,
}

impl Unpacked {
    /// Unpacks an output whose tar has at most so many bytes.
    pub(super) fn of(store: &Store, blob: BlobFile, most: u64) -> Result<Self, DeltaError> {
        let file = locked_file(&store.layout.temporary, "delta-")?;
        let limits = UnpackLimits {
            bytes_max: most,
            allow_absolute_links: true,
            ..UnpackLimits::default()
        };
        let mut map = Map::default();
        let mut writer = BufWriter::with_capacity(PIECE_BYTES, file.as_file());
        let note = |offset, path: &[u8], bytes| map.entry(offset, path, bytes);
        let size = unpack_tar(blob, &limits, &mut writer, note)?;
        let flushed = writer.flush();
        drop(writer);
        flushed.map_err(|e| StoreError::io("write", file.path(), e))?;
        map.end(size);
        Ok(Self { file, map })
    }

    /// Length in bytes.
    pub const fn size(&self) -> u64 {
        self.map.size()
    }

    pub(super) const fn map(&self) -> &Map {
        &self.map
    }

    /// Some of its bytes.
    pub(super) fn read(&self, range: Range<u64>) -> Result<Vec<u8>, StoreError> {
        let length = usize::try_from(range.end.saturating_sub(range.start));
        let mut bytes = vec![0; length.unwrap_or(0)];
        let read = self.file.as_file().read_exact_at(&mut bytes, range.start);
        read.map_err(|e| StoreError::io("read", self.file.path(), e))?;
        Ok(bytes)
    }
}
