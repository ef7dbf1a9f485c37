//! One output out of several caches, chunk by chunk: who sends is [`Contest`]'s business, here it is carried out.
//!
//! Each door that was started reads on a thread of its own and checks what it reads; right chunks come over one channel and are
//! written in order, into the same partial that peers and gateways write. So nobody's bytes are lost when somebody else goes
//! on, and a wrong chunk is seen by the one who read it and by nobody else.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::time::{Duration, Instant};

use base::{BLOCK_BYTES_MAX, Block, Realisation};
use store::car::Outline;
use store::substitute::{FetchError, Fetched, Origin, Progress};
use store::{Expected, Partial, Store, StoreError};

use super::super::attempts::Attempts;
use super::super::transfer::Failure;
use super::super::{HttpSources, origin};
use super::contest::{Contest, SILENCE_MAX, SILENCE_MIN};
use super::output_url;
use super::reader::{Reader, Run};

/// How often who waits looks up.
const SLICE: Duration = Duration::from_millis(5);
/// Chunks on their way from a thread, beside the one that each thread reads: little memory, and nobody waits for the disk.
const CHUNKS_AHEAD: usize = 2;

/// What a thread tells.
pub(super) enum Event {
    /// A chunk of this number, verified.
    Chunk(usize, Block),
    /// It has ended before the file did.
    Ended(Failure),
}

/// An output on its way.
pub(super) struct Delivery<'a> {
    http: &'a HttpSources,
    doors: Vec<Door<'a>>,
    contest: Contest,
    realisation: &'a Realisation,
    outline: Arc<Outline>,
    partial: Partial,
    /// The chunk that is next.
    next: usize,
    /// Bytes that were here already.
    here: u64,
    attempts: Attempts,
    sender: SyncSender<(usize, u32, Event)>,
    events: Receiver<(usize, u32, Event)>,
}

struct Door<'a> {
    base: &'a str,
    url: String,
    run: Arc<Run>,
    runs: u32,
    /// Right bytes that were used.
    used: u64,
    failure: Option<Failure>,
    /// It answered, and did not give what it should have.
    withholds: bool,
}

