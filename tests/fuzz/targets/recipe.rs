//! A package directory as somebody sent it: accepted or refused by name of file and line, never a panic.
#![no_main]

use base::Sha256;
use libfuzzer_sys::fuzz_target;
use recipe::{FileBytes, FileContent, FileEntry, PackageFiles, Recipe};

#[derive(arbitrary::Arbitrary, Debug)]
struct Input {
    build: Option<Vec<u8>>,
    build_deps: Option<Vec<u8>>,
    run_deps: Option<Vec<u8>>,
    fetch: Option<Vec<u8>>,
    check: Option<Vec<u8>>,
    check_deps: Option<Vec<u8>>,
    files: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

fuzz_target!(|input: Input| {
    let name = "fuzzed".parse().expect("a name");
    let executable = true;
    let files = input.files.into_iter().map(|(path, target)| FileEntry {
        path,
        content: match target {
            Some(target) => FileContent::Symlink { target },
            None => FileContent::Regular {
                executable,
                digest: Sha256::of(b""),
                size: 0,
            },
        },
    });
    let package = PackageFiles {
        build: input.build.map(|bytes| FileBytes { executable, bytes }),
        build_deps: input.build_deps,
        run_deps: input.run_deps,
        fetch: input.fetch,
        check: input.check.map(|bytes| FileBytes { executable, bytes }),
        check_deps: input.check_deps,
        files: files.collect(),
        other: Vec::new(),
    };
    if let Err(error) = Recipe::parse(&name, package) {
        assert!(!error.to_string().is_empty());
    }
});
