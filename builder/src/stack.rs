//! The root of a build as a stack: the layers of its closure below, never changed, and one of its own above.
//!
//! The kernel does the stacking (overlayfs); here is decided what it shows. A stacked root must be what unpacking the same
//! outputs over each other gives, so a file that would hide a directory is refused here as it is there. What the build
//! works in (`/home`, `/tmp`, `$DESTDIR`) is in no layer and stays outside the stack: ordinary directories, where every
//! system call does what it does anywhere else.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use store::archive::ArchiveError;

use crate::error::Error;
use crate::layers::Layer;
use crate::request::{Mount, Stack};
use crate::root::{RESERVED, SKELETON, make_dir, stamp_dir, write_accounts};
use crate::scratch::Scratch;
use crate::surroundings::Surroundings;

/// Most layers that the kernel stacks (`OVL_MAX_STACK`).
pub(crate) const LAYERS_MAX: usize = 500;
/// Directories of the skeleton that are not stacked unless a layer brings something for them.
const APART: [&str; 3] = ["destdir", "home", "tmp"];
/// Where the stack becomes visible, in the scratch directory.
const MERGED: &str = "merged";
/// What the build changes.
const UPPER: &str = "upper";
/// Where the kernel prepares changes.
const WORK: &str = "work";
/// Digits of the layers' names: short names, for all of them have to fit into one page.
const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";

/// What a name directly below the root is, in the uppermost layer that has it.
#[derive(Debug, PartialEq, Eq)]
enum Top {
    Directory,
    File,
    Link(PathBuf),
}

impl Stack {
    /// Stacks these layers, the last one uppermost, in a scratch directory. Also says what of it a build is to be shown.
    pub(crate) fn of(scratch: &Scratch, layers: &[Layer]) -> Result<(Self, Vec<Mount>), Error> {
        refuse_hidden_directories(layers)?;
        let mut tops = BTreeMap::new();
        for layer in layers {
            tops.append(&mut read_top(&layer.root())?);
        }
        tops.retain(|name, _| !RESERVED.iter().any(|reserved| name == reserved));
        let dir = scratch.path();
        let stack = Self::in_dir(dir, layers.iter().map(Layer::root))?;
        let upper = dir.join(UPPER);
        let root = scratch.root();
        make_dir(&root)?;
        let mut mounts = BTreeMap::new();
        for name in SKELETON.map(OsString::from) {
            // Files are written into it: not through a link, wherever it may lead.
            let is_etc = name == "etc" && tops.get(&name) != Some(&Top::Directory);
            if tops.contains_key(&name) && !is_etc {
                continue;
            }
            if APART.iter().any(|apart| name == *apart) {
                let from = root.join(&name);
                make_dir(&from)?;
                let at = Path::new("/").join(&name);
                mounts.insert(name, Mount::Writable { from, at });
            } else {
                make_dir(&upper.join(&name))?;
                tops.insert(name, Top::Directory);
            }
        }
        make_dir(&upper.join("etc"))?;
        write_accounts(&upper.join("etc"), Surroundings::Usual)?;
        for (name, _) in tops.iter().filter(|(name, _)| upper.join(name).is_dir()) {
            stamp_dir(&upper.join(name))?;
        }
        mounts.extend(tops.into_iter().map(|(name, top)| {
            let at = Path::new("/").join(&name);
            let mount = match top {
                Top::Link(target) => Mount::Symlink { target, at },
                Top::Directory | Top::File => Mount::Writable {
                    from: dir.join(MERGED).join(&name),
                    at,
                },
            };
            (name, mount)
        }));
        Ok((stack, mounts.into_values().collect()))
    }

    /// Stacks directories, the last one uppermost, with an empty one above. Nothing is mounted yet.
    pub(crate) fn in_dir(
        dir: &Path,
        lower: impl IntoIterator<Item = PathBuf>,
    ) -> Result<Self, Error> {
        for name in [MERGED, UPPER, WORK] {
            make_dir(&dir.join(name))?;
        }
        Self::over(dir, lower)
    }

    /// Stacks directories below what was changed in an earlier stack at the same place.
    pub(crate) fn over(
        dir: &Path,
        lower: impl IntoIterator<Item = PathBuf>,
    ) -> Result<Self, Error> {
        let mut layers = 0;
        for target in lower {
            let link = dir.join(layer_name(layers));
            match fs::remove_file(&link) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => {
                    return Err(Error::io("remove", &link, e));
                }
                _ => {}
            }
            symlink(target, &link).map_err(|e| Error::io("create", &link, e))?;
            layers += 1;
        }
        let dir = dir.to_owned();
        Ok(Self { dir, layers })
    }

    /// Where it is mounted, relative to [`Self::dir`].
    pub(crate) const fn place(&self) -> &'static str {
        MERGED
    }

    /// The options of overlayfs. All paths are relative to [`Self::dir`]: so none needs quoting, and they are short.
    pub(crate) fn options(&self) -> String {
        let mut options = String::from("userxattr,lowerdir=");
        for index in (0..self.layers).rev() {
            options.push_str(&layer_name(index));
            options.push(if index == 0 { ',' } else { ':' });
        }
        let _ = write!(options, "upperdir={UPPER},workdir={WORK}");
        options
    }
}

/// A layer's name in the scratch directory: `_` and its number.
fn layer_name(index: usize) -> String {
    let (high, low) = (index / DIGITS.len(), index % DIGITS.len());
    let mut name = String::from("_");
    if high > 0 {
        name.push(char::from(DIGITS[high % DIGITS.len()]));
    }
    name.push(char::from(DIGITS[low]));
    name
}

/// A directory is never replaced by a file: what the layers below have in it would be gone.
pub(crate) fn refuse_hidden_directories(layers: &[Layer]) -> Result<(), Error> {
    let mut directories: HashMap<&[u8], &str> = HashMap::new();
    for layer in layers {
        for (path, is_dir) in &layer.entries.paths {
            if *is_dir {
                directories.entry(path).or_insert(&layer.name);
            } else if let Some(first) = directories.get(&path[..]) {
                let entry = String::from_utf8_lossy(path).escape_debug().to_string();
                let (first, second) = ((*first).to_owned(), layer.name.clone());
                let conflict = ArchiveError::Conflict {
                    entry,
                    first,
                    second,
                };
                return Err(Error::archive(&layer.name, conflict));
            }
        }
    }
    Ok(())
}

fn read_top(root: &Path) -> Result<BTreeMap<OsString, Top>, Error> {
    let read = || -> io::Result<_> {
        let mut tops = BTreeMap::new();
        for entry in fs::read_dir(root)? {
            let entry = entry?;
            let kind = entry.file_type()?;
            let top = if kind.is_dir() {
                Top::Directory
            } else if kind.is_symlink() {
                Top::Link(fs::read_link(entry.path())?)
            } else {
                Top::File
            };
            tops.insert(entry.file_name(), top);
        }
        Ok(tops)
    };
    read().map_err(|e| Error::io("read", root, e))
}
