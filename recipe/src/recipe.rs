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
    build: Option<BuildScript>,
    build_deps: Vec<Dependency>,
    run_deps: Vec<Dependency>,
    sources: Vec<Source>,
    files: Vec<RecipeFile>,
    warnings: Vec<Warning>,
}

/// The `build` script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuildScript {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Their digest.
    pub digest: Sha256,
}

/// A line of `build-deps` or `run-deps`.
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
    /// A `build` that the kernel cannot start by its first line.
    #[error("`build` does not start with `#!`")]
    NoInterpreter,
}

impl Recipe {
    /// Reads one package directory.
    ///
    /// # Errors
    /// [`Error::Invalid`] with the file and, where there is one, the line of the first thing that is wrong.
    pub fn parse(name: &PackageName, input: PackageFiles) -> Result<Self, Error> {
        let warnings = warnings(&input);
        let recipe = Self {
            build: input.build.map(|b| parse_build(name, b)).transpose()?,
            build_deps: parse_deps(name, "build-deps", input.build_deps.as_deref())?,
            run_deps: parse_deps(name, "run-deps", input.run_deps.as_deref())?,
            sources: parse_fetch(name, input.fetch.as_deref())?,
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
    pub const fn build(&self) -> Option<&BuildScript> {
        self.build.as_ref()
    }

    /// A seed's one source, which is its output; `None` for packages that are built.
    pub fn seed(&self) -> Option<&Source> {
        if self.build.is_some() { None } else { self.sources.first() }
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
            Fault::NotASeed { sources: self.sources.len() }
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
        let tops: std::collections::HashSet<&str> =
            self.files.iter().filter_map(|f| f.path.split('/').next()).collect();
        match self.sources.iter().find(|s| tops.contains(s.file.as_str())) {
            None => Ok(()),
            Some(source) => {
                let place = Place::line(&self.name, "fetch", source.line);
                Err(Error::invalid(place, Fault::SourceMeetsFiles(source.file.clone())))
            }
        }
    }
}

fn parse_build(name: &PackageName, script: FileBytes) -> Result<BuildScript, Error> {
    let fault = if script.bytes.len() > BUILD_BYTES_MAX {
        Fault::TooLarge { bytes: script.bytes.len() as u64, max: BUILD_BYTES_MAX as u64 }
    } else if script.bytes.is_empty() {
        Fault::Empty
    } else if script.bytes.contains(&0) {
        Fault::Nul
    } else if !script.executable {
        Fault::NotExecutable
    } else {
        let digest = Sha256::of(&script.bytes);
        return Ok(BuildScript { bytes: script.bytes, digest });
    };
    Err(Error::invalid(Place::whole(name, "build"), fault))
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
    let mut other: Vec<_> = input.other.iter().filter(|n| !n.starts_with('.')).cloned().collect();
    other.sort();
    let mut warnings: Vec<_> = other.into_iter().map(Warning::UnknownFile).collect();
    if input.build.as_ref().is_some_and(|b| !b.bytes.starts_with(b"#!")) {
        warnings.push(Warning::NoInterpreter);
    }
    warnings
}
