//! Starting a node.

use std::sync::Arc;

use libp2p::swarm;
use libp2p::{Multiaddr, Swarm};
use store::Store;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::address::split_peer;
use crate::behaviour::Behaviour;
use crate::client::{Client, Shared};
use crate::command::COMMANDS_MAX;
use crate::config::Config;
use crate::dial_guard::Acquaintances;
use crate::error::StartError;
use crate::event_loop::EventLoop;
use crate::transport;

/// How long an unused connection is kept: long enough for the steps of a build that needs a peer again and again.
const IDLE_CONNECTION: std::time::Duration = std::time::Duration::from_secs(60);
/// Events of one connection that may wait for the swarm. Each can be a message of up to 4 MiB, so fewer than the usual 7.
const EVENTS_PER_CONNECTION: usize = 4;

/// A running node.
#[derive(Debug)]
pub struct Node {
    client: Client,
    task: JoinHandle<()>,
}

impl Node {
    /// Starts a node that serves `store`. Must be called inside a tokio runtime with time and IO enabled.
    ///
    /// It listens once this returns, though the addresses it listens on are known a moment later; see [`Client::status`].
    ///
    /// # Errors
    /// [`StartError`] when the configuration makes no sense or an address cannot be listened on.
    pub fn spawn(config: Config, store: Store) -> Result<Self, StartError> {
        check_bootstrap(&config.bootstrap)?;
        let dht = config.dht_stream_protocol()?;
        let peer_id = config.identity.public().to_peer_id();
        let acquaintances = Acquaintances::default();
        let mut swarm = build_swarm(&config, &acquaintances, dht, &store)?;
        for address in &config.listen {
            swarm
                .listen_on(address.clone())
                .map_err(|source| StartError::Listen {
                    address: address.clone(),
                    source,
                })?;
        }
        for address in &config.external {
            swarm.add_external_address(address.clone());
        }
        let (sender, commands) = mpsc::channel(COMMANDS_MAX);
        let shared = Shared::new(
            peer_id,
            config.limits.clone(),
            config.deadlines.clone(),
            Handle::current(),
            swarm.behaviour().exchange.upload().clone(),
            config.download.clone(),
        );
        let event_loop = EventLoop::new(swarm, acquaintances, commands, store, config);
        let task = tokio::spawn(event_loop.run());
        Ok(Self {
            client: Client::new(sender, Arc::new(shared)),
            task,
        })
    }

    /// A handle on it.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Ends it and waits until it has ended.
    pub async fn stop(self) {
        self.client.stop().await;
        // It ends either way, by the command or by a panic of its own.
        let _ = self.task.await;
    }

    /// Waits until it has ended by itself.
    pub async fn ended(&mut self) {
        let _ = (&mut self.task).await;
    }
}

fn check_bootstrap(addresses: &[Multiaddr]) -> Result<(), StartError> {
    match addresses
        .iter()
        .find(|address| split_peer(address).is_none())
    {
        Some(address) => Err(StartError::Bootstrap(address.clone())),
        None => Ok(()),
    }
}

fn build_swarm(
    config: &Config,
    acquaintances: &Acquaintances,
    dht: libp2p::StreamProtocol,
    store: &Store,
) -> Result<Swarm<Behaviour>, StartError> {
    let (transport, relay) = transport::build(config, acquaintances)?;
    let peer_id = config.identity.public().to_peer_id();
    let behaviour = Behaviour::new(config, dht, Arc::new(store.clone()), relay);
    let settings = swarm::Config::with_tokio_executor()
        .with_idle_connection_timeout(IDLE_CONNECTION)
        .with_per_connection_event_buffer_size(EVENTS_PER_CONNECTION);
    Ok(Swarm::new(transport, behaviour, peer_id, settings))
}
