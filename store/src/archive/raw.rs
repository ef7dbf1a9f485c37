//! The tar stream inside an archive, byte for byte, and back.

use std::cell::Cell;
use std::io::{self, BufReader, Read, Write};
use std::rc::Rc;

use super::stream::TarReader;
use super::{ArchiveError, Compression, UnpackLimits, compress};

/// Bytes read at a time.
const PIECE_BYTES: usize = 128 << 10;

/// Compresses a tar stream as archive format 1 has it: the same stream gives the same bytes, however it is cut into writes.
///
/// # Errors
/// [`ArchiveError`] when the compressor is not the one that belongs to the format.
pub(crate) fn packer<W: Write>(writer: W) -> Result<zstd::Encoder<'static, W>, ArchiveError> {
    compress::encoder(writer)
}

/// Writes out the tar inside an archive that is compressed as our own are, and calls `entry` for each of its entries with the
/// offset at which it begins at the latest, its path and its size. Returns the tar's length in bytes.
///
/// # Errors
/// [`ArchiveError`] when it is something else, cannot be read or written, or is longer than `limits` say.
pub(crate) fn unpack_tar(
    mut reader: impl Read,
    limits: &UnpackLimits,
    writer: impl Write,
    mut entry: impl FnMut(u64, &[u8], u64),
) -> Result<u64, ArchiveError> {
    let archive = "output";
    let read_error = |source| ArchiveError::Read {
        archive: archive.to_owned(),
        source,
    };
    let mut magic = [0; compress::MAGIC_BYTES];
    reader.read_exact(&mut magic).map_err(read_error)?;
    if compress::compression(&magic) != Compression::Zstd {
        return Err(ArchiveError::Malformed {
            archive: archive.to_owned(),
            reason: "it is not compressed as packages are",
        });
    }
    let whole = io::Cursor::new(magic).chain(reader);
    let tar = compress::decoder(whole, limits).map_err(read_error)?;
    let bytes = Rc::new(Cell::new(0));
    let tee = Tee {
        reader: BufReader::with_capacity(PIECE_BYTES, tar),
        writer,
        bytes: Rc::clone(&bytes),
        bytes_max: limits.bytes_max,
    };
    let mut entries = TarReader::of_tar(archive, tee, limits);
    while let Some(found) = entries.next_entry()? {
        entry(bytes.get(), &found.path, found.size);
    }
    Ok(bytes.get())
}

/// Writes down what is read, and counts it.
struct Tee<R, W> {
    reader: R,
    writer: W,
    bytes: Rc<Cell<u64>>,
    bytes_max: u64,
}

impl<R: Read, W: Write> Read for Tee<R, W> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let length = self.reader.read(buf)?;
        self.bytes.set(self.bytes.get() + length as u64);
        if self.bytes.get() > self.bytes_max {
            return Err(io::Error::other("the tar inside is too large"));
        }
        self.writer.write_all(&buf[..length])?;
        Ok(length)
    }
}
