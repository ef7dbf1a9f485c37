//! Many like things to be done, several at a time.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

/// Does `work` for each item with at most so many hands, and begins nothing any more once `stop` says so. The results of what
/// was done, in the order in which it ended.
pub fn work_off<'i, T: Sync, R: Send>(
    items: &'i [T],
    hands: usize,
    stop: impl Fn() -> bool + Sync,
    work: impl Fn(&'i T) -> R + Sync,
) -> Vec<R> {
    let (next, done) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let hand = || {
        while !stop()
            && let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed))
        {
            let result = work(item);
            // Whoever panicked had nothing in the list but whole results.
            done.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(result);
        }
    };
    thread::scope(|scope| {
        for _ in 0..hands.min(items.len()) {
            scope.spawn(hand);
        }
    });
    done.into_inner().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_done_once_and_nothing_is_begun_after_the_stop() {
        let items: Vec<_> = (0..100).collect();
        let mut done = work_off(&items, 4, || false, |n| n * 2);
        done.sort_unstable();
        assert_eq!(done, (0..100).map(|n| n * 2).collect::<Vec<_>>());
        let begun = AtomicUsize::new(0);
        let stop = || begun.load(Ordering::Relaxed) > 0;
        let done = work_off(&items, 1, stop, |_| begun.fetch_add(1, Ordering::Relaxed));
        assert_eq!(done.len(), 1);
        assert!(work_off(&[] as &[u8], 4, || false, |n| *n).is_empty());
    }
}
