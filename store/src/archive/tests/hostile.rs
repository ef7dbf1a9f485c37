//! Archives that were made to harm us. Each is refused, by name and with a reason, and nothing outside is touched.

use std::os::unix::fs::PermissionsExt as _;

use proptest::prelude::*;

use super::*;

/// Unpacks plain, and through both compressors, and expects the same refusal each time.
fn assert_refused(tar: &[u8], entry: &str, expected: &str) {
    assert_refused_with(&limits(), tar, entry, expected);
    assert_refused_with(&limits(), &zstd(tar), entry, expected);
    assert_refused_with(&limits(), &gzip(tar), entry, expected);
}

fn assert_refused_with(limits: &UnpackLimits, archive: &[u8], entry: &str, expected: &str) {
    let dest = Destination::new();
    match unpack(archive, &dest.path(), limits) {
        Err(ArchiveError::Refused {
            entry: found,
            reason,
            ..
        }) => {
            assert_eq!((found.as_str(), reason), (entry, expected));
        }
        other => unreachable!("{entry}: {other:?}"),
    }
    dest.assert_nothing_outside_was_touched();
}

fn assert_malformed(archive: &[u8], expected: &str) {
    let dest = Destination::new();
    match unpack(archive, &dest.path(), &limits()) {
        Err(ArchiveError::Malformed { reason, .. }) => assert_eq!(reason, expected),
        other => unreachable!("{expected}: {other:?}"),
    }
    dest.assert_nothing_outside_was_touched();
}

fn assert_too_large(limits: &UnpackLimits, archive: &[u8], expected: &str) {
    let dest = Destination::new();
    match unpack(archive, &dest.path(), limits) {
        Err(ArchiveError::TooLarge { what, .. }) => assert_eq!(what, expected),
        other => unreachable!("{expected}: {other:?}"),
    }
}

#[test]
fn paths_out_of_the_destination() {
    let dots = "its path has a `..` component";
    assert_refused(
        &Tar::default().file("../outside/file", b"x").end(),
        "../outside/file",
        dots,
    );
    assert_refused(
        &Tar::default().file("a/../../x", b"x").end(),
        "a/../../x",
        dots,
    );
    assert_refused(&Tar::default().dir("..").end(), "..", dots);
    let absolute = "its path is absolute";
    assert_refused(
        &Tar::default().file("/tmp/x", b"x").end(),
        "/tmp/x",
        absolute,
    );
    assert_refused(
        &Tar::default().file("//tmp/x", b"x").end(),
        "//tmp/x",
        absolute,
    );
}

#[test]
fn paths_hidden_in_extension_headers() {
    let long = Tar::default()
        .entry(
            EntryType::GNULongName,
            "././@LongLink",
            "",
            0o644,
            b"../outside/file\0",
        )
        .file("harmless", b"x")
        .end();
    assert_refused(&long, "../outside/file", "its path has a `..` component");
    let pax = |record: &[u8]| Tar::default().entry(EntryType::XHeader, "pax", "", 0o644, record);
    let path = pax(b"24 path=../outside/file\n")
        .file("harmless", b"x")
        .end();
    assert_refused(&path, "../outside/file", "its path has a `..` component");
    let nul = pax(b"13 path=a\0/b\n").file("harmless", b"x").end();
    assert_refused(&nul, "a\\u{0}/b", "its path has a NUL byte");
    let link = pax(b"25 linkpath=/outside/etc\n")
        .symlink("link", "harmless")
        .end();
    assert_refused(&link, "link", "its link target is absolute");
    let global = Tar::default()
        .entry(EntryType::XGlobalHeader, "pax", "", 0o644, b"10 path=b\n")
        .file("a", b"x")
        .end();
    assert_malformed(&global, "global header that renames entries");
    assert_malformed(
        &pax(b"9999 path=b\n").file("a", b"x").end(),
        "unreadable PAX record",
    );
    assert_malformed(
        &pax(b"22 GNU.sparse.major=1\n").file("a", b"x").end(),
        "it has files stored as sparse",
    );
}

