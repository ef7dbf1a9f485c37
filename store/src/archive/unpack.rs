//! Unpacking, on the assumption that the archive was made to harm us.
//!
//! Nothing outside the destination is ever touched: paths are checked as text first, and every system call then works on a
//! directory that was opened below the destination without following links. Files are always created anew, never
//! opened for writing, so a hard link into someone else's file cannot be written through either.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use base::Sha256;
use rustix::fs::{
    self as sys, AtFlags, FileType, Mode, OFlags, Timespec, Timestamps, fchmod, futimens,
};
use rustix::io::Errno;

use super::beneath::Beneath;
use super::error::shown;
use super::path::split;
use super::stream::{TarEntry, TarReader};
use super::{ArchiveError, EntryKind, Summary, UnpackLimits};

/// Piece in which files are written and compared, in bytes.
const COPY_BYTES: usize = 128 << 10;
/// Owner of what lay in the destination before the first archive.
const DESTINATION: &str = "the destination itself";

/// What happens when two archives unpacked into one directory hold different things under one name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Conflicts {
    /// An error that names both archives. The same file twice is no conflict.
    #[default]
    Refuse,
    /// The archive unpacked later wins, as upstream's overlays do. A directory is still never replaced by a file.
    Overlay,
}

/// Unpacks archives into one directory, one after the other. Directories of the same name are merged.
#[derive(Debug)]
pub struct Unpacker {
    dest: PathBuf,
    beneath: Beneath,
    limits: UnpackLimits,
    conflicts: Conflicts,
    archives: Vec<String>,
    /// Which archive brought which path; paths by the first half of their digest, to bound memory.
    owners: HashMap<[u8; 16], usize>,
    buffer: Vec<u8>,
}

/// Unpacks one archive below `dest`, which must exist.
///
/// # Errors
/// [`ArchiveError`] naming the entry and the reason.
pub fn unpack(
    reader: impl Read,
    dest: &Path,
    limits: &UnpackLimits,
) -> Result<Summary, ArchiveError> {
    Unpacker::new(dest, limits, Conflicts::Refuse)?.unpack("archive", reader)
}

impl Unpacker {
    /// Unpacks below `dest`, which must exist. The limits are for each archive.
    ///
    /// # Errors
    /// [`ArchiveError`] when `dest` cannot be opened.
    pub fn new(
        dest: &Path,
        limits: &UnpackLimits,
        conflicts: Conflicts,
    ) -> Result<Self, ArchiveError> {
        let root = File::open(dest).map_err(|e| ArchiveError::io("open", dest, e))?;
        Ok(Self {
            dest: dest.to_owned(),
            beneath: Beneath::new(root.into()),
            limits: *limits,
            conflicts,
            archives: Vec::new(),
            owners: HashMap::new(),
            buffer: vec![0; COPY_BYTES],
        })
    }

    /// Unpacks one archive (`.tar.zst`, `.tar.gz` or `.tar`, told by its first bytes); `name` is for error messages.
    /// After an error the destination holds a part of it.
    ///
    /// # Errors
    /// [`ArchiveError`] naming the entry and the reason.
    pub fn unpack(&mut self, name: &str, reader: impl Read) -> Result<Summary, ArchiveError> {
        let mut tar = TarReader::new(name, reader, &self.limits)?;
        let archive = self.archives.len();
        self.archives.push(name.to_owned());
        let mut summary = Summary::default();
        let mut directories = Vec::new();
        while let Some(entry) = tar.next_entry()? {
            if entry.path.is_empty() {
                continue;
            }
            let owner = self.owners.insert(key(&entry.path), archive);
            if owner == Some(archive) {
                return Err(tar.refused(&entry.path, "it occurs twice"));
            }
            self.place(&entry, owner, &mut tar)?;
            summary.entries += 1;
            summary.unpacked_bytes += entry.size;
            if entry.kind == EntryKind::Directory {
                directories.push((entry.path, entry.mtime));
            }
        }
        // Files placed later changed the times of their directories.
        for (path, mtime) in directories {
            let dir = self
                .beneath
                .open_dir(&path)
                .map_err(|e| self.failed("open", &path, e))?;
            set_times(&dir, mtime).map_err(|e| self.failed("set the time of", &path, e))?;
        }
        Ok(summary)
    }

    fn place(
        &mut self,
        entry: &TarEntry,
        owner: Option<usize>,
        tar: &mut TarReader<'_>,
    ) -> Result<(), ArchiveError> {
        let created = match &entry.kind {
            EntryKind::Directory => self.create_dir(entry),
            EntryKind::File => return self.place_file(entry, owner, tar),
            EntryKind::Symlink(target) => self.create_symlink(entry, target),
            EntryKind::HardLink(target) => {
                self.check_hard_link(entry, target, tar)?;
                self.create_hard_link(entry, target)
            }
        };
        match created {
            Ok(()) => Ok(()),
            Err(Errno::EXIST) if self.is_same(entry)? => Ok(()),
            Err(Errno::EXIST) => {
                self.make_way(entry, owner, tar)?;
                let again = match &entry.kind {
                    EntryKind::Symlink(target) => self.create_symlink(entry, target),
                    EntryKind::HardLink(target) => self.create_hard_link(entry, target),
                    EntryKind::Directory | EntryKind::File => self.create_dir(entry),
                };
                again.map_err(|e| self.entry_error(entry, tar, e))
            }
            Err(e) => Err(self.entry_error(entry, tar, e)),
        }
    }

