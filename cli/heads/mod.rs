//! Package trees that travel as signed heads: how a tree becomes a directory of content and comes out of it, what a home
//! remembers of the heads it saw, and where heads are to be had.

mod carrier;
mod folder;
mod lifetime;
mod memory;
mod pack;
mod place;
pub mod signers;
mod source;

pub use carrier::{adopt, export};
pub use folder::Folder;
pub use lifetime::Lifetime;
pub use memory::{Followed, Memory, due_records};
pub use pack::{Packed, pack};
pub use place::place;
pub use source::HeadSource;

use std::path::Path;

use base::PackageName;
use trust::{Day, Head, HeadKind, SignedHead};

use crate::error::{CmdResult, Exit, Failure};
use crate::home::Home;

/// The name of trees whose name nobody says.
pub const DEFAULT_TREE: &str = "default";
/// The file that is the head, wherever a tree is handed out.
pub const HEAD_FILE: &str = "head";
/// The folder of a tree that holds its packages.
const PACKAGES: &str = "pkg";
/// The folder of a package that may hold more than plain files.
const FILES: &str = "files";
/// The mode of what may be executed.
const EXECUTABLE: u32 = 0o755;
/// Most bytes of the files of a tree: hundreds of times what trees of today have.
const TREE_BYTES_MAX: u64 = 512 << 20;
/// Most files of a tree.
const TREE_ENTRIES_MAX: u64 = 200_000;

/// What to tell who uses the tree in a folder whose head has expired; `None` for all other folders.
pub fn expired_in(folder: &Path, home: &Home, now_unix_secs: u64) -> Option<String> {
    let name = folder::name_in(folder)?;
    let signed = Memory::of(home, HeadKind::Tree, &name).head().ok()??;
    let head = signed.head();
    head.stale_secs(now_unix_secs)?;
    Some(format!(
        "the tree `{name}` here is revision {} and has expired: `p2pkgs tree sync --name {name}` looks for a newer one",
        head.revision
    ))
}

/// Reads a head that somebody made.
///
/// # Errors
/// Exit code 4 when it is none, or one of another kind.
pub fn read_head(bytes: &[u8], kind: HeadKind) -> CmdResult<SignedHead> {
    let signed = SignedHead::from_bytes(bytes)
        .map_err(|error| Failure::from(error).exit_with(Exit::Mismatch))?;
    if signed.head().kind == kind {
        return Ok(signed);
    }
    let message = format!(
        "this is the head of a {}, not of a {}",
        what(signed.head().kind),
        what(kind)
    );
    Err(Failure::new(Exit::Mismatch, message))
}

/// What a head is a head of, in words.
pub const fn what(kind: HeadKind) -> &'static str {
    match kind {
        HeadKind::Tree => "tree",
        HeadKind::Cache => "package cache",
    }
}

/// The last day on which a head holds, for people.
pub fn last_day(expires_unix_secs: u64) -> String {
    let day = Day::before(expires_unix_secs);
    day.map_or_else(|| "a distant day".to_owned(), |day| day.to_string())
}

/// What a head says and who signed it, for people.
pub fn in_words(signed: &SignedHead) -> String {
    let Head { revision, root, .. } = signed.head();
    let signers: Vec<_> = signed.signers().map(ToString::to_string).collect();
    format!(
        "revision {revision} is {root}, says {}",
        signers.join(" and ")
    )
}

/// Checks that a head is of this name.
///
/// # Errors
/// Exit code 4 when it is of another tree.
pub fn check_name(head: &Head, name: &PackageName) -> CmdResult {
    if head.name == *name {
        return Ok(());
    }
    let message = format!(
        "this is a head of the tree `{}`, not of `{name}`",
        head.name
    );
    Err(Failure::new(Exit::Mismatch, message)
        .hint(format!("`--name {}` asks for that tree", head.name)))
}
