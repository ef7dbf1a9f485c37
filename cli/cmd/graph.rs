//! `p2pkgs graph`

use recipe::{Graph, PackageSource as _};
use serde::Serialize;

use crate::context::Context;
use crate::error::CmdResult;

/// Print the dependency graph of packages, or of the whole tree
///
/// One edge a line: `bash -run-> ncurses`. With `--dot`, a text for Graphviz.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Packages of the tree [default: all]
    #[arg(value_name = "PKG")]
    packages: Vec<String>,
    /// Graphviz text: `p2pkgs graph --dot make | dot -Tsvg -o make.svg`
    #[arg(long, conflicts_with = "json")]
    dot: bool,
}

#[derive(Serialize)]
struct Node<'a> {
    name: &'a str,
    pkghash: String,
    build_deps: Vec<&'a str>,
    run_deps: Vec<&'a str>,
}

pub fn run(context: &Context, args: &Args) -> CmdResult {
    let mut tree = context.tree()?;
    let names = match args.packages.as_slice() {
        [] => tree.names(),
        typed => tree.package_names(typed)?,
    };
    let graph = context.graph(&mut tree, &names)?;
    if args.dot {
        return context.ui.raw(graph.to_dot().as_bytes());
    }
    let nodes = nodes(&graph);
    if context.ui.json() {
        return context.ui.json_data(&nodes);
    }
    for node in &nodes {
        let build = node.build_deps.iter().map(|to| ("build", to));
        let run = node.run_deps.iter().map(|to| ("run", to));
        for (kind, to) in build.chain(run) {
            context.ui.data(format!("{} -{kind}-> {to}", node.name))?;
        }
    }
    Ok(())
}

fn nodes(graph: &Graph) -> Vec<Node<'_>> {
    let names = |ids: &[recipe::PackageId]| ids.iter().map(|id| graph.name(*id).as_str()).collect();
    let mut nodes: Vec<_> = graph
        .packages()
        .map(|id| Node {
            name: graph.name(id).as_str(),
            pkghash: graph.pkghash(id).to_string(),
            build_deps: names(graph.build_deps(id)),
            run_deps: names(graph.run_deps(id)),
        })
        .collect();
    nodes.sort_by_key(|node| node.name);
    nodes
}
