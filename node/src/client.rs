//! Handles on a running node: [`Client`] for asynchronous callers, [`BlockingClient`] for threads.
//!
//! A handle is cheap to clone and only sends commands; the event loop does the work. The node ends when it is told to, or
//! when the last handle is dropped.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use base::{Cid, Multihash, PkgHash, Sha256, SignedRealisation};
use bitswap::Budget;
use libp2p::{Multiaddr, PeerId};
use store::Store;
use store::substitute::{Asked, FetchError, Fetched, Progress};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};

use crate::command::{Command, Found, Heard, OpenedSession, Question};
use crate::config::{Deadlines, Limits, RunningLimits};
use crate::error::ClientError;
use crate::event_loop::WITNESSES_MAX;
use crate::fetch;
use crate::routing_protocol::Place;
use crate::status::Status;

/// Lies remembered; each is a peer and a hash, 120 bytes. Far more than one process ever meets.
const LIES_MAX: usize = 4096;

/// How often a waiting thread looks whether it should go on waiting: below what a person notices.
const CANCEL_TICK: Duration = Duration::from_millis(50);

/// What stays the same while a node runs.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) peer_id: PeerId,
    pub(crate) limits: Limits,
    pub(crate) deadlines: Deadlines,
    pub(crate) runtime: Handle,
    pub(crate) upload: Budget,
    pub(crate) download: Budget,
    /// Who gave a root for a SHA-256 under which other bytes lay.
    lies: Mutex<HashSet<(PeerId, Sha256)>>,
}

impl Shared {
    pub(crate) fn new(
        peer_id: PeerId,
        limits: Limits,
        deadlines: Deadlines,
        runtime: Handle,
        upload: Budget,
        download: Budget,
    ) -> Self {
        Self {
            peer_id,
            limits,
            deadlines,
            runtime,
            upload,
            download,
            lies: Mutex::default(),
        }
    }
}

/// A handle on a running node.
#[derive(Clone, Debug)]
pub struct Client {
    commands: mpsc::Sender<Command>,
    shared: Arc<Shared>,
}

/// What a search for providers found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Providers {
    /// Peers that announced the key.
    pub peers: Vec<PeerId>,
    /// Where they are, as far as the DHT said.
    pub addresses: BTreeMap<PeerId, Vec<Multiaddr>>,
    /// Who was asked.
    pub asked: Asked,
}

/// What a search for realisations found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Realisations {
    /// Verified statements about the package, each once, with the first peer that sent it.
    pub found: Vec<(PeerId, SignedRealisation)>,
    /// All peers that knew any.
    pub peers: Vec<PeerId>,
    /// Who was asked.
    pub asked: Asked,
    /// Whether the deadline came before the search ended.
    pub overdue: bool,
}

impl Client {
    pub(crate) fn new(commands: mpsc::Sender<Command>, shared: Arc<Shared>) -> Self {
        Self { commands, shared }
    }

    /// Who the node is.
    pub fn peer_id(&self) -> PeerId {
        self.shared.peer_id
    }

    /// How the node is doing.
    ///
    /// # Errors
    /// [`ClientError::Stopped`].
    pub async fn status(&self) -> Result<Status, ClientError> {
        self.request(|reply| Command::Status { reply }).await
    }

    /// Connects to a peer and waits until it has introduced itself.
    ///
    /// # Errors
    /// [`ClientError::TimedOut`] when it could not be reached, [`ClientError::Stopped`].
    pub async fn connect(&self, address: Multiaddr) -> Result<PeerId, ClientError> {
        let peer = self
            .request(|reply| Command::Connect { address, reply })
            .await?;
        peer.ok_or(ClientError::TimedOut)
    }

    /// Announces one key in the DHT now, whatever the queue says; how many nodes were told.
    ///
    /// # Errors
    /// [`ClientError::Stopped`].
    pub async fn provide(&self, key: Multihash) -> Result<u32, ClientError> {
        self.request(|reply| Command::Provide { key, reply }).await
    }

    /// Asks the DHT who announced a key.
    ///
    /// # Errors
    /// [`ClientError::Stopped`].
    pub async fn find_providers(&self, key: Multihash) -> Result<Providers, ClientError> {
        let mut answers = self.lookup(Question::Providers(key), Vec::new()).await?;
        let mut providers = Providers::default();
        while let Some(found) = answers.recv().await {
            match found {
                Found::Provider { peer, addresses } => {
                    providers.peers.push(peer);
                    providers.addresses.insert(peer, addresses);
                }
                Found::Finished { asked, .. } => {
                    providers.asked = asked;
                    return Ok(providers);
                }
                Found::Root { .. } | Found::Realisations { .. } => {}
            }
        }
        Err(ClientError::Stopped)
    }

