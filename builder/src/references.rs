//! What the files of a package name outside themselves, and whether it is there.
//!
//! Looked at are the things that a kernel or a loader follows without asking: the interpreter of a script, the loader and the
//! shared libraries of a program, the target of a symbolic link. Paths that a program merely holds as text are its own affair;
//! its check finds out about those.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

use object::elf::{DT_NEEDED, DT_RPATH, DT_RUNPATH, FileHeader32, FileHeader64};
use object::read::elf::{Dyn, FileHeader, ProgramHeader};
use object::{Endianness, FileKind, ReadCache, ReadRef};

use crate::error::Error;
use crate::root::below;

/// How much of a script is read for its first line, in bytes: the kernel reads no more.
const SHEBANG_BYTES_MAX: u64 = 256;
/// Where musl's loader looks for libraries.
const LIBRARY_FOLDERS: [&str; 3] = ["/lib", "/usr/local/lib", "/usr/lib"];
/// Where `env` looks for programs.
const PROGRAM_FOLDERS: [&str; 2] = ["/bin", "/usr/bin"];

/// What the files at `paths` below `root` name and `root` does not have, one line each.
///
/// # Errors
/// [`Error::Io`] when a file cannot be read.
pub(crate) fn missing<'p>(
    root: &Path,
    paths: impl IntoIterator<Item = &'p [u8]>,
) -> Result<Vec<String>, Error> {
    let mut lines = Vec::new();
    for path in paths {
        let path = Path::new(OsStr::from_bytes(path));
        let file = root.join(path);
        let found = look(root, path, &file).map_err(|e| Error::io("read", &file, e))?;
        let line = |need: Need| format!("`{}` {need}, which is not there", path.display());
        lines.extend(found.into_iter().map(line));
    }
    Ok(lines)
}

/// Something a file needs.
#[derive(Debug, PartialEq, Eq)]
enum Need {
    Target(PathBuf),
    Interpreter(String),
    Program(String),
    Loader(String),
    Library(String),
}

impl std::fmt::Display for Need {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Target(path) => write!(f, "links to `{}`", path.display()),
            Self::Interpreter(path) => write!(f, "is a script for `{path}`"),
            Self::Program(name) => write!(f, "is a script for the program `{name}`"),
            Self::Loader(path) => write!(f, "is loaded by `{path}`"),
            Self::Library(name) => write!(f, "needs the library `{name}`"),
        }
    }
}

fn look(root: &Path, path: &Path, file: &Path) -> io::Result<Vec<Need>> {
    let metadata = fs::symlink_metadata(file)?;
    if metadata.is_symlink() {
        let target = fs::read_link(file)?;
        let resolved = resolve(root, path);
        return Ok(resolved
            .is_none()
            .then_some(Need::Target(target))
            .into_iter()
            .collect());
    }
    if !metadata.is_file() {
        return Ok(Vec::new());
    }
    let mut head = Vec::new();
    File::open(file)?
        .take(SHEBANG_BYTES_MAX)
        .read_to_end(&mut head)?;
    if head.starts_with(b"#!") && metadata.permissions().mode() & 0o111 != 0 {
        return Ok(script(root, &head).into_iter().collect());
    }
    if head.starts_with(&object::elf::ELFMAG) {
        let cache = ReadCache::new(File::open(file)?);
        // What no loader can read is no program; a test file of a compiler may well be such a thing.
        return Ok(program(root, path, &cache).unwrap_or_default());
    }
    Ok(Vec::new())
}

/// What the first line of a script asks for.
fn script(root: &Path, head: &[u8]) -> Option<Need> {
    let line = head.split(|b| *b == b'\n').next()?;
    let line = String::from_utf8_lossy(line.get(2..)?).into_owned();
    let mut words = line.split_ascii_whitespace();
    let interpreter = words.next()?;
    if !exists(root, interpreter) {
        return Some(Need::Interpreter(interpreter.to_owned()));
    }
    let name = words.next().filter(|_| interpreter.ends_with("/env"))?;
    let found = PROGRAM_FOLDERS
        .iter()
        .any(|folder| exists(root, &format!("{folder}/{name}")));
    (!found).then(|| Need::Program(name.to_owned()))
}

fn program<'data>(
    root: &Path,
    path: &Path,
    data: impl ReadRef<'data>,
) -> object::read::Result<Vec<Need>> {
    match FileKind::parse(data)? {
        FileKind::Elf64 => loaded::<FileHeader64<Endianness>>(root, path, data),
        FileKind::Elf32 => loaded::<FileHeader32<Endianness>>(root, path, data),
        _ => Ok(Vec::new()),
    }
}

/// What a program or library asks of the loader.
fn loaded<'data, Elf: FileHeader<Endian = Endianness>>(
    root: &Path,
    path: &Path,
    data: impl ReadRef<'data>,
) -> object::read::Result<Vec<Need>> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let header = Elf::parse(data)?;
    let endian = header.endian()?;
    let mut needs = Vec::new();
    for segment in header.program_headers(endian, data)? {
        if let Some(loader) = segment.interpreter(endian, data)? {
            let loader = text(loader);
            let there = exists(root, &loader);
            needs.extend((!there).then_some(Need::Loader(loader)));
        }
    }
    let sections = header.sections(endian, data)?;
    let Some((entries, strings)) = sections.dynamic(endian, data)? else {
        return Ok(needs);
    };
    let strings = sections.strings(endian, data, strings)?;
    let values = |tag| {
        let of_tag = entries.iter().filter(move |entry| entry.tag(endian) == tag);
        of_tag.filter_map(|entry| entry.string(endian, strings).ok().map(text))
    };
    let own: Vec<String> = values(DT_RUNPATH)
        .chain(values(DT_RPATH))
        .flat_map(|paths| paths.split(':').map(str::to_owned).collect::<Vec<_>>())
        .map(|folder| expand(&folder, path))
        .collect();
    let folders: Vec<&str> = own
        .iter()
        .map(String::as_str)
        .chain(LIBRARY_FOLDERS)
        .collect();
    let found = |name: &String| {
        folders
            .iter()
            .any(|folder| exists(root, &format!("{folder}/{name}")))
    };
    needs.extend(
        values(DT_NEEDED)
            .filter(|name| !found(name))
            .map(Need::Library),
    );
    Ok(needs)
}

