//! One URL: a request, and after a dropped connection another one for the rest.
//!
//! What was received is hashed and on disk already, so a resumed transfer asks for `Range: bytes=N-` and goes on where it
//! was. A server that ignores the range sends everything again and is started over; one whose file changed meanwhile is
//! recognised by its validator (`If-Range`), and at the latest by the SHA-256.

use std::fs::File;
use std::io::{self, Read};
use std::time::Instant;

use base::Sha256;
use bitswap::Budget;
use store::substitute::{FetchError, Progress};
use store::{Blob, Expected, Ingest, Store, StoreError};
use ureq::http::{HeaderMap, Response, StatusCode, header};
use ureq::{Agent, Body, Timeout};

use super::throttle::Throttled;
use crate::config::Deadlines;
use crate::pace::{Late, Pace};

/// Times one transfer is taken up again, each time only after some progress.
const RESUMES_MAX: u32 = 8;
/// Bytes read at a time; also how often cancelling and the pace are looked at.
const PIECE_BYTES: usize = 128 << 10;

/// What is needed to fetch one URL.
pub(super) struct Transfer<'a> {
    pub(super) agent: &'a Agent,
    pub(super) deadlines: &'a Deadlines,
    pub(super) download: &'a Budget,
    pub(super) file_bytes_max: u64,
    pub(super) url: &'a str,
    pub(super) store: &'a Store,
    pub(super) progress: &'a dyn Progress,
}

/// Why one URL gave nothing.
#[derive(Debug)]
pub(super) enum Failure {
    /// The server says there is no such file.
    Missing,
    /// The server, or our own policy, says no.
    Refused(String),
    /// There is no such server, or it does not accept connections.
    Unreachable(ureq::Error),
    /// A deadline passed.
    TimedOut,
    /// The transfer broke, and could not be taken up again.
    Broken(Box<dyn std::error::Error + Send + Sync>),
    /// Other bytes than expected.
    Invalid { expected: String, got: String },
    /// Something that no other URL can help with.
    Fatal(FetchError),
}

/// Why one request ended before the file did.
pub(super) enum Stop {
    /// The connection broke: worth resuming.
    Dropped(Box<dyn std::error::Error + Send + Sync>),
    /// Not worth it.
    Failed(Failure),
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl Stop {
    /// The same where nothing is resumed.
    pub(super) fn into_failure(self) -> Failure {
        match self {
            Self::Dropped(cause) => Failure::Broken(cause),
            Self::Failed(failure) => failure,
        }
    }
}

/// A file as far as it has come.
struct Partial {
    ingest: Ingest,
    pace: Pace,
    /// Length of the whole file, where the server told it.
    total: Option<u64>,
    /// `ETag` or `Last-Modified` of what we have.
    validator: Option<String>,
    /// Bytes the progress was told of; starting over does not tell them twice.
    reported: u64,
}

impl Transfer<'_> {
    /// Fetches the file, with as many resumptions as it takes and is reasonable.
    pub(super) fn run(&self, sha256: &Sha256) -> Result<Blob, Failure> {
        let mut partial = Partial {
            ingest: self.store.ingest().map_err(store_failure)?,
            pace: Pace::new(self.deadlines.clone(), Instant::now()),
            total: None,
            validator: None,
            reported: 0,
        };
        self.receive(&mut partial)?;
        match partial.ingest.finish(&Expected::sha256(*sha256)) {
            Ok(blob) => Ok(blob),
            Err(StoreError::Mismatch { expected, got, .. }) => {
                Err(Failure::Invalid { expected, got })
            }
            Err(error) => Err(store_failure(error)),
        }
    }

    fn receive(&self, partial: &mut Partial) -> Result<(), Failure> {
        if let Some(path) = self.url.strip_prefix("file://") {
            return self.receive_file(path, partial);
        }
        let scheme = self.url.split_once("://").map_or("", |(scheme, _)| scheme);
        if !matches!(scheme, "http" | "https") {
            return Err(Failure::Refused(format!("cannot fetch from `{scheme}://`")));
        }
        let mut resumes = 0;
        loop {
            let before = partial.ingest.written();
            match self.request(partial) {
                Ok(()) => return Ok(()),
                Err(Stop::Failed(failure)) => return Err(failure),
                Err(Stop::Dropped(cause)) => {
                    resumes += 1;
                    if partial.ingest.written() <= before || resumes > RESUMES_MAX {
                        return Err(Failure::Broken(cause));
                    }
                    tracing::debug!(url = self.url, at = partial.ingest.written(), "resuming");
                }
            }
        }
    }

    fn request(&self, partial: &mut Partial) -> Result<(), Stop> {
        let at = partial.ingest.written();
        let mut request = self.agent.get(self.url);
        if at > 0 {
            request = request.header(header::RANGE, format!("bytes={at}-"));
            if let Some(validator) = &partial.validator {
                request = request.header(header::IF_RANGE, validator);
            }
        }
        let mut response = request
            .call()
            .map_err(|error| request_failure(error, at == 0))?;
        self.accept(&response, partial)?;
        let body = response.body_mut().as_reader();
        let mut body = Throttled::new(body, self.download, self.url, self.progress);
        self.copy(&mut body, partial)
    }

