//! One URL: a request, and after a dropped connection another one for the rest.
//!
//! What was received is hashed and on disk already, so a resumed transfer asks for `Range: bytes=N-` and goes on where it
//! was. That may be another URL, or another process a day later: the SHA-256 says which file it is, whoever gives it. A
//! server that ignores the range sends everything again, which is written beside what is there until it has proved right: it
//! may be the page of a captive portal. One whose file changed meanwhile is recognised by its validator (`If-Range`), and at
//! the latest by the SHA-256. When bytes that were there before are in a file that is
//! not the right one, they may be what is wrong with it: then it is fetched once more from its beginning.

use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom};
use std::time::Instant;

use base::Sha256;
use bitswap::Budget;
use store::substitute::{FetchError, Origin, Progress};
use store::{Blob, Expected, Partial, Store, StoreError};
use ureq::http::{HeaderMap, Response, StatusCode, header};
use ureq::{Agent, Body, Timeout};

use super::origin;
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

/// A file as far as it has come, from whichever URLs.
pub(super) struct Download {
    file: Partial,
    /// Which bytes came from where, those of earlier attempts included.
    received: Vec<(Origin, u64)>,
    /// Bytes the progress was told of; starting over does not tell them twice.
    reported: u64,
}

impl Download {
    /// Begins, or goes on with what an earlier attempt left.
    pub(super) fn open(store: &Store, sha256: &Sha256) -> Result<Self, Failure> {
        let file = store.download(sha256).map_err(store_failure)?;
        let mut received = Vec::new();
        if file.written() > 0 {
            received.push((Origin::Local, file.written()));
        }
        Ok(Self {
            file,
            received,
            reported: 0,
        })
    }

    /// Whether nothing has come.
    pub(super) const fn is_empty(&self) -> bool {
        self.file.written() == 0
    }

    fn restart(&mut self) -> Result<(), Failure> {
        self.received.clear();
        self.file.restart().map_err(store_failure)
    }
}

/// What one URL adds to a file.
struct Transmission {
    download: Download,
    pace: Pace,
    /// Length of the whole file, where the server told it.
    total: Option<u64>,
    /// `ETag` or `Last-Modified` of what came from here.
    validator: Option<String>,
    /// Where what comes from here begins; bytes before that are somebody else's.
    start: u64,
    /// What was there before a server sent everything again.
    aside: Option<Download>,
}

impl Transmission {
    const fn at(&self) -> u64 {
        self.download.file.written()
    }

    /// What comes now begins at the first byte again.
    fn begin_anew(&mut self, transfer: &Transfer<'_>) -> Result<(), Failure> {
        self.credit(transfer.url);
        let anew = Download {
            file: transfer.store.download_anew().map_err(store_failure)?,
            received: Vec::new(),
            reported: self.download.reported,
        };
        let before = std::mem::replace(&mut self.download, anew);
        // A second time, what this URL sent the first time is of no more use.
        self.aside.get_or_insert(before);
        self.start = 0;
        Ok(())
    }

    /// Notes who sent what has come since the start.
    fn credit(&mut self, url: &str) {
        let came = self.at().saturating_sub(self.start);
        if came > 0 {
            self.download.received.push((origin(url), came));
        }
    }

    /// What to go on with elsewhere.
    fn into_kept(self) -> Download {
        let reported = self.download.reported;
        match self.aside {
            Some(aside) if aside.file.written() >= self.download.file.written() => {
                Download { reported, ..aside }
            }
            _ => self.download,
        }
    }
}

