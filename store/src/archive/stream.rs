//! Tar streams: ustar, GNU and PAX in, the GNU dialect out.
//!
//! The `tar` crate knows the header's fields. Its archive reader is not used: it collects extension headers of any size in
//! memory, and takes entries we refuse. Here every length is bounded before anything is read.

use std::io::{self, Read, Write};

use tar::{EntryType, Header};

use super::compress::OutOfProportion;
use super::error::shown;
use super::{ArchiveError, EntryKind, MTIME_UNIX_SECS, UnpackLimits, path};

/// Unit of the format in bytes.
const BLOCK: usize = 512;
/// Longest extension header (long name, PAX records) in bytes; a path of 4096 bytes and some attributes fit well.
const EXTENSION_BYTES_MAX: u64 = 64 << 10;
/// Most zero bytes after the end of an archive: writers fill records of up to 1 MiB.
const PADDING_BYTES_MAX: u64 = 1 << 20;
/// Bits that would give a program another identity than its user's.
const MODE_SETID: u32 = 0o6000;
/// Longest path or target that fits a header.
const HEADER_NAME_BYTES: usize = 100;

/// An entry's header.
#[derive(Clone, Debug)]
pub(super) struct TarEntry {
    /// Normalised; empty for the root itself.
    pub(super) path: Vec<u8>,
    pub(super) kind: EntryKind,
    /// The lower nine permission bits.
    pub(super) mode: u32,
    pub(super) size: u64,
    pub(super) mtime: u64,
}

/// Reads entries one after the other. Between two calls of [`Self::next_entry`] it reads as the entry's bytes.
pub(super) struct TarReader<'a> {
    archive: String,
    reader: Box<dyn Read + 'a>,
    limits: UnpackLimits,
    /// Bytes of the current entry that were not read yet, and those up to the next block.
    left: u64,
    padding: u64,
    entries: u64,
    bytes: u64,
}

/// What extension headers say about the entry that follows them.
#[derive(Debug, Default)]
struct Extensions {
    path: Option<Vec<u8>>,
    target: Option<Vec<u8>>,
    size: Option<u64>,
}

impl<'a> TarReader<'a> {
    pub(super) fn new(
        archive: &str,
        reader: impl Read + 'a,
        limits: &UnpackLimits,
    ) -> Result<Self, ArchiveError> {
        let tar =
            super::compress::decoder(reader, limits).map_err(|source| ArchiveError::Read {
                archive: archive.to_owned(),
                source,
            })?;
        Ok(Self::of_tar(archive, tar, limits))
    }

    /// Of a stream that is a tar already: what is compressed is none.
    pub(super) fn of_tar(archive: &str, tar: impl Read + 'a, limits: &UnpackLimits) -> Self {
        Self {
            archive: archive.to_owned(),
            reader: Box::new(tar),
            limits: *limits,
            left: 0,
            padding: 0,
            entries: 0,
            bytes: 0,
        }
    }

    pub(super) fn archive(&self) -> &str {
        &self.archive
    }

    /// The next entry; `None` after the last, when the stream was read to its end.
    pub(super) fn next_entry(&mut self) -> Result<Option<TarEntry>, ArchiveError> {
        self.skip(self.left + self.padding)?;
        (self.left, self.padding) = (0, 0);
        let mut extensions = Extensions::default();
        loop {
            let Some(header) = self.header()? else {
                self.end()?;
                return Ok(None);
            };
            match header.entry_type() {
                EntryType::GNULongName => {
                    extensions.path = Some(self.long_name(&header)?);
                }
                EntryType::GNULongLink => {
                    extensions.target = Some(self.long_name(&header)?);
                }
                EntryType::XHeader => self.pax(&header, &mut extensions)?,
                // Comments, such as the commit in archives made by git. They must not rename what follows.
                EntryType::XGlobalHeader => {
                    let mut global = Extensions::default();
                    self.pax(&header, &mut global)?;
                    if global.path.is_some() || global.target.is_some() || global.size.is_some() {
                        return Err(self.malformed("global header that renames entries"));
                    }
                }
                _ => return self.entry(&header, extensions).map(Some),
            }
        }
    }

