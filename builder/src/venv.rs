//! Using packages: closures composed in one directory, to be run in (`venv-run`), looked into, or exported.
//!
//! A venv is the closure's outputs unpacked over each other, in the order of names, the last one winning, and one script,
//! `bin/venv-run`, that bubblewraps a command so that these directories lie over the host's, as upstream's venv does.
//! Where upstream hides a host's `/bin` or `/etc` entirely, we leave what programs find there by fixed paths: for names
//! that the closure does not have (`HOST_NAMES`) the venv holds links into `/.host`, where the script shows the host
//! as it is. So `make` in a venv without a shell still finds `/bin/sh`, and names still resolve. Outside of `venv-run`
//! these links lead nowhere and do no harm.

use std::ffi::OsString;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use base::{Hasher, Sha256};
use store::Store;
use store::archive::{self, Entry};

use crate::error::Error;
use crate::layers::Layers;
use crate::linked::link_all;
use crate::root::{Input, entries, make_dir, sorted, unpack_all};
use crate::scratch::{Scratch, remove_tree};

/// The script's path in a venv.
pub const VENV_RUN: &str = "bin/venv-run";
const SCRIPT: &str = include_str!("venv-run.sh");
/// Enters the key of cached venvs: raise it when what [`create`] makes changes.
const VERSION: &str = "p2pkgs-venv 1";

/// Names of the host that stay visible in a directory that the venv covers, unless the closure has them itself.
///
/// Interpreters that scripts name by path, the dynamic linkers and library folders without which no program of the host
/// starts, and the files of `/etc` that the C library reads. Whatever else the host has in `/bin` is found through `PATH`.
const HOST_NAMES: [(&str, &[&str]); 5] = [
    (
        "bin",
        &[
            "ash", "awk", "bash", "busybox", "cat", "csh", "dash", "echo", "env", "false", "fish",
            "kill", "ksh", "ls", "perl", "ps", "pwd", "python3", "sed", "sh", "true", "zsh",
        ],
    ),
    (
        "lib",
        &[
            "aarch64-linux-gnu",
            "arm-linux-gnueabihf",
            "i386-linux-gnu",
            "ld-linux-aarch64.so.1",
            "ld-linux-x86-64.so.2",
            "ld-linux.so.2",
            "ld-musl-aarch64.so.1",
            "ld-musl-x86_64.so.1",
            "libc.musl-aarch64.so.1",
            "libc.musl-x86_64.so.1",
            "libcrypto.so.3",
            "libssl.so.3",
            "libz.so.1",
            "locale",
            "riscv64-linux-gnu",
            "x86_64-linux-gnu",
        ],
    ),
    (
        "etc",
        &[
            "alternatives",
            "ca-certificates",
            "group",
            "host.conf",
            "hostname",
            "hosts",
            "ld-musl-x86_64.path",
            "ld.so.cache",
            "ld.so.conf",
            "ld.so.conf.d",
            "localtime",
            "machine-id",
            "mtab",
            "nsswitch.conf",
            "os-release",
            "passwd",
            "pki",
            "protocols",
            "resolv.conf",
            "services",
            "shells",
            "ssl",
            "terminfo",
            "timezone",
        ],
    ),
    (
        "usr",
        &[
            "bin", "include", "lib", "lib32", "lib64", "libexec", "local", "sbin", "share", "src",
        ],
    ),
    (
        "var",
        &[
            "cache", "db", "empty", "lib", "lock", "log", "mail", "run", "spool", "tmp",
        ],
    ),
];

/// Makes a venv in `dir`, which must not exist yet.
///
/// # Errors
/// [`Error`]; nothing is left in `dir` then.
pub fn create(store: &Store, inputs: &[Input], dir: &Path) -> Result<(), Error> {
    compose_with(dir, add_run_script, |dir| {
        unpack_all(dir, &sorted(inputs), store)
    })
}

/// Makes a venv whose files are links to outputs that are unpacked once for all such venvs, and that nobody may write to.
///
/// # Errors
/// [`Error`]; nothing is left in `dir` then.
pub fn link(store: &Store, inputs: &[Input], layers: &Layers, dir: &Path) -> Result<(), Error> {
    compose_with(dir, add_run_script, |dir| {
        link_all(dir, inputs, store, layers)
    })
}

/// Unpacks a closure over each other into `dir`, which must not exist yet; nothing is added.
///
/// # Errors
/// [`Error`]; nothing is left in `dir` then.
pub fn compose(store: &Store, inputs: &[Input], dir: &Path) -> Result<(), Error> {
    let nothing = |_: &Path| Ok(());
    compose_with(dir, nothing, |dir| unpack_all(dir, &sorted(inputs), store))
}

