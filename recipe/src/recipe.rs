//! A recipe: one package directory, read and checked. Nothing here knows other packages; that is [`crate::Graph`]'s part.

use base::{PackageName, Sha256};

use crate::error::{Error, Place};
use crate::fault::Fault;
use crate::limits::BUILD_BYTES_MAX;
use crate::package::{FileBytes, PackageFiles};
use crate::source_url::SourceUrl;
use crate::{deps, fetch, files};

/// The files of one `pkg/<name>/`, meaningful and within [`crate::limits`].
///
/// A package without a `build` script is a *seed*: its output is its one source, as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipe {
    name: PackageName,
    build: Option<Script>,
    build_deps: Vec<Dependency>,
    run_deps: Vec<Dependency>,
    sources: Vec<Source>,
    files: Vec<RecipeFile>,
    check: Option<Script>,
    check_deps: Vec<Dependency>,
    warnings: Vec<Warning>,
}

/// The `build` or `check` script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Their digest.
    pub digest: Sha256,
}

/// A line of `build-deps`, `run-deps` or `check-deps`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dependency {
    /// The package named.
    pub name: PackageName,
    /// The line it stands on, counted from 1.
    pub line: usize,
}

/// Something a build needs from outside the tree. Only file name and digest count for the package hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The name under which the build finds it in its home directory.
    pub file: String,
    /// Digest of its bytes; what arrives is compared with it.
    pub sha256: Sha256,
    /// Where it may be had, at least one, in the order of the recipe.
    pub urls: Vec<SourceUrl>,
    /// The line of its `sha256:` in `fetch`, counted from 1.
    pub line: usize,
}

/// An entry below `files/`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecipeFile {
    /// The path below `files/`: relative, normalised, `/` between components.
    pub path: String,
    /// What it is.
    pub kind: FileKind,
    /// Digest of its bytes, or of a link's target. Whoever copies the file into a sandbox checks it again.
    pub digest: Sha256,
    /// Number of its bytes, or of a link's target.
    pub size: u64,
}

/// What an entry below `files/` is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// A file without execute permission.
    Regular,
    /// A file with execute permission.
    Executable,
    /// A symbolic link that stays below `files/`.
    Symlink {
        /// Where it points, relative to the directory it lies in.
        target: String,
    },
}

/// [`FileKind`] as the derivation text says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FileMode {
    /// `644`
    Regular,
    /// `755`
    Executable,
    /// `link`
    Symlink,
}

impl FileKind {
    /// The kind without a link's target.
    pub const fn mode(&self) -> FileMode {
        match self {
            Self::Regular => FileMode::Regular,
            Self::Executable => FileMode::Executable,
            Self::Symlink { .. } => FileMode::Symlink,
        }
    }
}

impl FileMode {
    /// The word that stands for it in a derivation.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Regular => "644",
            Self::Executable => "755",
            Self::Symlink => "link",
        }
    }
}

