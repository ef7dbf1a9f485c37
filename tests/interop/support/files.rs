//! Files of a length and a content that is the same on every run, and the check that one arrived whole.

use std::fs::File;
use std::io::{BufRead as _, BufReader, BufWriter, Write as _};
use std::path::Path;

use base::{Hasher, Sha256};

/// Lengths that every transfer is tried with: nothing, one byte, a word, just over one block, many blocks.
pub const SIZES: [u64; 5] = [0, 1, 12, (1 << 20) + 1, 64 << 20];

/// Writes a file of so many bytes that no compression and no equal blocks make easier; its SHA-256.
pub fn write_file(path: &Path, size: u64) -> Sha256 {
    let mut file = BufWriter::new(File::create(path).unwrap());
    let mut state = size ^ 0x9e37_79b9_7f4a_7c15;
    let mut left = size;
    while left > 0 {
        // Marsaglia's xorshift64.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let bytes = state.to_le_bytes();
        let part = &bytes[..left.min(8) as usize];
        file.write_all(part).unwrap();
        left -= part.len() as u64;
    }
    file.into_inner().unwrap();
    sha256_of(path)
}

/// SHA-256 of a file.
pub fn sha256_of(path: &Path) -> Sha256 {
    let mut file = BufReader::with_capacity(1 << 20, File::open(path).unwrap());
    let mut hasher = Hasher::new();
    loop {
        let part = file.fill_buf().unwrap();
        if part.is_empty() {
            return hasher.finish();
        }
        hasher.update(part);
        let length = part.len();
        file.consume(length);
    }
}
