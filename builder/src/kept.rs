//! A failed build that was kept, and how to look around in it: a shell in the same sandbox.
//!
//! Beside the build's root lies a description of what it ran in, [`FILE`]. Paths below the scratch directory are relative in
//! it, for that directory is renamed when it is kept. The layers of a stacked root are shared and may have gone since; then
//! they are unpacked again from the store. What the build changed is not in them but in the directory.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, IsTerminal as _, Read as _};
use std::path::{Path, PathBuf};

use base::Sha256;
use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};
use store::Store;

use crate::error::{Error, ProcessError};
use crate::jobs::JobServer;
use crate::layers::{Layer, Layers};
use crate::probe::LazySandbox;
use crate::process::attach;
use crate::request::{BuildRequest, InMemory, Mount, Stack};
use crate::root::{Input, sorted, write_file};
use crate::scratch::{LOCK, Scratch, lock, remove_tree};
use crate::surroundings::Surroundings;

/// The description, in the scratch directory.
const FILE: &str = "kept.json";
/// Longest description that is read, in bytes: a thousand inputs and mounts.
const DESCRIPTION_BYTES_MAX: u64 = 1 << 20;
/// Longest first line of a script that is looked at, in bytes, as in the kernel.
const INTERPRETER_BYTES_MAX: u64 = 256;
/// What is opened unless the script names a shell of its own.
const SHELL: &str = "/bin/sh";

/// What a build ran in. All of it was made by us, before the build began; no build can reach it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Description {
    surroundings: Surroundings,
    mounts: Vec<Mount>,
    env: BTreeMap<String, String>,
    directory: PathBuf,
    command: Vec<String>,
    in_memory: Option<InMemory>,
    /// Names and digests of what was stacked; nothing where the root is one of copies.
    layers: Vec<(String, String)>,
}

/// Writes down what a build runs in, for the case that it fails.
pub(crate) fn describe(
    scratch: &Scratch,
    request: &BuildRequest,
    inputs: &[Input],
) -> Result<(), Error> {
    let path = scratch.path().join(FILE);
    let text = |os: &std::ffi::OsStr| os.to_string_lossy().into_owned();
    let mut description = Description {
        surroundings: request.surroundings,
        mounts: request.mounts.clone(),
        env: request
            .env
            .iter()
            .map(|(n, v)| (text(n), text(v)))
            .collect(),
        directory: request.directory.clone(),
        command: request.command.iter().map(|word| text(word)).collect(),
        in_memory: request.in_memory.clone(),
        layers: Vec::new(),
    };
    if request.stack.is_some() {
        let layers = sorted(inputs).into_iter();
        description.layers = layers
            .map(|input| (input.name.clone(), input.blob.sha256.to_string()))
            .collect();
    }
    let relative = |path: &Path| path.strip_prefix(scratch.path()).map(Path::to_owned).ok();
    description.move_paths(|path| relative(path));
    let bytes = serde_json::to_vec(&description)
        .map_err(|error| Error::io("write", &path, io::Error::other(error)))?;
    write_file(&path, &bytes, false)
}

impl Description {
    fn move_paths(&mut self, to: impl Fn(&Path) -> Option<PathBuf>) {
        let moved = |path: &mut PathBuf| {
            if let Some(new) = to(path) {
                *path = new;
            }
        };
        for mount in &mut self.mounts {
            if let Mount::Writable { from, .. } | Mount::ReadOnly { from, .. } = mount {
                moved(from);
            }
        }
        if let Some(in_memory) = &mut self.in_memory {
            moved(&mut in_memory.dir);
            moved(&mut in_memory.from);
        }
    }

    fn request(self, stack: Option<Stack>, command: Vec<std::ffi::OsString>) -> BuildRequest {
        BuildRequest {
            surroundings: self.surroundings,
            interactive: true,
            in_memory: self.in_memory,
            stack,
            mounts: self.mounts,
            env: self
                .env
                .into_iter()
                .map(|(name, value)| (name.into(), value.into()))
                .collect(),
            directory: self.directory,
            command,
        }
    }
}

/// A failed build's directory, entered by nobody else as long as this lives.
#[derive(Debug)]
pub struct Kept {
    dir: PathBuf,
    request: BuildRequest,
    _layers: Vec<Layer>,
    _lock: File,
}

