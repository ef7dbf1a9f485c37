//! Why a seed cannot be made again, or is not the one that is pinned.

use std::io;
use std::path::{Path, PathBuf};

use base::{PackageName, Sha256};
use builder::ErrorKind;
use store::StoreError;
use store::archive::ArchiveError;

use crate::seeds::SeedsError;

/// Why a seed cannot be rebuilt or verified.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The list of seeds is broken.
    #[error("cannot read the list of seeds")]
    Seeds(#[from] SeedsError),
    /// A recipe, or one it needs, is wrong.
    #[error("cannot read the recipes")]
    Recipes(#[from] recipe::Error),
    /// A package directory cannot be read.
    #[error("cannot read the recipe of `{package}`")]
    Load {
        /// Which package.
        package: PackageName,
        /// What went wrong.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The tree lacks a package that the seed is made from.
    #[error("the seed `{seed}` is made from `{package}`, which the tree does not have")]
    MissingRecipe {
        /// Which seed.
        seed: PackageName,
        /// Which package.
        package: PackageName,
    },
    /// A package that the seed is made from needs more than the seed.
    #[error(
        "the seed `{seed}` is made from `{package}`, which may be built from one seed and nothing else"
    )]
    NotFromSeed {
        /// Which seed.
        seed: PackageName,
        /// Which package.
        package: PackageName,
    },
    /// A stage could not be built.
    #[error(transparent)]
    Build(#[from] builder::Error),
    /// The outputs of a stage could not be merged, or archives not be compared.
    #[error("cannot merge or compare archives of stage {stage}")]
    Archive {
        /// Which stage.
        stage: usize,
        /// What went wrong.
        #[source]
        source: ArchiveError,
    },
    /// The pinned seed is not in the store.
    #[error("the seed `{seed}` (`{sha256}`) is not in the store")]
    MissingSeed {
        /// Which seed.
        seed: PackageName,
        /// Its digest.
        sha256: Sha256,
    },
    /// There is nothing yet that could be verified.
    #[error("the seed `{seed}` is not pinned yet")]
    NotPinned {
        /// Which seed.
        seed: PackageName,
    },
    /// The bytes kept changing.
    #[error("no two consecutive stages of {stages} are equal")]
    NoFixedPoint {
        /// How many were built.
        stages: usize,
        /// How the last two differ, one line each.
        differences: Vec<String>,
    },
    /// What was made is not what is pinned.
    #[error("the seed `{seed}` is not reproducible: pinned is `{pinned}`, made was `{made}`")]
    NotReproducible {
        /// Which seed.
        seed: PackageName,
        /// The digest in the list.
        pinned: Sha256,
        /// The digest of what was made; it is in the store.
        made: Sha256,
        /// How they differ, one line each; empty if the pinned one is not in the store.
        differences: Vec<String>,
    },
    /// The store could not do its part.
    #[error("cannot use the store")]
    Store(#[from] StoreError),
    /// The operating system refused an operation.
    #[error("cannot {op} `{}`", path.display())]
    Io {
        /// Verb for what was tried.
        op: &'static str,
        /// On which path.
        path: PathBuf,
        /// The operating system's answer.
        #[source]
        source: io::Error,
    },
}

impl Error {
    /// The kind that decides the exit code.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Build(error) => error.kind(),
            Self::NoFixedPoint { .. } | Self::NotReproducible { .. } => ErrorKind::NotReproducible,
            Self::MissingSeed { .. } | Self::NotPinned { .. } => ErrorKind::Missing,
            Self::Store(StoreError::Busy { .. }) => ErrorKind::Busy,
            Self::Store(StoreError::DiskFull { .. })
            | Self::Archive {
                source: ArchiveError::DiskFull { .. },
                ..
            } => ErrorKind::DiskFull,
            _ => ErrorKind::Other,
        }
    }

    pub(crate) fn io(op: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io {
            op,
            path: path.to_owned(),
            source,
        }
    }
}
