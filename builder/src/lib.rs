//! The sandbox builder.
mod build; mod bwrap; mod check; mod diagnose; mod error; mod forecast; mod log; mod lookup; mod observe; mod output; mod probe; mod process; mod realise; mod request; mod root; mod runner; mod scratch; mod sources;
pub use crate::bwrap::argv;
pub use crate::realise::realise;
pub use crate::check::check;
pub use crate::forecast::forecast;
