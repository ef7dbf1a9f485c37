//! Archives, packed and unpacked, honest and hostile.

mod compose;
mod hostile;
mod packing;

use std::fs;
use std::io::Write as _;
use std::path::Path;

use tar::{EntryType, Header};
use tempfile::TempDir;

use super::*;

/// Writes tar streams that no honest tool would write.
#[derive(Default)]
struct Tar(Vec<u8>);

impl Tar {
    fn entry(mut self, kind: EntryType, name: &str, target: &str, mode: u32, data: &[u8]) -> Self {
        let header = header(kind, name, target, mode, data.len() as u64);
        self.0.extend_from_slice(header.as_bytes());
        self.data(data)
    }

    fn data(mut self, data: &[u8]) -> Self {
        self.0.extend_from_slice(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    fn file(self, name: &str, data: &[u8]) -> Self {
        self.entry(EntryType::Regular, name, "", 0o644, data)
    }

    fn program(self, name: &str, data: &[u8]) -> Self {
        self.entry(EntryType::Regular, name, "", 0o755, data)
    }

    fn dir(self, name: &str) -> Self {
        self.entry(EntryType::Directory, name, "", 0o755, b"")
    }

    fn symlink(self, name: &str, target: &str) -> Self {
        self.entry(EntryType::Symlink, name, target, 0o777, b"")
    }

    fn hard_link(self, name: &str, target: &str) -> Self {
        self.entry(EntryType::Link, name, target, 0o644, b"")
    }

    fn end(self) -> Vec<u8> {
        self.raw(&[0; 1024]).0
    }
}

fn header(kind: EntryType, name: &str, target: &str, mode: u32, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
    header.as_old_mut().linkname[..target.len()].copy_from_slice(target.as_bytes());
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_mtime(1_000_000);
    header.set_uid(0);
    header.set_gid(0);
    header.set_cksum();
    header
}

/// A directory to unpack into, inside another one that must not change.
struct Destination {
    outer: TempDir,
}

impl Destination {
    fn new() -> Self {
        let outer = tempfile::tempdir().unwrap();
        fs::create_dir(outer.path().join("dest")).unwrap();
        fs::create_dir(outer.path().join("outside")).unwrap();
        fs::write(outer.path().join("outside/file"), "precious").unwrap();
        Self { outer }
    }

    fn path(&self) -> std::path::PathBuf {
        self.outer.path().join("dest")
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path().join(name)).unwrap()
    }

    fn assert_nothing_outside_was_touched(&self) {
        let mut names: Vec<_> = fs::read_dir(self.outer.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, ["dest", "outside"]);
        assert_eq!(
            fs::read_dir(self.outer.path().join("outside"))
                .unwrap()
                .count(),
            1
        );
        assert_eq!(
            fs::read_to_string(self.outer.path().join("outside/file")).unwrap(),
            "precious"
        );
    }
}

fn limits() -> UnpackLimits {
    UnpackLimits::default()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn packed(dir: &Path) -> Vec<u8> {
    let mut archive = Vec::new();
    pack(dir, &mut archive).unwrap();
    archive
}
