//! The hash of a whole file, made on a thread of its own while the file's chunks are hashed and written elsewhere.
//!
//! A file is hashed twice, as a whole and in chunks, and neither can be had from the other. Two processors do in the time of
//! one. The pieces are shared, not copied; a few of them may wait, so whoever is faster waits for the other and memory stays
//! bounded.

use std::io::{self, Read};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::{self, JoinHandle};

use base::{Hasher, Sha256};
use bytes::Bytes;

/// What is read of a file at a time, in bytes: fits the caches of two processors, and is worth a hop from one to the other.
pub(crate) const PIECE_BYTES: usize = 256 << 10;
/// Pieces that may wait: at most 1 MiB of a file that is read, at most four blocks of one that is fetched.
const WAITING_MAX: usize = 4;

/// A hash of a whole file that is not complete yet.
#[derive(Debug)]
pub(crate) enum Whole {
    /// Made by whoever brings the bytes.
    Here(Hasher),
    /// Made by a thread.
    Beside(Beside),
}

/// A thread that hashes.
#[derive(Debug)]
pub(crate) struct Beside {
    pieces: SyncSender<Bytes>,
    thread: JoinHandle<Hasher>,
}

impl Whole {
    pub(crate) fn new() -> Self {
        Self::Here(Hasher::new())
    }

    /// Lets a thread do what is left to do. Where there can be no further one, it goes on here.
    pub(crate) fn move_beside(&mut self) {
        let Self::Here(hasher) = self else { return };
        let mut hasher = hasher.clone();
        let (pieces, waiting) = sync_channel::<Bytes>(WAITING_MAX);
        let work = move || {
            for piece in waiting {
                hasher.update(&piece);
            }
            hasher
        };
        match thread::Builder::new().name("hash".into()).spawn(work) {
            Ok(thread) => *self = Self::Beside(Beside { pieces, thread }),
            Err(error) => tracing::debug!(%error, "no thread to hash on"),
        }
    }

    /// Takes in bytes that nobody shares.
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Here(hasher) => hasher.update(bytes),
            Self::Beside(beside) => beside.update(Bytes::copy_from_slice(bytes)),
        }
    }

    /// Takes in bytes that are shared with a thread, if there is one.
    pub(crate) fn update_shared(&mut self, bytes: &Bytes) {
        match self {
            Self::Here(hasher) => hasher.update(bytes),
            Self::Beside(beside) => beside.update(bytes.clone()),
        }
    }

    /// The hash of what has come so far; `None` where a thread may not have taken it all in.
    pub(crate) fn so_far(&self) -> Option<Sha256> {
        match self {
            Self::Here(hasher) => Some(hasher.clone().finish()),
            Self::Beside(_) => None,
        }
    }

    /// The hash of what has come so far, for which a thread is waited for; what comes next is hashed here.
    pub(crate) fn wait(&mut self) -> Sha256 {
        let hasher = match std::mem::replace(self, Self::new()) {
            Self::Here(hasher) => hasher,
            Self::Beside(beside) => beside.end(),
        };
        *self = Self::Here(hasher.clone());
        hasher.finish()
    }

    /// The hash of all.
    pub(crate) fn finish(self) -> Sha256 {
        match self {
            Self::Here(hasher) => hasher.finish(),
            Self::Beside(beside) => beside.end().finish(),
        }
    }
}

impl Beside {
    fn update(&self, piece: Bytes) {
        self.pieces.send(piece).expect("a hasher does not panic");
    }

    fn end(self) -> Hasher {
        drop(self.pieces);
        self.thread.join().expect("a hasher does not panic")
    }
}

/// Reads to the end, in pieces that can be shared; `failed` says what an error of reading is.
pub(crate) fn each_piece<E>(
    source: &mut impl Read,
    failed: impl Fn(io::Error) -> E,
    mut each: impl FnMut(Bytes) -> Result<(), E>,
) -> Result<(), E> {
    loop {
        // Not zeroed before it is read into.
        let mut piece = Vec::with_capacity(PIECE_BYTES);
        source
            .by_ref()
            .take(PIECE_BYTES as u64)
            .read_to_end(&mut piece)
            .map_err(&failed)?;
        if piece.is_empty() {
            return Ok(());
        }
        each(piece.into())?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_gets_the_same_hash_wherever_it_takes_over() {
        let pieces: Vec<Bytes> = (0..40_u8)
            .map(|fill| vec![fill; 1000 + usize::from(fill)].into())
            .collect();
        let expected = Sha256::of(&pieces.concat());
        for takes_over in [0, 1, 39, 40] {
            let mut whole = Whole::new();
            for (number, piece) in pieces.iter().enumerate() {
                if number == takes_over {
                    whole.move_beside();
                }
                match number % 2 {
                    0 => whole.update(piece),
                    _ => whole.update_shared(piece),
                }
            }
            assert_eq!(whole.so_far().is_some(), takes_over == 40);
            assert_eq!(whole.wait(), expected);
            assert_eq!(whole.finish(), expected);
        }
    }

    #[test]
    fn pieces_are_the_whole_in_order() {
        let bytes: Vec<u8> = (0..PIECE_BYTES * 2 + 7)
            .map(|at| (at % 251) as u8)
            .collect();
        let mut got = Vec::new();
        let took = each_piece(
            &mut &bytes[..],
            |error| error,
            |piece| {
                assert!(piece.len() <= PIECE_BYTES);
                got.extend_from_slice(&piece);
                Ok(())
            },
        );
        took.unwrap();
        assert!(got == bytes);
    }
}
