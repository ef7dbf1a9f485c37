//! Sources from web servers and local files, checked by their SHA-256.
//!
//! A recipe names several URLs for one source; they are tried in order until one gives the right bytes. The URLs are only
//! hints, so a wrong answer is the next URL's chance and not the end. What may have been bad luck (a lost packet of a name
//! server, a server that is busy) has a second chance after all others had their first. Blocking on purpose: the builder's threads call this,
//! and a second asynchronous HTTP stack would be the largest dependency of the whole program for no gain.

mod attempts;
mod caches;
mod detached;
mod gateway_file;
mod gateways;
mod hosts;
mod page;
mod statements;
mod throttle;
mod transfer;

use std::fmt;
use std::io::Read;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base::Sha256;
use bitswap::Budget;
use store::Store;
use store::substitute::{
    Asked, FetchError, Fetched, Origin, Progress, SourceFetcher, SourceRequest,
};
use ureq::Agent;
use ureq::http::{StatusCode, header};
use ureq::tls::{RootCerts, TlsConfig};

pub use self::gateways::{GATEWAY_HEATS, GatewaySources, Gateways, SourceForm};

use self::attempts::Attempts;
pub use self::caches::{CacheObserver, HttpCaches};
use self::detached::detached;
use self::hosts::Hosts;
pub use self::page::Page;
use self::transfer::{Download, Failure, Transfer, request_failure, status_failure};
use crate::config::Deadlines;

/// Redirects followed for one URL. Mirrors of large projects use two or three.
const REDIRECTS_MAX: u32 = 8;
/// URLs tried for one source, mirrors expanded; a list this long is a mistake or an attack.
const URLS_MAX: usize = 64;
/// Pause before those that failed by bad luck are tried once more.
const SECOND_CHANCE_AFTER: Duration = Duration::from_secs(1);
/// How often cancelling is looked at during the pause.
const PAUSE_STEP: Duration = Duration::from_millis(50);

/// Expands `mirror://NAME/path`: called with `NAME` and `path`, gives URLs in the order in which they are to be tried.
pub type MirrorResolver = Arc<dyn Fn(&str, &str) -> Vec<String> + Send + Sync>;

/// Gets sources by their URLs. Also the one door to web servers: caches and gateways hold a copy, which shares the
/// connections and what is known of servers that do not answer.
#[derive(Clone)]
pub struct HttpSources {
    agent: Agent,
    deadlines: Deadlines,
    file_bytes_max: u64,
    mirrors: MirrorResolver,
    hosts: Arc<Hosts>,
    download: Budget,
}

impl HttpSources {
    /// Fetches with the given patience, refusing files above `file_bytes_max`. Proxies are taken from the environment. Knows
    /// no mirrors.
    pub fn new(deadlines: Deadlines, file_bytes_max: u64) -> Self {
        let tls = TlsConfig::builder()
            .root_certs(RootCerts::PlatformVerifier)
            .build();
        let config = Agent::config_builder()
            .tls_config(tls)
            .user_agent(concat!("p2pkgs/", env!("CARGO_PKG_VERSION")))
            .http_status_as_error(false)
            .max_redirects(REDIRECTS_MAX)
            .timeout_resolve(Some(deadlines.dial))
            .timeout_connect(Some(deadlines.dial))
            .timeout_recv_response(Some(deadlines.first_byte))
            .timeout_per_read(Some(deadlines.stall))
            .timeout_global(Some(deadlines.total))
            .build();
        Self {
            agent: config.into(),
            deadlines,
            file_bytes_max,
            mirrors: Arc::new(|_, _| Vec::new()),
            hosts: Arc::default(),
            download: Budget::default(),
        }
    }

    /// The same door for one who knows mirrors.
    #[must_use]
    pub fn with_mirrors(self, mirrors: MirrorResolver) -> Self {
        Self { mirrors, ..self }
    }

    /// The same within a limit of bytes per second, shared with whoever else downloads. Servers of this machine and of the
    /// local network do not count if their URL names them by address, or as `localhost`.
    #[must_use]
    pub fn limited(self, download: Budget) -> Self {
        Self { download, ..self }
    }

    /// The same for files of at most so many bytes.
    #[must_use]
    pub(crate) fn at_most(self, bytes: u64) -> Self {
        Self {
            file_bytes_max: self.file_bytes_max.min(bytes),
            ..self
        }
    }

