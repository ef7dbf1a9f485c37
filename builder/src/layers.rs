//! Outputs unpacked once: the layers from which the roots of builds are stacked.
//!
//! ```text
//! SCRATCH/layers/<boot>/<sha256>/root      what the archive holds, verified while it was unpacked, never changed since
//!                               /entries   what that is, so that layers can be compared without walking through them
//! ```
//!
//! A layer becomes visible by a rename, so what a killed process left is never taken for one. A crash of the machine is
//! different: it can lose the bytes of files and keep their names. To wait for the disk would cost more than it saves, so
//! layers count for the boot they were unpacked in, and those of earlier ones are thrown away.
//!
//! Venvs whose files are links to such layers have layers of their own, in `linked` instead of `layers`, and nobody may write
//! to their files.
//!
//! Who uses a layer holds a shared lock on its directory; who removes one takes it exclusively, and does not wait for it.
//! The time stamp of the directory says when the layer was used last.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, FileTimes};
use std::io::{self, Write as _};
use std::num::NonZero;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::SystemTime;

use base::Sha256;
use rustix::fs::{FlockOperation, flock};
use store::Store;

use crate::error::Error;
use crate::root::{Input, make_dir, unpack_all};
use crate::scratch::remove_tree;

/// The folder in the scratch folder.
pub(crate) const FOLDER: &str = "layers";
/// The folder of those whose files are linked into venvs: what happens to a venv reaches no build.
const LINKED_FOLDER: &str = "linked";
/// Names this boot of the machine.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// Where an archive is unpacked before it becomes a layer.
const NEW: &str = ".new-";
/// What is about to be removed.
const DEAD: &str = ".dead-";
/// What all layers together may take on the disk, in bytes: some thirty roots of the largest compilers. Beyond that those
/// go that were not used for longest; the archives stay, so nothing is lost but time.
const BYTES_MAX: u64 = 16 << 30;
/// Archives that are unpacked at once: each keeps one processor and the disk busy.
const UNPACKING_MAX: usize = 4;
/// Unit of [`fs::Metadata::blocks`](std::os::unix::fs::MetadataExt::blocks) in bytes, whatever the file system's.
const BLOCK_BYTES: u64 = 512;

/// All layers below one scratch folder.
#[derive(Clone, Debug)]
pub struct Layers {
    dir: PathBuf,
    boot: String,
    /// Whether nobody may write to the files.
    read_only: bool,
}

/// A layer that somebody could do without.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Idle {
    /// Digest of the archive it was unpacked from.
    pub sha256: Sha256,
    /// What it takes on the disk, in bytes.
    pub bytes: u64,
    used: SystemTime,
}

/// A layer in use. It stays as long as this lives.
#[derive(Debug)]
pub(crate) struct Layer {
    /// Whose output it is.
    pub(crate) name: String,
    /// What is below.
    pub(crate) entries: Entries,
    dir: PathBuf,
    _lock: File,
}

impl Layer {
    /// The directory that is stacked.
    pub(crate) fn root(&self) -> PathBuf {
        self.dir.join("root")
    }
}

impl Layers {
    /// Those below a scratch folder; `None` where the kernel does not name its boot.
    pub fn below(scratch: &Path) -> Option<Self> {
        Self::of(scratch.join(FOLDER), false)
    }

    /// Those whose files are linked into venvs, below a scratch folder.
    pub fn linked_below(scratch: &Path) -> Option<Self> {
        Self::of(scratch.join(LINKED_FOLDER), true)
    }

    fn of(dir: PathBuf, read_only: bool) -> Option<Self> {
        let boot = fs::read_to_string(BOOT_ID).ok()?.trim().to_owned();
        let is_name = !boot.is_empty() && boot.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
        is_name.then_some(Self {
            dir,
            boot,
            read_only,
        })
    }

