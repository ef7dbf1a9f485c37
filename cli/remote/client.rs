//! The end that asks: says what is to be built, and what comes of it.

use std::collections::HashMap;

use base::{PublicKey, Sha256};
use builder::Options;
use recipe::{PackageId, Policy};
use serde_bytes::ByteBuf;

use super::address::HostAddress;
use super::news::Reporter;
use super::outputs::{Taken, Taking};
use super::talk::{Lost, Party, Talk, Trouble};
use super::wire::{Ask, Fault, Outcome, Request, Tell};
use crate::as_text::Text;
use crate::context::Context;
use crate::error::{CmdResult, Exit, Failure};
use crate::recipes;
use crate::sanitize;
use crate::session::Session;
use crate::ui::Ui;
use crate::units;

/// Statements that are sent along, so that a request fits into a frame whatever the tree.
const STATEMENTS_MAX: usize = 8000;
/// What of a host's explanations is shown: lines before an error, hints after it, characters of each.
const DETAILS_MAX: usize = 100;
const HINTS_MAX: usize = 10;
const CHARACTERS_MAX: usize = 400;

/// Where to build.
#[derive(Clone, Debug, clap::Args)]
pub struct OnArgs {
    /// Build on another machine that has p2pkgs, over ssh
    #[arg(long, value_name = "ssh://[USER@]HOST[:PORT][/HOME]", conflicts_with_all = ["substitute_only", "dry_run", "keep_failed"])]
    on: Option<HostAddress>,
    /// With --on: sign what that machine built with your own key, instead of trusting its key
    #[arg(long, requires = "on")]
    sign_here: bool,
    /// With --on: never build here, whatever keeps that machine from building
    #[arg(long, requires = "on", conflicts_with = "check")]
    on_only: bool,
}

/// Builds on the machine that the user named, if one was, what nobody trusted has. Afterwards the outputs are here, except for
/// those that are to be built here after all. Says how the rest is to be got.
///
/// # Errors
/// When a build failed there, when nobody trusted vouches for what was built, and when nothing may be built here that the other
/// machine could not build.
pub fn build(
    context: &Context,
    session: &Session,
    args: &OnArgs,
    jobs: Option<u16>,
    options: Options,
) -> CmdResult<Options> {
    let Some(address) = &args.on else {
        return Ok(options);
    };
    if context.is_offline() {
        return Err(Failure::usage("`--on` contradicts `--offline`"));
    }
    if options.policy == Policy::SubstituteOnly {
        return Err(Failure::usage("`--on` contradicts PKG_FORCE_BINARY=yes"));
    }
    let lacking = session.lacking(&options)?;
    let done = if lacking.is_empty() {
        Ok(())
    } else {
        let order = Order::new(session, &lacking, jobs, &options)?;
        order.place(context, address, args)
    };
    match done {
        Ok(()) if args.on_only => Ok(Options {
            policy: Policy::SubstituteOnly,
            ..options
        }),
        Err(Trouble::Host(failure)) if !args.on_only => {
            let ui = &session.bench.ui;
            failure
                .detail_lines()
                .iter()
                .for_each(|line| ui.detail(format!("  | {line}")));
            ui.warn(format!("{}, so it is built here", failure.message()));
            Ok(options)
        }
        Ok(()) => Ok(options),
        Err(Trouble::Host(failure) | Trouble::Final(failure)) => Err(failure),
        Err(Trouble::Lost(_)) => Err(Failure::new(Exit::Bug, "a lost host was not explained")),
    }
}

/// What is to be built.
struct Order<'a> {
    session: &'a Session,
    options: &'a Options,
    request: Request,
    /// What the host may have of our store.
    files: HashMap<Sha256, String>,
}

impl<'a> Order<'a> {
    fn new(
        session: &'a Session,
        lacking: &[PackageId],
        jobs: Option<u16>,
        options: &'a Options,
    ) -> CmdResult<Self> {
        let (graph, bench) = (&session.graph, &session.bench);
        let recipes = recipes::pack(&bench.tree, graph, &bench.store, &bench.scratch)?;
        let mut files = HashMap::from([(recipes.sha256, "the recipes".to_owned())]);
        let mut statements = Vec::new();
        for id in graph.packages() {
            let (name, recipe) = (graph.name(id), graph.recipe(id));
            for source in recipe.sources().iter().chain(recipe.seed()) {
                let what = format!("{} for {name}", sanitize::line(&source.file));
                files.insert(source.sha256, what);
            }
            for signed in bench.store.realisations(&graph.pkghash(id))? {
                let sha256 = signed.realisation().sha256;
                if statements.len() < STATEMENTS_MAX && bench.store.blob(&sha256)?.is_some() {
                    files.insert(sha256, name.to_string());
                    statements.push(ByteBuf::from(signed.to_bytes()));
                }
            }
        }
        let package = |id: &PackageId| (Text(graph.name(*id).clone()), Text(graph.pkghash(*id)));
        let request = Request {
            recipes: Text(recipes.sha256),
            packages: lacking.iter().map(package).collect(),
            build_only: options.policy == Policy::BuildOnly,
            keep_going: options.keep_going,
            jobs,
            statements,
        };
        Ok(Self {
            session,
            options,
            request,
            files,
        })
    }

