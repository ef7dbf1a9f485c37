//! `p2pkgs why-miss`

use std::collections::HashMap;
use std::io::Read as _;

use base::{PackageName, PkgHash};
use node::HttpSources;
use recipe::{Derivation, Graph, PackageId, explain};
use serde::Serialize;
use store::{PinClass, PinKind, Store};

use crate::cmd::cache::{derivation_file, names_file};
use crate::context::Context;
use crate::error::{CmdResult, Exit, Failure};
use crate::network::Remote;
use crate::substituters::web_caches;

/// Hashes of one name that are looked at in each place, the newest.
const HASHES_MAX: usize = 16;
/// Longest list of hashes that is read from a cache, in bytes: all that `cache export` writes, and more.
const LIST_BYTES_MAX: u64 = 64 << 10;
/// Longest derivation that is read from a cache, in bytes; the parser has a limit of its own.
const DERIVATION_BYTES_MAX: u64 = 2 << 20;
/// Derivations that are asked of caches in all.
const QUESTIONS_MAX: usize = 256;

/// Say why nobody has a package as it is here: how it differs from what the store and package caches have
///
/// Looks for other hashes of the same name in the store and in the package caches of the configuration (those with `http:`,
/// `https:` or `file:` URLs that `cache export` filled), takes the nearest one, and prints what differs, followed down to the
/// causes. No trust is needed: a derivation that does not have its hash is not believed.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A package of the tree
    #[arg(value_name = "PKG")]
    package: String,
}

#[derive(Serialize)]
struct Miss {
    new: String,
    /// Who has it as it is here.
    has_it: Vec<String>,
    nearest: Option<String>,
    place: Option<String>,
    reasons: Vec<String>,
}

/// Another hash of the package, and where it is to be had.
struct Other {
    place: String,
    pkghash: PkgHash,
    derivation: Derivation,
}

pub fn run(context: &Context, args: &Args) -> CmdResult {
    let mut tree = context.tree()?;
    let name = tree.package_name(&args.package)?;
    let graph = context.graph(&mut tree, std::slice::from_ref(&name))?;
    let id = graph.roots()[0];
    let (store, new) = (context.store()?, graph.pkghash(id));
    let remote = Remote::new(context)?;
    let mut shelves = Shelves {
        store,
        http: remote.http(),
        caches: web_caches(context, remote.is_enabled())?,
        now: graph.packages().map(|id| (graph.pkghash(id), id)).collect(),
        graph: &graph,
        questions: 0,
    };
    let (has_it, others) = shelves.hashes(&name, new)?;
    for place in &has_it {
        context
            .ui
            .status(format!("{place} has `{name}` as it is here"));
    }
    let derivation = graph.derivation(id);
    // The fewer reasons at the first level, the nearer; of several the newest, which comes first.
    let distance = |other: &Other| {
        explain(&other.derivation, &derivation, |_| None)
            .reasons
            .len()
    };
    let nearest = others.into_iter().min_by_key(distance);
    let reasons = nearest.as_ref().map_or_else(Vec::new, |other| {
        let text = explain(&other.derivation, &derivation, |hash| {
            shelves.derivation(hash)
        });
        text.to_string().lines().map(str::to_owned).collect()
    });
    if context.ui.json() {
        return context.ui.json_data(&Miss {
            new: new.to_string(),
            has_it,
            nearest: nearest.as_ref().map(|other| other.pkghash.to_string()),
            place: nearest.map(|other| other.place),
            reasons,
        });
    }
    match nearest {
        Some(other) => {
            let (pkghash, place) = (other.pkghash, other.place);
            context.ui.status(format!(
                "`{name}` is {new}; nearest is {pkghash}, which {place} has"
            ));
            reasons.iter().try_for_each(|line| context.ui.data(line))
        }
        None if !has_it.is_empty() => Ok(()),
        None => {
            let caches = shelves.caches.len();
            let message =
                format!("neither the store nor {caches} package caches know another `{name}`");
            Err(Failure::new(Exit::NotFound, message).hint(
                "caches that `p2pkgs cache export` filled say what their packages are made of",
            ))
        }
    }
}

