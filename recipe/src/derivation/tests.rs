//! The canonical text, byte for byte: what it covers, what it does not, and what is not one.

use proptest::prelude::*;

use super::*;
use crate::package::{FileEntry, PackageFiles};
use crate::testing::{graphs, name, package, system};

fn hash_of(name: &PackageName) -> PkgHash {
    PkgHash::of_derivation(name.as_str().as_bytes())
}

fn derive(files: PackageFiles) -> Derivation {
    Derivation::of(
        &Recipe::parse(&name("foo"), files).unwrap(),
        &system(),
        hash_of,
    )
}

fn example() -> PackageFiles {
    let mut files = package("foo", Some("xz make"), "musl");
    files.files = vec![
        FileEntry::regular("patch/1 %.diff", true, b"diff"),
        FileEntry::symlink("patch-link", "patch"),
    ];
    files
}

#[test]
fn the_text_is_the_one_described() {
    let text = derive(example()).to_string();
    let words: Vec<Vec<_>> = text
        .lines()
        .map(|l| l.split(' ').filter(|w| w.len() != 64).collect())
        .collect();
    let expected: Vec<Vec<&str>> = vec![
        vec!["p2pkgs-derivation", "1"],
        vec!["name", "foo"],
        vec!["system", "x86_64-linux"],
        vec!["build"],
        vec!["file", "link", "patch-link"],
        vec!["file", "755", "patch/1%20%25.diff"],
        vec!["source", "foo.tar"],
        vec!["build-dep", "make"],
        vec!["build-dep", "xz"],
        vec!["run-dep", "musl"],
    ];
    assert_eq!(words, expected);
    assert!(text.ends_with('\n'));
}

#[test]
fn a_seed_counts_by_its_content_alone() {
    let seed = |fetch: String| {
        derive(PackageFiles {
            fetch: Some(fetch.into()),
            ..PackageFiles::default()
        })
    };
    let digest = "5".repeat(64);
    let one = seed(format!("url: https://a/b\nsha256: {digest}\n"));
    let other = seed(format!(
        "url: ipfs://bafkreifjjcie6lypi6ny7amxnfftagclbuxndqonfipmb64f2km2devei4\nfile: x\nsha256: {digest}\n"
    ));
    assert_eq!(one.pkghash(), other.pkghash());
    assert_eq!(
        one.to_string(),
        format!("p2pkgs-derivation 1\nname foo\nsystem x86_64-linux\nseed {digest}\n")
    );
}

#[test]
fn urls_comments_and_order_do_not_count() {
    let mut other = example();
    let digest = Sha256::of(b"foo");
    other.fetch = Some(
        format!("# moved\nurl: http://b/c\nurl: mirror://m/d\nfile: foo.tar\nsha256: {digest}")
            .into(),
    );
    other.build_deps = Some(b"../make/\n\n../xz".to_vec());
    other.files.reverse();
    other.other.push("README".into());
    other.check.clone_from(&other.build);
    other.check_deps = Some(b"../dash".to_vec());
    assert_eq!(derive(other), derive(example()));
}

#[test]
fn everything_else_counts() {
    type Edit = fn(&mut PackageFiles);
    let edits: [Edit; 12] = [
        |f| f.build.as_mut().unwrap().bytes.push(b'\n'),
        |f| f.build_deps = Some(b"../xz".to_vec()),
        |f| f.build_deps = Some(b"../xz\n../make\n../gcc".to_vec()),
        |f| f.run_deps = None,
        |f| f.run_deps = Some(b"../xz".to_vec()),
        |f| f.fetch = None,
        |f| {
            f.fetch =
                Some(format!("url: http://a/b\nfile: foo.tar\nsha256: {}", "0".repeat(64)).into());
        },
        |f| f.fetch = Some(format!("url: http://a/b\nsha256: {}", Sha256::of(b"foo")).into()),
        |f| f.files[0] = FileEntry::regular("patch/1 %.diff", false, b"diff"),
        |f| f.files[0] = FileEntry::regular("patch/1 %.diff", true, b"diff2"),
        |f| f.files[0] = FileEntry::regular("patch/2", true, b"diff"),
        |f| f.files[1] = FileEntry::regular("patch-link", false, b"patch"),
    ];
    let mut hashes = std::collections::HashSet::from([derive(example()).pkghash()]);
    for (number, edit) in edits.into_iter().enumerate() {
        let mut files = example();
        edit(&mut files);
        assert!(
            hashes.insert(derive(files).pkghash()),
            "edit {number} changes nothing"
        );
    }
    let recipe = Recipe::parse(&name("foo"), example()).unwrap();
    let other_system = System::new("aarch64-linux").unwrap();
    assert!(hashes.insert(Derivation::of(&recipe, &other_system, hash_of).pkghash()));
    let other_deps = Derivation::of(&recipe, &system(), |_| hash_of(&name("other")));
    assert!(hashes.insert(other_deps.pkghash()));
}

