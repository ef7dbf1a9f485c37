//! The blocks on the way to a file: from the store, else one after the other from peers, in one session, or from gateways.

use std::collections::BTreeSet;

use base::{Block, Cid, Codec, Multihash, block_cid};
use bytes::Bytes;
use libp2p::PeerId;
use store::car::CarError;
use store::dag::{Node, Target};
use store::substitute::{Asked, FetchError, Fetched, Progress};
use store::{Blob, BlockStore as _, Store};
use tokio::time::{Instant, timeout_at};

use super::PathError;
use crate::ClientError;
use crate::SESSION_WANTS_MAX;
use crate::client::BlockingClient;
use crate::command::{Command, OpenedSession, SessionEvent};
use crate::doors::Doors;
use crate::fetch::{count_search, local, stopped};
use crate::http::Gateways;

/// Blocks below one root, and who has them.
pub(super) struct Blocks<'a> {
    doors: Doors<'a>,
    store: &'a Store,
    progress: &'a dyn Progress,
    peers: Peers,
}

/// What is known of peers that have the blocks.
struct Peers {
    root: Cid,
    session: Option<OpenedSession>,
    /// Who sent any.
    senders: BTreeSet<PeerId>,
    /// Who has announced the root; `None` until that mattered.
    announcers: Option<Vec<PeerId>>,
    asked: Asked,
}

impl<'a> Blocks<'a> {
    pub(super) fn new(
        doors: Doors<'a>,
        root: Cid,
        store: &'a Store,
        progress: &'a dyn Progress,
    ) -> Self {
        Self {
            doors,
            store,
            progress,
            peers: Peers {
                root,
                session: None,
                senders: BTreeSet::new(),
                announcers: None,
                asked: Asked::default(),
            },
        }
    }

    /// One block, kept in the store from now on.
    pub(super) fn get(&mut self, cid: &Cid) -> Result<Bytes, PathError> {
        if let Some(block) = self.store.get_cid(cid)? {
            return Ok(block.into_bytes());
        }
        let peers = &mut self.peers;
        let from_peers = |client: &BlockingClient, progress: &dyn Progress| {
            peers.fetch_block(client, cid, progress)
        };
        let (block, _) = self.doors.block(cid, from_peers, self.progress)?;
        self.store.put(&block)?;
        Ok(block.into_bytes())
    }

    /// As [`Self::get`], for what is below something that was got: where no peer has sent any of that, gateways do not wait
    /// for peers.
    pub(super) fn get_below(&mut self, cid: &Cid) -> Result<Bytes, PathError> {
        if let Some(gateways) = self.gateways_alone()
            && self.store.get_cid(cid)?.is_none()
            && let Ok(block) = gateways.block(cid, self.progress)
        {
            self.store.put(&block)?;
            return Ok(block.into_bytes());
        }
        self.get(cid)
    }

    /// The gateways, while no peer has sent anything.
    fn gateways_alone(&self) -> Option<&'a Gateways> {
        let gateways = self.doors.gateways;
        gateways.filter(|_| self.peers.senders.is_empty())
    }

    /// Asks peers for all of these at once and keeps what they give; what they do not give is for [`Self::get`].
    pub(super) fn ask_ahead(&mut self, cids: &[Cid]) -> Result<(), PathError> {
        let (Some(client), None) = (self.doors.peers, self.gateways_alone()) else {
            return Ok(());
        };
        for batch in cids.chunks(SESSION_WANTS_MAX) {
            let mut missing = Vec::new();
            for cid in batch {
                match Target::of(cid)? {
                    Target::Block(_, hash) if !self.store.has(&hash)? => missing.push(*cid),
                    _ => {}
                }
            }
            // One alone is not asked for any sooner this way.
            if missing.len() > 1 {
                let (store, progress) = (self.store, self.progress);
                self.peers.take_all(client, missing, store, progress)?;
            }
        }
        Ok(())
    }

    /// What a CID is.
    pub(super) fn node(&mut self, cid: &Cid) -> Result<Node, PathError> {
        Ok(match Target::of(cid)? {
            Target::Inline(codec, bytes) => Node::decode(codec, &bytes)?,
            Target::Block(codec, _) => Node::decode(codec, &self.get(cid)?)?,
        })
    }

    /// The whole file: from the store, from blocks that are there, from peers, or from gateways.
    pub(super) fn file(&mut self, cid: &Cid) -> Result<Fetched, PathError> {
        let cid = &as_bytes(cid);
        if let Some(blob) = self.local_file(cid)? {
            return Ok(local(blob));
        }
        let (peers, progress) = (&mut self.peers, self.progress);
        let holders = |client: &BlockingClient| peers.holders(client, cid, progress);
        let fetched = self.doors.fetch_from(*cid, holders, self.store, progress);
        match fetched {
            // Whoever asks for a directory gets one; that is nobody's fault.
            Err(error @ FetchError::Invalid { .. }) => {
                Err(self.not_a_file(cid).unwrap_or(error.into()))
            }
            fetched => Ok(fetched?),
        }
    }

    fn local_file(&mut self, cid: &Cid) -> Result<Option<Blob>, PathError> {
        if let Some(blob) = self.store.blob_by_root(cid)? {
            return Ok(Some(blob));
        }
        let is_here = match Target::of(cid)? {
            Target::Inline(..) => true,
            Target::Block(_, hash) => self.store.has(&hash)?,
        };
        if !is_here {
            return Ok(None);
        }
        if let Some(error) = self.not_a_file(cid) {
            return Err(error);
        }
        self.store.blob_of_blocks(cid).map_err(|error| match error {
            CarError::Store(error) => error.into(),
            CarError::Dag { source, .. } => source.into(),
            error => failed(error),
        })
    }

    /// The error that says what a CID is instead of a file.
    fn not_a_file(&mut self, cid: &Cid) -> Option<PathError> {
        match self.node(cid) {
            Ok(Node::File(_)) => None,
            Ok(other) => Some(PathError::NotAFile {
                cid: cid.to_string(),
                found: other.kind(),
            }),
            Err(_) => None,
        }
    }
}

