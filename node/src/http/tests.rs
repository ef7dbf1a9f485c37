//! Against a small server that misbehaves on request.

mod caches;
mod gateways;
mod resuming;

use std::collections::VecDeque;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use base::Sha256;
use store::Store;
use store::substitute::NoProgress;

use super::*;

/// What the server does with one request.
enum Act {
    /// Sends everything, with a length.
    Whole(Vec<u8>),
    /// Promises everything, sends the first part, and closes.
    Truncated(Vec<u8>, usize),
    /// Sends what the request's range asks for.
    Ranged(Vec<u8>),
    /// Sends another range than the one asked for.
    WrongRange(Vec<u8>),
    /// Answers with a status and nothing else.
    Status(&'static str),
    /// Redirects.
    Redirect(String),
    /// Says nothing, and waits for the client to leave.
    Silent,
    /// Sends a head and some bytes, then waits for the client to leave.
    Stalled(Vec<u8>, usize),
    /// Sends bytes as long as the client takes them.
    Endless,
}

/// A server that carries out one act per request and ends with the last.
struct Server {
    url: String,
    thread: JoinHandle<Vec<String>>,
}

impl Server {
    fn new(acts: impl IntoIterator<Item = Act>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/file", listener.local_addr().unwrap());
        let acts: VecDeque<_> = acts.into_iter().collect();
        let thread = std::thread::spawn(move || {
            let serve = |act| {
                let (stream, _) = listener.accept().unwrap();
                serve(&stream, act)
            };
            acts.into_iter().map(serve).collect()
        });
        Self { url, thread }
    }

    /// The heads of all requests, once all acts are over.
    fn requests(self) -> Vec<String> {
        self.thread.join().unwrap()
    }
}

fn serve(stream: &TcpStream, act: Act) -> String {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut head = String::new();
    while reader.read_line(&mut head).unwrap() > 2 {}
    let range = head
        .lines()
        .find_map(|line| {
            line.to_lowercase()
                .strip_prefix("range: bytes=")?
                .strip_suffix('-')?
                .parse()
                .ok()
        })
        .unwrap_or(0);
    // A client that leaves early breaks the pipe, which some of these acts are about.
    let _ = answer(stream, act, range);
    let _ = stream.shutdown(Shutdown::Both);
    head
}

fn answer(mut stream: &TcpStream, act: Act, range: usize) -> std::io::Result<()> {
    let ok = |length: usize| {
        format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nETag: \"v1\"\r\nConnection: close\r\n\r\n"
        )
    };
    let wait_until_left = |mut stream: &TcpStream| stream.read(&mut [0]).map(|_| ());
    match act {
        Act::Whole(body) => {
            stream.write_all(ok(body.len()).as_bytes())?;
            stream.write_all(&body)
        }
        Act::Truncated(body, sent) => {
            stream.write_all(ok(body.len()).as_bytes())?;
            stream.write_all(&body[..sent])
        }
        Act::Ranged(body) | Act::WrongRange(body) if range > body.len() => {
            stream.write_all(b"HTTP/1.1 416 Range Not Satisfiable\r\nContent-Length: 0\r\n\r\n")
        }
        Act::Ranged(body) => write_range(stream, &body, range, range),
        Act::WrongRange(body) => write_range(stream, &body, range, range + 1),
        Act::Status(status) => write!(stream, "HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n"),
        Act::Redirect(to) => {
            write!(
                stream,
                "HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n"
            )
        }
        Act::Silent => wait_until_left(stream),
        Act::Stalled(body, sent) => {
            stream.write_all(ok(body.len()).as_bytes())?;
            stream.write_all(&body[..sent])?;
            wait_until_left(stream)
        }
        Act::Endless => {
            stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")?;
            loop {
                stream.write_all(&[7; 4096])?;
            }
        }
    }
}

fn write_range(
    mut stream: &TcpStream,
    body: &[u8],
    from: usize,
    claimed: usize,
) -> std::io::Result<()> {
    let (total, last) = (body.len(), body.len().saturating_sub(1));
    write!(
        stream,
        "HTTP/1.1 206 Partial Content\r\nContent-Length: {}\r\n\
         Content-Range: bytes {claimed}-{last}/{total}\r\nConnection: close\r\n\r\n",
        total - from,
    )?;
    stream.write_all(&body[from..])
}

