//! Pages that nothing vouches for: listings of releases, and files whose digest is yet to be found out.
//!
//! Whoever reads them bounds what it reads, believes nothing, and shows where it came from.

use std::fs::File;
use std::io::{self, Read};
use std::time::Instant;

use store::substitute::{FetchError, Progress};

use super::HttpSources;
use super::attempts::Attempts;
use super::throttle::Throttled;
use super::transfer::Failure;

/// What lies at a URL, as far as it can be told before it is read.
pub struct Page {
    /// The URL that answered: of a mirror, the server's.
    pub url: String,
    /// The bytes.
    pub body: Box<dyn Read + Send>,
}

impl HttpSources {
    /// Opens what lies at a URL, at the first mirror that answers.
    ///
    /// # Errors
    /// [`FetchError`] with what became of each server.
    pub fn page(&self, url: &str) -> Result<Page, FetchError> {
        let mut attempts = Attempts::default();
        let urls = self.expand(&[url.to_owned()]);
        for url in self.hosts.order(urls, Instant::now()) {
            match self.open(&url) {
                Ok(body) => return Ok(Page { url, body }),
                Err(Failure::Fatal(error)) => return Err(error),
                Err(failure) => {
                    if matches!(failure, Failure::Unreachable(_)) {
                        self.hosts.note_silent(&url, Instant::now());
                    }
                    attempts.push(url, failure);
                }
            }
        }
        Err(attempts.into_error())
    }

    /// The bytes of a page, no faster than the user allows servers outside the local network.
    pub fn limited_body<'a>(
        &'a self,
        page: Page,
        progress: &'a dyn Progress,
    ) -> Box<dyn Read + 'a> {
        if page.url.starts_with("file://") {
            return page.body;
        }
        let limited = Throttled::new(page.body, &self.download, &page.url, progress);
        Box::new(limited)
    }

    fn open(&self, url: &str) -> Result<Box<dyn Read + Send>, Failure> {
        let Some(path) = url.strip_prefix("file://") else {
            return Ok(Box::new(self.get(url, "*/*", None)?));
        };
        Ok(Box::new(open_file(path)?))
    }
}

/// Opens a local file.
pub(super) fn open_file(path: &str) -> Result<File, Failure> {
    File::open(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Failure::Missing,
        _ => Failure::Refused(error.to_string()),
    })
}

impl std::fmt::Debug for Page {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Page({})", self.url)
    }
}
