//! One connection, as either end uses it: frames out from several threads, files in both directions, and an ear for silence.

use std::io::{self, Read, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use base::Sha256;
use serde::Serialize;
use serde_bytes::ByteBuf;
use store::{Blob, Expected, Store, StoreError};

use super::wire::{GREETING, PIECE_BYTES, Part, write};

/// How often either end says that it is still there.
pub const ALIVE_EVERY: Duration = Duration::from_secs(5);
/// How long the other end may say nothing before it is taken for gone: a few times as long.
pub const SILENCE_MAX: Duration = Duration::from_secs(30);
/// How often is looked at the clock and at what the user wants.
pub const TICK: Duration = Duration::from_millis(100);

/// Where frames go out: one at a time, whichever thread says them.
#[derive(Debug)]
pub struct Outbox<W>(Mutex<Option<W>>);

impl<W: Write> Outbox<W> {
    /// Out by this.
    pub const fn new(output: W) -> Self {
        Self(Mutex::new(Some(output)))
    }

    /// Begins the conversation.
    ///
    /// # Errors
    /// When the other end is gone.
    pub fn greet(&self) -> io::Result<()> {
        let mut output = self.lock();
        let output = output.as_mut().ok_or(io::ErrorKind::BrokenPipe)?;
        output.write_all(GREETING)?;
        output.flush()
    }

    /// Says something.
    ///
    /// # Errors
    /// When the other end is gone.
    pub fn say(&self, message: &impl Serialize) -> io::Result<()> {
        let mut output = self.lock();
        write(output.as_mut().ok_or(io::ErrorKind::BrokenPipe)?, message)
    }

    /// Says something that is only worth saying if nobody else is speaking.
    pub fn mutter(&self, message: &impl Serialize) {
        if let Ok(mut output) = self.0.try_lock()
            && let Some(output) = output.as_mut()
        {
            // That the other end is gone is found out by who reads.
            let _ = write(output, message);
        }
    }

    /// Sends a file of the store, or says that it is not there. `gone` hears of each piece how many bytes it had, of how many in all.
    ///
    /// # Errors
    /// When the other end is gone, or the disk fails.
    pub fn send<M: From<Part> + Serialize>(
        &self,
        store: &Store,
        sha256: &Sha256,
        gone: impl Fn(u64, u64),
    ) -> io::Result<Option<u64>> {
        let blob = store.blob(sha256).map_err(io::Error::other)?;
        let file = store.open_blob(sha256).map_err(io::Error::other)?;
        let (Some(blob), Some(mut file)) = (blob, file) else {
            self.lack::<M>()?;
            return Ok(None);
        };
        self.say(&M::from(Part::Have { size: blob.size }))?;
        let mut left = blob.size;
        while left > 0 {
            let mut piece = vec![0; usize::try_from(left).unwrap_or(usize::MAX).min(PIECE_BYTES)];
            file.read_exact(&mut piece)?;
            let length = piece.len() as u64;
            self.say(&M::from(Part::Piece(ByteBuf::from(piece))))?;
            left -= length;
            gone(length, blob.size);
        }
        Ok(Some(blob.size))
    }

    /// Says that a file is not here.
    ///
    /// # Errors
    /// When the other end is gone.
    pub fn lack<M: From<Part> + Serialize>(&self) -> io::Result<()> {
        self.say(&M::from(Part::Lack))
    }

    /// Ends what can be said: the other end sees that nothing more comes. `false` when somebody is still speaking.
    pub fn close(&self) -> bool {
        let output = self.0.try_lock();
        output.map(|mut output| output.take()).is_ok()
    }

    fn lock(&self) -> MutexGuard<'_, Option<W>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why a file did not come.
#[derive(Debug)]
pub enum NotReceived<E> {
    /// The conversation is over.
    Over(E),
    /// What came was no such file's.
    Odd,
    /// The store does not take it.
    Store(StoreError),
}

/// Takes a file in, whose parts `next` gives; `None` when the other end has not got it. Whatever becomes of it here, it is
/// read to its end, so that the next thing said is understood.
///
/// # Errors
/// [`NotReceived`]; nothing that did not verify was kept.
pub fn receive<E>(
    store: &Store,
    expected: &Expected,
    mut next: impl FnMut() -> Result<Part, E>,
    arrived: impl Fn(u64, u64),
) -> Result<Option<Blob>, NotReceived<E>> {
    let size = match next().map_err(NotReceived::Over)? {
        Part::Have { size } => size,
        Part::Lack => return Ok(None),
        Part::Piece(_) => return Err(NotReceived::Odd),
    };
    if expected.size.is_some_and(|expected| expected != size) {
        return Err(NotReceived::Odd);
    }
    let mut ingest = store.ingest().and_then(|mut ingest| {
        ingest.reserve(size)?;
        Ok(ingest)
    });
    let mut left = size;
    while left > 0 {
        let Part::Piece(piece) = next().map_err(NotReceived::Over)? else {
            return Err(NotReceived::Odd);
        };
        let length = piece.len() as u64;
        if length == 0 || length > left {
            return Err(NotReceived::Odd);
        }
        left -= length;
        if let Ok(file) = &mut ingest
            && let Err(error) = file.append(&piece)
        {
            ingest = Err(error);
        }
        arrived(length, size);
    }
    let blob = ingest.and_then(|ingest| ingest.finish(expected));
    blob.map(Some).map_err(NotReceived::Store)
}

/// Knows for how long the other end has said nothing.
#[derive(Debug)]
pub struct Ear {
    began: Instant,
    /// Milliseconds from the beginning until reading began that has not ended; [`Self::BUSY`] while nobody reads.
    since: AtomicU64,
}

impl Ear {
    const BUSY: u64 = u64::MAX;

    /// For how long has been waited for the next byte. Nobody is blamed for what is not read here.
    pub fn silence(&self) -> Duration {
        match self.since.load(Ordering::Relaxed) {
            Self::BUSY => Duration::ZERO,
            since => self
                .began
                .elapsed()
                .saturating_sub(Duration::from_millis(since)),
        }
    }
}

/// Reads, and lets an [`Ear`] know.
#[derive(Debug)]
pub struct Heard<R> {
    input: R,
    ear: Arc<Ear>,
}

impl<R: Read> Heard<R> {
    /// What is read from this.
    pub fn new(input: R) -> (Self, Arc<Ear>) {
        let ear = Arc::new(Ear {
            began: Instant::now(),
            since: AtomicU64::new(0),
        });
        let heard = Self {
            input,
            ear: Arc::clone(&ear),
        };
        (heard, ear)
    }
}

impl<R: Read> Read for Heard<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let now = u64::try_from(self.ear.began.elapsed().as_millis()).unwrap_or_default();
        self.ear.since.store(now, Ordering::Relaxed);
        let read = self.input.read(buffer);
        self.ear.since.store(Ear::BUSY, Ordering::Relaxed);
        read
    }
}

