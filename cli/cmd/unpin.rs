//! `p2pkgs unpin`

use store::{Pin, Store};

use crate::cmd::fetch::Content;
use crate::cmd::pin::{described, print};
use crate::context::Context;
use crate::error::{CmdResult, Exit, Failure};
use crate::sanitize;

/// No longer keep content when space is wanted
///
/// Takes a name away from everything that is pinned under it, be it pinned by `pin`, a mirrored source or a seed; or all
/// reasons away from one file. What nobody needs any more goes with the next `p2pkgs gc`. Prints the pins that were dropped.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Names as `p2pkgs pin` lists them, CIDs, or `sha256:` and 64 digits
    #[arg(required = true, value_name = "NAME|CID|sha256:HEX")]
    items: Vec<String>,
}

pub fn run(context: &Context, args: &Args) -> CmdResult {
    let store = context.store()?;
    let pins = store.pins(None)?;
    let mut dropped = Vec::new();
    for item in &args.items {
        let found = matching(store, &pins, item)?;
        if found.is_empty() {
            let item = sanitize::line(item);
            return Err(
                Failure::new(Exit::NotFound, format!("nothing is pinned as `{item}`"))
                    .hint("`p2pkgs pin` lists what is"),
            );
        }
        dropped.extend(found);
    }
    for pin in &dropped {
        store.unpin(&pin.sha256, &pin.kind)?;
    }
    print(context, &dropped)
}

fn matching(store: &Store, pins: &[Pin], item: &str) -> CmdResult<Vec<Pin>> {
    let sha256 = match Content::parse(item) {
        Some(Content::Sha256(sha256)) => Some(sha256),
        Some(content) => content.local(store)?.map(|blob| blob.sha256),
        None => None,
    };
    let is_meant = |pin: &&Pin| Some(pin.sha256) == sha256 || described(&pin.kind).1 == item;
    Ok(pins.iter().filter(is_meant).cloned().collect())
}
