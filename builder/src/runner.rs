//! The threads behind [`crate::realise`]: each action of the plan on one of its own, all answers over one channel.

mod looking;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;

use base::{PackageName, PkgHash};
use recipe::{Action, ActionKind, Graph, Outcome, PackageId, Plan, Policy, State};
use store::substitute::{Asked, FetchError, Fetched};
use store::{Blob, ProvideOrigin, StoreError};

use crate::ahead::{Ahead, UntilOver};
use crate::build::Workshop;
use crate::error::{Error, Wanted, chain};
use crate::inputs::InputList;
use crate::jobs::JobServer;
use crate::log::log_path;
use crate::lookup::Offer;
use crate::observe::{Event, FetchProgress, Phase};
use crate::realise::{Context, Failure, How, Options, Realised, Report};
use crate::root::Input;
use crate::sources::{FetchedItem, Fetching, Flights};

/// Lookups at once: each waits for others, and as many are asked of a peer in one request. So a closure of ordinary size takes
/// the time of one lookup.
pub(crate) const LOOKUPS: usize = 64;
/// Outputs and seeds that are fetched at once; each may come from many peers.
const TRANSFERS: usize = 4;

/// What comes back from a thread.
enum Message {
    Done(Action, Box<Answer>),
    /// Sources of a package that is built later.
    Ahead(Vec<FetchedItem>),
}

/// The answer to one action.
struct Answer {
    id: PackageId,
    outcome: Outcome,
    done: Done,
}

/// What an action leaves to the report, beside its outcome.
#[derive(Default)]
struct Done {
    blob: Option<Blob>,
    offer: Option<Box<Offer>>,
    fetched: Vec<FetchedItem>,
    asked: Asked,
    /// Why it failed, or why the next action will be blamed if it fails too.
    error: Option<Error>,
}

pub(crate) struct Runner<'a> {
    context: &'a Context<'a>,
    graph: &'a Graph,
    options: &'a Options,
    flights: Flights,
}

impl<'a> Runner<'a> {
    pub(crate) fn new(context: &'a Context<'a>, graph: &'a Graph, options: &'a Options) -> Self {
        Self {
            context,
            graph,
            options,
            flights: Flights::default(),
        }
    }