    /// Asks the DHT who announced a key, for others than this process: who asks for the same at the same time, or soon after,
    /// shares one walk. What is known when the deadline of lookups comes.
    ///
    /// # Errors
    /// [`ClientError::Stopped`].
    pub(crate) async fn walk(&self, key: Multihash) -> Result<Vec<Place>, ClientError> {
        let until = Instant::now() + self.shared.deadlines.dht_lookup;
        self.request(|reply| Command::Walk { key, until, reply })
            .await
    }

    /// Asks providers of a package and connected peers what building it gave, until all have answered, the deadline
    /// comes, or `enough` is satisfied with what was found.
    ///
    /// # Errors
    /// [`ClientError::Stopped`].
    pub async fn find_realisations(
        &self,
        pkghash: PkgHash,
        enough: impl Fn(&[SignedRealisation]) -> bool,
    ) -> Result<Realisations, ClientError> {
        let mut answers = self
            .lookup(Question::Realisations(pkghash), Vec::new())
            .await?;
        let mut result = Realisations::default();
        let mut statements = Vec::new();
        while let Some(found) = answers.recv().await {
            match found {
                Found::Realisations { peer, realisations } => {
                    result.peers.push(peer);
                    for statement in realisations {
                        if !statements.contains(&statement) {
                            statements.push(statement.clone());
                            result.found.push((peer, statement));
                        }
                    }
                    if enough(&statements) {
                        result.asked.providers = result.peers.len() as u32;
                        return Ok(result);
                    }
                }
                Found::Finished { asked, overdue } => {
                    (result.asked, result.overdue) = (asked, overdue);
                    return Ok(result);
                }
                Found::Root { .. } | Found::Provider { .. } => {}
            }
        }
        Err(ClientError::Stopped)
    }

    /// Asks connected peers what they have seen of some topics, [`TOPICS_MAX`](crate::TOPICS_MAX) at most: those that are named, and
    /// no longer than `within`; all that are and that come, for just so long, if none are.
    ///
    /// # Errors
    /// [`ClientError::Stopped`].
    pub async fn hear(
        &self,
        topics: Vec<Sha256>,
        peers: &[PeerId],
        within: Duration,
    ) -> Result<Vec<Heard>, ClientError> {
        let (sink, mut answers) = mpsc::channel(WITNESSES_MAX);
        let peers = peers.to_vec();
        self.send(Command::Hear {
            topics,
            peers,
            sink,
        })
        .await?;
        let mut heard = Vec::new();
        let _ = tokio::time::timeout(within, async {
            while let Some(one) = answers.recv().await {
                heard.push(one);
            }
        })
        .await;
        Ok(heard)
    }

    /// Goes on with other limits. Connections that are open stay open.
    ///
    /// # Errors
    /// [`ClientError::Stopped`].
    pub async fn set_limits(&self, limits: RunningLimits) -> Result<(), ClientError> {
        let (now, shared) = (Instant::now(), &self.shared);
        shared.upload.set_rate(limits.upload_bytes_per_sec, now);
        shared.download.set_rate(limits.download_bytes_per_sec, now);
        self.send(Command::SetLimits(limits)).await
    }

    /// A handle for threads. They must not be threads of the runtime itself.
    pub fn blocking(&self) -> BlockingClient {
        BlockingClient {
            client: self.clone(),
        }
    }

