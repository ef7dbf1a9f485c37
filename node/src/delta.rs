//! Getting an output by what changed in it since one that is here: an attempt before the ordinary fetch.
//!
//! It may fail in any way, at the cost of some time and of no more bytes than the archive has; then the archive is fetched
//! as a whole. The holder makes the segments one by one while the one before is taken in here, on the thread of whoever needs the output, see
//! [`store::delta`]. A holder that is slower than the ordinary fetch can be expected to be is left.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use base::{Realisation, Sha256};
use libp2p::PeerId;
use store::delta::{Assembly, DeltaError, EARLIER_MAX, Segment, segments};
use store::substitute::{Asked, FetchError, Fetched, Origin, Progress};
use store::{Expected, Store};
use tokio::sync::oneshot;

use crate::address::Reach;
use crate::client::Client;
use crate::command::Command;
use crate::delta_protocol::{Request, Response};
use crate::event_loop::DeltaAnswer;
use crate::fetch::stopped;

/// Smaller outputs are fetched as they are: a handful of blocks cost less than to find out what changed.
const ARCHIVE_BYTES_MIN: u64 = 256 << 10;
/// Holders asked one after the other; the next one only where the one before has said no at once.
const HOLDERS_MAX: usize = 3;
/// How often is looked up from waiting.
const SLICE: Duration = Duration::from_millis(50);
/// How long a holder may take before anything has to be here: it may have to unpack two outputs.
const START: Duration = Duration::from_secs(15);
/// What has to come of the archive per second from then on. Blocks of it come faster over any line for which it was worth
/// to wait.
const ARCHIVE_BYTES_PER_SEC_MIN: u64 = 128 << 10;

/// What came of the attempt.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// The output is here.
    Done(Fetched),
    /// It is not. So many bytes came for nothing, and so many of the archive were shown as progress.
    Not {
        received: Vec<(Origin, u64)>,
        shown: u64,
    },
}

impl Outcome {
    const fn nothing() -> Self {
        Self::Not {
            received: Vec::new(),
            shown: 0,
        }
    }
}

/// Tries to get an output from the first of `holders` who can tell what changed since one that is here.
///
/// # Errors
/// [`FetchError::Cancelled`], or when the store or the node failed; whatever is wrong with a delta is none.
pub(crate) fn fetch(
    client: &Client,
    realisation: &Realisation,
    holders: &[PeerId],
    store: &Store,
    progress: &dyn Progress,
) -> Result<Outcome, FetchError> {
    if realisation.size < ARCHIVE_BYTES_MIN || holders.is_empty() {
        return Ok(Outcome::nothing());
    }
    let earlier = store.earlier_outputs(&realisation.pkghash)?;
    if earlier.is_empty() {
        return Ok(Outcome::nothing());
    }
    for holder in holders.iter().take(HOLDERS_MAX) {
        let mut attempt = Attempt {
            client,
            realisation,
            store,
            progress,
            holder: *holder,
            started: Instant::now(),
            reach: Reach::Global,
            moved: 0,
            shown: 0,
        };
        match attempt.run(&earlier) {
            Ok(Some(fetched)) => return Ok(Outcome::Done(fetched)),
            Ok(None) => {}
            Err(Trouble::Fetch(error)) => return Err(error),
            Err(trouble) => {
                let error: &dyn std::error::Error = &trouble;
                tracing::info!(peer = %holder, error, "fetching the archive, not what changed in it");
                let received = vec![(attempt.origin(), attempt.moved)];
                let shown = attempt.shown;
                return Ok(Outcome::Not { received, shown });
            }
        }
    }
    Ok(Outcome::nothing())
}

/// Why an attempt ended.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    /// The whole fetch has to end.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// What came is of no use, or the earlier output is not.
    #[error(transparent)]
    Delta(#[from] DeltaError),
    /// The holder has stopped to answer.
    #[error("the holder gave no further segment")]
    Silent,
    /// Blocks would come faster.
    #[error("the holder is too slow")]
    Slow,
    /// More came than the archive has.
    #[error("what changed is more than the archive has")]
    Large,
}

/// One holder's delta.
struct Attempt<'a> {
    client: &'a Client,
    realisation: &'a Realisation,
    store: &'a Store,
    progress: &'a dyn Progress,
    holder: PeerId,
    started: Instant,
    reach: Reach,
    /// Bytes on the wire, in both directions.
    moved: u64,
    /// Bytes of the archive that were shown as progress.
    shown: u64,
}

