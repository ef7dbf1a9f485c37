//! What packing writes, and that unpacking brings it back.

use std::ffi::OsStr;
use std::fs::{File, FileTimes, Permissions};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::process::{Command, Stdio};
use std::time::{Duration, UNIX_EPOCH};

use base::Sha256;
use proptest::prelude::*;

use super::*;

/// A small tree with one of everything that packages have.
fn tree() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    fs::create_dir_all(path("bin")).unwrap();
    fs::create_dir_all(path("share/empty")).unwrap();
    fs::write(path("bin/tool"), "#!/bin/sh\necho tool\n").unwrap();
    fs::set_permissions(path("bin/tool"), Permissions::from_mode(0o700)).unwrap();
    fs::write(path("share/text"), "text\n").unwrap();
    // Sorted as bytes, `share-doc` stands before everything below `share`.
    fs::write(path("share-doc"), vec![b'x'; 1000]).unwrap();
    symlink("../share/text", path("bin/link")).unwrap();
    symlink("/usr/lib/libc.so", path("loader")).unwrap();
    let long = format!("share/{}", "long-name-".repeat(12));
    fs::write(path(&long), "long").unwrap();
    symlink("long-target-".repeat(12), path("share/link")).unwrap();
    fs::write(
        dir.path().join(OsStr::from_bytes(b"share/\xff\xfe")),
        "no UTF-8",
    )
    .unwrap();
    dir
}

#[test]
fn the_bytes_of_archive_format_1_are_pinned() {
    // A change here gives every package of the world another output: it needs a new format version.
    let sha256 = Sha256::of(&packed(tree().path())).to_hex();
    assert_eq!(
        sha256,
        "1228a62af05e421ab107548aad44fc4331611595e6d04f922160b107d85b17d4"
    );
}