    pub(crate) fn run(&self, roots: &[PackageId]) -> Result<Report, Box<Failure>> {
        let expected = |id| self.context.observer.expected(self.graph.name(id));
        let mut plan = Plan::new(self.graph, roots, self.options.policy)
            .keep_going(self.options.keep_going)
            .with_times(expected);
        let mut ledger = Ledger::default();
        let (answers, inbox) = mpsc::channel();
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            let (mut running, mut ahead) = (Running::default(), Ahead::new());
            loop {
                if self.context.observer.cancelled() {
                    plan.stop();
                }
                self.find_all_here(&plan, &mut ledger);
                while let Some(action) =
                    plan.poll_if(|kind| running.has_room(kind, self.context.jobs))
                {
                    if action.kind == ActionKind::Lookup
                        && let Some(outcome) = self.find_here(action.id, &mut ledger)
                    {
                        plan.handle(action.id, outcome);
                        continue;
                    }
                    running.count(action.kind, 1);
                    if action.kind == ActionKind::Build {
                        ahead.forget(action.id);
                    }
                    let work = self.prepare(action, &mut ledger);
                    let answers = answers.clone();
                    scope.spawn(move || {
                        // The inbox lives as long as this scope: sending cannot fail.
                        let _ = answers
                            .send(Message::Done(action, Box::new(self.act(action.id, work))));
                    });
                }
                while let Some(id) = ahead.start() {
                    let (answers, over) = (answers.clone(), &over);
                    scope.spawn(move || {
                        let _ = answers.send(Message::Ahead(self.fetch_ahead(id, over)));
                    });
                }
                if plan.is_done() {
                    over.store(true, Ordering::Relaxed);
                    return;
                }
                match inbox.recv() {
                    Ok(Message::Done(action, answer)) => {
                        running.count(action.kind, -1);
                        let outcome = self.settle(*answer, &mut ledger);
                        plan.handle(action.id, outcome);
                        if self.will_be_built(&plan, action, outcome) {
                            ahead.expect(action.id);
                        }
                    }
                    Ok(Message::Ahead(fetched)) => {
                        ahead.end();
                        ledger.report.fetched.extend(fetched);
                    }
                    Err(_) => return,
                }
            }
        });
        for message in inbox.try_iter() {
            if let Message::Ahead(fetched) = message {
                ledger.report.fetched.extend(fetched);
            }
        }
        self.conclude(&plan, ledger)
    }

    /// Is it known now that a package will be built, unless what it needs fails?
    fn will_be_built(&self, plan: &Plan, action: Action, outcome: Outcome) -> bool {
        matches!(outcome, Outcome::Missing | Outcome::SubstituteFailed)
            && plan.state(action.id) == State::Waiting
            && self.may_build()
            && self.graph.recipe(action.id).seed().is_none()
    }

    /// Fetches the sources of a package that will be built. How it went does not matter, see [`crate::ahead`].
    fn fetch_ahead(&self, id: PackageId, over: &AtomicBool) -> Vec<FetchedItem> {
        let observer = self.context.observer;
        // A machine that cannot build need not fetch anything.
        if self.context.sandbox.get().is_err() || over.load(Ordering::Relaxed) {
            return Vec::new();
        }
        let fetching = Fetching {
            observer: &UntilOver { observer, over },
            ..self.fetching()
        };
        let fetched = fetching.sources(self.graph.recipe(id));
        fetched.unwrap_or_default()
    }

    /// Collects what an action needs of what earlier ones left.
    fn prepare(&self, action: Action, ledger: &mut Ledger) -> Work {
        match action.kind {
            ActionKind::Lookup => Work::Lookup,
            ActionKind::Fetch => Work::Fetch,
            ActionKind::Substitute => Work::Substitute(ledger.offers.remove(&action.id)),
            ActionKind::Build => {
                let closure = self.graph.build_closure(action.id);
                let input = |id: &PackageId| {
                    let name = self.graph.name(*id).to_string();
                    ledger.blobs.get(id).map(|(blob, _)| Input {
                        name,
                        blob: blob.clone(),
                    })
                };
                Work::Build(closure.iter().filter_map(input).collect())
            }
        }
    }

    fn act(&self, id: PackageId, work: Work) -> Answer {
        let mut done = Done::default();
        let result = match work {
            Work::Lookup => self.lookup(id, &mut done),
            Work::Fetch => self.fetch_seed(id, &mut done),
            Work::Substitute(offer) => self.substitute(id, offer, &mut done),
            Work::Build(inputs) => self.build(id, &inputs, &mut done),
        };
        let outcome = result.unwrap_or_else(|error| {
            done.error = Some(error);
            Outcome::Failed
        });
        Answer { id, outcome, done }
    }

    fn fetch_seed(&self, id: PackageId, done: &mut Done) -> Result<Outcome, Error> {
        let recipe = self.graph.recipe(id);
        if let Some(seed) = recipe.seed() {
            done.fetched
                .extend(self.fetching().seed(recipe.name(), seed)?);
            done.blob = self.context.store.blob(&seed.sha256)?;
        }
        Ok(Outcome::Fetched)
    }

    fn substitute(
        &self,
        id: PackageId,
        offer: Option<Box<Offer>>,
        done: &mut Done,
    ) -> Result<Outcome, Error> {
        let Some(offer) = offer else {
            return Ok(Outcome::SubstituteFailed);
        };
        let Context {
            store, observer, ..
        } = *self.context;
        let package = self.graph.name(id);
        // Tells whoever fetches which package this is: of its earlier outputs something may be here.
        store.put_derivation(self.graph.derivation(id).to_string().as_bytes())?;
        let fetched = self.flights.alone(offer.realisation.sha256, || {
            let progress = FetchProgress::new(observer, package, None);
            self.context
                .substituter
                .fetch(&offer.realisation, store, &progress)
        });
        match fetched {
            Ok(fetched) => self.take_in(id, &offer, fetched, done),
            Err(FetchError::Cancelled) => Err(Error::Cancelled),
            Err(FetchError::Store(error)) => Err(error.into()),
            Err(source) => {
                done.asked = source.asked();
                let error = Error::Fetch {
                    what: Wanted::Output(package.clone()),
                    source,
                };
                if self.may_build() {
                    self.warn(package, &format!("{}, so it is built", chain(&error)));
                }
                done.error = Some(error);
                Ok(Outcome::SubstituteFailed)
            }
        }
    }

    /// Records an output that was substituted, and what vouches for it, so that it can be passed on.
    fn take_in(
        &self,
        id: PackageId,
        offer: &Offer,
        fetched: Fetched,
        done: &mut Done,
    ) -> Result<Outcome, Error> {
        let Context {
            store, observer, ..
        } = *self.context;
        let package = self.graph.name(id);
        let Fetched {
            blob,
            received,
            asked,
        } = fetched;
        // A substituter checks what it takes in; that it checked for the right output is checked here.
        if blob.sha256 != offer.realisation.sha256 {
            return Err(Error::Store(StoreError::Mismatch {
                what: "sha256",
                expected: offer.realisation.sha256.to_string(),
                got: blob.sha256.to_string(),
            }));
        }
        for statement in &offer.statements {
            store.put_realisation(statement)?;
        }
        self.keep(id, &blob)?;
        done.asked = asked;
        let bytes = blob.size;
        observer.event(&Event::Fetched {
            package,
            source: None,
            bytes,
            received: &received,
        });
        let package = package.clone();
        done.fetched.push(FetchedItem {
            package,
            source: None,
            bytes,
            received,
        });
        done.blob = Some(blob);
        Ok(Outcome::Substituted)
    }

    fn build(&self, id: PackageId, inputs: &[Input], done: &mut Done) -> Result<Outcome, Error> {
        let recipe = self.graph.recipe(id);
        let (package, pkghash) = (recipe.name(), self.graph.pkghash(id));
        let Context {
            store, observer, ..
        } = *self.context;
        // Before the first download: a machine that cannot build need not fetch anything.
        self.context.sandbox.get()?;
        done.fetched = self.fetch_sources(id)?;
        let log = self.log(&pkghash);
        let finished = self.workshop().build(recipe, inputs, &log)?;
        let blob = finished.ingest(store)?;
        let used = InputList::of(self.graph, inputs);
        self.context
            .record_built(&self.graph.derivation(id), &blob, Some(&used), self.options)?;
        observer.event(&Event::Built {
            package,
            bytes: blob.size,
            elapsed: finished.elapsed,
        });
        done.blob = Some(blob);
        Ok(Outcome::Built)
    }

    pub(crate) fn fetch_sources(&self, id: PackageId) -> Result<Vec<FetchedItem>, Error> {
        let recipe = self.graph.recipe(id);
        let event = Event::Building {
            package: recipe.name(),
            phase: Phase::Sources,
        };
        self.context.observer.event(&event);
        self.fetching().sources(recipe)
    }

    /// Keeps an output that others built.
    fn keep(&self, id: PackageId, blob: &Blob) -> Result<(), Error> {
        self.context.record(
            &self.graph.derivation(id),
            blob,
            self.options,
            ProvideOrigin::Fetched,
        )
    }

    /// Takes an answer into the ledger and says what the plan is to hear.
    fn settle(&self, answer: Answer, ledger: &mut Ledger) -> Outcome {
        let Answer { id, outcome, done } = answer;
        ledger.report.asked.merge(done.asked);
        ledger.report.fetched.extend(done.fetched);
        if let Some(offer) = done.offer {
            ledger.offers.insert(id, offer);
        }
        let how = match outcome {
            Outcome::Present => How::Present,
            Outcome::Substituted => How::Substituted,
            Outcome::Fetched => How::Fetched,
            Outcome::Built => How::Built,
            Outcome::Found => return outcome,
            Outcome::Missing | Outcome::SubstituteFailed if self.goes_on(id) => return outcome,
            Outcome::Missing | Outcome::SubstituteFailed | Outcome::Failed => {
                let package = self.graph.name(id).clone();
                let asked = Asked::default();
                let error = done.error.unwrap_or(Error::Missing { package, asked });
                self.fail(id, error, ledger);
                return outcome;
            }
        };
        match done.blob {
            Some(blob) => {
                if how == How::Built {
                    ledger.report.built.push(self.graph.name(id).clone());
                }
                ledger.blobs.insert(id, (blob, how));
                outcome
            }
            // The blob went away between its arrival and now.
            None => {
                let package = self.graph.name(id).clone();
                self.fail(
                    id,
                    Error::Missing {
                        package,
                        asked: Asked::default(),
                    },
                    ledger,
                );
                Outcome::Failed
            }
        }
    }

    /// Will the plan try something else for a package that nobody has?
    fn goes_on(&self, id: PackageId) -> bool {
        self.may_build() || self.graph.recipe(id).seed().is_some()
    }

    fn fail(&self, id: PackageId, error: Error, ledger: &mut Ledger) {
        let package = self.graph.name(id);
        if !matches!(error, Error::Cancelled) {
            self.context.observer.event(&Event::Failed {
                package,
                error: &error,
            });
        }
        ledger.errors.push(error);
    }

    fn conclude(&self, plan: &Plan, ledger: Ledger) -> Result<Report, Box<Failure>> {
        let Ledger {
            blobs,
            mut report,
            errors,
            ..
        } = ledger;
        let name = |id: PackageId| self.graph.name(id).clone();
        for (id, (blob, how)) in blobs {
            let (package, pkghash) = (name(id), self.graph.pkghash(id));
            report.realised.insert(
                package.clone(),
                Realised {
                    package,
                    pkghash,
                    blob,
                    how,
                },
            );
        }
        let skipped = plan.summary().skipped;
        report.skipped = skipped
            .into_iter()
            .map(|(id, because)| (name(id), name(because)))
            .collect();
        if plan.is_success() {
            return Ok(report);
        }
        // That each build was cancelled is said once, by the whole.
        let is_failure = |error: &Error| !matches!(error, Error::Cancelled);
        let mut errors = errors.into_iter().filter(is_failure);
        let cancelled = self.context.observer.cancelled();
        let error = if cancelled { None } else { errors.next() }.unwrap_or(Error::Cancelled);
        Err(Box::new(Failure {
            error,
            others: errors.collect(),
            report,
        }))
    }

    const fn may_build(&self) -> bool {
        !matches!(self.options.policy, Policy::SubstituteOnly)
    }

    fn fetching(&self) -> Fetching<'_> {
        self.context.fetching(self.options, &self.flights)
    }

    pub(crate) const fn options(&self) -> &Options {
        self.options
    }

    pub(crate) fn workshop(&self) -> Workshop<'_> {
        self.context.workshop(self.options)
    }

    pub(crate) fn log(&self, pkghash: &PkgHash) -> PathBuf {
        log_path(self.context.logs, pkghash)
    }

    fn warn(&self, package: &PackageName, text: &str) {
        self.context
            .observer
            .event(&Event::Warning { package, text });
    }
}

