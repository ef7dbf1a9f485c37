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
/// Servers remembered. A tree with more dead ones than this is not worth the memory.
const HOSTS_MAX: usize = 1024;

/// Servers that did not answer, and when that was.
#[derive(Debug, Default)]
pub(super) struct Hosts {
    silent: Mutex<HashMap<String, Instant>>,
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
    fn a_host_is_what_stands_before_the_path() {
        assert_eq!(host("https://a.b:1/c/d"), "https://a.b:1");
        assert_eq!(host("file:///c"), "file://");
        assert_eq!(host("nonsense"), "nonsense");
    }
}
