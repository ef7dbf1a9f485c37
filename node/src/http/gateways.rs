//! Trustless gateways as one more origin: outputs and files by their CIDs, over plain HTTP.
//!
//! A file is asked for as one archive, in the order in which it is read; what the archive leaves out is asked for block by
//! block. Every block is verified before it is used, so a gateway can only be slow or silent. What came from one that
//! broke off is kept, and the next one goes on from there.
//!
//! Daemons of this project are gateways that know more: their statements about packages and their files by SHA-256 are asked
//! for too. Other gateways answer that there is no such page, which costs one small request.

use std::collections::HashSet;
use std::fmt;
use std::io::{self, Read};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use base::{BLOCK_BYTES_MAX, Block, Cid, Multihash, PkgHash, Realisation, block_cid};
use bytes::Bytes;
use store::car::{CarError, CarReader};
use store::dag::{DagError, Leaf, Walk, WalkLimits};
use store::substitute::{
    Asked, FetchError, Fetched, Origin, Progress, Query, QueryError, SourceFetcher, SourceRequest,
    Substituter,
};
use store::{Blob, Expected, Ingest, Store, StoreError};
use ureq::http::{StatusCode, header};

use super::HttpSources;
use super::attempts::Attempts;
use super::throttle::Throttled;
use super::transfer::{Failure, read_failure, request_failure, status_failure};
use crate::pace::Pace;
use crate::realisation_protocol;

/// Gateways asked for one thing; a list this long is a mistake.
const GATEWAYS_MAX: usize = 16;
/// Chunks of a file that are looked at ahead. An archive brings them in order; more would only be memory.
const WINDOW_BLOCKS: usize = 4;
/// Bytes of an answer about a package: what a peer may answer, too.
const STATEMENTS_BYTES_MAX: u64 = 1 << 20;

/// Gateways in the order in which they are asked.
pub struct Gateways {
    http: HttpSources,
    urls: Vec<String>,
    /// Those that could not be reached: not asked again by this process.
    unreachable: Mutex<HashSet<String>>,
}

impl Gateways {
    /// Asks gateways with the patience and the limits of `http`.
    pub fn new(http: HttpSources, urls: &[String]) -> Self {
        let trimmed = urls.iter().map(|url| url.trim_end_matches('/').to_owned());
        Self {
            http,
            urls: trimmed.take(GATEWAYS_MAX).collect(),
            unreachable: Mutex::default(),
        }
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.urls.is_empty()
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
        let most = self.http.file_bytes_max;
        let limits = WalkLimits {
            bytes_max: expected.size.map_or(most, |size| size.min(most)),
            ..WalkLimits::default()
        };
        let bad = |error: DagError| FetchError::Invalid {
            expected: format!("a file at {root}"),
            got: error.to_string(),
            from: Origin::Local,
        };
        let mut ingest = store.ingest()?;
        if let Some(size) = expected.size {
            ingest.reserve(size)?;
        }
        let mut file = Partial {
            walk: Walk::new(*root, limits).map_err(bad)?,
            ingest,
            open: Vec::new(),
            received: Vec::new(),
            http: &self.http,
            progress,
        };
        let mut attempts = Attempts::default();
        for url in self.reachable() {
            match file.receive(&url, root) {
                Ok(()) => return file.finish(expected, attempts.asked(true)),
                Err(Failure::Fatal(error)) => return Err(error),
                Err(failure) => self.failed(&mut attempts, url, failure),
            }
        }
        Err(attempts.into_error())
    }

    fn reachable(&self) -> Vec<String> {
        let unreachable = self
            .unreachable
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let is_reachable = |url: &&String| !unreachable.contains(*url);
        self.urls.iter().filter(is_reachable).cloned().collect()
    }

    fn failed(&self, attempts: &mut Attempts, url: String, failure: Failure) {
        tracing::info!(url, ?failure, "a gateway did not give what was asked for");
        if matches!(failure, Failure::Unreachable(_)) {
            let mut unreachable = self
                .unreachable
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            unreachable.insert(url.clone());
        }
        attempts.push(url, failure);
    }

