//! `p2pkgs weather`

use std::collections::{BTreeMap, BTreeSet};

use base::{Multihash, Sha256, SignedRealisation};
use node::PeerId;
use recipe::{Graph, PackageId};
use serde::Serialize;
use store::substitute::{First, Progress as _, SourceFetcher};
use trust::Verdict;

use crate::bench::Bench;
use crate::context::Context;
use crate::error::{CmdResult, Exit, Failure};
use crate::hands::work_off;
use crate::units;
use crate::watch::Transfer;

/// Questions that are asked at once: each mostly waits for the DHT.
const ASKING: usize = 16;
/// A thing that so many hold, or fewer, is called rare.
const RARE: usize = 1;
/// Rare things that are named.
const RARE_NAMED: usize = 10;

/// Say what of a tree can be had from others, and what is rare
///
/// Asks peers, package caches and the DHT for every package and every source, and fetches nothing. Prints a line for each
/// package: its name, what a fetch would find (`here`, `trusted`, `few`, `untrusted`, `conflict`, `nobody`; `seed` for what is
/// taken as it is), how many signed an output, how many nodes announce it, and of its sources how many are announced, of how
/// many.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Packages of the tree [default: all]
    #[arg(value_name = "PKG")]
    packages: Vec<String>,
}

/// A package as a line tells of it.
#[derive(Debug, Serialize)]
struct Report {
    name: String,
    state: State,
    signers: usize,
    holders: usize,
    sources_held: usize,
    sources: usize,
}

/// What a fetch would find.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    /// It is in the store.
    Here,
    /// An output that may be used.
    Trusted,
    /// Fewer trusted signers than must agree.
    Few,
    /// Only signers who are not trusted.
    Untrusted,
    /// Trusted signers of different outputs.
    Conflict,
    /// Nobody has built it.
    Nobody,
    /// Nobody builds it.
    Seed,
}

impl State {
    const fn name(self) -> &'static str {
        match self {
            Self::Here => "here",
            Self::Trusted => "trusted",
            Self::Few => "few",
            Self::Untrusted => "untrusted",
            Self::Conflict => "conflict",
            Self::Nobody => "nobody",
            Self::Seed => "seed",
        }
    }
}

/// Something to be asked.
#[derive(Clone, Copy, Debug)]
enum Question {
    Package(PackageId),
    Source(Sha256),
}

/// What was found out.
#[derive(Debug, Default)]
struct Findings {
    /// State, signers and holders of packages.
    packages: BTreeMap<PackageId, (State, usize, usize)>,
    /// Holders of sources.
    sources: BTreeMap<Sha256, usize>,
}

pub fn run(context: &Context, args: &Args) -> CmdResult {
    let mut tree = context.tree()?;
    let names = tree.package_names_or_all(&args.packages)?;
    let graph = context.graph(&mut tree, &names)?;
    let bench = Bench::open(context, tree, None)?;
    let ids: Vec<_> = names.iter().filter_map(|name| graph.id(name)).collect();
    let progress = bench.watch.transfer("asking who has what".to_owned());
    let asker = Asker {
        bench: &bench,
        graph: &graph,
        own: own_peer(context)?,
        progress: &progress,
    };
    let findings = asker.ask(&ids)?;
    drop(progress);
    let reports: Vec<_> = ids
        .iter()
        .map(|id| report(&graph, *id, &findings))
        .collect();
    if context.ui.json() {
        context.ui.json_data(&reports)?;
    } else {
        for r in &reports {
            let (name, state) = (&r.name, r.state.name());
            let (signers, holders, held, all) = (r.signers, r.holders, r.sources_held, r.sources);
            context
                .ui
                .data(format!("{name} {state} {signers} {holders} {held}/{all}"))?;
        }
    }
    summarise(context, &graph, &ids, &reports, &findings);
    Ok(())
}

/// The peer id of this home's daemon, if there ever was one: what it announces says nothing of others.
fn own_peer(context: &Context) -> CmdResult<Option<PeerId>> {
    let path = context.home()?.path("node.key");
    if !path.exists() {
        return Ok(None);
    }
    let key = node::identity::load_or_create(&path)?;
    Ok(Some(key.public().to_peer_id()))
}

enum Answer {
    Package(PackageId, (State, usize, usize)),
    Source(Sha256, usize),
}

struct Asker<'a> {
    bench: &'a Bench,
    graph: &'a Graph,
    own: Option<PeerId>,
    progress: &'a Transfer<'a>,
}

