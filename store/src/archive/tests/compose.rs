//! Several archives in one directory, and several made into one.

use super::*;

fn compose(
    conflicts: Conflicts,
    archives: &[(&str, Vec<u8>)],
) -> (Destination, Result<(), ArchiveError>) {
    let dest = Destination::new();
    let mut unpacker = Unpacker::new(&dest.path(), &limits(), conflicts).unwrap();
    let result = archives
        .iter()
        .try_for_each(|(name, tar)| unpacker.unpack(name, &tar[..]).map(drop));
    drop(unpacker);
    (dest, result)
}

/// Two archives that contradict each other: refused by name, and in an overlay perhaps not.
fn assert_conflict(first: Tar, second: Tar, entry: &str, overlay_wins: bool) -> Destination {
    let archives = [("one", first.end()), ("two", second.end())];
    let (_, result) = compose(Conflicts::Refuse, &archives);
    let error = result.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("`{entry}` is in `one` and, differently, in `two`")
    );
    let (dest, result) = compose(Conflicts::Overlay, &archives);
    assert_eq!(result.is_ok(), overlay_wins, "{result:?}");
    dest
}

#[test]
fn directories_merge_and_equal_files_are_no_conflict() {
    let one = Tar::default()
        .dir("bin")
        .program("bin/a", b"a")
        .file("COPYING", b"text")
        .symlink("l", "bin");
    let two = Tar::default()
        .dir("bin")
        .program("bin/b", b"b")
        .file("COPYING", b"text")
        .symlink("l", "bin")
        .hard_link("bin/c", "bin/b");
    let archives = [("one", one.end()), ("two", two.end())];
    for conflicts in [Conflicts::Refuse, Conflicts::Overlay] {
        let (dest, result) = compose(conflicts, &archives);
        result.unwrap();
        for (name, content) in [("bin/a", "a"), ("bin/b", "b"), ("bin/c", "b"), ("l/a", "a")] {
            assert_eq!(dest.read(name), content);
        }
    }
}

#[test]
fn different_files_of_one_name_are_a_conflict_that_an_overlay_settles() {
    let dest = assert_conflict(
        Tar::default().file("a", b"old"),
        Tar::default().file("a", b"new"),
        "a",
        true,
    );
    assert_eq!(dest.read("a"), "new");
    let dest = assert_conflict(
        Tar::default().file("a", b"x"),
        Tar::default().file("a", b"xx"),
        "a",
        true,
    );
    assert_eq!(dest.read("a"), "xx");
    assert_conflict(
        Tar::default().file("a", b"x"),
        Tar::default().program("a", b"x"),
        "a",
        true,
    );
    let dest = assert_conflict(
        Tar::default().file("a", b"x").symlink("l", "a"),
        Tar::default().file("b", b"y").symlink("l", "b"),
        "l",
        true,
    );
    assert_eq!(dest.read("l"), "y");
    assert_conflict(
        Tar::default().symlink("a", "b"),
        Tar::default().file("a", b""),
        "a",
        true,
    );
    let hard_link = Tar::default().file("b", b"y").hard_link("a", "b");
    let dest = assert_conflict(Tar::default().file("a", b"x"), hard_link, "a", true);
    assert_eq!(dest.read("a"), "y");
}

#[test]
fn a_directory_gives_way_to_nothing_and_takes_the_place_of_a_link_in_an_overlay() {
    let directory = || Tar::default().dir("a").file("a/b", b"");
    assert_conflict(directory(), Tar::default().file("a", b""), "a", false);
    assert_conflict(directory(), Tar::default().symlink("a", "b"), "a", false);
    let dest = assert_conflict(
        Tar::default().dir("lib").symlink("lib64", "lib"),
        Tar::default().dir("lib64").file("lib64/x", b"x"),
        "lib64",
        true,
    );
    assert_eq!(dest.read("lib64/x"), "x");
    assert!(!dest.path().join("lib/x").exists());
}

#[test]
fn a_file_behind_another_archives_link_is_refused() {
    let one = Tar::default().dir("lib").symlink("lib64", "lib").end();
    let two = Tar::default().file("lib64/x", b"x").end();
    for conflicts in [Conflicts::Refuse, Conflicts::Overlay] {
        let (_, result) = compose(conflicts, &[("one", one.clone()), ("two", two.clone())]);
        assert!(
            matches!(result.unwrap_err(), ArchiveError::Refused { archive, .. } if archive == "two")
        );
    }
}

#[test]
fn what_lay_there_before_is_named_as_such() {
    let dest = Destination::new();
    fs::write(dest.path().join("a"), "theirs").unwrap();
    let error = unpack(
        &Tar::default().file("a", b"ours").end()[..],
        &dest.path(),
        &limits(),
    );
    let error = error.unwrap_err().to_string();
    assert_eq!(
        error,
        "`a` is in `the destination itself` and, differently, in `archive`"
    );
    assert_eq!(dest.read("a"), "theirs");
}

#[test]
fn merging_gives_the_archive_of_the_union_in_any_order() {
    let one = Tar::default().dir("bin").program("bin/a", b"a").end();
    let two = gzip(
        &Tar::default()
            .program("bin/b", b"b")
            .file("share/x", b"x")
            .end(),
    );
    let three = zstd(
        &Tar::default()
            .program("bin/a", b"a")
            .symlink("z", "bin")
            .end(),
    );
    let merged = |archives: &[&Vec<u8>]| {
        let scratch = tempfile::tempdir().unwrap();
        let archives = archives.iter().map(|a| ("x".to_owned(), &a[..])).collect();
        let mut bytes = Vec::new();
        merge(archives, scratch.path(), &limits(), &mut bytes).unwrap();
        bytes
    };
    let union = Destination::new();
    for archive in [&one, &two, &three] {
        unpack(&archive[..], &union.path(), &limits()).unwrap();
    }
    let expected = packed(&union.path());
    assert!(merged(&[&one, &two, &three]) == expected);
    assert!(merged(&[&three, &two, &one]) == expected);
    let other = Tar::default().program("bin/a", b"other").end();
    let scratch = tempfile::tempdir().unwrap();
    let archives = vec![
        ("one".to_owned(), &one[..]),
        ("other".to_owned(), &other[..]),
    ];
    let error = merge(archives, scratch.path(), &limits(), std::io::sink()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "`bin/a` is in `one` and, differently, in `other`"
    );
}
