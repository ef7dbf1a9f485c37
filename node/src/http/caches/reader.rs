//! One cache that sends an output, from some chunk on: a request, and every chunk checked as it comes.

use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use base::Block;
use bytes::Bytes;
use store::car::Outline;
use store::dag::Chunk;
use store::substitute::{FetchError, Progress};
use ureq::http::{StatusCode, header};

use super::super::HttpSources;
use super::super::throttle::Throttled;
use super::super::transfer::{
    Failure, number, range_start, range_total, read_failure, request_failure, status_failure,
};
use crate::pace::Pace;

/// Bytes read at a time; also how often it is seen that somebody else was faster.
const PIECE_BYTES: usize = 64 << 10;

/// What is known from outside of a cache that sends.
#[derive(Debug, Default)]
pub(super) struct Run {
    /// Bytes that have come, right or not.
    pub(super) bytes: AtomicU64,
    /// Nobody wants any more.
    pub(super) is_over: AtomicBool,
}

/// The end of a run as something that stops whoever waits.
struct RunProgress<'a>(&'a Run);

impl Progress for RunProgress<'_> {
    fn bytes(&self, _: u64, _: Option<u64>) {}

    fn cancelled(&self) -> bool {
        self.0.is_over.load(Ordering::Relaxed)
    }
}

/// Reads from one cache.
pub(super) struct Reader {
    pub(super) http: HttpSources,
    pub(super) url: String,
    pub(super) outline: Arc<Outline>,
    /// Length of the whole output.
    pub(super) size: u64,
    pub(super) run: Arc<Run>,
}

impl Reader {
    /// Reads from the chunk of this number to the end, or until `take` says that nobody wants more.
    pub(super) fn read(
        &self,
        first: usize,
        mut take: impl FnMut(usize, Block) -> bool,
    ) -> Result<(), Failure> {
        let chunks = self.outline.chunks.iter().enumerate().skip(first);
        let from = self.outline.chunks.get(first).map_or(0, |c| c.offset);
        let progress = RunProgress(&self.run);
        let mut body = self.open(from, &progress)?;
        let mut pace = Pace::new(self.http.deadlines.clone(), Instant::now());
        for (index, chunk) in chunks {
            let block = self.chunk(&mut body, chunk, &mut pace)?;
            if !take(index, block) {
                break;
            }
        }
        Ok(())
    }

    /// The output's bytes from an offset on.
    fn open<'a>(
        &'a self,
        from: u64,
        progress: &'a dyn Progress,
    ) -> Result<Box<dyn Read + 'a>, Failure> {
        if let Some(path) = self.url.strip_prefix("file://") {
            let mut file = File::open(path).map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => Failure::Missing,
                _ => Failure::Refused(error.to_string()),
            })?;
            self.check_length(file.metadata().ok().map(|found| found.len()))?;
            let moved = file.seek(SeekFrom::Start(from));
            moved.map_err(|error| Failure::Broken(error.into()))?;
            return Ok(Box::new(file));
        }
        let mut request = self.http.agent.get(&self.url);
        if from > 0 {
            request = request.header(header::RANGE, format!("bytes={from}-"));
        }
        let response = request.call();
        let response = response.map_err(|error| request_failure(error, true).into_failure())?;
        let headers = response.headers();
        let skip = match response.status() {
            StatusCode::OK => {
                self.check_length(number(headers, header::CONTENT_LENGTH))?;
                from
            }
            StatusCode::PARTIAL_CONTENT if from > 0 && range_start(headers) == Some(from) => {
                self.check_length(range_total(headers))?;
                0
            }
            StatusCode::PARTIAL_CONTENT => {
                let cause = "the server sent another range than the one asked for";
                return Err(Failure::Broken(cause.into()));
            }
            StatusCode::RANGE_NOT_SATISFIABLE => return Err(self.other_length("fewer bytes")),
            status => return Err(status_failure(status)),
        };
        let body = response.into_body().into_reader();
        let mut body = Throttled::new(body, &self.http.download, &self.url, progress);
        self.skip(&mut body, skip)?;
        Ok(Box::new(body))
    }

    /// What a server sends that knows no ranges: everything, of which the beginning is here.
    fn skip(&self, body: &mut dyn Read, mut bytes: u64) -> Result<(), Failure> {
        let mut pace = Pace::new(self.http.deadlines.clone(), Instant::now());
        let mut piece = vec![0; PIECE_BYTES];
        while bytes > 0 {
            let most = piece
                .len()
                .min(usize::try_from(bytes).unwrap_or(usize::MAX));
            bytes -= self.piece(body, &mut piece[..most], &mut pace)? as u64;
        }
        Ok(())
    }

    fn chunk(&self, body: &mut dyn Read, chunk: &Chunk, pace: &mut Pace) -> Result<Block, Failure> {
        // Not longer than a block, which was checked.
        let mut bytes = vec![0; chunk.length as usize];
        let mut at = 0;
        while at < bytes.len() {
            let end = bytes.len().min(at + PIECE_BYTES);
            at += self.piece(body, &mut bytes[at..end], pace)?;
        }
        Block::verify(chunk.hash, Bytes::from(bytes)).map_err(|mismatch| Failure::Invalid {
            expected: mismatch.expected.to_string(),
            got: mismatch.got.to_string(),
        })
    }

    /// Reads something, within the deadlines and while it is wanted.
    fn piece(
        &self,
        body: &mut dyn Read,
        piece: &mut [u8],
        pace: &mut Pace,
    ) -> Result<usize, Failure> {
        loop {
            if self.run.is_over.load(Ordering::Relaxed) {
                return Err(Failure::Fatal(FetchError::Cancelled));
            }
            let length = match body.read(piece) {
                Ok(0) => {
                    let early = io::Error::from(io::ErrorKind::UnexpectedEof);
                    return Err(Failure::Broken(early.into()));
                }
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(read_failure(error).into_failure()),
            };
            let now = Instant::now();
            self.run.bytes.fetch_add(length as u64, Ordering::Relaxed);
            pace.progress(length as u64, now);
            return match pace.check(now) {
                Ok(()) => Ok(length),
                Err(_) => Err(Failure::TimedOut),
            };
        }
    }

    /// A file of another length is another file, and none of its bytes need be read to know that.
    fn check_length(&self, length: Option<u64>) -> Result<(), Failure> {
        match length {
            Some(length) if length != self.size => {
                Err(self.other_length(&format!("{length} bytes")))
            }
            _ => Ok(()),
        }
    }

    fn other_length(&self, got: &str) -> Failure {
        Failure::Invalid {
            expected: format!("{} bytes", self.size),
            got: got.to_owned(),
        }
    }
}
