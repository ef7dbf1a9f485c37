//! A directory out of which no path leads: every name is resolved below it, and never through a symbolic link.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{self, AtFlags, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use super::path::{components, split};

/// How often a lookup is tried again when the kernel saw a rename at the same moment.
const RACE_ATTEMPTS: usize = 8;

const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// A directory and what is below it. All paths given are normalised (see [`super::path::normalise`]).
#[derive(Debug)]
pub(super) struct Beneath {
    root: OwnedFd,
    /// The kernel has `openat2` and lets us use it.
    has_openat2: bool,
    /// The directory used last: archives come sorted, so it is the right one most of the time.
    last: Option<(Vec<u8>, OwnedFd)>,
}

impl Beneath {
    pub(super) fn new(root: OwnedFd) -> Self {
        Self {
            root,
            has_openat2: true,
            last: None,
        }
    }

    /// Never uses `openat2`, as on an old kernel.
    #[cfg(test)]
    pub(super) fn without_openat2(root: OwnedFd) -> Self {
        Self {
            has_openat2: false,
            ..Self::new(root)
        }
    }

    /// The directory that holds `path`, made with its own parents where missing.
    pub(super) fn parent(&mut self, path: &[u8]) -> Result<BorrowedFd<'_>, Errno> {
        let (dir, _) = split(path);
        if dir.is_empty() {
            return Ok(self.root.as_fd());
        }
        if self.last.as_ref().is_none_or(|(last, _)| last != dir) {
            let fd = match self.open(dir, DIRECTORY) {
                Err(Errno::NOENT) => self.make(dir)?,
                other => other?,
            };
            self.last = Some((dir.to_vec(), fd));
        }
        // Just filled; the root is what an empty directory name would mean.
        Ok(self
            .last
            .as_ref()
            .map_or(self.root.as_fd(), |(_, fd)| fd.as_fd()))
    }

    /// Opens a directory below.
    pub(super) fn open_dir(&mut self, path: &[u8]) -> Result<OwnedFd, Errno> {
        self.open(path, DIRECTORY)
    }

    /// Opens a regular file below for reading.
    pub(super) fn open_file(&mut self, path: &[u8]) -> Result<OwnedFd, Errno> {
        // NONBLOCK: should it be a pipe after all, opening it must not wait for a writer.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        self.open(path, flags)
    }

    /// What is at `path` itself; `None` when there is nothing.
    pub(super) fn stat(&mut self, path: &[u8]) -> Result<Option<Stat>, Errno> {
        let (dir, name) = split(path);
        let parent = match self.open(dir, DIRECTORY) {
            Ok(parent) => parent,
            Err(Errno::NOENT) => return Ok(None),
            Err(e) => return Err(e),
        };
        match fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Where the symbolic link at `path` points.
    pub(super) fn target(&mut self, path: &[u8]) -> Result<Vec<u8>, Errno> {
        let (dir, name) = split(path);
        let parent = self.open(dir, DIRECTORY)?;
        let target = fs::readlinkat(&parent, name, Vec::new())?;
        Ok(target.into_bytes())
    }

    fn open(&mut self, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
        if path.is_empty() {
            return fs::openat(&self.root, c".", flags, Mode::empty());
        }
        if self.has_openat2 {
            let resolve =
                ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
            // Together with NOFOLLOW a link would be reported as "not a directory" instead of as a link.
            let flags = flags.difference(OFlags::NOFOLLOW);
            for _ in 0..RACE_ATTEMPTS {
                match fs::openat2(&self.root, path, flags, Mode::empty(), resolve) {
                    Err(Errno::AGAIN) => {}
                    // Not there before Linux 5.6, and forbidden by some container runtimes.
                    Err(Errno::NOSYS | Errno::PERM) => break,
                    other => return other,
                }
            }
            self.has_openat2 = false;
        }
        self.open_stepwise(path, flags)
    }

    /// What `openat2` does, one component at a time.
    fn open_stepwise(&self, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
        let (dir, name) = split(path);
        let mut current = fs::openat(&self.root, c".", DIRECTORY, Mode::empty())?;
        for component in components(dir) {
            current = step(
                fs::openat(&current, component, DIRECTORY, Mode::empty()),
                &current,
                component,
            )?;
        }
        step(
            fs::openat(&current, name, flags | OFlags::NOFOLLOW, Mode::empty()),
            &current,
            name,
        )
    }

    /// Makes a directory and its parents.
    fn make(&self, path: &[u8]) -> Result<OwnedFd, Errno> {
        let mut current = fs::openat(&self.root, c".", DIRECTORY, Mode::empty())?;
        for component in components(path) {
            match fs::mkdirat(&current, component, Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(e) => return Err(e),
            }
            current = step(
                fs::openat(&current, component, DIRECTORY, Mode::empty()),
                &current,
                component,
            )?;
        }
        Ok(current)
    }
}

/// `O_DIRECTORY | O_NOFOLLOW` on a symbolic link says "not a directory"; we say, as `openat2` does, that it is a link.
fn step(opened: Result<OwnedFd, Errno>, dir: &OwnedFd, name: &[u8]) -> Result<OwnedFd, Errno> {
    match opened {
        Err(Errno::NOTDIR) if is_symlink(dir, name) => Err(Errno::LOOP),
        other => other,
    }
}

fn is_symlink(dir: &OwnedFd, name: &[u8]) -> bool {
    fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)
        .is_ok_and(|stat| fs::FileType::from_raw_mode(stat.st_mode).is_symlink())
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::symlink;

    use super::*;

    /// Runs a check with and without `openat2`.
    fn both(check: impl Fn(Beneath, &std::path::Path)) {
        let constructors: [fn(OwnedFd) -> Beneath; 2] = [Beneath::new, Beneath::without_openat2];
        for new in constructors {
            let dir = tempfile::tempdir().unwrap();
            check(new(File::open(dir.path()).unwrap().into()), dir.path());
        }
    }

    #[test]
    fn directories_are_made_where_missing() {
        both(|mut beneath, dir| {
            beneath.parent(b"a/b/c").unwrap();
            assert!(dir.join("a/b").is_dir());
            assert!(!dir.join("a/b/c").exists());
        });
    }

    #[test]
    fn no_step_follows_a_symbolic_link() {
        both(|mut beneath, dir| {
            std::fs::create_dir(dir.join("real")).unwrap();
            std::fs::write(dir.join("real/file"), "x").unwrap();
            symlink("real", dir.join("link")).unwrap();
            symlink("real/file", dir.join("filelink")).unwrap();
            symlink("/", dir.join("outside")).unwrap();
            assert_eq!(beneath.parent(b"link/new").unwrap_err(), Errno::LOOP);
            assert_eq!(beneath.parent(b"link/new/deeper").unwrap_err(), Errno::LOOP);
            assert_eq!(beneath.parent(b"outside/tmp/x").unwrap_err(), Errno::LOOP);
            assert_eq!(beneath.open_file(b"filelink").unwrap_err(), Errno::LOOP);
            assert!(beneath.open_file(b"real/file").is_ok());
            assert_eq!(beneath.parent(b"real/file/x").unwrap_err(), Errno::NOTDIR);
        });
    }

    #[test]
    fn what_is_there_is_described_without_following() {
        both(|mut beneath, dir| {
            symlink("nowhere", dir.join("link")).unwrap();
            let stat = beneath.stat(b"link").unwrap().unwrap();
            assert!(fs::FileType::from_raw_mode(stat.st_mode).is_symlink());
            assert!(beneath.stat(b"missing").unwrap().is_none());
            assert!(beneath.stat(b"missing/too").unwrap().is_none());
        });
    }
}
