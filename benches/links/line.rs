//! A line as a proxy: what goes in comes out later, and not faster than the line is.
//!
//! Each direction is a queue of pieces with the time at which each has arrived on the other side: it begins to leave when
//! the piece before it has left, takes its length divided by the rate, and travels for half a round trip. The queue holds
//! what such a line holds (rate times time) and a buffer as routers have one; then the sender has to wait.

use std::net::{Ipv4Addr, SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// Largest piece, in bytes: 5 ms of the slower line.
const PIECE_BYTES: usize = 64 << 10;
/// What the router in front of a line buffers, as time.
const BUFFERED: Duration = Duration::from_millis(50);

/// Pieces in a queue; its bytes are counted apart.
const PIECES_MAX: usize = 1 << 16;

/// A running line. Dropping it cuts it.
#[derive(Debug)]
pub struct Line {
    port: u16,
    carried: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

#[derive(Clone, Copy, Debug)]
struct Kind {
    bytes_per_sec: u64,
    travels: Duration,
}

impl Line {
    /// Leads to a port of this machine.
    pub fn start(runtime: &Runtime, to: u16, bytes_per_sec: u64, round_trip: Duration) -> Self {
        let carried = Arc::new(AtomicU64::new(0));
        let kind = Kind {
            bytes_per_sec,
            travels: round_trip / 2,
        };
        let (port, listener) = listen(runtime);
        let counter = Arc::clone(&carried);
        let task = runtime.spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((near, _)) = listener.accept().await {
                let counter = Arc::clone(&counter);
                connections.spawn(async move {
                    let far = TcpStream::connect((Ipv4Addr::LOCALHOST, to)).await.unwrap();
                    near.set_nodelay(true).unwrap();
                    far.set_nodelay(true).unwrap();
                    let ((near_in, near_out), (far_in, far_out)) =
                        (near.into_split(), far.into_split());
                    let there = carry(near_in, far_out, kind, Arc::default());
                    let back = carry(far_in, near_out, kind, counter);
                    tokio::join!(there, back);
                });
            }
        });
        Self {
            port,
            carried,
            task,
        }
    }

    /// Where it begins.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Bytes that came back over it.
    pub fn carried(&self) -> u64 {
        self.carried.load(Ordering::Relaxed)
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// One direction of one connection.
async fn carry(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    kind: Kind,
    counter: Arc<AtomicU64>,
) {
    let held = kind.bytes_per_sec as f64 * (kind.travels + BUFFERED).as_secs_f64();
    let room = Arc::new(Semaphore::new((held as usize).max(PIECE_BYTES)));
    let (sender, mut receiver) = mpsc::channel(PIECES_MAX);
    let take_in = async move {
        let mut left = Instant::now();
        loop {
            let mut piece = Vec::with_capacity(PIECE_BYTES);
            match from.read_buf(&mut piece).await {
                Ok(length) if length > 0 => {
                    let Ok(place) = Arc::clone(&room).acquire_many_owned(length as u32).await
                    else {
                        return;
                    };
                    let takes = length as f64 / kind.bytes_per_sec as f64;
                    left = left.max(Instant::now()) + Duration::from_secs_f64(takes);
                    if sender
                        .send((left + kind.travels, piece, place))
                        .await
                        .is_err()
                    {
                        return;
                    }
                }
                _ => return,
            }
        }
    };
    let give_out = async move {
        while let Some((arrives, piece, place)) = receiver.recv().await {
            tokio::time::sleep_until(arrives).await;
            if to.write_all(&piece).await.is_err() {
                return;
            }
            drop(place);
            counter.fetch_add(piece.len() as u64, Ordering::Relaxed);
        }
        let _ = to.shutdown().await;
    };
    tokio::join!(take_in, give_out);
}

/// Serves so many bytes to whoever asks for anything by HTTP, once; the port.
pub fn serve_http(runtime: &Runtime, bytes: u64) -> u16 {
    let (port, listener) = listen(runtime);
    runtime.spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        // The request of `curl` comes in one piece.
        let _ = stream.read(&mut [0; 4096]).await;
        let head =
            format!("HTTP/1.1 200 OK\r\nContent-Length: {bytes}\r\nConnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let piece = vec![7; 1 << 20];
        for _ in 0..bytes >> 20 {
            if stream.write_all(&piece).await.is_err() {
                return;
            }
        }
        let _ = stream.shutdown().await;
    });
    port
}

fn listen(runtime: &Runtime) -> (u16, TcpListener) {
    let listener = StdListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
    listener.set_nonblocking(true).unwrap();
    let _inside = runtime.enter();
    let port = listener.local_addr().unwrap().port();
    (port, TcpListener::from_std(listener).unwrap())
}
