//! From `$DESTDIR` to the store: what a package may contain, and the one archive that has these contents.
//!
//! The build is over and all its processes are dead before anything here looks: nobody can swap a file in between.

use std::fs::{self, File, Metadata, Permissions};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};

use base::PackageName;
use store::archive;
use store::{Blob, Expected, Store};

use crate::error::{Error, OutputError};

/// The directories that a package may have at its top.
pub const TOP_LEVEL: [&str; 9] = [
    "bin", "etc", "include", "lib", "libexec", "sbin", "share", "usr", "var",
];
/// How many places a warning about leaked host paths names; after that it is clear what is wrong.
const LEAKS_MAX: usize = 20;
/// Shortest host name that is searched for: shorter ones are words that programs contain anyway.
const HOST_NAME_BYTES_MIN: usize = 6;
/// Bytes of a file read at once while searching.
const READ_BYTES: usize = 1 << 20;
const SETUID_OR_SETGID: u32 = 0o6000;

/// Checks every entry of an output. Makes readable what the build left unreadable: permissions are normalised anyway.
pub(crate) fn check(destdir: &Path) -> Result<Result<(), OutputError>, Error> {
    let mut open = vec![PathBuf::new()];
    while let Some(dir) = open.pop() {
        let mut names = names(&destdir.join(&dir))?;
        names.sort();
        for path in names.into_iter().map(|name| dir.join(name)) {
            let host_path = destdir.join(&path);
            let metadata =
                fs::symlink_metadata(&host_path).map_err(|e| Error::io("read", &host_path, e))?;
            if let Err(error) = check_entry(&path, &host_path, &metadata)? {
                return Ok(Err(error));
            }
            make_readable(&host_path, &metadata)?;
            if metadata.is_dir() {
                open.push(path);
            }
        }
    }
    Ok(Ok(()))
}

fn names(dir: &Path) -> Result<Vec<PathBuf>, Error> {
    let read_error = |e| Error::io("read", dir, e);
    let entries = fs::read_dir(dir).map_err(read_error)?;
    entries
        .map(|e| e.map(|e| e.file_name().into()).map_err(read_error))
        .collect()
}

fn check_entry(
    path: &Path,
    host_path: &Path,
    metadata: &Metadata,
) -> Result<Result<(), OutputError>, Error> {
    let text = || path.display().to_string();
    let is_top = path.components().count() == 1;
    if is_top && !(metadata.is_dir() && TOP_LEVEL.iter().any(|name| Path::new(name) == path)) {
        return Ok(Err(OutputError::TopLevel(text())));
    }
    if metadata.is_symlink() {
        let target = fs::read_link(host_path).map_err(|e| Error::io("read", host_path, e))?;
        return Ok(check_link(path, &target));
    }
    if let Some(kind) = special_kind(metadata) {
        return Ok(Err(OutputError::Special { path: text(), kind }));
    }
    if metadata.is_file() && metadata.mode() & SETUID_OR_SETGID != 0 {
        return Ok(Err(OutputError::Setuid(text())));
    }
    Ok(Ok(()))
}

fn special_kind(metadata: &Metadata) -> Option<&'static str> {
    let kind = metadata.file_type();
    if kind.is_fifo() {
        Some("named pipe")
    } else if kind.is_socket() {
        Some("socket")
    } else if kind.is_block_device() || kind.is_char_device() {
        Some("device")
    } else {
        None
    }
}

/// A link must be relative and stay inside wherever the package is unpacked.
///
/// `..` may only stand in front: there it climbs real directories, which can be counted. Behind a name it would climb
/// from wherever that name leads, and another link could lead it out.
fn check_link(path: &Path, target: &Path) -> Result<(), OutputError> {
    let text = |p: &Path| p.display().to_string();
    let escaping = || OutputError::EscapingLink {
        path: text(path),
        target: text(target),
    };
    let mut depth = path.components().count() - 1;
    let mut named = false;
    for component in target.components() {
        match component {
            Component::RootDir | Component::Prefix(_) => {
                return Err(OutputError::AbsoluteLink {
                    path: text(path),
                    target: text(target),
                });
            }
            Component::CurDir => {}
            Component::ParentDir if named => return Err(escaping()),
            Component::ParentDir => depth = depth.checked_sub(1).ok_or_else(escaping)?,
            Component::Normal(_) => named = true,
        }
    }
    Ok(())
}

