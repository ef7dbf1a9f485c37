//! `p2pkgs hash`

use serde::Serialize;

use crate::context::Context;
use crate::error::CmdResult;

/// Print package hashes, one a line, in the order asked for
///
/// The package hash is the SHA-256 of the derivation text: the recipe's content and the hashes of all it depends on. It
/// names the same package on every machine.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Packages of the tree: `make`, `pkg/make`
    #[arg(required = true, value_name = "PKG")]
    packages: Vec<String>,
    /// Print the derivation text instead of its hash
    #[arg(long)]
    derivation: bool,
}

#[derive(Serialize)]
struct Hash {
    name: String,
    pkghash: String,
    cid: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    derivation: Option<String>,
}

pub fn run(context: &Context, args: &Args) -> CmdResult {
    let mut tree = context.tree()?;
    let names = tree.package_names(&args.packages)?;
    let graph = context.graph(&mut tree, &names)?;
    let ids = graph.roots();
    if context.ui.json() {
        let hashes: Vec<_> = ids
            .iter()
            .map(|id| Hash {
                name: graph.name(*id).to_string(),
                pkghash: graph.pkghash(*id).to_string(),
                cid: graph.pkghash(*id).to_cid().to_string(),
                derivation: args.derivation.then(|| graph.derivation(*id).to_string()),
            })
            .collect();
        return context.ui.json_data(&hashes);
    }
    for id in ids {
        if args.derivation {
            context
                .ui
                .raw(graph.derivation(*id).to_string().as_bytes())?;
        } else {
            context.ui.data(graph.pkghash(*id))?;
        }
    }
    Ok(())
}