/// Something that does not repeat, so that a wrongly resumed file cannot look right.
fn content(length: usize) -> Vec<u8> {
    (0..length as u32)
        .flat_map(|i| (i.wrapping_mul(2_654_435_761)).to_be_bytes())
        .take(length)
        .collect()
}

struct Fixture {
    _home: tempfile::TempDir,
    store: Store,
    sources: HttpSources,
}

fn fixture() -> Fixture {
    let home = tempfile::tempdir().unwrap();
    let store = Store::open(home.path()).unwrap();
    let deadlines = Deadlines {
        dial: Duration::from_secs(2),
        first_byte: Duration::from_millis(300),
        stall: Duration::from_millis(300),
        total: Duration::from_secs(20),
        ..Deadlines::default()
    };
    Fixture {
        _home: home,
        store,
        sources: HttpSources::new(deadlines, 1 << 20),
    }
}

impl Fixture {
    fn fetch(&self, sha256: Sha256, urls: &[&str]) -> Result<Fetched, FetchError> {
        self.fetch_watched(sha256, urls, &NoProgress)
    }

    fn fetch_watched(
        &self,
        sha256: Sha256,
        urls: &[&str],
        progress: &dyn Progress,
    ) -> Result<Fetched, FetchError> {
        let urls: Vec<_> = urls.iter().map(|url| (*url).to_owned()).collect();
        let request = SourceRequest {
            sha256,
            file_name: "file",
            urls: &urls,
        };
        self.sources.fetch(&request, &self.store, progress)
    }

    fn read(&self, sha256: &Sha256) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.store
            .open_blob(sha256)
            .unwrap()
            .unwrap()
            .read_to_end(&mut bytes)
            .unwrap();
        bytes
    }
}

/// Counts bytes; asks to stop once it has seen enough.
#[derive(Default)]
struct Counter {
    bytes: AtomicU64,
    total: Mutex<Option<u64>>,
    stop_after: Option<u64>,
}

impl Progress for Counter {
    fn bytes(&self, n: u64, total: Option<u64>) {
        self.bytes.fetch_add(n, Ordering::Relaxed);
        *self.total.lock().unwrap() = total;
    }

    fn cancelled(&self) -> bool {
        self.stop_after
            .is_some_and(|most| self.bytes.load(Ordering::Relaxed) >= most)
    }
}

#[test]
fn a_file_arrives_and_says_where_it_came_from() {
    let body = content(300_000);
    let sha256 = Sha256::of(&body);
    let server = Server::new([Act::Whole(body.clone())]);
    let (fixture, counter) = (fixture(), Counter::default());
    let fetched = fixture
        .fetch_watched(sha256, &[&server.url], &counter)
        .unwrap();
    assert_eq!(
        fetched.received,
        [(Origin::Http(server.url.clone()), 300_000)]
    );
    assert_eq!((fetched.blob.size, fetched.asked.caches), (300_000, 1));
    assert_eq!(counter.bytes.into_inner(), 300_000);
    assert_eq!(*counter.total.lock().unwrap(), Some(300_000));
    assert_eq!(fixture.read(&sha256), body);
    let head = server.requests().remove(0).to_lowercase();
    assert!(head.contains("user-agent: p2pkgs/"), "{head}");
    assert!(!head.contains("range:"), "{head}");
}

#[test]
fn wrong_bytes_say_expected_got_and_from_and_the_next_url_has_its_chance() {
    let (right, wrong) = (content(5000), vec![1; 5000]);
    let sha256 = Sha256::of(&right);
    let fixture = fixture();
    let liar = Server::new([Act::Whole(wrong.clone())]);
    let error = fixture.fetch(sha256, &[&liar.url]).unwrap_err();
    let text = error.to_string();
    let got = Sha256::of(&wrong).to_hex();
    assert!(text.contains(&sha256.to_hex()) && text.contains(&got) && text.contains(&liar.url));
    assert!(
        fixture.store.blob(&Sha256::of(&wrong)).unwrap().is_none(),
        "nothing wrong is kept"
    );

    let (liar, honest) = (
        Server::new([Act::Whole(wrong)]),
        Server::new([Act::Whole(right)]),
    );
    let fetched = fixture.fetch(sha256, &[&liar.url, &honest.url]).unwrap();
    assert_eq!((fetched.asked.caches, fetched.asked.invalid), (2, 1));
}

