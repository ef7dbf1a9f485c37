//! The download limit at the door to web servers: who reads waits, and so does the server.

use std::io::{self, Read};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use bitswap::Budget;
use store::substitute::Progress;

use crate::address::{Reach, reach_of_ip};

/// Bytes read at a time under a limit: little enough that several transfers share it evenly.
const PIECE_BYTES: usize = 16 << 10;
/// How often cancelling is looked at while waiting.
const PAUSE_STEP: Duration = Duration::from_millis(50);

/// A body that is read no faster than a limit allows.
pub(super) struct Throttled<'a, R> {
    body: R,
    /// None where no limit counts.
    budget: Option<&'a Budget>,
    progress: &'a dyn Progress,
}

impl<'a, R: Read> Throttled<'a, R> {
    /// The body of what lies at `url`.
    pub(super) fn new(body: R, budget: &'a Budget, url: &str, progress: &'a dyn Progress) -> Self {
        Self {
            body,
            budget: (!is_near(url)).then_some(budget),
            progress,
        }
    }
}

impl<R: Read> Read for Throttled<'_, R> {
    fn read(&mut self, piece: &mut [u8]) -> io::Result<usize> {
        let Some(budget) = self.budget.filter(|budget| budget.is_limited()) else {
            return self.body.read(piece);
        };
        while let Err(later) = budget.ready(0, Instant::now()) {
            // Whoever reads looks at this too, and ends.
            if self.progress.cancelled() {
                break;
            }
            std::thread::sleep(later.duration_since(Instant::now()).min(PAUSE_STEP));
        }
        let most = piece.len().min(PIECE_BYTES);
        let length = self.body.read(&mut piece[..most])?;
        budget.charge(length, Instant::now());
        Ok(length)
    }
}

/// Whether a URL names a server of this machine or of the local network.
fn is_near(url: &str) -> bool {
    let Some(host) = url.parse::<ureq::http::Uri>().ok() else {
        return false;
    };
    let host = host.host().unwrap_or_default();
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost"
        || host
            .parse::<IpAddr>()
            .is_ok_and(|ip| reach_of_ip(ip) == Reach::Near)
}

#[cfg(test)]
mod tests {
    use store::substitute::NoProgress;

    use super::*;

    #[test]
    fn servers_of_the_local_network_are_told_by_their_address() {
        for near in [
            "http://127.0.0.1:8421/a",
            "http://localhost/",
            "http://[::1]:80/",
            "http://192.168.1.7/x",
        ] {
            assert!(is_near(near), "{near}");
        }
        for far in ["https://example.org/a", "http://8.8.8.8/", "no url"] {
            assert!(!is_near(far), "{far}");
        }
    }

    #[test]
    fn a_body_is_read_no_faster_than_the_limit() {
        let started = Instant::now();
        let budget = Budget::new(Some(1_000_000), started);
        let body = vec![0; 1_300_000];
        let mut body = Throttled::new(&body[..], &budget, "http://far.example/", &NoProgress);
        let length = io::copy(&mut body, &mut io::sink()).unwrap();
        assert_eq!(length, 1_300_000);
        // A second's credit is free, the rest is waited for.
        assert!(started.elapsed() >= Duration::from_millis(250));
    }

    #[test]
    fn the_local_network_does_not_wait() {
        let budget = Budget::new(Some(1), Instant::now());
        budget.charge(1 << 30, Instant::now());
        let mut body = Throttled::new(&[0; 4096][..], &budget, "http://127.0.0.1/", &NoProgress);
        assert_eq!(io::copy(&mut body, &mut io::sink()).unwrap(), 4096);
    }
}