/// The venv of this closure below `cache`, made when it is not there yet.
///
/// # Errors
/// [`Error`] as of [`create`].
pub fn cached(store: &Store, inputs: &[Input], cache: &Path) -> Result<PathBuf, Error> {
    let dir = cache.join(closure_key(inputs).to_hex());
    if !dir.join(VENV_RUN).exists() {
        fs::create_dir_all(cache).map_err(|e| Error::io("create", cache, e))?;
        match create(store, inputs, &dir) {
            // Another process was faster.
            Err(_) if dir.join(VENV_RUN).exists() => {}
            result => result?,
        }
    }
    Ok(dir)
}

/// Runs a command in a venv and waits for it.
///
/// # Errors
/// Whatever keeps the script from being started.
pub fn run(dir: &Path, command: &[OsString]) -> io::Result<ExitStatus> {
    Command::new(dir.join(VENV_RUN)).args(command).status()
}

/// Becomes a command in a venv: this process ends with it, and signals reach it. Returns only when that fails.
pub fn exec(dir: &Path, command: &[OsString]) -> io::Error {
    Command::new(dir.join(VENV_RUN)).args(command).exec()
}

/// Packs a closure, composed as in a venv but with nothing added, as one canonical archive.
///
/// # Errors
/// [`Error`] when an output or the archive cannot be read or written.
pub fn export(
    store: &Store,
    inputs: &[Input],
    scratch: &Path,
    writer: impl io::Write,
) -> Result<archive::Summary, Error> {
    let scratch = Scratch::new(scratch)?;
    let root = scratch.root();
    compose(store, inputs, &root)?;
    archive::pack(&root, writer).map_err(|e| Error::archive("the closure", e))
}

/// Whether an output has such a file, or a link of that name.
///
/// # Errors
/// [`Error`] when the output cannot be read.
pub fn has_file(store: &Store, inputs: &[Input], name: &str, path: &str) -> Result<bool, Error> {
    let Some(input) = inputs.iter().find(|input| input.name == name) else {
        return Ok(false);
    };
    let is_it = |entry: &Entry| {
        entry.path == path.as_bytes() && entry.kind != archive::EntryKind::Directory
    };
    Ok(entries(store, input)?.iter().any(is_it))
}

fn compose_with(
    dir: &Path,
    finish: impl FnOnce(&Path) -> Result<(), Error>,
    fill: impl FnOnce(&Path) -> Result<(), Error>,
) -> Result<(), Error> {
    if fs::symlink_metadata(dir).is_ok() {
        return Err(Error::io(
            "create",
            dir,
            io::ErrorKind::AlreadyExists.into(),
        ));
    }
    // Beside the final place, so that it becomes visible whole or not at all.
    let parent = match dir.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    let partial = tempfile::Builder::new()
        .prefix(".venv-")
        .tempdir_in(parent)
        .map_err(|e| Error::io("create a directory in", parent, e))?
        .keep();
    let result = open_to_all(&partial)
        .and_then(|()| fill(&partial))
        .and_then(|()| finish(&partial))
        .and_then(|()| fs::rename(&partial, dir).map_err(|e| Error::io("create", dir, e)));
    if result.is_err() {
        let _ = remove_tree(&partial);
    }
    result
}

fn open_to_all(dir: &Path) -> Result<(), Error> {
    fs::set_permissions(dir, Permissions::from_mode(0o755)).map_err(|e| Error::io("change", dir, e))
}

fn add_run_script(dir: &Path) -> Result<(), Error> {
    make_dir(&dir.join("bin"))?;
    for (covered, names) in HOST_NAMES {
        let covered = dir.join(covered);
        // A link at the top covers nothing of the host by itself: what it leads to has its own turn.
        if fs::symlink_metadata(&covered).is_ok_and(|m| m.is_dir()) {
            add_host_links(&covered, names)?;
        }
    }
    let script = dir.join(VENV_RUN);
    if fs::symlink_metadata(&script).is_ok() {
        fs::remove_file(&script).map_err(|e| Error::io("replace", &script, e))?;
    }
    fs::write(&script, SCRIPT).map_err(|e| Error::io("write", &script, e))?;
    fs::set_permissions(&script, Permissions::from_mode(0o755))
        .map_err(|e| Error::io("change", &script, e))
}

fn add_host_links(covered: &Path, names: &[&str]) -> Result<(), Error> {
    let top = covered.file_name().unwrap_or_default();
    for name in names {
        let path = covered.join(name);
        if fs::symlink_metadata(&path).is_err() {
            let target = Path::new("/.host").join(top).join(name);
            symlink(target, &path).map_err(|e| Error::io("create", &path, e))?;
        }
    }
    Ok(())
}

/// What a venv of this closure depends on: names decide the order, digests the content.
fn closure_key(inputs: &[Input]) -> Sha256 {
    let mut lines: Vec<_> = inputs
        .iter()
        .map(|i| format!("{} {}\n", i.blob.sha256, i.name))
        .collect();
    lines.sort();
    let mut hasher = Hasher::new();
    hasher.update(format!("{VERSION}\n{SCRIPT}\n").as_bytes());
    lines.iter().for_each(|line| hasher.update(line.as_bytes()));
    hasher.finish()
}
