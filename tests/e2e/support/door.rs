//! Package caches that are right, and such that hang, break off or lie: a web server over a directory, with ranges.
//!
//! All of them give the statements as they are, so they promise an output; what differs is how they keep that.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// Bytes written at a time.
const PIECE_BYTES: usize = 16 << 10;
/// How long somebody who holds answers back waits for the other questions.
const HELD_FOR: Duration = Duration::from_secs(60);

/// How a cache keeps its promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// Sends the output.
    Right,
    /// Sends the head of an answer and nothing else.
    Hangs,
    /// Says how long the output is, sends half of it and closes the connection.
    Truncates,
    /// Sends as many other bytes.
    Lies,
}

/// A running cache. Its threads end with the process.
#[derive(Debug)]
pub struct Door {
    url: String,
    sent_bytes: Arc<AtomicU64>,
}

#[derive(Debug)]
struct Served {
    folder: PathBuf,
    manner: Manner,
    bytes_per_sec: Option<u64>,
    sent_bytes: Arc<AtomicU64>,
    /// How many statements must be asked for before any is answered.
    held: usize,
    asked: Mutex<usize>,
    all_asked: Condvar,
}

impl Door {
    /// Serves a directory; what is sent of outputs comes at this rate.
    pub fn serve(
        listener: TcpListener,
        folder: &Path,
        manner: Manner,
        bytes_per_sec: Option<u64>,
    ) -> Self {
        Self::start(listener, folder, manner, bytes_per_sec, 0)
    }

    /// Serves a directory, and answers for no package before so many are asked for.
    pub fn holding(listener: TcpListener, folder: &Path, held: usize) -> Self {
        Self::start(listener, folder, Manner::Right, None, held)
    }

    fn start(
        listener: TcpListener,
        folder: &Path,
        manner: Manner,
        bytes_per_sec: Option<u64>,
        held: usize,
    ) -> Self {
        let url = format!("http://{}", listener.local_addr().unwrap());
        let sent_bytes = Arc::<AtomicU64>::default();
        let served = Arc::new(Served {
            folder: folder.to_owned(),
            manner,
            bytes_per_sec,
            sent_bytes: Arc::clone(&sent_bytes),
            held,
            asked: Mutex::default(),
            all_asked: Condvar::new(),
        });
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let served = Arc::clone(&served);
                // A visitor who leaves early breaks the pipe.
                thread::spawn(move || served.answer(&stream));
            }
        });
        Self { url, sent_bytes }
    }

    /// The base URL.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Bytes of outputs that were sent so far.
    pub fn sent_bytes(&self) -> u64 {
        self.sent_bytes.load(Ordering::SeqCst)
    }
}

impl Served {
    fn answer(&self, mut stream: &TcpStream) -> std::io::Result<()> {
        let lines = BufReader::new(stream).lines().map_while(Result::ok);
        let head: Vec<_> = lines.take_while(|line| !line.is_empty()).collect();
        let path = head.first().and_then(|line| line.split(' ').nth(1));
        let name = path.unwrap_or_default().trim_start_matches('/').to_owned();
        if name.ends_with(".realisations") {
            self.hold();
        }
        let Ok(mut body) = fs::read(self.folder.join(&name)) else {
            return stream
                .write_all(b"HTTP/1.1 404 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        };
        let is_output = name.ends_with(".tar.zst");
        if is_output && self.manner == Manner::Lies {
            body.iter_mut().for_each(|byte| *byte = !*byte);
        }
        let range = head.iter().find_map(|line| {
            let line = line.to_lowercase();
            let from = line.strip_prefix("range: bytes=")?.strip_suffix('-')?;
            from.parse::<usize>().ok()
        });
        let (from, total) = (range.unwrap_or(0).min(body.len()), body.len());
        let (status, length) = match from {
            0 => ("200 OK".to_owned(), total),
            _ => (
                format!(
                    "206 Part\r\nContent-Range: bytes {from}-{}/{total}",
                    total - 1
                ),
                total - from,
            ),
        };
        write!(
            stream,
            "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
        )?;
        let end = match self.manner {
            Manner::Truncates if is_output => from + length / 2,
            _ => total,
        };
        if self.manner == Manner::Hangs && !name.ends_with(".realisations") {
            return stream.read(&mut [0]).map(drop);
        }
        self.send(stream, &body[from..end], is_output)
    }

    /// Sends at the rate of the cache.
    fn send(&self, mut stream: &TcpStream, bytes: &[u8], is_output: bool) -> std::io::Result<()> {
        let started = Instant::now();
        for (number, piece) in bytes.chunks(PIECE_BYTES).enumerate() {
            if let (true, Some(rate)) = (is_output, self.bytes_per_sec) {
                let due = (number * PIECE_BYTES) as f64 / rate as f64;
                thread::sleep(Duration::from_secs_f64(due).saturating_sub(started.elapsed()));
            }
            stream.write_all(piece)?;
            if is_output {
                self.sent_bytes
                    .fetch_add(piece.len() as u64, Ordering::SeqCst);
            }
        }
        Ok(())
    }

    /// Waits until as many have asked as are to.
    fn hold(&self) {
        let mut asked = self.asked.lock().unwrap();
        *asked += 1;
        self.all_asked.notify_all();
        let waiting = |asked: &mut usize| *asked < self.held;
        drop(self.all_asked.wait_timeout_while(asked, HELD_FOR, waiting));
    }
}