impl<'a> Delivery<'a> {
    /// Begins, or goes on with what an earlier attempt, be it of peers, has left.
    pub(super) fn open(
        http: &'a HttpSources,
        bases: &'a [String],
        realisation: &'a Realisation,
        outline: Outline,
        store: &Store,
    ) -> Result<Self, FetchError> {
        let now = Instant::now();
        let longest = outline.chunks.iter().map(|chunk| chunk.length).max();
        if realisation.size > http.file_bytes_max || longest > Some(BLOCK_BYTES_MAX as u64) {
            let reason = format!(
                "{} bytes are over the limit of {}",
                realisation.size, http.file_bytes_max
            );
            let from = origin(&bases[0]);
            return Err(FetchError::Refused { from, reason });
        }
        let mut partial = store.partial(&realisation.output)?;
        partial.reserve(realisation.size)?;
        for node in &outline.nodes {
            partial.keep_node(node)?;
        }
        let starts: Vec<_> = bases.iter().map(|base| http.start_of(base, now)).collect();
        let door = |base: &'a String| Door {
            base,
            url: output_url(base, &realisation.pkghash),
            run: Arc::default(),
            runs: 0,
            used: 0,
            failure: None,
            withholds: false,
        };
        let (sender, events) = mpsc::sync_channel(CHUNKS_AHEAD);
        Ok(Self {
            http,
            doors: bases.iter().map(door).collect(),
            contest: Contest::new(&starts, now),
            realisation,
            outline: Arc::new(outline),
            partial,
            next: 0,
            here: 0,
            attempts: Attempts::default(),
            sender,
            events,
        })
    }

    /// Takes what comes until the file is whole, or nobody is left. `withheld` hears who had no such file, or another one.
    pub(super) fn run(
        mut self,
        withheld: &dyn Fn(&str),
        progress: &dyn Progress,
    ) -> Result<Fetched, FetchError> {
        self.take_what_is_here(progress)?;
        let result = self.receive(progress);
        for door in self.doors.iter().filter(|door| door.withholds) {
            withheld(door.base);
        }
        for door in &self.doors {
            door.run.is_over.store(true, Ordering::Relaxed);
        }
        result?;
        self.finish()
    }

    fn receive(&mut self, progress: &dyn Progress) -> Result<(), FetchError> {
        while self.next < self.outline.chunks.len() {
            if progress.cancelled() {
                return Err(FetchError::Cancelled);
            }
            let now = Instant::now();
            while let Some(door) = self.contest.poll_start(now) {
                self.start(door);
            }
            if self.contest.is_over() {
                return Err(self.failed());
            }
            match self.events.recv_timeout(SLICE) {
                Ok((door, run, event)) if self.doors[door].runs == run => {
                    self.handle(door, event, progress)?;
                }
                Ok(_) | Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
            }
            let now = Instant::now();
            for (number, door) in self.doors.iter().enumerate() {
                let bytes = door.run.bytes.load(Ordering::Relaxed);
                self.contest.handle_bytes(number, bytes, now);
            }
        }
        Ok(())
    }

    /// Takes those of the next chunks that are here.
    fn take_what_is_here(&mut self, progress: &dyn Progress) -> Result<(), FetchError> {
        while let Some(chunk) = self.outline.chunks.get(self.next) {
            let Some(block) = self.partial.find(&chunk.hash)? else {
                break;
            };
            self.here += block.len() as u64;
            self.write(&block, progress)?;
        }
        Ok(())
    }

    fn write(&mut self, block: &Block, progress: &dyn Progress) -> Result<(), FetchError> {
        let chunk = self.outline.chunks[self.next];
        self.partial.keep_leaf(block, chunk.offset)?;
        self.partial.note()?;
        self.partial.write_leaf(block)?;
        self.next += 1;
        progress.bytes(block.len() as u64, Some(self.realisation.size));
        Ok(())
    }

    fn start(&mut self, number: usize) {
        let door = &mut self.doors[number];
        door.runs += 1;
        door.run = Arc::default();
        tracing::debug!(url = door.url, chunk = self.next, "a cache is asked");
        let reader = Reader {
            http: self.http.clone(),
            url: door.url.clone(),
            outline: Arc::clone(&self.outline),
            size: self.realisation.size,
            run: Arc::clone(&door.run),
        };
        let (sender, run, next) = (self.sender.clone(), door.runs, self.next);
        std::thread::spawn(move || {
            // Nobody listens any more when it is over.
            let chunk = |index, block| sender.send((number, run, Event::Chunk(index, block)));
            let ended = reader.read(next, |index, block| chunk(index, block).is_ok());
            if let Err(failure) = ended {
                let _ = sender.send((number, run, Event::Ended(failure)));
            }
        });
    }

    fn handle(
        &mut self,
        number: usize,
        event: Event,
        progress: &dyn Progress,
    ) -> Result<(), FetchError> {
        let now = Instant::now();
        match event {
            // Somebody else was faster.
            Event::Chunk(index, _) if index != self.next => Ok(()),
            Event::Chunk(_, block) => {
                self.doors[number].used += block.len() as u64;
                self.http.hosts.note_right(self.doors[number].base);
                for (stopped, was_silent) in self.contest.handle_chunk(number, now) {
                    let door = &mut self.doors[stopped];
                    door.run.is_over.store(true, Ordering::Relaxed);
                    door.runs += 1;
                    if was_silent {
                        tracing::info!(url = door.url, "a cache promised an output and is silent");
                        self.http.hosts.note_failed(door.base, now);
                    }
                }
                self.write(&block, progress)?;
                self.take_what_is_here(progress)
            }
            Event::Ended(Failure::Fatal(error)) => Err(error),
            Event::Ended(failure) => {
                let door = &mut self.doors[number];
                tracing::info!(url = door.url, ?failure, "a cache did not give an output");
                match failure {
                    Failure::Unreachable(_) => {
                        self.http.hosts.note_silent(door.base, now);
                    }
                    Failure::Missing => {}
                    _ => self.http.hosts.note_failed(door.base, now),
                }
                door.withholds = matches!(
                    failure,
                    Failure::Missing | Failure::Refused(_) | Failure::Invalid { .. }
                );
                self.contest.handle_end(number, failure.may_pass(), now);
                door.failure = Some(failure);
                Ok(())
            }
        }
    }

    /// Nobody is left: what became of each.
    fn failed(&mut self) -> FetchError {
        let mut attempts = std::mem::take(&mut self.attempts);
        for door in &mut self.doors {
            if let Some(failure) = door.failure.take() {
                attempts.push(door.url.clone(), failure);
            }
        }
        attempts.into_error()
    }

    fn finish(mut self) -> Result<Fetched, FetchError> {
        let mut received: Vec<_> = Vec::new();
        for door in &mut self.doors {
            if door.used > 0 {
                received.push((origin(&door.url), door.used));
            } else if let Some(failure) = door.failure.take() {
                self.attempts.push(door.url.clone(), failure);
            }
        }
        let mut asked = self.attempts.asked(false);
        asked.caches += received.len() as u32;
        if self.here > 0 {
            received.push((Origin::Local, self.here));
        }
        let expected = Expected::realisation(self.realisation);
        let blob = self
            .partial
            .finish(&expected)
            .map_err(|error| match error {
                // The statement names a root and a SHA-256 that do not belong together: no cache can help.
                StoreError::Mismatch { expected, got, .. } => FetchError::Invalid {
                    expected,
                    got,
                    from: origin(self.doors[0].base),
                },
                error => error.into(),
            })?;
        Ok(Fetched {
            blob,
            received,
            asked,
        })
    }
}

impl HttpSources {
    /// How long a cache may be silent, and whether it was right before.
    fn start_of(&self, base: &str, now: Instant) -> (Duration, bool) {
        let standing = self.hosts.standing(base);
        // An answer of this kind took so long: what takes four times that is late.
        let silence = standing.latency.map_or(SILENCE_MAX, |latency| latency * 4);
        let is_proven = standing.is_proven && !standing.is_last(now);
        (silence.clamp(SILENCE_MIN, SILENCE_MAX), is_proven)
    }
}
