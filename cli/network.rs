//! This command's own door to the network: a short-lived node that only asks, started when somebody is first asked.
//!
//! A command must not wait for the network if all it needs lies in the store, and `--offline` must open no socket at all.
//! So [`Remote`] holds the wish and starts the node on the first question. The node has a name that lives as long as the
//! process; it dials the home's own daemon first, which knows the network already, and the configured first peers.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use base::{Cid, PkgHash, Realisation, SignedRealisation};
use netconfig::{Announced, Deltas, DhtMode, Network};
use node::{
    BlockingClient, Doors, GATEWAY_HEATS, GatewaySources, Gateways, HttpSources, Node, PeerSources,
    PeerSubstituter, SourceForm,
};
use store::substitute::{
    Asked, FetchError, Fetched, Progress, Query, QueryError, SourceFetcher, SourceRequest,
    Substituter, Way,
};
use store::{ProvideScope, Store};
use tokio::runtime::Runtime;

use crate::believing::Believer;
use crate::bug::NODE_THREAD;
use crate::context::Context;
use crate::daemon;
use crate::error::{CmdResult, Failure};
use crate::substituters::Settled;
use crate::witness::{HomeWitness, KeyQuestions};

/// How long the node's tasks may take to end after a command; connections are closed, nothing is written.
const SHUTDOWN: Duration = Duration::from_millis(500);
/// Threads of a command's runtime: one for the swarm, one for what it spawns.
const WORKERS: usize = 2;

/// A node that may have to be started.
pub struct Remote {
    /// `None` when the network is switched off.
    config: Option<node::Config>,
    store: Store,
    settled: Settled,
    believer: Arc<Believer>,
    keys: KeyQuestions,
    http: HttpSources,
    gateways: Gateways,
    started: OnceLock<Result<Started, String>>,
}

/// A node that runs.
struct Started {
    client: BlockingClient,
    substituter: PeerSubstituter,
    sources: PeerSources,
    runtime: Option<Runtime>,
}

/// The node could not be started.
#[derive(Clone, Debug, thiserror::Error)]
#[error("cannot start a node: {0}")]
pub struct NotStarted(String);

impl Remote {
    /// A door that opens when it is needed.
    ///
    /// # Errors
    /// When the configuration of the network cannot be used.
    pub fn new(context: &Context) -> CmdResult<Self> {
        let network = context.network()?;
        let config = network
            .enabled
            .then(|| client_config(context, &network))
            .transpose()?;
        let gateways = match network.enabled {
            true => context.config()?.gateways()?.urls,
            false => Vec::new(),
        };
        let limits = node::Limits::default();
        let http = HttpSources::new(deadlines(context)?, limits.file_bytes_max)
            .limited(context.download()?.clone());
        Ok(Self {
            config,
            gateways: Gateways::new(http.clone(), &gateways),
            http,
            store: context.store()?.clone(),
            settled: Settled::of(context)?,
            believer: Arc::clone(context.believer()?),
            keys: KeyQuestions::default(),
            started: OnceLock::new(),
        })
    }

    /// Whether there is a network.
    pub const fn is_enabled(&self) -> bool {
        self.config.is_some()
    }

    /// A handle on the node, started now if need be; `None` without a network.
    ///
    /// # Errors
    /// [`NotStarted`].
    pub fn client(&self) -> Result<Option<&BlockingClient>, NotStarted> {
        Ok(self.started()?.map(|started| &started.client))
    }

    /// Whom to ask for content: the node, started now if need be, and gateways.
    ///
    /// # Errors
    /// [`NotStarted`].
    pub fn doors(&self) -> Result<Doors<'_>, NotStarted> {
        Ok(Doors {
            peers: self.client()?,
            gateways: self.gateways(),
        })
    }

    /// The door to web servers, which all share.
    pub const fn http(&self) -> &HttpSources {
        &self.http
    }

    fn started(&self) -> Result<Option<&Started>, NotStarted> {
        let Some(config) = &self.config else {
            return Ok(None);
        };
        let started = self.started.get_or_init(|| {
            start(config.clone(), &self.store, self.settled.clone()).map_err(|f| f.message())
        });
        started
            .as_ref()
            .map(Some)
            .map_err(|message| NotStarted(message.clone()))
    }
}

impl std::fmt::Debug for Remote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Remote")
            .field("enabled", &self.is_enabled())
            .finish_non_exhaustive()
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        self.client.stop();
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(SHUTDOWN);
        }
    }
}