impl Asker<'_> {
    /// Asks everything about packages and their sources, several things at once.
    fn ask(&self, ids: &[PackageId]) -> CmdResult<Findings> {
        let sources = |id: &PackageId| self.graph.recipe(*id).sources().iter().map(|s| s.sha256);
        let sources: BTreeSet<_> = ids.iter().flat_map(sources).collect();
        let packages = ids.iter().copied().map(Question::Package);
        let questions: Vec<_> = packages
            .chain(sources.into_iter().map(Question::Source))
            .collect();
        let stop = || self.progress.cancelled();
        let answers = work_off(&questions, ASKING, stop, |question| self.answer(*question));
        if self.progress.cancelled() {
            return Err(Failure::interrupted());
        }
        let mut findings = Findings::default();
        for answer in answers {
            match answer? {
                Answer::Package(id, found) => {
                    findings.packages.insert(id, found);
                }
                Answer::Source(sha256, holders) => {
                    findings.sources.insert(sha256, holders);
                }
            }
        }
        Ok(findings)
    }

    fn answer(&self, question: Question) -> CmdResult<Answer> {
        match question {
            Question::Source(sha256) => {
                let holders = self.holders(Multihash::sha2_256(&sha256))?;
                Ok(Answer::Source(sha256, holders))
            }
            // A seed is a source: that is what holders of it announce.
            Question::Package(id) if self.graph.recipe(id).seed().is_some() => {
                Ok(Answer::Package(id, (State::Seed, 0, 0)))
            }
            Question::Package(id) => {
                let pkghash = self.graph.pkghash(id);
                let statements = self.bench.query(&pkghash, self.progress)?.realisations;
                let signers: BTreeSet<_> = statements.iter().map(|s| *s.signer()).collect();
                let state = self.state(id, &statements)?;
                let holders = self.holders(pkghash.dht_key())?;
                Ok(Answer::Package(id, (state, signers.len(), holders)))
            }
        }
    }

    fn state(&self, id: PackageId, statements: &[SignedRealisation]) -> CmdResult<State> {
        let (name, pkghash) = (self.graph.name(id), self.graph.pkghash(id));
        let nobody = First::new(Vec::<Box<dyn SourceFetcher>>::new());
        let here = self
            .bench
            .build_context(&nobody)
            .find_here(name, &pkghash)?;
        Ok(match self.bench.trust().judge(name, &pkghash, statements) {
            _ if here.is_some() => State::Here,
            Verdict::Trusted(_) => State::Trusted,
            Verdict::TooFew { .. } => State::Few,
            Verdict::Untrusted(_) => State::Untrusted,
            Verdict::Conflict(_) => State::Conflict,
            Verdict::Missing => State::Nobody,
        })
    }

    /// How many others announce a key.
    fn holders(&self, key: Multihash) -> CmdResult<usize> {
        let Some(client) = self.bench.remote().client()? else {
            return Err(Failure::new(Exit::Network, "the network is switched off"));
        };
        let found = client.find_providers(key, self.progress)?;
        let others = found.peers.iter().filter(|peer| Some(**peer) != self.own);
        Ok(others.count())
    }
}

fn report(graph: &Graph, id: PackageId, findings: &Findings) -> Report {
    let (state, signers, mut holders) = findings.packages[&id];
    let recipe = graph.recipe(id);
    let held: Vec<_> = recipe
        .sources()
        .iter()
        .map(|source| findings.sources[&source.sha256])
        .collect();
    if state == State::Seed {
        holders = held.iter().copied().max().unwrap_or_default();
    }
    Report {
        name: graph.name(id).to_string(),
        state,
        signers,
        holders,
        sources_held: held.iter().filter(|holders| **holders > 0).count(),
        sources: held.len(),
    }
}

/// The shares, and what is rare.
fn summarise(
    context: &Context,
    graph: &Graph,
    ids: &[PackageId],
    reports: &[Report],
    findings: &Findings,
) {
    let count = |state: State| {
        reports
            .iter()
            .filter(|report| report.state == state)
            .count()
    };
    let built = reports.len() - count(State::Seed);
    let trusted = count(State::Here) + count(State::Trusted);
    context.ui.status(format!(
        "{trusted} of {} can be had built ({} are here), {} only from signers who are not trusted or too few",
        units::count(built, "package"),
        count(State::Here),
        count(State::Untrusted) + count(State::Few),
    ));
    let held = findings
        .sources
        .values()
        .filter(|holders| **holders > 0)
        .count();
    context.ui.status(format!(
        "{held} of {} are announced by others",
        units::count(findings.sources.len(), "source")
    ));
    let sources = ids.iter().flat_map(|id| graph.recipe(*id).sources());
    let rare: BTreeSet<_> = sources
        .filter(|source| (1..=RARE).contains(&findings.sources[&source.sha256]))
        .map(|source| crate::sanitize::line(&source.file))
        .collect();
    if !rare.is_empty() {
        let named: Vec<_> = rare.iter().take(RARE_NAMED).map(String::as_str).collect();
        let more = rare.len().saturating_sub(RARE_NAMED);
        let more = if more > 0 {
            format!(" and {more} more")
        } else {
            String::new()
        };
        context.ui.status(format!(
            "one node alone announces {}{more}",
            named.join(", ")
        ));
    }
}