    /// An error about the entry with that name.
    pub(super) fn refused(&self, entry: &[u8], reason: &'static str) -> ArchiveError {
        ArchiveError::Refused {
            archive: self.archive.clone(),
            entry: shown(entry),
            reason,
        }
    }

    pub(super) fn read_error(&self, source: io::Error) -> ArchiveError {
        let archive = self.archive.clone();
        if let Some(OutOfProportion(max)) = source.get_ref().and_then(|e| e.downcast_ref()) {
            return ArchiveError::TooLarge {
                archive,
                what: "ratio of its compression",
                max: *max,
            };
        }
        if source.kind() == io::ErrorKind::UnexpectedEof {
            return self.malformed("it ends too early");
        }
        ArchiveError::Read { archive, source }
    }

    fn malformed(&self, reason: &'static str) -> ArchiveError {
        ArchiveError::Malformed {
            archive: self.archive.clone(),
            reason,
        }
    }

    fn too_large(&self, what: &'static str, max: u64) -> ArchiveError {
        ArchiveError::TooLarge {
            archive: self.archive.clone(),
            what,
            max,
        }
    }

    /// The next header; `None` at the first of the two zero blocks that end an archive.
    fn header(&mut self) -> Result<Option<Header>, ArchiveError> {
        let mut header = Header::new_old();
        self.reader
            .read_exact(header.as_mut_bytes())
            .map_err(|e| self.read_error(e))?;
        if header.as_bytes().iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        if header.cksum().ok() != Some(checksum(header.as_bytes())) {
            return Err(self.malformed("a header has a wrong checksum"));
        }
        // Extension headers count too: a million of them is work all the same.
        self.entries += 1;
        if self.entries > self.limits.entries_max {
            return Err(self.too_large("number of entries", self.limits.entries_max));
        }
        Ok(Some(header))
    }

    /// Reads the second zero block and the padding, and makes sure that nothing else follows.
    fn end(&mut self) -> Result<(), ArchiveError> {
        let mut block = [0; BLOCK];
        self.reader
            .read_exact(&mut block)
            .map_err(|e| self.read_error(e))?;
        let mut seen = 0;
        let mut length = BLOCK;
        loop {
            if block[..length].iter().any(|byte| *byte != 0) {
                return Err(self.malformed("there is something after its end"));
            }
            length = self
                .reader
                .read(&mut block)
                .map_err(|e| self.read_error(e))?;
            seen += length as u64;
            if length == 0 {
                return Ok(());
            }
            if seen > PADDING_BYTES_MAX {
                return Err(self.malformed("there is too much padding after its end"));
            }
        }
    }

    fn entry(&mut self, header: &Header, extensions: Extensions) -> Result<TarEntry, ArchiveError> {
        let raw = extensions
            .path
            .unwrap_or_else(|| header.path_bytes().into_owned());
        let refused = |reason| self.refused(&raw, reason);
        let path = path::normalise(&raw, &self.limits).map_err(refused)?;
        let mode = header
            .mode()
            .map_err(|_| refused("its mode cannot be read"))?;
        let size = match extensions.size {
            Some(size) => size,
            None => header
                .entry_size()
                .map_err(|_| refused("its size cannot be read"))?,
        };
        let target = extensions
            .target
            .or_else(|| header.link_name_bytes().map(std::borrow::Cow::into_owned))
            .unwrap_or_default();
        let kind = self
            .kind(header.entry_type(), &raw, &path, target)
            .map_err(refused)?;
        if kind != EntryKind::File && size > 0 {
            return Err(refused("it has bytes although it is no file"));
        }
        if kind != EntryKind::Directory && path.is_empty() {
            return Err(refused("it has no name"));
        }
        if kind != EntryKind::Directory && mode & MODE_SETID != 0 {
            return Err(refused("it would run as another user (setuid or setgid)"));
        }
        let mtime = header.mtime().unwrap_or(0);
        self.begin(size)?;
        Ok(TarEntry {
            path,
            kind,
            mode: mode & 0o777,
            size,
            mtime,
        })
    }