#[test]
fn nothing_but_content_shows_in_the_bytes() {
    let expected = packed(tree().path());
    let dir = tree();
    let text = dir.path().join("share/text");
    let copy = dir.path().join("bin/tool");
    fs::set_permissions(&text, Permissions::from_mode(0o664)).unwrap();
    fs::set_permissions(&copy, Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(dir.path().join("share"), Permissions::from_mode(0o2770)).unwrap();
    let time = FileTimes::new().set_modified(UNIX_EPOCH + Duration::from_secs(5));
    File::open(&text).unwrap().set_times(time).unwrap();
    assert!(packed(dir.path()) == expected);
    // Two names of one file are the same as two files.
    let linked = tree();
    fs::hard_link(
        linked.path().join("share/text"),
        linked.path().join("share/zz"),
    )
    .unwrap();
    let copied = tree();
    fs::write(copied.path().join("share/zz"), "text\n").unwrap();
    assert!(packed(linked.path()) == packed(copied.path()));
}

#[test]
fn unpacking_brings_the_tree_back() {
    let archive = packed(tree().path());
    let dest = Destination::new();
    let limits = UnpackLimits {
        allow_absolute_links: true,
        ..limits()
    };
    let summary = unpack(&archive[..], &dest.path(), &limits).unwrap();
    assert_eq!(summary.entries, 11);
    assert_eq!(summary.unpacked_bytes, 20 + 5 + 1000 + 4 + 8);
    assert!(packed(&dest.path()) == archive);
    let metadata = |name: &str| fs::symlink_metadata(dest.path().join(name)).unwrap();
    assert_eq!(metadata("bin/tool").mode() & 0o7777, 0o755);
    assert_eq!(metadata("share/text").mode() & 0o7777, 0o644);
    for name in ["bin", "share", "share/empty", "share/text", "bin/link"] {
        assert_eq!(metadata(name).mtime(), 1_609_459_200, "{name}");
    }
}

#[test]
fn a_listing_tells_what_is_inside_in_canonical_order() {
    let limits = UnpackLimits {
        allow_absolute_links: true,
        ..limits()
    };
    let entries = list(&packed(tree().path())[..], &limits).unwrap();
    let paths: Vec<_> = entries
        .iter()
        .map(|entry| String::from_utf8_lossy(&entry.path).into_owned())
        .collect();
    let long = format!("share/{}", "long-name-".repeat(12));
    assert_eq!(
        paths,
        [
            "bin",
            "bin/link",
            "bin/tool",
            "loader",
            "share",
            "share-doc",
            "share/empty",
            "share/link",
            &long,
            "share/text",
            "share/\u{fffd}\u{fffd}"
        ]
    );
    let text = &entries[9];
    assert_eq!(
        (text.size, text.mode, text.sha256),
        (5, 0o644, Some(Sha256::of(b"text\n")))
    );
    assert_eq!(
        entries[1].kind,
        EntryKind::Symlink(b"../share/text".to_vec())
    );
    assert_eq!(
        entries[7].kind,
        EntryKind::Symlink(b"long-target-".repeat(12))
    );
}

#[test]
fn the_systems_tar_reads_our_archives_and_we_read_its() {
    let tree = tree();
    let archive = packed(tree.path());
    let plain = zstd::decode_all(&archive[..]).unwrap();
    let out = tempfile::tempdir().unwrap();
    let mut tar = Command::new("tar")
        .args(["-x", "-f", "-", "-C"])
        .arg(out.path())
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    tar.stdin.take().unwrap().write_all(&plain).unwrap();
    assert!(tar.wait().unwrap().success());
    assert!(packed(out.path()) == archive);
    let output = Command::new("tar")
        .args(["-c", "-z", "-f", "-", "-C"])
        .arg(tree.path())
        .arg(".")
        .output()
        .unwrap();
    let dest = Destination::new();
    let limits = UnpackLimits {
        allow_absolute_links: true,
        ..limits()
    };
    unpack(&output.stdout[..], &dest.path(), &limits).unwrap();
    assert!(packed(&dest.path()) == archive);
}

#[test]
fn what_has_no_place_in_a_package_is_refused_by_name() {
    let check = |make: &dyn Fn(&Path), path: &str, expected: &str| {
        let dir = tempfile::tempdir().unwrap();
        make(dir.path());
        match pack(dir.path(), std::io::sink()).unwrap_err() {
            ArchiveError::Unpackable {
                path: found,
                reason,
            } => {
                assert_eq!((found.to_str().unwrap(), reason), (path, expected));
            }
            other => unreachable!("{other}"),
        }
    };
    let fifo = |dir: &Path| {
        fs::create_dir(dir.join("a")).unwrap();
        let status = Command::new("mkfifo")
            .arg(dir.join("a/pipe"))
            .status()
            .unwrap();
        assert!(status.success());
    };
    check(&fifo, "a/pipe", "it is a named pipe");
    let socket = |dir: &Path| {
        std::os::unix::net::UnixListener::bind(dir.join("socket")).unwrap();
    };
    check(&socket, "socket", "it is a socket");
    let setuid = |dir: &Path| {
        fs::write(dir.join("su"), "").unwrap();
        fs::set_permissions(dir.join("su"), Permissions::from_mode(0o4755)).unwrap();
    };
    check(
        &setuid,
        "su",
        "it would run as another user (setuid or setgid)",
    );
    let escape = |dir: &Path| symlink("../../etc", dir.join("link")).unwrap();
    check(&escape, "link", "its link target leads out of the archive");
    let detour = |dir: &Path| symlink("a/../b", dir.join("link")).unwrap();
    check(&detour, "link", "its link target has a `..` after a name");
}

#[test]
fn a_file_beyond_eight_gibibytes_has_a_header_that_tars_read() {
    let mut bytes = Vec::new();
    let size = 20 << 30;
    super::super::stream::write_header(&mut bytes, b"big", &EntryKind::File, false, size).unwrap();
    assert_eq!(bytes.len(), 512);
    let header = Header::from_byte_slice(&bytes);
    assert_eq!(header.entry_size().unwrap(), size);
    let error = list(&bytes[..], &limits()).unwrap_err();
    assert!(matches!(
        error,
        ArchiveError::Malformed {
            reason: "it ends too early",
            ..
        }
    ));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn the_compressed_bytes_do_not_depend_on_how_they_are_written(
        seed: u64,
        pieces in proptest::collection::vec(1usize..400_000, 1..12),
    ) {
        let total: usize = pieces.iter().sum();
        // Neither noise nor a constant: words from a small set.
        let words: Vec<u8> = (0..total as u64)
            .map(|i| (seed.wrapping_mul(i / 7 + 1) >> (i % 7 * 8)) as u8 & 0x3f)
            .collect();
        let mut whole = super::super::compress::encoder(Vec::new()).unwrap();
        whole.write_all(&words).unwrap();
        let mut parts = super::super::compress::encoder(Vec::new()).unwrap();
        let mut rest = &words[..];
        for length in pieces {
            let (piece, more) = rest.split_at(length);
            parts.write_all(piece).unwrap();
            rest = more;
        }
        prop_assert!(whole.finish().unwrap() == parts.finish().unwrap());
    }
}
