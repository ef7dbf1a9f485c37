//! Where heads and their trees are to be had: directories on web servers and on this machine, and directories in IPFS
//! below a CID or a name, through peers or gateways.
//!
//! A plain directory holds `head` and, for each root, `ROOT.car`: the tree in one file, so that any web server will do.
//! One in IPFS holds `head` and `tree`. Neither is believed in anything: a head counts by its signatures, a tree by its root.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _};
use std::path::Path;

use base::Cid;
use node::{ContentPath, fetch_blocks, fetch_path, resolve_path};
use store::Store;
use store::substitute::{FetchError, Progress};
use trust::{HEAD_BYTES_MAX, HeadKind, SignedHead};

use super::{HEAD_FILE, TREE_BYTES_MAX, read_head};
use crate::blobs;
use crate::error::{CmdResult, Exit, Failure};
use crate::network::Remote;

/// Largest file with a tree in bytes: its files, and a share for what stands around them.
const CAR_BYTES_MAX: u64 = TREE_BYTES_MAX + TREE_BYTES_MAX / 8;

/// Where a tree comes from.
#[derive(Clone, Debug)]
pub enum HeadSource {
    /// A directory on a web server or on this machine.
    Web(String),
    /// A directory in IPFS.
    Path(ContentPath),
}

impl HeadSource {
    /// Reads what the user typed.
    ///
    /// # Errors
    /// A usage error for anything else than `file`, `http`, `https`, `ipfs` and `ipns` URLs.
    pub fn parse(text: &str) -> CmdResult<Self> {
        match text.split_once("://") {
            Some(("file" | "http" | "https", _)) => {
                Ok(Self::Web(text.trim_end_matches('/').to_owned()))
            }
            Some(("ipfs" | "ipns", _)) => text.parse().map(Self::Path).map_err(|error| {
                let text = crate::sanitize::line(text);
                let failure = Failure::from(error).exit_with(Exit::Usage);
                failure.context(format!("cannot use `{text}`"))
            }),
            _ => {
                let text = crate::sanitize::line(text);
                Err(Failure::usage(format!("`{text}` is no source of a tree")).hint(
                    "say `ipns://NAME`, `ipfs://CID`, `https://…`, or `file:///…` for a directory",
                ))
            }
        }
    }

    /// The same, where a name has been looked up: head and tree then come from one directory.
    ///
    /// # Errors
    /// When the name cannot be resolved, or there is no network.
    pub fn settled(
        self,
        remote: &Remote,
        store: &Store,
        progress: &dyn Progress,
    ) -> CmdResult<Self> {
        match self {
            Self::Path(path) => {
                let path = resolve_path(remote.doors()?, &path, store, progress)?;
                Ok(Self::Path(path))
            }
            Self::Web(url) if !url.starts_with("file://") && !remote.is_enabled() => {
                Err(Failure::new(Exit::Network, "the network is switched off"))
            }
            web @ Self::Web(_) => Ok(web),
        }
    }

    /// The head, whose signatures are valid.
    ///
    /// # Errors
    /// When there is none (exit code 3 or 7), or what is there is none (4).
    pub fn head(
        &self,
        remote: &Remote,
        store: &Store,
        progress: &dyn Progress,
    ) -> CmdResult<SignedHead> {
        let mut bytes = Vec::new();
        let max = HEAD_BYTES_MAX as u64 + 1;
        match self {
            Self::Web(url) => {
                let page = remote.http().page(&format!("{url}/{HEAD_FILE}"))?;
                page.body.take(max).read_to_end(&mut bytes).map_err(cut)?;
            }
            Self::Path(path) => {
                let path = path.join(HEAD_FILE);
                let fetched = fetch_path(remote.doors()?, &path, store, progress)?;
                let file = blobs::open(store, &fetched.blob)?;
                file.take(max).read_to_end(&mut bytes)?;
            }
        }
        read_head(&bytes, HeadKind::Tree)
    }

    /// Gets all blocks of a tree into the store.
    ///
    /// # Errors
    /// When they cannot be had, or what came is something else (exit code 4).
    pub fn tree(
        &self,
        root: &Cid,
        remote: &Remote,
        store: &Store,
        scratch: &Path,
        progress: &dyn Progress,
    ) -> CmdResult {
        let Self::Web(url) = self else {
            fetch_blocks(remote.doors()?, root, TREE_BYTES_MAX, store, progress)?;
            return Ok(());
        };
        fs::create_dir_all(scratch)?;
        let mut archive = tempfile::tempfile_in(scratch)?;
        let page = remote.http().page(&format!("{url}/{root}.car"))?;
        let shown = crate::sanitize::line(&page.url);
        let body = remote.http().limited_body(page, progress);
        let size = copy(&mut body.take(CAR_BYTES_MAX + 1), &mut archive, progress)?;
        if size > CAR_BYTES_MAX {
            let message = format!("`{shown}` is too large for a tree");
            return Err(Failure::new(Exit::Mismatch, message));
        }
        archive.rewind()?;
        store.import_car(&archive)?;
        Ok(())
    }
}

impl fmt::Display for HeadSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Web(url) => f.write_str(url),
            Self::Path(path) => path.fmt(f),
        }
    }
}

/// A connection that ends in the middle.
fn cut(error: io::Error) -> Failure {
    Failure::from(error).exit_with(Exit::Network)
}

fn copy(body: &mut impl io::Read, to: &mut File, progress: &dyn Progress) -> CmdResult<u64> {
    let (mut size, mut buffer) = (0, vec![0; 128 << 10]);
    loop {
        if progress.cancelled() {
            return Err(FetchError::Cancelled.into());
        }
        let read = body.read(&mut buffer).map_err(cut)?;
        if read == 0 {
            return Ok(size);
        }
        io::Write::write_all(to, &buffer[..read])?;
        size += read as u64;
    }
}