    /// Ends the node. Running fetches fail; connections are closed.
    pub async fn stop(&self) {
        // A node that has ended already is what was wanted.
        let _ = self.commands.send(Command::Stop).await;
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// Starts a lookup. Dropping the receiver ends it.
    pub(crate) async fn lookup(
        &self,
        question: Question,
        providers: Vec<PeerId>,
    ) -> Result<mpsc::Receiver<Found>, ClientError> {
        // Every peer answers once, and the end is told once.
        let (sink, answers) = mpsc::channel(self.shared.limits.lookup_peers + 1);
        self.send(Command::Lookup {
            question,
            providers,
            sink,
        })
        .await?;
        Ok(answers)
    }

    pub(crate) async fn open_session(
        &self,
        root: Cid,
        providers: Vec<PeerId>,
    ) -> Result<OpenedSession, ClientError> {
        self.request(|reply| Command::OpenSession {
            root,
            providers,
            reply,
        })
        .await
    }

    pub(crate) async fn send(&self, command: Command) -> Result<(), ClientError> {
        self.commands
            .send(command)
            .await
            .map_err(|_| ClientError::Stopped)
    }

    /// Sends a command unless too many wait; for what is only a courtesy.
    pub(crate) fn try_send(&self, command: Command) {
        let _ = self.commands.try_send(command);
    }

    pub(crate) async fn request<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<T>) -> Command,
    ) -> Result<T, ClientError> {
        let (reply, answer) = oneshot::channel();
        self.send(command(reply)).await?;
        answer.await.map_err(|_| ClientError::Stopped)
    }

    /// Remembers that peers gave a wrong root for a source.
    pub(crate) fn remember_lie(&self, sha256: Sha256, peers: &[PeerId]) {
        let mut lies = self
            .shared
            .lies
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        for peer in peers {
            tracing::warn!(%peer, %sha256, "peer gave a wrong root for a source");
            if lies.len() < LIES_MAX {
                lies.insert((*peer, sha256));
            }
        }
    }

    /// Whether a peer gave a wrong root for this source before.
    pub(crate) fn has_lied(&self, peer: &PeerId, sha256: &Sha256) -> bool {
        let lies = self
            .shared
            .lies
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        lies.contains(&(*peer, *sha256))
    }
}

/// A handle on a running node whose calls wait. Not to be used on a thread of the node's own runtime.
#[derive(Clone, Debug)]
pub struct BlockingClient {
    client: Client,
}

impl BlockingClient {
    /// The asynchronous handle.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// See [`Client::status`].
    ///
    /// # Errors
    /// As there.
    pub fn status(&self) -> Result<Status, ClientError> {
        self.block_on(self.client.status())
    }

    /// See [`Client::connect`].
    ///
    /// # Errors
    /// As there.
    pub fn connect(&self, address: Multiaddr) -> Result<PeerId, ClientError> {
        self.block_on(self.client.connect(address))
    }

    /// See [`Client::provide`].
    ///
    /// # Errors
    /// As there.
    pub fn provide(&self, key: Multihash) -> Result<u32, ClientError> {
        self.block_on(self.client.provide(key))
    }

    /// See [`Client::find_providers`]. Ends soon after `progress` says that it should, as all lookups here.
    ///
    /// # Errors
    /// As there, and [`ClientError::Cancelled`].
    pub fn find_providers(
        &self,
        key: Multihash,
        progress: &dyn Progress,
    ) -> Result<Providers, ClientError> {
        self.block_on_unless(self.client.find_providers(key), progress)?
    }

    /// See [`Client::find_realisations`].
    ///
    /// # Errors
    /// As there, and [`ClientError::Cancelled`].
    pub fn find_realisations(
        &self,
        pkghash: PkgHash,
        enough: impl Fn(&[SignedRealisation]) -> bool,
        progress: &dyn Progress,
    ) -> Result<Realisations, ClientError> {
        self.block_on_unless(self.client.find_realisations(pkghash, enough), progress)?
    }

    /// See [`Client::hear`].
    ///
    /// # Errors
    /// As there, and [`ClientError::Cancelled`].
    pub fn hear(
        &self,
        topics: Vec<Sha256>,
        peers: &[PeerId],
        within: Duration,
        progress: &dyn Progress,
    ) -> Result<Vec<Heard>, ClientError> {
        self.block_on_unless(self.client.hear(topics, peers, within), progress)?
    }

    /// Gets the file below a root into the store. Providers are looked for in the DHT beside those that are named.
    ///
    /// # Errors
    /// [`FetchError`]; nothing that did not verify was kept.
    pub fn fetch_cid(
        &self,
        root: Cid,
        providers: &[PeerId],
        store: &Store,
        progress: &dyn Progress,
    ) -> Result<Fetched, FetchError> {
        fetch::fetch_cid(&self.client, root, providers, store, progress)
    }

    /// See [`Client::stop`].
    pub fn stop(&self) {
        self.block_on(self.client.stop());
    }

    pub(crate) fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        self.client.shared.runtime.block_on(future)
    }

    /// Waits for a future until `progress` says that nobody wants it any more: [`ClientError::Cancelled`].
    pub(crate) fn block_on_unless<T>(
        &self,
        future: impl Future<Output = T>,
        progress: &dyn Progress,
    ) -> Result<T, ClientError> {
        self.block_on(async {
            let mut future = std::pin::pin!(future);
            while !progress.cancelled() {
                if let Ok(done) = tokio::time::timeout(CANCEL_TICK, &mut future).await {
                    return Ok(done);
                }
            }
            Err(ClientError::Cancelled)
        })
    }
}
