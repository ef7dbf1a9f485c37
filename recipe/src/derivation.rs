//! The derivation: canonical text of a recipe with its dependencies' hashes. Its SHA-256 is the package hash.
//!
//! ```text
//! p2pkgs-derivation 1
//! name make
//! system x86_64-linux
//! build <sha256 of the script>
//! file <644|755|link> <sha256 of the bytes or of the link's target> <path>
//! source <sha256> <file name>
//! build-dep <package hash> <name>
//! run-dep <package hash> <name>
//! ```
//!
//! * Lines end with one newline, words are parted by one blank, hashes are 64 lower-case hexadecimal digits.
//! * Groups stand in this order. `build` occurs once; `file`, `source`, `build-dep` and `run-dep` as often as there are
//!   such things, sorted by the bytes of path or name, which is unique within its group.
//! * A seed has one line `seed <sha256>` in place of the groups `build` to `build-dep`: it counts by its content, so
//!   neither its file's name nor where it is fetched.
//! * Path and file name are percent-encoded: printable ASCII except `%` stands for itself, every other byte of the UTF-8
//!   is `%` and two upper-case digits.
//! * At most [`DERIVATION_BYTES_MAX`] bytes, so that a derivation is one block that any peer can serve.
//!
//! URLs, comments and the order of lines in a recipe do not count. Every part is a word or a fixed-length digest on a line
//! of its own, so no two different recipes have one text; upstream's hash strings file contents together without lengths,
//! and there they can. Parsing accepts exactly what printing writes: one derivation, one text, one hash.

use std::fmt;

use base::{PackageName, PkgHash, Sha256};

use crate::files::{check_name, check_path};
use crate::limits::DERIVATION_BYTES_MAX;
use crate::percent;
use crate::recipe::{Dependency, FileMode, Recipe, RecipeFile, Source};
use crate::system::System;

/// First line of every derivation; another format gets another number.
const HEADER: &str = "p2pkgs-derivation 1";

/// What a package is made of, down to the last bit, without saying where any of it comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Derivation {
    name: PackageName,
    system: System,
    body: Body,
    run_deps: Vec<DerivedDep>,
}

/// How the output comes to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// It is the file with this digest.
    Seed(Sha256),
    /// It is built.
    Build {
        /// Digest of the `build` script.
        script: Sha256,
        /// What lies in `files/`, sorted by path.
        files: Vec<DerivedFile>,
        /// What is fetched, sorted by file name.
        sources: Vec<DerivedSource>,
        /// What is there while it is built, sorted by name.
        build_deps: Vec<DerivedDep>,
    },
}

/// A `file` line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DerivedFile {
    /// The path below `files/`.
    pub path: String,
    /// What it is.
    pub mode: FileMode,
    /// Digest of its bytes, or of a link's target.
    pub sha256: Sha256,
}

/// A `source` line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DerivedSource {
    /// The name under which the build finds it.
    pub file: String,
    /// Digest of its bytes.
    pub sha256: Sha256,
}

/// A `build-dep` or `run-dep` line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DerivedDep {
    /// The dependency's name.
    pub name: PackageName,
    /// Its package hash.
    pub pkghash: PkgHash,
}

/// Why a text is no derivation.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DerivationError {
    /// More than [`DERIVATION_BYTES_MAX`] bytes.
    #[error("a derivation of {0} bytes is larger than {DERIVATION_BYTES_MAX}")]
    TooLarge(usize),
    /// The first line is not the one of the format we know.
    #[error("not a derivation of version 1")]
    Version,
    /// A line that cannot stand where it stands.
    #[error("line {line} of the derivation is malformed")]
    Line {
        /// Where, counted from 1.
        line: usize,
    },
    /// The text ends before everything a derivation needs was said.
    #[error("the derivation is incomplete")]
    Incomplete,
    /// The text says what a derivation says, but in another order or twice.
    #[error("the derivation is not in canonical form")]
    NotCanonical,
}

