//! Reading what a visitor asks for. Nothing here does anything; everything is bounded by the size of a request's head.

use std::net::{IpAddr, SocketAddr};

use base::Cid;
use hyper::header::{self, HeaderMap, HeaderName};
use hyper::{Method, Request};
use store::car::{ByteRange, Scope, Selection};

use crate::address::{Reach, reach_of_ip};

/// Longest CID in a path, in characters: a digest of 64 bytes in the widest base takes below 200.
const CID_TEXT_BYTES_MAX: usize = 256;

/// A request as far as we care for it.
#[derive(Debug)]
pub(super) struct Asked<'r> {
    /// Whether only the head of the answer is wanted.
    pub(super) head: bool,
    /// The parts of the path, decoded. `/` has none.
    pub(super) path: Vec<String>,
    /// The path as it came.
    pub(super) raw_path: &'r str,
    query: Vec<(String, String)>,
    headers: &'r HeaderMap,
}

/// Why a request cannot be answered: the status and a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal(pub(super) u16, pub(super) String);

impl Refusal {
    pub(super) fn new(code: u16, reason: impl Into<String>) -> Self {
        Self(code, reason.into())
    }
}

impl<'r> Asked<'r> {
    /// Reads the head of a request.
    pub(super) fn of<B>(request: &'r Request<B>) -> Result<Self, Refusal> {
        let head = match *request.method() {
            Method::GET => false,
            Method::HEAD => true,
            _ => return Err(Refusal::new(405, "only GET and HEAD are answered here")),
        };
        let raw_path = request.uri().path();
        let bad = || Refusal::new(400, "the path is not valid UTF-8");
        let parts = raw_path.split('/').filter(|part| !part.is_empty());
        let path = parts
            .map(|part| decode(part, false))
            .collect::<Option<_>>()
            .ok_or_else(bad)?;
        let query = request.uri().query().unwrap_or_default();
        let pairs = query.split('&').filter(|pair| !pair.is_empty());
        let query = pairs
            .map(|pair| {
                let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                Some((decode(name, true)?, decode(value, true)?))
            })
            .collect::<Option<_>>()
            .ok_or_else(bad)?;
        Ok(Self {
            head,
            path,
            raw_path,
            query,
            headers: request.headers(),
        })
    }

