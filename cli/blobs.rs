//! Files of the store that a command has just got or seen there.

use std::path::Path;

use store::{Blob, BlobFile, Store};

use crate::error::{CmdResult, Exit, Failure};
use crate::outfile::OutFile;

/// Opens one.
///
/// # Errors
/// When it is gone nevertheless, or the disk fails.
pub fn open(store: &Store, blob: &Blob) -> CmdResult<BlobFile> {
    store.open_blob(&blob.sha256)?.ok_or_else(|| {
        let message = format!("`{}` vanished from the store", blob.sha256);
        Failure::new(Exit::Other, message)
    })
}

/// Copies one to a file, which appears whole or not at all.
///
/// # Errors
/// As of [`open`], and when the file cannot be written.
pub fn write(store: &Store, blob: &Blob, path: &Path) -> CmdResult {
    let mut file = open(store, blob)?;
    let mut out = OutFile::create(path)?;
    file.copy_to(out.file())?;
    out.finish()
}
