//! This command's own door to the network: a short-lived node that only asks, started when somebody is first asked.
//!
//! A command must not wait for the network if all it needs lies in the store, and `--offline` must open no socket at all.
//! So [`Remote`] holds the wish and starts the node on the first question. The node has a name that lives as long as the
//! process; it dials the home's own daemon first, which knows the network already, and the configured first peers.

use std::collections::BTreeSet;
use std::sync::OnceLock;
use std::time::Duration;

use base::{Cid, PkgHash, PublicKey, Realisation, SignedRealisation, TrustPolicy, Verdict};
use netconfig::{Announced, DhtMode, Network};
use node::{BlockingClient, Node, PeerSources, PeerSubstituter};
use store::substitute::{
    Asked, FetchError, Fetched, Progress, Query, QueryError, SourceFetcher, SourceRequest,
    Substituter,
};
use store::{ProvideScope, Store};
use tokio::runtime::Runtime;

use crate::bug::NODE_THREAD;
use crate::context::Context;
use crate::daemon;
use crate::error::{CmdResult, Failure};
use crate::keys;

/// How long the node's tasks may take to end after a command; connections are closed, nothing is written.
const SHUTDOWN: Duration = Duration::from_millis(500);
/// Threads of a command's runtime: one for the swarm, one for what it spawns.
const WORKERS: usize = 2;

/// A node that may have to be started.
pub struct Remote {
    /// `None` when the network is switched off.
    config: Option<node::Config>,
    store: Store,
    trust: TrustPolicy,
    /// The user's own keys: what they signed is here and need not be looked for.
    own: BTreeSet<PublicKey>,
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
        let own = keys::own_keys(context.home()?)?;
        let config = network
            .enabled
            .then(|| client_config(context, &network))
            .transpose()?;
        Ok(Self {
            config,
            store: context.store()?.clone(),
            trust: context.trust()?,
            own: own.iter().map(|own| own.key.public()).collect(),
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

    fn started(&self) -> Result<Option<&Started>, NotStarted> {
        let Some(config) = &self.config else {
            return Ok(None);
        };
        let started = self.started.get_or_init(|| {
            let (trust, own) = (self.trust.clone(), self.own.clone());
            start(config.clone(), &self.store, trust, own).map_err(|f| f.message())
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

fn start(
    config: node::Config,
    store: &Store,
    trust: TrustPolicy,
    own: BTreeSet<PublicKey>,
) -> CmdResult<Started> {
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
    let enough = move |pkghash: &PkgHash, found: &[SignedRealisation]| {
        is_settled(&trust, &own, pkghash, found)
    };
    Ok(Started {
        substituter: PeerSubstituter::new(client.clone()).until(enough),
        sources: PeerSources::new(client.clone()),
        client: client.blocking(),
        runtime: Some(runtime),
    })
}

/// Whether a search may end before everybody was asked: nothing that may still come can change the verdict. So as long as a
/// trusted key has not spoken, it is waited for, because it may contradict the others.
fn is_settled(
    trust: &TrustPolicy,
    own: &BTreeSet<PublicKey>,
    pkghash: &PkgHash,
    found: &[SignedRealisation],
) -> bool {
    let has_spoken = |key: &PublicKey| found.iter().any(|signed| signed.signer() == key);
    match trust.judge(pkghash, found) {
        Verdict::Trusted(_) => trust.keys().all(|key| own.contains(key) || has_spoken(key)),
        Verdict::Conflict(_) => true,
        Verdict::Untrusted(_) | Verdict::TooFew { .. } | Verdict::Missing => false,
    }
}

impl Substituter for Remote {
    fn query(&self, pkghash: &PkgHash, progress: &dyn Progress) -> Result<Query, QueryError> {
        match self.started() {
            Ok(Some(started)) => started.substituter.query(pkghash, progress),
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

impl SourceFetcher for Remote {
    fn fetch(
        &self,
        request: &SourceRequest<'_>,
        store: &Store,
        progress: &dyn Progress,
    ) -> Result<Fetched, FetchError> {
        match self.started() {
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
    /// Gets a file by its content identifier.
    ///
    /// # Errors
    /// [`FetchError`]; a miss without a network.
    pub fn fetch_cid(&self, cid: Cid, progress: &dyn Progress) -> Result<Fetched, FetchError> {
        match self.started() {
            Ok(Some(started)) => started.client.fetch_cid(cid, &[], &self.store, progress),
            Ok(None) => Err(FetchError::Missing {
                asked: Asked::default(),
            }),
            Err(error) => Err(FetchError::Failed {
                source: Box::new(error),
            }),
        }
    }
}

/// A node for one command: nobody can reach it, it serves nobody, it asks the home's daemon first.
fn client_config(context: &Context, network: &Network) -> CmdResult<node::Config> {
    let mut config = base_config(context, network, node::identity::ephemeral())?;
    config.dht_mode = node::DhtMode::Client;
    if let Some(address) = daemon::address(context.home()?)
        && let Ok(address) = address.parse()
    {
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
        .map(|file| read_swarm_key(context, file))
        .transpose()?;
    config.mdns = network.mdns;
    config.dht_protocol.clone_from(&network.dht_protocol);
    config.announce = if network.announce_private {
        node::Announce::All
    } else {
        node::Announce::Global
    };
    config.limits.connections = limits.connections;
    config.limits.connections_per_peer = limits.connections_per_peer;
    config.limits.upload_bytes_per_sec = limits.upload_bytes_per_second;
    config.limits.memory_bytes = usize::try_from(limits.memory_bytes).unwrap_or(usize::MAX);
    config.deadlines = deadlines(context)?;
    Ok(config)
}

/// Reads the key of a private swarm; a relative path lies in the home.
fn read_swarm_key(context: &Context, file: &str) -> CmdResult<[u8; 32]> {
    let path = context.home()?.path(file);
    let cannot = || format!("cannot read the swarm key `{}`", path.display());
    let text = std::fs::read_to_string(&path).map_err(|e| {
        Failure::from(e)
            .context(cannot())
            .hint("`p2pkgs key swarm` makes one; all members of the swarm share it")
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

#[cfg(test)]
mod tests {
    use base::{Codec, SecretKey, Sha256, block_cid};

    use super::*;

    #[test]
    fn a_search_goes_on_while_a_trusted_key_may_still_contradict() {
        let key = |n: u8| SecretKey::from_seed(&[n; 32]);
        let (own, ann, bob, stranger) = (key(1), key(2), key(3), key(4));
        let pkghash = PkgHash::of_derivation(b"package");
        let says = |key: &SecretKey, bytes: &[u8]| {
            let (sha256, size) = (Sha256::of(bytes), 1);
            let output = block_cid(Codec::Raw, &sha256);
            let said = Realisation {
                pkghash,
                output,
                sha256,
                size,
            };
            said.sign(key)
        };
        let trust = TrustPolicy::new([own.public(), ann.public(), bob.public()], 1);
        let settled = |found: &[SignedRealisation]| {
            is_settled(&trust, &BTreeSet::from([own.public()]), &pkghash, found)
        };
        assert!(!settled(&[]));
        assert!(!settled(&[says(&ann, b"one")]));
        assert!(!settled(&[says(&ann, b"one"), says(&stranger, b"one")]));
        assert!(settled(&[says(&ann, b"one"), says(&bob, b"one")]));
        assert!(settled(&[says(&ann, b"one"), says(&bob, b"two")]));
    }
}
