//! Reading one stream that a peer opened.
//!
//! A stream carries messages until its end; Kubo opens one per block it sends, and keeps one open for its wants. Messages
//! are decoded here, which hashes their blocks: in the connection's own task, where the bytes are warm in the cache.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bitswap::{FrameDecoder, Message};
use futures::io::{AsyncRead as _, AsyncWrite as _};
use libp2p::Stream;

/// How long a frame may be on its way before its progress is reported: often enough for the shortest stall timeout of the
/// machine (500 ms), seldom enough to cost nothing at full speed.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(200);

/// What a stream gives.
#[derive(Debug)]
pub(super) enum Read {
    /// A whole message.
    Message(Message),
    /// This many more bytes of a message that is still incomplete.
    Progress(usize),
}

/// A stream being read.
pub(super) struct Inbound {
    stream: Stream,
    decoder: FrameDecoder,
    /// Bytes of the current frame that were not reported yet, and when something was reported last.
    unreported: usize,
    reported_at: Instant,
    ended: bool,
}

impl Inbound {
    /// Reads from the start of `stream`.
    pub(super) fn new(mut stream: Stream) -> Self {
        // A peer that leaves its stream open does not thereby keep the connection.
        stream.ignore_for_keep_alive();
        let decoder = FrameDecoder::default();
        Self {
            stream,
            decoder,
            unreported: 0,
            reported_at: Instant::now(),
            ended: false,
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Option<Read>> {
        loop {
            match self.decoder.next_frame() {
                Ok(None) => {}
                Ok(Some(frame)) => {
                    self.report(Instant::now());
                    return Poll::Ready(match Message::decode(&frame) {
                        Ok(message) => Some(Read::Message(message)),
                        Err(error) => self.refuse(&error),
                    });
                }
                Err(error) => return Poll::Ready(self.refuse(&error)),
            }
            let read = ready!(Pin::new(&mut self.stream).poll_read(cx, self.decoder.space()));
            match read {
                Ok(0) => return self.poll_end(cx),
                Ok(length) => {
                    self.decoder.filled(length);
                    self.unreported += length;
                    let now = Instant::now();
                    if now.duration_since(self.reported_at) >= PROGRESS_INTERVAL {
                        return Poll::Ready(Some(Read::Progress(self.report(now))));
                    }
                }
                Err(error) => {
                    tracing::debug!(%error, "inbound bitswap stream broke");
                    return Poll::Ready(None);
                }
            }
        }
    }

    fn report(&mut self, now: Instant) -> usize {
        self.reported_at = now;
        std::mem::take(&mut self.unreported)
    }

    /// Ends the stream as boxo does: by resetting it, the connection stays.
    fn refuse(&mut self, error: &bitswap::DecodeError) -> Option<Read> {
        tracing::debug!(%error, "refusing a bitswap stream");
        self.ended = true;
        None
    }

    /// Closes our side too, so that the peer does not see a reset.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<Option<Read>> {
        let _ = ready!(Pin::new(&mut self.stream).poll_close(cx));
        self.ended = true;
        Poll::Ready(None)
    }
}

impl futures::Stream for Inbound {
    type Item = Read;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Read>> {
        if self.ended {
            Poll::Ready(None)
        } else {
            self.poll_read(cx)
        }
    }
}
