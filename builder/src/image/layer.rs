//! Layers: an output as it lies in the store, or a few files that are made here.

use std::fs::File as DiskFile;
use std::io::{self, Write};
use std::path::PathBuf;

use base::{Hasher, Sha256};
use store::Store;
use store::archive::{
    self, ArchiveError, Compression, Entry, Inner, MTIME_UNIX_SECS, UnpackLimits,
};

use super::json::Descriptor;
use crate::error::Error;
use crate::root::{Input, entries, open};
use crate::scratch::Scratch;
use crate::venv;

/// In an image a name that begins so takes something of a lower layer away (image-spec, "Whiteouts").
const WHITEOUT: &[u8] = b".wh.";

/// What programs expect of a root and packages do not bring.
pub(super) const ROOT_FILES: [File<'static>; 5] = [
    File::directory("etc", 0o755),
    File::plain("etc/group", b"root:x:0:\nnobody:x:65534:\n"),
    File::plain(
        "etc/passwd",
        b"root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
    ),
    File::directory("tmp", 0o1777),
    File::directory("var", 0o755),
];

/// One layer.
#[derive(Debug)]
pub(super) struct Layer {
    /// What it is, for people.
    pub title: String,
    /// Digest of its bytes.
    pub sha256: Sha256,
    /// Digest of the tar stream within.
    pub diff_id: Sha256,
    compression: Compression,
    size: u64,
    pub content: Content,
}

/// Where the bytes of a file of the image are.
#[derive(Debug)]
pub(super) enum Content {
    /// Here.
    Bytes(Vec<u8>),
    /// In the store.
    Output(Input),
    /// On the disk, so many of them.
    File { path: PathBuf, size: u64 },
}

impl Layer {
    pub fn descriptor(&self) -> Descriptor {
        Descriptor::layer(self.compression, &self.sha256, self.size, &self.title)
    }
}

/// A file or directory of a layer that is made here.
#[derive(Clone, Copy, Debug)]
pub(super) struct File<'a> {
    path: &'a str,
    mode: u32,
    /// `None` makes it a directory.
    bytes: Option<&'a [u8]>,
}

impl<'a> File<'a> {
    pub const fn plain(path: &'a str, bytes: &'a [u8]) -> Self {
        Self {
            path,
            mode: 0o644,
            bytes: Some(bytes),
        }
    }

    const fn directory(path: &'a str, mode: u32) -> Self {
        Self {
            path,
            mode,
            bytes: None,
        }
    }
}

/// A layer of a few files.
pub(super) fn of_files(title: &str, files: &[File<'_>]) -> Layer {
    let mut tar = tar::Builder::new(Vec::new());
    for file in files {
        let mut header = tar::Header::new_ustar();
        let bytes = file.bytes.unwrap_or_default();
        header.set_entry_type(match file.bytes {
            Some(_) => tar::EntryType::Regular,
            None => tar::EntryType::Directory,
        });
        header.set_size(bytes.len() as u64);
        header.set_mode(file.mode);
        header.set_mtime(MTIME_UNIX_SECS);
        tar.append_data(&mut header, file.path, bytes)
            .expect("a short name, written to memory");
    }
    let bytes = tar.into_inner().expect("written to memory");
    Layer {
        title: title.to_owned(),
        sha256: Sha256::of(&bytes),
        diff_id: Sha256::of(&bytes),
        compression: Compression::None,
        size: bytes.len() as u64,
        content: Content::Bytes(bytes),
    }
}

/// What is in an output, every byte of which was verified.
fn inner(store: &Store, input: &Input) -> Result<Inner, Error> {
    let mut archive = open(store, input)?;
    let inner = archive::inner(&mut archive, &UnpackLimits::default())
        .map_err(|e| Error::archive(&input.name, e))?;
    archive.finish()?;
    refuse_whiteouts(&input.name, &inner.entries)?;
    Ok(inner)
}

/// A package's output as a layer.
pub(super) fn of_package(store: &Store, input: &Input) -> Result<Layer, Error> {
    let inner = inner(store, input)?;
    Ok(Layer {
        title: input.name.clone(),
        sha256: input.blob.sha256,
        diff_id: inner.sha256,
        compression: inner.compression,
        size: input.blob.size,
        content: Content::Output(input.clone()),
    })
}

/// Several outputs, laid over each other, as one layer.
pub(super) fn composed(
    store: &Store,
    inputs: &[&Input],
    scratch: &Scratch,
) -> Result<Layer, Error> {
    let names: Vec<_> = inputs.iter().map(|input| input.name.as_str()).collect();
    let title = names.join(" ");
    let inputs: Vec<_> = inputs.iter().copied().cloned().collect();
    for input in &inputs {
        refuse_whiteouts(&input.name, &entries(store, input)?)?;
    }
    let root = scratch.root();
    venv::compose(store, &inputs, &root)?;
    let path = scratch.path().join("layer.tar.zst");
    let error = |e| Error::io("write", &path, e);
    let mut writer = Hashed {
        file: DiskFile::create(&path).map_err(error)?,
        hasher: Hasher::new(),
        size: 0,
    };
    archive::pack(&root, &mut writer).map_err(|e| Error::archive(&title, e))?;
    let packed = DiskFile::open(&path).map_err(error)?;
    let inner =
        archive::inner(packed, &UnpackLimits::default()).map_err(|e| Error::archive(&title, e))?;
    let (sha256, size) = (writer.hasher.finish(), writer.size);
    Ok(Layer {
        title,
        sha256,
        diff_id: inner.sha256,
        compression: inner.compression,
        size,
        content: Content::File { path, size },
    })
}

/// A file whose digest is known once it is written.
struct Hashed {
    file: DiskFile,
    hasher: Hasher,
    size: u64,
}

impl Write for Hashed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// What is an ordinary name in a package would remove a file of another one in an image.
fn refuse_whiteouts(package: &str, entries: &[Entry]) -> Result<(), Error> {
    let is_whiteout = |path: &[u8]| {
        path.split(|b| *b == b'/')
            .any(|name| name.starts_with(WHITEOUT))
    };
    match entries.iter().find(|entry| is_whiteout(&entry.path)) {
        None => Ok(()),
        Some(entry) => Err(Error::archive(
            package,
            ArchiveError::Refused {
                archive: package.to_owned(),
                entry: String::from_utf8_lossy(&entry.path).into_owned(),
                reason: "in an image this name removes a file",
            },
        )),
    }
}
