//! A peer that announces a source, claims to have it, and delivers something else.
//!
//! It runs as a process of its own: the test binary starts itself again, and the one "test" below becomes the liar when the
//! environment says so. It speaks the real protocols (Noise, Kademlia, the source protocol, Bitswap) through libp2p itself
//! and not through our node, which could not be made to lie.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use base::{Codec, Multihash, Sha256};
use bitswap::{Block, Entry, Message, Presence, Version, WantType};
use bytes::Bytes;
use futures::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, StreamExt as _};
use libp2p::request_response::{self, ProtocolSupport};
use libp2p::swarm::{NetworkBehaviour, SwarmEvent};
use libp2p::{Multiaddr, PeerId, StreamProtocol, Swarm, identify, kad, noise, tcp, yamux};
use node::source_protocol::{self, Holding, SourceCodec};
use serde::{Deserialize, Serialize};

use crate::support::{wait_until, wait_with_deadline};

/// Set in the environment of the process that is to lie.
const ORDERS: &str = "P2PKGS_TEST_LIAR";
const BITSWAP: StreamProtocol = StreamProtocol::new("/ipfs/bitswap/1.2.0");
const DHT: StreamProtocol = StreamProtocol::new("/ipfs/lan/kad/1.0.0");
/// How long a liar whose test died goes on.
const LIFE: Duration = Duration::from_secs(120);

/// What to lie about.
#[derive(Debug, Serialize, Deserialize)]
pub struct Orders {
    /// A DHT node to start from, with its peer id.
    pub meeting: String,
    /// The source that is announced, in hexadecimal digits.
    pub sha256: String,
    /// The root it claims to be the source's; `None` for that of its own wrong bytes.
    pub root: Option<String>,
    /// The length it claims, with such a root.
    pub size: u64,
    /// Gets a line for each thing that happens.
    pub log: PathBuf,
}

/// A running liar. Dropping it kills it.
#[derive(Debug)]
pub struct Liar {
    child: Child,
    log: PathBuf,
}

impl Liar {
    /// Starts a liar and waits until it has announced the source.
    pub fn start(orders: &Orders) -> Self {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "hostile::liar::lies_when_told_to", "--nocapture"])
            .env(ORDERS, serde_json::to_string(orders).unwrap())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let liar = Self {
            child,
            log: orders.log.clone(),
        };
        wait_until("the liar has announced", || liar.has_logged("announced"));
        liar
    }

    /// Whether something has happened.
    pub fn has_logged(&self, what: &str) -> bool {
        fs::read_to_string(&self.log)
            .is_ok_and(|log| log.lines().any(|line| line.starts_with(what)))
    }
}

impl Drop for Liar {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = wait_with_deadline(&mut self.child, Duration::from_secs(5));
    }
}

#[test]
fn lies_when_told_to() {
    let Some(orders) = std::env::var_os(ORDERS) else {
        return;
    };
    let orders: Orders = serde_json::from_str(orders.to_str().unwrap()).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    // At the end of its life the test that started it is long over.
    let _ = runtime.block_on(async { tokio::time::timeout(LIFE, lie(orders)).await });
}

#[derive(NetworkBehaviour)]
struct Behaviour {
    identify: identify::Behaviour,
    kad: kad::Behaviour<kad::store::MemoryStore>,
    sources: request_response::Behaviour<SourceCodec>,
    blocks: request_response::Behaviour<BitswapCodec>,
}

async fn lie(orders: Orders) {
    let mut swarm = swarm();
    let wrong = Block::new(
        Codec::Raw.code(),
        Bytes::from_static(b"these are not the bytes you look for\n"),
    );
    let sha256: Sha256 = orders.sha256.parse().unwrap();
    let root = orders
        .root
        .as_deref()
        .map_or(*wrong.cid(), |text| base::parse_cid(text).unwrap());
    let size = if orders.root.is_some() {
        orders.size
    } else {
        wrong.data().len() as u64
    };
    let holding = Holding { root, size };
    swarm
        .listen_on("/ip4/127.0.0.1/tcp/0".parse().unwrap())
        .unwrap();
    let meeting: Multiaddr = orders.meeting.parse().unwrap();
    loop {
        match swarm.select_next_some().await {
            SwarmEvent::NewListenAddr { address, .. } => {
                swarm.add_external_address(address);
                swarm.dial(meeting.clone()).unwrap();
            }
            SwarmEvent::Behaviour(event) => {
                on_event(&mut swarm, event, &sha256, holding, &wrong, &orders.log);
            }
            _ => {}
        }
    }
}

