//! Work that waits for strangers, on a thread that is not waited for.
//!
//! A connection that says nothing cannot be told to stop, it ends with its deadline. So whoever asks over HTTP leaves the
//! thread to that and goes on at once when the answer is not wanted any more: somebody else was faster, or ^C.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, SyncSender};
use std::time::Duration;

use store::substitute::{FetchError, Progress};

/// How often who waits looks up.
const SLICE: Duration = Duration::from_millis(10);
/// Reports on their way: as many as come while a terminal is drawn.
const EVENTS_MAX: usize = 64;

enum Event<T> {
    Bytes(u64, Option<u64>),
    Done(Result<T, FetchError>),
}

/// Progress as the thread has it.
struct Relay<T> {
    events: SyncSender<Event<T>>,
    is_over: Arc<AtomicBool>,
}

impl<T: Send> Progress for Relay<T> {
    fn bytes(&self, n: u64, total: Option<u64>) {
        // Nobody listens any more when it is over.
        let _ = self.events.send(Event::Bytes(n, total));
    }

    fn cancelled(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }
}

/// Does the work, as long as it is wanted.
pub(super) fn detached<T: Send + 'static>(
    progress: &dyn Progress,
    work: impl FnOnce(&dyn Progress) -> Result<T, FetchError> + Send + 'static,
) -> Result<T, FetchError> {
    let (sender, events) = mpsc::sync_channel(EVENTS_MAX);
    let is_over = Arc::<AtomicBool>::default();
    let relay = Relay {
        events: sender.clone(),
        is_over: Arc::clone(&is_over),
    };
    std::thread::spawn(move || {
        let result = work(&relay);
        let _ = sender.send(Event::Done(result));
    });
    let result = loop {
        if progress.cancelled() {
            break Err(FetchError::Cancelled);
        }
        match events.recv_timeout(SLICE) {
            Ok(Event::Bytes(n, total)) => progress.bytes(n, total),
            Ok(Event::Done(result)) => break result,
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                let source = "a fetch ended without a result".into();
                break Err(FetchError::Failed { source });
            }
        }
    };
    is_over.store(true, Ordering::Relaxed);
    result
}
