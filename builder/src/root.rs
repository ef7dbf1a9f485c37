//! The root of a build: the build closure's outputs, the skeleton every build finds, sources, `files/` and script.
//!
//! The build owns its root and may write anywhere in it, and must reach neither the store nor another build through it.
//! Where the kernel stacks directories the closure is a stack of layers with a layer of the build's own above ([`Root`]);
//! elsewhere every output is unpacked into the scratch directory ([`fill`]). Nothing is ever linked. Everything carries the
//! same time stamp, so that no build sees when it was prepared.

use std::fs::{self, File, FileTimes, OpenOptions, Permissions};
use std::io::{self, Read};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use base::{Hasher, PackageName, Sha256};
use recipe::{FileKind, Recipe, RecipeFile, Script, Source};
use store::archive::{self, Conflicts, Entry, MTIME_UNIX_SECS, UnpackLimits, Unpacker};
use store::{Blob, Store, StoreError};

use crate::error::Error;
use crate::layers::{Layer, Layers};
use crate::request::{DESTDIR, Mount, Stack};
use crate::scratch::{Scratch, remove_tree};
use crate::stack::LAYERS_MAX;
use crate::surroundings::Surroundings;

/// Top-level directories that every build finds, as upstream makes them.
pub(crate) const SKELETON: [&str; 12] = [
    "bin", "destdir", "etc", "home", "include", "lib", "libexec", "run", "share", "tmp", "usr",
    "var",
];
/// Top-level names that belong to the sandbox: whatever an archive has there is not for the build to see.
pub(crate) const RESERVED: [&str; 6] = ["build", "check", "destdir", "dev", "home", "proc"];

/// An output that is part of a build closure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Input {
    /// Whose output it is, for messages, and the order in which inputs are unpacked.
    pub name: String,
    /// The archive.
    pub blob: Blob,
}

/// Reads what lies below the `files/` of recipes; the package tree is the caller's.
pub trait RecipeFiles: Send + Sync {
    /// The bytes of a regular file below `files/`. They are compared with the digest that the package hash covers.
    ///
    /// # Errors
    /// Whatever the operating system says.
    fn read(&self, package: &PackageName, path: &str) -> io::Result<Vec<u8>>;
}

/// Recipes that bring no files.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoFiles;

impl RecipeFiles for NoFiles {
    fn read(&self, _package: &PackageName, _path: &str) -> io::Result<Vec<u8>> {
        Err(io::ErrorKind::NotFound.into())
    }
}

/// A root that is ready for a build.
#[derive(Debug)]
pub(crate) struct Root {
    /// What is to be stacked, if anything.
    pub(crate) stack: Option<Stack>,
    /// What of it the sandbox shows.
    pub(crate) top_level: Vec<Mount>,
    /// In use until the build is over.
    _layers: Vec<Layer>,
}

impl Root {
    /// Prepares one in a scratch directory, for a closure in any order; `layers` where they can be stacked.
    pub(crate) fn new(
        scratch: &Scratch,
        inputs: &[Input],
        store: &Store,
        layers: Option<&Layers>,
        surroundings: Surroundings,
    ) -> Result<Self, Error> {
        let layers = layers.filter(|_| surroundings.may_stack());
        let inputs = sorted(inputs);
        let layers = match layers {
            Some(layers) if (1..=LAYERS_MAX).contains(&inputs.len()) => {
                layers.take(&inputs, store)?
            }
            _ => Vec::new(),
        };
        let (stack, top_level) = if layers.is_empty() {
            fill_with(scratch, &inputs, store, surroundings)?;
            (None, top_level(&scratch.root())?)
        } else {
            let (stack, top_level) = Stack::of(scratch, &layers)?;
            (Some(stack), top_level)
        };
        finish(&scratch.root(), surroundings)?;
        Ok(Self {
            stack,
            top_level,
            _layers: layers,
        })
    }
}

/// In the order in which they are unpacked or stacked.
pub(crate) fn sorted(inputs: &[Input]) -> Vec<&Input> {
    let mut inputs: Vec<_> = inputs.iter().collect();
    inputs.sort_by(|a, b| a.name.cmp(&b.name));
    inputs
}