    fn expand(&self, urls: &[String]) -> Vec<String> {
        let expand_one = |url: &String| match url.strip_prefix("mirror://") {
            None => vec![url.clone()],
            Some(rest) => {
                let (name, path) = rest.split_once('/').unwrap_or((rest, ""));
                (self.mirrors)(name, path)
            }
        };
        urls.iter().flat_map(expand_one).take(URLS_MAX).collect()
    }

    /// Fetches what is missing of a file from one URL; `kept` is what has come so far, from whichever.
    fn fetch_url(
        &self,
        url: &str,
        sha256: &Sha256,
        store: &Store,
        kept: &mut Option<Download>,
        progress: &dyn Progress,
    ) -> Result<Fetched, Failure> {
        let transfer = Transfer {
            agent: &self.agent,
            deadlines: &self.deadlines,
            download: &self.download,
            file_bytes_max: self.file_bytes_max,
            url,
            store,
            progress,
        };
        let (blob, received) = transfer.run(sha256, kept)?;
        Ok(Fetched {
            blob,
            received,
            asked: Asked::default(),
        })
    }

    /// Tries the URLs in order, and those that had bad luck once more.
    fn fetch_any(
        &self,
        mut urls: Vec<String>,
        sha256: &Sha256,
        store: &Store,
        progress: &dyn Progress,
    ) -> Result<Fetched, FetchError> {
        let (mut attempts, mut kept) = (Attempts::default(), None);
        while !urls.is_empty() {
            for url in self.hosts.order(urls, Instant::now()) {
                match self.fetch_url(&url, sha256, store, &mut kept, progress) {
                    Ok(fetched) => {
                        let asked = attempts.asked(true);
                        return Ok(Fetched { asked, ..fetched });
                    }
                    Err(Failure::Fatal(error)) => return Err(error),
                    Err(failure) => {
                        tracing::info!(url, ?failure, "source not fetched");
                        if matches!(failure, Failure::Unreachable(_)) {
                            self.hosts.note_silent(&url, Instant::now());
                        }
                        attempts.push(url, failure);
                    }
                }
            }
            urls = attempts.take_second_chances();
            if !urls.is_empty() {
                pause(progress)?;
            }
        }
        Err(attempts.into_error())
    }

    /// The body of a page in one form; with a deadline for the whole where it is small.
    fn get(
        &self,
        url: &str,
        accept: &str,
        deadline: Option<Duration>,
    ) -> Result<impl Read + Send + use<>, Failure> {
        let mut request = self.agent.get(url).header(header::ACCEPT, accept).config();
        if let Some(deadline) = deadline {
            request = request.timeout_global(Some(deadline));
        }
        let response = request
            .build()
            .call()
            .map_err(|error| request_failure(error, true).into_failure())?;
        match response.status() {
            StatusCode::OK => Ok(response.into_body().into_reader()),
            // What a server does not know, does not have, or does not give in this form is all the same to us.
            status if matches!(status.as_u16(), 400 | 406 | 412 | 422 | 501) => {
                Err(Failure::Missing)
            }
            status => Err(status_failure(status)),
        }
    }
}

impl SourceFetcher for HttpSources {
    fn fetch(
        &self,
        request: &SourceRequest<'_>,
        store: &Store,
        progress: &dyn Progress,
    ) -> Result<Fetched, FetchError> {
        let (this, store, sha256) = (self.clone(), store.clone(), request.sha256);
        let urls = self.expand(request.urls);
        detached(progress, move |progress| {
            this.fetch_any(urls, &sha256, &store, progress)
        })
    }
}

fn pause(progress: &dyn Progress) -> Result<(), FetchError> {
    let until = Instant::now() + SECOND_CHANCE_AFTER;
    while Instant::now() < until {
        if progress.cancelled() {
            return Err(FetchError::Cancelled);
        }
        std::thread::sleep(PAUSE_STEP);
    }
    Ok(())
}

impl fmt::Debug for HttpSources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpSources")
            .field("deadlines", &self.deadlines)
            .finish_non_exhaustive()
    }
}

fn origin(url: &str) -> Origin {
    match url.strip_prefix("file://") {
        Some(path) => Origin::File(path.to_owned()),
        None => Origin::Http(url.to_owned()),
    }
}

#[cfg(test)]
mod tests;
