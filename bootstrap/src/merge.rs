//! A stage's outputs as one archive: upstream's `seed-out.tar.gz`.

use base::PackageName;
use builder::Context;
use store::archive::{self, UnpackLimits};
use store::{Blob, BlobFile, Expected};

use crate::error::Error;

/// Merges outputs into one canonical archive in the store. Two outputs with different files of one name are an error:
/// which one wins would be an accident of names.
pub(crate) fn merge(
    context: &Context<'_>,
    outputs: &[(PackageName, Blob)],
    stage: usize,
) -> Result<Blob, Error> {
    let mut archives: Vec<(String, BlobFile)> = Vec::new();
    for (name, blob) in outputs {
        let file = context
            .store
            .open_blob(&blob.sha256)?
            .ok_or_else(|| Error::MissingSeed {
                seed: name.clone(),
                sha256: blob.sha256,
            })?;
        archives.push((name.to_string(), file));
    }
    std::fs::create_dir_all(context.scratch)
        .map_err(|e| Error::io("create", context.scratch, e))?;
    let scratch = tempfile::tempdir_in(context.scratch)
        .map_err(|e| Error::io("write to", context.scratch, e))?;
    let mut ingest = context.store.ingest()?;
    archive::merge(
        archives,
        scratch.path(),
        &UnpackLimits::default(),
        &mut ingest,
    )
    .map_err(|source| Error::Archive { stage, source })?;
    Ok(ingest.finish(&Expected::anything())?)
}
