//! Handing records to a given peer of the DHT, and asking it who else provides the same.
//!
//! The DHT's library sends a record only at the end of a walk of its own. Here many records go to one peer over one stream
//! of the DHT's protocol: a message for each, then the end of the stream. There is no answer; servers read messages until
//! the stream ends and then end it on their side, which shows that all were read. Who breaks it off has refused.
//!
//! Questions go the same way, a few on one stream, and are answered in their order.
//!
//! A value (the record of a name) is answered with the same value, and by many also when they refuse it. So it is asked back
//! on the same stream: who gives it has it.

use std::collections::HashSet;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use base::Multihash;
use futures::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use libp2p::request_response::{self, Codec, ProtocolSupport};
use libp2p::{Multiaddr, PeerId, StreamProtocol};
use prost::Message as _;

use crate::wire::{put_uvarint, read_frame};

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
/// The message that says who provides a key, and the one that asks for it.
const ADD_PROVIDER: i32 = 2;
const GET_PROVIDERS: i32 = 3;
/// The message that brings a value, and the one that asks for it.
const PUT_VALUE: i32 = 0;
const GET_VALUE: i32 = 1;
/// Largest answer to a question, in bytes. Twenty providers and twenty closer peers with eight addresses each take 15 kB.
const ANSWER_BYTES_MAX: usize = 256 << 10;
/// Questions on one stream.
pub(crate) const QUESTIONS_MAX: usize = 32;

/// Sends records and questions.
pub(crate) type Behaviour = request_response::Behaviour<RecordCodec>;

/// A behaviour that speaks the DHT's protocol, towards others only: their questions are the library's.
pub(crate) fn behaviour(dht: StreamProtocol) -> Behaviour {
    let config = request_response::Config::default().with_request_timeout(DEADLINE);
    Behaviour::new([(dht, ProtocolSupport::Outbound)], config)
}

/// What is sent to one peer.
#[derive(Clone, Debug)]
pub(crate) enum Request {
    /// That this provider has these keys.
    Add(Arc<Provider>, Vec<Multihash>),
    /// How many others than this provider have these keys. At most [`QUESTIONS_MAX`] are asked.
    Count(Arc<Provider>, Vec<Multihash>),
    /// A value under its key.
    Put(Arc<Value>),
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Response {
    /// The records were read.
    Added,
    /// So many others provide each key.
    Counted(Vec<(Multihash, u32)>),
    /// Whether the peer has the value now.
    Put(bool),
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
    #[prost(message, optional, tag = "3")]
    record: Option<Value>,
    #[prost(message, repeated, tag = "9")]
    providers: Vec<Peer>,
}

/// A value of the DHT.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct Value {
    #[prost(bytes = "vec", tag = "1")]
    pub(crate) key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub(crate) value: Vec<u8>,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
struct Peer {
    #[prost(bytes = "vec", tag = "1")]
    id: Vec<u8>,
    #[prost(bytes = "vec", repeated, tag = "2")]
    addresses: Vec<Vec<u8>>,
}

/// Writes a [`Request`] and reads what comes of it. Each stream has a codec of its own, which knows what it has asked.
#[derive(Clone, Debug, Default)]
pub(crate) struct RecordCodec {
    asked: Option<Question>,
}

/// What is to be answered on a stream.
#[derive(Clone, Debug)]
enum Question {
    Count(Arc<Provider>, Vec<Multihash>),
    Value(Arc<Value>),
}

impl Codec for RecordCodec {
    type Protocol = StreamProtocol;
    type Request = Request;
    type Response = Response;

    /// Never called: questions to us are answered elsewhere.
    async fn read_request<T>(&mut self, _: &StreamProtocol, _: &mut T) -> io::Result<Request>
    where
        T: AsyncRead + Unpin + Send,
    {
        Err(io::ErrorKind::Unsupported.into())
    }

    async fn read_response<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Response>
    where
        T: AsyncRead + Unpin + Send,
    {
        match self.asked.take() {
            Some(Question::Count(provider, keys)) => read_counts(io, &provider, keys).await,
            Some(Question::Value(value)) => read_value(io, &value).await.map(Response::Put),
            None => {
                let end = tokio::time::timeout(END_PATIENCE, read_to_end(io)).await;
                end.unwrap_or(Ok(())).map(|()| Response::Added)
            }
        }
    }

    async fn write_request<T>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
        request: Request,
    ) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        let (mut message, keys) = match request {
            Request::Add(provider, keys) => {
                let providers = vec![provider.0.clone()];
                (Message::new(ADD_PROVIDER, providers), keys)
            }
            Request::Count(provider, mut keys) => {
                keys.truncate(QUESTIONS_MAX);
                self.asked = Some(Question::Count(provider, keys.clone()));
                (Message::new(GET_PROVIDERS, Vec::new()), keys)
            }
            Request::Put(value) => {
                io.write_all(&put_and_get(&value)).await?;
                self.asked = Some(Question::Value(value));
                return io.flush().await;
            }
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
    async fn write_response<T>(
        &mut self,
        _: &StreamProtocol,
        _: &mut T,
        _: Response,
    ) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        Err(io::ErrorKind::Unsupported.into())
    }
}

impl Message {
    fn new(kind: i32, providers: Vec<Peer>) -> Self {
        Self {
            kind,
            key: Vec::new(),
            record: None,
            providers,
        }
    }
}