fn make_readable(path: &Path, metadata: &Metadata) -> Result<(), Error> {
    let needed = if metadata.is_dir() { 0o700 } else { 0o400 };
    if metadata.is_symlink() || metadata.mode() & needed == needed {
        return Ok(());
    }
    fs::set_permissions(
        path,
        Permissions::from_mode(metadata.mode() & 0o777 | needed),
    )
    .map_err(|e| Error::io("change", path, e))
}

/// Packs an output into the store.
pub(crate) fn ingest(package: &PackageName, destdir: &Path, store: &Store) -> Result<Blob, Error> {
    let mut ingest = store.ingest()?;
    archive::pack(destdir, &mut ingest).map_err(|e| Error::archive(package.as_str(), e))?;
    Ok(ingest.finish(&Expected::anything())?)
}

/// Packs an output into a file beside the store: a second build that is only compared.
pub(crate) fn pack_to(package: &PackageName, destdir: &Path, path: &Path) -> Result<(), Error> {
    let file = File::create(path).map_err(|e| Error::io("create", path, e))?;
    archive::pack(destdir, std::io::BufWriter::new(file))
        .map(|_| ())
        .map_err(|e| Error::archive(package.as_str(), e))
}

/// Which of the texts that tell of this machine stand in which files, as lines for a warning.
pub(crate) fn leaks(destdir: &Path, scratch: &Path) -> Result<Vec<String>, Error> {
    let needles = needles(scratch);
    let mut found = Vec::new();
    let mut open = vec![destdir.to_owned()];
    while let Some(dir) = open.pop() {
        for path in names(&dir)?.into_iter().map(|name| dir.join(name)) {
            let metadata = fs::symlink_metadata(&path).map_err(|e| Error::io("read", &path, e))?;
            if metadata.is_dir() {
                open.push(path);
                continue;
            }
            if found.len() == LEAKS_MAX || !metadata.is_file() {
                continue;
            }
            for (what, needle) in &needles {
                if contains(&path, needle)? {
                    let inside = path.strip_prefix(destdir).unwrap_or(&path);
                    found.push(format!("`{}` contains {what}", inside.display()));
                }
            }
        }
    }
    found.sort();
    Ok(found)
}

fn needles(scratch: &Path) -> Vec<(&'static str, Vec<u8>)> {
    let mut needles = vec![(
        "the path it was built in",
        scratch.as_os_str().as_bytes().to_vec(),
    )];
    let uname = rustix::system::uname();
    let host = uname.nodename().to_bytes();
    if host.len() >= HOST_NAME_BYTES_MIN && host != b"localhost" {
        needles.push(("the name of this machine", host.to_vec()));
    }
    needles
}

/// Whether a file contains a text, read in pieces that overlap by the text's length.
fn contains(path: &Path, needle: &[u8]) -> Result<bool, Error> {
    let mut file = File::open(path).map_err(|e| Error::io("open", path, e))?;
    let mut buffer = vec![0; READ_BYTES + needle.len()];
    let mut filled = 0;
    loop {
        let n = file
            .read(&mut buffer[filled..])
            .map_err(|e| Error::io("read", path, e))?;
        filled += n;
        if n == 0 {
            return Ok(false);
        }
        if find(&buffer[..filled], needle) {
            return Ok(true);
        }
        let kept = filled.min(needle.len());
        buffer.copy_within(filled - kept..filled, 0);
        filled = kept;
    }
}