    fn kind(
        &self,
        entry_type: EntryType,
        raw_path: &[u8],
        path: &[u8],
        target: Vec<u8>,
    ) -> Result<EntryKind, &'static str> {
        match entry_type {
            // Old tars mark directories by a slash alone.
            EntryType::Regular | EntryType::Continuous if !raw_path.ends_with(b"/") => {
                Ok(EntryKind::File)
            }
            EntryType::Regular | EntryType::Directory => Ok(EntryKind::Directory),
            EntryType::Symlink => {
                path::check_target(path, &target, &self.limits)?;
                Ok(EntryKind::Symlink(target))
            }
            EntryType::Link => path::normalise(&target, &self.limits).map(EntryKind::HardLink),
            EntryType::Char | EntryType::Block => Err("it is a device"),
            EntryType::Fifo => Err("it is a named pipe"),
            EntryType::GNUSparse => Err("it is stored as a sparse file"),
            _ => Err("it is of an unknown type"),
        }
    }

    fn begin(&mut self, size: u64) -> Result<(), ArchiveError> {
        self.bytes = self.bytes.saturating_add(size);
        if self.bytes > self.limits.bytes_max {
            return Err(self.too_large("sum of its file sizes", self.limits.bytes_max));
        }
        (self.left, self.padding) = (size, padding(size));
        Ok(())
    }

    fn long_name(&mut self, header: &Header) -> Result<Vec<u8>, ArchiveError> {
        let mut name = self.extension(header)?;
        // GNU tar ends the name with a zero byte.
        if name.last() == Some(&0) {
            name.pop();
        }
        Ok(name)
    }

    fn pax(&mut self, header: &Header, extensions: &mut Extensions) -> Result<(), ArchiveError> {
        let records = self.extension(header)?;
        let mut rest = &records[..];
        while !rest.is_empty() {
            let (key, value, more) =
                pax_record(rest).ok_or_else(|| self.malformed("unreadable PAX record"))?;
            match key {
                b"path" => extensions.path = Some(value.to_vec()),
                b"linkpath" => extensions.target = Some(value.to_vec()),
                b"size" => {
                    let size = std::str::from_utf8(value)
                        .ok()
                        .and_then(|text| text.parse().ok());
                    let size =
                        size.ok_or_else(|| self.malformed("unreadable size in a PAX record"))?;
                    extensions.size = Some(size);
                }
                key if key.starts_with(b"GNU.sparse.") => {
                    return Err(self.malformed("it has files stored as sparse"));
                }
                // Owners, access times, comments, extended attributes.
                _ => {}
            }
            rest = more;
        }
        Ok(())
    }

    /// The bytes of an extension header.
    fn extension(&mut self, header: &Header) -> Result<Vec<u8>, ArchiveError> {
        let size = header.entry_size().unwrap_or(u64::MAX);
        if size > EXTENSION_BYTES_MAX {
            return Err(self.too_large("length of a name or attribute", EXTENSION_BYTES_MAX));
        }
        let mut bytes = Vec::new();
        let read = self.reader.by_ref().take(size).read_to_end(&mut bytes);
        if read.map_err(|e| self.read_error(e))? as u64 != size {
            return Err(self.malformed("it ends too early"));
        }
        self.skip(padding(size))?;
        Ok(bytes)
    }

    fn skip(&mut self, count: u64) -> Result<(), ArchiveError> {
        let skipped = io::copy(&mut self.reader.by_ref().take(count), &mut io::sink());
        if skipped.map_err(|e| self.read_error(e))? != count {
            return Err(self.malformed("it ends too early"));
        }
        Ok(())
    }
}

/// The bytes of the current entry. An archive that ends inside is an error here, not an end.
impl Read for TarReader<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let wanted = usize::try_from(self.left)
            .unwrap_or(usize::MAX)
            .min(buf.len());
        let length = read_some(&mut self.reader, &mut buf[..wanted])?;
        if length == 0 && wanted > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left -= length as u64;
        Ok(length)
    }
}

