//! A package tree as a UnixFS directory: `pkg/NAME/…` as recipes are read, and nothing else of the disk.
//!
//! The same recipes give the same root on every machine: entries are sorted, times and owners are left out, the only mode is
//! 755 for what its owner may execute, and folders that hold nothing are not there.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use base::{Cid, PackageName};
use recipe::limits::{FILES_BYTES_MAX, PATH_DEPTH_MAX};
use store::dag::{Profile, Subtree, build_directory, build_file, build_symlink, with_mode};
use store::{BLOCK_BYTES_MAX, Block};

use super::{EXECUTABLE, FILES, PACKAGES, TREE_BYTES_MAX, TREE_ENTRIES_MAX};
use crate::error::{CmdResult, Exit, Failure};
use crate::tree::DiskTree;

/// Largest directory in bytes that is one block, with room for what stands around it.
const DIRECTORY_BYTES_MAX: u64 = BLOCK_BYTES_MAX as u64 / 2;

/// A tree that was packed.
#[derive(Debug)]
pub struct Packed {
    /// The root.
    pub root: Cid,
    /// What lies in `pkg/` and is no part of recipes; folders below `files/` that hold nothing are not told.
    pub left_out: Vec<PathBuf>,
}

/// Packs the recipes of a tree; each block goes to `sink`.
///
/// # Errors
/// When they cannot be read, or are more than anybody would take.
pub fn pack(tree: &DiskTree, sink: &mut dyn FnMut(Block)) -> CmdResult<Packed> {
    let mut packing = Packing {
        sink,
        bytes: 0,
        entries: 0,
        left_out: Vec::new(),
    };
    let mut packages = Vec::new();
    for (name, folder) in listed(&tree.root().join(PACKAGES))? {
        if name.parse::<PackageName>().is_err() || !folder.is_dir() {
            packing.left_out.push(folder);
        } else if let Some(package) = packing.package(&folder).map_err(cannot_pack(&folder))? {
            packages.push((name, package));
        }
    }
    let packages = packing.directory(packages)?;
    let root = packing.directory(vec![(PACKAGES.to_owned(), packages)])?;
    Ok(Packed {
        root: root.cid,
        left_out: packing.left_out,
    })
}

fn cannot_pack(path: &Path) -> impl FnOnce(Failure) -> Failure + '_ {
    move |failure| failure.context(format!("cannot pack `{}`", path.display()))
}

struct Packing<'a> {
    sink: &'a mut dyn FnMut(Block),
    bytes: u64,
    entries: u64,
    left_out: Vec<PathBuf>,
}

impl Packing<'_> {
    /// A package's folder; links to its files are read as the tree reads them: what they lead to.
    fn package(&mut self, folder: &Path) -> CmdResult<Option<Subtree>> {
        let mut entries = Vec::new();
        for (name, path) in listed(folder)? {
            let kind = fs::metadata(&path)?;
            let packed = if kind.is_file() {
                Some(self.file(&path, &kind)?)
            } else if kind.is_dir() && name == FILES {
                self.folder(&path, 0)?
            } else {
                self.left_out.push(path);
                None
            };
            entries.extend(packed.map(|packed| (name, packed)));
        }
        self.unless_empty(entries)
    }

    /// A folder below `files/`, where links are not followed.
    fn folder(&mut self, folder: &Path, depth: usize) -> CmdResult<Option<Subtree>> {
        if depth > PATH_DEPTH_MAX {
            return Err(Failure::new(Exit::Other, "it lies too deep"));
        }
        let mut entries = Vec::new();
        for (name, path) in listed(folder)? {
            let kind = fs::symlink_metadata(&path)?;
            let packed = if kind.is_dir() {
                self.folder(&path, depth + 1)?
            } else if kind.is_symlink() {
                let target = fs::read_link(&path)?.into_os_string().into_vec();
                self.count(target.len() as u64)?;
                Some(build_symlink(target.into(), &mut self.sink))
            } else {
                Some(self.file(&path, &kind)?)
            };
            entries.extend(packed.map(|packed| (name, packed)));
        }
        self.unless_empty(entries)
    }

    fn file(&mut self, path: &Path, kind: &fs::Metadata) -> CmdResult<Subtree> {
        if !kind.is_file() {
            let message = format!("`{}` is neither a file nor a link", path.display());
            return Err(Failure::new(Exit::Other, message));
        }
        if kind.len() > FILES_BYTES_MAX {
            return Err(Failure::new(
                Exit::Other,
                format!("`{}` is too large", path.display()),
            ));
        }
        // It may grow meanwhile.
        let file = File::open(path)?.take(FILES_BYTES_MAX);
        let packed = build_file(Profile::UNIXFS_V1_2025, file, &mut self.sink)?;
        self.count(packed.size)?;
        Ok(if kind.permissions().mode() & 0o100 == 0 {
            packed
        } else {
            with_mode(packed, EXECUTABLE, &mut self.sink)
        })
    }

    fn unless_empty(&mut self, entries: Vec<(String, Subtree)>) -> CmdResult<Option<Subtree>> {
        if entries.is_empty() {
            return Ok(None);
        }
        self.directory(entries).map(Some)
    }

    fn directory(&mut self, entries: Vec<(String, Subtree)>) -> CmdResult<Subtree> {
        let below: u64 = entries.iter().map(|(_, entry)| entry.tsize).sum();
        let directory = build_directory(entries, &mut self.sink);
        if directory.tsize - below > DIRECTORY_BYTES_MAX {
            return Err(Failure::new(Exit::Other, "a folder of too many files"));
        }
        Ok(directory)
    }

    fn count(&mut self, bytes: u64) -> CmdResult {
        self.bytes += bytes;
        self.entries += 1;
        if self.bytes > TREE_BYTES_MAX || self.entries > TREE_ENTRIES_MAX {
            return Err(Failure::new(Exit::Other, "the tree is too large"));
        }
        Ok(())
    }
}

/// What lies in a folder. A name that is no text has no place in a directory that others read.
fn listed(folder: &Path) -> CmdResult<Vec<(String, PathBuf)>> {
    let mut entries = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().into_string().map_err(|name| {
            let shown = crate::sanitize::line(&name.to_string_lossy());
            io::Error::new(
                io::ErrorKind::InvalidData,
                format!("the name of `{shown}` is not UTF-8"),
            )
        })?;
        entries.push((name, entry.path()));
    }
    Ok(entries)
}