#[test]
fn a_miss_is_a_miss_and_a_refusal_a_refusal() {
    let sha256 = Sha256::of(b"x");
    let fixture = fixture();
    let (first, second) = (
        Server::new([Act::Status("404 Not Found")]),
        Server::new([Act::Status("410 Gone")]),
    );
    match fixture
        .fetch(sha256, &[&first.url, &second.url])
        .unwrap_err()
    {
        FetchError::Missing { asked } => assert_eq!(asked.caches, 2),
        other => panic!("{other:?}"),
    }
    let server = Server::new([Act::Status("403 Forbidden")]);
    let error = fixture.fetch(sha256, &[&server.url]).unwrap_err();
    assert!(matches!(error, FetchError::Refused { .. }), "{error:?}");
    let server = Server::new([Act::Status("500 Oops")]);
    let error = fixture.fetch(sha256, &[&server.url]).unwrap_err();
    assert!(matches!(error, FetchError::Failed { .. }), "{error:?}");
    let error = fixture
        .fetch(sha256, &["gopher://example.org/x"])
        .unwrap_err();
    assert!(matches!(error, FetchError::Refused { .. }), "{error:?}");
    assert!(matches!(
        fixture.fetch(sha256, &[]).unwrap_err(),
        FetchError::Missing { .. }
    ));
}

#[test]
fn redirects_are_followed_and_a_loop_is_not() {
    let body = content(10);
    let target = Server::new([Act::Whole(body.clone())]);
    let redirect = Server::new([Act::Redirect(target.url.clone())]);
    let fixture = fixture();
    fixture.fetch(Sha256::of(&body), &[&redirect.url]).unwrap();

    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/file", listener.local_addr().unwrap());
    let to = url.clone();
    let thread = std::thread::spawn(move || {
        for _ in 0..=REDIRECTS_MAX {
            let (stream, _) = listener.accept().unwrap();
            serve(&stream, Act::Redirect(to.clone()));
        }
    });
    let error = fixture.fetch(Sha256::of(b"never"), &[&url]).unwrap_err();
    assert!(matches!(error, FetchError::Failed { .. }), "{error:?}");
    thread.join().unwrap();
}

#[test]
fn silent_and_stalling_servers_are_bounded_by_their_deadlines() {
    let body = content(100_000);
    let started = Instant::now();
    let (silent, stalled, good) = (
        Server::new([Act::Silent]),
        Server::new([Act::Stalled(body.clone(), 50_000)]),
        Server::new([Act::Whole(body.clone())]),
    );
    let fixture = fixture();
    let error = fixture.fetch(Sha256::of(b"x"), &[&silent.url]).unwrap_err();
    assert!(
        matches!(error, FetchError::TimedOut { asked } if asked.timed_out == 1),
        "{error:?}"
    );
    let fetched = fixture
        .fetch(Sha256::of(&body), &[&stalled.url, &good.url])
        .unwrap();
    assert_eq!((fetched.asked.caches, fetched.asked.timed_out), (2, 1));
    // Far above both deadlines, far below hanging.
    assert!(started.elapsed() < Duration::from_secs(15));
}

#[test]
fn a_body_over_the_limit_is_cut_off() {
    let server = Server::new([Act::Endless]);
    let error = fixture()
        .fetch(Sha256::of(b"x"), &[&server.url])
        .unwrap_err();
    assert!(matches!(error, FetchError::Refused { .. }), "{error:?}");
    let announced = Server::new([Act::Whole(content(2 << 20))]);
    let error = fixture()
        .fetch(Sha256::of(b"x"), &[&announced.url])
        .unwrap_err();
    assert!(matches!(error, FetchError::Refused { .. }), "{error:?}");
}