impl Derivation {
    /// The derivation of a recipe whose dependencies have the given hashes.
    pub fn of(recipe: &Recipe, system: &System, pkghash: impl Fn(&PackageName) -> PkgHash) -> Self {
        let deps = |listed: &[Dependency]| -> Vec<DerivedDep> {
            let name_and_hash = |d: &Dependency| (d.name.clone(), pkghash(&d.name));
            let pairs = listed.iter().map(name_and_hash);
            pairs
                .map(|(name, pkghash)| DerivedDep { name, pkghash })
                .collect()
        };
        let body = match (recipe.build(), recipe.seed()) {
            (None, Some(seed)) => Body::Seed(seed.sha256),
            (script, _) => Body::Build {
                script: script.expect("a recipe is a build or a seed").digest,
                files: recipe.files().iter().map(DerivedFile::of).collect(),
                sources: recipe.sources().iter().map(DerivedSource::of).collect(),
                build_deps: deps(recipe.build_deps()),
            },
        };
        let (name, system) = (recipe.name().clone(), system.clone());
        let mut derivation = Self {
            name,
            system,
            body,
            run_deps: deps(recipe.run_deps()),
        };
        derivation.sort();
        derivation
    }

    /// Reads a derivation text.
    ///
    /// # Errors
    /// [`DerivationError`] for everything but the exact text that [`ToString`] gives for the value returned.
    pub fn parse(text: &[u8]) -> Result<Self, DerivationError> {
        if text.len() > DERIVATION_BYTES_MAX {
            return Err(DerivationError::TooLarge(text.len()));
        }
        let mut lines = (1..).zip(text.split_inclusive(|b| *b == b'\n'));
        if lines.next().map(|(_, l)| l) != Some(format!("{HEADER}\n").as_bytes()) {
            return Err(DerivationError::Version);
        }
        let mut parts = Parts::default();
        for (line, bytes) in lines {
            parts.take(bytes).ok_or(DerivationError::Line { line })?;
        }
        let mut derivation = parts.finish().ok_or(DerivationError::Incomplete)?;
        derivation.sort();
        if !derivation.is_unique() || derivation.to_string().as_bytes() != text {
            return Err(DerivationError::NotCanonical);
        }
        Ok(derivation)
    }

    /// The package hash: SHA-256 of the text.
    pub fn pkghash(&self) -> PkgHash {
        PkgHash::of_derivation(self.to_string().as_bytes())
    }

    /// The package's name.
    pub const fn name(&self) -> &PackageName {
        &self.name
    }

    /// What it is for.
    pub const fn system(&self) -> &System {
        &self.system
    }

    /// How the output comes to be.
    pub const fn body(&self) -> &Body {
        &self.body
    }

    /// What must be there while it is built, sorted by name; nothing for a seed.
    pub fn build_deps(&self) -> &[DerivedDep] {
        match &self.body {
            Body::Seed(_) => &[],
            Body::Build { build_deps, .. } => build_deps,
        }
    }

    /// What must be there when it is used, sorted by name.
    pub fn run_deps(&self) -> &[DerivedDep] {
        &self.run_deps
    }

    fn sort(&mut self) {
        self.run_deps.sort_by(|a, b| a.name.cmp(&b.name));
        if let Body::Build {
            files,
            sources,
            build_deps,
            ..
        } = &mut self.body
        {
            files.sort_by(|a, b| a.path.cmp(&b.path));
            sources.sort_by(|a, b| a.file.cmp(&b.file));
            build_deps.sort_by(|a, b| a.name.cmp(&b.name));
        }
    }

    /// After [`Self::sort`]: is nothing said twice?
    fn is_unique(&self) -> bool {
        let deps = |d: &[DerivedDep]| d.windows(2).all(|w| w[0].name != w[1].name);
        let body = match &self.body {
            Body::Seed(_) => true,
            Body::Build {
                files,
                sources,
                build_deps,
                ..
            } => {
                files.windows(2).all(|w| w[0].path != w[1].path)
                    && sources.windows(2).all(|w| w[0].file != w[1].file)
                    && deps(build_deps)
            }
        };
        body && deps(&self.run_deps)
    }
}

