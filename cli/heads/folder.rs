//! A folder of the user's that holds a synced tree: its `pkg/` is replaced as a whole, in one step, and never against the
//! user's will.
//!
//! The file `.p2pkgs-tree` says what `pkg/` was when it was put there. While `pkg/` packs to that root, nobody has changed
//! anything. Before two trees are exchanged the file names both, so a process that is killed in between leaves no doubt.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use base::rec::{self, Record};
use base::{Cid, PackageName, parse_root};
use rustix::fs::{CWD, RenameFlags, renameat_with, syncfs};

use super::{PACKAGES, pack};
use crate::error::{CmdResult, Exit, Failure};
use crate::home::write_atomically;
use crate::keys::{reading, writing};
use crate::tree::DiskTree;

/// What makes a folder one of ours.
const MARKER: &str = ".p2pkgs-tree";
/// Where the next tree is written, and where the last one goes.
const BESIDE: &str = ".p2pkgs-tree.next";

/// A folder that holds a synced tree, or is to.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    /// What `pkg/` may be without anybody having changed it.
    known: Vec<Cid>,
    /// What it is; `None` without one, if it cannot be read, or if there is more in it.
    root: Option<Cid>,
    has_packages: bool,
}

impl Folder {
    /// Looks at a folder, which may not be there yet.
    ///
    /// # Errors
    /// A usage error when it holds anything else, or another tree.
    pub fn open(path: &Path, name: &PackageName) -> CmdResult<Self> {
        let path = std::path::absolute(path)?;
        let known = match fs::read(path.join(MARKER)) {
            Ok(text) => {
                marked(&text, name).map_err(|f| f.context(format!("`{}`", path.display())))?
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                refuse_foreign(&path)?;
                Vec::new()
            }
            Err(error) => return Err(reading(&path.join(MARKER))(error)),
        };
        let packages = path.join(PACKAGES);
        let root = DiskTree::find(Some(&path))
            .and_then(|tree| pack(&tree, &mut |_| ()))
            .ok()
            .filter(|packed| packed.left_out.is_empty())
            .map(|packed| packed.root);
        Ok(Self {
            has_packages: packages.symlink_metadata().is_ok(),
            path,
            known,
            root,
        })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it holds this tree and nothing else.
    pub fn holds(&self, root: &Cid) -> bool {
        self.root == Some(*root)
    }

    /// Whether somebody has changed what was put there.
    pub fn is_changed(&self) -> bool {
        let is_known = |root: &Cid| self.known.contains(root);
        self.has_packages && !self.root.as_ref().is_some_and(is_known)
    }

    /// An empty folder beside the tree, on the same disk. What another process had left there goes.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn beside(&self) -> CmdResult<PathBuf> {
        let beside = self.path.join(BESIDE);
        let make = || {
            fs::create_dir_all(&self.path)?;
            remove(&beside)?;
            fs::DirBuilder::new().mode(0o700).create(&beside)
        };
        make().map_err(writing(&beside))?;
        Ok(beside)
    }

    /// Puts the tree that was written beside in the place of the one that is there, in one step.
    ///
    /// # Errors
    /// When the disk fails; then the old tree is there, whole.
    pub fn exchange(&self, name: &PackageName, next: &Cid) -> CmdResult {
        let mut both = vec![*next];
        both.extend(self.root);
        self.mark(name, &both)?;
        let (new, old) = (
            self.path.join(BESIDE).join(PACKAGES),
            self.path.join(PACKAGES),
        );
        let exchange = || -> io::Result<()> {
            // Names must not reach the disk before what they name.
            syncfs(File::open(&self.path)?)?;
            if self.has_packages {
                renameat_with(CWD, &new, CWD, &old, RenameFlags::EXCHANGE)?;
            } else {
                fs::rename(&new, &old)?;
            }
            File::open(&self.path)?.sync_all()
        };
        exchange().map_err(|error| {
            Failure::from(error).context(format!("cannot replace `{}`", old.display()))
        })?;
        self.mark(name, &[*next])?;
        self.clear();
        Ok(())
    }

    /// Notes that the folder holds this tree, whoever put it there.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn mark(&self, name: &PackageName, roots: &[Cid]) -> CmdResult {
        let mut record = Record::default();
        record.push("name", name.to_string());
        for root in roots {
            record.push("root", root.to_string());
        }
        let text = format!(
            "# `pkg/` here is kept by `p2pkgs tree sync`.\n\n{}",
            rec::print(&[record])
        );
        let path = self.path.join(MARKER);
        write_atomically(&path, &text, 0o644).map_err(writing(&path))
    }

    /// Removes what was written beside.
    pub fn clear(&self) {
        // What cannot be removed now goes with the next sync.
        let _ = remove(&self.path.join(BESIDE));
    }
}

