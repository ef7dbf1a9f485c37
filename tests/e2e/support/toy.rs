//! The toy tree: packages that build within a second out of one static busybox.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use base::Sha256;

use super::{project, static_busybox};

/// Length of the large source: long enough that a transfer can be disturbed, short enough for a quick test.
pub const NOISE_BYTES: usize = 48 << 20;
/// The busybox applets that the toy packages use.
const APPLETS: [&str; 11] = [
    "sh", "cat", "chmod", "cp", "echo", "head", "mkdir", "printf", "sleep", "tr", "ls",
];

/// What the package `hello` says.
pub fn greeting() -> &'static str {
    "hello from a source that was found by its sha256\n"
}

/// Writes the sources of the toy tree.
pub fn write_sources(folder: &Path) {
    fs::write(folder.join("greeting.txt"), greeting()).unwrap();
    fs::write(folder.join("noise.bin"), noise(NOISE_BYTES)).unwrap();
    write_seed(&folder.join("toy.tar.zst"));
}

/// Copies the fixtures, with the origin's URL and the digests of its files filled in.
pub fn write_tree(tree: &Path, sources: &Path, origin: &str) {
    copy(&project().join("tests/fixtures/pkg"), &tree.join("pkg"));
    for entry in fs::read_dir(tree.join("pkg")).unwrap() {
        let fetch = entry.unwrap().path().join("fetch");
        let Ok(text) = fs::read_to_string(&fetch) else {
            continue;
        };
        let lines: Vec<_> = text
            .lines()
            .map(|line| fill(line, sources, origin))
            .collect();
        fs::write(&fetch, lines.join("\n") + "\n").unwrap();
    }
}

fn fill(line: &str, sources: &Path, origin: &str) -> String {
    match line
        .strip_prefix("sha256: @SHA256 ")
        .and_then(|rest| rest.strip_suffix('@'))
    {
        // The seed is missing where there is no static busybox; tests that build it are skipped there.
        Some(file) => {
            let bytes = fs::read(sources.join(file)).unwrap_or_default();
            format!("sha256: {}", Sha256::of(&bytes))
        }
        None => line.replace("@ORIGIN@", origin),
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else {
            fs::copy(&path, &target).unwrap();
        }
    }
}

/// A seed of one program under several names.
fn write_seed(path: &Path) {
    let Some(busybox) = static_busybox() else {
        return;
    };
    let root = tempfile::tempdir().unwrap();
    let bin = root.path().join("bin");
    fs::create_dir(&bin).unwrap();
    fs::copy(busybox, bin.join("busybox")).unwrap();
    fs::set_permissions(bin.join("busybox"), fs::Permissions::from_mode(0o755)).unwrap();
    for applet in APPLETS {
        symlink("busybox", bin.join(applet)).unwrap();
    }
    store::archive::pack(root.path(), fs::File::create(path).unwrap()).unwrap();
}

/// Bytes that do not compress, always the same (xorshift64*, Vigna 2016).
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        bytes.extend(state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}
