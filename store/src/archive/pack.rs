//! Packing a directory in canonical form.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use super::stream::{write_end, write_header, write_padding};
use super::{ArchiveError, EntryKind, Summary, UnpackLimits, compress, path};

/// Piece in which files are read, in bytes.
const READ_BYTES: usize = 128 << 10;

/// A file to pack, by its path relative to the directory.
struct Found {
    path: PathBuf,
    kind: EntryKind,
    is_executable: bool,
    size: u64,
}

/// Packs a directory as a canonical `.tar.zst`. What could not be unpacked again is refused now; absolute targets of
/// symbolic links are kept.
///
/// # Errors
/// [`ArchiveError`] naming the path and the reason.
pub fn pack(dir: &Path, writer: impl Write) -> Result<Summary, ArchiveError> {
    let mut found = Vec::new();
    collect(dir, Path::new(""), &mut found)?;
    found.sort_by(|a, b| {
        a.path
            .as_os_str()
            .as_bytes()
            .cmp(b.path.as_os_str().as_bytes())
    });
    let mut encoder = compress::encoder(writer)?;
    let mut summary = Summary::default();
    for entry in &found {
        write_entry(dir, entry, &mut encoder)?;
        summary.entries += 1;
        summary.unpacked_bytes += entry.size;
    }
    write_end(&mut encoder).map_err(ArchiveError::Write)?;
    encoder
        .finish()
        .and_then(|mut writer| writer.flush())
        .map_err(ArchiveError::Write)?;
    Ok(summary)
}

/// Lists a directory and everything below, in no particular order.
fn collect(dir: &Path, below: &Path, found: &mut Vec<Found>) -> Result<(), ArchiveError> {
    let full = dir.join(below);
    let failed = |e| ArchiveError::io("read", &full, e);
    for entry in fs::read_dir(&full).map_err(failed)? {
        let path = below.join(entry.map_err(failed)?.file_name());
        let entry = examine(dir, path)?;
        if entry.kind == EntryKind::Directory {
            collect(dir, &entry.path, found)?;
        }
        found.push(entry);
    }
    Ok(())
}

fn examine(dir: &Path, path: PathBuf) -> Result<Found, ArchiveError> {
    let full = dir.join(&path);
    let metadata =
        fs::symlink_metadata(&full).map_err(|e| ArchiveError::io("examine", &full, e))?;
    let unpackable = |reason| ArchiveError::Unpackable {
        path: path.clone(),
        reason,
    };
    let limits = UnpackLimits {
        allow_absolute_links: true,
        ..UnpackLimits::default()
    };
    let bytes = path.as_os_str().as_bytes();
    path::normalise(bytes, &limits).map_err(unpackable)?;
    let (kind, size) = if metadata.is_dir() {
        (EntryKind::Directory, 0)
    } else if metadata.is_symlink() {
        let target = fs::read_link(&full).map_err(|e| ArchiveError::io("read", &full, e))?;
        let target = target.as_os_str().as_bytes().to_vec();
        path::check_target(bytes, &target, &limits).map_err(unpackable)?;
        (EntryKind::Symlink(target), 0)
    } else {
        check_regular(&metadata).map_err(unpackable)?;
        (EntryKind::File, metadata.len())
    };
    Ok(Found {
        is_executable: metadata.mode() & 0o111 != 0,
        kind,
        size,
        path,
    })
}

/// Refuses what is no plain file.
fn check_regular(metadata: &Metadata) -> Result<(), &'static str> {
    let file_type = metadata.file_type();
    if file_type.is_block_device() || file_type.is_char_device() {
        return Err("it is a device");
    }
    if file_type.is_fifo() {
        return Err("it is a named pipe");
    }
    if file_type.is_socket() {
        return Err("it is a socket");
    }
    if metadata.mode() & 0o6000 != 0 {
        return Err("it would run as another user (setuid or setgid)");
    }
    Ok(())
}

fn write_entry(dir: &Path, entry: &Found, writer: &mut impl Write) -> Result<(), ArchiveError> {
    let path = entry.path.as_os_str().as_bytes();
    write_header(writer, path, &entry.kind, entry.is_executable, entry.size)
        .map_err(ArchiveError::Write)?;
    if entry.kind == EntryKind::File {
        write_file(&dir.join(&entry.path), entry, writer)?;
        write_padding(writer, entry.size).map_err(ArchiveError::Write)?;
    }
    Ok(())
}

fn write_file(full: &Path, entry: &Found, writer: &mut impl Write) -> Result<(), ArchiveError> {
    let failed = |e| ArchiveError::io("read", full, e);
    let changed = || ArchiveError::Unpackable {
        path: entry.path.clone(),
        reason: "it changed while it was packed",
    };
    let mut file: File = OpenOptions::new()
        .read(true)
        .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
        .open(full)
        .map_err(failed)?;
    let mut buffer = vec![0; READ_BYTES];
    let mut left = entry.size;
    loop {
        let length = match file.read(&mut buffer) {
            Ok(length) => length,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(failed(e)),
        };
        if length == 0 {
            break;
        }
        left = left.checked_sub(length as u64).ok_or_else(changed)?;
        writer
            .write_all(&buffer[..length])
            .map_err(ArchiveError::Write)?;
    }
    if left > 0 { Err(changed()) } else { Ok(()) }
}