    /// Looks at the head of a response and brings `partial` to where its body starts.
    fn accept(&self, response: &Response<Body>, partial: &mut Partial) -> Result<(), Stop> {
        let at = partial.ingest.written();
        let headers = response.headers();
        match response.status() {
            StatusCode::OK => {
                if at > 0 {
                    partial.ingest = self.store.ingest().map_err(store_failure)?;
                }
                partial.total = number(headers, header::CONTENT_LENGTH);
                partial.validator = validator(headers);
            }
            StatusCode::PARTIAL_CONTENT if range_start(headers) == Some(at) && at > 0 => {}
            StatusCode::PARTIAL_CONTENT => {
                let cause = "the server sent another range than the one asked for";
                return Err(Failure::Broken(cause.into()).into());
            }
            status => return Err(status_failure(status).into()),
        }
        match partial.total {
            Some(total) if total > self.file_bytes_max => Err(self.too_large(total).into()),
            Some(total) => Ok(partial.ingest.reserve(total).map_err(store_failure)?),
            None => Ok(()),
        }
    }

    fn copy(&self, body: &mut dyn Read, partial: &mut Partial) -> Result<(), Stop> {
        let mut piece = vec![0; PIECE_BYTES];
        loop {
            if self.progress.cancelled() {
                return Err(Failure::Fatal(FetchError::Cancelled).into());
            }
            let length = match body.read(&mut piece) {
                Ok(0) => return Ok(()),
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(read_failure(error)),
            };
            partial
                .ingest
                .append(&piece[..length])
                .map_err(store_failure)?;
            self.took(length as u64, partial)?;
        }
    }

    /// Notes progress, and stops what is too large or too slow.
    fn took(&self, length: u64, partial: &mut Partial) -> Result<(), Failure> {
        let now = Instant::now();
        let written = partial.ingest.written();
        partial.pace.progress(length, now);
        if written > self.file_bytes_max {
            return Err(self.too_large(written));
        }
        if written > partial.reported {
            self.progress
                .bytes(written - partial.reported, partial.total);
            partial.reported = written;
        }
        match partial.pace.check(now) {
            Ok(()) => Ok(()),
            Err(Late::Slow | Late::Total | Late::Stall | Late::FirstByte) => Err(Failure::TimedOut),
        }
    }

    fn receive_file(&self, path: &str, partial: &mut Partial) -> Result<(), Failure> {
        let mut file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(Failure::Missing),
            Err(error) => return Err(Failure::Broken(error.into())),
        };
        let metadata = file
            .metadata()
            .map_err(|error| Failure::Broken(error.into()))?;
        if !metadata.is_file() {
            return Err(Failure::Refused("not a regular file".to_owned()));
        }
        partial.total = Some(metadata.len());
        match self.copy(&mut file, partial) {
            Ok(()) => Ok(()),
            Err(Stop::Failed(failure)) => Err(failure),
            Err(Stop::Dropped(cause)) => Err(Failure::Broken(cause)),
        }
    }

    fn too_large(&self, size: u64) -> Failure {
        Failure::Refused(format!(
            "{size} bytes are over the limit of {}",
            self.file_bytes_max
        ))
    }
}

impl Failure {
    /// Whether it may have been bad luck. A server that keeps silent is not worth its deadline twice.
    pub(super) const fn may_pass(&self) -> bool {
        matches!(self, Self::Unreachable(_) | Self::Broken(_))
    }
}

fn store_failure(error: StoreError) -> Failure {
    Failure::Fatal(FetchError::Store(error))
}

pub(super) fn status_failure(status: StatusCode) -> Failure {
    match status.as_u16() {
        404 | 410 => Failure::Missing,
        401 | 403 | 407 | 451 => Failure::Refused(status.to_string()),
        408 | 504 => Failure::TimedOut,
        _ => Failure::Broken(format!("the server answered {status}").into()),
    }
}

/// `first`: nothing has come from this URL yet, so a broken connection is no reason to ask for the rest.
pub(super) fn request_failure(error: ureq::Error, first: bool) -> Stop {
    match error {
        ureq::Error::Timeout(Timeout::Resolve | Timeout::Connect)
        | ureq::Error::HostNotFound
        | ureq::Error::ConnectionFailed => Failure::Unreachable(error).into(),
        ureq::Error::Timeout(_) => Failure::TimedOut.into(),
        ureq::Error::Io(cause) => match cause.kind() {
            io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => Failure::TimedOut.into(),
            io::ErrorKind::ConnectionRefused
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable => {
                Failure::Unreachable(ureq::Error::Io(cause)).into()
            }
            // A name that cannot be resolved has no kind of its own.
            _ if first => Failure::Unreachable(ureq::Error::Io(cause)).into(),
            _ => Stop::Dropped(cause.into()),
        },
        other => Failure::Broken(other.into()).into(),
    }
}

pub(super) fn read_failure(error: io::Error) -> Stop {
    match ureq::Error::from(error) {
        ureq::Error::Io(cause) if cause.kind() != io::ErrorKind::TimedOut => {
            Stop::Dropped(cause.into())
        }
        other => request_failure(other, false),
    }
}

fn number(headers: &HeaderMap, name: header::HeaderName) -> Option<u64> {
    headers.get(name)?.to_str().ok()?.parse().ok()
}

/// Something by which the server recognises this version of the file. A weak tag does not promise equal bytes.
fn validator(headers: &HeaderMap) -> Option<String> {
    let text = |name| headers.get(name)?.to_str().ok();
    let strong = text(header::ETAG).filter(|tag| !tag.starts_with("W/"));
    strong
        .or_else(|| text(header::LAST_MODIFIED))
        .map(str::to_owned)
}

/// The first byte of `Content-Range: bytes FIRST-LAST/TOTAL`.
fn range_start(headers: &HeaderMap) -> Option<u64> {
    let text = headers.get(header::CONTENT_RANGE)?.to_str().ok()?;
    text.strip_prefix("bytes ")?
        .split_once('-')?
        .0
        .trim()
        .parse()
        .ok()
}
