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
/// Room for a usual text, in bytes.
const TEXT_BYTES: usize = 1024;

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
        PkgHash::of_derivation(self.text().as_bytes())
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
        f.write_str(&self.text())
    }
}

impl Derivation {
    /// The text. Put together by hand: of ten thousand packages each has one, whenever anything is asked of them.
    pub(crate) fn text(&self) -> String {
        let mut text = String::with_capacity(TEXT_BYTES);
        let mut line = |words: &[&str]| {
            for (position, word) in words.iter().enumerate() {
                text.push_str(if position == 0 { "" } else { " " });
                text.push_str(word);
            }
            text.push('\n');
        };
        line(&[HEADER]);
        line(&["name", self.name.as_str()]);
        line(&["system", self.system.as_str()]);
        match &self.body {
            Body::Seed(sha256) => line(&["seed", &sha256.to_hex()]),
            Body::Build {
                script,
                files,
                sources,
                build_deps,
            } => {
                line(&["build", &script.to_hex()]);
                for file in files {
                    let (mode, path) = (file.mode.as_str(), percent::encode(&file.path));
                    line(&["file", mode, &file.sha256.to_hex(), &path]);
                }
                for source in sources {
                    let file = percent::encode(&source.file);
                    line(&["source", &source.sha256.to_hex(), &file]);
                }
                for dep in build_deps {
                    let pkghash = dep.pkghash.digest().to_hex();
                    line(&["build-dep", &pkghash, dep.name.as_str()]);
                }
            }
        }
        for dep in &self.run_deps {
            let pkghash = dep.pkghash.digest().to_hex();
            line(&["run-dep", &pkghash, dep.name.as_str()]);
        }
        text
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
mod tests;