    fn place_file(
        &mut self,
        entry: &TarEntry,
        owner: Option<usize>,
        tar: &mut TarReader<'_>,
    ) -> Result<(), ArchiveError> {
        let file = match self.create_file(entry) {
            Err(Errno::EXIST) if self.conflicts == Conflicts::Refuse => {
                return if self.is_same_file(entry, tar)? {
                    Ok(())
                } else {
                    Err(self.conflict(entry, owner, tar))
                };
            }
            Err(Errno::EXIST) => {
                self.make_way(entry, owner, tar)?;
                self.create_file(entry)
            }
            other => other,
        };
        let mut file = File::from(file.map_err(|e| self.entry_error(entry, tar, e))?);
        loop {
            let length = tar.read(&mut self.buffer).map_err(|e| tar.read_error(e))?;
            if length == 0 {
                break;
            }
            file.write_all(&self.buffer[..length])
                .map_err(|e| ArchiveError::io("write", &self.full(&entry.path), e))?;
        }
        // Readable to its owner at least: packages are read again to be checked.
        fchmod(&file, Mode::from_raw_mode(entry.mode | 0o400))
            .and_then(|()| set_times(&file, entry.mtime))
            .map_err(|e| self.failed("finish", &entry.path, e))
    }

    fn create_file(&mut self, entry: &TarEntry) -> Result<OwnedFd, Errno> {
        let (_, name) = split(&entry.path);
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let parent = self.beneath.parent(&entry.path)?;
        sys::openat(parent, name, flags, Mode::from_raw_mode(0o600))
    }

    fn create_dir(&mut self, entry: &TarEntry) -> Result<(), Errno> {
        let (_, name) = split(&entry.path);
        sys::mkdirat(
            self.beneath.parent(&entry.path)?,
            name,
            Mode::from_raw_mode(0o700),
        )?;
        let dir = self.beneath.open_dir(&entry.path)?;
        fchmod(dir, Mode::from_raw_mode(entry.mode | 0o700))
    }

    fn create_symlink(&mut self, entry: &TarEntry, target: &[u8]) -> Result<(), Errno> {
        let (_, name) = split(&entry.path);
        let parent = self.beneath.parent(&entry.path)?;
        sys::symlinkat(target, parent, name)?;
        sys::utimensat(parent, name, &times(entry.mtime), AtFlags::SYMLINK_NOFOLLOW)
    }

    fn create_hard_link(&mut self, entry: &TarEntry, target: &[u8]) -> Result<(), Errno> {
        let (target_dir, target_name) = split(target);
        let (_, name) = split(&entry.path);
        let target_dir = self.beneath.open_dir(target_dir)?;
        let parent = self.beneath.parent(&entry.path)?;
        sys::linkat(target_dir, target_name, parent, name, AtFlags::empty())
    }

    /// A hard link may lead only to a regular file that the same archive brought.
    fn check_hard_link(
        &mut self,
        entry: &TarEntry,
        target: &[u8],
        tar: &TarReader<'_>,
    ) -> Result<(), ArchiveError> {
        let own = self.archives.len() - 1;
        let is_own = self.owners.get(&key(target)) == Some(&own) && entry.path != target;
        let stat = self
            .beneath
            .stat(target)
            .map_err(|e| self.entry_error(entry, tar, e))?;
        if !is_own || !stat.is_some_and(|stat| FileType::from_raw_mode(stat.st_mode).is_file()) {
            return Err(tar.refused(
                &entry.path,
                "its hard link leads to no earlier file of the archive",
            ));
        }
        Ok(())
    }

    /// Whether what is there already is what the entry would make. Files are compared by [`Self::is_same_file`].
    fn is_same(&mut self, entry: &TarEntry) -> Result<bool, ArchiveError> {
        let stat = self
            .beneath
            .stat(&entry.path)
            .map_err(|e| self.failed("examine", &entry.path, e))?;
        let Some(stat) = stat else { return Ok(false) };
        let file_type = FileType::from_raw_mode(stat.st_mode);
        match &entry.kind {
            EntryKind::Directory => Ok(file_type.is_dir()),
            EntryKind::Symlink(target) if file_type.is_symlink() => {
                let (_, name) = split(&entry.path);
                let found = self
                    .beneath
                    .parent(&entry.path)
                    .and_then(|parent| sys::readlinkat(parent, name, Vec::new()))
                    .map_err(|e| self.failed("read", &entry.path, e))?;
                Ok(found.as_bytes() == &target[..])
            }
            EntryKind::HardLink(target) if file_type.is_file() => {
                let first = self.open_file(&entry.path)?;
                let mut second = self.open_file(target)?;
                self.is_equal(first, &entry.path, &mut second, |e| {
                    ArchiveError::io("read", &self.full(target), e)
                })
            }
            EntryKind::Symlink(_) | EntryKind::HardLink(_) | EntryKind::File => Ok(false),
        }
    }

