//! Which web servers did not answer lately: the one memory of all who ask over HTTP.
//!
//! A tree names the same few servers for hundreds of sources. One that is down would cost each of them a deadline, so it
//! is asked last for a while: last and not never, for a name server that lost one packet is no reason to miss a source.
//! Caches and gateways are asked for every package, and can be done without: they are left out, and for longer.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long a server stays last: about the time of fetching a tree's sources, well below that of a repair.
const LAST_FOR: Duration = Duration::from_secs(60);
/// How long a server is done without: most commands are over by then, and a long build gets back one that was restarted.
const LEFT_OUT_FOR: Duration = Duration::from_secs(600);
/// Connections to one server that are begun at once, and how long each further one waits: simple servers, such as Python's, queue
/// five, and who finds no room there tries again after a second. So thirty questions are on their way within 50 ms.
const BEGUN_AT_ONCE: u32 = 4;
/// See [`BEGUN_AT_ONCE`].
const BEGIN_INTERVAL: Duration = Duration::from_millis(2);
/// Servers remembered. A tree with more dead ones than this is not worth the memory.
const HOSTS_MAX: usize = 1024;

/// Servers that did not answer, and when that was; and what is known of those that did.
#[derive(Debug, Default)]
pub(super) struct Hosts {
    silent: Mutex<HashMap<String, Instant>>,
    standings: Mutex<HashMap<String, Standing>>,
    /// When a connection to a server would begin if all were begun at their interval.
    begun: Mutex<HashMap<String, Instant>>,
}

/// What is known of a server that answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Standing {
    /// How long a small question took, at best.
    pub(super) latency: Option<Duration>,
    /// What it sent was right, the last time that something was found out.
    pub(super) is_proven: bool,
    /// When it sent something wrong, or promised something and did not send it.
    pub(super) failed: Option<Instant>,
}

impl Standing {
    /// Whether it is tried after all others.
    pub(super) fn is_last(&self, now: Instant) -> bool {
        is_within(self.failed.as_ref(), now, LAST_FOR)
    }
}

impl Hosts {
    /// The URLs in the order in which to try them: as they stand, those of silent servers after all others.
    pub(super) fn order(&self, urls: Vec<String>, now: Instant) -> Vec<String> {
        let silent = self.silent(now);
        let is_last = |url: &String| is_within(silent.get(host(url)), now, LAST_FOR);
        let (last, mut first): (Vec<_>, Vec<_>) = urls.into_iter().partition(is_last);
        first.extend(last);
        first
    }

    /// Whether to do without this URL's server.
    pub(super) fn is_left_out(&self, url: &str, now: Instant) -> bool {
        self.silent(now).contains_key(host(url))
    }

    /// This URL's server did not answer; `true` when that is news.
    pub(super) fn note_silent(&self, url: &str, now: Instant) -> bool {
        let mut silent = self.silent(now);
        let is_known = silent.contains_key(host(url));
        if is_known || silent.len() < HOSTS_MAX {
            silent.insert(host(url).to_owned(), now);
        }
        !is_known
    }

    /// When one more connection to this URL's server may begin.
    pub(super) fn begin_at(&self, url: &str, now: Instant) -> Instant {
        // Every change is one insertion or assignment, so a panic elsewhere leaves the map whole.
        let mut begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner);
        if begun.len() >= HOSTS_MAX {
            begun.retain(|_, due| *due > now);
        }
        let due = begun.entry(host(url).to_owned()).or_insert(now);
        *due = (*due).max(now) + BEGIN_INTERVAL;
        (*due - BEGIN_INTERVAL * BEGUN_AT_ONCE).max(now)
    }

    /// What is known of this URL's server.
    pub(super) fn standing(&self, url: &str) -> Standing {
        self.standings().get(host(url)).copied().unwrap_or_default()
    }

    /// This URL's server has answered a small question.
    pub(super) fn note_answer(&self, url: &str, latency: Duration) {
        self.note(url, |standing| {
            let best = standing.latency.map_or(latency, |known| known.min(latency));
            standing.latency = Some(best);
        });
    }

    /// What this URL's server sent was right.
    pub(super) fn note_right(&self, url: &str) {
        self.note(url, |standing| {
            (standing.is_proven, standing.failed) = (true, None);
        });
    }

    /// What this URL's server sent was wrong, or never came.
    pub(super) fn note_failed(&self, url: &str, now: Instant) {
        self.note(url, |standing| {
            (standing.is_proven, standing.failed) = (false, Some(now));
        });
    }

    fn note(&self, url: &str, change: impl FnOnce(&mut Standing)) {
        let mut standings = self.standings();
        if standings.len() < HOSTS_MAX || standings.contains_key(host(url)) {
            change(standings.entry(host(url).to_owned()).or_default());
        }
    }

    fn standings(&self) -> MutexGuard<'_, HashMap<String, Standing>> {
        // Every change is one insertion or assignment, so a panic elsewhere leaves the map whole.
        self.standings
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// What is remembered and still counts.
    fn silent(&self, now: Instant) -> MutexGuard<'_, HashMap<String, Instant>> {
        // Every change is one insertion or removal, so a panic elsewhere leaves the map whole.
        let mut silent = self.silent.lock().unwrap_or_else(PoisonError::into_inner);
        silent.retain(|_, since| is_within(Some(since), now, LEFT_OUT_FOR));
        silent
    }
}