impl fmt::Display for Derivation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{HEADER}\nname {}\nsystem {}", self.name, self.system)?;
        match &self.body {
            Body::Seed(sha256) => writeln!(f, "seed {sha256}")?,
            Body::Build {
                script,
                files,
                sources,
                build_deps,
            } => {
                writeln!(f, "build {script}")?;
                for file in files {
                    let (mode, path) = (file.mode.as_str(), percent::encode(&file.path));
                    writeln!(f, "file {mode} {} {path}", file.sha256)?;
                }
                for source in sources {
                    writeln!(
                        f,
                        "source {} {}",
                        source.sha256,
                        percent::encode(&source.file)
                    )?;
                }
                for dep in build_deps {
                    writeln!(f, "build-dep {} {}", dep.pkghash, dep.name)?;
                }
            }
        }
        self.run_deps
            .iter()
            .try_for_each(|d| writeln!(f, "run-dep {} {}", d.pkghash, d.name))
    }
}

impl DerivedFile {
    fn of(file: &RecipeFile) -> Self {
        Self {
            path: file.path.clone(),
            mode: file.kind.mode(),
            sha256: file.digest,
        }
    }
}

impl DerivedSource {
    fn of(source: &Source) -> Self {
        Self {
            file: source.file.clone(),
            sha256: source.sha256,
        }
    }
}

/// What the lines read so far have said. Their order is checked at the end, by printing.
#[derive(Default)]
struct Parts {
    name: Option<PackageName>,
    system: Option<System>,
    seed: Option<Sha256>,
    script: Option<Sha256>,
    files: Vec<DerivedFile>,
    sources: Vec<DerivedSource>,
    build_deps: Vec<DerivedDep>,
    run_deps: Vec<DerivedDep>,
}

impl Parts {
    fn take(&mut self, line: &[u8]) -> Option<()> {
        let (word, rest) = std::str::from_utf8(line)
            .ok()?
            .strip_suffix('\n')?
            .split_once(' ')?;
        match word {
            "name" => self.name = Some(rest.parse().ok()?),
            "system" => self.system = Some(System::new(rest).ok()?),
            "seed" => self.seed = Some(rest.parse().ok()?),
            "build" => self.script = Some(rest.parse().ok()?),
            "file" => self.files.push(parse_file(rest)?),
            "source" => self.sources.push(parse_source(rest)?),
            "build-dep" => self.build_deps.push(parse_dep(rest)?),
            "run-dep" => self.run_deps.push(parse_dep(rest)?),
            _ => return None,
        }
        Some(())
    }

    /// Drops what contradicts a seed: printing then gives another text, so the contradiction is found there.
    fn finish(self) -> Option<Derivation> {
        let body = match (self.seed, self.script) {
            (Some(seed), _) => Body::Seed(seed),
            (None, script) => Body::Build {
                script: script?,
                files: self.files,
                sources: self.sources,
                build_deps: self.build_deps,
            },
        };
        Some(Derivation {
            name: self.name?,
            system: self.system?,
            body,
            run_deps: self.run_deps,
        })
    }
}

fn parse_file(text: &str) -> Option<DerivedFile> {
    let (mode, rest) = text.split_once(' ')?;
    let modes = [FileMode::Regular, FileMode::Executable, FileMode::Symlink];
    let mode = modes.into_iter().find(|m| m.as_str() == mode)?;
    let (sha256, path) = rest.split_once(' ')?;
    let path = percent::decode(path).filter(|p| check_path(p).is_ok())?;
    Some(DerivedFile {
        path,
        mode,
        sha256: sha256.parse().ok()?,
    })
}

fn parse_source(text: &str) -> Option<DerivedSource> {
    let (sha256, file) = text.split_once(' ')?;
    let file = percent::decode(file).filter(|f| check_name(f).is_ok())?;
    Some(DerivedSource {
        file,
        sha256: sha256.parse().ok()?,
    })
}

fn parse_dep(text: &str) -> Option<DerivedDep> {
    let (pkghash, name) = text.split_once(' ')?;
    Some(DerivedDep {
        name: name.parse().ok()?,
        pkghash: pkghash.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
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
                f.fetch = Some(
                    format!("url: http://a/b\nfile: foo.tar\nsha256: {}", "0".repeat(64)).into(),
                );
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
}
