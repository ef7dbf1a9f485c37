//! The builder against a real sandbox: real bubblewrap, real processes, a toy seed made of the host's static BusyBox.
//!
//! Where one of the two is missing these tests say so and pass; with `P2PKGS_REQUIRE_SANDBOX=1` they fail instead.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

// The name by which the other crates know it.
extern crate p2pkgs_builder as builder;

mod ahead;
mod hermetic;
mod images;
mod intruding;
mod jobs;
mod limits;
mod ordinary_user;
mod outputs;
mod realising;
mod reproducible;
mod stacking;
mod substituting;
mod varied;
mod venvs;
