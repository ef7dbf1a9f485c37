//! Packing a directory in canonical form.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::beneath::Beneath;
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
    let mut tree = Tree::open(dir)?;
    collect(&mut tree, Path::new(""), &mut found)?;
    found.sort_by(|a, b| {
        a.path
            .as_os_str()
            .as_bytes()
            .cmp(b.path.as_os_str().as_bytes())
    });
    let mut encoder = compress::encoder(writer)?;
    let mut summary = Summary::default();
    for entry in &found {
        write_entry(&mut tree, entry, &mut encoder)?;
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
fn collect(tree: &mut Tree<'_>, below: &Path, found: &mut Vec<Found>) -> Result<(), ArchiveError> {
    for name in tree.names(below)? {
        let entry = examine(tree, below.join(name))?;
        if entry.kind == EntryKind::Directory {
            collect(tree, &entry.path, found)?;
        }
        found.push(entry);
    }
    Ok(())
}

/// A directory that is packed: whatever was put there, nothing outside of it is read.
struct Tree<'d> {
    dir: &'d Path,
    beneath: Beneath,
}

impl<'d> Tree<'d> {
    fn open(dir: &'d Path) -> Result<Self, ArchiveError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(dir, flags, Mode::empty());
        let root = root.map_err(|e| ArchiveError::io("read", dir, io::Error::from(e)))?;
        let beneath = Beneath::new(root);
        Ok(Self { dir, beneath })
    }

    fn names(&mut self, below: &Path) -> Result<Vec<OsString>, ArchiveError> {
        let full = self.dir.join(below);
        let failed = |e: Errno| ArchiveError::io("read", &full, io::Error::from(e));
        let fd = self.beneath.open_dir(below.as_os_str().as_bytes());
        let entries = Dir::new(fd.map_err(failed)?).map_err(failed)?;
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                names.push(OsString::from_vec(name.to_vec()));
            }
        }
        Ok(names)
    }

    fn stat(&mut self, path: &Path) -> Result<Stat, ArchiveError> {
        let found = self.beneath.stat(path.as_os_str().as_bytes());
        let found = found.and_then(|stat| stat.ok_or(Errno::NOENT));
        found.map_err(|e| ArchiveError::io("examine", &self.dir.join(path), io::Error::from(e)))
    }

    fn target(&mut self, path: &Path) -> Result<Vec<u8>, ArchiveError> {
        let target = self.beneath.target(path.as_os_str().as_bytes());
        target.map_err(|e| ArchiveError::io("read", &self.dir.join(path), io::Error::from(e)))
    }

    fn file(&mut self, path: &Path) -> Result<File, ArchiveError> {
        let file = self.beneath.open_file(path.as_os_str().as_bytes());
        let file =
            file.map_err(|e| ArchiveError::io("read", &self.dir.join(path), io::Error::from(e)))?;
        Ok(File::from(file))
    }
}

fn examine(tree: &mut Tree<'_>, path: PathBuf) -> Result<Found, ArchiveError> {
    let limits = UnpackLimits {
        allow_absolute_links: true,
        ..UnpackLimits::default()
    };
    let bytes = path.as_os_str().as_bytes();
    let unpackable = |reason| ArchiveError::Unpackable {
        path: path.clone(),
        reason,
    };
    path::normalise(bytes, &limits).map_err(unpackable)?;
    let stat = tree.stat(&path)?;
    let (kind, size) = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => (EntryKind::Directory, 0),
        FileType::Symlink => {
            let target = tree.target(&path)?;
            path::check_target(bytes, &target, &limits).map_err(unpackable)?;
            (EntryKind::Symlink(target), 0)
        }
        file_type => {
            check_regular(file_type, stat.st_mode).map_err(unpackable)?;
            (EntryKind::File, stat.st_size.cast_unsigned())
        }
    };
    Ok(Found {
        is_executable: stat.st_mode & 0o111 != 0,
        kind,
        size,
        path,
    })
}

/// Refuses what is no plain file.
fn check_regular(file_type: FileType, mode: u32) -> Result<(), &'static str> {
    match file_type {
        FileType::BlockDevice | FileType::CharacterDevice => Err("it is a device"),
        FileType::Fifo => Err("it is a named pipe"),
        FileType::Socket => Err("it is a socket"),
        FileType::RegularFile if mode & 0o6000 != 0 => {
            Err("it would run as another user (setuid or setgid)")
        }
        FileType::RegularFile => Ok(()),
        _ => Err("it is of no known kind"),
    }
}

fn write_entry(
    tree: &mut Tree<'_>,
    entry: &Found,
    writer: &mut impl Write,
) -> Result<(), ArchiveError> {
    let path = entry.path.as_os_str().as_bytes();
    write_header(writer, path, &entry.kind, entry.is_executable, entry.size)
        .map_err(ArchiveError::Write)?;
    if entry.kind == EntryKind::File {
        write_file(tree, entry, writer)?;
        write_padding(writer, entry.size).map_err(ArchiveError::Write)?;
    }
    Ok(())
}

fn write_file(
    tree: &mut Tree<'_>,
    entry: &Found,
    writer: &mut impl Write,
) -> Result<(), ArchiveError> {
    let mut file = tree.file(&entry.path)?;
    let full = tree.dir.join(&entry.path);
    let failed = |e| ArchiveError::io("read", &full, e);
    let changed = || ArchiveError::Unpackable {
        path: entry.path.clone(),
        reason: "it changed while it was packed",
    };
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
