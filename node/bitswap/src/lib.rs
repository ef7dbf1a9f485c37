//! Bitswap 1.2 as a machine without input or output.
//!
//! [`Exchange`] is one node's side of the protocol, client and server. It opens no socket, reads no file and no clock, and
//! draws no randomness: all of that is handed to it, so any run can be replayed from a seed (see the feature `sim`).
//!
//! # What goes in
//!
//! * **Wishes** of the caller: sessions, wants, providers (`open_session`, `want`, `add_provider`, ...).
//! * **Reports** of the transport: connections, messages read, messages written (`handle_connected`, `handle_message`,
//!   `handle_sent`, ...).
//! * **Answers** of the store: sizes and blocks (`handle_size`, `handle_loaded`, `notify_new_block`).
//! * **Time**, as `now` with each call, and `handle_timeout`.
//!
//! # What comes out
//!
//! * [`Transmit`]s: messages to write, on one of two [`Lane`]s, so that a want never waits behind a block.
//! * [`Event`]s: blocks that came, wants that are missing, peers to dial or to find, blocks to read.
//! * The time of the next `handle_timeout`.
//!
//! # A want
//!
//! A want asks for one block by its CID. A session sends one want-block to the best peer it knows and want-haves to those
//! that have shown nothing yet. A peer that answers HAVE or delivers gets a window of want-blocks that follows its
//! measured rate. DONT_HAVE, a stall, a lost connection or misbehaviour moves a want on to the next peer. When nobody is
//! left, providers are looked for, and if none comes in time the want ends as missing. Every want ends.
//!
//! A block is named by the hash of its bytes when its message is decoded ([`Message::decode`]), in the connection's own
//! task, so no lie about a block can reach the machine: wrong bytes are simply a block that nobody asked for.

mod budget;
mod client;
mod config;
mod error;
mod event;
mod exchange;
mod frame;
mod lanes;
mod ledger;
pub mod limits;
mod message;
mod pace;
mod peer;
mod rng;
mod served;
mod server;
mod session;
#[cfg(any(test, feature = "sim"))]
pub mod sim;
#[cfg(any(test, feature = "sim"))]
mod testing;
mod timers;
mod want;
mod wantlist;
mod wire;

pub use crate::budget::Budget;
pub use crate::config::Config;
pub use crate::error::DecodeError;
pub use crate::event::{
    Event, Lane, LoadId, Misbehaviour, PeerKey, Reach, SessionId, Transmit, TransmitId,
};
pub use crate::exchange::Exchange;
pub use crate::frame::{Frame, FrameDecoder};
pub use crate::ledger::{Ledger, SessionStats, Share, Stats};
pub use crate::message::{Block, Entry, Message, Presence, Version, WantType};
