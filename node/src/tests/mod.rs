//! Several nodes in one process over loopback TCP: real transports, real DHT, real stores.
//!
//! Nothing here sleeps for luck: every wait has a condition and a deadline.

mod abuse;
mod daemon;
mod deltas;
mod exchange;
mod group;
mod hostile;
mod names;
mod network;
mod paths;
mod reach;
mod realisations;
mod routing;
mod sources;
mod swarm;
mod sweeping;
mod web;
mod witnessing;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use base::{Codec, PkgHash, Realisation, SecretKey, Sha256, SignedRealisation, block_cid};
use libp2p::futures::StreamExt as _;
use libp2p::swarm::SwarmEvent;
use libp2p::{Swarm, request_response};
use store::substitute::{
    FetchError, Fetched, NoProgress, SourceFetcher as _, SourceRequest, Substituter as _,
};
use store::{Blob, BlockStore, Expected, ProvideKind, Store};
use tempfile::TempDir;
use tokio::task::JoinHandle;

use crate::behaviour::{Behaviour, BehaviourEvent};
use crate::dial_guard::Acquaintances;
use crate::source_protocol::{Holding, Response};
use crate::{
    Announce, Client, Config, DHT_LAN, Deadlines, Deltas, DhtMode, Multiaddr, Node, PeerId,
    PeerSources, PeerSubstituter, Status, identity, transport,
};

/// Far above anything that happens on loopback, far below a hanging test run.
const PATIENCE: Duration = Duration::from_secs(30);

/// A node with a store of its own.
struct TestNode {
    node: Node,
    store: Store,
    address: Multiaddr,
    _home: TempDir,
}

impl TestNode {
    /// A DHT server that announces what its store's queue names.
    async fn server(bootstrap: &[&Multiaddr]) -> Self {
        Self::start(Config {
            provide: true,
            ..config(DhtMode::Server, bootstrap)
        })
        .await
    }

    /// A short-lived command: it listens nowhere and announces nothing.
    async fn client(bootstrap: &[&Multiaddr]) -> Self {
        Self::start(Config {
            listen: Vec::new(),
            ..config(DhtMode::Client, bootstrap)
        })
        .await
    }

    async fn start(config: Config) -> Self {
        let home = tempfile::tempdir().unwrap();
        let store = Store::open(home.path()).unwrap();
        let listens = !config.listen.is_empty();
        let node = Node::spawn(config, store.clone()).unwrap();
        let status = eventually(node.client(), "listening", |status| {
            !listens || !status.external_addrs.is_empty()
        })
        .await;
        let address = status
            .listen_addrs
            .first()
            .map_or("/ip4/127.0.0.1/tcp/9", String::as_str);
        let address = format!("{address}/p2p/{}", status.peer_id).parse().unwrap();
        Self {
            node,
            store,
            address,
            _home: home,
        }
    }

    fn client_handle(&self) -> &Client {
        self.node.client()
    }

    fn peer_id(&self) -> PeerId {
        self.client_handle().peer_id()
    }

    /// Puts a file into the store and its keys into the queue, as `mirror add` does.
    fn mirror(&self, content: &[u8]) -> Blob {
        let blob = ingest(&self.store, content);
        self.store
            .provide(
                &base::Multihash::sha2_256(&blob.sha256),
                ProvideKind::Source,
            )
            .unwrap();
        blob
    }

    /// Puts an output and a realisation of it into the store and the queue, as `publish` does.
    fn publish(&self, pkghash: PkgHash, output: &[u8], key: &SecretKey) -> SignedRealisation {
        let blob = ingest(&self.store, output);
        let signed = sign(pkghash, &blob, key);
        self.store.put_realisation(&signed).unwrap();
        self.store
            .provide(&pkghash.dht_key(), ProvideKind::Package)
            .unwrap();
        signed
    }

    /// Waits until this node keeps so many announcements of others. Who announces does not learn when they arrive.
    async fn keeps(&self, records: usize) {
        let kept = |status: &Status| status.dht_records >= records;
        eventually(self.client_handle(), "announcements to arrive", kept).await;
    }

