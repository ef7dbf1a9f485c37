//! The package tree on disk: finds it, reads one package directory at a time, resolves the names users type.
//!
//! Meaning is `recipe`'s business; here bytes are read within its limits, so that a hostile or mistaken tree (a `build` of
//! ten gigabytes, a `files/` with a million entries, a FIFO) costs an error and not the machine.

mod ahead;
mod belief;
mod memory;
mod remembered;
mod survey;

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use base::{Hasher, NameError, PackageName, Sha256};
use builder::RecipeFiles;
use recipe::limits::{
    BUILD_BYTES_MAX, DEPS_BYTES_MAX, FETCH_BYTES_MAX, FILES_BYTES_MAX, FILES_MAX, PATH_DEPTH_MAX,
};
use recipe::{FileBytes, FileContent, FileEntry, PackageFiles, PackageSource};

use crate::error::{CmdResult, Exit, Failure};

pub use remembered::RememberingTree;

/// Bytes hashed at a time.
const BUFFER_BYTES: usize = 128 << 10;

/// The folder that holds `pkg/`.
#[derive(Clone, Debug)]
pub struct DiskTree {
    root: PathBuf,
}

/// Why a package directory cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    /// The operating system says no.
    #[error("cannot read `{}`", path.display())]
    Io {
        /// What was read.
        path: PathBuf,
        /// Its answer.
        #[source]
        source: io::Error,
    },
    /// A FIFO, socket, device or directory where a file should be.
    #[error("`{}` is neither a file nor a link", .0.display())]
    NotAFile(PathBuf),
    /// Folders in folders without end.
    #[error("`{}` lies deeper than {PATH_DEPTH_MAX} folders", .0.display())]
    TooDeep(PathBuf),
}

impl TreeError {
    fn io(path: &Path) -> impl FnOnce(io::Error) -> Self + '_ {
        move |source| Self::Io {
            path: path.to_owned(),
            source,
        }
    }
}

impl DiskTree {
    /// The tree in `explicit`, or else the one around the current directory.
    ///
    /// # Errors
    /// A usage error when there is none.
    pub fn find(explicit: Option<&Path>) -> CmdResult<Self> {
        if let Some(root) = explicit {
            let root = std::path::absolute(root)?;
            if root.join("pkg").is_dir() {
                return Ok(Self { root });
            }
            let message = format!("`{}` holds no folder `pkg`", root.display());
            return Err(Failure::usage(message));
        }
        let current = std::env::current_dir()?;
        current
            .ancestors()
            .find(|dir| dir.join("pkg").is_dir())
            .map_or_else(
                || {
                    Err(Failure::usage(
                        "no package tree here: neither this folder nor a parent holds `pkg/`",
                    )
                    .hint("change into a package tree, or name it with `--tree DIR`"))
                },
                |root| {
                    Ok(Self {
                        root: root.to_owned(),
                    })
                },
            )
    }

    /// The folder that holds `pkg/`.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// A package's own folder, whether or not it exists.
    pub fn package_dir(&self, name: &PackageName) -> PathBuf {
        self.root.join("pkg").join(name.as_str())
    }

    /// The name behind what a user typed: `make`, `pkg/make`, `./pkg/make/`.
    ///
    /// # Errors
    /// A usage error for what can be no package of this tree.
    pub fn package_name(&self, typed: &str) -> CmdResult<PackageName> {
        let trimmed = typed.trim_end_matches('/');
        let (folder, last) = match trimmed.rsplit_once('/') {
            Some((folder, last)) => (Some(folder), last),
            None => (None, trimmed),
        };
        let name = last.parse().map_err(|error: NameError| {
            Failure::from(error)
                .context(format!("`{}` is no package", crate::sanitize::line(typed)))
                .exit_with(Exit::Usage)
        })?;
        if let Some(folder) = folder {
            self.check_folder(typed, folder)?;
        }
        Ok(name)
    }

    /// A path names a package only if its folder is this tree's `pkg/`; another tree's package has another hash.
    fn check_folder(&self, typed: &str, folder: &str) -> CmdResult {
        let ours = self.root.join("pkg");
        let same = |path: &Path| matches!((path.canonicalize(), ours.canonicalize()), (Ok(a), Ok(b)) if a == b);
        if same(Path::new(folder)) || same(&self.root.join(folder)) {
            return Ok(());
        }
        let message = format!(
            "`{}` is not in the package tree `{}`",
            crate::sanitize::line(typed),
            ours.display()
        );
        Err(Failure::usage(message).hint("name another tree with `--tree DIR`"))
    }

