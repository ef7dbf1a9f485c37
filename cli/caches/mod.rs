//! Package caches as directories that say what they hold: the signed head of an index, written by who fills one and read by who
//! uses one.

mod listed;
mod publish;
mod shelf;
mod watched;
mod watcher;

use base::{PackageName, Sha256};

pub use publish::{HeadArgs, sign_head, write_head};
pub use shelf::{PathCache, Shelf};
pub use watched::{Watched, WatchedWeb};
pub use watcher::Watcher;

/// The folder of a cache with the parts of its index, each named by its SHA-256.
const INDEX: &str = "index";

/// Under which name a home remembers what was seen at a URL.
pub fn memory_name(url: &str) -> PackageName {
    let digest = Sha256::of(url.trim_end_matches('/').as_bytes()).to_hex();
    let name = format!("at-{}", &digest[..32]).parse();
    name.expect("letters, a dash and digits make a name")
}