/// An action with what it needs.
enum Work {
    Lookup,
    Fetch,
    Substitute(Option<Box<Offer>>),
    Build(Vec<Input>),
}

/// What has come of the actions so far.
#[derive(Default)]
struct Ledger {
    /// What was found in the store of the packages that were looked up.
    here: HashMap<PackageId, Option<Blob>>,
    blobs: HashMap<PackageId, (Blob, How)>,
    offers: HashMap<PackageId, Box<Offer>>,
    errors: Vec<Error>,
    report: Report,
}

/// How many actions of each kind run.
#[derive(Default)]
struct Running {
    lookups: usize,
    transfers: usize,
    builds: usize,
}

impl Running {
    fn has_room(&self, kind: ActionKind, jobs: &JobServer) -> bool {
        match kind {
            ActionKind::Lookup => self.lookups < LOOKUPS,
            ActionKind::Substitute | ActionKind::Fetch => self.transfers < TRANSFERS,
            ActionKind::Build => self.builds < jobs.builds_max(),
        }
    }

    fn count(&mut self, kind: ActionKind, change: isize) {
        let number = match kind {
            ActionKind::Lookup => &mut self.lookups,
            ActionKind::Substitute | ActionKind::Fetch => &mut self.transfers,
            ActionKind::Build => &mut self.builds,
        };
        *number = number.saturating_add_signed(change);
    }
}