    /// The layers of these outputs, in the order of the outputs; what is not there yet is unpacked.
    pub(crate) fn take(&self, inputs: &[&Input], store: &Store) -> Result<Vec<Layer>, Error> {
        let here = self.here();
        private(&here).map_err(|e| Error::io("create", &here, e))?;
        self.forget_earlier_boots();
        let (next, grown) = (AtomicUsize::new(0), AtomicBool::new(false));
        let work = || {
            let mut taken = Vec::new();
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                let Some(input) = inputs.get(index) else {
                    return taken;
                };
                taken.push((index, self.layer(input, store, &grown)));
            }
        };
        let processors = thread::available_parallelism().map_or(1, NonZero::get);
        let mut taken = thread::scope(|scope| {
            let threads: Vec<_> = (0..processors.min(UNPACKING_MAX).min(inputs.len()))
                .map(|_| scope.spawn(work))
                .collect();
            let joined = threads.into_iter().map(thread::ScopedJoinHandle::join);
            joined
                .flat_map(|taken| taken.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
                .collect::<Vec<_>>()
        });
        taken.sort_by_key(|(index, _)| *index);
        let taken = taken.into_iter().map(|(_, layer)| layer);
        let taken = taken.collect::<Result<_, _>>()?;
        if grown.into_inner() {
            self.shrink(BYTES_MAX);
        }
        Ok(taken)
    }

    /// All layers that are there, those that were not used for longest first. Some may be in use.
    pub fn list(&self) -> Vec<Idle> {
        let mut found: Vec<_> = names(&self.here())
            .filter_map(|name| self.describe(&name))
            .collect();
        found.sort_by_key(|idle| (idle.used, idle.sha256));
        found
    }

    /// Whether nobody uses a layer just now.
    pub fn is_idle(&self, sha256: &Sha256) -> bool {
        exclusive(&self.here().join(sha256.to_hex())).is_some()
    }

    /// Removes a layer, unless it is in use: then `false`.
    pub fn remove(&self, sha256: &Sha256) -> bool {
        remove(&self.here().join(sha256.to_hex()))
    }

    /// Removes what killed processes and earlier boots left.
    pub fn tidy(&self) {
        self.forget_earlier_boots();
        for name in names(&self.here()).filter(|name| !is_layer(name)) {
            remove(&self.here().join(name));
        }
    }

    fn here(&self) -> PathBuf {
        self.dir.join(&self.boot)
    }

    fn describe(&self, name: &OsStr) -> Option<Idle> {
        let sha256 = name.to_str()?.parse().ok()?;
        let dir = self.here().join(name);
        let used = fs::metadata(&dir).ok()?.modified().ok()?;
        let bytes = Entries::read_bytes(&dir)?;
        Some(Idle {
            sha256,
            bytes,
            used,
        })
    }

    fn layer(&self, input: &Input, store: &Store, grown: &AtomicBool) -> Result<Layer, Error> {
        let place = self.here().join(input.blob.sha256.to_hex());
        loop {
            let failed = |e| Error::io("use", &place, e);
            if let Some(lock) = shared(&place).map_err(failed)? {
                let used = FileTimes::new().set_modified(SystemTime::now());
                lock.set_times(used).map_err(failed)?;
                return Ok(Layer {
                    name: input.name.clone(),
                    entries: Entries::read(&place).map_err(failed)?,
                    dir: place,
                    _lock: lock,
                });
            }
            self.unpack(input, store, &place)?;
            grown.store(true, Ordering::Relaxed);
        }
    }

    /// Unpacks an output, unless somebody else is just doing it: then this waits until they are done or gone.
    fn unpack(&self, input: &Input, store: &Store, place: &Path) -> Result<(), Error> {
        let new = self
            .here()
            .join(format!("{NEW}{}", input.blob.sha256.to_hex()));
        let failed = |e| Error::io("create", &new, e);
        private(&new).map_err(failed)?;
        let _lock = match locked(&new, FlockOperation::NonBlockingLockExclusive) {
            Ok(Some(lock)) => lock,
            Ok(None) => return Ok(()),
            // Waited for with a shared lock: what is being unpacked becomes the layer, which builds hold as long as they run.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                shared(&new).map_err(failed)?;
                return Ok(());
            }
            Err(error) => return Err(failed(error)),
        };
        // Whoever looked for the layer just before it appeared comes here when all is done.
        if place.exists() {
            return remove_tree(&new).map_err(failed);
        }
        let result = fill(&new, input, store, self.read_only)
            .and_then(|()| fs::rename(&new, place).map_err(|e| Error::io("create", place, e)));
        if result.is_err() {
            let _ = remove_tree(&new);
        }
        result
    }

    fn shrink(&self, bytes_max: u64) {
        let layers = self.list();
        let mut bytes: u64 = layers.iter().map(|layer| layer.bytes).sum();
        for layer in layers {
            if bytes <= bytes_max {
                return;
            }
            if self.remove(&layer.sha256) {
                bytes -= layer.bytes;
            }
        }
    }

    fn forget_earlier_boots(&self) {
        for boot in names(&self.dir).filter(|name| name.as_bytes() != self.boot.as_bytes()) {
            let dir = self.dir.join(boot);
            for name in names(&dir) {
                remove(&dir.join(name));
            }
            // Another machine that has this folder, too, may use what is left.
            let _ = fs::remove_dir(&dir);
        }
    }
}