/// What the tree is called that a folder holds, if it is one of ours.
pub fn name_in(folder: &Path) -> Option<PackageName> {
    let records = rec::parse(&fs::read(folder.join(MARKER)).ok()?).ok()?;
    records.first()?.get("name")?.parse().ok()
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The roots that the marker names.
fn marked(text: &[u8], name: &PackageName) -> CmdResult<Vec<Cid>> {
    let records = rec::parse(text)?;
    let record = records.first();
    let marked = record.and_then(|record| record.get("name")).unwrap_or("");
    if marked != name.as_str() {
        let marked = crate::sanitize::line(marked);
        let message = format!("it holds the tree `{marked}`, not `{name}`");
        return Err(Failure::usage(message));
    }
    let roots = record.into_iter().flat_map(|record| record.all("root"));
    // What is no root is none that is known: then the tree counts as changed.
    Ok(roots.filter_map(|root| parse_root(root).ok()).collect())
}

/// Only what is empty, or not there, becomes ours.
fn refuse_foreign(path: &Path) -> CmdResult {
    let mut entries = match fs::read_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(reading(path))?,
    };
    if entries.all(|entry| entry.is_ok_and(|entry| entry.file_name() == BESIDE)) {
        return Ok(());
    }
    let message = format!(
        "`{}` holds something else than a synced tree",
        path.display()
    );
    Err(Failure::new(Exit::Usage, message)
        .hint("name a folder that is empty or does not exist yet"))
}

#[cfg(test)]
mod tests {
    use base::Codec;

    use super::*;

    fn tree(folder: &Path, text: &str) {
        fs::create_dir_all(folder.join("pkg/a")).unwrap();
        fs::write(folder.join("pkg/a/build"), text).unwrap();
    }

    fn root_of(folder: &Path) -> Cid {
        let tree = DiskTree::find(Some(folder)).unwrap();
        pack(&tree, &mut |_| ()).unwrap().root
    }

    #[test]
    fn trees_are_exchanged_and_changes_are_seen_even_after_a_kill_at_any_step() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tree");
        let name: PackageName = "main".parse().unwrap();
        let folder = Folder::open(&path, &name).unwrap();
        assert!(!folder.is_changed());
        let beside = folder.beside().unwrap();
        tree(&beside, "one");
        let one = root_of(&beside);
        folder.exchange(&name, &one).unwrap();
        let folder = Folder::open(&path, &name).unwrap();
        assert!(folder.holds(&one) && !folder.is_changed());

        // Killed after the marker was written, and after the exchange.
        tree(&folder.beside().unwrap(), "two");
        let two = root_of(&path.join(BESIDE));
        folder.mark(&name, &[two, one]).unwrap();
        assert!(!Folder::open(&path, &name).unwrap().is_changed());
        let (new, old) = (path.join(BESIDE).join("pkg"), path.join("pkg"));
        renameat_with(CWD, new, CWD, old, RenameFlags::EXCHANGE).unwrap();
        let folder = Folder::open(&path, &name).unwrap();
        assert!(folder.holds(&two) && !folder.is_changed());

        // What is no recipe would be lost as well.
        let notes = path.join("pkg/a/my notes");
        fs::create_dir(&notes).unwrap();
        assert!(Folder::open(&path, &name).unwrap().is_changed());
        fs::remove_dir(&notes).unwrap();
        fs::write(path.join("pkg/a/build"), "mine").unwrap();
        assert!(Folder::open(&path, &name).unwrap().is_changed());
        let other = Folder::open(&path, &"other".parse().unwrap());
        assert_eq!(other.unwrap_err().exit(), Exit::Usage);
    }

    #[test]
    fn a_folder_with_anything_else_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let name: PackageName = "main".parse().unwrap();
        assert!(Folder::open(dir.path(), &name).is_ok());
        tree(dir.path(), "mine");
        let refused = Folder::open(dir.path(), &name);
        assert_eq!(refused.unwrap_err().exit(), Exit::Usage);
        let other = base::block_cid(Codec::DagPb, &base::Sha256::of(b""));
        fs::write(
            dir.path().join(MARKER),
            format!("name: main\nroot: {other}\nroot: nonsense\n"),
        )
        .unwrap();
        assert!(Folder::open(dir.path(), &name).unwrap().is_changed());
    }
}