#[test]
fn writing_through_a_symbolic_link() {
    let behind = "it lies behind a symbolic link";
    let tar = Tar::default()
        .dir("real")
        .symlink("link", "real")
        .file("link/file", b"x")
        .end();
    assert_refused(&tar, "link/file", behind);
    let tar = Tar::default()
        .symlink("a", "b")
        .file("a/b/c/file", b"x")
        .end();
    assert_refused(&tar, "a/b/c/file", behind);
    let dest = Destination::new();
    let outside = dest.outer.path().join("outside");
    let lenient = UnpackLimits {
        allow_absolute_links: true,
        ..limits()
    };
    let tar = Tar::default()
        .symlink("link", outside.to_str().unwrap())
        .file("link/file", b"x")
        .end();
    let error = unpack(&tar[..], &dest.path(), &lenient).unwrap_err();
    assert!(
        matches!(error, ArchiveError::Refused { reason, .. } if reason == behind),
        "{error}"
    );
    // A link that somebody else left in the destination is no way out either.
    std::os::unix::fs::symlink(&outside, dest.path().join("theirs")).unwrap();
    for tar in [
        Tar::default().file("theirs/file", b"x"),
        Tar::default().dir("theirs/dir"),
    ] {
        assert!(unpack(&tar.end()[..], &dest.path(), &limits()).is_err());
    }
    std::os::unix::fs::symlink(outside.join("file"), dest.path().join("filelink")).unwrap();
    for conflicts in [Conflicts::Refuse, Conflicts::Overlay] {
        let mut unpacker = Unpacker::new(&dest.path(), &limits(), conflicts).unwrap();
        let tar = Tar::default().file("filelink", b"overwritten").end();
        assert_eq!(
            unpacker.unpack("x", &tar[..]).is_ok(),
            conflicts == Conflicts::Overlay
        );
    }
    assert_eq!(
        dest.read("filelink"),
        "overwritten",
        "the link was replaced, not followed"
    );
    dest.assert_nothing_outside_was_touched();
}

#[test]
fn symbolic_links_that_lead_out() {
    let out = "its link target leads out of the archive";
    assert_refused(&Tar::default().symlink("a", "..").end(), "a", out);
    assert_refused(
        &Tar::default().symlink("a/b", "../../etc").end(),
        "a/b",
        out,
    );
    assert_refused(
        &Tar::default().symlink("a", "/etc/passwd").end(),
        "a",
        "its link target is absolute",
    );
    let detour = "its link target has a `..` after a name";
    assert_refused(
        &Tar::default().symlink("a", "b/../../..").end(),
        "a",
        detour,
    );
    assert_refused(
        &Tar::default().symlink("a", "").end(),
        "a",
        "its link has no target",
    );
}

#[test]
fn hard_links_to_what_is_not_theirs() {
    let reason = "its hard link leads to no earlier file of the archive";
    assert_refused(&Tar::default().hard_link("a", "missing").end(), "a", reason);
    assert_refused(&Tar::default().hard_link("a", "a").end(), "a", reason);
    assert_refused(
        &Tar::default().dir("d").hard_link("a", "d").end(),
        "a",
        reason,
    );
    assert_refused(
        &Tar::default().symlink("s", "x").hard_link("a", "s").end(),
        "a",
        reason,
    );
    assert_refused(
        &Tar::default().hard_link("a", "../outside/file").end(),
        "a",
        "its path has a `..` component",
    );
    let through = Tar::default()
        .dir("d")
        .file("d/f", b"x")
        .symlink("l", "d")
        .hard_link("a", "l/f");
    assert_refused(&through.end(), "a", "it lies behind a symbolic link");
    // A file that was there before may be hard linked with the world outside.
    let dest = Destination::new();
    fs::hard_link(
        dest.outer.path().join("outside/file"),
        dest.path().join("theirs"),
    )
    .unwrap();
    let tar = Tar::default().hard_link("mine", "theirs").end();
    assert!(unpack(&tar[..], &dest.path(), &limits()).is_err());
    let mut unpacker = Unpacker::new(&dest.path(), &limits(), Conflicts::Overlay).unwrap();
    unpacker
        .unpack("x", &Tar::default().file("theirs", b"new").end()[..])
        .unwrap();
    assert_eq!(dest.read("theirs"), "new");
    dest.assert_nothing_outside_was_touched();
}

