//! Package caches: directories on a web server or in the file system, with two files for each package.
//!
//! `PKGHASH.realisations` holds the statements about it, `PKGHASH.tar.zst` an output. Nothing a cache says is believed:
//! statements are signed, and an output must have the SHA-256 and the size of the one that the user's policy chose.

use std::fmt;
use std::time::Instant;

use base::{PkgHash, Realisation};
use store::Store;
use store::substitute::{
    Asked, FetchError, Fetched, Progress, Query, QueryError, SourceFetcher as _, SourceRequest,
    Substituter,
};

use super::HttpSources;

/// One package cache.
#[derive(Clone)]
pub struct HttpCache {
    http: HttpSources,
    /// URL of the directory, without a slash at the end.
    base: String,
}

impl HttpCache {
    /// The cache at `url`: `http://`, `https://` or `file://`.
    pub fn new(http: HttpSources, url: &str) -> Self {
        Self {
            http,
            base: url.trim_end_matches('/').to_owned(),
        }
    }
}

impl Substituter for HttpCache {
    fn query(&self, pkghash: &PkgHash, progress: &dyn Progress) -> Result<Query, QueryError> {
        let bases = std::slice::from_ref(&self.base);
        self.http.query(bases, pkghash, progress)
    }

    fn fetch(
        &self,
        realisation: &Realisation,
        store: &Store,
        progress: &dyn Progress,
    ) -> Result<Fetched, FetchError> {
        if self.http.hosts.is_left_out(&self.base, Instant::now()) {
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

impl fmt::Debug for HttpCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("HttpCache").field(&self.base).finish()
    }
}