    /// The first value of a parameter.
    pub(super) fn parameter(&self, name: &str) -> Option<&str> {
        let found = self.query.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str())
    }

    /// A header as text; what is no text is as good as missing.
    pub(super) fn header(&self, name: HeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// Whether the visitor has what this tag names already.
    pub(super) fn has(&self, etag: &str) -> bool {
        let bare = |tag: &str| tag.trim().trim_start_matches("W/").to_owned();
        let tags = self.header(header::IF_NONE_MATCH).unwrap_or_default();
        tags.split(',')
            .any(|tag| tag.trim() == "*" || bare(tag) == bare(etag))
    }

    /// Whether the visitor only wants what costs us nothing to find.
    pub(super) fn only_if_cached(&self) -> bool {
        let control = self.header(header::CACHE_CONTROL).unwrap_or_default();
        control.split(',').any(|d| d.trim() == "only-if-cached")
    }

    /// Whether the request was made on this machine, under a name of this machine, and not by a page of another site. With
    /// `network`, also on our own network, by the number of this machine: a page that had its name point here sends that name.
    pub(super) fn is_of_this_machine(&self, visitor: SocketAddr, network: bool) -> bool {
        let host = host_name(self.header(header::HOST).unwrap_or_default());
        let ip = host.parse::<IpAddr>().ok();
        let here = host.eq_ignore_ascii_case("localhost") || ip.is_some_and(is_loopback);
        let is_near = reach_of_ip(visitor.ip().to_canonical()) == Reach::Near;
        let foreign_page = self
            .header(HeaderName::from_static("sec-fetch-site"))
            .is_some_and(|site| !matches!(site, "none" | "same-origin"));
        let forwarded = ["forwarded", "x-forwarded-for", "x-real-ip", "via"]
            .map(HeaderName::from_static)
            .iter()
            .any(|name| self.headers.contains_key(name));
        let local = is_loopback(visitor.ip()) && here;
        (local || (network && is_near && ip.is_some())) && !foreign_page && !forwarded
    }

    /// Which form the visitor wants: the parameter decides, else the first kind it accepts that we have.
    pub(super) fn format(&self) -> Result<Format, Refusal> {
        if let Some(format) = self.parameter("format") {
            return match format {
                "raw" => Ok(Format::Raw),
                "car" => Ok(Format::Car(self.parameter("car-dups") == Some("y"))),
                "ipns-record" => Ok(Format::IpnsRecord),
                _ => Err(not_acceptable()),
            };
        }
        let accepted = self.header(header::ACCEPT).unwrap_or_default();
        accepted
            .split(',')
            .find_map(|kind| self.acceptable(kind))
            .unwrap_or_else(|| Err(not_acceptable()))
    }

    fn acceptable(&self, kind: &str) -> Option<Result<Format, Refusal>> {
        let mut parts = kind.split(';').map(str::trim);
        match parts.next()? {
            "application/vnd.ipld.raw" => Some(Ok(Format::Raw)),
            "application/vnd.ipfs.ipns-record" => Some(Ok(Format::IpnsRecord)),
            "application/vnd.ipld.car" => {
                let mut duplicates = false;
                for parameter in parts {
                    match parameter.split_once('=') {
                        Some(("version", version)) if version != "1" => {
                            return Some(Err(Refusal::new(406, "archives have version 1 here")));
                        }
                        Some(("dups", "y")) => duplicates = true,
                        _ => {}
                    }
                }
                // The query has the last word.
                let duplicates = self.parameter("car-dups").map_or(duplicates, |d| d == "y");
                Some(Ok(Format::Car(duplicates)))
            }
            _ => None,
        }
    }

    /// How much of a DAG is wanted.
    pub(super) fn selection(&self, duplicates: bool) -> Result<Selection, Refusal> {
        let range = self.parameter("entity-bytes").map(byte_range).transpose()?;
        let scope = match (self.parameter("dag-scope"), range) {
            (Some("block"), _) => Scope::Block,
            (Some("entity"), _) | (None, Some(_)) => Scope::Entity,
            (Some("all"), _) | (None, None) => Scope::All,
            (Some(_), _) => return Err(Refusal::new(400, "dag-scope is block, entity or all")),
        };
        if self.parameter("car-version").is_some_and(|v| v != "1") {
            return Err(Refusal::new(400, "archives have version 1 here"));
        }
        match self.parameter("car-order") {
            None | Some("dfs" | "unk") => {}
            Some(_) => return Err(Refusal::new(400, "car-order is dfs or unk")),
        }
        let bytes = range.filter(|_| scope == Scope::Entity);
        Ok(Selection {
            scope,
            bytes,
            duplicates,
        })
    }

    /// The part of a file that is wanted, of a file of so many bytes: the first byte and the one after the last.
    /// `None` is all of it: no range, several, one in a form we do not know, or one of another version of the file.
    pub(super) fn range(&self, size: u64, etag: &str) -> Result<Option<(u64, u64)>, Refusal> {
        if self.header(header::IF_RANGE).is_some_and(|tag| tag != etag) {
            return Ok(None);
        }
        let range = self.header(header::RANGE);
        let Some((from, to)) = range
            .and_then(|range| range.strip_prefix("bytes="))
            .and_then(|range| range.split_once('-'))
        else {
            return Ok(None);
        };
        let number = |text: &str| text.trim().parse::<u64>().ok();
        let (first, end) = match (from.trim(), to.trim()) {
            ("", last) => match number(last) {
                Some(last) => (size.saturating_sub(last), size),
                None => return Ok(None),
            },
            (first, "") => match number(first) {
                Some(first) => (first, size),
                None => return Ok(None),
            },
            (first, last) => match (number(first), number(last)) {
                (Some(first), Some(last)) if first <= last => {
                    (first, last.saturating_add(1).min(size))
                }
                _ => return Ok(None),
            },
        };
        if first >= end {
            let reason = format!("the file has {size} bytes");
            return Err(Refusal::new(416, reason));
        }
        Ok(Some((first, end)))
    }
}