    /// All names typed, without repetition, in the order typed.
    ///
    /// # Errors
    /// A usage error for the first that can be no package of this tree.
    pub fn package_names(&self, typed: &[String]) -> CmdResult<Vec<PackageName>> {
        let (mut names, mut seen) = (Vec::new(), HashSet::new());
        for text in typed {
            let name = self.package_name(text)?;
            if seen.insert(name.clone()) {
                names.push(name);
            }
        }
        Ok(names)
    }

    /// As [`Self::package_names`]; all packages of the tree where none is named.
    ///
    /// # Errors
    /// As [`Self::package_names`].
    pub fn package_names_or_all(&self, typed: &[String]) -> CmdResult<Vec<PackageName>> {
        match typed {
            [] => Ok(self.names()),
            typed => self.package_names(typed),
        }
    }

    /// The bytes of a regular file below a package's `files/`, as far as `recipe` allows any.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn read_recipe_file(&self, package: &PackageName, path: &str) -> io::Result<Vec<u8>> {
        let path = self.package_dir(package).join("files").join(path);
        if !fs::symlink_metadata(&path)?.is_file() {
            return Err(io::Error::other("not a regular file"));
        }
        let mut bytes = Vec::new();
        File::open(&path)?
            .take(FILES_BYTES_MAX)
            .read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn load_from(&self, dir: &Path) -> Result<Option<PackageFiles>, TreeError> {
        let entries = match fs::read_dir(dir) {
            Ok(entries) => entries,
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) =>
            {
                return Ok(None);
            }
            Err(error) => return Err(TreeError::io(dir)(error)),
        };
        let mut files = PackageFiles::default();
        for entry in entries {
            let entry = entry.map_err(TreeError::io(dir))?;
            let path = entry.path();
            match entry.file_name().as_bytes() {
                b"build" => files.build = Some(read_script(&path)?),
                b"build-deps" => files.build_deps = Some(read_bounded(&path, DEPS_BYTES_MAX)?),
                b"run-deps" => files.run_deps = Some(read_bounded(&path, DEPS_BYTES_MAX)?),
                b"check" => files.check = Some(read_script(&path)?),
                b"check-deps" => files.check_deps = Some(read_bounded(&path, DEPS_BYTES_MAX)?),
                b"fetch" => files.fetch = Some(read_bounded(&path, FETCH_BYTES_MAX)?),
                b"files" => walk(&path, &mut files.files)?,
                other => files
                    .other
                    .push(String::from_utf8_lossy(other).into_owned()),
            }
        }
        Ok(Some(files))
    }
}

impl PackageSource for DiskTree {
    type Error = TreeError;

    fn load(&mut self, name: &PackageName) -> Result<Option<PackageFiles>, TreeError> {
        self.load_from(&self.package_dir(name))
    }

    fn names(&self) -> Vec<PackageName> {
        let Ok(entries) = fs::read_dir(self.root.join("pkg")) else {
            return Vec::new();
        };
        let mut names: Vec<PackageName> = entries
            .flatten()
            .filter(|entry| entry.path().is_dir())
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .collect();
        names.sort();
        names
    }
}

impl RecipeFiles for DiskTree {
    fn read(&self, package: &PackageName, path: &str) -> io::Result<Vec<u8>> {
        self.read_recipe_file(package, path)
    }
}

fn read_script(path: &Path) -> Result<FileBytes, TreeError> {
    let bytes = read_bounded(path, BUILD_BYTES_MAX)?;
    let mode = fs::metadata(path)
        .map_err(TreeError::io(path))?
        .permissions()
        .mode();
    Ok(FileBytes {
        executable: mode & 0o100 != 0,
        bytes,
    })
}

/// Reads one byte more than allowed at most, which is enough for `recipe` to refuse it.
fn read_bounded(path: &Path, bytes_max: usize) -> Result<Vec<u8>, TreeError> {
    let mut bytes = Vec::new();
    let file = open_regular(path)?;
    let limit = bytes_max as u64 + 1;
    file.take(limit)
        .read_to_end(&mut bytes)
        .map_err(TreeError::io(path))?;
    Ok(bytes)
}

/// Opens a file, through a link if need be, but never something that could block or act when opened.
fn open_regular(path: &Path) -> Result<File, TreeError> {
    if !fs::metadata(path).map_err(TreeError::io(path))?.is_file() {
        return Err(TreeError::NotAFile(path.to_owned()));
    }
    File::open(path).map_err(TreeError::io(path))
}

