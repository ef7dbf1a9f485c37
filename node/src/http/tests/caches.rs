//! Several caches, all but one of which are down, hang, break off or lie.

use std::borrow::Cow;
use std::sync::atomic::AtomicUsize;
use std::thread;

use base::{PkgHash, Realisation};
use store::substitute::Substituter as _;

use super::*;

/// What a cache does when it is asked for an output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    Right,
    /// Sends a head and so many bytes, then nothing.
    Hangs(usize),
    /// Promises everything and leaves after so many bytes.
    BreaksOff(usize),
    /// Leaves after so many bytes, and gives no more of the file to anybody.
    Goes(usize),
    /// Says that the file ends after so many bytes.
    Truncates(usize),
    /// Other bytes from here on.
    Lies(usize),
    /// Knows no ranges.
    Rangeless,
    /// Says that it has no such file.
    HasNot,
}

/// A cache that answers as many visitors as come, until its process ends.
struct Cache {
    url: String,
    sent_bytes: Arc<AtomicU64>,
    visits: Arc<AtomicUsize>,
}

impl Cache {
    fn new(output: &Arc<[u8]>, outline: Option<&[u8]>, manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (sent_bytes, visits) = (Arc::<AtomicU64>::default(), Arc::<AtomicUsize>::default());
        let (sent, visited) = (Arc::clone(&sent_bytes), Arc::clone(&visits));
        let (output, outline) = (Arc::clone(output), outline.map(<[u8]>::to_vec));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (output, outline) = (output.clone(), outline.clone());
                let (sent, visited) = (Arc::clone(&sent), Arc::clone(&visited));
                thread::spawn(move || {
                    let _ = visit(
                        &stream,
                        &output,
                        outline.as_deref(),
                        manner,
                        &sent,
                        &visited,
                    );
                });
            }
        });
        Self {
            url,
            sent_bytes,
            visits,
        }
    }

    fn sent_bytes(&self) -> u64 {
        self.sent_bytes.load(Ordering::SeqCst)
    }
}

fn visit(
    mut stream: &TcpStream,
    output: &[u8],
    outline: Option<&[u8]>,
    manner: Manner,
    sent: &AtomicU64,
    visits: &AtomicUsize,
) -> std::io::Result<()> {
    let lines = BufReader::new(stream).lines().map_while(Result::ok);
    let head: Vec<_> = lines.take_while(|line| !line.is_empty()).collect();
    let none = "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    if head[0].contains(".outline") {
        let Some(outline) = outline else {
            return stream.write_all(none.as_bytes());
        };
        let length = outline.len();
        write!(
            stream,
            "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
        )?;
        return stream.write_all(outline);
    }
    visits.fetch_add(1, Ordering::SeqCst);
    if manner == Manner::HasNot {
        return stream.write_all(none.as_bytes());
    }
    let range = head.iter().find_map(|line| {
        let line = line.to_lowercase();
        line.strip_prefix("range: bytes=")?
            .strip_suffix('-')?
            .parse::<usize>()
            .ok()
    });
    if matches!(manner, Manner::Goes(_)) && range.is_some() {
        return stream.write_all(none.as_bytes());
    }
    send(stream, output, range, manner, sent)
}

/// Sends the output, or what a cache of this manner makes of it.
fn send(
    mut stream: &TcpStream,
    output: &[u8],
    range: Option<usize>,
    manner: Manner,
    sent: &AtomicU64,
) -> std::io::Result<()> {
    // Other tests of this process watch how much memory it takes.
    let body = match manner {
        Manner::Truncates(at) => Cow::Borrowed(&output[..at]),
        Manner::Lies(at) => {
            let mut lies = output.to_vec();
            lies[at..].fill(b'!');
            Cow::Owned(lies)
        }
        _ => Cow::Borrowed(output),
    };
    let (total, from) = (
        body.len(),
        range.filter(|_| manner != Manner::Rangeless).unwrap_or(0),
    );
    if from > total {
        return stream
            .write_all(b"HTTP/1.1 416 Range Not Satisfiable\r\nContent-Length: 0\r\n\r\n");
    }
    let status = match from {
        0 => "200 OK".to_owned(),
        _ => format!(
            "206 Partial Content\r\nContent-Range: bytes {from}-{}/{total}",
            total - 1
        ),
    };
    let length = total - from;
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    )?;
    let end = match manner {
        Manner::Hangs(bytes) | Manner::BreaksOff(bytes) | Manner::Goes(bytes) => {
            total.min(from + bytes)
        }
        _ => total,
    };
    for piece in body[from..end].chunks(16 << 10) {
        stream.write_all(piece)?;
        sent.fetch_add(piece.len() as u64, Ordering::SeqCst);
    }
    if matches!(manner, Manner::Hangs(_)) {
        let _ = stream.read(&mut [0]);
    }
    Ok(())
}

/// An output, what its parts hash to, and the statement that names it.
struct Output {
    bytes: Arc<[u8]>,
    outline: Vec<u8>,
    realisation: Realisation,
}

fn output(length: usize) -> Output {
    let fixture = fixture();
    let bytes = content(length);
    let mut ingest = fixture.store.ingest().unwrap();
    ingest.append(&bytes).unwrap();
    let blob = ingest.finish(&store::Expected::anything()).unwrap();
    let outline = fixture.store.write_outline(&blob.root, Vec::new()).unwrap();
    let realisation = Realisation {
        pkghash: PkgHash::of_derivation(b"package"),
        output: blob.root,
        sha256: blob.sha256,
        size: blob.size,
    };
    Output {
        bytes: bytes.into(),
        outline,
        realisation,
    }
}

