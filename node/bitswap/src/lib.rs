//! Bitswap 1.2 as a machine without input or output.

mod config;
mod error;
mod event;
mod exchange;
mod frame;
mod ledger;
pub mod limits;
mod message;
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
