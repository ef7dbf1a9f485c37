//! Writing messages to one peer, one lane at a time.
//!
//! A lane reuses its stream while there is something to say and closes it after a short silence: Helia aborts a stream
//! that carries nothing for ten seconds. The next message opens another one, which costs a round trip. Messages of a lane
//! are written in order, one after the other, and each has a deadline that follows from its size, so that a peer that
//! stops reading does not hold our memory for ever.

use std::collections::VecDeque;
use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bitswap::{Message, TransmitId, Version, limits};
use bytes::{Buf as _, Bytes};
use futures::io::{AsyncRead as _, AsyncWrite as _};
use libp2p::Stream;
use tokio::time::{Instant, Sleep};

/// Silence after which a lane's stream is closed: half of Helia's patience.
const IDLE: Duration = Duration::from_secs(5);

/// What a lane asks of its handler.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Open a stream for it.
    Open,
    /// Tell that this message was written.
    Sent(TransmitId),
    /// Tell that this message could not be written.
    Failed(TransmitId),
    /// Close this stream, it has been idle.
    Close,
}

/// Where a lane stands.
enum State {
    Closed,
    Opening,
    Open(Stream, Version),
}

/// A lane: its stream, and what waits to be written.
pub(super) struct Lane {
    state: State,
    queue: VecDeque<(TransmitId, Message)>,
    writing: Option<(TransmitId, VecDeque<Bytes>)>,
    /// Deadline of the message being written, or the end of the idle time.
    timer: Pin<Box<Sleep>>,
    /// Messages that failed with the stream they waited for.
    failed: VecDeque<TransmitId>,
    /// A stream on its way out: flushed and closed, so that the peer gets what it carried.
    closing: Option<Stream>,
}

impl Lane {
    /// A lane without a stream. Must be called inside the runtime.
    pub(super) fn new() -> Self {
        Self {
            state: State::Closed,
            queue: VecDeque::new(),
            writing: None,
            timer: Box::pin(tokio::time::sleep(Duration::ZERO)),
            failed: VecDeque::new(),
            closing: None,
        }
    }

    /// Queues a message. The machine bounds how many.
    pub(super) fn push(&mut self, id: TransmitId, message: Message) {
        self.queue.push_back((id, message));
    }

    /// Whether something is waiting or being written.
    pub(super) fn is_busy(&self) -> bool {
        self.writing.is_some() || !self.queue.is_empty() || matches!(self.state, State::Opening)
    }

    /// The stream that was asked for is there.
    pub(super) fn opened(&mut self, stream: Stream, version: Version) {
        self.state = State::Open(stream, version);
        self.rest();
    }

    /// The stream that was asked for could not be opened; nothing that waited for it will be written.
    pub(super) fn refused(&mut self) {
        self.state = State::Closed;
        self.failed.extend(self.queue.drain(..).map(|(id, _)| id));
    }

    /// The next thing to do.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Step> {
        if let Some(id) = self.failed.pop_front() {
            return Poll::Ready(Step::Failed(id));
        }
        self.notice_end(cx);
        self.poll_closing(cx);
        if matches!(self.state, State::Opening) {
            return Poll::Pending;
        }
        if self.writing.is_none() && !self.queue.is_empty() {
            let State::Open(_, version) = &self.state else {
                self.state = State::Opening;
                return Poll::Ready(Step::Open);
            };
            let version = *version;
            self.begin(version);
        }
        if self.writing.is_some() {
            self.poll_writing(cx)
        } else {
            self.poll_idle(cx)
        }
    }

    /// A peer that has ended its side of the stream reads no more of it: what comes next needs another one. Some read one
    /// message a stream.
    fn notice_end(&mut self, cx: &mut Context<'_>) {
        if self.writing.is_some() {
            return;
        }
        let State::Open(stream, _) = &mut self.state else {
            return;
        };
        // Nobody answers on this stream, so the byte that is read for is the end.
        let has_ended = matches!(
            Pin::new(stream).poll_read(cx, &mut [0]),
            Poll::Ready(Ok(0) | Err(_))
        );
        if has_ended
            && let State::Open(stream, _) = std::mem::replace(&mut self.state, State::Closed)
        {
            self.closing = Some(stream);
        }
    }

    fn begin(&mut self, version: Version) {
        if let Some((id, message)) = self.queue.pop_front() {
            let frame = message.encode(version);
            self.timer
                .as_mut()
                .reset(Instant::now() + limits::send_timeout(frame.len()));
            self.writing = Some((id, frame.into_pieces().into()));
        }
    }

    fn poll_writing(&mut self, cx: &mut Context<'_>) -> Poll<Step> {
        let (State::Open(stream, _), Some((id, pieces))) = (&mut self.state, &mut self.writing)
        else {
            return Poll::Pending;
        };
        let id = *id;
        match poll_write_all(stream, pieces, cx) {
            Poll::Ready(Ok(())) => {
                self.writing = None;
                self.rest();
                return Poll::Ready(Step::Sent(id));
            }
            Poll::Ready(Err(error)) => tracing::debug!(%error, "outbound bitswap stream broke"),
            Poll::Pending => {
                ready!(self.timer.as_mut().poll(cx));
                tracing::debug!("peer does not read, resetting its bitswap stream");
            }
        }
        self.writing = None;
        self.state = State::Closed;
        Poll::Ready(Step::Failed(id))
    }

    fn poll_idle(&mut self, cx: &mut Context<'_>) -> Poll<Step> {
        if !matches!(self.state, State::Open(..)) {
            return Poll::Pending;
        }
        ready!(self.timer.as_mut().poll(cx));
        if let State::Open(stream, _) = std::mem::replace(&mut self.state, State::Closed) {
            self.closing = Some(stream);
        }
        Poll::Ready(Step::Close)
    }

    fn poll_closing(&mut self, cx: &mut Context<'_>) {
        if let Some(stream) = &mut self.closing
            && Pin::new(stream).poll_close(cx).is_ready()
        {
            self.closing = None;
        }
    }

    fn rest(&mut self) {
        self.timer.as_mut().reset(Instant::now() + IDLE);
    }
}

/// Writes all pieces and flushes.
fn poll_write_all(
    stream: &mut Stream,
    pieces: &mut VecDeque<Bytes>,
    cx: &mut Context<'_>,
) -> Poll<io::Result<()>> {
    let mut stream = Pin::new(stream);
    while let Some(piece) = pieces.front_mut() {
        if piece.is_empty() {
            pieces.pop_front();
            continue;
        }
        match ready!(stream.as_mut().poll_write(cx, piece))? {
            0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            written => piece.advance(written),
        }
    }
    stream.poll_flush(cx)
}
