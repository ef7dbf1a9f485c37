//! Handing provider records to a given peer of the DHT.
//!
//! The DHT's library sends a record only at the end of a walk of its own. Here many records go to one peer over one stream
//! of the DHT's protocol: a message for each, then the end of the stream. There is no answer; servers read messages until
//! the stream ends and then end it on their side, which shows that all were read. Who breaks it off has refused.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use base::Multihash;
use futures::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use libp2p::request_response::{self, Codec, ProtocolSupport};
use libp2p::{Multiaddr, PeerId, StreamProtocol};
use prost::Message as _;

use crate::wire::put_uvarint;

/// Dialling, a thousand records of 200 bytes over a slow line, and the end: 200 kB in 10 seconds are 160 kbit/s.
const DEADLINE: Duration = Duration::from_secs(30);
/// How long is waited for the other side to end the stream too. A server that does not is believed to have read.
const END_PATIENCE: Duration = Duration::from_secs(5);
/// Addresses in a record. A host with a LAN, a VPN and IPv6 has six.
pub(crate) const ADDRESSES_MAX: usize = 8;
/// Bytes written at a time.
const CHUNK_BYTES: usize = 32 << 10;
/// Bytes of an answer that nobody should send, before the stream is given up.
const NOISE_BYTES_MAX: usize = 64 << 10;
/// The message that says who provides a key.
const ADD_PROVIDER: i32 = 2;

/// Sends records.
pub(crate) type Behaviour = request_response::Behaviour<RecordCodec>;

/// A behaviour that speaks the DHT's protocol, towards others only: their questions are the library's.
pub(crate) fn behaviour(dht: StreamProtocol) -> Behaviour {
    let config = request_response::Config::default().with_request_timeout(DEADLINE);
    Behaviour::new([(dht, ProtocolSupport::Outbound)], config)
}

/// Records of one provider, for one peer.
#[derive(Clone, Debug)]
pub(crate) struct Records {
    pub(crate) provider: Arc<Provider>,
    pub(crate) keys: Vec<Multihash>,
}

/// Who provides, and where it can be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Provider(Peer);

impl Provider {
    /// At most [`ADDRESSES_MAX`] of the addresses are told.
    pub(crate) fn new<'a>(peer: &PeerId, addresses: impl Iterator<Item = &'a Multiaddr>) -> Self {
        Self(Peer {
            id: peer.to_bytes(),
            addresses: addresses
                .take(ADDRESSES_MAX)
                .map(Multiaddr::to_vec)
                .collect(),
        })
    }
}

/// The part of the DHT's message that matters here.
#[derive(Clone, PartialEq, prost::Message)]
struct Message {
    #[prost(int32, tag = "1")]
    kind: i32,
    #[prost(bytes = "vec", tag = "2")]
    key: Vec<u8>,
    #[prost(message, repeated, tag = "9")]
    providers: Vec<Peer>,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
struct Peer {
    #[prost(bytes = "vec", tag = "1")]
    id: Vec<u8>,
    #[prost(bytes = "vec", repeated, tag = "2")]
    addresses: Vec<Vec<u8>>,
}

/// Writes [`Records`].
#[derive(Clone, Debug, Default)]
pub(crate) struct RecordCodec;

impl Codec for RecordCodec {
    type Protocol = StreamProtocol;
    type Request = Records;
    type Response = ();

    /// Never called: questions to us are answered elsewhere.
    async fn read_request<T>(&mut self, _: &StreamProtocol, _: &mut T) -> io::Result<Records>
    where
        T: AsyncRead + Unpin + Send,
    {
        Err(io::ErrorKind::Unsupported.into())
    }

    async fn read_response<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<()>
    where
        T: AsyncRead + Unpin + Send,
    {
        tokio::time::timeout(END_PATIENCE, read_to_end(io))
            .await
            .unwrap_or(Ok(()))
    }

    async fn write_request<T>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
        Records { provider, keys }: Records,
    ) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        let mut message = Message {
            kind: ADD_PROVIDER,
            key: Vec::new(),
            providers: vec![provider.0.clone()],
        };
        let mut chunk = Vec::with_capacity(CHUNK_BYTES);
        for key in keys {
            message.key = key.as_bytes().to_vec();
            put_uvarint(&mut chunk, message.encoded_len() as u64);
            message.encode_raw(&mut chunk);
            if chunk.len() >= CHUNK_BYTES {
                io.write_all(&chunk).await?;
                chunk.clear();
            }
        }
        io.write_all(&chunk).await?;
        io.flush().await
    }

    /// Never called.
    async fn write_response<T>(&mut self, _: &StreamProtocol, _: &mut T, (): ()) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        Err(io::ErrorKind::Unsupported.into())
    }
}

async fn read_to_end<T: AsyncRead + Unpin + Send>(io: &mut T) -> io::Result<()> {
    let mut buffer = [0; 1024];
    let mut noise = 0;
    loop {
        match io.read(&mut buffer).await? {
            0 => return Ok(()),
            bytes => noise += bytes,
        }
        if noise > NOISE_BYTES_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use base::Sha256;
    use futures::executor::block_on;
    use futures::io::Cursor;

    use super::*;

    /// What Go nodes write for the same record.
    const VECTOR: &str = "5a080212221220a948904f2f0f479b8f8197694b30184b0d2ed1c1cd2a1ec0fb85d299a192a4474a320a260024\
                          080112201ed1e8fae2c4a144b8be8fd4b47bf3d3b34b871c3cacf6010f0e42d474fce27e12080401020304060fa1";

    fn provider(addresses: usize) -> Arc<Provider> {
        let peer = "12D3KooWBtg3aaRMjxwedh83aGiUkwSxDwUZkzuJcfaqUmo7R3pq"
            .parse()
            .unwrap();
        let address: Multiaddr = "/ip4/1.2.3.4/tcp/4001".parse().unwrap();
        Arc::new(Provider::new(&peer, vec![address; addresses].iter()))
    }

    fn written(provider: Arc<Provider>, keys: Vec<Multihash>) -> Vec<u8> {
        let mut out = Cursor::new(Vec::new());
        let protocol = StreamProtocol::new("/ipfs/kad/1.0.0");
        let records = Records { provider, keys };
        block_on(RecordCodec.write_request(&protocol, &mut out, records)).unwrap();
        out.into_inner()
    }

    #[test]
    fn a_record_is_written_as_go_writes_it() {
        let key = Multihash::sha2_256(&Sha256::of(b"hello world\n"));
        let hex: String = written(provider(1), vec![key])
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        assert_eq!(hex, VECTOR);
    }

    #[test]
    fn a_thousand_records_are_as_many_messages_with_few_addresses_each() {
        let key = |n: u32| Multihash::sha2_256(&Sha256::of(&n.to_be_bytes()));
        let keys: Vec<_> = (0..1000).map(key).collect();
        let bytes = written(provider(100), keys.clone());
        let mut rest = &bytes[..];
        for key in keys {
            let message = Message::decode_length_delimited(&mut rest).unwrap();
            assert_eq!(
                (message.kind, &message.key[..]),
                (ADD_PROVIDER, &key.as_bytes()[..])
            );
            assert_eq!(message.providers, [provider(8).0.clone()]);
        }
        assert!(
            rest.is_empty() && bytes.len() < 250_000,
            "{} bytes",
            bytes.len()
        );
    }
}