/// One read that no signal interrupts.
fn read_some(reader: &mut impl Read, buf: &mut [u8]) -> io::Result<usize> {
    loop {
        match reader.read(buf) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

/// Splits the first record off: `<length> <key>=<value>\n`, the length counting all of it.
fn pax_record(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = bytes.iter().position(|byte| *byte == b' ')?;
    let length: usize = std::str::from_utf8(&bytes[..space]).ok()?.parse().ok()?;
    let record = bytes.get(space + 1..length)?.strip_suffix(b"\n")?;
    let equals = record.iter().position(|byte| *byte == b'=')?;
    Some((&record[..equals], &record[equals + 1..], &bytes[length..]))
}

/// The sum of a header's bytes, the checksum itself counted as blanks.
fn checksum(header: &[u8; BLOCK]) -> u32 {
    let sum = |bytes: &[u8]| bytes.iter().map(|byte| u32::from(*byte)).sum::<u32>();
    sum(&header[..148]) + 8 * u32::from(b' ') + sum(&header[156..])
}

/// Bytes from the end of an entry's data to the next block.
const fn padding(size: u64) -> u64 {
    size.wrapping_neg() % BLOCK as u64
}

/// Writes an entry's header in canonical form; a file's `size` bytes and [`write_padding`] must follow.
pub(super) fn write_header(
    writer: &mut impl Write,
    path: &[u8],
    kind: &EntryKind,
    is_executable: bool,
    size: u64,
) -> io::Result<()> {
    let mut name = path.to_vec();
    let (entry_type, mode, target): (_, _, &[u8]) = match kind {
        EntryKind::File => (
            EntryType::Regular,
            if is_executable { 0o755 } else { 0o644 },
            &[],
        ),
        EntryKind::Directory => {
            name.push(b'/');
            (EntryType::Directory, 0o755, &[])
        }
        EntryKind::Symlink(target) => (EntryType::Symlink, 0o777, target),
        EntryKind::HardLink(target) => (EntryType::Link, 0o644, target),
    };
    if target.len() > HEADER_NAME_BYTES {
        write_long_name(writer, EntryType::GNULongLink, target)?;
    }
    if name.len() > HEADER_NAME_BYTES {
        write_long_name(writer, EntryType::GNULongName, &name)?;
    }
    let mut header = Header::new_gnu();
    put_name(&mut header.as_old_mut().name, &name);
    put_name(&mut header.as_old_mut().linkname, target);
    header.set_entry_type(entry_type);
    header.set_mode(mode);
    header.set_mtime(MTIME_UNIX_SECS);
    write_numbers(writer, header, size)
}

/// Fills up the block after an entry's data.
pub(super) fn write_padding(writer: &mut impl Write, size: u64) -> io::Result<()> {
    let length = usize::try_from(padding(size)).unwrap_or(0);
    writer.write_all(&[0; BLOCK][..length])
}

/// Ends an archive: two zero blocks, without the padding that tapes needed.
pub(super) fn write_end(writer: &mut impl Write) -> io::Result<()> {
    writer.write_all(&[0; 2 * BLOCK])
}

fn write_long_name(writer: &mut impl Write, kind: EntryType, name: &[u8]) -> io::Result<()> {
    let mut header = Header::new_gnu();
    put_name(&mut header.as_old_mut().name, b"././@LongLink");
    header.set_entry_type(kind);
    header.set_mode(0o644);
    header.set_mtime(0);
    let size = name.len() as u64 + 1;
    write_numbers(writer, header, size)?;
    writer.write_all(name)?;
    writer.write_all(&[0])?;
    write_padding(writer, size)
}

fn write_numbers(writer: &mut impl Write, mut header: Header, size: u64) -> io::Result<()> {
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(size);
    header.set_cksum();
    writer.write_all(header.as_bytes())
}

/// As much of a name as a header holds.
fn put_name(field: &mut [u8; HEADER_NAME_BYTES], name: &[u8]) {
    let length = name.len().min(HEADER_NAME_BYTES);
    field[..length].copy_from_slice(&name[..length]);
}
