//! Why a recipe or a graph of recipes cannot be had, and where in the package tree to look.

use std::fmt;

use base::PackageName;

use crate::chain::Chain;
use crate::fault::{Fault, quote};
use crate::limits::DERIVATION_BYTES_MAX;

/// A place in the package tree, printed as `pkg/make/fetch:3`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    package: PackageName,
    file: Box<str>,
    line: Option<usize>,
}

impl Place {
    /// The package directory itself.
    pub(crate) fn package(package: &PackageName) -> Self {
        Self::at(package, "", None)
    }

    /// A file as a whole.
    pub(crate) fn whole(package: &PackageName, file: &str) -> Self {
        Self::at(package, file, None)
    }

    /// A line of a file, counted from 1.
    pub(crate) fn line(package: &PackageName, file: &str, line: usize) -> Self {
        Self::at(package, file, Some(line))
    }

    pub(crate) fn at(package: &PackageName, file: &str, line: Option<usize>) -> Self {
        Self {
            package: package.clone(),
            file: file.into(),
            line,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pkg/{}", self.package)?;
        if !self.file.is_empty() {
            write!(f, "/{}", quote(&self.file))?;
        }
        match self.line {
            Some(line) => write!(f, ":{line}"),
            None => Ok(()),
        }
    }
}

/// Why the crate's work cannot be done. [`Self::hint`] says what to do about it, where that is known.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A package directory holds something that is wrong.
    #[error("{place}: {fault}")]
    Invalid {
        /// Where.
        place: Box<Place>,
        /// What.
        fault: Box<Fault>,
    },
    /// A dependency, or a package asked for by name, that the tree does not hold.
    #[error("{}no package `{name}` in the package tree", .place.as_ref().map(|p| format!("{p}: ")).unwrap_or_default())]
    UnknownPackage {
        /// Where it is named; nowhere if the caller asked for it.
        place: Option<Box<Place>>,
        /// The name nobody has.
        name: PackageName,
        /// The most similar name the tree does hold.
        nearest: Option<PackageName>,
    },
    /// Packages that need each other: none of them could be built first.
    #[error("dependency cycle: {0}")]
    Cycle(Chain),
    /// The caller could not read the package directory.
    #[error("cannot read package `{name}`")]
    Load {
        /// The package.
        name: PackageName,
        /// What the reader says.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A recipe of so many parts that its derivation is no longer one block.
    #[error("the derivation of `{name}` has {bytes} bytes, more than {DERIVATION_BYTES_MAX}")]
    DerivationTooLarge {
        /// The package.
        name: PackageName,
        /// Length of the text.
        bytes: usize,
    },
}

impl Error {
    pub(crate) fn invalid(place: Place, fault: Fault) -> Self {
        Self::Invalid {
            place: Box::new(place),
            fault: Box::new(fault),
        }
    }

    /// What the user can do about it, as a sentence or a command.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Invalid { fault, .. } => fault.hint(),
            Self::UnknownPackage {
                nearest: Some(nearest),
                ..
            } => Some(format!("did you mean `{nearest}`?")),
            Self::DerivationTooLarge { .. } => {
                Some("move `files/` into a source archive".to_owned())
            }
            _ => None,
        }
    }
}
