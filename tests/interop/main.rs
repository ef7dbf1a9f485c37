//! Interoperability: the real Kubo as the other side, in real processes, over TCP on loopback.
//!
//! `docs/protocol.md` lists what is proven here. Without Kubo or the object store, and without Go to build them, the tests say that
//! they are skipped; `P2PKGS_REQUIRE_KUBO=1` makes that a failure.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr)] // What must not happen fails the test.

/// What the tests stand on.
#[allow(dead_code, unused_imports)] // The benchmark beside Kubo uses the rest of it.
mod support;

/// Names of files: both sides give the same content the same CID.
mod identifiers;

/// Two nodes, one of which was told the other's address.
mod direct;

/// Upstream's list of mirrored sources, whose content identifiers lead to what Kubo holds.
mod upstream_list;

/// Gateways: HTTP instead of a connection between peers.
mod gateways;

/// Package caches: directories that `ipfs add -r` made.
mod caches;

/// Package caches in an object store that speaks S3.
mod s3;

/// Statements about packages, by their CIDs.
mod statements;

/// The other transports, and the networks with a key.
mod transports;

/// Three nodes: holder and fetcher find each other through the DHT node that both know.
mod dht;
