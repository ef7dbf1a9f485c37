//! Trustless gateways as one more origin: outputs, files, blocks and names by their CIDs, over plain HTTP.
//!
//! A file is asked for as one archive, in the order in which it is read; what the archive leaves out is asked for block by
//! block. Every block is verified before it is used, so a gateway can only be slow or silent. What came from one that
//! broke off is kept, and the next one goes on from there.
//!
//! Daemons of this project are gateways that know more: their statements about packages and their files by SHA-256 are asked
//! for too. Other gateways answer that there is no such page, which costs one small request.

use std::fmt;
use std::io::Read as _;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use base::{
    BLOCK_BYTES_MAX, Block, Cid, Multihash, PkgHash, Realisation, SignedRealisation, block_cid,
};
use bytes::Bytes;
use store::substitute::{
    Asked, FetchError, Fetched, Heats, Origin, Progress, Query, QueryError, SourceFetcher,
    SourceRequest, Substituter,
};
use store::{Expected, Store};

use super::attempts::Attempts;
use super::gateway_file::GatewayFile;
use super::statements::{Ask, Enough, Heard, Together};
use super::throttle::Throttled;
use super::transfer::{Download, Failure, read_failure};
use super::{HttpSources, detached};
use crate::ipns::{IpnsName, IpnsRecord, RECORD_BYTES_MAX};

/// Gateways asked for one thing; a list this long is a mistake.
const GATEWAYS_MAX: usize = 16;
/// How gateways follow peers. A peer of our own network, or one that is connected already, sends within this; a walk through
/// the DHT may take much longer, and then a gateway is asked meanwhile.
pub const GATEWAY_HEATS: Heats = Heats {
    silence: Duration::from_secs(2),
    head_start: Duration::from_secs(2),
    eager: usize::MAX,
};

/// Gateways in the order in which they are asked.
#[derive(Clone)]
pub struct Gateways {
    http: HttpSources,
    urls: Vec<String>,
    together: Arc<Together>,
    enough: Arc<Enough>,
}

impl Gateways {
    /// Asks gateways with the patience and the limits of `http`.
    pub fn new(http: HttpSources, urls: &[String]) -> Self {
        let trimmed = urls.iter().map(|url| url.trim_end_matches('/').to_owned());
        Self {
            http,
            urls: trimmed.take(GATEWAYS_MAX).collect(),
            together: Arc::default(),
            enough: Arc::new(|_, _| false),
        }
    }

    /// Lets a query end as soon as `enough` says so: the place for the caller's trust policy.
    #[must_use]
    pub fn until(
        self,
        enough: impl Fn(&PkgHash, &[SignedRealisation]) -> bool + Send + Sync + 'static,
    ) -> Self {
        let enough = Arc::new(enough);
        Self { enough, ..self }
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.urls.is_empty()
    }

    /// Their URLs, without a slash at the end.
    pub fn urls(&self) -> impl Iterator<Item = &str> {
        self.urls.iter().map(String::as_str)
    }

    /// Gets the file below a root into the store.
    ///
    /// # Errors
    /// [`FetchError`]; nothing that did not verify was kept.
    pub fn fetch_cid(
        &self,
        root: &Cid,
        expected: &Expected,
        store: &Store,
        progress: &dyn Progress,
    ) -> Result<Fetched, FetchError> {
        let mut slot = Some(GatewayFile::open(root, expected, store, &self.http)?);
        let receive = move |_: &HttpSources, url: &str, progress: &dyn Progress| {
            let mut file = slot.take().ok_or(Failure::Missing)?;
            match file.receive(url, progress) {
                Ok(()) => Ok(file),
                // It would not be right the next time either.
                Err(failure @ Failure::Fatal(FetchError::Invalid { .. })) => {
                    file.discard();
                    Err(failure)
                }
                Err(failure) => {
                    slot = Some(file);
                    Err(failure)
                }
            }
        };
        let found = self.in_turn(progress, receive)?;
        let fetched = found.got.finish()?;
        let asked = found.asked;
        Ok(Fetched { asked, ..fetched })
    }

    /// Gets one block.
    ///
    /// # Errors
    /// [`FetchError`].
    pub(crate) fn block(&self, cid: &Cid, progress: &dyn Progress) -> Result<Block, FetchError> {
        let cid = *cid;
        let found = self.in_turn(progress, move |http, url, progress| {
            http.block(url, &cid, progress)
        })?;
        Ok(found.got)
    }

    /// Gets a valid record of a name, from the first who has one. It need not be the newest.
    ///
    /// # Errors
    /// [`FetchError`].
    pub(crate) fn name_record(
        &self,
        name: &IpnsName,
        progress: &dyn Progress,
    ) -> Result<(IpnsRecord, Asked), FetchError> {
        let name = *name;
        let found = self.in_turn(progress, move |http, url, _| http.name_record(url, &name))?;
        Ok((found.got, found.asked))
    }

