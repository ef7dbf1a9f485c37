//! One file from gateways, by its CID: verified block by block, whoever sends them.
//!
//! It is written into the same partial as what peers send, so either goes on where the other ended, be it in another process.

use std::io;
use std::time::Instant;

use base::{Block, Cid, Multihash};
use store::car::{CarError, CarReader};
use store::dag::{DagError, Leaf, Taken, Walk, WalkLimits};
use store::substitute::{Asked, FetchError, Fetched, Origin, Progress};
use store::{Expected, Partial, Store, StoreError};

use super::HttpSources;
use super::throttle::Throttled;
use super::transfer::{Failure, read_failure};
use crate::pace::Pace;

/// Chunks of a file that are looked at ahead. An archive brings them in order; more would only be memory.
const WINDOW_BLOCKS: usize = 4;
/// The form of an archive that is asked for: depth first, with blocks that repeat.
const ACCEPT: &str = "application/vnd.ipld.car; version=1; order=dfs; dups=y";

/// A file as far as it has come, from whichever gateways.
pub(super) struct GatewayFile {
    root: Cid,
    expected: Expected,
    walk: Walk,
    partial: Partial,
    /// Blocks that are wanted and have not come.
    open: Vec<Cid>,
    received: Vec<(Origin, u64)>,
    /// Bytes that were here already.
    here: u64,
    http: HttpSources,
}

/// What one gateway has given.
struct Share<'a> {
    bytes: u64,
    pace: Pace,
    progress: &'a dyn Progress,
}

impl GatewayFile {
    /// Begins, or goes on with what an earlier attempt left.
    pub(super) fn open(
        root: &Cid,
        expected: &Expected,
        store: &Store,
        http: &HttpSources,
    ) -> Result<Self, FetchError> {
        let most = http.file_bytes_max;
        let limits = WalkLimits {
            bytes_max: expected.size.map_or(most, |size| size.min(most)),
            ..WalkLimits::default()
        };
        let walk = Walk::new(*root, limits).map_err(|error| FetchError::Invalid {
            expected: format!("a file at {root}"),
            got: error.to_string(),
            from: Origin::Local,
        })?;
        let mut partial = store.partial(root)?;
        if let Some(size) = expected.size {
            partial.reserve(size)?;
        }
        Ok(Self {
            root: *root,
            expected: expected.clone(),
            walk,
            partial,
            open: Vec::new(),
            received: Vec::new(),
            here: 0,
            http: http.clone(),
        })
    }

    /// Takes what one gateway gives, until the file is complete.
    pub(super) fn receive(&mut self, url: &str, progress: &dyn Progress) -> Result<(), Failure> {
        let mut share = Share {
            bytes: 0,
            pace: Pace::new(self.http.deadlines.clone(), Instant::now()),
            progress,
        };
        let result = self.receive_all(url, &mut share);
        if share.bytes > 0 {
            self.received
                .push((Origin::Gateway(url.to_owned()), share.bytes));
        }
        result
    }

