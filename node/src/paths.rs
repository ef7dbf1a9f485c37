//! Content by path: `ipfs://CID/directory/file` and `ipns://NAME/file`, followed block by block to a file.
//!
//! Directories are read from the store where they are there, else block by block from peers or gateways, and kept: they are
//! small, and whoever follows a path once will follow its neighbour next. Only roots are announced in the DHT, so those who had the
//! directories are the first to be asked for the file.

mod blocks;
mod whole;

use std::collections::HashSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::SystemTime;

use base::{Cid, CidError, Codec, parse_root};
use store::dag::{self, DagError, DirEntry, Node};
use store::substitute::{FetchError, Fetched, Progress};
use store::{Store, StoreError};

use self::blocks::Blocks;
pub use self::whole::fetch_blocks;
use crate::doors::Doors;
use crate::error::ClientError;
use crate::ipns::{IpnsName, IpnsNameError};
use crate::names::{NameError, Resolved, remembered_name, settle};

/// Names that may stand for names, one after the other; one is usual, three are rare.
const NAMES_MAX: usize = 8;
/// Folders in a path. A real tree has a dozen.
const SEGMENTS_MAX: usize = 256;
/// Files and directories placed at once. A whole kernel has 90 000.
const ENTRIES_MAX: u64 = 1_000_000;

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
    /// A directory has an entry whose name cannot become the name of a file.
    #[error("`{directory}` has an entry named `{}`, which cannot be placed", name.escape_debug())]
    EntryName {
        /// The directory.
        directory: String,
        /// The name.
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
    Name(Box<NameError>),
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

impl From<NameError> for PathError {
    /// Whoever stops while a name is resolved has stopped the fetch.
    fn from(error: NameError) -> Self {
        match error {
            NameError::Client(ClientError::Cancelled) => Self::Fetch(FetchError::Cancelled),
            error => Self::Name(Box::new(error)),
        }
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
            Root::Cid(parse_root(first)?)
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
    /// The path of an entry of the directory at this one.
    #[must_use]
    pub fn join(&self, name: &str) -> Self {
        let mut path = self.clone();
        path.segments.push(name.to_owned());
        path
    }

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

/// Gets the file at a path into the store: from there, from blocks that are there, or from whom `doors` lead to.
///
/// # Errors
/// [`PathError`]; nothing that did not verify was kept.
pub fn fetch_path<'a>(
    doors: impl Into<Doors<'a>>,
    path: &ContentPath,
    store: &Store,
    progress: &dyn Progress,
) -> Result<Fetched, PathError> {
    let (mut blocks, end) = follow(doors.into(), path, store, progress)?;
    blocks.file(&end)
}

/// Gets everything below a path into the store and hands it to `place`, directories before what is in them. Files and
/// directories only: where a symbolic link leads is its maker's choice.
///
/// # Errors
/// [`PathError`], or what `place` says. What was placed until then stays.
pub fn fetch_tree<'a, E: From<PathError>>(
    doors: impl Into<Doors<'a>>,
    path: &ContentPath,
    store: &Store,
    progress: &dyn Progress,
    place: &mut dyn FnMut(&Path, TreeEntry) -> Result<(), E>,
) -> Result<(), E> {
    let (mut blocks, end) = follow(doors.into(), path, store, progress)?;
    let mut ahead = vec![(PathBuf::new(), end)];
    let mut entries = 0;
    while let Some((place_of, cid)) = ahead.pop() {
        // Raw blocks are files; nothing need be fetched to know that.
        if Codec::of(&cid) != Ok(Codec::Raw)
            && matches!(blocks.node(&cid)?, Node::Directory(_) | Node::Shard(_))
        {
            place(&place_of, TreeEntry::Directory)?;
            let mut names = HashSet::new();
            for entry in dag::list(&cid, |cid| blocks.get(cid))? {
                check_entry(&cid, &entry, place_of.components().count(), &mut entries)?;
                // Of several with one name the first counts, as everywhere.
                if names.insert(entry.name.clone()) {
                    ahead.push((place_of.join(&entry.name), entry.cid));
                }
            }
        } else {
            place(&place_of, TreeEntry::File(blocks.file(&cid)?))?;
        }
    }
    Ok(())
}

/// One thing below a path.
#[derive(Debug)]
pub enum TreeEntry {
    /// A directory, perhaps an empty one.
    Directory,
    /// A file, which is in the store now.
    File(Fetched),
}

fn check_entry(
    directory: &Cid,
    entry: &DirEntry,
    depth: usize,
    entries: &mut u64,
) -> Result<(), PathError> {
    if !dag::is_entry_name(&entry.name) {
        return Err(PathError::EntryName {
            directory: directory.to_string(),
            name: entry.name.clone(),
        });
    }
    *entries += 1;
    let limits = [
        ("depth of a tree", depth as u64, SEGMENTS_MAX as u64),
        ("number of files in a tree", *entries, ENTRIES_MAX),
    ];
    for (what, found, max) in limits {
        if found >= max {
            return Err(DagError::TooLarge { what, max }.into());
        }
    }
    Ok(())
}

/// Goes to the end of a path.
fn follow<'a>(
    doors: Doors<'a>,
    path: &ContentPath,
    store: &'a Store,
    progress: &'a dyn Progress,
) -> Result<(Blocks<'a>, Cid), PathError> {
    let (root, segments) = resolve_names(doors, path, store, progress)?;
    let mut blocks = Blocks::new(doors, root, store, progress);
    let mut cid = root;
    for name in segments {
        let found = dag::lookup(&cid, &name, |cid| blocks.get(cid))?;
        let directory = cid.to_string();
        cid = found.ok_or(PathError::NoEntry { directory, name })?;
    }
    Ok((blocks, cid))
}

/// The same path below a CID: what the name it begins with, if any, stands for now.
///
/// # Errors
/// [`PathError`] when the name cannot be resolved.
pub fn resolve_path<'a>(
    doors: impl Into<Doors<'a>>,
    path: &ContentPath,
    store: &Store,
    progress: &dyn Progress,
) -> Result<ContentPath, PathError> {
    let (root, segments) = resolve_names(doors.into(), path, store, progress)?;
    let root = Root::Cid(root);
    Ok(ContentPath { root, segments })
}

/// The root and the way from there, once no name is left.
fn resolve_names(
    doors: Doors<'_>,
    path: &ContentPath,
    store: &Store,
    progress: &dyn Progress,
) -> Result<(Cid, Vec<String>), PathError> {
    let mut path = path.clone();
    for _ in 0..=NAMES_MAX {
        let name = match path.root {
            Root::Cid(cid) => return Ok((cid, path.segments)),
            Root::Name(name) => name,
        };
        let resolved = resolve_name(doors, name, store, progress)?;
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

/// What a name stands for. Gateways are asked only where peers know nothing new: a gateway tells of one record, and that may
/// be an old one, where many nodes of the DHT tell of the newest.
fn resolve_name(
    doors: Doors<'_>,
    name: IpnsName,
    store: &Store,
    progress: &dyn Progress,
) -> Result<Resolved, NameError> {
    let now = SystemTime::now();
    let known = match doors.peers {
        Some(client) => client.resolve_ipns(name, progress),
        None => remembered_name(store, &name, now),
    };
    let is_known = known.as_ref().is_ok_and(|known| !known.is_remembered);
    if is_known || progress.cancelled() {
        return known;
    }
    let told = doors.gateways.map(|g| g.name_record(&name, progress));
    match told {
        Some(Ok((record, asked))) => settle(store, &name, Some(&record), asked, now),
        Some(Err(_)) | None => known,
    }
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