#[test]
fn entries_that_are_no_plain_files() {
    let entry = |kind, mode| Tar::default().entry(kind, "x", "", mode, b"").end();
    assert_refused(&entry(EntryType::Char, 0o644), "x", "it is a device");
    assert_refused(&entry(EntryType::Block, 0o644), "x", "it is a device");
    assert_refused(&entry(EntryType::Fifo, 0o644), "x", "it is a named pipe");
    assert_refused(
        &entry(EntryType::GNUSparse, 0o644),
        "x",
        "it is stored as a sparse file",
    );
    assert_refused(
        &entry(EntryType::new(b'V'), 0o644),
        "x",
        "it is of an unknown type",
    );
    let setid = "it would run as another user (setuid or setgid)";
    assert_refused(&entry(EntryType::Regular, 0o4755), "x", setid);
    assert_refused(&entry(EntryType::Regular, 0o2755), "x", setid);
    let with_bytes = Tar::default()
        .entry(EntryType::Directory, "x", "", 0o755, b"bytes")
        .end();
    assert_refused(&with_bytes, "x", "it has bytes although it is no file");
    assert_refused(&Tar::default().file(".", b"").end(), ".", "it has no name");
}

#[test]
fn the_same_name_twice_and_files_below_files() {
    let twice = "it occurs twice";
    assert_refused(
        &Tar::default().file("a", b"1").file("a", b"1").end(),
        "a",
        twice,
    );
    assert_refused(&Tar::default().dir("a").dir("./a/").end(), "a", twice);
    assert_refused(&Tar::default().dir("a").file("a", b"").end(), "a", twice);
    assert_refused(
        &Tar::default().file("a", b"").symlink("a", "b").end(),
        "a",
        twice,
    );
    let below = "it lies below something that is no directory";
    assert_refused(
        &Tar::default().file("a", b"").file("a/b", b"").end(),
        "a/b",
        below,
    );
    assert_refused(
        &Tar::default().file("a", b"").dir("a/b/c").end(),
        "a/b/c",
        below,
    );
}

#[test]
fn archives_that_end_too_early_or_too_late() {
    let whole = Tar::default().file("a", &[7; 1000]).end();
    for length in [0, 1, 511, 512, 513, 1511, 1536, 2047, whole.len() - 1] {
        assert_malformed(&whole[..length], "it ends too early");
    }
    assert_malformed(
        &[&whole[..], b"x"].concat(),
        "there is something after its end",
    );
    let second = [&whole[..], &Tar::default().file("b", b"").end()].concat();
    assert_malformed(&second, "there is something after its end");
    assert_malformed(
        &[&whole[..], &[0; 2 << 20]].concat(),
        "there is too much padding after its end",
    );
    assert!(
        list(&[&whole[..], &[0; 9 << 10]].concat()[..], &limits()).is_ok(),
        "tar's own padding"
    );
    for packed in [zstd(&whole), gzip(&whole)] {
        assert!(list(&packed[..], &limits()).is_ok());
        for broken in [
            &packed[..packed.len() - 1],
            &[&packed[..], b"garbage"].concat(),
        ] {
            let error = list(broken, &limits()).unwrap_err();
            assert!(
                matches!(
                    error,
                    ArchiveError::Read { .. }
                        | ArchiveError::Malformed {
                            reason: "it ends too early",
                            ..
                        }
                ),
                "{error}"
            );
        }
        let mut flipped = packed.clone();
        let last = flipped.len() - 3;
        flipped[last] ^= 1;
        assert!(list(&flipped[..], &limits()).is_err() || packed.starts_with(&[0x28]));
    }
}

