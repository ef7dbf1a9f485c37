//! Seeds: the few archives that no recipe of the tree builds, and how each is made again, from the host's C compiler or
//! from itself, to be compared with what the tree has pinned.
//!
//! A seed is the merge of the outputs of some ordinary recipes ([`Seed::from`]), which in turn build from the seed. That
//! circle is entered once, through the host's compiler ([`rebuild`]: stage 0 sees the host, every later stage only the
//! stage before), and turns until the bytes stop changing. From then on it does not matter which compiler was first.
//! [`verify`] goes round once from the pinned seed.
//!
//! * [`Forecast`] says how long that will take.
//! * [`seeds`] is the list of seeds that this program was built with.
//! * [`explain`] tells how two archives differ, to the first differing byte.

mod diff;
mod error;
mod forecast;
mod hosted;
mod merge;
mod rebuild;
mod seeds;
mod stage;

pub use crate::diff::explain;
pub use crate::error::Error;
pub use crate::forecast::Forecast;
pub use crate::hosted::stage_0_script;
pub use crate::rebuild::{Rebuilt, STAGES_MAX, Verified, rebuild, verify};
pub use crate::seeds::{Seed, SeedsError, parse_seeds, seeds};
pub use crate::stage::{Event, Request};
