//! Builds on another machine: `build --on ssh://…` here, `build-server` there, and one ssh between them.
//!
//! The other machine, the host, is a builder like this one: it has a home, a store, keys, and a trust policy of its own. It is sent
//! recipes, asks for the files that it lacks, each by its SHA-256, and says what its builds print. What it gives back is what any
//! peer would give: outputs, and signed statements about them. So nothing here believes the other end: outputs are compared with
//! statements, statements count by who signed them, and what this machine built is used there only if its key is trusted there.
//!
//! * `address` is how the user names the host.
//! * `wire` is what is said, without any connection; `link` are the pipes that both ends have.
//! * `client` is the end that asks: `talk` is its conversation, `news` what it shows, `outputs` what it takes in.
//! * `server` is the end that builds: `inbox` is what it hears, `teller` what it tells.

mod address;
mod client;
mod inbox;
mod link;
mod news;
mod outputs;
mod server;
mod talk;
mod teller;
mod wire;

pub use client::{OnArgs, build};
pub use server::serve;