/// Reads the answers to our questions, and counts in each those who are not we.
async fn read_counts<T: AsyncRead + Unpin + Send>(
    io: &mut T,
    provider: &Provider,
    keys: Vec<Multihash>,
) -> io::Result<Response> {
    let mut counts = Vec::with_capacity(keys.len());
    for key in keys {
        let body = read_frame(io, ANSWER_BYTES_MAX).await?;
        let answer = Message::decode(&body[..])?;
        if answer.kind != GET_PROVIDERS {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let others: HashSet<_> = answer.providers.into_iter().map(|peer| peer.id).collect();
        let ours = usize::from(others.contains(&provider.0.id));
        let count = u32::try_from(others.len() - ours).unwrap_or(u32::MAX);
        counts.push((key, count));
    }
    Ok(Response::Counted(counts))
}

/// The message that brings a value, and the one that asks for it.
fn put_and_get(value: &Value) -> Vec<u8> {
    let put = Message {
        key: value.key.clone(),
        record: Some(value.clone()),
        ..Message::new(PUT_VALUE, Vec::new())
    };
    let get = Message {
        key: value.key.clone(),
        ..Message::new(GET_VALUE, Vec::new())
    };
    let messages = [put, get].map(|message| message.encode_length_delimited_to_vec());
    messages.concat()
}

/// Whether a peer gives a value back that it was brought. One that breaks off has refused it.
async fn read_value<T: AsyncRead + Unpin + Send>(io: &mut T, value: &Value) -> io::Result<bool> {
    for kind in [PUT_VALUE, GET_VALUE] {
        let body = read_frame(io, ANSWER_BYTES_MAX).await?;
        let answer = Message::decode(&body[..])?;
        if answer.kind != kind {
            return Err(io::ErrorKind::InvalidData.into());
        }
        // The key is known by what was asked; not everybody repeats it.
        if answer.record.is_none_or(|got| got.value != value.value) {
            return Ok(false);
        }
    }
    Ok(true)
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
        let request = Request::Add(provider, keys);
        let mut codec = RecordCodec::default();
        block_on(codec.write_request(&protocol, &mut out, request)).unwrap();
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

    #[test]
    fn a_value_is_taken_where_it_is_given_back() {
        let protocol = StreamProtocol::new("/ipfs/kad/1.0.0");
        let value = Arc::new(Value {
            key: b"/ipns/name".to_vec(),
            value: b"record".to_vec(),
        });
        let mut codec = RecordCodec::default();
        let mut out = Cursor::new(Vec::new());
        let request = Request::Put(Arc::clone(&value));
        block_on(codec.write_request(&protocol, &mut out, request)).unwrap();
        let mut written = &out.into_inner()[..];
        let put = Message::decode_length_delimited(&mut written).unwrap();
        let get = Message::decode_length_delimited(&mut written).unwrap();
        assert_eq!((put.kind, put.record.as_ref()), (PUT_VALUE, Some(&*value)));
        assert_eq!((get.kind, &get.key), (GET_VALUE, &value.key));
        assert!(written.is_empty());

        let answer = |kind, value: Option<&[u8]>| {
            let record = value.map(|value| Value {
                key: Vec::new(),
                value: value.to_vec(),
            });
            Message {
                record,
                ..Message::new(kind, Vec::new())
            }
            .encode_length_delimited_to_vec()
        };
        let read = |answers: &[Vec<u8>]| {
            let mut io = Cursor::new(answers.concat());
            block_on(codec.clone().read_response(&protocol, &mut io)).ok()
        };
        let echo = answer(PUT_VALUE, Some(b"record"));
        let kept = answer(GET_VALUE, Some(b"record"));
        let other = answer(GET_VALUE, Some(b"newer"));
        let nothing = answer(GET_VALUE, None);
        assert_eq!(
            read(&[echo.clone(), kept.clone()]),
            Some(Response::Put(true))
        );
        assert_eq!(read(&[echo.clone(), other]), Some(Response::Put(false)));
        assert_eq!(read(&[echo.clone(), nothing]), Some(Response::Put(false)));
        assert_eq!(read(&[answer(PUT_VALUE, None)]), Some(Response::Put(false)));
        assert_eq!(read(&[kept]), None, "an answer to something else");
        assert_eq!(read(&[echo]), None, "it has broken off");
        assert_eq!(read(&[]), None);
    }

    #[test]
    fn questions_are_written_as_go_writes_them_and_others_in_the_answers_counted_once() {
        let protocol = StreamProtocol::new("/ipfs/kad/1.0.0");
        let key = Multihash::sha2_256(&Sha256::of(b"hello world\n"));
        let us = provider(1);
        let mut codec = RecordCodec::default();
        let mut out = Cursor::new(Vec::new());
        let request = Request::Count(us.clone(), vec![key]);
        block_on(codec.write_request(&protocol, &mut out, request)).unwrap();
        let hex: String = out
            .into_inner()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let vector =
            "26080312221220a948904f2f0f479b8f8197694b30184b0d2ed1c1cd2a1ec0fb85d299a192a447";
        assert_eq!(hex, vector);
        let other = |n| Peer {
            id: vec![n; 38],
            addresses: Vec::new(),
        };
        let answer = |kind| {
            let providers = vec![us.0.clone(), other(1), other(2), other(1)];
            Message::new(kind, providers).encode_length_delimited_to_vec()
        };
        let read = |mut codec: RecordCodec, bytes: Vec<u8>| {
            block_on(codec.read_response(&protocol, &mut Cursor::new(bytes)))
        };
        let counted = read(codec.clone(), answer(GET_PROVIDERS)).unwrap();
        assert_eq!(counted, Response::Counted(vec![(key, 2)]));
        assert!(read(codec.clone(), answer(ADD_PROVIDER)).is_err());
        assert!(read(codec.clone(), answer(GET_PROVIDERS)[..9].to_vec()).is_err());
        assert!(
            read(codec, vec![0xff, 0xff, 0xff, 0x7f]).is_err(),
            "too long"
        );
    }
}
