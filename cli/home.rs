//! The home directory: which file of it is what. Every process of one user shares it.
//!
//! ```text
//! store/          content, its index, the queue of keys to announce      logs/<pkghash>.log   what builds said
//! scratch/        what builds run in; `layers` are packages unpacked for them, which `gc` removes
//! keys/NAME.key   builder keys, 0600                                     trust.rec            whom we believe
//! names/NAME.key  keys of our own names, 0600                            key-statements       what keys said of keys
//! trees/, caches/ heads of package trees and caches that were seen       recipes/             what large trees hold, a cache
//! node.key        the daemon's identity, 0600                            node.lock            held while it runs
//! node.addr       where commands find it                                 node.json            what it is doing
//! node.http       where its HTTP door is
//! build-times     how long builds took                                   config.toml          settings, when it was named explicitly
//! ```

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use crate::error::{CmdResult, Exit, Failure};
use crate::keys::writing;

/// A home directory.
#[derive(Clone, Debug)]
pub struct Home {
    root: PathBuf,
    explicit: bool,
}

impl Home {
    /// The directory named by flag or environment, else `p2pkgs` in the XDG data directory.
    ///
    /// # Errors
    /// When there is neither, nor a home directory of the user.
    pub fn find(explicit: Option<&Path>) -> CmdResult<Self> {
        let root = match explicit {
            Some(path) if path.as_os_str().is_empty() => {
                return Err(Failure::usage("the home directory has an empty name"));
            }
            Some(path) => std::path::absolute(path)?,
            None => xdg("XDG_DATA_HOME", ".local/share")
                .ok_or_else(|| {
                    Failure::usage(
                        "there is no home directory: neither $XDG_DATA_HOME nor $HOME is set",
                    )
                    .hint("name one with `--home DIR` or $P2PKGS_HOME")
                })?
                .join("p2pkgs"),
        };
        Ok(Self {
            root,
            explicit: explicit.is_some(),
        })
    }

    /// The directory itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// A file or folder in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// The user's settings: in a home that was named, so that several can differ; else in the XDG configuration directory.
    pub fn config_file(&self) -> Option<PathBuf> {
        if self.explicit {
            return Some(self.path("config.toml"));
        }
        xdg("XDG_CONFIG_HOME", ".config").map(|dir| dir.join("p2pkgs/config.toml"))
    }

    /// Keeps others away from a file of the home that is read, changed and written, until the lock is dropped. Waits for those who do
    /// the same: nobody holds it for longer than that.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn lock(&self, name: &str) -> CmdResult<FileLock> {
        self.create()?;
        FileLock::wait(&self.path(&format!("{name}.lock")))
    }

    /// Makes the directory; only its owner may look in, for it holds keys.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn create(&self) -> CmdResult {
        private_dir(&self.root)
            .map_err(|e| Failure::from(e).context(format!("cannot make `{}`", self.root.display())))
    }
}

/// A file that is held. A process that dies lets go of it.
#[derive(Debug)]
pub struct FileLock {
    _file: File,
}

impl FileLock {
    /// Waits until nobody else holds it.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn wait(path: &Path) -> CmdResult<Self> {
        Self::take(path, FlockOperation::LockExclusive)
    }

    /// Takes it if nobody else holds it.
    ///
    /// # Errors
    /// Exit code 9 when somebody does, others when the disk fails.
    pub fn take_now(path: &Path) -> CmdResult<Self> {
        Self::take(path, FlockOperation::NonBlockingLockExclusive)
    }

    fn take(path: &Path, operation: FlockOperation) -> CmdResult<Self> {
        let file = File::create(path).map_err(writing(path))?;
        match flock(&file, operation) {
            Ok(()) => Ok(Self { _file: file }),
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let message = format!("another process holds `{}`", path.display());
                Err(Failure::new(Exit::Busy, message))
            }
            Err(error) => Err(writing(path)(error.into())),
        }
    }
}

/// An absolute directory out of the environment, or the default below $HOME. Relative ones are to be ignored (XDG spec).
fn xdg(variable: &str, below_home: &str) -> Option<PathBuf> {
    let absolute = |name: &str| {
        let path = PathBuf::from(std::env::var_os(name)?);
        path.is_absolute().then_some(path)
    };
    absolute(variable).or_else(|| absolute("HOME").map(|home| home.join(below_home)))
}

/// Makes a directory and its parents; the last one with mode 0700 if it is new.
///
/// # Errors
/// What the operating system says.
pub fn private_dir(path: &Path) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        result => result,
    }
}

/// Replaces a file in one step, so that readers see the old text or the new and a crash leaves either.
///
/// # Errors
/// What the operating system says.
pub fn write_atomically(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    write_bytes_atomically(path, text.as_bytes(), mode)
}

/// As [`write_atomically`], for what is no text.
///
/// # Errors
/// What the operating system says.
pub fn write_bytes_atomically(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = path.with_file_name(format!(".{name}.{}", std::process::id()));
    let write = || {
        let mut file: File = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(mode)
            .open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    };
    write().inspect_err(|_| {
        let _ = fs::remove_file(&temporary);
    })
}