/// Horspool's search: looks at the last byte of each window and skips as far as that byte allows.
fn find(text: &[u8], needle: &[u8]) -> bool {
    let Some((last, head)) = needle.split_last() else {
        return true;
    };
    let mut skip = [needle.len(); 256];
    for (position, byte) in head.iter().enumerate() {
        skip[usize::from(*byte)] = head.len() - position;
    }
    let mut end = head.len();
    while let Some(byte) = text.get(end) {
        if byte == last && text[end - head.len()..end] == *head {
            return true;
        }
        end += skip[usize::from(*byte)];
    }
    false
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// A `$DESTDIR` with a `bin` in it.
    fn destdir() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("bin")).unwrap();
        dir
    }

    #[test]
    fn ordinary_outputs_pass_and_unreadable_ones_are_made_readable() {
        let dir = destdir();
        let file = dir.path().join("bin/tool");
        fs::write(&file, "x").unwrap();
        fs::set_permissions(&file, Permissions::from_mode(0o000)).unwrap();
        fs::create_dir_all(dir.path().join("lib/a/b")).unwrap();
        symlink("../../../bin/tool", dir.path().join("lib/a/b/tool")).unwrap();
        symlink("tool", dir.path().join("bin/alias")).unwrap();
        symlink("missing/but/inside", dir.path().join("bin/dangling")).unwrap();
        assert_eq!(check(dir.path()).unwrap(), Ok(()));
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o400);
    }

    #[test]
    fn links_that_would_leave_the_package_are_refused() {
        for (target, absolute) in [
            ("/etc/passwd", true),
            ("/bin/sh", true),
            ("../../etc/passwd", false),
            ("..//./../x", false),
            // `up` may be a link to the top: then this is one above it.
            ("up/../x", false),
        ] {
            let dir = destdir();
            symlink(target, dir.path().join("bin/link")).unwrap();
            let error = check(dir.path()).unwrap().unwrap_err();
            let is_absolute = matches!(error, OutputError::AbsoluteLink { .. });
            assert_eq!(is_absolute, absolute, "{target}: {error}");
            assert!(error.to_string().contains(target), "{error}");
        }
    }

    #[test]
    fn pipes_sockets_and_setuid_files_are_refused_by_name() {
        let dir = destdir();
        let pipe = dir.path().join("bin/pipe");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &pipe,
            rustix::fs::FileType::Fifo,
            0o644.into(),
            0,
        )
        .unwrap();
        let error = check(dir.path()).unwrap().unwrap_err();
        assert_eq!(error.to_string(), "`bin/pipe` is a named pipe");

        let dir = destdir();
        let _socket = std::os::unix::net::UnixListener::bind(dir.path().join("bin/s")).unwrap();
        assert_eq!(
            check(dir.path()).unwrap().unwrap_err().to_string(),
            "`bin/s` is a socket"
        );

        let dir = destdir();
        let file = dir.path().join("bin/su");
        fs::write(&file, "x").unwrap();
        fs::set_permissions(&file, Permissions::from_mode(0o4755)).unwrap();
        let error = check(dir.path()).unwrap().unwrap_err();
        assert_eq!(error, OutputError::Setuid("bin/su".into()));
    }

    #[test]
    fn only_the_known_directories_may_stand_at_the_top() {
        let dir = destdir();
        fs::create_dir(dir.path().join("home")).unwrap();
        let error = check(dir.path()).unwrap().unwrap_err();
        assert_eq!(error, OutputError::TopLevel("home".into()));
        assert!(error.to_string().contains("bin, etc, include"));

        let dir = destdir();
        symlink("bin", dir.path().join("sbin")).unwrap();
        let error = check(dir.path()).unwrap().unwrap_err();
        assert_eq!(error, OutputError::TopLevel("sbin".into()));
    }

    #[test]
    fn a_leaked_build_path_is_found_even_across_a_read_boundary() {
        let dir = destdir();
        let scratch = Path::new("/scratch/build-abcdef");
        let mut bytes = vec![b'/'; READ_BYTES - 5];
        bytes.extend_from_slice(b"/scratch/build-abcdef/root");
        fs::write(dir.path().join("bin/leaky"), bytes).unwrap();
        fs::write(dir.path().join("bin/clean"), "/scratch/build-abcdeg").unwrap();
        assert_eq!(
            leaks(dir.path(), scratch).unwrap(),
            ["`bin/leaky` contains the path it was built in"]
        );
    }

    proptest::proptest! {
        #[test]
        fn the_search_agrees_with_looking_everywhere(text in "[ab]{0,40}", needle in "[ab]{1,5}") {
            proptest::prop_assert_eq!(find(text.as_bytes(), needle.as_bytes()), text.contains(&needle));
        }
    }
}