/// Forms in which a gateway gives content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// One block.
    Raw,
    /// An archive; whether blocks that occur several times are repeated.
    Car(bool),
    /// The signed record of a name.
    IpnsRecord,
}

fn not_acceptable() -> Refusal {
    let reason = "this gateway gives what can be verified: ask for format=raw, format=car or format=ipns-record";
    Refusal::new(406, reason)
}

/// Reads a CID out of a path, be it one with a hash that we do not know or with the content inside.
pub(super) fn cid(text: &str) -> Result<Cid, Refusal> {
    let bad = || Refusal::new(400, "the path has no CID where it should have one");
    if text.len() > CID_TEXT_BYTES_MAX {
        return Err(bad());
    }
    text.parse().map_err(|_| bad())
}

/// Reads `FROM:TO`, where TO is `*` for the end.
fn byte_range(text: &str) -> Result<ByteRange, Refusal> {
    let bad = || Refusal::new(400, "entity-bytes is two numbers such as 0:1023, or 0:*");
    let (from, to) = text.split_once(':').ok_or_else(bad)?;
    let from = from.parse().map_err(|_| bad())?;
    let to = match to {
        "*" => None,
        number => Some(number.parse().map_err(|_| bad())?),
    };
    Ok(ByteRange { from, to })
}

/// Percent decoding; `plus` stands for a blank in queries.
fn decode(text: &str, plus: bool) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        match byte {
            b'%' => {
                let digits = std::str::from_utf8(rest.get(..2)?).ok()?;
                bytes.push(u8::from_str_radix(digits, 16).ok()?);
                rest = &rest[2..];
            }
            b'+' if plus => bytes.push(b' '),
            byte => bytes.push(*byte),
        }
    }
    String::from_utf8(bytes).ok()
}

/// Whether an address is this machine's own.
fn is_loopback(ip: IpAddr) -> bool {
    ip.to_canonical().is_loopback()
}