fn start(config: node::Config, store: &Store, settled: Settled) -> CmdResult<Started> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .thread_name(NODE_THREAD)
        .enable_all()
        .build()?;
    let node = {
        let _inside = runtime.enter();
        Node::spawn(config, store.clone())?
    };
    let client = node.client().clone();
    let enough =
        move |pkghash: &PkgHash, found: &[SignedRealisation]| settled.is_settled(pkghash, found);
    Ok(Started {
        substituter: PeerSubstituter::new(client.clone()).until(enough),
        sources: PeerSources::new(client.clone()),
        client: client.blocking(),
        runtime: Some(runtime),
    })
}

impl Substituter for Remote {
    fn query(&self, pkghash: &PkgHash, progress: &dyn Progress) -> Result<Query, QueryError> {
        match self.started() {
            Ok(Some(started)) => {
                let query = started.substituter.query(pkghash, progress)?;
                let peers = started.substituter.remembered(pkghash);
                let (client, said) = (&started.client, &query.realisations);
                self.keys
                    .ask(client, &peers, said, &self.believer, progress);
                Ok(query)
            }
            Ok(None) => Ok(Query::default()),
            Err(error) => Err(QueryError::Failed {
                source: Box::new(error),
            }),
        }
    }

    fn fetch(
        &self,
        realisation: &Realisation,
        store: &Store,
        progress: &dyn Progress,
    ) -> Result<Fetched, FetchError> {
        match self.started() {
            Ok(Some(started)) => started.substituter.fetch(realisation, store, progress),
            Ok(None) => Err(FetchError::Missing {
                asked: Asked::default(),
            }),
            Err(error) => Err(FetchError::Failed {
                source: Box::new(error),
            }),
        }
    }
}

/// The node alone, without gateways.
struct Peers<'a>(&'a Remote);

impl SourceFetcher for Peers<'_> {
    fn fetch(
        &self,
        request: &SourceRequest<'_>,
        store: &Store,
        progress: &dyn Progress,
    ) -> Result<Fetched, FetchError> {
        match self.0.started() {
            Ok(Some(started)) => started.sources.fetch(request, store, progress),
            Ok(None) => Err(FetchError::Missing {
                asked: Asked::default(),
            }),
            Err(error) => Err(FetchError::Failed {
                source: Box::new(error),
            }),
        }
    }
}

impl Remote {
    /// Trustless gateways, if any are configured.
    pub fn gateways(&self) -> Option<&Gateways> {
        (!self.gateways.is_empty()).then_some(&self.gateways)
    }

    /// Gateways as a further origin of sources; `None` where there are none.
    pub fn gateway_sources(&self, form: SourceForm) -> Option<GatewaySources<'_>> {
        self.gateways()
            .map(|gateways| GatewaySources { gateways, form })
    }
}

impl SourceFetcher for Remote {
    fn fetch(
        &self,
        request: &SourceRequest<'_>,
        store: &Store,
        progress: &dyn Progress,
    ) -> Result<Fetched, FetchError> {
        let mut ways: Vec<Way<'_, Fetched>> = vec![Box::new(move |progress| {
            Peers(self).fetch(request, store, progress)
        })];
        if let Some(gateways) = self.gateway_sources(SourceForm::File) {
            ways.push(Box::new(move |progress| {
                gateways.fetch(request, store, progress)
            }));
        }
        let (fetched, failed) = GATEWAY_HEATS.run(ways, progress)?;
        let asked = failed.merged(fetched.asked);
        Ok(Fetched { asked, ..fetched })
    }
}

impl Remote {
    /// Gets a file by its content identifier, from peers or gateways.
    ///
    /// # Errors
    /// [`FetchError`]; a miss without a network.
    pub fn fetch_cid(&self, cid: Cid, progress: &dyn Progress) -> Result<Fetched, FetchError> {
        let doors = self.doors().map_err(|error| FetchError::Failed {
            source: error.into(),
        })?;
        doors.fetch_cid(cid, &self.store, progress)
    }
}

/// A node for one command: nobody can reach it, it serves nobody, it asks the home's daemon first.
fn client_config(context: &Context, network: &Network) -> CmdResult<node::Config> {
    let mut config = base_config(context, network, node::identity::ephemeral())?;
    config.dht_mode = node::DhtMode::Client;
    if let Some(address) = daemon::address(context.home()?)
        && let Ok(address) = address.parse::<node::Multiaddr>()
    {
        config.daemon = node::peer_of(&address);
        config.bootstrap.insert(0, address);
    }
    Ok(config)
}

