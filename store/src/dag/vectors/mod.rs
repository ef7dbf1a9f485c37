//! The published test vectors of UnixFS: files, directories and shards of every profile, written and read back.
//!
//! Sources: the UnixFS specification, IPIP-499, and what Kubo prints. Shards are written by test code alone, which the
//! reader is then tested against.

mod directories;
mod files;

use std::io::{self, Read};

use base::Sha256;
use chacha20::ChaCha20;
use chacha20::cipher::{KeyIvInit, StreamCipher};

use super::*;

const V0: Profile = Profile::UNIXFS_V0_2015;
const V1: Profile = Profile::UNIXFS_V1_2025;
const V1_ONLY: Profile = Profile::CID_V1_ONLY;
const MIB: u64 = 1 << 20;

fn root_of(profile: Profile, reader: impl Read) -> Subtree {
    build_file(profile, reader, &mut |_| {}).unwrap()
}

/// The ChaCha20 keystream whose key is the digest of a seed, as IPIP-499 uses it.
struct Keystream(ChaCha20);

impl Keystream {
    fn new(seed: &str) -> Self {
        let key = *Sha256::of(seed.as_bytes()).as_bytes();
        Self(ChaCha20::new(&key.into(), &[0; 12].into()))
    }
}

impl Read for Keystream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        buf.fill(0);
        self.0.apply_keystream(buf);
        Ok(buf.len())
    }
}
