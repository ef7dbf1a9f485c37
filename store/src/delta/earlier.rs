//! Which outputs of a package are here: what a delta can be made from.

use base::{PkgHash, Sha256};

use crate::{PinClass, Store, StoreError};

/// Earlier outputs that are named to a peer: it most likely has one of the last few, if any.
pub const EARLIER_MAX: usize = 8;
/// The line of a derivation text that names the package.
const NAME_LINE: &str = "name ";

impl Store {
    /// The outputs of the package that `pkghash` is a version of which are here, the newest first, at most [`EARLIER_MAX`].
    /// Another output of the same version is as good as one of an earlier version.
    /// The package's name is that in its derivation; of a package hash whose text is missing nothing is known.
    ///
    /// # Errors
    /// [`StoreError`] when the index could not be read.
    pub fn earlier_outputs(&self, pkghash: &PkgHash) -> Result<Vec<Sha256>, StoreError> {
        let Some(text) = self.derivation(pkghash)? else {
            return Ok(Vec::new());
        };
        let Some(name) = package_name(&text) else {
            return Ok(Vec::new());
        };
        self.index.read(|connection| {
            connection
                .prepare_cached(
                    "SELECT note.sha256 FROM note JOIN blob ON blob.sha256 = note.sha256
                     WHERE note.class = ?1 AND note.name = ?2
                     GROUP BY note.sha256 ORDER BY max(note.added) DESC, blob.id DESC LIMIT ?3",
                )?
                .query_map((PinClass::Output.code(), name, EARLIER_MAX as i64), |row| {
                    Ok(Sha256::from_bytes(row.get(0)?))
                })?
                .collect()
        })
    }

    /// Whether somebody said of a file that it is the output of a package. Other files are nobody's to ask about here.
    pub(super) fn is_output(&self, sha256: &Sha256) -> Result<bool, StoreError> {
        self.index.read(|connection| {
            connection
                .prepare_cached("SELECT 1 FROM realisation WHERE output = ?1 LIMIT 1")?
                .exists([sha256.as_bytes()])
        })
    }
}

/// The package's name in a derivation text.
fn package_name(text: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(text).ok()?;
    text.lines().nth(1)?.strip_prefix(NAME_LINE)
}