/// Unpacks a build closure, in the order of names, and makes the skeleton.
pub(crate) fn fill(scratch: &Scratch, inputs: &[Input], store: &Store) -> Result<(), Error> {
    let surroundings = Surroundings::Usual;
    fill_with(scratch, &sorted(inputs), store, surroundings)?;
    finish(&scratch.root(), surroundings)
}

/// Makes the home, and gives the directories on top the time stamp that they are to have.
fn finish(root: &Path, surroundings: Surroundings) -> Result<(), Error> {
    let home = below(root, surroundings.home());
    if let Some(parent) = home.parent() {
        make_dir(parent)?;
    }
    make_dir(&home)?;
    SKELETON
        .iter()
        .map(|name| root.join(name))
        .filter(|dir| fs::symlink_metadata(dir).is_ok_and(|m| m.is_dir()))
        .try_for_each(|dir| stamp_dir(&dir))
}

fn fill_with(
    scratch: &Scratch,
    inputs: &[&Input],
    store: &Store,
    surroundings: Surroundings,
) -> Result<(), Error> {
    let root = scratch.root();
    make_dir(&root)?;
    unpack_all(&root, inputs, store)?;
    for name in RESERVED {
        remove(&root.join(name))?;
    }
    // Files are written below it: not through a link, wherever it may lead.
    let etc = root.join("etc");
    if fs::symlink_metadata(&etc).is_ok_and(|m| !m.is_dir()) {
        remove(&etc)?;
    }
    for name in SKELETON {
        make_dir(&root.join(name))?;
    }
    write_accounts(&etc, surroundings)
}

/// Unpacks outputs over each other below `dest`; of two files of one name the later one stays, as in upstream.
pub(crate) fn unpack_all(dest: &Path, inputs: &[&Input], store: &Store) -> Result<(), Error> {
    let Some(first) = inputs.first() else {
        return Ok(());
    };
    let mut unpacker = Unpacker::new(dest, &UnpackLimits::default(), Conflicts::Overlay)
        .map_err(|e| Error::archive(&first.name, e))?;
    for input in inputs {
        let mut archive = open(store, input)?;
        unpacker
            .unpack(&input.name, &mut archive)
            .map_err(|e| Error::archive(&input.name, e))?;
        archive.finish()?;
    }
    Ok(())
}

/// Opens an output of the store for reading, hashing it on the way.
pub(crate) fn open(store: &Store, input: &Input) -> Result<Verified<impl Read + use<>>, Error> {
    match store.open_blob(&input.blob.sha256)? {
        Some(file) => Ok(Verified::new(file, input.blob.sha256)),
        None => Err(Error::Io {
            op: "find the output of",
            path: PathBuf::from(&input.name),
            source: io::ErrorKind::NotFound.into(),
        }),
    }
}

/// The entries of an output of the store, every byte of which was verified.
pub(crate) fn entries(store: &Store, input: &Input) -> Result<Vec<Entry>, Error> {
    let mut archive = open(store, input)?;
    let entries = archive::list(&mut archive, &UnpackLimits::default())
        .map_err(|e| Error::archive(&input.name, e))?;
    archive.finish()?;
    Ok(entries)
}

/// A reader that knows what it should have read: the disk may have changed a byte since the store took the file in.
#[derive(Debug)]
pub(crate) struct Verified<R> {
    reader: R,
    hasher: Hasher,
    expected: Sha256,
}

impl<R: Read> Verified<R> {
    fn new(reader: R, expected: Sha256) -> Self {
        Self {
            reader,
            hasher: Hasher::new(),
            expected,
        }
    }

    /// Reads the rest, if any, and compares.
    pub(crate) fn finish(mut self) -> Result<(), Error> {
        io::copy(&mut self, &mut io::sink())
            .map_err(|e| Error::io("read", Path::new("store"), e))?;
        let got = self.hasher.finish();
        if got == self.expected {
            return Ok(());
        }
        Err(Error::Store(StoreError::Corrupt {
            what: format!("blob `{}` now has the digest `{got}`", self.expected),
            source: None,
        }))
    }
}

