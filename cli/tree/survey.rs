//! Takes the facts of a package's files, relative to the open folder of all packages.
//!
//! Nothing is opened but folders that are listed. Files of the package itself are followed where they are links, as they are
//! when they are read; below `files/` links are entries of their own.

use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Stat, fstat, fstatfs, statat};

use super::belief::{Facts, Seen, Survey};

/// The folder of a package that may hold more than plain files.
const FILES: &str = "files";
/// How the path of everything in it begins.
const BELOW_FILES: &str = "files/";
/// A package's files that are read. Of others only the name counts, of which the folder's own facts tell.
const READ: [&str; 7] = [
    "build",
    "build-deps",
    "check",
    "check-deps",
    "fetch",
    FILES,
    "run-deps",
];
/// Most files and folders of a package that is remembered; those with more are few, and read each time.
pub const SEEN_MAX: usize = 1000;
/// File systems whose times and inode numbers mean what they say, by the kernel's numbers for them (`statfs(2)`): ext2 to ext4,
/// XFS, Btrfs, F2FS, ZFS, bcachefs, tmpfs, overlayfs. Others may keep times on another machine's clock, or for themselves.
const RELIABLE: [u64; 8] = [
    0xef53,
    0x5846_5342,
    0x9123_683e,
    0xf2f5_2010,
    0x2fc1_2fc1,
    0xca45_1a4e,
    0x0102_1994,
    0x794c_7630,
];

/// The folder that holds all packages, held open: what is seen below it is seen in one and the same tree.
#[derive(Debug)]
pub struct Surveyor {
    packages: File,
    device: u64,
}

impl Surveyor {
    /// Looks at the packages of a folder; `None` where times cannot be relied on.
    pub fn open(packages: &Path) -> Option<Self> {
        let packages = File::open(packages).ok()?;
        let kind = fstatfs(&packages).ok()?.f_type;
        // The kernel's type has a sign on some machines; the numbers have 32 bits on all.
        let kind = u64::from(kind as u32);
        let device = fstat(&packages).ok()?.st_dev;
        RELIABLE
            .contains(&kind)
            .then_some(Self { packages, device })
    }

    /// Whether a path leads to the folder that is held open. It does not any more when another was put in its place.
    pub fn is_at(&self, packages: &Path) -> bool {
        let there = rustix::fs::stat(packages).map(|stat| (stat.st_dev, stat.st_ino));
        let here = fstat(&self.packages).map(|stat| (stat.st_dev, stat.st_ino));
        there.is_ok() && there == here
    }

    /// The device that the packages lie on.
    pub const fn device(&self) -> u64 {
        self.device
    }

    /// What is at a path of a package now; `None` if it is missing or lies on another device.
    pub fn facts(&self, package: &str, path: &str) -> Option<Facts> {
        self.stat(package, path).map(|stat| facts(&stat))
    }

    fn stat(&self, package: &str, path: &str) -> Option<Stat> {
        let flags = if path.starts_with(BELOW_FILES) {
            AtFlags::SYMLINK_NOFOLLOW
        } else {
            AtFlags::empty()
        };
        let whole = if path.is_empty() {
            package.to_owned()
        } else {
            [package, path].join("/")
        };
        let stat = statat(&self.packages, whole, flags).ok()?;
        (stat.st_dev == self.device).then_some(stat)
    }

    /// All that a package's recipe is made of; `None` where that cannot be remembered: too many files, odd names, other
    /// devices, or something that is going away.
    pub fn survey(&self, package: &str, folder: &Path) -> Option<Survey> {
        let mut survey = vec![self.seen(package, String::new())?];
        let mut open = Vec::new();
        for name in names(folder).ok()?? {
            if READ.contains(&name.as_str()) {
                let is_files = name == FILES;
                survey.push(self.seen(package, name)?);
                open.extend(is_files.then(|| FILES.to_owned()));
            }
        }
        while let Some(parent) = open.pop() {
            for name in names(&folder.join(&parent)).ok()?? {
                let path = format!("{parent}/{name}");
                let stat = self.stat(package, &path)?;
                if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                    open.push(path.clone());
                }
                let facts = facts(&stat);
                survey.push(Seen { path, facts });
            }
            if survey.len() > SEEN_MAX {
                return None;
            }
        }
        Some(survey)
    }

    fn seen(&self, package: &str, path: String) -> Option<Seen> {
        let facts = self.facts(package, &path)?;
        Some(Seen { path, facts })
    }
}

/// What a folder holds, sorted; `None` if something has a name that is no text, or there is too much.
fn names(folder: &Path) -> io::Result<Option<Vec<String>>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        match String::from_utf8(entry?.file_name().as_bytes().to_vec()) {
            Ok(name) if names.len() <= SEEN_MAX => names.push(name),
            _ => return Ok(None),
        }
    }
    names.sort();
    Ok(Some(names))
}

fn facts(stat: &Stat) -> Facts {
    let nanoseconds = |secs: i64, nanos| {
        let nanos = i64::try_from(nanos).unwrap_or(i64::MAX);
        secs.saturating_mul(1_000_000_000).saturating_add(nanos)
    };
    Facts {
        inode: stat.st_ino,
        mode: stat.st_mode,
        size: stat.st_size.unsigned_abs(),
        mtime_ns: nanoseconds(stat.st_mtime, stat.st_mtime_nsec),
        ctime_ns: nanoseconds(stat.st_ctime, stat.st_ctime_nsec),
    }
}