impl Attempt<'_> {
    /// `None` where the holder says no to the first question.
    fn run(&mut self, earlier: &[Sha256]) -> Result<Option<Fetched>, Trouble> {
        debug_assert!(earlier.len() <= EARLIER_MAX);
        let first = self.ask(0, earlier)?;
        let Ok(Some((index, first))) = self.wait(first) else {
            return self.stop_if_wanted().map(|()| None);
        };
        let old = earlier.get(usize::from(index));
        let old = *old.ok_or(DeltaError::Invalid("an output that was not offered"))?;
        let size = self.realisation.size;
        let last = segments(first.tar_bytes).saturating_sub(1);
        let mut next = None;
        if last > 0 {
            next = Some(self.ask(1, &[old])?);
        }
        let Some(mut assembly) = Assembly::begin(self.store, &old, size, first.tar_bytes)? else {
            return Ok(None);
        };
        self.take(&mut assembly, &first)?;
        while let Some(index) = assembly.next() {
            let waiting = next.take().ok_or(Trouble::Silent)?;
            let (_, segment) = self.wait(waiting)?.ok_or(Trouble::Silent)?;
            // The holder makes the next one while this one is taken in.
            if index < last {
                next = Some(self.ask(index + 1, &[old])?);
            }
            self.take(&mut assembly, &segment)?;
        }
        let blob = assembly.finish(&Expected::realisation(self.realisation))?;
        self.show(size);
        let reused = size.saturating_sub(self.moved);
        let asked = Asked {
            providers: 1,
            ..Asked::default()
        };
        Ok(Some(Fetched {
            blob,
            received: vec![(self.origin(), self.moved), (Origin::Local, reused)],
            asked,
        }))
    }

    /// Asks for a segment.
    fn ask(
        &mut self,
        segment: u64,
        earlier: &[Sha256],
    ) -> Result<oneshot::Receiver<DeltaAnswer>, FetchError> {
        if segment > 0 {
            self.wait_for_the_line()?;
        }
        let request = Request {
            new: self.realisation.sha256,
            segment,
            earlier: earlier.to_vec(),
        };
        self.moved += request.wire_bytes();
        let (reply, answer) = oneshot::channel();
        let command = Command::Delta {
            peer: self.holder,
            request,
            reply,
        };
        let runtime = &self.client.shared().runtime;
        runtime
            .block_on(self.client.send(command))
            .map_err(stopped)?;
        Ok(answer)
    }

    /// Waits until the limit of what we fetch lets more come from afar.
    fn wait_for_the_line(&self) -> Result<(), FetchError> {
        if self.reach == Reach::Near {
            return Ok(());
        }
        let download = &self.client.shared().download;
        while let Err(at) = download.ready(0, Instant::now()) {
            self.stop_if_cancelled()?;
            let wait = at.saturating_duration_since(Instant::now());
            std::thread::sleep(wait.min(SLICE));
        }
        Ok(())
    }

    /// Waits for an answer; `None` where it is no.
    fn wait(
        &mut self,
        mut answer: oneshot::Receiver<DeltaAnswer>,
    ) -> Result<Option<(u8, Segment)>, Trouble> {
        let runtime = &self.client.shared().runtime;
        let DeltaAnswer { response, reach } = loop {
            self.stop_if_wanted()?;
            let slice = async { tokio::time::timeout(SLICE, &mut answer).await };
            match runtime.block_on(slice) {
                Ok(Ok(answer)) => break answer,
                Ok(Err(_)) => return Err(Trouble::Silent),
                Err(_) => {}
            }
        };
        self.reach = reach;
        self.moved += response.wire_bytes();
        if self.moved > self.realisation.size {
            return Err(Trouble::Large);
        }
        Ok(match response {
            Response::No => None,
            Response::Segment { earlier, segment } => Some((earlier, segment)),
        })
    }

    fn take(&mut self, assembly: &mut Assembly, segment: &Segment) -> Result<(), Trouble> {
        assembly.push(segment)?;
        self.show(assembly.written());
        Ok(())
    }

    /// Shows how much of the archive is here.
    fn show(&mut self, written: u64) {
        let news = written.saturating_sub(self.shown);
        self.shown += news;
        self.progress.bytes(news, Some(self.realisation.size));
    }

    fn stop_if_cancelled(&self) -> Result<(), FetchError> {
        if self.progress.cancelled() {
            return Err(FetchError::Cancelled);
        }
        Ok(())
    }

    fn stop_if_wanted(&self) -> Result<(), Trouble> {
        self.stop_if_cancelled()?;
        if is_late(self.started.elapsed(), self.shown) {
            return Err(Trouble::Slow);
        }
        Ok(())
    }

    fn origin(&self) -> Origin {
        let name = self.holder.to_string();
        match self.reach {
            Reach::Near => Origin::LanPeer(name),
            _ => Origin::Peer(name),
        }
    }
}

/// Whether too little of the archive is here after so long.
fn is_late(elapsed: Duration, archive_bytes: u64) -> bool {
    let earned = Duration::from_secs(archive_bytes / ARCHIVE_BYTES_PER_SEC_MIN);
    elapsed > START + earned
}

/// Progress of a fetch before which something was shown in vain: as many bytes are not shown again.
pub(crate) struct After<'a> {
    progress: &'a dyn Progress,
    shown: AtomicU64,
}

impl<'a> After<'a> {
    pub(crate) fn new(progress: &'a dyn Progress, shown: u64) -> Self {
        let shown = AtomicU64::new(shown);
        Self { progress, shown }
    }
}

impl Progress for After<'_> {
    fn bytes(&self, n: u64, total: Option<u64>) {
        let less = |shown: u64| Some(shown.saturating_sub(n));
        let shown = self
            .shown
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        let again = shown.unwrap_or(0).min(n);
        if n > again {
            self.progress.bytes(n - again, total);
        }
    }

    fn cancelled(&self) -> bool {
        self.progress.cancelled()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_holder_has_time_to_begin_and_then_has_to_deliver() {
        let secs = Duration::from_secs;
        assert!(!is_late(START, 0));
        assert!(is_late(START + secs(1), 0));
        assert!(!is_late(START + secs(1), ARCHIVE_BYTES_PER_SEC_MIN));
        assert!(is_late(START + secs(3), 2 * ARCHIVE_BYTES_PER_SEC_MIN));
    }

    #[test]
    fn bytes_that_were_shown_in_vain_are_not_shown_again() {
        #[derive(Default)]
        struct Sum(AtomicU64);
        impl Progress for Sum {
            fn bytes(&self, n: u64, _: Option<u64>) {
                self.0.fetch_add(n, Ordering::Relaxed);
            }
            fn cancelled(&self) -> bool {
                false
            }
        }
        let sum = Sum::default();
        let after = After::new(&sum, 10);
        for n in [3, 4, 5, 6] {
            after.bytes(n, Some(18));
        }
        assert_eq!(sum.0.into_inner(), 8);
    }
}