    /// What one gateway knows about a package. Statements that do not verify are left out, as from peers.
    fn statements(
        &self,
        url: &str,
        pkghash: &PkgHash,
    ) -> Result<Vec<base::SignedRealisation>, Failure> {
        let url = format!("{url}/{}.realisations", pkghash.digest().to_hex());
        let body = self.http.get(&url, "application/vnd.p2pkgs.realisations")?;
        let mut bytes = Vec::new();
        body.take(STATEMENTS_BYTES_MAX)
            .read_to_end(&mut bytes)
            .map_err(|error| read_failure(error).into_failure())?;
        realisation_protocol::decode_statements(&bytes, pkghash)
            .map_err(|error| Failure::Broken(error.into()))
    }
}

impl Substituter for Gateways {
    fn query(&self, pkghash: &PkgHash, progress: &dyn Progress) -> Result<Query, QueryError> {
        let mut query = Query::default();
        let mut attempts = Attempts::default();
        for url in self.reachable() {
            if progress.cancelled() {
                return Err(QueryError::Cancelled);
            }
            match self.statements(&url, pkghash) {
                Ok(found) => {
                    query.asked.caches += 1;
                    for statement in found {
                        if !query.realisations.contains(&statement) {
                            query.realisations.push(statement);
                        }
                    }
                }
                Err(failure) => self.failed(&mut attempts, url, failure),
            }
        }
        query.asked.merge(attempts.asked(false));
        Ok(query)
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
        let path = match self.form {
            SourceForm::File => format!("sha256/{}", request.sha256.to_hex()),
            SourceForm::Block => {
                let cid = block_cid(base::Codec::Raw, &request.sha256);
                format!("ipfs/{cid}?format=raw")
            }
        };
        let mut attempts = Attempts::default();
        for url in self.gateways.reachable() {
            let file = format!("{url}/{path}");
            match self
                .gateways
                .http
                .fetch_url(&file, request, store, progress)
            {
                Ok(fetched) => {
                    let received = vec![(Origin::Gateway(url), fetched.blob.size)];
                    let asked = attempts.asked(true);
                    return Ok(Fetched {
                        received,
                        asked,
                        ..fetched
                    });
                }
                Err(Failure::Fatal(error)) => return Err(error),
                Err(failure) => self.gateways.failed(&mut attempts, url, failure),
            }
        }
        Err(attempts.into_error())
    }
}

/// A file as far as it has come, from whichever gateways.
struct Partial<'a> {
    walk: Walk,
    ingest: Ingest,
    /// Blocks that are wanted and have not come.
    open: Vec<Cid>,
    received: Vec<(Origin, u64)>,
    http: &'a HttpSources,
    progress: &'a dyn Progress,
}

