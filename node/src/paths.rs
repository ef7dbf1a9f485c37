//! Content by path: `ipfs://CID/directory/file` and `ipns://NAME/file`, followed block by block to a file.
//!
//! Directories are read from the store where they are there, else block by block from peers, and kept: they are small, and
//! whoever follows a path once will follow its neighbour next. Only roots are announced in the DHT, so those who had the
//! directories are the first to be asked for the file.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::time::{Duration, Instant, SystemTime};

use base::{Cid, CidError, Multihash, parse_cid};
use bytes::Bytes;
use libp2p::PeerId;
use store::car::CarError;
use store::dag::{self, DagError, Node, Target};
use store::substitute::{Asked, FetchError, Fetched, Progress};
use store::{Block, BlockStore as _, Store, StoreError};

use crate::client::{BlockingClient, Client};
use crate::command::{Command, OpenedSession, SessionEvent};
use crate::fetch::{fetch_cid, local, stopped};
use crate::ipns::{IpnsName, IpnsNameError};
use crate::names::{NameError, remembered_name};

/// How long is waited for a block before is looked whether the user wants to stop.
const SLICE: Duration = Duration::from_millis(250);
/// Names that may stand for names, one after the other; one is usual, three are rare.
const NAMES_MAX: usize = 8;
/// Folders in a path. A real tree has a dozen.
const SEGMENTS_MAX: usize = 256;

/// Where a file is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContentPath {
    root: Root,
    segments: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Root {
    Cid(Cid),
    Name(IpnsName),
}

/// A text that is no path of content.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ContentPathError {
    /// It does not begin with a CID that we read.
    #[error("not a path of content")]
    Cid(#[from] CidError),
    /// What stands after `ipns` is no name.
    #[error("not a path below a name")]
    Name(#[from] IpnsNameError),
    /// `.` and `..` mean nothing where directories do not know their parents.
    #[error("a path of content may not have `{}` in it", .0.escape_debug())]
    Segment(String),
    /// More folders than anybody has.
    #[error("a path of {0} parts is too long")]
    TooLong(usize),
}

/// Why a path leads to no file, or why that could not be found out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PathError {
    /// A directory on the way has no such entry.
    #[error("there is no `{}` in `{directory}`", name.escape_debug())]
    NoEntry {
        /// The directory.
        directory: String,
        /// The part of the path.
        name: String,
    },
    /// The path ends at something else than a file.
    #[error("`{cid}` is a {found}, not a file")]
    NotAFile {
        /// Where the path ends.
        cid: String,
        /// What it is.
        found: &'static str,
    },
    /// Something on the way is no UnixFS.
    #[error("cannot follow the path")]
    Dag(#[from] DagError),
    /// A name was not resolved.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A name stands for something that is no path of content.
    #[error("`{name}` stands for something that is no path of content")]
    Value {
        /// The name.
        name: IpnsName,
        /// What is wrong with it.
        #[source]
        source: Option<ContentPathError>,
    },
    /// Names that stand for names without an end.
    #[error("more than {NAMES_MAX} names stand for one another")]
    NamesTooMany,
    /// A block or the file could not be got.
    #[error(transparent)]
    Fetch(#[from] FetchError),
}

impl From<StoreError> for PathError {
    fn from(error: StoreError) -> Self {
        Self::Fetch(error.into())
    }
}

impl FromStr for ContentPath {
    type Err = ContentPathError;

    /// Reads `CID/…`, `ipfs://CID/…`, `/ipfs/CID/…`, and the same with `ipns` and a name.
    fn from_str(text: &str) -> Result<Self, ContentPathError> {
        let after = |scheme: &str| {
            let uri = text
                .strip_prefix(scheme)
                .and_then(|t| t.strip_prefix("://"));
            let path = || {
                text.strip_prefix('/')?
                    .strip_prefix(scheme)?
                    .strip_prefix('/')
            };
            uri.or_else(path)
        };
        let (rest, is_name) = match after("ipns") {
            Some(rest) => (rest, true),
            None => (after("ipfs").unwrap_or(text), false),
        };
        let mut parts = rest.split('/');
        let first = parts.next().unwrap_or_default();
        let root = if is_name {
            Root::Name(first.parse()?)
        } else {
            Root::Cid(parse_cid(first)?)
        };
        let segments: Vec<_> = parts
            .filter(|part| !part.is_empty())
            .map(str::to_owned)
            .collect();
        if segments.len() > SEGMENTS_MAX {
            return Err(ContentPathError::TooLong(segments.len()));
        }
        match segments.iter().find(|part| !dag::is_entry_name(part)) {
            Some(part) => Err(ContentPathError::Segment(part.clone())),
            None => Ok(Self { root, segments }),
        }
    }
}

impl fmt::Display for ContentPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.root {
            Root::Cid(cid) => write!(f, "/ipfs/{cid}")?,
            Root::Name(name) => write!(f, "/ipns/{name}")?,
        }
        self.segments
            .iter()
            .try_for_each(|part| write!(f, "/{part}"))
    }
}