#[test]
fn cancelling_stops_a_transfer_and_tries_no_other_url() {
    let server = Server::new([Act::Endless]);
    let counter = Counter {
        stop_after: Some(50_000),
        ..Counter::default()
    };
    let urls = [server.url.as_str(), "file:///does/not/matter"];
    let error = fixture()
        .fetch_watched(Sha256::of(b"x"), &urls, &counter)
        .unwrap_err();
    assert!(matches!(error, FetchError::Cancelled), "{error:?}");
}

#[test]
fn an_unreachable_host_is_counted_and_does_not_hide_the_others() {
    // A port that was just free refuses connections.
    let free = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let body = content(10);
    let good = Server::new([Act::Whole(body.clone())]);
    let fixture = fixture();
    let fetched = fixture
        .fetch(Sha256::of(&body), &[&format!("http://{free}/x"), &good.url])
        .unwrap();
    assert_eq!((fetched.asked.caches, fetched.asked.unreachable), (2, 1));
}

#[test]
fn local_files_and_mirrors_work_like_any_url() {
    let body = content(200_000);
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("file.tar");
    std::fs::write(&path, &body).unwrap();
    let mut fixture = fixture();
    let url = format!("file://{}", path.display());
    let mirrored = url.clone();
    fixture.sources.mirrors = Arc::new(move |name, path| {
        assert_eq!((name, path), ("gnu", "make/make.tar"));
        vec!["file:///nowhere/at/all".to_owned(), mirrored.clone()]
    });
    let fetched = fixture
        .fetch(Sha256::of(&body), &["mirror://gnu/make/make.tar"])
        .unwrap();
    assert_eq!(fetched.asked.caches, 2);
    assert_eq!(fetched.received, [(origin(&url), 200_000)]);
    assert!(matches!(fetched.received[0].0, Origin::File(_)));
    let folder = format!("file://{}", home.path().display());
    let error = fixture.fetch(Sha256::of(b"x"), &[&folder]).unwrap_err();
    assert!(matches!(error, FetchError::Refused { .. }), "{error:?}");
}

#[test]
fn what_may_have_been_bad_luck_has_one_second_chance_after_all_others() {
    let body = content(1000);
    let busy = Server::new([
        Act::Status("503 Service Unavailable"),
        Act::Whole(body.clone()),
    ]);
    let gone = Server::new([Act::Status("404 Not Found")]);
    let fetched = fixture()
        .fetch(Sha256::of(&body), &[&busy.url, &gone.url])
        .unwrap();
    assert_eq!(fetched.received, [(origin(&busy.url), 1000)]);
    assert_eq!(gone.requests().len(), 1);

    let busy =
        || Server::new(["503 Service Unavailable", "429 Too Many Requests"].map(Act::Status));
    let (one, two) = (busy(), busy());
    let error = fixture()
        .fetch(Sha256::of(b"x"), &[&one.url, &two.url])
        .unwrap_err();
    let cause = std::error::Error::source(&error).unwrap().to_string();
    for url in [&one.url, &two.url] {
        assert!(
            cause.contains(url.as_str()) && cause.contains("429"),
            "{cause}"
        );
    }
    assert_eq!((one.requests().len(), two.requests().len()), (2, 2));
}

#[test]
fn a_server_that_cannot_be_reached_is_asked_last_for_the_next_source() {
    let free = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let dead = format!("http://{free}/x");
    let (one, two) = (content(10), content(20));
    let good = Server::new([Act::Whole(one.clone()), Act::Whole(two.clone())]);
    let fixture = fixture();
    let urls = [dead.as_str(), good.url.as_str()];
    let first = fixture.fetch(Sha256::of(&one), &urls).unwrap();
    assert_eq!((first.asked.caches, first.asked.unreachable), (2, 1));
    let second = fixture.fetch(Sha256::of(&two), &urls).unwrap();
    assert_eq!((second.asked.caches, second.asked.unreachable), (1, 0));
}
