//! `p2pkgs closure`

use std::collections::BTreeMap;

use serde::Serialize;

use crate::context::Context;
use crate::error::CmdResult;

/// Print what packages need when used, or when built, one name a line
///
/// The run closure is everything reached through `run-deps`, the build closure the build dependencies with their run
/// closures. The packages themselves are not part of their closures. Names are sorted.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Packages of the tree
    #[arg(required = true, value_name = "PKG")]
    packages: Vec<String>,
    /// The build closure instead of the run closure
    #[arg(long)]
    build: bool,
}

#[derive(Serialize)]
struct Member {
    name: String,
    pkghash: String,
}

pub fn run(context: &Context, args: &Args) -> CmdResult {
    let mut tree = context.tree()?;
    let names = tree.package_names(&args.packages)?;
    let graph = context.graph(&mut tree, &names)?;
    let mut members = BTreeMap::new();
    for root in graph.roots() {
        let closure = if args.build {
            graph.build_closure(*root)
        } else {
            graph.run_closure(*root)
        };
        members.extend(
            closure
                .into_iter()
                .map(|id| (graph.name(id).clone(), graph.pkghash(id))),
        );
    }
    if context.ui.json() {
        let members: Vec<_> = members
            .iter()
            .map(|(name, hash)| Member {
                name: name.to_string(),
                pkghash: hash.to_string(),
            })
            .collect();
        return context.ui.json_data(&members);
    }
    members.keys().try_for_each(|name| context.ui.data(name))
}
