//! Reads the store for the exchange, on threads that may wait for a disk.
//!
//! The exchange asks for a block only when a peer's stream can take it, so the queue here is short. What bounds it is the
//! machine; what is bounded here is how many reads run at the same time.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll};

use base::{Cid, Multihash};
use bitswap::LoadId;
use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use store::{BlockStore, StoreError};
use tokio::task::JoinHandle;

/// Size look-ups done in one go; each is one index query of a few microseconds, less than the hop to another thread.
const SIZES_PER_JOB_MAX: usize = 64;

/// Something to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Job {
    /// A whole block.
    Block(LoadId, Cid),
    /// Only its size.
    Size(LoadId, Cid),
}

/// What was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Loaded {
    /// A block, or its absence.
    Block(LoadId, Option<Bytes>),
    /// A size, or the block's absence.
    Size(LoadId, Option<u64>),
}

/// The queue of reads and those that run.
pub(super) struct Loader {
    store: Arc<dyn BlockStore>,
    queue: VecDeque<Job>,
    running: FuturesUnordered<JoinHandle<Vec<Loaded>>>,
    running_max: usize,
}

impl Loader {
    /// Reads from `store`, at most `running_max` at a time.
    pub(super) fn new(store: Arc<dyn BlockStore>, running_max: usize) -> Self {
        let (queue, running) = (VecDeque::new(), FuturesUnordered::new());
        Self {
            store,
            queue,
            running,
            running_max: running_max.max(1),
        }
    }

    /// Queues a read.
    pub(super) fn push(&mut self, job: Job) {
        self.queue.push_back(job);
    }

    /// The next results. Must be called inside the runtime.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Vec<Loaded>> {
        while self.running.len() < self.running_max {
            let Some(batch) = self.next_batch() else {
                break;
            };
            let store = Arc::clone(&self.store);
            let work = move || batch.into_iter().map(|job| load(&*store, job)).collect();
            self.running.push(tokio::task::spawn_blocking(work));
        }
        match self.running.poll_next_unpin(cx) {
            Poll::Ready(Some(Ok(loaded))) => Poll::Ready(loaded),
            // A read that panicked or was cancelled at shutdown: the machine's own timeouts take care of its wants.
            Poll::Ready(Some(Err(_))) => Poll::Ready(Vec::new()),
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }

    /// One block, or a run of sizes.
    fn next_batch(&mut self) -> Option<Vec<Job>> {
        let first = self.queue.pop_front()?;
        let mut batch = vec![first];
        if matches!(first, Job::Size(..)) {
            while batch.len() < SIZES_PER_JOB_MAX {
                let Some(size @ Job::Size(..)) = self.queue.front().copied() else {
                    break;
                };
                self.queue.pop_front();
                batch.push(size);
            }
        }
        Some(batch)
    }
}

fn load(store: &dyn BlockStore, job: Job) -> Loaded {
    match job {
        Job::Block(id, cid) => Loaded::Block(id, found(&cid, |hash| store.serve(hash))),
        Job::Size(id, cid) => Loaded::Size(id, found(&cid, |hash| store.served_size(hash))),
    }
}

/// To a peer, a block that cannot be read is a block that is not here; the operator is told.
fn found<T>(
    cid: &Cid,
    read: impl FnOnce(&Multihash) -> Result<Option<T>, StoreError>,
) -> Option<T> {
    let hash = Multihash::of(cid).ok()?;
    read(&hash).unwrap_or_else(|error| {
        tracing::warn!(%cid, error = &error as &dyn std::error::Error, "cannot serve a block");
        None
    })
}