impl ContentPath {
    /// Whether a name must be resolved before anything can be looked for.
    pub const fn begins_with_name(&self) -> bool {
        matches!(self.root, Root::Name(_))
    }

    /// The file with this root.
    pub const fn of(cid: Cid) -> Self {
        Self {
            root: Root::Cid(cid),
            segments: Vec::new(),
        }
    }
}

/// Gets the file at a path into the store: from there, from blocks that are there, or from peers. Without a client nobody
/// is asked.
///
/// # Errors
/// [`PathError`]; nothing that did not verify was kept.
pub fn fetch_path(
    client: Option<&BlockingClient>,
    path: &ContentPath,
    store: &Store,
    progress: &dyn Progress,
) -> Result<Fetched, PathError> {
    let (root, segments) = resolve_names(client, path, store)?;
    let client = client.map(BlockingClient::client);
    let mut blocks = Blocks::new(client, root, store, progress);
    let mut cid = root;
    for name in &segments {
        let found = dag::lookup(&cid, name, |cid| blocks.get(cid))?;
        cid = found.ok_or_else(|| PathError::NoEntry {
            directory: cid.to_string(),
            name: name.clone(),
        })?;
    }
    if let Some(blob) = blocks.local_file(&cid)? {
        return Ok(local(blob));
    }
    let Some(client) = client else {
        return Err(missing());
    };
    let providers = blocks.holders(&cid)?;
    drop(blocks);
    Ok(fetch_cid(client, cid, &providers, store, progress)?)
}

/// The root and the way from there, once no name is left.
fn resolve_names(
    client: Option<&BlockingClient>,
    path: &ContentPath,
    store: &Store,
) -> Result<(Cid, Vec<String>), PathError> {
    let mut path = path.clone();
    for _ in 0..=NAMES_MAX {
        let name = match path.root {
            Root::Cid(cid) => return Ok((cid, path.segments)),
            Root::Name(name) => name,
        };
        let resolved = match client {
            Some(client) => client.resolve_ipns(name)?,
            None => remembered_name(store, &name, SystemTime::now())?,
        };
        let value = std::str::from_utf8(resolved.record.value())
            .ok()
            .filter(|value| value.starts_with('/'))
            .ok_or(PathError::Value { name, source: None })?;
        let mut target: ContentPath = value.parse().map_err(|source| PathError::Value {
            name,
            source: Some(source),
        })?;
        target.segments.append(&mut path.segments);
        path = target;
    }
    Err(PathError::NamesTooMany)
}

/// Blocks from the store, else from peers in one session.
struct Blocks<'a> {
    client: Option<&'a Client>,
    root: Cid,
    store: &'a Store,
    progress: &'a dyn Progress,
    session: Option<OpenedSession>,
    /// Who sent any.
    peers: BTreeSet<PeerId>,
    asked: Asked,
}

impl<'a> Blocks<'a> {
    fn new(
        client: Option<&'a Client>,
        root: Cid,
        store: &'a Store,
        progress: &'a dyn Progress,
    ) -> Self {
        Self {
            client,
            root,
            store,
            progress,
            session: None,
            peers: BTreeSet::new(),
            asked: Asked::default(),
        }
    }

    fn get(&mut self, cid: &Cid) -> Result<Bytes, PathError> {
        if let Some(block) = self.store.get_cid(cid)? {
            return Ok(block.into_bytes());
        }
        let client = self.client.ok_or_else(missing)?;
        let block = self.fetch(client, cid)?;
        self.store.put(&block)?;
        Ok(block.into_bytes())
    }

    fn fetch(&mut self, client: &Client, cid: &Cid) -> Result<Block, PathError> {
        let runtime = &client.shared().runtime;
        let session = match &mut self.session {
            Some(session) => session,
            none => none.insert(
                runtime
                    .block_on(client.open_session(self.root, Vec::new()))
                    .map_err(stopped)?,
            ),
        };
        let want = Command::Want {
            session: session.id,
            cids: vec![*cid],
        };
        runtime.block_on(client.send(want)).map_err(stopped)?;
        let deadline = Instant::now() + client.shared().deadlines.first_byte;
        loop {
            if self.progress.cancelled() {
                return Err(FetchError::Cancelled.into());
            }
            if Instant::now() >= deadline {
                return Err(FetchError::TimedOut { asked: self.asked }.into());
            }
            let event = runtime
                .block_on(async { tokio::time::timeout(SLICE, session.events.recv()).await });
            match event {
                // Nothing yet.
                Err(_) => {}
                Ok(None) => return Err(stopped(crate::ClientError::Stopped).into()),
                Ok(Some(SessionEvent::Block { block, from })) => {
                    self.peers.extend(from.map(|(peer, _)| peer));
                    return Ok(block);
                }
                Ok(Some(SessionEvent::Missing { .. })) => {
                    return Err(FetchError::Missing { asked: self.asked }.into());
                }
                Ok(Some(SessionEvent::Searched {
                    dht_nodes,
                    providers,
                })) => {
                    self.asked.dht_nodes += dht_nodes;
                    self.asked.providers = self.asked.providers.max(providers);
                }
            }
        }
    }