    fn place(
        &self,
        context: &Context,
        address: &HostAddress,
        args: &OnArgs,
    ) -> Result<(), Trouble> {
        let bench = &self.session.bench;
        let party = Party {
            address,
            files: &self.files,
            store: &bench.store,
            ui: &bench.ui,
            interrupt: &context.interrupt,
        };
        let outcome = party.talk(|talk| self.follow(talk, address, args.sign_here))?;
        conclude(&bench.ui, address, &outcome)
    }

    /// The conversation from its beginning to its end.
    fn follow(
        &self,
        talk: &Talk<'_>,
        address: &HostAddress,
        sign_here: bool,
    ) -> Result<Outcome, Trouble> {
        let bench = &self.session.bench;
        let connecting = bench.ui.tasks().start(format!("connecting to {address}"));
        let Tell::Welcome { key, version } = talk.next()? else {
            return Err(Lost::Odd("it does not say who it is").into());
        };
        drop(connecting);
        let version = sanitize::bytes(version.as_bytes(), CHARACTERS_MAX);
        let line = format!("{address} runs p2pkgs {version} and signs with {}", key.0);
        bench.ui.detail(line);
        if !sign_here && !bench.trust().keys().any(|trusted| *trusted == key.0) {
            return Err(Trouble::Final(stranger(address, &key.0)));
        }
        talk.say(&Ask::Build(self.request.clone()))?;
        let mut reporter = Reporter::new(bench, &self.session.graph, address.to_string());
        let mut outcome = loop {
            match talk.next()? {
                Tell::News(news) => reporter.tell(news).map_err(Lost::Odd)?,
                Tell::Done(outcome) => break outcome,
                _ => return Err(Lost::Odd("it says something that was not asked for").into()),
            }
        };
        let sources = bench.fetcher();
        let taking = Taking {
            session: self.session,
            context: &bench.build_context(&sources),
            options: self.options,
            sign_here,
        };
        let outputs = std::mem::take(&mut outcome.outputs);
        let taken = taking.take(talk, &outputs)?;
        let line = summary(reporter.built(), address, talk.given(), taken);
        bench.ui.status(line);
        Ok(outcome)
    }
}

/// The last line of a remote build: what was built, and what went over the line.
fn summary(built: usize, address: &HostAddress, sent: (usize, u64), taken: Taken) -> String {
    let (sent, sent_bytes) = (units::count(sent.0, "file"), units::bytes(sent.1));
    let (received, bytes) = (units::count(taken.files, "file"), units::bytes(taken.bytes));
    format!("{built} built on {address}: sent {sent} ({sent_bytes}), received {received} ({bytes})")
}

fn stranger(address: &HostAddress, key: &PublicKey) -> Failure {
    let message = format!("{address} signs with a key that is not trusted: {key}");
    Failure::new(Exit::Mismatch, message)
        .hint(format!(
            "if you believe its builder: `p2pkgs key trust {key}`"
        ))
        .hint("or sign what it builds with your own key: `--sign-here`")
}

/// A build that failed there would fail here, too; whatever else keeps a host from building is its own affair.
fn conclude(ui: &Ui, address: &HostAddress, outcome: &Outcome) -> Result<(), Trouble> {
    for (package, because) in &outcome.skipped {
        let (package, because) = (&package.0, &because.0);
        ui.status(format!("{package} was not built, it needs {because}"));
    }
    let is_final = outcome
        .failures
        .iter()
        .any(|fault| fault.exit == Exit::BuildFailed as u8);
    let mut failures = outcome.failures.iter().map(|fault| failure(address, fault));
    let Some(first) = failures.next() else {
        return Ok(());
    };
    for other in failures {
        ui.failure(&other);
    }
    Err(if is_final {
        Trouble::Final(first)
    } else {
        Trouble::Host(first)
    })
}

/// A fault as an error of our own; text from elsewhere is cleaned and cut.
fn failure(address: &HostAddress, fault: &Fault) -> Failure {
    let clean = |text: &String| sanitize::bytes(text.as_bytes(), CHARACTERS_MAX);
    let exit = Exit::of_build(fault.exit).unwrap_or(Exit::Other);
    let message = format!("on {address}: {}", clean(&fault.message));
    let details = fault.details.iter().take(DETAILS_MAX).map(clean).collect();
    let failure = Failure::new(exit, message).detail(details);
    let hints = fault.hints.iter().take(HINTS_MAX).map(clean);
    hints.fold(failure, Failure::hint)
}
