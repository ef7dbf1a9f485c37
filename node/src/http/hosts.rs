//! Which web servers could not be reached lately.
//!
//! A tree names the same few servers for hundreds of sources. One that is down would cost each of them a deadline, so it
//! is asked last for a while: last and not never, for a name server that lost one packet is no reason to miss a source.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long a server stays last: about the time of fetching a tree's sources, well below that of a repair.
const LAST_FOR: Duration = Duration::from_secs(60);
/// Servers remembered. A tree with more dead ones than this is not worth the memory.
const HOSTS_MAX: usize = 1024;

/// Servers that could not be reached, and when that was.
#[derive(Debug, Default)]
pub(super) struct Hosts {
    unreachable: Mutex<HashMap<String, Instant>>,
}

impl Hosts {
    /// The URLs in the order in which to try them: as they stand, those of unreachable servers after all others.
    pub(super) fn order(&self, urls: Vec<String>, now: Instant) -> Vec<String> {
        let mut unreachable = self
            .unreachable
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        unreachable.retain(|_, since| now.saturating_duration_since(*since) < LAST_FOR);
        let (last, mut first): (Vec<_>, Vec<_>) = urls
            .into_iter()
            .partition(|url| unreachable.contains_key(host(url)));
        first.extend(last);
        first
    }

    /// This URL's server could not be reached.
    pub(super) fn note_unreachable(&self, url: &str, now: Instant) {
        let mut unreachable = self
            .unreachable
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if unreachable.len() < HOSTS_MAX {
            unreachable.insert(host(url).to_owned(), now);
        }
    }
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
    fn an_unreachable_server_is_last_for_a_minute_and_then_as_before() {
        let (hosts, now) = (Hosts::default(), Instant::now());
        let listed = urls(&["http://a/x", "http://b/x", "http://a:81/y"]);
        assert_eq!(hosts.order(listed.clone(), now), listed);
        hosts.note_unreachable("http://a/other", now);
        let expected = urls(&["http://b/x", "http://a:81/y", "http://a/x"]);
        assert_eq!(hosts.order(listed.clone(), now), expected);
        assert_eq!(hosts.order(listed.clone(), now + LAST_FOR), listed);
    }

    #[test]
    fn a_host_is_what_stands_before_the_path() {
        assert_eq!(host("https://a.b:1/c/d"), "https://a.b:1");
        assert_eq!(host("file:///c"), "file://");
        assert_eq!(host("nonsense"), "nonsense");
    }
}