    /// The file at the end of the path if all of it is here.
    fn local_file(&self, cid: &Cid) -> Result<Option<store::Blob>, PathError> {
        if let Some(blob) = self.store.blob_by_root(cid)? {
            return Ok(Some(blob));
        }
        let root = match Target::of(cid)? {
            Target::Inline(codec, bytes) => Some((codec, bytes)),
            Target::Block(codec, hash) => {
                let block = self.store.get(&hash)?;
                block.map(|block| (codec, block.into_bytes()))
            }
        };
        let Some((codec, bytes)) = root else {
            return Ok(None);
        };
        match Node::decode(codec, &bytes)? {
            Node::File(_) => {}
            other => {
                return Err(PathError::NotAFile {
                    cid: cid.to_string(),
                    found: other.kind(),
                });
            }
        }
        self.store.blob_of_blocks(cid).map_err(|error| match error {
            CarError::Store(error) => error.into(),
            CarError::Dag { source, .. } => source.into(),
            error => FetchError::Failed {
                source: Box::new(error),
            }
            .into(),
        })
    }

    /// Whom to ask for the file: who had the directories on the way, else who announced the root.
    fn holders(&mut self, file: &Cid) -> Result<Vec<PeerId>, PathError> {
        match (self.client, Multihash::of(&self.root)) {
            (Some(client), Ok(key)) if self.peers.is_empty() && *file != self.root => {
                let search = client.find_providers(key);
                let found = client.shared().runtime.block_on(search).map_err(stopped)?;
                Ok(found.peers)
            }
            _ => Ok(self.peers.iter().copied().collect()),
        }
    }
}

impl Drop for Blocks<'_> {
    fn drop(&mut self) {
        if let (Some(client), Some(session)) = (self.client, &self.session) {
            client.try_send(Command::CloseSession {
                session: session.id,
            });
        }
    }
}

/// Not here, and nobody may be asked.
fn missing() -> PathError {
    let asked = Asked::default();
    FetchError::Missing { asked }.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CID: &str = "bafkreifjjcie6lypi6ny7amxnfftagclbuxndqonfipmb64f2km2devei4";
    const NAME: &str = "k51qzi5uqu5dgy8qsq67hbz73jqkw87l3fgf4a91qb0d9b5173tir7n4vxk1oe";

    #[test]
    fn every_form_of_a_path_is_read_and_one_is_written() {
        for (text, shown) in [
            (CID.to_owned(), format!("/ipfs/{CID}")),
            (format!("ipfs://{CID}"), format!("/ipfs/{CID}")),
            (
                format!("/ipfs/{CID}/a//b.txt/"),
                format!("/ipfs/{CID}/a/b.txt"),
            ),
            (format!("{CID}/a"), format!("/ipfs/{CID}/a")),
            (format!("ipns://{NAME}/a b"), format!("/ipns/{NAME}/a b")),
            (format!("/ipns/{NAME}"), format!("/ipns/{NAME}")),
        ] {
            let path: ContentPath = text.parse().unwrap();
            assert_eq!(path.to_string(), shown);
            assert_eq!(shown.parse(), Ok(path));
        }
    }

    #[test]
    fn what_is_no_path_is_refused() {
        let refused = |text: &str| text.parse::<ContentPath>().unwrap_err();
        for text in ["", "make", "pkg/make", "/ipfs/", "ipfs://", NAME] {
            assert!(matches!(refused(text), ContentPathError::Cid(_)), "{text}");
        }
        for text in [&format!("ipns://{CID}"), "ipns://", "/ipns/example.org"] {
            assert!(matches!(refused(text), ContentPathError::Name(_)), "{text}");
        }
        let climbing = refused(&format!("{CID}/a/../b"));
        assert_eq!(climbing, ContentPathError::Segment("..".to_owned()));
        let long = format!("{CID}{}", "/a".repeat(257));
        assert_eq!(refused(&long), ContentPathError::TooLong(257));
    }
}
