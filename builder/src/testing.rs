//! A small world to build in, for the tests of this crate and of those that use it: a store, a package tree in memory, a
//! shelf of sources, another machine, an observer that remembers; and whether this machine can build at all.

#![allow(
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that cannot go on has failed"
)]

mod host;
mod network;
mod witness;
mod world;

use base::PackageName;

use crate::Failure;

pub use host::{REQUIRE_SANDBOX, can_go_on, sandbox_works, static_busybox};
pub use network::{Remote, Shelf};
pub use witness::Witness;
pub use world::{Files, World};

/// A package's name.
pub fn name(text: &str) -> PackageName {
    text.parse().unwrap()
}

/// A failure with the last lines of the log, for assertions.
pub fn full(failure: &Failure) -> String {
    let mut text = failure.error.to_string();
    let mut cause = std::error::Error::source(&failure.error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    if let crate::Error::BuildFailed(failure) = &failure.error {
        for line in &failure.last_lines {
            text = format!("{text}\n{}", String::from_utf8_lossy(line));
        }
    }
    text
}
