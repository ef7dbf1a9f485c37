//! A package tree that remembers, in the home, what was read of its packages: a large tree costs a look at the times of its
//! files and not their bytes.
//!
//! When something is believed is said in [`super::belief`], what the file looks like in [`super::memory`]. It is a cache in
//! every respect: where it is missing, damaged, about something else or not to be written, folders are read. `rm -r recipes`
//! in the home makes everything be read again. What is hashed is always what is built, because the bytes of both come from
//! here; files below `files/` are compared with their digest when they are copied.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use base::{PackageName, Sha256};
use recipe::{PackageFiles, PackageSource};

use super::ahead::{holds, look_ahead};
use super::belief::may_be_remembered;
use super::memory::{FILE_BYTES_MAX, Memory, Remembered, Subject, encode};
use super::survey::Surveyor;
use super::{DiskTree, TreeError};
use crate::home::{Home, private_dir, write_bytes_atomically};

/// Where the home keeps it, a file for each tree.
const FOLDER: &str = "recipes";
/// Trees that are remembered; the one whose file is the oldest goes first.
const TREES_MAX: usize = 8;
/// Packages that a command must have read for the file to be written: to read fewer costs less than to write it. Trees
/// smaller than this are never remembered.
const FRESH_MIN: usize = 256;

/// A tree and what is known of it.
pub struct RememberingTree<'a> {
    tree: &'a DiskTree,
    known: Option<Known>,
}

struct Known {
    packages: PathBuf,
    file: PathBuf,
    surveyor: Surveyor,
    /// Before anything was read.
    began: SystemTime,
    memory: Memory,
    /// Of the remembered packages that were looked at, by position, whether they are as they were.
    looked: Vec<Option<bool>>,
    fresh: Vec<(PackageName, Vec<u8>)>,
}

impl<'a> RememberingTree<'a> {
    /// The tree with what the home remembers of it, if there is a home and the tree lies where times can be relied on.
    pub fn open(tree: &'a DiskTree, home: Option<&Home>, now: SystemTime) -> Self {
        let known = home
            .filter(|home| home.root().is_dir())
            .and_then(|home| Known::open(tree, home, now));
        Self { tree, known }
    }

    /// Looks at what these packages seem to need, all at once.
    pub fn expect(&mut self, roots: &[PackageName]) {
        if let Some(known) = &mut self.known {
            known.looked = look_ahead(&known.memory, &known.surveyor, roots);
        }
    }

    /// Writes down what this command has read, if that is worth it. Whether it works is nobody's concern.
    pub fn remember(self) {
        if let Some(known) = self.known
            && known.fresh.len() >= FRESH_MIN
            && let Err(error) = known.write(self.tree.root())
        {
            tracing::debug!(%error, "cannot remember the recipes");
        }
    }
}

impl PackageSource for RememberingTree<'_> {
    type Error = TreeError;

    fn load(&mut self, name: &PackageName) -> Result<Option<PackageFiles>, TreeError> {
        let folder = self.tree.package_dir(name);
        match &mut self.known {
            Some(known) => known.load(self.tree, name, &folder),
            None => self.tree.load_from(&folder),
        }
    }

    fn names(&self) -> Vec<PackageName> {
        self.tree.names()
    }
}

impl Known {
    fn open(tree: &DiskTree, home: &Home, began: SystemTime) -> Option<Self> {
        let packages = tree.root().join("pkg");
        let surveyor = Surveyor::open(&packages)?;
        let name = Sha256::of(tree.root().as_os_str().as_bytes()).to_hex();
        let file = home.path(FOLDER).join(name);
        let memory = read(&file)
            .and_then(|bytes| Memory::parse(bytes, subject(tree.root(), &surveyor)))
            .unwrap_or_default();
        Some(Self {
            packages,
            file,
            surveyor,
            began,
            memory,
            looked: Vec::new(),
            fresh: Vec::new(),
        })
    }

    fn load(
        &mut self,
        tree: &DiskTree,
        name: &PackageName,
        folder: &Path,
    ) -> Result<Option<PackageFiles>, TreeError> {
        if let Some(files) = self.recall(name) {
            return Ok(Some(files));
        }
        let before = self.surveyor.survey(name.as_str(), folder);
        let files = tree.load_from(folder)?;
        if let (Some(before), Some(files)) = (before, &files)
            && let Some(survey) = self.surveyor.survey(name.as_str(), folder)
            && may_be_remembered(&before, &survey, self.began)
        {
            let files = files.clone();
            let package = encode(name, &Remembered { survey, files });
            self.fresh
                .extend(package.map(|package| (name.clone(), package)));
        }
        Ok(files)
    }

    /// What is remembered of a package, if it still holds.
    fn recall(&self, name: &PackageName) -> Option<PackageFiles> {
        let position = self.memory.find(name)?;
        let entry = self.memory.entry(position)?;
        let looked = self.looked.get(position).copied().flatten();
        let holds = looked.unwrap_or_else(|| holds(&entry, &self.surveyor));
        holds.then(|| entry.files()).flatten()
    }

    fn write(self, tree: &Path) -> io::Result<()> {
        // What was seen must have been seen in the tree that was read, not in one that has given place to it.
        if !self.surveyor.is_at(&self.packages) {
            return Ok(());
        }
        let folder = self.file.parent().unwrap_or(&self.file);
        private_dir(folder)?;
        let bytes = self.memory.with(self.fresh, subject(tree, &self.surveyor));
        write_bytes_atomically(&self.file, &bytes, 0o600)?;
        remove_oldest(folder)
    }
}

fn subject<'a>(tree: &'a Path, surveyor: &Surveyor) -> Subject<'a> {
    Subject {
        tree: tree.as_os_str().as_bytes(),
        device: surveyor.device(),
    }
}

fn read(path: &Path) -> Option<Vec<u8>> {
    let file = File::open(path).ok()?;
    let size = usize::try_from(file.metadata().ok()?.len()).ok()?;
    let mut bytes = Vec::with_capacity(size.min(FILE_BYTES_MAX));
    file.take(FILE_BYTES_MAX as u64)
        .read_to_end(&mut bytes)
        .ok()?;
    Some(bytes)
}

/// Keeps the newest files, so that trees that are gone, and commands that were killed while they wrote, leave little.
fn remove_oldest(folder: &Path) -> io::Result<()> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        files.push((entry.metadata()?.modified()?, entry.path()));
    }
    files.sort();
    let surplus = files.len().saturating_sub(TREES_MAX);
    files[..surplus]
        .iter()
        .try_for_each(|(_, path)| fs::remove_file(path))
}

#[cfg(test)]
mod tests;
