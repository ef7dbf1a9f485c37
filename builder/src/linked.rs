//! A closure composed of links: outputs are unpacked once, and their files have a second name in each venv that wants them.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::symlink;
use std::path::Path;

use store::Store;

use crate::error::Error;
use crate::layers::{Layer, Layers};
use crate::root::{Input, sorted};
use crate::stack::refuse_hidden_directories;

/// Links the files of a closure below `dest`, as unpacking all of it over each other would lay them out.
pub(crate) fn link_all(
    dest: &Path,
    inputs: &[Input],
    store: &Store,
    layers: &Layers,
) -> Result<(), Error> {
    let layers = layers.take(&sorted(inputs), store)?;
    refuse_hidden_directories(&layers)?;
    layers.iter().try_for_each(|layer| link_layer(layer, dest))
}

fn link_layer(layer: &Layer, dest: &Path) -> Result<(), Error> {
    let root = layer.root();
    for (path, is_dir) in &layer.entries.paths {
        let path = OsStr::from_bytes(path);
        let (from, to) = (root.join(path), dest.join(path));
        let made = if *is_dir {
            add_directory(&from, &to)
        } else {
            add_file(&from, &to)
        };
        made.map_err(|e| Error::io("create", &to, e))?;
    }
    Ok(())
}

fn add_directory(from: &Path, to: &Path) -> io::Result<()> {
    match fs::create_dir(to) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        result => result?,
    }
    fs::set_permissions(to, fs::metadata(from)?.permissions())
}

/// The later one of a name stays.
fn add_file(from: &Path, to: &Path) -> io::Result<()> {
    match fs::remove_file(to) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        result => result?,
    }
    if fs::symlink_metadata(from)?.is_symlink() {
        return symlink(fs::read_link(from)?, to);
    }
    match fs::hard_link(from, to) {
        // On another disk, with too many names, or where that is forbidden.
        Err(error) if error.kind() != io::ErrorKind::NotFound => fs::copy(from, to).map(drop),
        result => result,
    }
}