    /// Asks one after the other until one has it, on a thread that is not waited for.
    fn in_turn<T: Send + 'static>(
        &self,
        progress: &dyn Progress,
        mut ask: impl FnMut(&HttpSources, &str, &dyn Progress) -> Result<T, Failure> + Send + 'static,
    ) -> Result<Found<T>, FetchError> {
        let (http, urls) = (self.http.clone(), self.urls.clone());
        detached(progress, move |progress| {
            let mut attempts = Attempts::default();
            for url in urls {
                let now = Instant::now();
                if http.hosts.is_left_out(&url, now) {
                    continue;
                }
                if progress.cancelled() {
                    return Err(FetchError::Cancelled);
                }
                match ask(&http, &url, progress) {
                    Ok(got) => {
                        let asked = attempts.asked(true);
                        return Ok(Found { got, asked });
                    }
                    Err(Failure::Fatal(error)) => return Err(error),
                    Err(failure) => {
                        tracing::info!(url, ?failure, "a gateway did not give it");
                        if matches!(failure, Failure::Unreachable(_)) {
                            http.hosts.note_silent(&url, now);
                        }
                        attempts.push(url, failure);
                    }
                }
            }
            Err(attempts.into_error())
        })
    }
}

/// What a gateway gave.
struct Found<T> {
    got: T,
    asked: Asked,
}

impl HttpSources {
    /// One block of a gateway.
    pub(super) fn block(
        &self,
        url: &str,
        cid: &Cid,
        progress: &dyn Progress,
    ) -> Result<Block, Failure> {
        let url = format!("{url}/ipfs/{cid}?format=raw");
        let body = self.get(&url, "application/vnd.ipld.raw", None)?;
        let body = Throttled::new(body, &self.download, &url, progress);
        let bytes = read_all(body, BLOCK_BYTES_MAX)?;
        let hash = Multihash::of(cid).map_err(|error| Failure::Broken(error.into()))?;
        Block::verify(hash, Bytes::from(bytes)).map_err(|mismatch| Failure::Invalid {
            expected: mismatch.expected.to_string(),
            got: mismatch.got.to_string(),
        })
    }

    fn name_record(&self, url: &str, name: &IpnsName) -> Result<IpnsRecord, Failure> {
        let url = format!("{url}/ipns/{name}?format=ipns-record");
        let body = self.get(&url, "application/vnd.ipfs.ipns-record", None)?;
        let bytes = read_all(body, RECORD_BYTES_MAX)?;
        IpnsRecord::verify(name, &bytes, SystemTime::now()).map_err(|error| Failure::Invalid {
            expected: format!("a record of `{name}`"),
            got: error.to_string(),
        })
    }
}

/// A body of at most so many bytes. One that is longer is one byte longer, and verifies as nothing.
fn read_all(body: impl std::io::Read, bytes_max: usize) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    body.take(bytes_max as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| read_failure(error).into_failure())?;
    Ok(bytes)
}

impl Substituter for Gateways {
    fn query(&self, pkghash: &PkgHash, progress: &dyn Progress) -> Result<Query, QueryError> {
        let (http, together) = (self.http.clone(), Arc::clone(&self.together));
        let ask: Arc<Ask> = Arc::new(move |url, pkghash| together.ask(&http, url, pkghash));
        let heard: Arc<Heard> = Arc::new(|_, _, _| ());
        self.http
            .query(&self.urls, pkghash, &ask, &heard, &*self.enough, progress)
    }

    fn fetch(
        &self,
        realisation: &Realisation,
        store: &Store,
        progress: &dyn Progress,
    ) -> Result<Fetched, FetchError> {
        let expected = Expected::realisation(realisation);
        self.fetch_cid(&realisation.output, &expected, store, progress)
    }
}

impl fmt::Debug for Gateways {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gateways")
            .field("urls", &self.urls)
            .finish_non_exhaustive()
    }
}

/// How a source may lie behind a gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceForm {
    /// As a file by its SHA-256, which daemons of this project give.
    File,
    /// As one block, which any gateway gives. One that has it not may search for long.
    Block,
}

/// Sources from gateways.
#[derive(Clone, Copy, Debug)]
pub struct GatewaySources<'a> {
    /// Which ones.
    pub gateways: &'a Gateways,
    /// How they are asked.
    pub form: SourceForm,
}

impl SourceFetcher for GatewaySources<'_> {
    fn fetch(
        &self,
        request: &SourceRequest<'_>,
        store: &Store,
        progress: &dyn Progress,
    ) -> Result<Fetched, FetchError> {
        let (sha256, form) = (request.sha256, self.form);
        let path = match form {
            SourceForm::File => format!("/sha256/{}", sha256.to_hex()),
            SourceForm::Block => {
                let cid = block_cid(base::Codec::Raw, &sha256);
                format!("/ipfs/{cid}?format=raw")
            }
        };
        let (store, below, mut kept) = (store.clone(), path.clone(), None);
        let fetch = move |http: &HttpSources, url: &str, progress: &dyn Progress| {
            let file = format!("{url}{below}");
            let fetched = http.fetch_url(&file, &sha256, &store, &mut kept, progress);
            let is_silent = matches!(fetched, Err(Failure::TimedOut))
                && kept.as_ref().is_none_or(Download::is_empty);
            if form == SourceForm::File && is_silent {
                // Nobody has to search for a file by its SHA-256: it is there or not.
                http.hosts.note_silent(url, Instant::now());
            }
            fetched
        };
        let Found { got, asked } = self.gateways.in_turn(progress, fetch)?;
        let of_gateway = |(origin, bytes)| match origin {
            Origin::Http(url) => (
                Origin::Gateway(url.trim_end_matches(&path).to_owned()),
                bytes,
            ),
            other => (other, bytes),
        };
        let received = got.received.into_iter().map(of_gateway).collect();
        Ok(Fetched {
            received,
            asked,
            ..got
        })
    }
}
