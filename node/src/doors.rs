//! Whom to ask for what is not here: peers, and gateways over HTTP. Peers have a head start, and the first good one wins.

use std::fmt;

use base::{Block, Cid};
use libp2p::PeerId;
use store::substitute::{Asked, FetchError, Fetched, Progress, Way};
use store::{Expected, Store};

use crate::client::BlockingClient;
use crate::fetch::{fetch_cid, local};
use crate::http::{GATEWAY_HEATS, Gateways};

/// Whom to ask. Without any, nobody is asked.
#[derive(Clone, Copy, Default)]
pub struct Doors<'a> {
    /// Peers.
    pub peers: Option<&'a BlockingClient>,
    /// Gateways.
    pub gateways: Option<&'a Gateways>,
}

impl<'a> From<Option<&'a BlockingClient>> for Doors<'a> {
    /// Peers alone.
    fn from(peers: Option<&'a BlockingClient>) -> Self {
        let gateways = None;
        Self { peers, gateways }
    }
}

impl fmt::Debug for Doors<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Doors")
            .field("peers", &self.peers.is_some())
            .field("gateways", &self.gateways)
            .finish()
    }
}

impl Doors<'_> {
    /// Gets the file below a root into the store.
    ///
    /// # Errors
    /// [`FetchError`]; nothing that did not verify was kept.
    pub fn fetch_cid(
        self,
        root: Cid,
        store: &Store,
        progress: &dyn Progress,
    ) -> Result<Fetched, FetchError> {
        self.fetch_from(root, |_| Ok(Vec::new()), store, progress)
    }

    /// [`Self::fetch_cid`], where peers are known that may have it.
    pub(crate) fn fetch_from(
        self,
        root: Cid,
        holders: impl FnOnce(&BlockingClient) -> Result<Vec<PeerId>, FetchError> + Send,
        store: &Store,
        progress: &dyn Progress,
    ) -> Result<Fetched, FetchError> {
        if let Some(blob) = store.blob_by_root(&root)? {
            return Ok(local(blob));
        }
        let mut ways: Vec<Way<'_, Fetched>> = Vec::new();
        if let Some(client) = self.peers {
            ways.push(Box::new(move |progress| {
                fetch_cid(client.client(), root, &holders(client)?, store, progress)
            }));
        }
        if let Some(gateways) = self.gateways {
            let anything = Expected::anything();
            ways.push(Box::new(move |progress| {
                gateways.fetch_cid(&root, &anything, store, progress)
            }));
        }
        let (fetched, failed) = GATEWAY_HEATS.run(ways, progress)?;
        let asked = failed.merged(fetched.asked);
        Ok(Fetched { asked, ..fetched })
    }

    /// Gets one block from whoever has it; who was asked by those that had it not.
    pub(crate) fn block(
        self,
        cid: &Cid,
        from_peers: impl FnOnce(&BlockingClient, &dyn Progress) -> Result<Block, FetchError> + Send,
        progress: &dyn Progress,
    ) -> Result<(Block, Asked), FetchError> {
        let mut ways: Vec<Way<'_, Block>> = Vec::new();
        if let Some(client) = self.peers {
            ways.push(Box::new(move |progress| from_peers(client, progress)));
        }
        if let Some(gateways) = self.gateways {
            ways.push(Box::new(move |progress| gateways.block(cid, progress)));
        }
        GATEWAY_HEATS.run(ways, progress)
    }
}