    fn receive_all(&mut self, url: &str, share: &mut Share<'_>) -> Result<(), Failure> {
        self.write_ready(share.progress)?;
        if self.is_open() {
            match self.archive(url, share) {
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
            let block = self.http.block(url, &cid, share.progress)?;
            self.take(&block, share)?;
        }
        Ok(())
    }

    /// Whether anything is still wanted.
    fn is_open(&self) -> bool {
        !self.open.is_empty()
    }

    /// Takes an archive of what is missing from the first byte that is not here.
    fn archive(&mut self, url: &str, share: &mut Share<'_>) -> Result<(), Failure> {
        let mut url = format!(
            "{url}/ipfs/{}?format=car&dag-scope=entity&car-dups=y",
            self.root
        );
        let at = self.partial.written();
        if at > 0 {
            url.push_str(&format!("&entity-bytes={at}:*"));
        }
        let body = self.http.get(&url, ACCEPT, None)?;
        let (budget, progress) = (self.http.download.clone(), share.progress);
        let body = Throttled::new(body, &budget, &url, progress);
        let mut reader = CarReader::new(body).map_err(archive_failure)?;
        while self.is_open() {
            let Some(section) = reader.next_section().map_err(archive_failure)? else {
                return Ok(());
            };
            self.take(&section.block, share)?;
        }
        Ok(())
    }

    /// Uses a block that was verified. One that nobody waits for is no progress, so an archive full of them is overdue soon.
    fn take(&mut self, block: &Block, share: &mut Share<'_>) -> Result<(), Failure> {
        if share.progress.cancelled() {
            return Err(Failure::Fatal(FetchError::Cancelled));
        }
        let now = Instant::now();
        let is_this = |cid: &Cid| Multihash::of(cid).is_ok_and(|hash| hash == *block.hash());
        if let Some(place) = self.open.iter().position(is_this) {
            self.open.remove(place);
            share.bytes += block.len() as u64;
            share.pace.progress(block.len() as u64, now);
            self.keep(block)?;
            self.write_ready(share.progress)?;
        }
        share.pace.check(now).map_err(|_| Failure::TimedOut)
    }

    fn keep(&mut self, block: &Block) -> Result<(), Failure> {
        let taken = self.walk.handle_block(block).map_err(|e| dag_failure(&e))?;
        let kept = match taken {
            Taken::Leaf { offset } => self.partial.keep_leaf(block, offset),
            Taken::Node => self.partial.keep_node(block),
            Taken::Unwanted => Ok(()),
        };
        kept.and_then(|()| self.partial.note().map(drop))
            .map_err(store_failure)
    }

    /// Writes what has come in order, takes what need not be fetched, and wants the rest.
    fn write_ready(&mut self, progress: &dyn Progress) -> Result<(), Failure> {
        loop {
            while let Some(leaf) = self.walk.next_bytes().map_err(|e| dag_failure(&e))? {
                let written = match &leaf {
                    Leaf::Block(block) => self.partial.write_leaf(block),
                    Leaf::Bytes(bytes) => self.partial.append(bytes),
                };
                written.map_err(store_failure)?;
                let length = leaf.bytes().len() as u64;
                progress.bytes(length, self.walk.declared_size());
            }
            if self.walk.is_done() || !self.take_what_is_here(progress)? {
                return Ok(());
            }
        }
    }

    /// Takes those of the next blocks that are here; `false` when none is.
    fn take_what_is_here(&mut self, progress: &dyn Progress) -> Result<bool, Failure> {
        let mut is_news = false;
        for cid in self.walk.wants(WINDOW_BLOCKS) {
            if progress.cancelled() {
                return Err(Failure::Fatal(FetchError::Cancelled));
            }
            let found = match Multihash::of(&cid) {
                Ok(hash) => self.partial.find(&hash).map_err(store_failure)?,
                Err(_) => None,
            };
            match found {
                Some(block) => {
                    self.here += block.len() as u64;
                    self.keep(&block)?;
                    is_news = true;
                }
                None => self.open.push(cid),
            }
        }
        Ok(is_news)
    }

    /// Throws away what has come.
    pub(super) fn discard(self) {
        if let Err(error) = self.partial.discard() {
            tracing::warn!(%error, "what is left of a fetch cannot be removed");
        }
    }

    /// The file, once all of it was received.
    pub(super) fn finish(self) -> Result<Fetched, FetchError> {
        let mut received = self.received;
        let blob = self
            .partial
            .finish(&self.expected)
            .map_err(|error| match error {
                StoreError::Mismatch { expected, got, .. } => FetchError::Invalid {
                    expected,
                    got,
                    from: received
                        .first()
                        .map_or(Origin::Local, |(origin, _)| origin.clone()),
                },
                error => error.into(),
            })?;
        if self.here > 0 {
            received.push((Origin::Local, self.here));
        }
        Ok(Fetched {
            blob,
            received,
            asked: Asked::default(),
        })
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

fn store_failure(error: StoreError) -> Failure {
    Failure::Fatal(error.into())
}

/// The root is what it is, whoever gives it: no other gateway can help.
fn dag_failure(error: &DagError) -> Failure {
    Failure::Fatal(FetchError::Invalid {
        expected: "a file".to_owned(),
        got: error.to_string(),
        from: Origin::Local,
    })
}
