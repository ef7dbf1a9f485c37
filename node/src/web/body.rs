//! What answers are made of: a few bytes, or pieces that a thread reads from the disk while the visitor takes them.

use std::io::{self, Write};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use hyper::body::{Body, Frame, SizeHint};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::site::Site;

/// Bytes of a piece: as many as are written to a socket at once, and a quarter of a block.
pub(super) const PIECE_BYTES: usize = 256 << 10;
/// Pieces that wait for a visitor, 1 MiB in all.
const PIECES_MAX: usize = 4;

/// The body of an answer.
#[derive(Debug)]
pub(super) enum Content {
    /// All of it.
    Bytes(Option<Bytes>),
    /// As it is read, with what is still to come where that is known.
    Pieces(mpsc::Receiver<io::Result<Bytes>>, Option<u64>),
}

impl Body for Content {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        Poll::Ready(match &mut *self {
            Self::Bytes(bytes) => bytes.take().map(|bytes| Ok(Frame::data(bytes))),
            Self::Pieces(pieces, left) => match ready!(pieces.poll_recv(cx)) {
                Some(Ok(piece)) => {
                    *left = left.map(|left| left.saturating_sub(piece.len() as u64));
                    Some(Ok(Frame::data(piece)))
                }
                Some(Err(error)) => Some(Err(error)),
                None if left.is_none_or(|left| left == 0) => None,
                None => Some(Err(io::ErrorKind::UnexpectedEof.into())),
            },
        })
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Bytes(bytes) => bytes.as_ref().is_none_or(Bytes::is_empty),
            Self::Pieces(_, left) => *left == Some(0),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Bytes(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64),
            Self::Pieces(_, Some(left)) => SizeHint::with_exact(*left),
            Self::Pieces(_, None) => SizeHint::default(),
        }
    }
}

/// Where a thread writes what a visitor is to get. Writing waits for the visitor, and for the upload limit.
pub(super) struct Pipe {
    sender: mpsc::Sender<io::Result<Bytes>>,
    site: Arc<Site>,
    /// Whether the visitor is of our own network, where no limit counts.
    near: bool,
    runtime: Handle,
    buffer: BytesMut,
}

/// A pipe, and the body that comes out of it. Must be called inside the runtime.
pub(super) fn pipe(site: &Arc<Site>, near: bool, length: Option<u64>) -> (Pipe, Content) {
    let (sender, receiver) = mpsc::channel(PIECES_MAX);
    let pipe = Pipe {
        sender,
        site: Arc::clone(site),
        near,
        runtime: Handle::current(),
        buffer: BytesMut::new(),
    };
    (pipe, Content::Pieces(receiver, length))
}

impl Pipe {
    /// Sends a piece.
    pub(super) fn send(&mut self, piece: Bytes) -> io::Result<()> {
        let length = piece.len();
        if !self.near {
            while let Err(later) = self.site.upload.take(length, Instant::now()) {
                self.runtime
                    .block_on(tokio::time::sleep_until(later.into()));
                if self.sender.is_closed() {
                    break;
                }
            }
        }
        self.sender
            .blocking_send(Ok(piece))
            .map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        self.site.counters.sent(length as u64);
        Ok(())
    }

    /// Ends the connection, so that the visitor does not take a part for the whole.
    pub(super) fn fail(self, error: io::Error) {
        let _ = self.sender.blocking_send(Err(error));
    }
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = PIECE_BYTES - self.buffer.len();
        let taken = bytes.len().min(room);
        self.buffer.extend_from_slice(&bytes[..taken]);
        if self.buffer.len() == PIECE_BYTES {
            self.flush()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        let piece = self.buffer.split().freeze();
        if piece.is_empty() {
            return Ok(());
        }
        self.send(piece)
    }
}