fn is_within(since: Option<&Instant>, now: Instant, duration: Duration) -> bool {
    since.is_some_and(|since| now.saturating_duration_since(*since) < duration)
}

/// Scheme, host and port: what stands before the path.
fn host(url: &str) -> &str {
    let start = url.find("://").map_or(0, |at| at + 3);
    let length = url[start..].find('/').unwrap_or(url.len() - start);
    &url[..start + length]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn urls(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn a_silent_server_is_last_for_a_minute_and_then_as_before() {
        let (hosts, now) = (Hosts::default(), Instant::now());
        let listed = urls(&["http://a/x", "http://b/x", "http://a:81/y"]);
        assert_eq!(hosts.order(listed.clone(), now), listed);
        assert!(hosts.note_silent("http://a/other", now));
        let expected = urls(&["http://b/x", "http://a:81/y", "http://a/x"]);
        assert_eq!(hosts.order(listed.clone(), now), expected);
        assert_eq!(hosts.order(listed.clone(), now + LAST_FOR), listed);
    }

    #[test]
    fn what_can_be_done_without_is_left_out_for_longer() {
        let (hosts, now) = (Hosts::default(), Instant::now());
        assert!(!hosts.is_left_out("http://a/cache", now));
        assert!(hosts.note_silent("http://a/cache", now));
        assert!(!hosts.note_silent("http://a/cache", now));
        assert!(hosts.is_left_out("http://a/cache", now + LAST_FOR));
        assert!(!hosts.is_left_out("http://b/cache", now));
        assert!(!hosts.is_left_out("http://a/cache", now + LEFT_OUT_FOR));
    }

    #[test]
    fn a_server_is_judged_by_what_it_sent_last() {
        let (hosts, now) = (Hosts::default(), Instant::now());
        assert_eq!(hosts.standing("http://a/x"), Standing::default());
        hosts.note_right("http://a/x");
        hosts.note_answer("http://a/y", Duration::from_millis(3));
        let standing = hosts.standing("http://a/z");
        assert!(standing.is_proven && !standing.is_last(now));
        assert_eq!(standing.latency, Some(Duration::from_millis(3)));
        hosts.note_failed("http://a/x", now);
        let standing = hosts.standing("http://a/x");
        assert!(!standing.is_proven && standing.is_last(now));
        assert!(!standing.is_last(now + LAST_FOR));
        hosts.note_right("http://a/x");
        assert!(!hosts.standing("http://a/x").is_last(now));
    }

    #[test]
    fn some_connections_begin_at_once_and_further_ones_one_after_the_other() {
        let (hosts, now) = (Hosts::default(), Instant::now());
        let begin = |at| hosts.begin_at("http://a/x", at);
        let waits: Vec<_> = (0..7).map(|_| (begin(now) - now).as_millis()).collect();
        assert_eq!(waits, [0, 0, 0, 0, 2, 4, 6]);
        assert_eq!(hosts.begin_at("http://b/x", now), now);
        let later = now + Duration::from_secs(1);
        assert_eq!(begin(later), later);
    }

    #[test]
    fn a_host_is_what_stands_before_the_path() {
        assert_eq!(host("https://a.b:1/c/d"), "https://a.b:1");
        assert_eq!(host("file:///c"), "file://");
        assert_eq!(host("nonsense"), "nonsense");
    }
}