impl Transfer<'_> {
    /// Fetches the file, or what is missing of it, with as many resumptions as it takes and is reasonable. `kept` is what
    /// has come so far, if anything; what came is left there when it is not all.
    pub(super) fn run(
        &self,
        sha256: &Sha256,
        kept: &mut Option<Download>,
    ) -> Result<(Blob, Vec<(Origin, u64)>), Failure> {
        let mut download = match kept.take() {
            Some(download) => download,
            None => Download::open(self.store, sha256)?,
        };
        if download.file.written() > self.file_bytes_max {
            download.restart()?;
        }
        loop {
            let mut partial = self.transmission(download);
            self.report(&mut partial);
            if !partial.download.file.is_whole(sha256) {
                let result = self.receive(&mut partial);
                partial.credit(self.url);
                if let Err(failure) = result {
                    *kept = Some(partial.into_kept());
                    return Err(failure);
                }
            }
            let (start, aside) = (partial.start, partial.aside);
            let Download {
                file,
                received,
                reported,
            } = partial.download;
            match file.finish(&Expected::sha256(*sha256)) {
                Ok(blob) => {
                    if let Some(aside) = aside {
                        aside.file.discard().map_err(store_failure)?;
                    }
                    return Ok((blob, received));
                }
                Err(StoreError::Mismatch { expected, got, .. }) if start == 0 => {
                    *kept = aside.map(|aside| Download { reported, ..aside });
                    return Err(Failure::Invalid { expected, got });
                }
                Err(StoreError::Mismatch { .. }) => {
                    tracing::info!(url = self.url, at = start, "starting over");
                    download = Download::open(self.store, sha256)?;
                    download.reported = reported;
                    // Whatever somebody may have put there meanwhile: this happens once.
                    download.restart()?;
                }
                Err(error) => return Err(store_failure(error)),
            }
        }
    }

    fn transmission(&self, download: Download) -> Transmission {
        Transmission {
            pace: Pace::new(self.deadlines.clone(), Instant::now()),
            total: None,
            validator: None,
            start: download.file.written(),
            download,
            aside: None,
        }
    }

    fn receive(&self, partial: &mut Transmission) -> Result<(), Failure> {
        if let Some(path) = self.url.strip_prefix("file://") {
            return self.receive_file(path, partial);
        }
        let scheme = self.url.split_once("://").map_or("", |(scheme, _)| scheme);
        if !matches!(scheme, "http" | "https") {
            return Err(Failure::Refused(format!("cannot fetch from `{scheme}://`")));
        }
        let mut resumes = 0;
        loop {
            let before = partial.at();
            match self.request(partial) {
                Ok(()) => return Ok(()),
                Err(Stop::Failed(failure)) => return Err(failure),
                Err(Stop::Dropped(cause)) => {
                    resumes += 1;
                    if partial.at() <= before || resumes > RESUMES_MAX {
                        return Err(Failure::Broken(cause));
                    }
                    tracing::debug!(url = self.url, at = partial.at(), "resuming");
                }
            }
        }
    }

    fn request(&self, partial: &mut Transmission) -> Result<(), Stop> {
        let at = partial.at();
        let mut request = self.agent.get(self.url);
        if at > 0 {
            request = request.header(header::RANGE, format!("bytes={at}-"));
            if let Some(validator) = &partial.validator {
                request = request.header(header::IF_RANGE, validator);
            }
        }
        let mut response = request
            .call()
            .map_err(|error| request_failure(error, at == partial.start))?;
        if at > 0 && response.status() == StatusCode::RANGE_NOT_SATISFIABLE {
            // There is no more of this server's file: ours is no beginning of it.
            partial.begin_anew(self)?;
            return self.request(partial);
        }
        self.accept(&response, partial)?;
        let body = response.body_mut().as_reader();
        let mut body = Throttled::new(body, self.download, self.url, self.progress);
        self.copy(&mut body, partial)
    }

    /// Looks at the head of a response and brings `partial` to where its body starts.
    fn accept(&self, response: &Response<Body>, partial: &mut Transmission) -> Result<(), Stop> {
        let at = partial.at();
        let headers = response.headers();
        match response.status() {
            StatusCode::OK => {
                if at > 0 {
                    partial.begin_anew(self)?;
                }
                partial.total = number(headers, header::CONTENT_LENGTH);
                partial.validator = validator(headers);
            }
            StatusCode::PARTIAL_CONTENT if range_start(headers) == Some(at) && at > 0 => {
                partial.total = partial.total.or_else(|| range_total(headers));
                partial.validator = partial.validator.take().or_else(|| validator(headers));
            }
            StatusCode::PARTIAL_CONTENT => {
                let cause = "the server sent another range than the one asked for";
                return Err(Failure::Broken(cause.into()).into());
            }
            status => return Err(status_failure(status).into()),
        }
        match partial.total {
            Some(total) if total > self.file_bytes_max => Err(self.too_large(total).into()),
            Some(total) => Ok(partial
                .download
                .file
                .reserve(total)
                .map_err(store_failure)?),
            None => Ok(()),
        }
    }

    fn copy(&self, body: &mut dyn Read, partial: &mut Transmission) -> Result<(), Stop> {
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
            let file = &mut partial.download.file;
            file.append(&piece[..length]).map_err(store_failure)?;
            self.took(length as u64, partial)?;
        }
    }

    /// Notes progress, and stops what is too large or too slow.
    fn took(&self, length: u64, partial: &mut Transmission) -> Result<(), Failure> {
        let now = Instant::now();
        let written = partial.at();
        partial.pace.progress(length, now);
        if written > self.file_bytes_max {
            return Err(self.too_large(written));
        }
        self.report(partial);
        match partial.pace.check(now) {
            Ok(()) => Ok(()),
            Err(Late::Slow | Late::Total | Late::Stall | Late::FirstByte) => Err(Failure::TimedOut),
        }
    }

    /// Tells of what is there and was not told of.
    fn report(&self, partial: &mut Transmission) {
        let news = partial.at().saturating_sub(partial.download.reported);
        if news > 0 {
            self.progress.bytes(news, partial.total);
            partial.download.reported += news;
        }
    }

    fn receive_file(&self, path: &str, partial: &mut Transmission) -> Result<(), Failure> {
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
        if metadata.len() < partial.at() {
            partial.begin_anew(self)?;
        }
        file.seek(SeekFrom::Start(partial.at()))
            .map_err(|error| Failure::Broken(error.into()))?;
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
    /// The same for another who wanted something of the same server.
    pub(super) fn of_same_kind(&self) -> Self {
        match self {
            Self::Missing => Self::Missing,
            Self::Refused(reason) => Self::Refused(reason.clone()),
            Self::Unreachable(_) => Self::Unreachable(ureq::Error::ConnectionFailed),
            Self::TimedOut => Self::TimedOut,
            Self::Broken(cause) => Self::Broken(cause.to_string().into()),
            Self::Invalid { expected, got } => Self::Invalid {
                expected: expected.clone(),
                got: got.clone(),
            },
            Self::Fatal(error) => Self::Broken(error.to_string().into()),
        }
    }

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

pub(super) fn number(headers: &HeaderMap, name: header::HeaderName) -> Option<u64> {
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

/// The length of the whole file in `Content-Range: bytes FIRST-LAST/TOTAL`.
pub(super) fn range_total(headers: &HeaderMap) -> Option<u64> {
    let text = headers.get(header::CONTENT_RANGE)?.to_str().ok()?;
    text.rsplit_once('/')?.1.trim().parse().ok()
}

/// The first byte of `Content-Range: bytes FIRST-LAST/TOTAL`.
pub(super) fn range_start(headers: &HeaderMap) -> Option<u64> {
    let text = headers.get(header::CONTENT_RANGE)?.to_str().ok()?;
    text.strip_prefix("bytes ")?
        .split_once('-')?
        .0
        .trim()
        .parse()
        .ok()
}
