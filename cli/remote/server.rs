//! The end that builds: takes recipes in, builds as `build` would here, and hands the outputs over.

use std::collections::BTreeSet;
use std::io::{self, Stdout};
use std::sync::{Arc, PoisonError};
use std::thread;

use base::{PackageName, Sha256};
use builder::{Context as BuildContext, Options, Report, Scratch};
use recipe::Policy;
use serde_bytes::ByteBuf;
use store::substitute::{First, NoProgress, SourceFetcher, Substituter};
use store::{Expected, Store};

use super::inbox::Inbox;
use super::link::{ALIVE_EVERY, Outbox};
use super::teller::{Asker, Teller};
use super::wire::{Fault, Outcome, Output, Request, Tell};
use crate::as_text::Text;
use crate::bench::processors;
use crate::context::Context;
use crate::error::{CmdResult, Exit, Failure};
use crate::keys::{DEFAULT_KEY, create_key};
use crate::recipes;
use crate::session::Session;
use crate::substituters::Settled;

/// Builds for whoever is at the other end of standard input and output, at most so many jobs at once.
///
/// # Errors
/// When there is no other end, or it makes no sense. What goes wrong with a build is told there.
pub fn serve(context: &Context, jobs: Option<u16>) -> CmdResult {
    // Made now: whoever asks decides by it, before anything is built, whether to use what is.
    let (key, _) = create_key(context.home()?, DEFAULT_KEY)?;
    let out = Arc::new(Outbox::new(io::stdout()));
    let inbox = Inbox::listen(io::stdin(), &context.interrupt);
    out.greet()?;
    out.say(&Tell::Welcome {
        key: Text(key.public()),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    })?;
    say_alive(Arc::clone(&out));
    let Inbox {
        request,
        parts,
        gets,
        expecting,
        ended,
    } = inbox;
    let Ok(request) = request.recv() else {
        // Whoever finds our key unknown goes without a word.
        let ended = ended.lock().unwrap_or_else(PoisonError::into_inner).take();
        return ended.map_or(Ok(()), |error| Err(error.into()));
    };
    let asker = Asker::new(&out, parts, expecting, &request.statements);
    let outcome = build(context, &request, jobs, &asker, &out);
    if context.interrupt.is_set() {
        return Err(Failure::interrupted());
    }
    let outcome = outcome.unwrap_or_else(|failure| Outcome {
        failures: vec![fault(&failure)],
        ..Outcome::default()
    });
    let handed_over: BTreeSet<Sha256> = outcome.outputs.iter().map(|o| o.sha256.0).collect();
    out.say(&Tell::Done(outcome))?;
    while let Ok(sha256) = gets.recv() {
        if handed_over.contains(&sha256) {
            out.send::<Tell>(context.store()?, &sha256, |_, _| {})?;
        } else {
            out.lack::<Tell>()?;
        }
    }
    Ok(())
}

/// On a thread of its own, until the process ends.
fn say_alive(out: Arc<Outbox<Stdout>>) {
    thread::spawn(move || {
        loop {
            thread::sleep(ALIVE_EVERY);
            out.mutter(&Tell::Alive);
        }
    });
}

/// Builds what is asked for. The scratch directory with the recipes lives as long as this.
fn build(
    context: &Context,
    request: &Request,
    jobs: Option<u16>,
    asker: &Asker<'_>,
    out: &Outbox<Stdout>,
) -> CmdResult<Outcome> {
    let store = context.store()?.holding()?;
    let scratch = Scratch::new(&context.home()?.path("scratch"))?;
    let session = open(context, request, jobs, asker, &store, &scratch)?;
    let bench = &session.bench;
    let mut fetchers: Vec<Box<dyn SourceFetcher + '_>> = vec![Box::new(asker)];
    fetchers.push(Box::new(bench.fetcher()));
    let sources = First::new(fetchers);
    let here = bench.build_context(&sources);
    let settled = Settled::of(context)?;
    let substituters: Vec<&dyn Substituter> = vec![asker, here.substituter];
    let substituter =
        First::new(substituters).until(move |pkghash, found| settled.is_settled(pkghash, found));
    let teller = Teller {
        out,
        watch: &bench.watch,
    };
    let with = BuildContext {
        substituter: &substituter,
        observer: &teller,
        ..here
    };
    let options = Options {
        policy: if request.build_only {
            Policy::BuildOnly
        } else {
            Policy::SubstituteOrBuild
        },
        keep_going: request.keep_going,
        ..Options::default()
    };
    let (report, errors) =
        match builder::realise(&with, &session.graph, session.graph.roots(), &options) {
            Ok(report) => (report, Vec::new()),
            Err(failure) => {
                let mut errors = vec![failure.error];
                errors.extend(failure.others);
                (failure.report, errors)
            }
        };
    Ok(Outcome {
        outputs: outputs(&session, &report)?,
        failures: errors.into_iter().map(fault_of).collect(),
        skipped: skipped(&report),
    })
}

