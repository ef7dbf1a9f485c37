//! Identity, pinned: the literal hashes of fixture recipes and the text they come from.
//!
//! A hash that changes here changes for every user: nothing built before is found again. Such a change needs a new number
//! in the first line of the derivation, not a new pin. The pins were computed from the format's description by another program;
//! `sha256sum` over the text in `DERIVATION_OF_HELLO` gives the package hash of `hello`.

#![allow(clippy::unwrap_used, reason = "a test's way to fail")]

use p2pkgs_recipe::{Derivation, FileBytes, FileEntry, Graph, MemoryTree, PackageFiles, System};

/// The whole text of one derivation with every kind of line.
const DERIVATION_OF_HELLO: &str = "\
p2pkgs-derivation 1
name hello
system x86_64-linux
build 71aad9085d4ca604a2aeb14289a6463dc18e6dc78522f3f26961ce7f13cce467
file link e81d3b0e9d82feaaf5f6e55bdff24731d7eee08632ffa63801e6397290c5d20a bin/alias
file 755 a8076d3d28d21e02012b20eaf7dbf75409a6277134439025f282e368e3305abf bin/helper
file 644 6e53bf2ad8f234c60294a05a013874a211fe3c03653f48df43ac4ec085ab9a24 patch/0001-%C3%BCnicode.patch
source 3333333333333333333333333333333333333333333333333333333333333333 hello%20doc.tar
source 2222222222222222222222222222222222222222222222222222222222222222 hello.tar.xz
build-dep 1b40db5f25bf287ba5f2153afe58095d94c6d42cff21fbca51cd425ed0ef28ea libc
build-dep 89da41449591801879e0aa8c0f9c687bc19f7c505c2970884d168b08d2cd88bd make
run-dep 1b40db5f25bf287ba5f2153afe58095d94c6d42cff21fbca51cd425ed0ef28ea libc
";

/// Package, and its hash as 64 digits.
const PINS: [(&str, &str); 4] = [
    (
        "seed",
        "ce784120cd6f75ad833c430d1266e2d5aee5311ae413463dbffb10f519c2a372",
    ),
    (
        "libc",
        "1b40db5f25bf287ba5f2153afe58095d94c6d42cff21fbca51cd425ed0ef28ea",
    ),
    (
        "make",
        "89da41449591801879e0aa8c0f9c687bc19f7c505c2970884d168b08d2cd88bd",
    ),
    (
        "hello",
        "02b1aa15225837d4a80042cfc8ce7d461a5d48957cc0637d6205f49e41250b85",
    ),
];

fn fetch(items: &[(&str, &str)]) -> Option<Vec<u8>> {
    let item = |(url, digit): &(&str, &str)| format!("url: {url}\nsha256: {}\n", digit.repeat(64));
    Some(items.iter().map(item).collect::<Vec<_>>().join("\n").into())
}

fn script(text: &str) -> Option<FileBytes> {
    Some(FileBytes {
        executable: true,
        bytes: text.as_bytes().to_vec(),
    })
}

/// Four packages with everything a recipe can have: a seed, run dependencies, several sources, files of every kind,
/// names that need encoding.
fn fixture() -> MemoryTree {
    let seed = PackageFiles {
        fetch: fetch(&[("https://example.org/seed.tar.gz", "0")]),
        ..PackageFiles::default()
    };
    let libc = PackageFiles {
        build: script("#!/bin/sh\nset -eu\ntar -xf libc-*.tar.gz\n"),
        build_deps: Some(b"../seed\n".to_vec()),
        fetch: fetch(&[("mirror://gnu/libc/libc-1.0.tar.gz", "1")]),
        ..PackageFiles::default()
    };
    let make = PackageFiles {
        build: script("#!/bin/sh\nexit 0\n"),
        build_deps: Some(b"../seed\n".to_vec()),
        ..PackageFiles::default()
    };
    let hello = PackageFiles {
        build: script("#!/bin/sh\nmake install\n"),
        build_deps: Some(b"../make\n../libc\n".to_vec()),
        run_deps: Some(b"../libc\n".to_vec()),
        fetch: fetch(&[
            ("https://example.org/hello.tar.xz", "2"),
            (
                "https://example.org/get?hello-doc\nfile: hello doc.tar",
                "3",
            ),
        ]),
        files: vec![
            FileEntry::regular("patch/0001-ünicode.patch", false, b"--- a\n+++ b\n"),
            FileEntry::regular("bin/helper", true, b"#!/bin/sh\n"),
            FileEntry::symlink("bin/alias", "helper"),
        ],
        other: vec![".gitignore".to_owned()],
        ..PackageFiles::default()
    };
    let mut tree = MemoryTree::default();
    for (name, files) in [
        ("seed", seed),
        ("libc", libc),
        ("make", make),
        ("hello", hello),
    ] {
        tree.insert(name.parse().unwrap(), files);
    }
    tree
}

fn resolve() -> Graph {
    let system = System::new("x86_64-linux").unwrap();
    Graph::resolve(&mut fixture(), &["hello".parse().unwrap()], &system).unwrap()
}

#[test]
fn package_hashes_never_change() {
    let graph = resolve();
    let hashes: Vec<_> = PINS
        .iter()
        .map(|(name, _)| {
            let id = graph.id(&name.parse().unwrap()).unwrap();
            (*name, graph.pkghash(id).to_string())
        })
        .collect();
    let pins: Vec<_> = PINS
        .iter()
        .map(|(name, pin)| (*name, (*pin).to_owned()))
        .collect();
    assert_eq!(hashes, pins);
}

#[test]
fn the_derivation_text_never_changes() {
    let graph = resolve();
    let hello = graph.roots()[0];
    assert_eq!(graph.derivation(hello).to_string(), DERIVATION_OF_HELLO);
    let parsed = Derivation::parse(DERIVATION_OF_HELLO.as_bytes()).unwrap();
    assert_eq!(parsed.pkghash(), graph.pkghash(hello));
}

#[test]
fn a_package_hash_is_the_cid_of_its_derivation_as_a_raw_block() {
    let graph = resolve();
    let cid = graph.pkghash(graph.roots()[0]).to_cid().to_string();
    assert_eq!(
        cid,
        "bafkreiacwgvbkisyg7kkqaccz7em47kgdjourfl4ybrx2yqf6specjilqu"
    );
}