impl<R: Read> Read for Verified<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.reader.read(buffer)?;
        self.hasher.update(&buffer[..n]);
        Ok(n)
    }
}

/// Puts the script of a check beside the root.
pub(crate) fn add_check(scratch: &Scratch, script: &Script) -> Result<PathBuf, Error> {
    let path = scratch.path().join("check");
    write_file(&path, &script.bytes, true)?;
    Ok(path)
}

/// Puts a recipe's sources and `files/` into the build's home and its script beside the root.
pub(crate) fn add_recipe(
    scratch: &Scratch,
    recipe: &Recipe,
    files: &dyn RecipeFiles,
    store: &Store,
    surroundings: Surroundings,
) -> Result<PathBuf, Error> {
    let home = below(&scratch.root(), surroundings.home());
    if surroundings.is_reversed() {
        add_files(&home, recipe.name(), recipe.files().iter().rev(), files)?;
        add_sources(&home, recipe.sources().iter().rev(), store)?;
    } else {
        add_sources(&home, recipe.sources(), store)?;
        add_files(&home, recipe.name(), recipe.files(), files)?;
    }
    stamp_dirs(&home)?;
    let script = scratch.path().join("build");
    let bytes = recipe.build().map_or(&b""[..], |script| &script.bytes);
    write_file(&script, bytes, true)?;
    Ok(script)
}

/// Copies a recipe's sources into a directory under their names.
pub(crate) fn add_sources<'r>(
    dir: &Path,
    sources: impl IntoIterator<Item = &'r Source>,
    store: &Store,
) -> Result<(), Error> {
    for source in sources {
        let path = dir.join(&source.file);
        let blob = store.open_blob(&source.sha256)?.ok_or_else(|| {
            Error::io(
                "find source",
                Path::new(&source.file),
                io::ErrorKind::NotFound.into(),
            )
        })?;
        let mut blob = Verified::new(blob, source.sha256);
        let mut file = create(&path, false)?;
        io::copy(&mut blob, &mut file).map_err(|e| Error::io("write", &path, e))?;
        blob.finish()?;
        stamp(&file, &path)?;
    }
    Ok(())
}

/// Copies a recipe's `files/` into a directory, each compared with the digest in the package hash.
pub(crate) fn add_files<'r>(
    dir: &Path,
    package: &PackageName,
    entries: impl IntoIterator<Item = &'r RecipeFile>,
    files: &dyn RecipeFiles,
) -> Result<(), Error> {
    for entry in entries {
        let path = dir.join(&entry.path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(|e| Error::io("create", parent, e))?;
        }
        match &entry.kind {
            FileKind::Symlink { target } => {
                symlink(target, &path).map_err(|e| Error::io("create", &path, e))?;
            }
            kind => {
                let bytes = read_checked(package, entry, files)?;
                write_file(&path, &bytes, *kind == FileKind::Executable)?;
            }
        }
    }
    Ok(())
}

fn read_checked(
    package: &PackageName,
    entry: &RecipeFile,
    files: &dyn RecipeFiles,
) -> Result<Vec<u8>, Error> {
    let path = || PathBuf::from(format!("pkg/{package}/files/{}", entry.path));
    let bytes = files
        .read(package, &entry.path)
        .map_err(|e| Error::io("read", &path(), e))?;
    let got = Sha256::of(&bytes);
    if got == entry.digest {
        return Ok(bytes);
    }
    let (package, path) = (package.clone(), entry.path.clone());
    Err(Error::FileChanged {
        package,
        path,
        expected: entry.digest,
        got,
    })
}

