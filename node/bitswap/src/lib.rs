//! Bitswap 1.2 as a machine without input or output.

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

pub use crate::config::Config;
pub use crate::error::DecodeError;
pub use crate::event::{
    Event, Lane, LoadId, Misbehaviour, PeerKey, SessionId, Transmit, TransmitId,
};
pub use crate::exchange::Exchange;
pub use crate::frame::{Frame, FrameDecoder};
pub use crate::ledger::{Ledger, SessionStats, Share, Stats};
pub use crate::message::{Block, Entry, Message, Presence, Version, WantType};
