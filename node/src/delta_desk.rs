//! Where segments are made for others: a few tars stay unpacked between one question and the next.
//!
//! A question costs what reading 16 MiB and compressing four of them costs, and the first about an output the unpacking of it.
//! So few are answered at a time, whoever asks, and not many wait; everybody else is told no and fetches the archive as ever.

use std::sync::{Arc, Condvar, Mutex, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use base::Sha256;
use store::Store;
use store::delta::{DeltaError, Unpacked, make_segment};

use crate::delta_protocol::{Request, Response};

/// Questions that wait or are answered: somebody who fetches several packages at once asks eight at most on a connection's streams,
/// and another one beside.
const SEATS: usize = 16;
/// Questions answered at the same time: one is compressed while another waits for the disk.
const AT_WORK_MAX: usize = 2;
/// Longest time in the queue. Below what the asker waits for an answer.
const QUEUE_PATIENCE: Duration = Duration::from_secs(10);
/// Tars kept at a time: two for each of two askers.
const OPEN_MAX: usize = 4;
/// What they may take on the disk together, in bytes: two of the largest.
const OPEN_BYTES_MAX: u64 = 2 << 30;
/// How long a tar is kept that nobody asks about: an asker's next question comes within seconds.
const KEPT: Duration = Duration::from_secs(60);

/// The unpacked tars, and who is served.
#[derive(Debug, Default)]
pub(crate) struct Desk {
    open: Mutex<Vec<Open>>,
    seats: Arc<()>,
    at_work: Mutex<usize>,
    finished: Condvar,
}

/// The right to wait for an answer. Dropping it gives it back.
#[derive(Debug)]
pub(crate) struct Seat(#[expect(dead_code, reason = "counted by its references")] Arc<()>);

/// One of those who are answered now. Dropping it lets the next one begin.
struct Work<'a>(&'a Desk);

impl Drop for Work<'_> {
    fn drop(&mut self) {
        let at_work = self.0.at_work.lock();
        *at_work.unwrap_or_else(PoisonError::into_inner) -= 1;
        self.0.finished.notify_one();
    }
}

#[derive(Debug)]
struct Open {
    sha256: Sha256,
    tar: Arc<Unpacked>,
    used: Instant,
}

impl Desk {
    /// A seat, if one is free.
    pub(crate) fn sit_down(&self) -> Option<Seat> {
        let seat = Seat(Arc::clone(&self.seats));
        (Arc::strong_count(&self.seats) <= 1 + SEATS).then_some(seat)
    }

    /// Waits until it is this one's turn; `None` when that takes too long.
    fn begin(&self) -> Option<Work<'_>> {
        let at_work = self.at_work.lock().unwrap_or_else(PoisonError::into_inner);
        let is_full = |at_work: &mut usize| *at_work >= AT_WORK_MAX;
        let turn = self
            .finished
            .wait_timeout_while(at_work, QUEUE_PATIENCE, is_full);
        let (mut at_work, waited) = turn.unwrap_or_else(PoisonError::into_inner);
        if waited.timed_out() {
            return None;
        }
        *at_work += 1;
        Some(Work(self))
    }

    /// Makes a segment. May take seconds.
    pub(crate) fn answer(&self, store: &Store, request: &Request, _: &Seat) -> Response {
        let Some(_work) = self.begin() else {
            return Response::No;
        };
        self.make(store, request).unwrap_or_else(|error| {
            let error: &dyn std::error::Error = &error;
            tracing::info!(new = %request.new, error, "no delta can be made of an output");
            Response::No
        })
    }

    fn make(&self, store: &Store, request: &Request) -> Result<Response, DeltaError> {
        let Some((earlier, old)) = self.first_that_is_here(store, &request.earlier)? else {
            return Ok(Response::No);
        };
        let Some(new) = self.tar(store, &request.new)? else {
            return Ok(Response::No);
        };
        let segment = make_segment(&old, &new, request.segment)?;
        Ok(segment.map_or(Response::No, |segment| Response::Segment {
            earlier,
            segment,
        }))
    }

    fn first_that_is_here(
        &self,
        store: &Store,
        earlier: &[Sha256],
    ) -> Result<Option<(u8, Arc<Unpacked>)>, DeltaError> {
        for (index, sha256) in (0..).zip(earlier) {
            if let Some(tar) = self.tar(store, sha256)? {
                return Ok(Some((index, tar)));
            }
        }
        Ok(None)
    }

    /// The tar inside an output. Who wants the same at the same time waits for it.
    fn tar(&self, store: &Store, sha256: &Sha256) -> Result<Option<Arc<Unpacked>>, DeltaError> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if let Some(found) = open.iter_mut().find(|open| open.sha256 == *sha256) {
            found.used = now;
            return Ok(Some(Arc::clone(&found.tar)));
        }
        let Some(tar) = store.unpack_output(sha256)?.map(Arc::new) else {
            return Ok(None);
        };
        open.push(Open {
            sha256: *sha256,
            tar: Arc::clone(&tar),
            used: now,
        });
        make_way(&mut open);
        Ok(Some(tar))
    }

    /// Lets go what nobody asks about any more.
    pub(crate) fn tidy(&self, now: Instant) {
        let mut open = match self.open.try_lock() {
            Ok(open) => open,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            // Somebody is using it.
            Err(TryLockError::WouldBlock) => return,
        };
        open.retain(|open| now.saturating_duration_since(open.used) < KEPT);
    }
}

/// Lets go those that were not used for the longest time, until the others are within bounds.
fn make_way(open: &mut Vec<Open>) {
    open.sort_by_key(|open| open.used);
    let bytes = |open: &[Open]| open.iter().map(|open| open.tar.size()).sum::<u64>();
    while open.len() > 1 && (open.len() > OPEN_MAX || bytes(open) > OPEN_BYTES_MAX) {
        open.remove(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seats_are_few_and_come_back() {
        let desk = Desk::default();
        let seats: Vec<_> = (0..SEATS).filter_map(|_| desk.sit_down()).collect();
        assert_eq!(seats.len(), SEATS);
        assert!(desk.sit_down().is_none());
        drop(seats);
        assert!(desk.sit_down().is_some());
    }

    #[test]
    fn few_are_at_work_and_the_next_one_begins_when_one_ends() {
        let desk = Desk::default();
        let mut work: Vec<_> = (0..AT_WORK_MAX).filter_map(|_| desk.begin()).collect();
        std::thread::scope(|scope| {
            let next = scope.spawn(|| desk.begin().is_some());
            work.pop();
            assert!(next.join().unwrap());
        });
        assert_eq!(*desk.at_work.lock().unwrap(), AT_WORK_MAX - 1);
    }

    #[test]
    fn an_output_that_is_not_here_is_no_failure() {
        let home = tempfile::tempdir().unwrap();
        let store = Store::open(home.path()).unwrap();
        let desk = Desk::default();
        let request = Request {
            new: Sha256::of(b"new"),
            segment: 0,
            earlier: vec![Sha256::of(b"old")],
        };
        let seat = desk.sit_down().unwrap();
        assert_eq!(desk.answer(&store, &request, &seat), Response::No);
        desk.tidy(Instant::now() + KEPT);
    }
}
