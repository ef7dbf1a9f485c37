//! A web server of one file that gives ranges, holds the first answer back in its middle, and counts what it sends.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;

/// Bytes written at a time.
const PIECE_BYTES: usize = 64 << 10;

/// The server. Its thread ends with the test's process.
#[derive(Debug)]
pub struct Counting {
    url: String,
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    requests: AtomicUsize,
    sent_bytes: AtomicU64,
}

impl Counting {
    /// Serves `file`; of the first answer only so many bytes, and then nothing until the visitor leaves.
    pub fn serve(file: Vec<u8>, first_bytes: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let counts = Arc::<Counts>::default();
        let (counter, file) = (Arc::clone(&counts), Arc::new(file));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (file, counts) = (Arc::clone(&file), Arc::clone(&counter));
                thread::spawn(move || answer(&stream, &file, first_bytes, &counts));
            }
        });
        Self { url, counts }
    }

    /// The base URL.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// How many requests came.
    pub fn requests(&self) -> usize {
        self.counts.requests.load(Ordering::SeqCst)
    }

    /// Bytes of the file that were sent in all answers.
    pub fn sent_bytes(&self) -> u64 {
        self.counts.sent_bytes.load(Ordering::SeqCst)
    }
}

fn answer(mut stream: &TcpStream, file: &[u8], first_bytes: usize, counts: &Counts) {
    let lines = BufReader::new(stream).lines().map_while(Result::ok);
    let head: Vec<_> = lines.take_while(|line| !line.is_empty()).collect();
    let range = |line: &String| {
        let line = line.to_lowercase();
        line.strip_prefix("range: bytes=")?
            .strip_suffix('-')?
            .parse()
            .ok()
    };
    let from: usize = head.iter().find_map(range).unwrap_or(0);
    let is_first = counts.requests.fetch_add(1, Ordering::SeqCst) == 0;
    let (total, length) = (file.len(), file.len() - from);
    let status = match from {
        0 => "200 OK".to_owned(),
        _ => format!(
            "206 Partial Content\r\nContent-Range: bytes {from}-{}/{total}",
            total - 1
        ),
    };
    let head =
        format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
    let end = if is_first { first_bytes } else { total };
    if stream.write_all(head.as_bytes()).is_err() {
        return;
    }
    for piece in file[from..end].chunks(PIECE_BYTES) {
        if stream.write_all(piece).is_err() {
            return;
        }
        counts
            .sent_bytes
            .fetch_add(piece.len() as u64, Ordering::SeqCst);
    }
    if is_first {
        // Until the visitor leaves.
        let _ = stream.read(&mut [0]);
    }
}
