//! Peers that lie, one file per attack: real processes that speak the protocols and break the promises.

/// The lying peer itself: not a test but a process of its own.
mod liar;

/// Announces a source and delivers something else.
mod lying_provider;