/// What of the root the sandbox shows: its directories, writable, and its links; sorted, so that the order is fixed.
pub(crate) fn top_level(root: &Path) -> Result<Vec<Mount>, Error> {
    let read_error = |e| Error::io("read", root, e);
    let mut mounts = Vec::new();
    for entry in fs::read_dir(root).map_err(read_error)? {
        let entry = entry.map_err(read_error)?;
        let at = Path::new("/").join(entry.file_name());
        if entry.file_type().map_err(read_error)?.is_symlink() {
            let target = fs::read_link(entry.path()).map_err(read_error)?;
            mounts.push((at.clone(), Mount::Symlink { target, at }));
        } else {
            mounts.push((
                at.clone(),
                Mount::Writable {
                    from: entry.path(),
                    at,
                },
            ));
        }
    }
    mounts.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(mounts.into_iter().map(|(_, mount)| mount).collect())
}

/// Where a sandbox path lies on the host.
pub(crate) fn below(root: &Path, inside: &str) -> PathBuf {
    root.join(inside.trim_start_matches('/'))
}

/// Where the build puts its output, on the host.
pub(crate) fn destdir(scratch: &Scratch) -> PathBuf {
    below(&scratch.root(), DESTDIR)
}

/// The build user has a name, and so has root: programs ask for both.
pub(crate) fn write_accounts(etc: &Path, surroundings: Surroundings) -> Result<(), Error> {
    let (uid, gid) = (surroundings.uid(), surroundings.gid());
    let (user, home) = (surroundings.user(), surroundings.home());
    let passwd = format!("root:x:0:0:root:/:/bin/sh\n{user}:x:{uid}:{gid}:{user}:{home}:/bin/sh\n");
    let group = format!("root:x:0:\n{user}:x:{gid}:\n");
    for (name, text) in [("passwd", passwd), ("group", group)] {
        let path = etc.join(name);
        remove(&path)?;
        write_file(&path, text.as_bytes(), false)?;
    }
    Ok(())
}

fn remove(path: &Path) -> Result<(), Error> {
    let result = match fs::symlink_metadata(path) {
        Err(_) => Ok(()),
        Ok(metadata) if metadata.is_dir() => remove_tree(path),
        Ok(_) => fs::remove_file(path),
    };
    result.map_err(|e| Error::io("remove", path, e))
}

/// Makes a directory unless there is one, or a link that leads to one.
pub(crate) fn make_dir(path: &Path) -> Result<(), Error> {
    match fs::create_dir(path) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(e) => Err(Error::io("create", path, e)),
        // Whatever umask we were started with: the build finds what the contract says.
        Ok(()) => fs::set_permissions(path, Permissions::from_mode(0o755))
            .map_err(|e| Error::io("create", path, e)),
    }
}

pub(crate) fn write_file(path: &Path, bytes: &[u8], executable: bool) -> Result<(), Error> {
    let mut file = create(path, executable)?;
    io::Write::write_all(&mut file, bytes).map_err(|e| Error::io("write", path, e))?;
    stamp(&file, path)
}

/// Creates a file that must not exist: through a link that an archive brought nothing is ever written.
fn create(path: &Path, executable: bool) -> Result<File, Error> {
    let mode = if executable { 0o755 } else { 0o644 };
    let created = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path);
    let file = created.map_err(|e| Error::io("create", path, e))?;
    file.set_permissions(Permissions::from_mode(mode))
        .map_err(|e| Error::io("create", path, e))?;
    Ok(file)
}

/// Gives a directory and all below the time stamp that everything has.
fn stamp_dirs(dir: &Path) -> Result<(), Error> {
    let read_error = |e| Error::io("read", dir, e);
    for entry in fs::read_dir(dir).map_err(read_error)? {
        let entry = entry.map_err(read_error)?;
        if entry.file_type().map_err(read_error)?.is_dir() {
            stamp_dirs(&entry.path())?;
        }
    }
    stamp_dir(dir)
}

/// Gives a directory the time stamp that everything has.
pub(crate) fn stamp_dir(dir: &Path) -> Result<(), Error> {
    let file = File::open(dir).map_err(|e| Error::io("open", dir, e))?;
    stamp(&file, dir)
}

fn stamp(file: &File, path: &Path) -> Result<(), Error> {
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(MTIME_UNIX_SECS);
    file.set_times(FileTimes::new().set_modified(time).set_accessed(time))
        .map_err(|e| Error::io("set the time of", path, e))
}
