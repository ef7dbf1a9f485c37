//! `p2pkgs pin`

use std::fmt;

use base::PackageName;
use recipe::PackageId;
use serde::Serialize;
use store::{Blob, Pin, PinKind, Store};

use crate::bench::unix_secs;
use crate::cmd::fetch::Content;
use crate::context::Context;
use crate::error::{CmdResult, Exit, Failure};
use crate::sanitize;
use crate::session::Session;

/// Keep packages or other content when space is wanted
///
/// A package is kept with the packages it needs to run, as they are in the store now. Without arguments, prints what is
/// pinned, one a line: sha256, why, name. Sources that were mirrored and seeds are pinned without being asked for.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Packages of the tree, CIDs, or `sha256:` and 64 digits
    #[arg(value_name = "PKG|CID|sha256:HEX")]
    items: Vec<String>,
    /// The name by which `unpin` finds it [default: as typed]
    #[arg(long, value_name = "NAME", requires = "items")]
    name: Option<String>,
}

/// A pin as it is printed.
#[derive(Serialize)]
struct Listed {
    sha256: String,
    why: &'static str,
    name: String,
}

pub fn run(context: &Context, args: &Args) -> CmdResult {
    if args.items.is_empty() {
        let pins = context.store()?.pins(None)?;
        return print(context, &pins);
    }
    let (contents, packages): (Vec<_>, Vec<_>) = args
        .items
        .iter()
        .map(|item| (item, Content::parse(item)))
        .partition(|(_, content)| content.is_some());
    // Everything is found before anything is pinned.
    let store = context.store()?.holding()?;
    let mut pins = Vec::new();
    for (item, content) in contents {
        let blob = match content {
            Some(content) => content.local(&store)?,
            None => None,
        };
        let blob = blob
            .ok_or_else(|| missing(item).hint(format!("`p2pkgs fetch {item} -o FILE` gets it")))?;
        pins.push(pin(&blob, args.name.as_ref().unwrap_or(item)));
    }
    let packages: Vec<_> = packages.into_iter().map(|(item, _)| item.clone()).collect();
    if !packages.is_empty() {
        add_packages(context, &packages, args.name.as_ref(), &mut pins)?;
    }
    for pin in &pins {
        store.pin(pin)?;
    }
    print(context, &pins)
}

fn add_packages(
    context: &Context,
    typed: &[String],
    name: Option<&String>,
    pins: &mut Vec<Pin>,
) -> CmdResult {
    let session = Session::open(context, None, typed)?;
    for root in session.graph.roots() {
        let name = name.map_or(session.graph.name(*root).as_str(), String::as_str);
        for id in session.graph.with_run_closures(&[*root]) {
            let blob = find(&session, id)?.ok_or_else(|| {
                let needed: &PackageName = session.graph.name(id);
                missing(needed).hint(format!("`p2pkgs build {needed}` gets or builds it"))
            })?;
            pins.push(pin(&blob, name));
        }
    }
    Ok(())
}

/// The output of a package, or the seed that it is, if it is here.
fn find(session: &Session, id: PackageId) -> CmdResult<Option<Blob>> {
    let Session { graph, bench } = session;
    if let Some(seed) = graph.recipe(id).seed() {
        return Ok(bench.store.blob(&seed.sha256)?);
    }
    let sources = bench.fetcher();
    let context = bench.build_context(&sources);
    Ok(context.find_here(graph.name(id), &graph.pkghash(id))?)
}

fn pin(blob: &Blob, name: &str) -> Pin {
    let name = name.to_owned();
    Pin {
        sha256: blob.sha256,
        kind: PinKind::Other { name },
        added_unix_secs: unix_secs(),
    }
}

fn missing(item: impl fmt::Display) -> Failure {
    let item = sanitize::line(&item.to_string());
    Failure::new(Exit::NotFound, format!("`{item}` is not in the store"))
}

/// The class and the name of a pin or note, as they are printed.
pub fn described(kind: &PinKind) -> (&'static str, &str) {
    match kind {
        PinKind::Source { file_name } => ("source", file_name),
        PinKind::Output { package, .. } => ("output", package.as_str()),
        PinKind::Seed { name } => ("seed", name),
        PinKind::Other { name } => ("pinned", name),
    }
}

/// Prints pins, one a line.
///
/// # Errors
/// When stdout cannot be written.
pub fn print(context: &Context, pins: &[Pin]) -> CmdResult {
    let listed = pins.iter().map(|pin| {
        let (why, name) = described(&pin.kind);
        Listed {
            sha256: pin.sha256.to_string(),
            why,
            name: name.to_owned(),
        }
    });
    let listed: Vec<_> = listed.collect();
    if context.ui.json() {
        return context.ui.json_data(&listed);
    }
    listed.iter().try_for_each(|pin| {
        let name = sanitize::line(&pin.name);
        context
            .ui
            .data(format!("{} {} {name}", pin.sha256, pin.why))
    })
}

/// What the store knows of blobs, for whoever lists them: each pin and note in words.
pub struct Names(Vec<(base::Sha256, String)>);

impl Names {
    /// Reads them.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn read(store: &Store) -> CmdResult<Self> {
        let mut names = Vec::new();
        for pin in store.pins(None)?.iter().chain(&store.notes(None)?) {
            let (why, name) = described(&pin.kind);
            names.push((pin.sha256, format!("{why} {}", sanitize::line(name))));
        }
        names.sort();
        names.dedup();
        Ok(Self(names))
    }

    /// What a blob is; nothing where nobody said.
    pub fn of(&self, sha256: &base::Sha256) -> Vec<&str> {
        let start = self.0.partition_point(|(other, _)| other < sha256);
        let of_it = self.0[start..]
            .iter()
            .take_while(|(other, _)| other == sha256);
        of_it.map(|(_, name)| name.as_str()).collect()
    }
}
