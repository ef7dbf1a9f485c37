//! Package caches: directories on a web server or in the file system, with two files for each package.
//!
//! `PKGHASH.realisations` holds the statements about it, `PKGHASH.tar.zst` an output. Nothing a cache says is believed:
//! statements are signed, and an output must have the SHA-256 and the size of the one that the user's policy chose. A cache
//! that cannot be reached or does not answer in time is not asked again by the same command, so that it costs its deadline
//! once.

use std::fmt;
use std::io::Read as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use base::{PkgHash, Realisation, SignedRealisation};
use store::Store;
use store::substitute::{
    Asked, FetchError, Fetched, Progress, Query, QueryError, SourceFetcher as _, SourceRequest,
    Substituter,
};
use ureq::http::StatusCode;

use super::HttpSources;
use crate::realisation_protocol::{STATEMENTS_BYTES_MAX, decode_statements};

/// How often a waiting query looks up.
const SLICE: Duration = Duration::from_millis(10);

/// One package cache.
#[derive(Clone)]
pub struct HttpCache {
    http: HttpSources,
    /// URL of the directory, without a slash at the end.
    base: String,
    /// Set once it could not be reached or was too slow.
    gone: Arc<AtomicBool>,
}

/// What a cache answered.
enum Answer {
    Statements(Vec<SignedRealisation>),
    Nothing,
    Invalid,
    Refused,
    Unreachable,
    TimedOut,
}

impl HttpCache {
    /// The cache at `url`: `http://`, `https://` or `file://`.
    pub fn new(http: HttpSources, url: &str) -> Self {
        Self {
            http,
            base: url.trim_end_matches('/').to_owned(),
            gone: Arc::default(),
        }
    }

    fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Relaxed)
    }

    fn ask(&self, pkghash: &PkgHash) -> Answer {
        let url = format!("{}/{pkghash}.realisations", self.base);
        let body = match url.strip_prefix("file://") {
            Some(path) => read(path),
            None => self.get(&url),
        };
        let body = match body {
            Ok(body) => body,
            Err(answer) => {
                let is_dead = matches!(answer, Answer::Unreachable | Answer::TimedOut);
                if is_dead && !self.gone.swap(true, Ordering::Relaxed) {
                    tracing::warn!(url = self.base, "a cache does not answer: doing without it");
                }
                return answer;
            }
        };
        match decode_statements(&body, pkghash) {
            Ok(statements) => Answer::Statements(statements),
            Err(error) => {
                tracing::warn!(url, %error, "a cache's statements cannot be read");
                Answer::Invalid
            }
        }
    }

    fn get(&self, url: &str) -> Result<Vec<u8>, Answer> {
        let request = self.http.agent.get(url);
        let request = request.config();
        let request = request
            .timeout_global(Some(self.http.deadlines.request))
            .build();
        let mut response = request.call().map_err(|error| match error {
            ureq::Error::Timeout(_) => Answer::TimedOut,
            _ => Answer::Unreachable,
        })?;
        match response.status() {
            StatusCode::OK => bounded(response.body_mut().as_reader()),
            StatusCode::NOT_FOUND | StatusCode::GONE => Err(Answer::Nothing),
            _ => Err(Answer::Refused),
        }
    }
}

fn read(path: &str) -> Result<Vec<u8>, Answer> {
    match std::fs::File::open(path) {
        Ok(file) => bounded(file),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(Answer::Nothing),
        Err(_) => Err(Answer::Refused),
    }
}

fn bounded(body: impl std::io::Read) -> Result<Vec<u8>, Answer> {
    let mut bytes = Vec::new();
    let mut body = body.take(STATEMENTS_BYTES_MAX as u64 + 1);
    body.read_to_end(&mut bytes).map_err(|_| Answer::TimedOut)?;
    if bytes.len() > STATEMENTS_BYTES_MAX {
        return Err(Answer::Invalid);
    }
    Ok(bytes)
}

impl Substituter for HttpCache {
    fn query(&self, pkghash: &PkgHash, progress: &dyn Progress) -> Result<Query, QueryError> {
        if self.is_gone() {
            return Ok(Query::default());
        }
        let (sender, answer) = mpsc::channel();
        // On a thread that is not waited for: a server that says nothing would hold up whoever has heard enough.
        let (this, pkghash) = (self.clone(), *pkghash);
        std::thread::spawn(move || sender.send(this.ask(&pkghash)));
        loop {
            match answer.recv_timeout(SLICE) {
                Ok(answer) => return Ok(query_of(answer)),
                Err(RecvTimeoutError::Timeout) if progress.cancelled() => {
                    return Err(QueryError::Cancelled);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Ok(query_of(Answer::Unreachable)),
            }
        }
    }

    fn fetch(
        &self,
        realisation: &Realisation,
        store: &Store,
        progress: &dyn Progress,
    ) -> Result<Fetched, FetchError> {
        if self.is_gone() {
            return Err(FetchError::Missing {
                asked: Asked::default(),
            });
        }
        let name = format!("{}.tar.zst", realisation.pkghash);
        let urls = [format!("{}/{name}", self.base)];
        let request = SourceRequest {
            sha256: realisation.sha256,
            file_name: &name,
            urls: &urls,
        };
        self.http
            .clone()
            .at_most(realisation.size)
            .fetch(&request, store, progress)
    }
}

fn query_of(answer: Answer) -> Query {
    let mut query = Query::default();
    query.asked.caches = 1;
    match answer {
        Answer::Statements(statements) => query.realisations = statements,
        Answer::Nothing => {}
        Answer::Invalid => query.asked.invalid = 1,
        Answer::Refused => query.asked.refused = 1,
        Answer::Unreachable => query.asked.unreachable = 1,
        Answer::TimedOut => query.asked.timed_out = 1,
    }
    query
}

impl fmt::Debug for HttpCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("HttpCache").field(&self.base).finish()
    }
}