    /// Fetches a source through peers, on a thread that may block.
    async fn fetch_source(&self, sha256: Sha256) -> Result<Fetched, FetchError> {
        let (sources, store) = (
            PeerSources::new(self.client_handle().clone()),
            self.store.clone(),
        );
        let fetch = move || {
            let request = SourceRequest {
                sha256,
                file_name: "source",
                urls: &[],
            };
            sources.fetch(&request, &store, &NoProgress)
        };
        in_time("a source fetch", tokio::task::spawn_blocking(fetch))
            .await
            .unwrap()
    }

    fn substituter(&self) -> PeerSubstituter {
        PeerSubstituter::new(self.client_handle().clone())
    }
}

/// The address of a node that was there and is not any more.
async fn gone() -> Multiaddr {
    let TestNode { node, address, .. } = TestNode::server(&[]).await;
    node.stop().await;
    address
}

/// A node on loopback, in the DHT of local networks, with little patience.
fn config(dht_mode: DhtMode, bootstrap: &[&Multiaddr]) -> Config {
    Config {
        listen: vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()],
        bootstrap: bootstrap.iter().map(|address| (*address).clone()).collect(),
        dht_mode,
        dht_protocol: DHT_LAN.to_owned(),
        announce: Announce::All,
        // All peers are near here.
        deltas: Deltas::All,
        deadlines: deadlines(),
        ..Config::new(identity::ephemeral())
    }
}

fn deadlines() -> Deadlines {
    Deadlines {
        dial: Duration::from_secs(2),
        request: Duration::from_secs(2),
        dht_lookup: Duration::from_secs(4),
        first_byte: Duration::from_secs(15),
        stall: Duration::from_secs(15),
        ..Deadlines::default()
    }
}

