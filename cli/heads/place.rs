//! A package tree out of blocks: what strangers packed becomes folders and files, all of them new, below one folder.
//!
//! Kinds and places are checked while it is written, and in the end what was written is packed again: a tree that has not
//! exactly the root it came under is refused, however it was laid out.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use base::{Cid, Multihash, PackageName};
use recipe::limits::PATH_DEPTH_MAX;
use recipe::{Graph, PackageSource as _, System};
use store::dag::{DagError, Node, Target, Walk, WalkLimits, is_entry_name};
use store::{BlockStore as _, Store};

use super::pack::pack;
use super::{EXECUTABLE, FILES, PACKAGES, TREE_BYTES_MAX, TREE_ENTRIES_MAX};
use crate::error::{CmdResult, Exit, Failure};
use crate::tree::DiskTree;

/// Chunks looked at ahead; they are in the store.
const WINDOW_BLOCKS: usize = 4;

/// Writes the tree below a root into an empty folder, from blocks that are all in the store, and reads it as recipes.
///
/// # Errors
/// When it is no package tree (exit code 4), or the disk fails. What was written is the caller's to remove.
pub fn place(store: &Store, root: &Cid, into: &Path) -> CmdResult<DiskTree> {
    let mut placing = Placing {
        store,
        bytes: 0,
        entries: 0,
    };
    placing.tree(root, into)?;
    let mut tree = DiskTree::find(Some(into))?;
    let again = pack(&tree, &mut |_| ())?;
    if again.root != *root {
        return Err(no_tree("it is not laid out as `tree publish` does it"));
    }
    let names = tree.names();
    Graph::resolve(&mut tree, &names, &System::host()).map_err(|error| {
        let failure = Failure::from(error).exit_with(Exit::Mismatch);
        failure.context("its recipes cannot be used")
    })?;
    Ok(tree)
}

fn no_tree(why: impl std::fmt::Display) -> Failure {
    Failure::new(Exit::Mismatch, format!("no package tree: {why}"))
}

struct Placing<'a> {
    store: &'a Store,
    bytes: u64,
    entries: u64,
}

impl Placing<'_> {
    fn tree(&mut self, root: &Cid, into: &Path) -> CmdResult {
        let entries = self.directory(root, into)?;
        let [(name, packages)] = &entries[..] else {
            return Err(no_tree("it holds more or less than a folder `pkg`"));
        };
        if name != PACKAGES {
            return Err(no_tree("it holds no folder `pkg`"));
        }
        let folder = into.join(PACKAGES);
        fs::create_dir(&folder)?;
        for (name, package) in self.directory(packages, &folder)? {
            if name.parse::<PackageName>().is_err() {
                return Err(no_place(&name));
            }
            let path = folder.join(&name);
            fs::create_dir(&path)?;
            for (name, cid) in self.directory(&package, &path)? {
                let path = path.join(&name);
                match self.node(&cid)? {
                    Node::Directory(_) if name == FILES => self.folder(&cid, &path, 0)?,
                    Node::File(_) if name != FILES => self.file(&cid, &path)?,
                    _ => return Err(no_place(&name)),
                }
            }
        }
        Ok(())
    }

    /// Below `files/`.
    fn folder(&mut self, cid: &Cid, path: &Path, depth: usize) -> CmdResult {
        if depth > PATH_DEPTH_MAX {
            return Err(no_tree("its folders lie too deep"));
        }
        fs::create_dir(path)?;
        for (name, cid) in self.directory(cid, path)? {
            let path = path.join(&name);
            match self.node(&cid)? {
                Node::Directory(_) => self.folder(&cid, &path, depth + 1)?,
                Node::File(_) => self.file(&cid, &path)?,
                Node::Symlink(target, _) => {
                    self.count(target.len() as u64)?;
                    symlink(std::ffi::OsStr::from_bytes(&target), &path)?;
                }
                Node::Shard(_) => return Err(no_place(&name)),
            }
        }
        Ok(())
    }

    /// The entries of a directory in one block, each name once and fit for a file.
    fn directory(&mut self, cid: &Cid, path: &Path) -> CmdResult<Vec<(String, Cid)>> {
        let Node::Directory(directory) = self.node(cid)? else {
            let path = path.file_name().unwrap_or_default().to_string_lossy();
            return Err(no_place(&path));
        };
        let (mut names, mut entries) = (HashSet::new(), Vec::new());
        for entry in directory.entries {
            self.count(0)?;
            if !is_entry_name(&entry.name) || !names.insert(entry.name.clone()) {
                return Err(no_place(&entry.name));
            }
            entries.push((entry.name, entry.cid));
        }
        Ok(entries)
    }

    fn node(&self, cid: &Cid) -> CmdResult<Node> {
        let bad = |error: DagError| Failure::from(error).exit_with(Exit::Mismatch);
        match Target::of(cid).map_err(bad)? {
            Target::Inline(codec, bytes) => Node::decode(codec, &bytes).map_err(bad),
            Target::Block(codec, hash) => {
                let block = self.block(&hash)?;
                Node::decode(codec, block.bytes()).map_err(bad)
            }
        }
    }

    fn block(&self, hash: &Multihash) -> CmdResult<store::Block> {
        let missing = || Failure::new(Exit::NotFound, "a block of the tree is missing");
        self.store.get(hash)?.ok_or_else(missing)
    }

    fn file(&mut self, cid: &Cid, path: &Path) -> CmdResult {
        let bad = |error: DagError| Failure::from(error).exit_with(Exit::Mismatch);
        let mut file = File::create_new(path)?;
        let mut walk = Walk::new(*cid, WalkLimits::default()).map_err(bad)?;
        while !walk.is_done() {
            for cid in walk.wants(WINDOW_BLOCKS) {
                let hash = Multihash::of(&cid)?;
                walk.handle_block(&self.block(&hash)?).map_err(bad)?;
            }
            while let Some(leaf) = walk.next_bytes().map_err(bad)? {
                self.add(leaf.bytes().len() as u64)?;
                file.write_all(leaf.bytes())?;
            }
        }
        self.count(0)?;
        if let Node::File(node) = self.node(cid)?
            && node.metadata.mode == Some(EXECUTABLE)
        {
            let mut mode = file.metadata()?.permissions();
            mode.set_mode(mode.mode() | 0o111);
            file.set_permissions(mode)?;
        }
        Ok(())
    }

    fn count(&mut self, bytes: u64) -> CmdResult {
        self.entries += 1;
        // Directories count here, and do not where trees are packed.
        if self.entries > 4 * TREE_ENTRIES_MAX {
            return Err(no_tree("it has too many files"));
        }
        self.add(bytes)
    }

    fn add(&mut self, bytes: u64) -> CmdResult {
        self.bytes += bytes;
        if self.bytes > TREE_BYTES_MAX {
            return Err(no_tree("it is too large"));
        }
        Ok(())
    }
}