fn swarm() -> Swarm<Behaviour> {
    libp2p::SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(
            tcp::Config::default(),
            noise::Config::new,
            yamux::Config::default,
        )
        .unwrap()
        .with_behaviour(|key| {
            let peer = key.public().to_peer_id();
            let mut kad = kad::Behaviour::with_config(
                peer,
                kad::store::MemoryStore::new(peer),
                kad::Config::new(DHT),
            );
            kad.set_mode(Some(kad::Mode::Server));
            let full = |protocol| [(protocol, ProtocolSupport::Full)];
            Behaviour {
                identify: identify::Behaviour::new(identify::Config::new("x".into(), key.public())),
                kad,
                sources: request_response::Behaviour::new(
                    full(source_protocol::PROTOCOL),
                    request_response::Config::default(),
                ),
                blocks: request_response::Behaviour::new(
                    full(BITSWAP),
                    request_response::Config::default(),
                ),
            }
        })
        .unwrap()
        .with_swarm_config(|c| c.with_idle_connection_timeout(LIFE))
        .build()
}

fn on_event(
    swarm: &mut Swarm<Behaviour>,
    event: BehaviourEvent,
    sha256: &Sha256,
    holding: Holding,
    wrong: &Block,
    log: &Path,
) {
    match event {
        BehaviourEvent::Identify(identify::Event::Received { peer_id, info, .. }) => {
            for address in info.listen_addrs {
                swarm.behaviour_mut().kad.add_address(&peer_id, address);
            }
            if info.protocols.contains(&DHT) {
                let key = kad::RecordKey::new(Multihash::sha2_256(sha256).as_bytes());
                swarm.behaviour_mut().kad.start_providing(key).unwrap();
            }
        }
        BehaviourEvent::Kad(kad::Event::OutboundQueryProgressed {
            result: kad::QueryResult::StartProviding(Ok(_)),
            ..
        }) => note(log, "announced"),
        BehaviourEvent::Sources(request_response::Event::Message {
            message:
                request_response::Message::Request {
                    request, channel, ..
                },
            ..
        }) => {
            let answers = request
                .0
                .iter()
                .map(|asked| (asked == sha256).then_some(holding));
            let response = source_protocol::Response(answers.collect());
            let _ = swarm
                .behaviour_mut()
                .sources
                .send_response(channel, response);
            note(log, "claimed");
        }
        BehaviourEvent::Blocks(request_response::Event::Message {
            peer,
            message:
                request_response::Message::Request {
                    request, channel, ..
                },
            ..
        }) => {
            let _ = swarm.behaviour_mut().blocks.send_response(channel, ());
            answer(swarm, peer, &request, wrong, log);
        }
        _ => {}
    }
}

/// Says HAVE to everything, and sends the same wrong bytes for whatever is wanted, under the prefix of what was wanted.
fn answer(
    swarm: &mut Swarm<Behaviour>,
    peer: PeerId,
    request: &Message,
    wrong: &Block,
    log: &Path,
) {
    let mut reply = Message::default();
    for entry in &request.wantlist {
        let Entry::Want { cid, want_type, .. } = entry else {
            continue;
        };
        match want_type {
            WantType::Have => reply.presences.push((*cid, Presence::Have)),
            WantType::Block => reply
                .blocks
                .push(Block::new(cid.codec(), wrong.data().clone())),
        }
    }
    if !reply.blocks.is_empty() {
        note(log, "sent wrong bytes");
    }
    if !reply.is_empty() {
        swarm.behaviour_mut().blocks.send_request(&peer, reply);
    }
}

fn note(log: &Path, what: &str) {
    let mut file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(log)
        .unwrap();
    writeln!(file, "{what}").unwrap();
}

/// Bitswap has one-way messages on streams; as a request without a response it fits libp2p's ready-made behaviour.
#[derive(Clone, Debug, Default)]
struct BitswapCodec;

impl request_response::Codec for BitswapCodec {
    type Protocol = StreamProtocol;
    type Request = Message;
    type Response = ();

    async fn read_request<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Message>
    where
        T: AsyncRead + Unpin + Send,
    {
        let mut length = 0;
        for shift in (0..28).step_by(7) {
            let mut byte = [0];
            io.read_exact(&mut byte).await?;
            length |= usize::from(byte[0] & 0x7f) << shift;
            if byte[0] < 0x80 {
                break;
            }
        }
        let mut body = vec![0; length];
        io.read_exact(&mut body).await?;
        Message::decode(&Bytes::from(body)).map_err(io::Error::other)
    }

    async fn read_response<T>(&mut self, _: &StreamProtocol, _: &mut T) -> io::Result<()>
    where
        T: AsyncRead + Unpin + Send,
    {
        Ok(())
    }

    async fn write_request<T>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
        message: Message,
    ) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        for piece in message.encode(Version::V1_2).pieces() {
            io.write_all(piece).await?;
        }
        io.close().await
    }

    async fn write_response<T>(&mut self, _: &StreamProtocol, _: &mut T, (): ()) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        Ok(())
    }
}