/// Asks a node how it is doing until it is doing what is waited for.
async fn eventually(client: &Client, what: &str, done: impl Fn(&Status) -> bool) -> Status {
    let wait = async {
        loop {
            let status = client.status().await.unwrap();
            if done(&status) {
                return status;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    in_time(what, wait).await
}

async fn in_time<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("waited too long for {what}"),
    }
}

fn ingest(store: &Store, content: &[u8]) -> Blob {
    let mut ingest = store.ingest().unwrap();
    std::io::Write::write_all(&mut ingest, content).unwrap();
    ingest.finish(&Expected::anything()).unwrap()
}

fn sign(pkghash: PkgHash, blob: &Blob, key: &SecretKey) -> SignedRealisation {
    let Blob {
        sha256,
        root: output,
        size,
    } = blob.clone();
    Realisation {
        pkghash,
        output,
        sha256,
        size,
    }
    .sign(key)
}

/// Bytes that do not repeat, different for each `name`.
fn content(name: u32, length: usize) -> Vec<u8> {
    let words = (0..length as u32).map(|i| i.wrapping_add(name << 24).wrapping_mul(2_654_435_761));
    words.flat_map(u32::to_be_bytes).take(length).collect()
}

/// What a peer that plays its own game does with questions about sources.
#[derive(Clone)]
enum Answers {
    /// Always gives this.
    Holding(Holding),
    /// Never answers.
    Silence,
    /// Does not speak the protocol, as no other IPFS node does.
    Unknown,
}

/// A peer with the real protocols and a dishonest owner.
struct Impostor {
    address: Multiaddr,
    peer_id: PeerId,
    /// How many questions about sources it was asked.
    questions: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Impostor {
    /// Serves `blocks`, answers questions as told, and announces `keys` in the DHT.
    async fn start(
        blocks: Arc<dyn BlockStore>,
        answers: Answers,
        bootstrap: &Multiaddr,
        keys: &[base::Multihash],
    ) -> Self {
        let config = config(DhtMode::Server, &[bootstrap]);
        Self::of(config, blocks, answers, bootstrap, keys).await
    }

    /// The same under a configuration of its own.
    async fn of(
        mut config: Config,
        blocks: Arc<dyn BlockStore>,
        answers: Answers,
        bootstrap: &Multiaddr,
        keys: &[base::Multihash],
    ) -> Self {
        // It never gives up before those whom it keeps waiting.
        config.deadlines.request = 10 * PATIENCE;
        let mut swarm = swarm_of(&config, blocks);
        if matches!(answers, Answers::Unknown) {
            swarm.behaviour_mut().sources =
                request_response::Behaviour::new([], Default::default());
        }
        let peer_id = *swarm.local_peer_id();
        swarm.listen_on(config.listen[0].clone()).unwrap();
        let address = in_time("listening", async {
            loop {
                if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
                    return address;
                }
            }
        })
        .await;
        swarm.add_external_address(address.clone());
        in_time("joining and announcing", join(&mut swarm, bootstrap, keys)).await;
        let questions = Arc::default();
        let task = tokio::spawn(play(swarm, answers, Arc::clone(&questions)));
        let address = address.with_p2p(peer_id).unwrap();
        Self {
            address,
            peer_id,
            questions,
            task,
        }
    }
}

impl Drop for Impostor {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn swarm_of(config: &Config, blocks: Arc<dyn BlockStore>) -> Swarm<Behaviour> {
    let dht = config.dht_stream_protocol().unwrap();
    let (transport, relay) = transport::build(config, &Acquaintances::default()).unwrap();
    let behaviour = Behaviour::new(config, dht, blocks, relay);
    let settings = libp2p::swarm::Config::with_tokio_executor()
        .with_idle_connection_timeout(Duration::from_secs(60));
    Swarm::new(
        transport,
        behaviour,
        config.identity.public().to_peer_id(),
        settings,
    )
}

/// Meets the bootstrap peer and announces keys through it.
async fn join(swarm: &mut Swarm<Behaviour>, bootstrap: &Multiaddr, keys: &[base::Multihash]) {
    use libp2p::{identify, kad};
    let (peer, address) = crate::address::split_peer(bootstrap).unwrap();
    swarm.dial(bootstrap.clone()).unwrap();
    let mut left = keys.len();
    let mut met = false;
    while !met || left > 0 {
        match swarm.select_next_some().await {
            SwarmEvent::Behaviour(BehaviourEvent::Identify(identify::Event::Received {
                peer_id,
                ..
            })) if peer_id == peer && !met => {
                met = true;
                let kad = &mut swarm.behaviour_mut().kad;
                kad.add_address(&peer, address.clone());
                for key in keys {
                    kad.start_providing(kad::RecordKey::new(key.as_bytes()))
                        .unwrap();
                }
            }
            SwarmEvent::Behaviour(BehaviourEvent::Kad(kad::Event::OutboundQueryProgressed {
                result: kad::QueryResult::StartProviding(result),
                ..
            })) => {
                result.unwrap();
                left -= 1;
            }
            _ => {}
        }
    }
}

async fn play(mut swarm: Swarm<Behaviour>, answers: Answers, questions: Arc<AtomicUsize>) {
    let mut kept = Vec::new();
    loop {
        if let SwarmEvent::Behaviour(BehaviourEvent::Sources(request_response::Event::Message {
            message:
                request_response::Message::Request {
                    request, channel, ..
                },
            ..
        })) = swarm.select_next_some().await
        {
            questions.fetch_add(1, Ordering::Relaxed);
            match &answers {
                Answers::Holding(holding) => {
                    let response = Response(vec![Some(*holding); request.0.len()]);
                    let _ = swarm
                        .behaviour_mut()
                        .sources
                        .send_response(channel, response);
                }
                // A dropped channel would be an answer of sorts.
                Answers::Silence | Answers::Unknown => kept.push(channel),
            }
        }
    }
}

/// The root that a file has in every store, without one.
fn raw_root(content: &[u8]) -> base::Cid {
    block_cid(Codec::Raw, &Sha256::of(content))
}

/// Runs a query on a thread that may block.
async fn query(
    substituter: PeerSubstituter,
    pkghash: PkgHash,
) -> Result<store::substitute::Query, store::substitute::QueryError> {
    let query = tokio::task::spawn_blocking(move || substituter.query(&pkghash, &NoProgress));
    in_time("a query", query).await.unwrap()
}