/// A node for the daemon: it listens, and serves what the store holds.
///
/// # Errors
/// When the configuration cannot be used.
pub fn daemon_config(context: &Context) -> CmdResult<node::Config> {
    let network = context.network()?;
    if !network.enabled {
        return Err(Failure::usage(
            "the network is switched off, there is nothing for a daemon to do",
        ));
    }
    let home = context.home()?;
    home.create()?;
    let identity = node::identity::load_or_create(&home.path("node.key"))?;
    let mut config = base_config(context, &network, identity)?;
    config.witness = Arc::new(HomeWitness::new(home));
    config.listen = multiaddrs("network.listen", &network.listen)?;
    config.traversal.relays = multiaddrs("network.relays", &network.relays)?;
    config.traversal.seek_relays = network.nat_traversal || !network.relays.is_empty();
    config.traversal.serve = network.relay_service;
    (config.provide, config.provide_scope) = match network.announce {
        Announced::None => (false, ProvideScope::All),
        Announced::Built => (true, ProvideScope::Made),
        Announced::All => (true, ProvideScope::All),
    };
    config.count_others = context.config()?.store()?.quota_bytes.is_some();
    config.dht_mode = match network.dht_mode {
        DhtMode::Server => node::DhtMode::Server,
        DhtMode::Client => node::DhtMode::Client,
    };
    Ok(config)
}

fn base_config(
    context: &Context,
    network: &Network,
    identity: node::Keypair,
) -> CmdResult<node::Config> {
    let limits = context.config()?.limits()?;
    let mut config = node::Config::new(identity);
    config.bootstrap = multiaddrs("network.bootstrap", &network.bootstrap)?;
    config.swarm_key = network
        .swarm_key
        .as_deref()
        .map(|file| read_shared_key(context, file, "swarm"))
        .transpose()?;
    config.group = network
        .group_key
        .as_deref()
        .map(|file| read_shared_key(context, file, "group"))
        .transpose()?
        .map(node::GroupKey::from_bytes);
    config.mdns = network.mdns;
    config.deltas = match network.deltas {
        Deltas::None => node::Deltas::None,
        Deltas::Far => node::Deltas::Far,
        Deltas::All => node::Deltas::All,
    };
    config.dht_protocol.clone_from(&network.dht_protocol);
    config.announce = if network.announce_private {
        node::Announce::All
    } else {
        node::Announce::Global
    };
    config.download = context.download()?.clone();
    config.limits.set_running(&running_limits(&limits));
    config.deadlines = deadlines(context)?;
    Ok(config)
}

/// The section `[limits]` as the node takes it.
pub fn running_limits(limits: &netconfig::Limits) -> node::RunningLimits {
    node::RunningLimits {
        connections: limits.connections,
        connections_per_peer: limits.connections_per_peer,
        upload_bytes_per_sec: limits.upload_bytes_per_second,
        download_bytes_per_sec: limits.download_bytes_per_second,
        memory_bytes: usize::try_from(limits.memory_bytes).unwrap_or(usize::MAX),
    }
}

/// Reads the key of a private swarm or a group; a relative path lies in the home.
fn read_shared_key(context: &Context, file: &str, of: &str) -> CmdResult<[u8; 32]> {
    let path = context.home()?.path(file);
    let cannot = || format!("cannot read the {of} key `{}`", path.display());
    let text = std::fs::read_to_string(&path).map_err(|e| {
        Failure::from(e).context(cannot()).hint(format!(
            "`p2pkgs key {of}` makes one; all members of the {of} share it"
        ))
    })?;
    let key: netconfig::SwarmKey = text
        .parse()
        .map_err(|e: netconfig::SwarmKeyError| Failure::usage(e.to_string()).context(cannot()))?;
    Ok(*key.as_bytes())
}

/// How long is waited for others.
///
/// # Errors
/// When the section `[deadlines]` cannot be used.
pub fn deadlines(context: &Context) -> CmdResult<node::Deadlines> {
    let configured = context.config()?.deadlines()?;
    Ok(node::Deadlines {
        dial: Duration::from_secs(configured.dial_secs),
        request: Duration::from_secs(configured.dial_secs),
        dht_lookup: Duration::from_secs(configured.lookup_secs),
        first_byte: Duration::from_secs(configured.first_byte_secs),
        stall: Duration::from_secs(configured.stall_secs),
        total: Duration::from_secs(configured.total_secs),
        ..node::Deadlines::default()
    })
}

fn multiaddrs(key: &str, addresses: &[String]) -> CmdResult<Vec<node::Multiaddr>> {
    let parse = |address: &String| {
        address.parse::<node::Multiaddr>().map_err(|error| {
            Failure::usage(format!("`{address}` in `{key}` is no multiaddr: {error}"))
                .hint("such as `/ip4/192.0.2.1/tcp/4001/p2p/12D3…`")
        })
    };
    addresses.iter().map(parse).collect()
}
