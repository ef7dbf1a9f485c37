//! `p2pkgs why`

use std::collections::HashMap;

use base::{PackageName, PkgHash};
use recipe::{Derivation, Graph, PackageId, explain};
use serde::Serialize;
use store::{PinClass, PinKind, Store};

use crate::context::Context;
use crate::error::{CmdResult, Exit, Failure};

/// Say why a package needs another one, or what changed its hash
///
/// With two packages, prints a shortest chain of dependencies between them. With one, compares its derivation with that
/// of the last output of this name in the store and prints what differs, followed down to the causes.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A package of the tree
    #[arg(value_name = "PKG")]
    package: String,
    /// A package that it needs, directly or not
    #[arg(value_name = "DEP")]
    dependency: Option<String>,
    /// Compare with this package hash instead of the last one
    #[arg(long, value_name = "HASH", conflicts_with = "dependency")]
    from: Option<PkgHash>,
}

pub fn run(context: &Context, args: &Args) -> CmdResult {
    let mut tree = context.tree()?;
    let name = tree.package_name(&args.package)?;
    let graph = context.graph(&mut tree, std::slice::from_ref(&name))?;
    let id = graph.roots()[0];
    match &args.dependency {
        Some(typed) => needed(context, &graph, id, &tree.package_name(typed)?),
        None => changed(context, &graph, id, args.from),
    }
}

#[derive(Serialize)]
struct Step {
    kind: String,
    name: String,
}

fn needed(context: &Context, graph: &Graph, from: PackageId, to: &PackageName) -> CmdResult {
    let chain = graph
        .id(to)
        .and_then(|to| graph.chain(from, to))
        .ok_or_else(|| {
            Failure::new(
                Exit::Other,
                format!("`{}` does not need `{to}`", graph.name(from)),
            )
        })?;
    if !context.ui.json() {
        return context.ui.data(chain);
    }
    let steps: Vec<_> = chain
        .steps
        .iter()
        .map(|(kind, name)| Step {
            kind: kind.to_string(),
            name: name.to_string(),
        })
        .collect();
    context.ui.json_data(&steps)
}

#[derive(Serialize)]
struct Changes {
    old: Option<String>,
    new: String,
    reasons: Vec<String>,
}

fn changed(context: &Context, graph: &Graph, id: PackageId, from: Option<PkgHash>) -> CmdResult {
    let store = context.store()?;
    let (name, new) = (graph.name(id), graph.pkghash(id));
    let old = match from {
        Some(hash) => Some(hash),
        None => last_other(store, name, new)?,
    };
    let Some(old) = old else {
        if context.ui.json() {
            let (old, reasons) = (None, Vec::new());
            return context.ui.json_data(&Changes {
                old,
                new: new.to_string(),
                reasons,
            });
        }
        context.ui.status(format!(
            "the store holds no other `{name}`; this is what its hash covers:"
        ));
        return context.ui.raw(graph.derivation(id).to_string().as_bytes());
    };
    let mut lookup = lookup(store, graph);
    let before = lookup(&old).ok_or_else(|| {
        Failure::new(
            Exit::NotFound,
            format!("the store holds no derivation `{old}`"),
        )
    })?;
    let explanation = explain(&before, &graph.derivation(id), lookup);
    if context.ui.json() {
        let reasons = explanation.to_string().lines().map(str::to_owned).collect();
        let (old, new) = (Some(old.to_string()), new.to_string());
        return context.ui.json_data(&Changes { old, new, reasons });
    }
    context
        .ui
        .status(format!("`{name}` was {old} and is {new}"));
    let text = explanation.to_string();
    text.lines().try_for_each(|line| context.ui.data(line))
}

/// The output of that name which was had last and is of another hash.
fn last_other(store: &Store, name: &PackageName, new: PkgHash) -> CmdResult<Option<PkgHash>> {
    let mut notes = store.notes(Some(PinClass::Output))?;
    notes.sort_by_key(|note| note.added_unix_secs);
    Ok(notes.iter().rev().find_map(|note| match &note.kind {
        PinKind::Output { pkghash, package } if package == name && *pkghash != new => {
            Some(*pkghash)
        }
        _ => None,
    }))
}

/// Derivations by hash: those of the tree as it is now, and those the store remembers.
fn lookup<'a>(
    store: &'a Store,
    graph: &'a Graph,
) -> impl FnMut(&PkgHash) -> Option<Derivation> + 'a {
    let now: HashMap<_, _> = graph.packages().map(|id| (graph.pkghash(id), id)).collect();
    move |hash| match now.get(hash) {
        Some(id) => Some(graph.derivation(*id)),
        None => Derivation::parse(&store.derivation(hash).ok()??).ok(),
    }
}