#[test]
fn bombs() {
    let small = UnpackLimits {
        entries_max: 3,
        bytes_max: 1000,
        ..limits()
    };
    let four = Tar::default().dir("a").dir("b").dir("c").dir("d").end();
    assert_too_large(&small, &four, "number of entries");
    let large = Tar::default()
        .raw(header(EntryType::Regular, "a", "", 0o644, 1 << 60).as_bytes())
        .end();
    assert_too_large(&limits(), &large, "sum of its file sizes");
    let two = Tar::default()
        .file("a", &[0; 600])
        .file("b", &[0; 600])
        .end();
    assert_too_large(&small, &two, "sum of its file sizes");
    let zeros = Tar::default().file("a", &vec![0; 100 << 20]).end();
    assert_too_large(&limits(), &zstd(&zeros), "ratio of its compression");
    let strict = UnpackLimits {
        ratio_max: 10,
        ..limits()
    };
    assert_too_large(&strict, &gzip(&zeros), "ratio of its compression");
    let name = Tar::default()
        .entry(EntryType::GNULongName, "x", "", 0, &vec![b'a'; 70_000])
        .end();
    assert_too_large(&limits(), &name, "length of a name or attribute");
    let mut names = Tar::default();
    for _ in 0..4 {
        names = names.entry(EntryType::XHeader, "x", "", 0, b"12 a=bcdefg\n");
    }
    assert_too_large(&small, &names.end(), "number of entries");
    let deep = "a/".repeat(49) + "a";
    let shallow = UnpackLimits {
        depth_max: 10,
        ..limits()
    };
    assert_refused_with(
        &shallow,
        &Tar::default().file(&deep, b"").end(),
        &deep,
        "its path is too deep",
    );
    let short = UnpackLimits {
        path_bytes_max: 10,
        ..limits()
    };
    let tar = Tar::default().file("a-long-name", b"").end();
    assert_refused_with(&short, &tar, "a-long-name", "its path is too long");
}

#[test]
fn something_else_than_an_archive() {
    assert_malformed(&[7; 4096], "a header has a wrong checksum");
    assert_malformed(b"", "it ends too early");
    assert_malformed(b"short", "it ends too early");
    let mut wrong = Tar::default().file("a", b"").end();
    wrong[0] = b'b';
    assert_malformed(&wrong, "a header has a wrong checksum");
}

#[test]
fn names_are_shown_without_control_characters() {
    let tar = Tar::default().file("/\x1b[31mred\n", b"").end();
    let error = list(&tar[..], &limits()).unwrap_err().to_string();
    assert!(!error.contains(char::is_control), "{error:?}");
    assert!(error.contains("\\u{1b}[31mred\\n"), "{error}");
}

#[test]
fn odd_permissions_become_usable_ones() {
    let tar = Tar::default()
        .entry(EntryType::Directory, "d", "", 0o2000, b"")
        .entry(EntryType::Regular, "d/f", "", 0, b"x")
        .end();
    let dest = Destination::new();
    unpack(&tar[..], &dest.path(), &limits()).unwrap();
    let mode = |name| {
        fs::metadata(dest.path().join(name))
            .unwrap()
            .permissions()
            .mode()
            & 0o7777
    };
    assert_eq!((mode("d"), mode("d/f")), (0o700, 0o400));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn no_mutation_of_an_archive_panics_or_reaches_outside(
        changes in proptest::collection::vec((0usize..8000, any::<u8>()), 0..6),
        fix_checksums: bool,
    ) {
        let mut tar = Tar::default()
            .dir("d")
            .entry(EntryType::XHeader, "x", "", 0, b"14 path=d/pax\n")
            .file("y", b"pax")
            .entry(EntryType::GNULongName, "x", "", 0, b"d/long\0")
            .program("d/f", b"file")
            .symlink("d/s", "f")
            .hard_link("d/h", "d/f")
            .end();
        for (position, value) in changes {
            let position = position % tar.len();
            tar[position] = value;
        }
        if fix_checksums {
            for block in tar.chunks_mut(512) {
                if block[257..262] == *b"ustar" {
                    let mut header = Header::from_byte_slice(block).clone();
                    header.set_cksum();
                    block.copy_from_slice(header.as_bytes());
                }
            }
        }
        let dest = Destination::new();
        let _ = unpack(&tar[..], &dest.path(), &limits());
        let _ = list(&tar[..], &limits());
        dest.assert_nothing_outside_was_touched();
    }
}