#[test]
fn texts_that_printing_never_gives_are_refused() {
    let text = derive(example()).to_string();
    let refused = |edited: &str| {
        assert_ne!(edited, text, "the edit must change something");
        Derivation::parse(edited.as_bytes()).unwrap_err()
    };
    let swapped = |a: usize, b: usize| {
        let mut lines: Vec<_> = text.lines().collect();
        lines.swap(a, b);
        lines.join("\n") + "\n"
    };
    let line = |n: usize| text.lines().nth(n).unwrap();
    for (a, b) in [(1, 2), (2, 3), (3, 4), (4, 5), (6, 7), (7, 8), (8, 9)] {
        assert_eq!(
            refused(&swapped(a, b)),
            DerivationError::NotCanonical,
            "{a} {b}"
        );
    }
    for n in 1..10 {
        let twice = text.replace(line(n), &format!("{0}\n{0}", line(n)));
        assert_eq!(refused(&twice), DerivationError::NotCanonical, "{n}");
    }
    for n in 1..4 {
        let without = text.replace(&format!("{}\n", line(n)), "");
        assert_eq!(refused(&without), DerivationError::Incomplete, "{n}");
    }
    let with_seed = text.replace(line(3), &format!("seed {}\n{}", "1".repeat(64), line(3)));
    assert_eq!(refused(&with_seed), DerivationError::NotCanonical);
    assert_eq!(refused(""), DerivationError::Version);
    assert_eq!(
        refused(&text.replace(" 1\n", " 2\n")),
        DerivationError::Version
    );
    assert_eq!(
        refused(&text.replace('\n', "\r\n")),
        DerivationError::Version
    );
    let bad_line = |n| DerivationError::Line { line: n };
    assert_eq!(refused(text.trim_end()), bad_line(10));
    assert_eq!(refused(&format!("{text}\n")), bad_line(11));
    assert_eq!(refused(&format!("{text}url http://a\n")), bad_line(11));
    assert_eq!(refused(&text.replace("name foo", "name  foo")), bad_line(2));
    assert_eq!(refused(&text.replace("name foo", "name Foo")), bad_line(2));
    assert_eq!(refused(&text.replace("file link", "file 777")), bad_line(5));
    assert_eq!(
        refused(&text.replace("patch-link", "%70atch-link")),
        bad_line(5)
    );
    assert_eq!(
        refused(&text.replace("patch-link", "../patch-link")),
        bad_line(5)
    );
    assert_eq!(refused(&text.replace(" foo.tar", " foo/tar")), bad_line(7));
    assert_eq!(refused(&text.replace(" foo.tar", " %0A")), bad_line(7));
    assert_eq!(
        Derivation::parse(&vec![b'a'; DERIVATION_BYTES_MAX + 1]),
        Err(DerivationError::TooLarge(DERIVATION_BYTES_MAX + 1))
    );
    assert_eq!(
        Derivation::parse(b"p2pkgs-derivation 1\nname \xff\n"),
        Err(bad_line(2))
    );
}

proptest! {
    #[test]
    fn every_text_reads_back_to_the_same_derivation(graph in graphs()) {
        for id in graph.packages() {
            let derivation = graph.derivation(id);
            prop_assert_eq!(derivation.pkghash(), graph.pkghash(id));
            let text = derivation.to_string();
            prop_assert_eq!(Derivation::parse(text.as_bytes()), Ok(derivation));
        }
    }

    #[test]
    fn arbitrary_names_survive(paths in prop::collection::btree_set("[^/\0-\u{1f}\u{7f}-\u{9f}]{1,20}", 1..8)) {
        let mut files = package("foo", Some(""), "");
        let entry = |p: &String| FileEntry::regular(format!("d/{p}x"), false, p.as_bytes());
        files.files = paths.iter().map(entry).collect();
        let derivation = derive(files);
        let text = derivation.to_string();
        prop_assert_eq!(text.lines().filter(|l| l.starts_with("file ")).count(), paths.len());
        prop_assert_eq!(Derivation::parse(text.as_bytes()), Ok(derivation));
    }

    #[test]
    fn a_changed_byte_is_refused_or_says_something_else(position: prop::sample::Index, byte: u8) {
        let derivation = derive(example());
        let mut text = derivation.to_string().into_bytes();
        let position = position.index(text.len());
        prop_assume!(text[position] != byte);
        text[position] = byte;
        if let Ok(other) = Derivation::parse(&text) {
            prop_assert_ne!(&other, &derivation);
            prop_assert_eq!(other.to_string().into_bytes(), text);
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes: Vec<u8>, tail: String) {
        prop_assert!(Derivation::parse(&bytes).is_err());
        let _ = Derivation::parse(format!("p2pkgs-derivation 1\n{tail}").as_bytes());
    }
}