/// Everything below `files/` that is no folder. Stops a little above the limits, for `recipe` to refuse the whole.
fn walk(top: &Path, into: &mut Vec<FileEntry>) -> Result<(), TreeError> {
    let mut bytes_left = FILES_BYTES_MAX + 1;
    let mut folders = vec![(top.to_owned(), 0)];
    while let Some((folder, depth)) = folders.pop() {
        if depth > PATH_DEPTH_MAX {
            return Err(TreeError::TooDeep(folder));
        }
        for entry in fs::read_dir(&folder).map_err(TreeError::io(&folder))? {
            let path = entry.map_err(TreeError::io(&folder))?.path();
            let kind = fs::symlink_metadata(&path).map_err(TreeError::io(&path))?;
            if kind.is_dir() {
                folders.push((path, depth + 1));
                continue;
            }
            let content = read_entry(&path, &kind, &mut bytes_left)?;
            let below = path
                .strip_prefix(top)
                .expect("the walk stays below its top");
            into.push(FileEntry {
                path: below.as_os_str().as_bytes().to_vec(),
                content,
            });
            if into.len() > FILES_MAX || bytes_left == 0 {
                return Ok(());
            }
        }
    }
    Ok(())
}

fn read_entry(
    path: &Path,
    kind: &fs::Metadata,
    bytes_left: &mut u64,
) -> Result<FileContent, TreeError> {
    if kind.is_symlink() {
        let target = fs::read_link(path).map_err(TreeError::io(path))?;
        return Ok(FileContent::Symlink {
            target: target.into_os_string().into_vec(),
        });
    }
    if !kind.is_file() {
        return Err(TreeError::NotAFile(path.to_owned()));
    }
    let (digest, size) = hash(path, *bytes_left)?;
    *bytes_left -= size;
    let executable = kind.permissions().mode() & 0o100 != 0;
    Ok(FileContent::Regular {
        executable,
        digest,
        size,
    })
}

fn hash(path: &Path, bytes_max: u64) -> Result<(Sha256, u64), TreeError> {
    let mut file = File::open(path)
        .map_err(TreeError::io(path))?
        .take(bytes_max);
    let mut hasher = Hasher::new();
    let mut size = 0;
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let n = file.read(&mut buffer).map_err(TreeError::io(path))?;
        if n == 0 {
            return Ok((hasher.finish(), size));
        }
        hasher.update(&buffer[..n]);
        size += n as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree() -> (tempfile::TempDir, DiskTree) {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("pkg/make/files/sub")).unwrap();
        let tree = DiskTree::find(Some(dir.path())).unwrap();
        (dir, tree)
    }

    #[test]
    fn a_package_directory_is_read_with_modes_links_and_strangers() {
        let (dir, mut tree) = tree();
        let make = dir.path().join("pkg/make");
        fs::write(make.join("build"), "#!/bin/sh\n").unwrap();
        fs::set_permissions(make.join("build"), fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(make.join("files/sub/a.patch"), "patch").unwrap();
        std::os::unix::fs::symlink("sub/a.patch", make.join("files/link")).unwrap();
        fs::write(make.join("notes"), "").unwrap();
        let files = tree.load(&"make".parse().unwrap()).unwrap().unwrap();
        assert!(files.build.unwrap().executable);
        assert_eq!(files.run_deps, None);
        assert_eq!(files.other, ["notes"]);
        let mut found = files.files;
        found.sort_by(|a, b| a.path.cmp(&b.path));
        assert_eq!(
            found,
            [
                FileEntry::symlink("link", "sub/a.patch"),
                FileEntry::regular("sub/a.patch", false, b"patch")
            ]
        );
        assert_eq!(tree.load(&"gcc".parse().unwrap()).unwrap(), None);
        assert_eq!(tree.names(), ["make".parse().unwrap()]);
    }

    #[test]
    fn huge_files_are_read_to_just_above_the_limit_and_odd_ones_are_refused() {
        let (dir, mut tree) = tree();
        let make = dir.path().join("pkg/make");
        let sparse = File::create(make.join("build")).unwrap();
        sparse.set_len(1 << 40).unwrap();
        let files = tree.load(&"make".parse().unwrap()).unwrap().unwrap();
        assert_eq!(files.build.unwrap().bytes.len(), BUILD_BYTES_MAX + 1);
        fs::remove_file(make.join("build")).unwrap();
        fs::create_dir(make.join("build")).unwrap();
        let error = tree.load(&"make".parse().unwrap()).unwrap_err();
        assert!(matches!(error, TreeError::NotAFile(_)), "{error}");
    }

    #[test]
    fn names_and_paths_of_this_tree_are_packages_and_nothing_else_is() {
        let (dir, tree) = tree();
        let absolute = format!("{}/pkg/make/", dir.path().display());
        for typed in ["make", "pkg/make", "./pkg/make/", &absolute] {
            assert_eq!(
                tree.package_name(typed).unwrap().as_str(),
                "make",
                "{typed}"
            );
        }
        for typed in [
            "",
            "/",
            "Make",
            "../make",
            "other/make",
            "/etc/passwd",
            "pkg/../make",
        ] {
            assert_eq!(
                tree.package_name(typed).unwrap_err().exit(),
                Exit::Usage,
                "{typed}"
            );
        }
    }
}