impl Partial<'_> {
    /// Takes what one gateway gives, until the file is complete.
    fn receive(&mut self, url: &str, root: &Cid) -> Result<(), Failure> {
        let mut share = Share {
            bytes: 0,
            pace: Pace::new(self.http.deadlines.clone(), Instant::now()),
        };
        let result = self.receive_all(url, root, &mut share);
        if share.bytes > 0 {
            self.received
                .push((Origin::Gateway(url.to_owned()), share.bytes));
        }
        result
    }

    fn receive_all(&mut self, url: &str, root: &Cid, share: &mut Share) -> Result<(), Failure> {
        self.write_ready()?;
        // An archive begins with the root; who has come further asks for the rest one by one.
        if self.received.is_empty() && self.is_open() {
            match self.archive(url, root, share) {
                // A gateway that gives no archives may still give blocks.
                Ok(()) | Err(Failure::Missing | Failure::Refused(_)) => {}
                Err(failure) if share.bytes == 0 => return Err(failure),
                Err(
                    failure @ (Failure::Fatal(_) | Failure::Invalid { .. } | Failure::TimedOut),
                ) => {
                    return Err(failure);
                }
                Err(failure) => tracing::info!(url, ?failure, "an archive ended early"),
            }
        }
        while self.is_open() {
            let cid = self.open[0];
            let block = self.block(url, &cid)?;
            self.take(&block, share)?;
        }
        Ok(())
    }

    /// Whether anything is still wanted.
    fn is_open(&self) -> bool {
        !self.open.is_empty()
    }

    fn archive(&mut self, url: &str, root: &Cid, share: &mut Share) -> Result<(), Failure> {
        let url = format!("{url}/ipfs/{root}?format=car&dag-scope=entity&car-dups=y");
        let accept = "application/vnd.ipld.car; version=1; order=dfs; dups=y";
        let body = self.http.get(&url, accept)?;
        let body = Throttled::new(body, &self.http.download, &url, self.progress);
        let mut reader = CarReader::new(body).map_err(archive_failure)?;
        while self.is_open() {
            let Some(section) = reader.next_section().map_err(archive_failure)? else {
                return Ok(());
            };
            self.take(&section.block, share)?;
        }
        Ok(())
    }

    fn block(&self, url: &str, cid: &Cid) -> Result<Block, Failure> {
        let url = format!("{url}/ipfs/{cid}?format=raw");
        let body = self.http.get(&url, "application/vnd.ipld.raw")?;
        let body = Throttled::new(body, &self.http.download, &url, self.progress);
        let mut bytes = Vec::new();
        body.take(BLOCK_BYTES_MAX as u64 + 1)
            .read_to_end(&mut bytes)
            .map_err(|error| read_failure(error).into_failure())?;
        let hash = Multihash::of(cid).map_err(|error| Failure::Broken(error.into()))?;
        Block::verify(hash, Bytes::from(bytes)).map_err(|mismatch| Failure::Invalid {
            expected: mismatch.expected.to_string(),
            got: mismatch.got.to_string(),
        })
    }

    /// Uses a block that was verified. One that nobody waits for is no progress, so an archive full of them is overdue soon.
    fn take(&mut self, block: &Block, share: &mut Share) -> Result<(), Failure> {
        if self.progress.cancelled() {
            return Err(Failure::Fatal(FetchError::Cancelled));
        }
        let now = Instant::now();
        let is_this = |cid: &Cid| Multihash::of(cid).is_ok_and(|hash| hash == *block.hash());
        if let Some(place) = self.open.iter().position(is_this) {
            self.open.remove(place);
            share.bytes += block.len() as u64;
            share.pace.progress(block.len() as u64, now);
            self.walk.handle_block(block).map_err(|e| dag_failure(&e))?;
            self.write_ready()?;
        }
        share.pace.check(now).map_err(|_| Failure::TimedOut)
    }

    /// Writes what has come in order, and wants what comes next.
    fn write_ready(&mut self) -> Result<(), Failure> {
        let store = |error: StoreError| Failure::Fatal(error.into());
        while let Some(leaf) = self.walk.next_bytes().map_err(|e| dag_failure(&e))? {
            match &leaf {
                Leaf::Block(block) => self.ingest.write_leaf(block).map_err(store)?,
                Leaf::Bytes(bytes) => self.ingest.append(bytes).map_err(store)?,
            }
            let length = leaf.bytes().len() as u64;
            self.progress.bytes(length, self.walk.declared_size());
        }
        if !self.walk.is_done() {
            self.open.extend(self.walk.wants(WINDOW_BLOCKS));
        }
        Ok(())
    }

    fn finish(self, expected: &Expected, asked: Asked) -> Result<Fetched, FetchError> {
        let received = self.received;
        let blob: Blob = self.ingest.finish(expected).map_err(|error| match error {
            StoreError::Mismatch { expected, got, .. } => FetchError::Invalid {
                expected,
                got,
                from: received
                    .first()
                    .map_or(Origin::Local, |(origin, _)| origin.clone()),
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

/// What one gateway has given.
struct Share {
    bytes: u64,
    pace: Pace,
}

impl HttpSources {
    /// The body of a page in one form.
    fn get(&self, url: &str, accept: &str) -> Result<impl Read + Send + use<>, Failure> {
        let request = self.agent.get(url).header(header::ACCEPT, accept);
        let response = request
            .call()
            .map_err(|error| request_failure(error, true).into_failure())?;
        match response.status() {
            StatusCode::OK => Ok(response.into_body().into_reader()),
            // What a gateway does not know, does not have, or does not give in this form is all the same to us.
            status if matches!(status.as_u16(), 400 | 406 | 412 | 422 | 501) => {
                Err(Failure::Missing)
            }
            status => Err(status_failure(status)),
        }
    }
}

fn archive_failure(error: CarError) -> Failure {
    match error {
        CarError::Read(error) => read_failure(error).into_failure(),
        CarError::Truncated { .. } => {
            Failure::Broken(io::Error::from(io::ErrorKind::UnexpectedEof).into())
        }
        error => Failure::Invalid {
            expected: "an archive of the file".to_owned(),
            got: error.to_string(),
        },
    }
}

/// The root is what it is, whoever gives it: no other gateway can help.
fn dag_failure(error: &DagError) -> Failure {
    Failure::Fatal(FetchError::Invalid {
        expected: "a file".to_owned(),
        got: error.to_string(),
        from: Origin::Local,
    })
}
