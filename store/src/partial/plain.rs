//! Files that come from their first byte to their last, as web servers give them.
//!
//! Nothing is known of such a file but the SHA-256 that it must have, so that is its name, and the journal says nothing: it is
//! there for its lock, and for those who collect what was left. No byte of it is served before the whole was checked. What an
//! earlier attempt got is hashed when the next one goes on with it, from wherever: the same digest is the same file. Where
//! those bytes were wrong, be it by a lying server or a power cut, the whole is wrong too, and costs a second start at zero.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use base::Sha256;

use super::{Files, Kept, Partial};
use crate::digest::FileDigest;
use crate::layout::locked_file;
use crate::{Store, StoreError};

/// What tells such a partial's name from the root of a DAG.
const PREFIX: &str = "sha256-";
/// Bytes read at a time of what is there already.
const PIECE_BYTES: usize = 256 << 10;

/// Whether a partial of this name is a download.
pub(super) fn is_download(name: &str) -> bool {
    name.starts_with(PREFIX)
}

impl Store {
    /// Starts to download the file with this SHA-256, or goes on where an earlier attempt ended: see
    /// [`Partial::written`]. Somebody else who downloads it at the same time works on a file that is gone when it is dropped.
    ///
    /// # Errors
    /// [`StoreError`] when no file could be made, or what is there could not be read.
    pub fn download(&self, sha256: &Sha256) -> Result<Partial, StoreError> {
        let name = format!("{PREFIX}{}", sha256.to_hex());
        let files = match Kept::open(self, name)? {
            Some(kept) => Files::Kept(kept),
            None => Files::Own(locked_file(&self.layout.temporary, "fetch-")?),
        };
        let mut partial = Partial::new(self, files);
        partial.hash_what_is_there()?;
        Ok(partial)
    }

    /// Starts a download at its first byte, in a file that is gone when it is dropped: what an earlier attempt left stays.
    ///
    /// # Errors
    /// [`StoreError`] when no file could be made.
    pub fn download_anew(&self) -> Result<Partial, StoreError> {
        let file = locked_file(&self.layout.temporary, "fetch-")?;
        Ok(Partial::new(self, Files::Own(file)))
    }
}

impl Partial {
    /// How many bytes are there in order, from the first one on.
    pub const fn written(&self) -> u64 {
        self.digest.size()
    }

    /// Whether the bytes that are there are the whole file: whoever was killed just before the end need not ask again.
    pub fn is_whole(&mut self, sha256: &Sha256) -> bool {
        self.written() > 0 && self.digest.sha256() == *sha256
    }

    /// Forgets all bytes that are there.
    ///
    /// # Errors
    /// [`StoreError`] when the file could not be emptied.
    pub fn restart(&mut self) -> Result<(), StoreError> {
        let emptied = self.file().set_len(0);
        emptied.map_err(|e| StoreError::io("empty", &self.path(), e))?;
        self.digest = FileDigest::new();
        (self.on_disk, self.under_way) = (0, 0);
        Ok(())
    }

    fn hash_what_is_there(&mut self) -> Result<(), StoreError> {
        let mut piece = vec![0; PIECE_BYTES];
        loop {
            let read = read_at(self.file(), &mut piece, self.digest.size());
            match read.map_err(|e| StoreError::io("read", &self.path(), e))? {
                0 => break,
                length => self.digest.update(&piece[..length]),
            }
        }
        (self.on_disk, self.under_way) = (self.digest.size(), self.digest.size());
        Ok(())
    }
}

fn read_at(file: &File, piece: &mut [u8], offset: u64) -> io::Result<usize> {
    loop {
        match file.read_at(piece, offset) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            read => return read,
        }
    }
}