/// Where derivations are looked for.
struct Shelves<'a> {
    store: &'a Store,
    http: &'a HttpSources,
    caches: Vec<String>,
    now: HashMap<PkgHash, PackageId>,
    graph: &'a Graph,
    questions: usize,
}

impl Shelves<'_> {
    /// Who has the package as it is here, and what else there is of that name.
    fn hashes(&mut self, name: &PackageName, new: PkgHash) -> CmdResult<(Vec<String>, Vec<Other>)> {
        let (mut has_it, mut others) = (Vec::new(), Vec::new());
        let here = self.noted(name)?;
        let mut places = vec![("the store".to_owned(), here)];
        for base in self.caches.clone() {
            let place = format!("`{}`", crate::sanitize::line(&base));
            places.push((place, self.listed(&base, name)));
        }
        for (place, hashes) in places {
            if hashes.contains(&new) {
                has_it.push(place.clone());
            }
            let differing = hashes.into_iter().filter(|hash| *hash != new);
            for pkghash in differing.take(HASHES_MAX) {
                if let Some(derivation) = self.derivation(&pkghash)
                    && derivation.name() == name
                {
                    others.push(Other {
                        place: place.clone(),
                        pkghash,
                        derivation,
                    });
                }
            }
        }
        Ok((has_it, others))
    }

    /// The hashes of a name whose outputs the store has, the newest first.
    fn noted(&self, name: &PackageName) -> CmdResult<Vec<PkgHash>> {
        let mut notes = self.store.notes(Some(PinClass::Output))?;
        notes.sort_by_key(|note| std::cmp::Reverse(note.added_unix_secs));
        let hashes = notes.iter().filter_map(|note| match &note.kind {
            PinKind::Output { pkghash, package } if package == name => Some(*pkghash),
            _ => None,
        });
        Ok(hashes.collect())
    }

    /// The hashes of a name that a cache says it has, the newest first. A cache without such a list has none to tell.
    fn listed(&self, base: &str, name: &PackageName) -> Vec<PkgHash> {
        let text = self.read(base, &names_file(name), LIST_BYTES_MAX);
        let text = String::from_utf8(text.unwrap_or_default()).unwrap_or_default();
        let hashes = text.lines().rev().filter_map(|line| line.parse().ok());
        hashes.take(HASHES_MAX + 1).collect()
    }

    /// A derivation, of the tree as it is now, of the store, or of a cache.
    fn derivation(&mut self, hash: &PkgHash) -> Option<Derivation> {
        if let Some(id) = self.now.get(hash) {
            return Some(self.graph.derivation(*id));
        }
        if let Ok(Some(text)) = self.store.derivation(hash) {
            return Derivation::parse(&text).ok();
        }
        for base in &self.caches {
            if self.questions == QUESTIONS_MAX {
                return None;
            }
            self.questions += 1;
            let text = self.read(base, &derivation_file(hash), DERIVATION_BYTES_MAX);
            let text = text.filter(|text| PkgHash::of_derivation(text) == *hash);
            if let Some(derivation) = text.and_then(|text| Derivation::parse(&text).ok()) {
                return Some(derivation);
            }
        }
        None
    }

    /// A small file of a cache; `None` if there is none, or if it is larger than it may be.
    fn read(&self, base: &str, name: &str, bytes_max: u64) -> Option<Vec<u8>> {
        let url = format!("{}/{name}", base.trim_end_matches('/'));
        let page = self.http.page(&url).ok()?;
        let mut bytes = Vec::new();
        page.body.take(bytes_max + 1).read_to_end(&mut bytes).ok()?;
        (bytes.len() as u64 <= bytes_max).then_some(bytes)
    }
}