/// Something in a package directory that is suspicious but changes nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Warning {
    /// A file that no part of the system reads.
    #[error("`{0}` is not a part of a recipe and is ignored")]
    UnknownFile(String),
    /// A script that the kernel cannot start by its first line.
    #[error("`{0}` does not start with `#!`")]
    NoInterpreter(&'static str),
    /// A script without execute permission. The sandbox gives it one, as upstream does for its own (`bupstash` lacks it),
    /// so it does not count for the package hash either.
    #[error("`{0}` is not executable")]
    NotExecutable(&'static str),
}

impl Recipe {
    /// Reads one package directory.
    ///
    /// # Errors
    /// [`Error::Invalid`] with the file and, where there is one, the line of the first thing that is wrong.
    pub fn parse(name: &PackageName, input: PackageFiles) -> Result<Self, Error> {
        let warnings = warnings(&input);
        let recipe = Self {
            build: parse_script(name, "build", input.build)?,
            build_deps: parse_deps(name, "build-deps", input.build_deps.as_deref())?,
            run_deps: parse_deps(name, "run-deps", input.run_deps.as_deref())?,
            sources: parse_fetch(name, input.fetch.as_deref())?,
            check: parse_script(name, "check", input.check)?,
            check_deps: parse_deps(name, "check-deps", input.check_deps.as_deref())?,
            files: files::parse(input.files).map_err(|(path, fault)| {
                Error::invalid(Place::whole(name, &format!("files/{path}")), fault)
            })?,
            name: name.clone(),
            warnings,
        };
        recipe.check_seed()?;
        recipe.check_home()?;
        Ok(recipe)
    }

    /// The package's name.
    pub const fn name(&self) -> &PackageName {
        &self.name
    }

    /// The `build` script; a seed has none.
    pub const fn build(&self) -> Option<&Script> {
        self.build.as_ref()
    }

    /// A seed's one source, which is its output; `None` for packages that are built.
    pub fn seed(&self) -> Option<&Source> {
        if self.build.is_some() {
            None
        } else {
            self.sources.first()
        }
    }

    /// What must be there while it is built, in the order of `build-deps`.
    pub fn build_deps(&self) -> &[Dependency] {
        &self.build_deps
    }

    /// What must be there when it is used, in the order of `run-deps`.
    pub fn run_deps(&self) -> &[Dependency] {
        &self.run_deps
    }

    /// What is fetched before it is built, in the order of `fetch`.
    pub fn sources(&self) -> &[Source] {
        &self.sources
    }

    /// What lies in `files/`, sorted by path.
    pub fn files(&self) -> &[RecipeFile] {
        &self.files
    }

    /// The script that tries the built package. Like [`Self::check_deps`] it is no part of the package hash.
    pub const fn check(&self) -> Option<&Script> {
        self.check.as_ref()
    }

    /// What must be there beside the run closure while it is tried, in the order of `check-deps`.
    pub fn check_deps(&self) -> &[Dependency] {
        &self.check_deps
    }

    /// What is suspicious in the directory.
    pub fn warnings(&self) -> &[Warning] {
        &self.warnings
    }

    /// Without `build` there is exactly one source, and nothing that only a build could use.
    fn check_seed(&self) -> Result<(), Error> {
        if self.build.is_some() {
            return Ok(());
        }
        let fault = if self.sources.len() != 1 {
            Fault::NotASeed {
                sources: self.sources.len(),
            }
        } else if !self.build_deps.is_empty() {
            Fault::SeedWith("build-deps")
        } else if !self.files.is_empty() {
            Fault::SeedWith("files")
        } else {
            return Ok(());
        };
        Err(Error::invalid(Place::package(&self.name), fault))
    }

    /// Sources and `files/` meet in the build's home directory: which of two would win there must not be left open.
    fn check_home(&self) -> Result<(), Error> {
        let tops: std::collections::HashSet<&str> = self
            .files
            .iter()
            .filter_map(|f| f.path.split('/').next())
            .collect();
        match self.sources.iter().find(|s| tops.contains(s.file.as_str())) {
            None => Ok(()),
            Some(source) => {
                let place = Place::line(&self.name, "fetch", source.line);
                Err(Error::invalid(
                    place,
                    Fault::SourceMeetsFiles(source.file.clone()),
                ))
            }
        }
    }
}

fn parse_script(
    name: &PackageName,
    file: &str,
    script: Option<FileBytes>,
) -> Result<Option<Script>, Error> {
    let Some(script) = script else {
        return Ok(None);
    };
    let fault = if script.bytes.len() > BUILD_BYTES_MAX {
        Fault::TooLarge {
            bytes: script.bytes.len() as u64,
            max: BUILD_BYTES_MAX as u64,
        }
    } else if script.bytes.is_empty() {
        Fault::Empty
    } else if script.bytes.contains(&0) {
        Fault::Nul
    } else {
        let digest = Sha256::of(&script.bytes);
        return Ok(Some(Script {
            bytes: script.bytes,
            digest,
        }));
    };
    Err(Error::invalid(Place::whole(name, file), fault))
}

fn parse_deps(
    name: &PackageName,
    file: &str,
    bytes: Option<&[u8]>,
) -> Result<Vec<Dependency>, Error> {
    deps::parse(name, bytes.unwrap_or_default())
        .map_err(|(line, fault)| Error::invalid(Place::at(name, file, line), fault))
}

fn parse_fetch(name: &PackageName, bytes: Option<&[u8]>) -> Result<Vec<Source>, Error> {
    fetch::parse(bytes.unwrap_or_default())
        .map_err(|(line, fault)| Error::invalid(Place::at(name, "fetch", line), fault))
}

fn warnings(input: &PackageFiles) -> Vec<Warning> {
    let mut other: Vec<_> = input
        .other
        .iter()
        .filter(|n| !n.starts_with('.'))
        .cloned()
        .collect();
    other.sort();
    let mut warnings: Vec<_> = other.into_iter().map(Warning::UnknownFile).collect();
    for (name, script) in [("build", &input.build), ("check", &input.check)] {
        let Some(script) = script else { continue };
        let no_interpreter = !script.bytes.starts_with(b"#!");
        warnings.extend(no_interpreter.then_some(Warning::NoInterpreter(name)));
        warnings.extend((!script.executable).then_some(Warning::NotExecutable(name)));
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::package::FileEntry;
    use crate::testing::{name, package};

    fn error(change: impl FnOnce(&mut PackageFiles)) -> Error {
        let mut files = package("foo", Some("make"), "musl");
        change(&mut files);
        Recipe::parse(&name("foo"), files).unwrap_err()
    }

    fn text(change: impl FnOnce(&mut PackageFiles)) -> String {
        error(change).to_string()
    }

    #[test]
    fn a_package_directory_is_read_whole() {
        let mut files = package("foo", Some("make musl"), "musl");
        files.files = vec![
            FileEntry::regular("b", false, b"2"),
            FileEntry::symlink("a", "b"),
        ];
        files.other = vec![
            ".pkghash.do".into(),
            "seed-out.tar.gz.do".into(),
            "README".into(),
        ];
        let recipe = Recipe::parse(&name("foo"), files).unwrap();
        let build_deps: Vec<_> = recipe
            .build_deps()
            .iter()
            .map(|d| d.name.as_str())
            .collect();
        assert_eq!(build_deps, ["make", "musl"]);
        assert_eq!(
            recipe.run_deps(),
            [Dependency {
                name: name("musl"),
                line: 1
            }]
        );
        assert_eq!(recipe.sources()[0].file, "foo.tar");
        assert_eq!(
            recipe.build().map(|b| b.digest),
            Some(Sha256::of(b"#!/bin/sh\necho foo\n"))
        );
        assert_eq!(recipe.seed(), None);
        assert_eq!(recipe.files()[0].path, "a");
        let unknown = |n: &str| Warning::UnknownFile(n.to_owned());
        assert_eq!(
            recipe.warnings(),
            [unknown("README"), unknown("seed-out.tar.gz.do")]
        );
    }

    #[test]
    fn without_build_it_is_a_seed_of_exactly_one_source() {
        let seed = Recipe::parse(&name("seed"), package("seed", None, "musl")).unwrap();
        assert_eq!(seed.seed(), seed.sources().first());
        assert!(seed.build().is_none());
        assert_eq!(
            text(|f| (f.build, f.build_deps, f.fetch) = (None, None, None)),
            "pkg/foo: has no `build` and 0 sources; without `build` it is a seed and needs exactly one"
        );
        assert_eq!(
            text(|f| f.build = None),
            "pkg/foo: has no `build`, so it is a seed, and a seed takes no `build-deps`"
        );
        let with_files = text(|f| {
            (f.build, f.build_deps) = (None, None);
            f.files = vec![FileEntry::regular("a", false, b"")];
        });
        assert_eq!(
            with_files,
            "pkg/foo: has no `build`, so it is a seed, and a seed takes no `files`"
        );
    }

    #[test]
    fn build_scripts_that_could_not_run_are_refused() {
        let script = |bytes: &[u8]| {
            let bytes = bytes.to_vec();
            text(move |f| {
                f.build = Some(FileBytes {
                    executable: true,
                    bytes,
                });
            })
        };
        assert_eq!(script(b""), "pkg/foo/build: is empty");
        assert_eq!(script(b"a\0"), "pkg/foo/build: holds a NUL byte");
        assert_eq!(
            script(&vec![b'#'; BUILD_BYTES_MAX + 1]),
            "pkg/foo/build: 1048577 bytes or more, at most 1048576 are allowed"
        );
    }

    #[test]
    fn a_build_that_no_kernel_would_start_as_it_is_is_suspicious() {
        let mut files = package("foo", Some(""), "");
        let executable = Recipe::parse(&name("foo"), files.clone()).unwrap();
        assert_eq!(executable.warnings(), []);
        files.build = Some(FileBytes {
            executable: false,
            bytes: b"echo\n".to_vec(),
        });
        let recipe = Recipe::parse(&name("foo"), files).unwrap();
        assert_eq!(
            recipe.warnings(),
            [
                Warning::NoInterpreter("build"),
                Warning::NotExecutable("build")
            ]
        );
    }

    #[test]
    fn a_check_is_read_with_what_it_needs() {
        let mut files = package("foo", Some("make"), "musl");
        files.check = Some(FileBytes {
            executable: true,
            bytes: b"#!/bin/sh\nfoo\n".to_vec(),
        });
        files.check_deps = Some(b"../dash\n".to_vec());
        let recipe = Recipe::parse(&name("foo"), files).unwrap();
        assert_eq!(recipe.check().unwrap().bytes, b"#!/bin/sh\nfoo\n");
        assert_eq!(recipe.check_deps()[0].name, name("dash"));
        assert_eq!(recipe.warnings(), []);
        let empty = FileBytes {
            executable: true,
            bytes: Vec::new(),
        };
        assert_eq!(text(|f| f.check = Some(empty)), "pkg/foo/check: is empty");
    }

    #[test]
    fn errors_name_file_and_line() {
        assert_eq!(
            text(|f| f.fetch = Some(b"\nurl: https://a/b\nsha256: abc\n".to_vec())),
            "pkg/foo/fetch:3: bad sha256: a sha256 has 64 hexadecimal digits, this has 3 characters"
        );
        assert_eq!(
            text(|f| f.build_deps = Some(b"../make\n../../etc\n".to_vec())),
            "pkg/foo/build-deps:2: dependency `../../etc` escapes the package tree"
        );
        assert_eq!(
            text(|f| f.run_deps = Some(b"../foo\n".to_vec())),
            "pkg/foo/run-deps:1: `foo` depends on itself"
        );
        assert_eq!(
            text(|f| f.files = vec![FileEntry::symlink("a\x1b", "b")]),
            "pkg/foo/files/a\\u{1b}: control character '\\u{1b}' in a name"
        );
        assert_eq!(
            text(|f| f.build_deps = Some(vec![b' '; crate::limits::DEPS_BYTES_MAX + 1])),
            "pkg/foo/build-deps: 262145 bytes or more, at most 262144 are allowed"
        );
    }

    #[test]
    fn a_source_cannot_have_the_name_of_something_in_files() {
        let entry = |path: &str| vec![FileEntry::regular(path, false, b"")];
        let expected = "pkg/foo/fetch:2: source `foo.tar` has the name of an entry in `files/`";
        assert_eq!(text(|f| f.files = entry("foo.tar")), expected);
        assert_eq!(text(|f| f.files = entry("foo.tar/x")), expected);
        let mut below = package("foo", Some(""), "");
        below.files = entry("x/foo.tar");
        assert!(Recipe::parse(&name("foo"), below).is_ok());
    }
}