fn no_place(name: &str) -> Failure {
    no_tree(format!(
        "`{}` has no place in it",
        crate::sanitize::line(name)
    ))
}

#[cfg(test)]
mod tests {
    use store::Block;
    use store::dag::{Subtree, build_directory, build_file, build_symlink};

    use super::*;

    struct World {
        _dir: tempfile::TempDir,
        store: Store,
        from: std::path::PathBuf,
        to: std::path::PathBuf,
    }

    fn world() -> World {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("store")).unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        fs::create_dir_all(from.join("pkg/a/files/sub")).unwrap();
        fs::create_dir(&to).unwrap();
        World {
            _dir: dir,
            store,
            from,
            to,
        }
    }

    impl World {
        fn pack(&self) -> Cid {
            let tree = DiskTree::find(Some(&self.from)).unwrap();
            let mut sink = |block: Block| self.store.put(&block).unwrap();
            pack(&tree, &mut sink).unwrap().root
        }

        fn refused(&self, root: &Cid) -> String {
            let failure = place(&self.store, root, &self.to).unwrap_err();
            assert_eq!(failure.exit(), Exit::Mismatch, "{}", failure.message());
            failure.message()
        }
    }

    #[test]
    fn a_tree_comes_out_as_it_was_and_what_recipes_do_not_hold_stays_away() {
        let world = world();
        let package = world.from.join("pkg/a");
        fs::write(package.join("build"), "#!/bin/sh\n").unwrap();
        fs::set_permissions(package.join("build"), fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(package.join("files/sub/patch"), vec![7; 3 << 20]).unwrap();
        symlink("sub/patch", package.join("files/link")).unwrap();
        let root = world.pack();
        fs::create_dir(package.join("files/empty")).unwrap();
        fs::create_dir(package.join("no-files")).unwrap();
        fs::create_dir(world.from.join("pkg/Not A Package")).unwrap();
        fs::write(world.from.join("secret"), "").unwrap();
        assert_eq!(world.pack(), root);
        place(&world.store, &root, &world.to).unwrap();
        let placed = world.to.join("pkg/a");
        assert_eq!(
            fs::read(placed.join("files/sub/patch")).unwrap(),
            vec![7; 3 << 20]
        );
        assert_eq!(
            fs::read_link(placed.join("files/link")).unwrap(),
            Path::new("sub/patch")
        );
        let mode = |name: &str| {
            fs::metadata(placed.join(name))
                .unwrap()
                .permissions()
                .mode()
        };
        assert_eq!(mode("build") & 0o111, 0o111);
        assert_eq!(mode("files/sub/patch") & 0o111, 0);
        assert!(!placed.join("no-files").exists());
    }

    #[test]
    fn what_is_no_tree_is_refused() {
        let world = world();
        let mut sink = |block: Block| world.store.put(&block).unwrap();
        let profile = store::dag::Profile::UNIXFS_V1_2025;
        let file = build_file(profile, &b"x"[..], &mut sink).unwrap();
        let link = build_symlink(b"/etc/passwd".to_vec().into(), &mut sink);
        let mut dir = |entries: Vec<(&str, Subtree)>| {
            let entries = entries
                .into_iter()
                .map(|(name, entry)| (name.to_owned(), entry));
            build_directory(entries.collect(), &mut sink)
        };
        let package = dir(vec![("fetch", file)]);
        let bad_packages = [
            dir(vec![("a", file)]),
            dir(vec![("a", link)]),
            dir(vec![("../a", package)]),
            dir(vec![("A", package)]),
            dir(vec![("a", package), ("a", package)]),
            {
                let linked = dir(vec![("build", link)]);
                dir(vec![("a", linked)])
            },
            {
                let folder = dir(vec![("sub", package)]);
                dir(vec![("a", folder)])
            },
            {
                let files = dir(vec![("files", file)]);
                dir(vec![("a", files)])
            },
        ];
        let mut roots: Vec<_> = bad_packages
            .into_iter()
            .map(|packages| dir(vec![("pkg", packages)]))
            .collect();
        let good = dir(vec![("a", package)]);
        roots.push(dir(vec![("pkg", good), ("more", file)]));
        roots.push(dir(vec![("packages", good)]));
        roots.push(dir(vec![]));
        for root in roots {
            let _ = fs::remove_dir_all(&world.to);
            fs::create_dir(&world.to).unwrap();
            world.refused(&root.cid);
        }
        // Nothing was written outside.
        assert_eq!(fs::read_dir(world.to.parent().unwrap()).unwrap().count(), 3);
    }
}
