//! Recipes on their way: the folders of some packages as one archive, and such an archive as a package tree again.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use base::PackageName;
use recipe::Graph;
use store::archive::{self, Entry, EntryKind, UnpackLimits};
use store::{Blob, BlobFile, Expected, Store};

use crate::error::{CmdResult, Exit, Failure};
use crate::tree::DiskTree;

/// The folder of a tree that holds its packages.
const PACKAGES: &str = "pkg";
/// The folder of a package that may hold more than plain files.
const FILES: &str = "files";
/// Bounds on recipes of a stranger: thousands of packages, some with large patches.
const LIMITS: UnpackLimits = UnpackLimits {
    entries_max: 200_000,
    bytes_max: 1 << 30,
    ratio_max: 1000,
    path_bytes_max: 2048,
    depth_max: 40,
    allow_absolute_links: true,
};

/// Packs the recipes of all packages of a graph, as a folder `pkg`. The same recipes give the same bytes.
///
/// # Errors
/// When they cannot be read, or the disk fails.
pub fn pack(tree: &DiskTree, graph: &Graph, store: &Store, scratch: &Path) -> CmdResult<Blob> {
    fs::create_dir_all(scratch)?;
    let dir = tempfile::Builder::new()
        .prefix("recipes-")
        .tempdir_in(scratch)?;
    let to = dir.path().join(PACKAGES);
    fs::create_dir(&to)?;
    for id in graph.packages() {
        let name = graph.name(id);
        copy_package(&tree.package_dir(name), &to.join(name.as_str()))?;
    }
    let mut ingest = store.ingest()?;
    archive::pack(dir.path(), &mut ingest)
        .map_err(|error| Failure::from(error).context("cannot pack the recipes"))?;
    ingest.finish(&Expected::anything()).map_err(Failure::from)
}

/// Copies a package's folder. Links to its files are read as the tree reads them: what they lead to.
fn copy_package(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let (path, target) = placed(&entry?, to);
        let kind = fs::metadata(&path)?;
        if kind.is_dir() {
            copy_folder(&path, &target)?;
        } else if kind.is_file() {
            fs::copy(&path, &target)?;
        }
    }
    Ok(())
}

/// Copies files and links; links are not followed.
fn copy_folder(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        let (path, target) = placed(&entry, to);
        if kind.is_dir() {
            copy_folder(&path, &target)?;
        } else if kind.is_symlink() {
            std::os::unix::fs::symlink(fs::read_link(&path)?, &target)?;
        } else {
            fs::copy(&path, &target)?;
        }
    }
    Ok(())
}

fn placed(entry: &fs::DirEntry, to: &Path) -> (PathBuf, PathBuf) {
    (entry.path(), to.join(entry.file_name()))
}

/// Unpacks recipes that a stranger packed into an empty folder, which becomes a package tree. Nothing in it leads out of it.
///
/// # Errors
/// When it is no such archive; what was unpacked until then is to be removed by the caller.
pub fn unpack(mut archive: BlobFile, dir: &Path) -> CmdResult<DiskTree> {
    let cannot = |failure: Failure| failure.context("cannot unpack the recipes");
    let entries = archive::list(&mut archive, &LIMITS).map_err(|e| cannot(e.into()))?;
    if let Some(odd) = entries.iter().find(|entry| !is_of_a_recipe(entry)) {
        let path = crate::sanitize::bytes(&odd.path, 200);
        let message = format!("`{path}` has no place among recipes");
        return Err(cannot(Failure::new(Exit::Mismatch, message)));
    }
    io::Seek::rewind(&mut archive)?;
    archive::unpack(archive, dir, &LIMITS).map_err(|e| cannot(e.into()))?;
    DiskTree::find(Some(dir)).map_err(cannot)
}

/// The tree's loader follows a link where a recipe's own files should be: there may be none that a stranger made.
fn is_of_a_recipe(entry: &Entry) -> bool {
    let mut parts = entry.path.split(|byte| *byte == b'/');
    if parts.next() != Some(PACKAGES.as_bytes()) {
        return false;
    }
    let is_folder = entry.kind == EntryKind::Directory;
    let is_file = entry.kind == EntryKind::File;
    let name = parts.next().map(str::from_utf8);
    match (name, parts.next(), parts.next()) {
        (None, ..) | (Some(_), None, _) if !is_folder => false,
        (Some(Err(_)), ..) => false,
        (Some(Ok(name)), ..) if name.parse::<PackageName>().is_err() => false,
        (None, ..) | (Some(_), None, _) => true,
        (Some(_), Some(file), None) if file == FILES.as_bytes() => is_folder,
        (Some(_), Some(_), None) => is_file,
        (Some(_), Some(file), Some(_)) => {
            let is_link = matches!(entry.kind, EntryKind::Symlink(_));
            file == FILES.as_bytes() && (is_folder || is_file || is_link)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use recipe::PackageSource as _;

    use super::*;

    /// The packages of a tree after its way through an archive.
    fn try_tree(make: impl FnOnce(&Path)) -> CmdResult<Vec<PackageName>> {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        fs::create_dir_all(from.join("pkg/a/files/sub")).unwrap();
        fs::write(from.join("pkg/a/build"), "#!/bin/sh\n").unwrap();
        fs::write(from.join("pkg/a/files/sub/patch"), "patch").unwrap();
        symlink("/bin/sh", from.join("pkg/a/files/link")).unwrap();
        make(&from);
        let store = Store::open(&dir.path().join("store")).unwrap();
        let mut ingest = store.ingest().unwrap();
        archive::pack(&from, &mut ingest).unwrap();
        let blob = ingest.finish(&Expected::anything()).unwrap();
        fs::create_dir(&to).unwrap();
        let archive = store.open_blob(&blob.sha256).unwrap().unwrap();
        Ok(unpack(archive, &to)?.names())
    }

    #[test]
    fn recipes_become_a_tree_and_links_lie_below_files_only() {
        assert_eq!(try_tree(|_| {}).unwrap().len(), 1);
        let secret = "/etc/passwd";
        let bad: [&dyn Fn(&Path); 6] = [
            &|tree| symlink(secret, tree.join("pkg/a/fetch")).unwrap(),
            &|tree| symlink("/etc", tree.join("pkg/b")).unwrap(),
            &|tree| symlink("/etc", tree.join("other")).unwrap(),
            &|tree| fs::write(tree.join("pkg/file"), "").unwrap(),
            &|tree| fs::create_dir(tree.join("pkg/a/more")).unwrap(),
            &|tree| fs::create_dir(tree.join("pkg/Not A Name")).unwrap(),
        ];
        for (number, make) in bad.iter().enumerate() {
            let failure = try_tree(make).unwrap_err();
            assert_eq!(failure.exit(), Exit::Mismatch, "{number}");
        }
    }
}