    /// Whether the file that is there has the bytes and the executable bits of the entry.
    fn is_same_file(
        &mut self,
        entry: &TarEntry,
        tar: &mut TarReader<'_>,
    ) -> Result<bool, ArchiveError> {
        let stat = self
            .beneath
            .stat(&entry.path)
            .map_err(|e| self.failed("examine", &entry.path, e))?;
        let is_candidate = stat.is_some_and(|stat| {
            FileType::from_raw_mode(stat.st_mode).is_file()
                && u64::try_from(stat.st_size) == Ok(entry.size)
                && (stat.st_mode ^ entry.mode) & 0o111 == 0
        });
        if !is_candidate {
            return Ok(false);
        }
        let existing = self.open_file(&entry.path)?;
        let archive = tar.archive().to_owned();
        self.is_equal(existing, &entry.path, tar, |source| ArchiveError::Read {
            archive: archive.clone(),
            source,
        })
    }

    fn is_equal(
        &self,
        mut existing: File,
        path: &[u8],
        other: &mut impl Read,
        failed: impl Fn(io::Error) -> ArchiveError,
    ) -> Result<bool, ArchiveError> {
        let mut theirs = vec![0; COPY_BYTES];
        let mut ours = vec![0; COPY_BYTES];
        loop {
            let length = other.read(&mut theirs).map_err(&failed)?;
            let ours = &mut ours[..length.max(1)];
            let read = read_full(&mut existing, ours)
                .map_err(|e| ArchiveError::io("read", &self.full(path), e))?;
            if read != length || ours[..read] != theirs[..length] {
                return Ok(false);
            }
            if length == 0 {
                return Ok(true);
            }
        }
    }

    /// Removes what stands in the way of an entry, if the policy is to overlay and it is no directory.
    fn make_way(
        &mut self,
        entry: &TarEntry,
        owner: Option<usize>,
        tar: &TarReader<'_>,
    ) -> Result<(), ArchiveError> {
        let stat = self
            .beneath
            .stat(&entry.path)
            .map_err(|e| self.failed("examine", &entry.path, e))?;
        let is_dir = stat.is_some_and(|stat| FileType::from_raw_mode(stat.st_mode).is_dir());
        if self.conflicts == Conflicts::Refuse || is_dir {
            return Err(self.conflict(entry, owner, tar));
        }
        let (_, name) = split(&entry.path);
        self.beneath
            .parent(&entry.path)
            .and_then(|parent| sys::unlinkat(parent, name, AtFlags::empty()))
            .map_err(|e| self.failed("replace", &entry.path, e))
    }

    fn conflict(
        &self,
        entry: &TarEntry,
        owner: Option<usize>,
        tar: &TarReader<'_>,
    ) -> ArchiveError {
        let first = owner.and_then(|owner| self.archives.get(owner));
        ArchiveError::Conflict {
            entry: shown(&entry.path),
            first: first.map_or_else(|| DESTINATION.to_owned(), Clone::clone),
            second: tar.archive().to_owned(),
        }
    }

    fn open_file(&mut self, path: &[u8]) -> Result<File, ArchiveError> {
        self.beneath
            .open_file(path)
            .map(File::from)
            .map_err(|e| self.failed("open", path, e))
    }

    /// Names what the system refused where the archive is to blame for it.
    fn entry_error(&self, entry: &TarEntry, tar: &TarReader<'_>, error: Errno) -> ArchiveError {
        match error {
            Errno::LOOP | Errno::XDEV => tar.refused(&entry.path, "it lies behind a symbolic link"),
            Errno::NOTDIR => {
                tar.refused(&entry.path, "it lies below something that is no directory")
            }
            other => self.failed("create", &entry.path, other),
        }
    }

    fn failed(&self, op: &'static str, path: &[u8], error: Errno) -> ArchiveError {
        ArchiveError::io(op, &self.full(path), error)
    }

    fn full(&self, path: &[u8]) -> PathBuf {
        self.dest.join(std::ffi::OsStr::from_bytes(path))
    }
}

fn key(path: &[u8]) -> [u8; 16] {
    let mut key = [0; 16];
    key.copy_from_slice(&Sha256::of(path).as_bytes()[..16]);
    key
}

/// Fills the buffer unless the file ends first.
fn read_full(file: &mut File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(length) => filled += length,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(filled)
}

fn times(mtime: u64) -> Timestamps {
    let time = Timespec {
        tv_sec: i64::try_from(mtime).unwrap_or(0),
        tv_nsec: 0,
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}

fn set_times(file: &impl std::os::fd::AsFd, mtime: u64) -> Result<(), Errno> {
    futimens(file, &times(mtime))
}