/// The name or number in a `Host` header, without the port.
fn host_name(host: &str) -> &str {
    match host.strip_prefix('[') {
        Some(rest) => rest.split_once(']').map_or(rest, |(ip, _)| ip),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(uri: &str, headers: &[(&str, &str)]) -> Request<()> {
        let request = Request::builder().uri(uri);
        let with = |request: hyper::http::request::Builder, (name, value): &(&str, &str)| {
            request.header(*name, *value)
        };
        headers.iter().fold(request, with).body(()).unwrap()
    }

    fn asked<T>(uri: &str, headers: &[(&str, &str)], ask: impl FnOnce(&Asked<'_>) -> T) -> T {
        let request = request(uri, headers);
        ask(&Asked::of(&request).unwrap())
    }

    #[test]
    fn paths_and_parameters_are_decoded_and_bad_ones_refused() {
        asked("/ipfs//a%2Fb/%C3%A4?x=1+2&y&x=3", &[], |asked| {
            assert_eq!(asked.path, ["ipfs", "a/b", "ä"]);
            assert_eq!(asked.parameter("x"), Some("1 2"));
            assert_eq!(asked.parameter("y"), Some(""));
            assert_eq!(asked.parameter("z"), None);
        });
        for uri in ["/%", "/%f", "/%ff", "/a?%zz"] {
            assert_eq!(Asked::of(&request(uri, &[])).unwrap_err().0, 400, "{uri}");
        }
        let mut post = request("/", &[]);
        *post.method_mut() = Method::POST;
        assert_eq!(Asked::of(&post).unwrap_err().0, 405);
    }

    #[test]
    fn the_parameter_decides_before_what_is_accepted() {
        let format = |uri: &str, accept: &str| {
            let request = request(uri, &[("accept", accept)]);
            Asked::of(&request).unwrap().format()
        };
        let car = "text/html, application/vnd.ipld.car; version=1; order=dfs; dups=y";
        assert_eq!(format("/", car), Ok(Format::Car(true)));
        assert_eq!(format("/?car-dups=n", car), Ok(Format::Car(false)));
        assert_eq!(format("/?format=raw", car), Ok(Format::Raw));
        assert_eq!(format("/", "application/vnd.ipld.raw"), Ok(Format::Raw));
        for (uri, accept) in [
            ("/", "*/*"),
            ("/?format=dag-json", "application/vnd.ipld.raw"),
            ("/", "application/vnd.ipld.car; version=2"),
        ] {
            assert_eq!(format(uri, accept).unwrap_err().0, 406, "{uri} {accept}");
        }
    }

    #[test]
    fn a_selection_is_read_strictly() {
        let selection = |uri: &str| asked(uri, &[], |asked| asked.selection(false));
        assert_eq!(selection("/").unwrap(), Selection::default());
        let ranged = selection("/?entity-bytes=-5:*").unwrap();
        let bytes = Some(ByteRange { from: -5, to: None });
        assert_eq!((ranged.scope, ranged.bytes), (Scope::Entity, bytes));
        for bad in [
            "dag-scope=some",
            "entity-bytes=1",
            "entity-bytes=*:1",
            "car-version=2",
            "car-order=bfs",
        ] {
            assert_eq!(selection(&format!("/?{bad}")).unwrap_err().0, 400, "{bad}");
        }
    }

    #[test]
    fn ranges_of_files_follow_the_standard() {
        let range = |text: &str| asked("/", &[("range", text)], |asked| asked.range(10, "\"a\""));
        assert_eq!(range("bytes=2-4"), Ok(Some((2, 5))));
        assert_eq!(range("bytes=2-"), Ok(Some((2, 10))));
        assert_eq!(range("bytes=-3"), Ok(Some((7, 10))));
        assert_eq!(range("bytes=0-99"), Ok(Some((0, 10))));
        for ignored in ["bytes=4-2", "bytes=1-2,4-5", "lines=1-2", "bytes=x-"] {
            assert_eq!(range(ignored), Ok(None), "{ignored}");
        }
        assert_eq!(range("bytes=10-").unwrap_err().0, 416);
        let other = [("range", "bytes=2-"), ("if-range", "\"b\"")];
        assert_eq!(asked("/", &other, |a| a.range(10, "\"a\"")), Ok(None));
    }

    #[test]
    fn only_this_machine_under_its_own_name_is_this_machine() {
        let local: SocketAddr = "127.0.0.1:1".parse().unwrap();
        let is_ours = |visitor: SocketAddr, headers: &[(&str, &str)]| {
            asked("/", headers, |asked| {
                asked.is_of_this_machine(visitor, false)
            })
        };
        for host in [
            "localhost",
            "LOCALHOST:8421",
            "127.0.0.1:8421",
            "[::1]:8421",
        ] {
            assert!(is_ours(local, &[("host", host)]), "{host}");
        }
        for host in [
            "evil.example",
            "evil.example:8421",
            "localhost.evil.example",
            "10.0.0.1",
        ] {
            assert!(!is_ours(local, &[("host", host)]), "{host}");
        }
        let host = ("host", "localhost");
        assert!(!is_ours("10.0.0.1:1".parse().unwrap(), &[host]));
        assert!(!is_ours(local, &[]));
        assert!(!is_ours(local, &[host, ("sec-fetch-site", "cross-site")]));
        assert!(is_ours(local, &[host, ("sec-fetch-site", "none")]));
        assert!(!is_ours(local, &[host, ("x-forwarded-for", "1.2.3.4")]));

        let is_neighbours = |visitor: &str, host: &str| {
            let visitor = visitor.parse().unwrap();
            asked("/", &[("host", host)], |asked| {
                asked.is_of_this_machine(visitor, true)
            })
        };
        assert!(is_neighbours("10.0.0.1:1", "10.0.0.2:8421"));
        assert!(is_neighbours("127.0.0.1:1", "localhost"));
        assert!(
            !is_neighbours("10.0.0.1:1", "mirror.example"),
            "a name may be rebound"
        );
        assert!(!is_neighbours("192.0.2.1:1", "192.0.2.2"), "a stranger");
    }
}