impl Peers {
    /// Takes what comes of these until all have come or are nowhere, or nothing came for a while.
    fn take_all(
        &mut self,
        client: &BlockingClient,
        cids: Vec<Cid>,
        store: &Store,
        progress: &dyn Progress,
    ) -> Result<(), PathError> {
        let node = client.client();
        let mut awaited: BTreeSet<Multihash> = cids
            .iter()
            .filter_map(|cid| Multihash::of(cid).ok())
            .collect();
        let session = opened(&mut self.session, self.root, client)?;
        let want = Command::Want {
            session: session.id,
            cids,
        };
        client.block_on(node.send(want)).map_err(stopped)?;
        while !awaited.is_empty() {
            let deadline = Instant::now() + node.shared().deadlines.first_byte;
            let next = async { timeout_at(deadline, session.events.recv()).await };
            match client.block_on_unless(next, progress).map_err(stopped)? {
                Err(_) => break,
                Ok(None) => return Err(stopped(ClientError::Stopped).into()),
                Ok(Some(SessionEvent::Block { block, from })) => {
                    self.senders.extend(from.map(|(peer, _)| peer));
                    awaited.remove(block.hash());
                    store.put(&block)?;
                }
                Ok(Some(SessionEvent::Missing { cid })) => {
                    if let Ok(hash) = Multihash::of(&cid) {
                        awaited.remove(&hash);
                    }
                }
                Ok(Some(SessionEvent::Searched(asked))) => count_search(&mut self.asked, asked),
            }
        }
        Ok(())
    }

    fn fetch_block(
        &mut self,
        client: &BlockingClient,
        cid: &Cid,
        progress: &dyn Progress,
    ) -> Result<Block, FetchError> {
        let hash = Multihash::of(cid).map_err(|error| FetchError::Failed {
            source: error.into(),
        })?;
        let node = client.client();
        let session = opened(&mut self.session, self.root, client)?;
        let want = Command::Want {
            session: session.id,
            cids: vec![*cid],
        };
        client.block_on(node.send(want)).map_err(stopped)?;
        let deadline = Instant::now() + node.shared().deadlines.first_byte;
        loop {
            let next = async { timeout_at(deadline, session.events.recv()).await };
            let next = client.block_on_unless(next, progress);
            match next.map_err(stopped)? {
                Err(_) => return Err(FetchError::TimedOut { asked: self.asked }),
                Ok(None) => return Err(stopped(ClientError::Stopped)),
                Ok(Some(SessionEvent::Block { block, from })) => {
                    self.senders.extend(from.map(|(peer, _)| peer));
                    if *block.hash() == hash {
                        return Ok(block);
                    }
                    // One that a gateway gave meanwhile.
                }
                Ok(Some(SessionEvent::Missing { cid: of })) if of != *cid => {}
                Ok(Some(SessionEvent::Missing { .. })) => {
                    return Err(FetchError::Missing { asked: self.asked });
                }
                Ok(Some(SessionEvent::Searched(asked))) => count_search(&mut self.asked, asked),
            }
        }
    }

    /// Whom to ask for a file: who sent the directories on the way, else who has announced the root.
    fn holders(
        &mut self,
        client: &BlockingClient,
        file: &Cid,
        progress: &dyn Progress,
    ) -> Result<Vec<PeerId>, FetchError> {
        if !self.senders.is_empty() || *file == self.root {
            return Ok(self.senders.iter().copied().collect());
        }
        if let Some(announcers) = &self.announcers {
            return Ok(announcers.clone());
        }
        let Ok(key) = Multihash::of(&self.root) else {
            return Ok(Vec::new());
        };
        let found = client.find_providers(key, progress);
        let found = found.map_err(stopped)?;
        Ok(self.announcers.insert(found.peers).clone())
    }
}

/// The session, opened now if need be.
fn opened<'s>(
    session: &'s mut Option<OpenedSession>,
    root: Cid,
    client: &BlockingClient,
) -> Result<&'s mut OpenedSession, FetchError> {
    Ok(match session {
        Some(session) => session,
        none => {
            let opening = client.client().open_session(root, Vec::new());
            none.insert(client.block_on(opening).map_err(stopped)?)
        }
    })
}

impl Drop for Blocks<'_> {
    fn drop(&mut self) {
        if let (Some(client), Some(session)) = (self.doors.peers, &self.peers.session) {
            client.client().try_send(Command::CloseSession {
                session: session.id,
            });
        }
    }
}

/// What a CID of dag-cbor names is got as the bytes of that block: one multihash is one block, whatever the codec.
fn as_bytes(cid: &Cid) -> Cid {
    match (Codec::of(cid), Multihash::of(cid)) {
        (Ok(Codec::DagCbor), Ok(hash)) => block_cid(Codec::Raw, &hash.digest()),
        _ => *cid,
    }
}

fn failed(error: impl std::error::Error + Send + Sync + 'static) -> PathError {
    let source = Box::new(error);
    FetchError::Failed { source }.into()
}
