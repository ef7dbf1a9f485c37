//! Our small request-response protocols as libp2p wants them: one frame there, one frame back.

use std::io;
use std::marker::PhantomData;

use futures::io::{AsyncRead, AsyncWrite};
use libp2p::StreamProtocol;
use libp2p::request_response::Codec;

use crate::wire::{WireError, read_frame, write_frame};

/// A message of one of our protocols.
pub trait Body: Sized + Send + 'static {
    /// Largest body that is read, in bytes.
    const BYTES_MAX: usize;

    /// The body of its frame.
    fn encode(&self) -> Vec<u8>;

    /// Reads exactly what [`Self::encode`] writes.
    fn decode(body: &[u8]) -> Result<Self, WireError>;
}

/// Reads and writes requests `Q` and responses `A`.
pub struct FramedCodec<Q, A>(PhantomData<fn() -> (Q, A)>);

impl<Q, A> Default for FramedCodec<Q, A> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<Q, A> Clone for FramedCodec<Q, A> {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl<Q, A> std::fmt::Debug for FramedCodec<Q, A> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FramedCodec")
    }
}

impl<Q: Body, A: Body> Codec for FramedCodec<Q, A> {
    type Protocol = StreamProtocol;
    type Request = Q;
    type Response = A;

    async fn read_request<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Q>
    where
        T: AsyncRead + Unpin + Send,
    {
        Ok(Q::decode(&read_frame(io, Q::BYTES_MAX).await?)?)
    }

    async fn read_response<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<A>
    where
        T: AsyncRead + Unpin + Send,
    {
        Ok(A::decode(&read_frame(io, A::BYTES_MAX).await?)?)
    }

    async fn write_request<T>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
        request: Q,
    ) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        write_frame(io, &request.encode()).await
    }

    async fn write_response<T>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
        response: A,
    ) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        write_frame(io, &response.encode()).await
    }
}
