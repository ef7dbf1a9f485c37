//! Where sources come from that are not made here, in the order in which they are asked.
//!
//! Peers come first, by the plain sha256; then the content identifiers that somebody wrote down for a source: `ipfs://` in
//! its recipe, and the tree's list in upstream's format, `mirrors/ipfs`. Mirrors and URLs are last: they cost others.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use netconfig::MirrorTable;
use node::SourceForm;
use store::substitute::SourceFetcher;

use crate::context::Context;
use crate::error::{CmdResult, Failure};
use crate::fetcher::{IpfsUrls, WebUrls};
use crate::network::Remote;
use crate::tree::DiskTree;

/// Largest list of mirrored sources, in bytes: a hundred thousand records.
const LIST_BYTES_MAX: u64 = 32 << 20;

/// All origins of sources.
#[derive(Debug)]
pub struct Origins {
    remote: Arc<Remote>,
    web: WebUrls,
    asks_peers: bool,
    listed: MirrorTable,
}

impl Origins {
    /// As the configuration and the tree say. A list of the tree that cannot be read is told and does without.
    ///
    /// # Errors
    /// When the configuration cannot be used.
    pub fn open(context: &Context, tree: Option<&DiskTree>) -> CmdResult<Self> {
        let remote = Arc::new(Remote::new(context)?);
        let sources = context.config()?.sources()?;
        let list = tree.map(|tree| tree.root().join("mirrors/ipfs"));
        let listed = match list.filter(|list| list.exists()) {
            Some(list) => read_list(&list).unwrap_or_else(|failure| {
                context.ui.warn(failure.message());
                MirrorTable::default()
            }),
            None => MirrorTable::default(),
        };
        Ok(Self {
            asks_peers: sources.peers && remote.is_enabled(),
            web: WebUrls::new(
                context,
                remote.http().clone(),
                sources.urls && remote.is_enabled(),
            )?,
            remote,
            listed,
        })
    }

    /// This command's door to the network.
    pub const fn remote(&self) -> &Arc<Remote> {
        &self.remote
    }

    /// What a URL names, where no digest is known yet.
    pub const fn web(&self) -> &WebUrls {
        &self.web
    }

    /// Everybody, in order.
    pub fn fetchers(&self) -> Vec<Box<dyn SourceFetcher + '_>> {
        let mut fetchers: Vec<Box<dyn SourceFetcher + '_>> = Vec::new();
        if self.asks_peers {
            fetchers.push(Box::new(&*self.remote));
            fetchers.push(Box::new(IpfsUrls {
                remote: &self.remote,
                listed: &self.listed,
            }));
        }
        fetchers.push(Box::new(&self.web));
        // One that has not the file may search for it long.
        if self.asks_peers
            && let Some(gateways) = self.remote.gateway_sources(SourceForm::Block)
        {
            fetchers.push(Box::new(gateways));
        }
        fetchers
    }
}

/// Reads a list of mirrored sources in upstream's format.
///
/// # Errors
/// When it cannot be read, is too large, or is no such list.
pub fn read_list(path: &Path) -> CmdResult<MirrorTable> {
    let cannot = || format!("cannot read the list `{}`", path.display());
    let failed = |failure: Failure| failure.context(cannot());
    let meta = fs::metadata(path).map_err(|e| failed(e.into()))?;
    if !meta.is_file() || meta.len() > LIST_BYTES_MAX {
        return Err(failed(Failure::usage("it is no file of at most 32 MiB")));
    }
    let bytes = fs::read(path).map_err(|e| failed(e.into()))?;
    MirrorTable::parse(&bytes).map_err(|e| failed(Failure::from(e)))
}
