//! The URLs of sources, by scheme. Which of them are asked, and in which order, is decided in `bench`.

use std::fmt;
use std::sync::Arc;

use base::{Sha256, parse_root};
use netconfig::{MirrorTable, Mirrors};
use node::{HttpSources, Page};
use store::Store;
use store::substitute::{
    Asked, FetchError, Fetched, Origin, Progress, SourceFetcher, SourceRequest,
};

use crate::context::Context;
use crate::error::CmdResult;
use crate::network::Remote;

/// `https:`, `http:`, `mirror:` and `file:` URLs; without a network only the last.
#[derive(Debug)]
pub struct WebUrls {
    http: HttpSources,
    mirrors: Arc<Mirrors>,
    online: bool,
}

impl WebUrls {
    /// As the configuration says, through the door that all share; without a network only local files are read.
    ///
    /// # Errors
    /// When the mirrors of the configuration cannot be used.
    pub fn new(context: &Context, http: HttpSources, online: bool) -> CmdResult<Self> {
        let mirrors = Arc::new(context.mirrors()?);
        let resolver = Arc::clone(&mirrors);
        let resolve = move |name: &str, path: &str| {
            resolver
                .resolve(&format!("mirror://{name}/{path}"))
                .unwrap_or_default()
        };
        Ok(Self {
            http: http.with_mirrors(Arc::new(resolve)),
            mirrors,
            online,
        })
    }

    /// Opens what lies at a URL, with nobody to vouch for it.
    ///
    /// # Errors
    /// When it cannot be had, or may not be asked for.
    pub fn page(&self, url: &str) -> Result<Page, FetchError> {
        if !self.is_ours(url) {
            return Err(FetchError::Missing {
                asked: Asked::default(),
            });
        }
        self.http.page(url)
    }

    fn is_ours(&self, url: &str) -> bool {
        match url
            .split_once(':')
            .map(|(scheme, _)| scheme.to_ascii_lowercase())
            .as_deref()
        {
            Some("file") => true,
            Some("http" | "https") => self.online,
            // A name that nobody knows would look like a miss; the resolver's error is more help, see `fetch`.
            Some("mirror") => self.online,
            _ => false,
        }
    }
}

impl SourceFetcher for WebUrls {
    fn fetch(
        &self,
        request: &SourceRequest<'_>,
        store: &Store,
        progress: &dyn Progress,
    ) -> Result<Fetched, FetchError> {
        let urls: Vec<_> = request
            .urls
            .iter()
            .filter(|url| self.is_ours(url))
            .cloned()
            .collect();
        if urls.is_empty() {
            return Err(FetchError::Missing {
                asked: Asked::default(),
            });
        }
        let unknown = urls.iter().find_map(|url| self.mirrors.resolve(url).err());
        let result = self.http.fetch(
            &SourceRequest {
                urls: &urls,
                ..*request
            },
            store,
            progress,
        );
        match (result, unknown) {
            (Err(FetchError::Missing { .. }), Some(unknown)) => Err(FetchError::Failed {
                source: Box::new(unknown),
            }),
            (result, _) => result,
        }
    }
}

/// Content identifiers that somebody wrote down, as `ipfs://CID` URLs or in a list: the file is asked for under that name,
/// its sha256 has the last word.
pub struct IpfsUrls<'a> {
    /// Who asks.
    pub remote: &'a Remote,
    /// Identifiers by sha256.
    pub listed: &'a MirrorTable,
}

impl fmt::Debug for IpfsUrls<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("IpfsUrls")
    }
}

impl SourceFetcher for IpfsUrls<'_> {
    fn fetch(
        &self,
        request: &SourceRequest<'_>,
        _store: &Store,
        progress: &dyn Progress,
    ) -> Result<Fetched, FetchError> {
        let named = request
            .urls
            .iter()
            .filter_map(|url| url.strip_prefix("ipfs://"))
            .filter_map(|text| parse_root(text).ok());
        let listed = self.listed.get(&request.sha256).map(|record| record.cid);
        let mut missing = FetchError::Missing {
            asked: Asked::default(),
        };
        for cid in named.chain(listed) {
            match self.remote.fetch_cid(cid, progress) {
                Ok(fetched) if fetched.blob.sha256 == request.sha256 => return Ok(fetched),
                Ok(fetched) => missing = mismatch(&request.sha256, &fetched),
                Err(error) => missing = error,
            }
        }
        Err(missing)
    }
}

fn mismatch(expected: &Sha256, fetched: &Fetched) -> FetchError {
    FetchError::Invalid {
        expected: expected.to_string(),
        got: fetched.blob.sha256.to_string(),
        from: fetched
            .received
            .first()
            .map_or(Origin::Local, |(o, _)| o.clone()),
    }
}
