//! `p2pkgs publish`

use std::collections::BTreeSet;

use base::{Multihash, PublicKey, Realisation, SecretKey, SignedRealisation};
use recipe::{Graph, PackageId};
use serde::Serialize;
use store::{ProvideKind, Store};

use crate::cmd::mirror::tell_of_daemon;
use crate::context::Context;
use crate::error::{CmdResult, Exit, Failure};
use crate::keys::{self, DEFAULT_KEY, OwnKey};

/// Sign what was built here and announce it
///
/// Queues the package hashes and output roots of the packages, and of those packages of their run closures that are here.
/// Only what one of your own keys signed when it was built can be published: nobody vouches for what others built.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Packages of the tree
    #[arg(required = true, value_name = "PKG")]
    packages: Vec<String>,
    /// The key to sign with
    #[arg(long, value_name = "NAME", default_value = DEFAULT_KEY)]
    key: String,
}

#[derive(Serialize)]
struct Published {
    name: String,
    pkghash: String,
    cid: String,
    signer: String,
    /// The signed statement's own CID.
    statement: String,
}

pub fn run(context: &Context, args: &Args) -> CmdResult {
    let mut tree = context.tree()?;
    let names = tree.package_names(&args.packages)?;
    let graph = context.graph(&mut tree, &names)?;
    let home = context.home()?;
    let key = keys::own_key(home, &args.key)?.ok_or_else(|| {
        Failure::new(Exit::NotFound, format!("there is no key `{}`", args.key))
            .hint(format!("make it with `p2pkgs key new {}`", args.key))
    })?;
    let own = keys::own_keys(home)?;
    let store = context.store()?;
    let roots: BTreeSet<_> = graph.roots().iter().copied().collect();
    let mut published = Vec::new();
    for id in graph.with_run_closures(graph.roots()) {
        match publish_one(store, &graph, id, &key, &own)? {
            Some(signed) => published.push(told(&graph, id, &signed)),
            None if roots.contains(&id) && graph.recipe(id).seed().is_none() => {
                let name = graph.name(id);
                let message = format!("`{name}` as it is now was not built here");
                return Err(Failure::new(Exit::NotFound, message)
                    .hint(format!("`p2pkgs build --no-substitutes {name}` builds it")));
            }
            None => announce_others(store, &graph, id)?,
        }
    }
    tell_of_daemon(context)?;
    if context.ui.json() {
        return context.ui.json_data(&published);
    }
    published.iter().try_for_each(|p| {
        context
            .ui
            .data(format!("{} {} {}", p.pkghash, p.cid, p.name))
    })
}

/// Signs and queues one package, if it was built here.
fn publish_one(
    store: &Store,
    graph: &Graph,
    id: PackageId,
    key: &SecretKey,
    own: &[OwnKey],
) -> CmdResult<Option<SignedRealisation>> {
    let pkghash = graph.pkghash(id);
    let ours: BTreeSet<PublicKey> = own.iter().map(|own| own.key.public()).collect();
    let known = store.realisations(&pkghash)?;
    let built = known.iter().filter(|signed| ours.contains(signed.signer()));
    for signed in built {
        if !is_here(store, signed.realisation())? {
            continue;
        }
        let signed = if *signed.signer() == key.public() {
            signed.clone()
        } else {
            let said = signed.realisation().clone();
            said.sign_with(key, signed.inputs().copied())
        };
        store.put_realisation(&signed)?;
        store.put_derivation(graph.derivation(id).to_string().as_bytes())?;
        announce(store, signed.realisation())?;
        return Ok(Some(signed));
    }
    Ok(None)
}

/// Queues what others signed and we hold: whoever needs the closure finds it here too.
fn announce_others(store: &Store, graph: &Graph, id: PackageId) -> CmdResult {
    for signed in store.realisations(&graph.pkghash(id))? {
        if is_here(store, signed.realisation())? {
            announce(store, signed.realisation())?;
        }
    }
    Ok(())
}

fn is_here(store: &Store, realisation: &Realisation) -> CmdResult<bool> {
    Ok(store
        .blob(&realisation.sha256)?
        .is_some_and(|blob| blob.root == realisation.output))
}

fn announce(store: &Store, realisation: &Realisation) -> CmdResult {
    store.provide(&realisation.pkghash.dht_key(), ProvideKind::Package)?;
    store.provide(&Multihash::of(&realisation.output)?, ProvideKind::Root)?;
    Ok(())
}

fn told(graph: &Graph, id: PackageId, signed: &SignedRealisation) -> Published {
    Published {
        name: graph.name(id).to_string(),
        pkghash: signed.realisation().pkghash.to_string(),
        cid: signed.realisation().output.to_string(),
        signer: signed.signer().to_string(),
        statement: signed.cid().to_string(),
    }
}