#[cfg(test)]
mod tests {
    use super::super::wire::{Ask, Tell, read};
    use super::*;

    fn parts(mut bytes: &[u8]) -> Vec<Part> {
        let mut parts = Vec::new();
        while let Some(message) = read::<Tell>(&mut bytes).unwrap() {
            match message {
                Tell::File(part) => parts.push(part),
                other => panic!("{other:?}"),
            }
        }
        parts
    }

    fn take(store: &Store, expected: &Expected, parts: Vec<Part>) -> Result<Option<Blob>, String> {
        let mut parts = parts.into_iter();
        let next = || parts.next().ok_or(());
        let received = receive(store, expected, next, |_, _| {});
        assert!(parts.next().is_none(), "all of it is read");
        received.map_err(|error| format!("{error:?}"))
    }

    #[test]
    fn a_file_goes_from_store_to_store() {
        let dir = tempfile::tempdir().unwrap();
        let from = Store::open(&dir.path().join("from")).unwrap();
        let to = Store::open(&dir.path().join("to")).unwrap();
        let content = vec![7; 3 * PIECE_BYTES + 1];
        let mut ingest = from.ingest().unwrap();
        ingest.append(&content).unwrap();
        let blob = ingest.finish(&Expected::anything()).unwrap();
        let mut wire = Vec::new();
        let out = Outbox::new(&mut wire);
        out.send::<Tell>(&from, &blob.sha256, |_, _| {}).unwrap();
        out.close();
        let parts = parts(&wire);
        assert_eq!(parts.len(), 5);
        let expected = Expected::sha256(blob.sha256);
        assert_eq!(take(&to, &expected, parts.clone()), Ok(Some(blob)));

        let another = Expected::sha256(Sha256::of(b"another"));
        assert!(take(&to, &another, parts).unwrap_err().contains("Mismatch"));
        let mut wire = Vec::new();
        let out = Outbox::new(&mut wire);
        let missing = Sha256::of(b"missing");
        assert_eq!(out.send::<Tell>(&from, &missing, |_, _| {}).unwrap(), None);
        assert!(out.say(&Ask::Alive).is_ok());
        out.close();
        assert!(out.say(&Ask::Alive).is_err());
    }

    #[test]
    fn parts_that_do_not_make_the_file_that_was_promised_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let piece = |length| Part::Piece(ByteBuf::from(vec![0; length]));
        for parts in [
            vec![piece(1)],
            vec![Part::Have { size: 2 }, piece(3)],
            vec![Part::Have { size: 2 }, piece(0)],
            vec![Part::Have { size: 2 }, Part::Lack],
        ] {
            let error = take(&store, &Expected::anything(), parts).unwrap_err();
            assert_eq!(error, "Odd");
        }
        let huge = vec![Part::Have { size: u64::MAX }];
        let error = take(&store, &Expected::anything(), huge).unwrap_err();
        assert_eq!(error, "Over(())");
    }

    #[test]
    fn only_waiting_for_the_other_end_is_silence() {
        let (mut heard, ear) = Heard::new(&b"x"[..]);
        heard.read_exact(&mut [0]).unwrap();
        assert_eq!(ear.silence(), Duration::ZERO);
        ear.since.store(0, Ordering::Relaxed);
        assert!(ear.silence() <= ear.began.elapsed());
    }
}