/// Unpacks an archive and writes down what came of it. What a killed process left is removed first.
fn fill(new: &Path, input: &Input, store: &Store, read_only: bool) -> Result<(), Error> {
    let failed = |e| Error::io("create", new, e);
    for name in names(new) {
        let left = new.join(name);
        let removed = match fs::symlink_metadata(&left) {
            Ok(metadata) if metadata.is_dir() => remove_tree(&left),
            _ => fs::remove_file(&left),
        };
        removed.map_err(failed)?;
    }
    let root = new.join("root");
    make_dir(&root)?;
    unpack_all(&root, &[input], store)?;
    let entries = Entries::of(&root).map_err(failed)?;
    if read_only {
        forbid_writing(&root, &entries).map_err(failed)?;
    }
    entries.write(new).map_err(failed)
}

fn forbid_writing(root: &Path, entries: &Entries) -> io::Result<()> {
    for (path, is_dir) in &entries.paths {
        let path = root.join(OsStr::from_bytes(path));
        let metadata = fs::symlink_metadata(&path)?;
        if !is_dir && metadata.is_file() {
            let mode = metadata.permissions().mode() & !0o222;
            fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
        }
    }
    Ok(())
}

/// The paths below a layer's root.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Entries {
    /// What the files take on the disk.
    bytes: u64,
    /// Relative paths, and whether each is a directory; a directory stands before what is in it.
    pub(crate) paths: Vec<(Vec<u8>, bool)>,
}

impl Entries {
    fn of(root: &Path) -> io::Result<Self> {
        let mut entries = Self::default();
        let mut open = vec![PathBuf::new()];
        while let Some(dir) = open.pop() {
            for entry in fs::read_dir(root.join(&dir))? {
                let entry = entry?;
                let path = dir.join(entry.file_name());
                let metadata = entry.metadata()?;
                entries.bytes += metadata.blocks() * BLOCK_BYTES;
                let bytes = path.as_os_str().as_bytes().to_vec();
                entries.paths.push((bytes, metadata.is_dir()));
                if metadata.is_dir() {
                    open.push(path);
                }
            }
        }
        Ok(entries)
    }

    /// One line with the size, then the paths, each after a letter that says what it is and before a zero byte.
    fn write(&self, dir: &Path) -> io::Result<()> {
        let mut file = io::BufWriter::new(File::create(dir.join("entries"))?);
        writeln!(file, "{}", self.bytes)?;
        for (path, is_dir) in &self.paths {
            file.write_all(if *is_dir { b"d" } else { b"f" })?;
            file.write_all(path)?;
            file.write_all(&[0])?;
        }
        file.flush()
    }

    fn read(dir: &Path) -> io::Result<Self> {
        let text = fs::read(dir.join("entries"))?;
        Self::parse(&text).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    fn parse(text: &[u8]) -> Option<Self> {
        let end = text.iter().position(|b| *b == b'\n')?;
        let bytes = std::str::from_utf8(&text[..end]).ok()?.parse().ok()?;
        let records = text[end + 1..].split_inclusive(|b| *b == 0);
        let paths = records.map(|record| match record {
            [b'd', path @ .., 0] => Some((path.to_vec(), true)),
            [b'f', path @ .., 0] => Some((path.to_vec(), false)),
            _ => None,
        });
        let paths = paths.collect::<Option<_>>()?;
        Some(Self { bytes, paths })
    }

    /// The first line alone.
    fn read_bytes(dir: &Path) -> Option<u64> {
        let file = File::open(dir.join("entries")).ok()?;
        let mut line = String::new();
        let mut head = io::Read::take(io::BufReader::with_capacity(32, file), 32);
        io::BufRead::read_line(&mut head, &mut line).ok()?;
        line.trim().parse().ok()
    }
}

/// Makes a directory that only its owner may look into, and its parents.
fn private(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

fn names(dir: &Path) -> impl Iterator<Item = std::ffi::OsString> + use<> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name())
}

fn is_layer(name: &OsStr) -> bool {
    !name.as_bytes().starts_with(b".")
}

fn shared(dir: &Path) -> io::Result<Option<File>> {
    locked(dir, FlockOperation::LockShared)
}

