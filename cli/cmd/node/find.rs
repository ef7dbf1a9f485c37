//! `p2pkgs node find`

use base::{Multihash, Sha256, parse_cid};
use serde::Serialize;

use crate::context::Context;
use crate::error::{CmdResult, Exit, Failure};
use crate::network::Remote;
use crate::sanitize;
use crate::watch::Watch;

/// Ask the DHT who announced a key, and print their peer ids, one a line
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A CID, `sha256:` and 64 digits, a package hash, or a package of the tree
    #[arg(value_name = "KEY")]
    key: String,
}

#[derive(Serialize)]
struct Provider {
    id: String,
}

pub fn run(context: &Context, args: &Args) -> CmdResult {
    let key = parse(context, &args.key)?;
    let remote = Remote::new(context)?;
    let Some(client) = remote.client()? else {
        return Err(Failure::new(Exit::Network, "the network is switched off"));
    };
    let watch = Watch::new(&context.ui, &context.interrupt);
    let shown = sanitize::line(&args.key);
    let progress = watch.transfer(format!("asking who announces {shown}"));
    let found = client.find_providers(key, &progress)?;
    drop(progress);
    if found.peers.is_empty() {
        let message = format!("nobody announces `{shown}`: {}", found.asked);
        let failure = Failure::new(Exit::NotFound, message);
        return Err(match found.asked.dht_nodes == 0 {
            true => failure.hint("`p2pkgs doctor` says whom this home knows"),
            false => failure,
        });
    }
    context.ui.status(found.asked);
    if context.ui.json() {
        let peers: Vec<_> = found
            .peers
            .iter()
            .map(|peer| Provider {
                id: peer.to_string(),
            })
            .collect();
        return context.ui.json_data(&peers);
    }
    found
        .peers
        .iter()
        .try_for_each(|peer| context.ui.data(peer))
}

/// A hash is taken for what it says: both a package hash and a plain sha256 are looked up under their multihash.
fn parse(context: &Context, text: &str) -> CmdResult<Multihash> {
    let digits = text.strip_prefix("sha256:").unwrap_or(text);
    if let Ok(sha256) = digits.parse::<Sha256>() {
        return Ok(Multihash::sha2_256(&sha256));
    }
    if let Ok(cid) = parse_cid(text) {
        return Ok(Multihash::of(&cid)?);
    }
    let mut tree = context.tree().map_err(|failure| {
        let text = sanitize::line(text);
        failure.context(format!("`{text}` is neither a CID nor a sha256"))
    })?;
    let name = tree.package_name(text)?;
    let graph = context.graph(&mut tree, std::slice::from_ref(&name))?;
    Ok(graph.pkghash(graph.roots()[0]).dht_key())
}