impl Output {
    fn caches(&self, manners: &[Manner]) -> Vec<Cache> {
        let cache = |manner: &Manner| Cache::new(&self.bytes, Some(&self.outline), *manner);
        manners.iter().map(cache).collect()
    }

    /// Fetches it, and compares.
    fn fetch(&self, caches: &[Cache]) -> Result<Fetched, FetchError> {
        let mut fixture = fixture();
        fixture.sources.file_bytes_max = 1 << 30;
        let urls: Vec<_> = caches.iter().map(|cache| cache.url.clone()).collect();
        let caches = HttpCaches::new(fixture.sources.clone(), &urls);
        let fetched = caches.fetch(&self.realisation, &fixture.store, &NoProgress)?;
        assert!(fixture.read(&self.realisation.sha256)[..] == self.bytes[..]);
        Ok(fetched)
    }
}

const MIB: usize = 1 << 20;

#[test]
fn whatever_the_others_do_one_right_cache_is_enough_and_little_comes_twice() {
    let output = output(5 * MIB + 123);
    let manners = [
        Manner::Hangs(0),
        Manner::BreaksOff(MIB + 7),
        Manner::Truncates(2 * MIB),
        Manner::Lies(MIB / 2),
        Manner::HasNot,
        Manner::Right,
    ];
    for turn in 0..manners.len() {
        let mut manners = manners;
        manners.rotate_left(turn);
        let caches = output.caches(&manners);
        let fetched = output.fetch(&caches).unwrap();
        let came: u64 = fetched.received.iter().map(|(_, bytes)| bytes).sum();
        assert_eq!(came, output.realisation.size, "{manners:?}");
    }
}

#[test]
fn a_good_cache_that_is_first_is_not_doubled() {
    let output = output(8 * MIB);
    let caches = output.caches(&[Manner::Right, Manner::Right, Manner::Right]);
    output.fetch(&caches).unwrap();
    let sent: u64 = caches.iter().map(Cache::sent_bytes).sum();
    assert_eq!(sent, output.realisation.size);
}

#[test]
fn what_broke_off_is_gone_on_with_elsewhere_and_right_bytes_are_not_fetched_again() {
    let output = output(6 * MIB);
    // Only the first has an outline, so it is asked first.
    let first = Cache::new(
        &output.bytes,
        Some(&output.outline),
        Manner::Goes(3 * MIB + 9),
    );
    let second = Cache::new(&output.bytes, None, Manner::Right);
    let caches = [first, second];
    let fetched = output.fetch(&caches).unwrap();
    assert_eq!(fetched.received.len(), 2, "{:?}", fetched.received);
    // Three chunks of the first counted.
    assert_eq!(caches[1].sent_bytes(), 3 * MIB as u64);
}

#[test]
fn a_server_without_ranges_and_one_that_breaks_off_again_and_again_still_do() {
    let output = output(6 * MIB);
    let first = Cache::new(
        &output.bytes,
        Some(&output.outline),
        Manner::BreaksOff(2 * MIB + 9),
    );
    let second = Cache::new(&output.bytes, None, Manner::Rangeless);
    output.fetch(&[first, second]).unwrap();
    let alone = output.caches(&[Manner::BreaksOff(MIB + 5)]);
    output.fetch(&alone).unwrap();
    assert_eq!(alone[0].visits.load(Ordering::SeqCst), 6);
}

#[test]
fn without_an_outline_a_file_comes_as_a_whole_and_is_checked_at_its_end() {
    let output = output(2 * MIB);
    let cache = |manner| Cache::new(&output.bytes, None, manner);
    let caches = [
        cache(Manner::Lies(7)),
        cache(Manner::Truncates(9)),
        cache(Manner::Right),
    ];
    let fetched = output.fetch(&caches).unwrap();
    assert_eq!(fetched.asked.invalid, 2);
}

#[test]
fn small_outputs_come_from_two_at_once_until_one_was_right() {
    let output = output(1000);
    let caches = output.caches(&[Manner::Hangs(10), Manner::Lies(0), Manner::Right]);
    let fetched = output.fetch(&caches).unwrap();
    assert_eq!(fetched.asked.invalid, 1);
    let [(Origin::Http(url), 1000)] = &fetched.received[..] else {
        panic!("{:?}", fetched.received);
    };
    assert!(url.starts_with(&caches[2].url));
}

#[test]
fn nobody_who_is_right_is_a_failure_that_says_what_they_did() {
    let output = output(2 * MIB);
    let lies = output.fetch(&output.caches(&[Manner::HasNot, Manner::Lies(3)]));
    assert!(matches!(lies, Err(FetchError::Invalid { .. })), "{lies:?}");
    let misses = output.fetch(&output.caches(&[Manner::HasNot, Manner::HasNot]));
    assert!(
        matches!(misses, Err(FetchError::Missing { asked }) if asked.caches == 2),
        "{misses:?}"
    );
    let broken = output.fetch(&output.caches(&[Manner::BreaksOff(5)]));
    assert!(
        matches!(broken, Err(FetchError::Failed { .. })),
        "{broken:?}"
    );
}