fn exclusive(dir: &Path) -> Option<File> {
    locked(dir, FlockOperation::NonBlockingLockExclusive).ok()?
}

/// Locks what has this name; `None` if nothing has it, or something else has when the lock is got.
fn locked(dir: &Path, operation: FlockOperation) -> io::Result<Option<File>> {
    let file = match File::open(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        result => result?,
    };
    flock(&file, operation)?;
    let ours = file.metadata()?;
    let is_still = |named: fs::Metadata| named.dev() == ours.dev() && named.ino() == ours.ino();
    Ok(fs::symlink_metadata(dir)
        .is_ok_and(is_still)
        .then_some(file))
}

/// Removes a directory unless somebody holds a lock on it. It loses its name first, for nobody may find half a layer.
fn remove(dir: &Path) -> bool {
    let Some(_lock) = exclusive(dir) else {
        return false;
    };
    let mut dead = dir.to_owned();
    let name = dir.file_name().unwrap_or_default().as_bytes();
    if !name.starts_with(DEAD.as_bytes()) {
        dead.set_file_name(OsStr::from_bytes(&[DEAD.as_bytes(), name].concat()));
        // One of this name that was removed before may not be quite gone.
        let renamed = fs::rename(dir, &dead).or_else(|_| {
            remove_tree(&dead)?;
            fs::rename(dir, &dead)
        });
        if renamed.is_err() {
            return false;
        }
    }
    // What cannot be removed now has lost its name and is tried again.
    let _ = remove_tree(&dead);
    true
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use store::Expected;

    use super::*;

    struct Home {
        dir: tempfile::TempDir,
        store: Store,
        layers: Layers,
    }

    impl Home {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let store = Store::open(&dir.path().join("store")).unwrap();
            let layers = Layers::below(dir.path()).unwrap();
            Self { dir, store, layers }
        }

        /// An output with one file.
        fn input(&self, name: &str) -> Input {
            let tree = tempfile::tempdir().unwrap();
            fs::create_dir(tree.path().join("bin")).unwrap();
            fs::write(tree.path().join("bin").join(name), vec![1; 10_000]).unwrap();
            let mut ingest = self.store.ingest().unwrap();
            store::archive::pack(tree.path(), &mut ingest).unwrap();
            let blob = ingest.finish(&Expected::anything()).unwrap();
            Input {
                name: name.into(),
                blob,
            }
        }

        fn take(&self, input: &Input) -> Layer {
            let mut layers = self.layers.take(&[input], &self.store).unwrap();
            layers.pop().unwrap()
        }
    }

    #[test]
    fn who_waited_for_the_unpacking_does_not_wait_for_the_build_that_uses_it() {
        let home = Home::new();
        let input = home.input("tool");
        let sha256 = input.blob.sha256.to_hex();
        let (new, place) = (format!("{NEW}{sha256}"), home.layers.here().join(&sha256));
        let new = home.layers.here().join(new);
        private(&new).unwrap();
        let unpacking = exclusive(&new).unwrap();
        let (sender, taken) = std::sync::mpsc::channel();
        thread::scope(|scope| {
            scope.spawn(|| sender.send(home.take(&input)));
            fill(&new, &input, &home.store, false).unwrap();
            fs::rename(&new, &place).unwrap();
            // The first build goes over from unpacking to using it, and does not end.
            flock(&unpacking, FlockOperation::LockShared).unwrap();
            let other = taken.recv_timeout(std::time::Duration::from_secs(30));
            drop(unpacking);
            assert_eq!(other.unwrap().dir, place);
        });
    }

    #[test]
    fn who_comes_just_after_the_layer_appeared_leaves_it_as_it_is() {
        let home = Home::new();
        let input = home.input("p");
        let place = home.layers.here().join(input.blob.sha256.to_hex());
        let inode = |path: &Path| fs::metadata(path).unwrap().ino();
        private(&home.layers.here()).unwrap();
        home.layers.unpack(&input, &home.store, &place).unwrap();
        let before = inode(&place);
        home.layers.unpack(&input, &home.store, &place).unwrap();
        assert_eq!(inode(&place), before);
        assert_eq!(names(&home.layers.here()).count(), 1);
    }

    #[test]
    fn an_output_is_unpacked_once_whoever_asks_at_the_same_time() {
        let home = Home::new();
        let input = home.input("tool");
        let start = Barrier::new(4);
        let inodes: Vec<_> = thread::scope(|scope| {
            let ask = || {
                start.wait();
                let layer = home.take(&input);
                let path = layer.root().join("bin/tool");
                fs::metadata(path).unwrap().ino()
            };
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(ask)).collect();
            threads.into_iter().map(|t| t.join().unwrap()).collect()
        });
        assert!(inodes.iter().all(|ino| *ino == inodes[0]), "{inodes:?}");
        assert_eq!(names(&home.layers.here()).count(), 1);
    }

    #[test]
    fn a_layer_says_what_is_in_it_in_every_process() {
        let home = Home::new();
        let input = home.input("tool");
        let expected = [(b"bin".to_vec(), true), (b"bin/tool".to_vec(), false)];
        assert_eq!(home.take(&input).entries.paths, expected);
        let again = home.take(&input);
        assert_eq!(again.entries.paths, expected);
        assert!(again.entries.bytes >= 10_000);
        assert_eq!(home.layers.list()[0].bytes, again.entries.bytes);
    }

    #[test]
    fn a_layer_in_use_stays_and_goes_when_nobody_uses_it() {
        let home = Home::new();
        let input = home.input("tool");
        let (first, second) = (home.take(&input), home.take(&input));
        let sha256 = input.blob.sha256;
        for layer in [first, second] {
            assert!(!home.layers.is_idle(&sha256) && !home.layers.remove(&sha256));
            assert!(layer.root().join("bin/tool").exists());
        }
        assert!(home.layers.is_idle(&sha256) && home.layers.remove(&sha256));
        assert_eq!(names(&home.layers.here()).count(), 0);
        assert!(home.take(&input).root().join("bin/tool").exists());
    }

    #[test]
    fn beyond_the_bound_those_go_that_were_not_used_for_longest() {
        let home = Home::new();
        let inputs = ["a", "b", "c"].map(|name| home.input(name));
        for input in inputs.iter().chain([&inputs[0]]) {
            drop(home.take(input));
        }
        let one = home.layers.list()[0].bytes;
        home.layers.shrink(2 * one);
        let left: Vec<_> = home.layers.list().iter().map(|l| l.sha256).collect();
        assert_eq!(left, [inputs[2].blob.sha256, inputs[0].blob.sha256]);
        let used = home.take(&inputs[2]);
        home.layers.shrink(0);
        assert_eq!(home.layers.list().len(), 1);
        drop(used);
    }

    #[test]
    fn what_killed_processes_and_earlier_boots_left_goes_away() {
        let home = Home::new();
        let input = home.input("tool");
        let here = home.layers.here();
        let half = here.join(format!("{NEW}{}", input.blob.sha256));
        fs::create_dir_all(half.join("root/bin")).unwrap();
        fs::write(half.join("root/bin/half"), "").unwrap();
        fs::create_dir_all(here.join(".dead-x/root")).unwrap();
        let earlier = home.dir.path().join(FOLDER).join("0-1");
        fs::create_dir_all(earlier.join("x/root")).unwrap();
        let layer = home.take(&input);
        assert!(!layer.root().join("bin/half").exists() && !earlier.exists());
        fs::create_dir_all(half.join("root/bin")).unwrap();
        home.layers.tidy();
        assert_eq!(names(&here).count(), 1);
    }

    #[test]
    fn an_archive_that_the_disk_changed_becomes_no_layer() {
        let home = Home::new();
        let mut input = home.input("tool");
        input.blob.sha256 = Sha256::of(b"not in the store");
        let error = home.layers.take(&[&input], &home.store).unwrap_err();
        assert!(matches!(error, Error::Io { .. }), "{error}");
        assert_eq!(names(&home.layers.here()).count(), 0);
    }

    proptest::proptest! {
        #[test]
        fn entries_are_read_as_they_were_written(
            bytes: u64,
            paths in proptest::collection::vec(("[^\0]{1,9}", proptest::bool::ANY), 0..9),
        ) {
            let dir = tempfile::tempdir().unwrap();
            let paths = paths.into_iter().map(|(path, is_dir)| (path.into_bytes(), is_dir)).collect();
            let entries = Entries { bytes, paths };
            entries.write(dir.path()).unwrap();
            proptest::prop_assert_eq!(Entries::read(dir.path()).unwrap(), entries);
            proptest::prop_assert_eq!(Entries::read_bytes(dir.path()), Some(bytes));
        }

        #[test]
        fn a_damaged_list_is_refused_and_never_a_panic(text: Vec<u8>) {
            let _ = Entries::parse(&text);
        }
    }
}
