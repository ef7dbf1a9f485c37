//! Pins: which blobs are kept, and why. The garbage collection to come starts from them; listings read them.

use base::{PackageName, PkgHash, Sha256};

use crate::{Store, StoreError};

/// A blob that is kept for a reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pin {
    /// The blob.
    pub sha256: Sha256,
    /// Why it is kept.
    pub kind: PinKind,
    /// When the pin was made first, in seconds since 1970.
    pub added_unix_secs: u64,
}

/// The reason for a pin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PinKind {
    /// A source that is mirrored here.
    Source {
        /// The name under which recipes download it.
        file_name: String,
    },
    /// The output of a package.
    Output {
        /// Which build of it.
        pkghash: PkgHash,
        /// The package's name when it was pinned.
        package: PackageName,
    },
    /// A bootstrap seed.
    Seed {
        /// The seed's name.
        name: String,
    },
    /// A user's own wish.
    Other {
        /// What the user calls it.
        name: String,
    },
}

impl PinKind {
    /// Which class of reasons this is.
    pub const fn class(&self) -> PinClass {
        match self {
            Self::Source { .. } => PinClass::Source,
            Self::Output { .. } => PinClass::Output,
            Self::Seed { .. } => PinClass::Seed,
            Self::Other { .. } => PinClass::Other,
        }
    }
}

/// Classes of pins, for listing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PinClass {
    /// Sources that are mirrored.
    Source,
    /// Outputs of packages.
    Output,
    /// Bootstrap seeds.
    Seed,
    /// Users' own wishes.
    Other,
}

impl Store {
    /// Keeps a blob for a reason. The same blob and reason again only refreshes the names.
    ///
    /// # Errors
    /// [`StoreError`] when the index could not be written.
    pub fn pin(&self, pin: &Pin) -> Result<(), StoreError> {
        let _ = pin;
        Ok(())
    }

    /// The pins of a class, or all, the oldest first.
    ///
    /// # Errors
    /// [`StoreError`] when the index could not be read.
    pub fn pins(&self, class: Option<PinClass>) -> Result<Vec<Pin>, StoreError> {
        let _ = class;
        Ok(Vec::new())
    }

    /// Drops one reason; `false` when there was no such pin. The blob itself stays until it is collected.
    ///
    /// # Errors
    /// [`StoreError`] when the index could not be written.
    pub fn unpin(&self, sha256: &Sha256, kind: &PinKind) -> Result<bool, StoreError> {
        let _ = (sha256, kind);
        Ok(false)
    }
}
