//! What a name of IPFS stands for that carries a tree: a directory with the file `head` and the directory `tree`.
//!
//! It follows from head and tree alone, so whoever has verified both can make it again and serve it as the publisher does.

use std::fs::{self, File};
use std::io::{BufWriter, Seek as _};
use std::path::Path;

use base::{Block, Cid, Codec, Multihash};
use store::dag::{Subtree, build_directory};
use store::{BlockStore as _, Pin, PinKind, ProvideKind, ProvideOrigin, Store};
use trust::SignedHead;

use super::HEAD_FILE;
use crate::bench::unix_secs;
use crate::error::{CmdResult, Failure};

/// The name of the tree beside the head.
const TREE: &str = "tree";

/// Puts head and directory into the store; the root. The tree's own blocks must be there.
fn put_carrier(store: &Store, signed: &SignedHead) -> CmdResult<Cid> {
    let head = Block::of(signed.to_bytes().into());
    let size = head.len() as u64;
    let head_entry = Subtree {
        cid: head.cid(Codec::Raw),
        tsize: size,
        size,
    };
    // What a link claims of the size below it nobody may rely on; zero keeps it the same for everybody.
    let tree_entry = Subtree {
        cid: signed.head().root,
        tsize: 0,
        size: 0,
    };
    let entries = vec![
        (HEAD_FILE.to_owned(), head_entry),
        (TREE.to_owned(), tree_entry),
    ];
    let mut blocks = vec![head];
    let carrier = build_directory(entries, &mut |block| blocks.push(block));
    for block in &blocks {
        store.put(block)?;
    }
    Ok(carrier.cid)
}

/// Keeps a verified tree in place of the last one, and queues its announcement as what was made or fetched here. All its
/// blocks are in the store.
///
/// # Errors
/// When one is not there any more, or the disk fails.
pub fn adopt(
    store: &Store,
    scratch: &Path,
    signed: &SignedHead,
    origin: ProvideOrigin,
) -> CmdResult<Cid> {
    let carrier = put_carrier(store, signed)?;
    fs::create_dir_all(scratch)?;
    // What an archive brings is known to be part of its root, and stays with it.
    let mut archive = tempfile::tempfile_in(scratch)?;
    export(store, &carrier, &archive)?;
    archive.rewind()?;
    store.import_car(&archive)?;
    let name = PinKind::Other {
        name: format!("tree {}", signed.head().name),
    };
    let digest = Multihash::of(&carrier)?.digest();
    store.pin(&Pin {
        sha256: digest,
        kind: name.clone(),
        added_unix_secs: unix_secs(),
    })?;
    for pin in store.pins(Some(store::PinClass::Other))? {
        if pin.kind == name && pin.sha256 != digest {
            store.unpin(&pin.sha256, &name)?;
        }
    }
    let keys = [carrier, signed.head().root];
    let keys: Result<Vec<_>, _> = keys
        .iter()
        .map(|root| Multihash::of(root).map(|key| (key, ProvideKind::Root)))
        .collect();
    store.provide_as(origin, &keys?)?;
    Ok(carrier)
}

/// Writes all blocks below a root into a file, as a CAR.
///
/// # Errors
/// When one is not there, or the disk fails.
pub fn export(store: &Store, root: &Cid, file: &File) -> CmdResult {
    let written = store.export_car(&[*root], BufWriter::new(file));
    written.map(drop).map_err(Failure::from)
}