/// A folder of a run path, with `$ORIGIN` replaced by the folder of the file that names it.
fn expand(folder: &str, path: &Path) -> String {
    let own = path.parent().unwrap_or(Path::new(""));
    let own = format!("/{}", own.display());
    folder.replace("${ORIGIN}", &own).replace("$ORIGIN", &own)
}

/// Whether a path inside leads to something below the root.
fn exists(root: &Path, inside: &str) -> bool {
    resolve(root, &below(Path::new(""), inside)).is_some()
}

/// Follows a path below the root as a process inside would, links included; the host's own files are never looked at.
fn resolve(root: &Path, path: &Path) -> Option<PathBuf> {
    const LINKS_MAX: usize = 40; // as the kernel
    let mut links = 0;
    let mut rest: Vec<_> = path.components().rev().map(owned).collect();
    let mut at = PathBuf::new();
    while let Some(component) = rest.pop() {
        match component.as_bytes() {
            b"." => {}
            b".." => {
                at.pop();
            }
            b"/" => at = PathBuf::new(),
            _ => {
                let next = at.join(&component);
                let metadata = fs::symlink_metadata(root.join(&next)).ok()?;
                if !metadata.is_symlink() {
                    at = next;
                    continue;
                }
                links += 1;
                if links > LINKS_MAX {
                    return None;
                }
                let target = fs::read_link(root.join(&next)).ok()?;
                rest.extend(target.components().rev().map(owned));
            }
        }
    }
    Some(at)
}

fn owned(component: Component<'_>) -> std::ffi::OsString {
    component.as_os_str().to_owned()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn root(files: &[(&str, &[u8], u32)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, bytes, mode) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, bytes).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(*mode)).unwrap();
        }
        root
    }

    fn lines(root: &tempfile::TempDir, paths: &[&str]) -> Vec<String> {
        missing(root.path(), paths.iter().map(|path| path.as_bytes())).unwrap()
    }

    #[test]
    fn a_script_needs_its_interpreter_and_what_env_is_to_find() {
        let root = root(&[
            ("bin/dash", b"", 0o755),
            ("bin/env", b"", 0o755),
            ("bin/good", b"#! /bin/sh -e\n", 0o755),
            ("bin/perl", b"#!/usr/bin/perl\n", 0o755),
            ("bin/python", b"#!/bin/env python3\n", 0o755),
            ("share/doc", b"#!/nowhere\n", 0o644),
        ]);
        symlink("dash", root.path().join("bin/sh")).unwrap();
        let paths = ["bin", "bin/good", "bin/perl", "bin/python", "share/doc"];
        assert_eq!(
            lines(&root, &paths),
            [
                "`bin/perl` is a script for `/usr/bin/perl`, which is not there",
                "`bin/python` is a script for the program `python3`, which is not there"
            ]
        );
    }

    #[test]
    fn a_link_is_followed_within_the_root_and_never_on_the_host() {
        let root = root(&[("lib/libz.so.1", b"", 0o644)]);
        let link = |target: &str, name: &str| {
            symlink(target, root.path().join(name)).unwrap();
        };
        link("libz.so.1", "lib/libz.so");
        link("/lib/libz.so", "lib/absolute");
        link("/proc/self/exe", "lib/host");
        link("loop", "lib/loop");
        link("../../../lib/libz.so.1", "lib/up");
        let paths = [
            "lib/libz.so",
            "lib/absolute",
            "lib/host",
            "lib/loop",
            "lib/up",
        ];
        assert_eq!(
            lines(&root, &paths),
            [
                "`lib/host` links to `/proc/self/exe`, which is not there",
                "`lib/loop` links to `loop`, which is not there"
            ]
        );
    }

    #[test]
    fn a_program_needs_its_loader_and_its_libraries() {
        let own = fs::read(std::env::current_exe().unwrap()).unwrap();
        let root = root(&[("bin/test", &own, 0o755)]);
        let found = lines(&root, &["bin/test"]);
        // Which they are differs between hosts.
        let named = |what: &str| {
            let name = |line: &String| Some(line.split_once(what)?.1.split_once('`')?.0.to_owned());
            found.iter().find_map(name)
        };
        let loader = named(" is loaded by `/").expect("a loader");
        let library = named(" needs the library `").expect("a library");
        fs::create_dir_all(root.path().join(&loader).parent().unwrap()).unwrap();
        fs::write(root.path().join(&loader), "").unwrap();
        fs::create_dir_all(root.path().join("usr/lib")).unwrap();
        fs::write(root.path().join("usr/lib").join(&library), "").unwrap();
        assert_eq!(lines(&root, &["bin/test"]).len(), found.len() - 2);
    }

    #[test]
    fn what_no_loader_can_read_asks_for_nothing() {
        let root = root(&[("bin/cut", b"\x7fELF\x02\x01\x01", 0o755)]);
        assert_eq!(lines(&root, &["bin/cut"]), [""; 0]);
    }
}