impl Kept {
    /// Makes ready what a failed build left in `dir`; what its root was stacked from is taken from the store if need be.
    ///
    /// # Errors
    /// [`Error::NotKept`] when the directory is none that a build left, is in use, or needs what the store has no more.
    pub fn open(dir: &Path, store: &Store) -> Result<Self, Error> {
        let not_kept = |why: String| Error::NotKept {
            dir: dir.to_owned(),
            why,
        };
        let dir = fs::canonicalize(dir).map_err(|e| Error::io("open", dir, e))?;
        let mut description = read(&dir).map_err(not_kept)?;
        let lock = lock(&dir.join(LOCK), FlockOperation::NonBlockingLockExclusive)
            .map_err(|_| not_kept("it is in use".into()))?;
        description.move_paths(|path| path.is_relative().then(|| dir.join(path)));
        let (mut layers, mut stack) = (Vec::new(), None);
        if !description.layers.is_empty() {
            layers = stacked(&description, &dir, store)?;
            stack = Some(Stack::over(&dir, layers.iter().map(Layer::root))?);
        }
        let command = shell(&dir);
        Ok(Self {
            request: description.request(stack, command),
            dir,
            _layers: layers,
            _lock: lock,
        })
    }

    /// Where it lies.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The shell that is opened, by its path inside.
    pub fn shell_path(&self) -> &Path {
        let command = self.request.command.first();
        command.map_or_else(|| Path::new(SHELL), Path::new)
    }

    /// Opens a shell on our terminal, with the environment, the sandbox and the jobs of the build, and returns its exit status
    /// when it ends.
    ///
    /// # Errors
    /// Whatever keeps a sandbox from being started.
    pub fn shell(&self, sandbox: &LazySandbox, jobs: &JobServer) -> Result<i32, Error> {
        let sandbox = sandbox.get()?;
        let seat = jobs.seat(&|| false).ok_or(Error::Cancelled)?;
        let lending = seat.lend().map_err(ProcessError::Start)?;
        Ok(attach(sandbox, &self.request, Some(&lending))?)
    }

    /// Removes the directory.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn remove(self) -> Result<(), Error> {
        remove_tree(&self.dir).map_err(|e| Error::io("remove", &self.dir, e))
    }
}

fn read(dir: &Path) -> Result<Description, String> {
    let file = File::open(dir.join(FILE))
        .map_err(|error| format!("it is none that a failed build left: {error}"))?;
    let mut bytes = Vec::new();
    file.take(DESCRIPTION_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| error.to_string())?;
    if bytes.len() as u64 > DESCRIPTION_BYTES_MAX {
        return Err(format!("`{FILE}` is too long"));
    }
    serde_json::from_slice(&bytes).map_err(|error| format!("`{FILE}` cannot be read: {error}"))
}

fn stacked(description: &Description, dir: &Path, store: &Store) -> Result<Vec<Layer>, Error> {
    let not_kept = |why: String| Error::NotKept {
        dir: dir.to_owned(),
        why,
    };
    let mut inputs = Vec::new();
    for (name, sha256) in &description.layers {
        let sha256: Sha256 = sha256
            .parse()
            .map_err(|_| not_kept(format!("`{FILE}` names no digest of `{name}`")))?;
        let blob = store.blob(&sha256)?;
        let blob = blob.ok_or_else(|| not_kept(format!("the store has no `{name}` any more")))?;
        let name = name.clone();
        inputs.push(Input { name, blob });
    }
    let layers = dir.parent().and_then(Layers::below);
    let layers = layers.ok_or_else(|| not_kept("the kernel does not name its boot".into()))?;
    layers.take(&inputs.iter().collect::<Vec<_>>(), store)
}

/// The script's own interpreter if it is a shell, else the usual one.
fn shell(dir: &Path) -> Vec<std::ffi::OsString> {
    let shell = interpreter(&dir.join("build"))
        .filter(|program| program.ends_with("sh"))
        .unwrap_or_else(|| SHELL.into());
    let mut command = vec![shell.into()];
    if io::stdin().is_terminal() {
        command.push("-i".into());
    }
    command
}

fn interpreter(script: &Path) -> Option<String> {
    let mut line = String::new();
    let script = File::open(script).ok()?.take(INTERPRETER_BYTES_MAX);
    BufReader::new(script).read_line(&mut line).ok()?;
    let program = line.strip_prefix("#!")?.split_ascii_whitespace().next()?;
    program.starts_with('/').then(|| program.to_owned())
}
