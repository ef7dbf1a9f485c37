//! How two archives differ, down to the first differing byte: where the search for an unreproducible build begins.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use builder::differences;
use store::archive::{UnpackLimits, unpack};
use store::{Blob, Store};

use crate::error::Error;

/// Tells how two archives of the store differ, one line per entry; of files also at which byte. Empty if they are alike.
///
/// `scratch` is where they are unpacked for that.
///
/// # Errors
/// [`Error`] when one of them cannot be read.
pub fn explain(
    store: &Store,
    before: &Blob,
    after: &Blob,
    scratch: &Path,
) -> Result<Vec<String>, Error> {
    if before.sha256 == after.sha256 {
        return Ok(Vec::new());
    }
    let mut lines = differences(
        "the seed",
        &mut open(store, before)?,
        &mut open(store, after)?,
    )?;
    std::fs::create_dir_all(scratch).map_err(|e| Error::io("create", scratch, e))?;
    let dir = tempfile::tempdir_in(scratch).map_err(|e| Error::io("write to", scratch, e))?;
    let sides = [("first", before), ("second", after)];
    let roots = sides.map(|(name, blob)| (dir.path().join(name), blob));
    for (root, blob) in &roots {
        std::fs::create_dir(root).map_err(|e| Error::io("create", root, e))?;
        unpack(open(store, blob)?, root, &UnpackLimits::default())
            .map_err(|source| Error::Archive { stage: 0, source })?;
    }
    for line in &mut lines {
        if let Some(offset) = entry_of(line)
            .and_then(|path| first_difference(&roots[0].0.join(path), &roots[1].0.join(path)))
        {
            line.push_str(&format!(", from byte {offset} on"));
        }
    }
    if lines.is_empty() {
        lines.push("the same entries in other bytes: another version of the archiver".into());
    }
    Ok(lines)
}

fn open(store: &Store, blob: &Blob) -> Result<impl Read + use<>, Error> {
    let file = store.open_blob(&blob.sha256)?;
    file.map(BufReader::new).ok_or_else(|| {
        let missing = std::io::ErrorKind::NotFound.into();
        Error::io("open", Path::new(&blob.sha256.to_hex()), missing)
    })
}

/// The path that a line about content is about.
fn entry_of(line: &str) -> Option<&str> {
    let (path, what) = line.strip_prefix('`')?.split_once("`: ")?;
    what.contains("bytes in").then_some(path)
}

fn first_difference(a: &Path, b: &Path) -> Option<u64> {
    let mut a = BufReader::new(File::open(a).ok()?).bytes();
    let mut b = BufReader::new(File::open(b).ok()?).bytes();
    (0..).find_map(|offset| match (a.next(), b.next()) {
        (Some(Ok(x)), Some(Ok(y))) if x == y => None,
        (None, None) => Some(None),
        _ => Some(Some(offset)),
    })?
}

#[cfg(test)]
mod tests {
    use std::fs;

    use store::Expected;

    use super::*;

    fn packed(store: &Store, files: &[(&str, &str)]) -> Blob {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let mut ingest = store.ingest().unwrap();
        store::archive::pack(dir.path(), &mut ingest).unwrap();
        ingest.finish(&Expected::anything()).unwrap()
    }

    #[test]
    fn the_first_differing_byte_of_each_file_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("store")).unwrap();
        let before = packed(
            &store,
            &[("bin/cc", "0123456789"), ("lib/a", "same"), ("lib/b", "x")],
        );
        let after = packed(
            &store,
            &[("bin/cc", "0123x56789"), ("lib/a", "same"), ("lib/b", "xy")],
        );
        let lines = explain(&store, &before, &after, dir.path()).unwrap();
        assert_eq!(
            lines,
            [
                "`bin/cc`: other content, 10 bytes in both, from byte 4 on",
                "`lib/b`: 1 bytes in the first, 2 in the second, from byte 1 on",
            ]
        );
        assert!(
            explain(&store, &before, &before, dir.path())
                .unwrap()
                .is_empty()
        );
    }

    #[test]
    fn entries_that_only_one_has_have_no_offset() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("store")).unwrap();
        let before = packed(&store, &[("a", "1")]);
        let after = packed(&store, &[("b", "1")]);
        let lines = explain(&store, &before, &after, dir.path()).unwrap();
        assert_eq!(lines, ["`a`: only in the first", "`b`: only in the second"]);
    }
}