/// Takes the recipes in, and finds out whether they mean here what they mean at the other end.
fn open(
    context: &Context,
    request: &Request,
    jobs: Option<u16>,
    asker: &Asker<'_>,
    store: &Store,
    scratch: &Scratch,
) -> CmdResult<Session> {
    let sha256 = &request.recipes.0;
    if store.blob(sha256)?.is_none() {
        asker.file(store, sha256, &Expected::sha256(*sha256), &NoProgress)?;
    }
    let archive = store.open_blob(sha256)?;
    let archive =
        archive.ok_or_else(|| Failure::new(Exit::NotFound, "the recipes were not sent"))?;
    let dir = scratch.path().join("tree");
    std::fs::create_dir(&dir)?;
    let tree = recipes::unpack(archive, &dir)?;
    let names: Vec<PackageName> = request.packages.iter().map(|(n, _)| n.0.clone()).collect();
    let own = u16::try_from(processors()).unwrap_or(u16::MAX);
    let own = jobs.unwrap_or(own);
    let jobs = request.jobs.map_or(own, |wish| wish.clamp(1, own));
    let session = Session::of(context, Some(jobs), tree, &names)?;
    for (name, pkghash) in &request.packages {
        let id = session.graph.id(&name.0);
        if id.is_none_or(|id| session.graph.pkghash(id) != pkghash.0) {
            let message = format!(
                "`{}` has another package hash here: p2pkgs {} differs too much",
                name.0,
                env!("CARGO_PKG_VERSION")
            );
            return Err(Failure::new(Exit::Other, message));
        }
    }
    Ok(session)
}

/// What can be handed over: the outputs of the packages and their run closures, and who vouches for them.
fn outputs(session: &Session, report: &Report) -> CmdResult<Vec<Output>> {
    let graph = &session.graph;
    let mut outputs = Vec::new();
    for id in graph.with_run_closures(graph.roots()) {
        let Some(realised) = report.realised.get(graph.name(id)) else {
            continue;
        };
        let said = session.bench.store.realisations(&realised.pkghash)?;
        let of_it = said.iter().filter(|signed| {
            let said = signed.realisation();
            said.sha256 == realised.blob.sha256 && said.output == realised.blob.root
        });
        let is_seed = graph.recipe(id).seed().is_some();
        outputs.push(Output {
            package: Text(realised.package.clone()),
            sha256: Text(realised.blob.sha256),
            statements: of_it
                .filter(|_| !is_seed)
                .map(|signed| ByteBuf::from(signed.to_bytes()))
                .collect(),
        });
    }
    Ok(outputs)
}

fn skipped(report: &Report) -> Vec<(Text<PackageName>, Text<PackageName>)> {
    let skipped = report.skipped.iter();
    skipped
        .map(|(package, because)| (Text(package.clone()), Text(because.clone())))
        .collect()
}

/// Hints are for who reads them: paths of this machine are of no use there.
fn fault_of(error: builder::Error) -> Fault {
    let package = match &error {
        builder::Error::BuildFailed(failure) => Some(failure.package.clone()),
        _ => None,
    };
    let mut fault = fault(&Failure::from(error));
    if let Some(package) = package {
        fault.hints = vec![format!("`p2pkgs log {package}` shows the whole log")];
    }
    fault
}

fn fault(failure: &Failure) -> Fault {
    Fault {
        exit: failure.exit() as u8,
        message: failure.message(),
        details: failure.detail_lines().to_vec(),
        hints: failure.hint_lines().to_vec(),
    }
}
