//! The planner: a state machine that says what to do next to have some packages, and learns how it went.
//!
//! It does nothing itself, so its promises can be tested over arbitrary graphs and arbitrary luck:
//!
//! * What can be substituted is never built, and the build closure of what is not built is not even looked up.
//! * Nothing is built before every package of its build closure is realised together with its run closure.
//! * A seed is never substituted or built but fetched like a source: its content is its name, nobody's word is needed.
//! * Of what can be built, that comes first which the most work waits for: see [`Plan::with_times`].
//! * Every sequence of polls and answers ends, and then says of each package what became of it.
//!
//! The caller runs the actions, as many at a time as it likes, and answers each exactly once:
//!
//! ```text
//! while let Some(action) = plan.poll() { .. plan.handle(action.id, outcome) .. }
//! ```
//!
//! `poll` returning `None` while actions run means: nothing more until one of them is answered. A dry run is the same loop
//! with true answers to lookups and [`Outcome::success`] for everything else, see [`Plan::dry_run`].

mod order;

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use crate::graph::{Graph, PackageId};

/// How packages may be realised.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// Substitute what can be had, build the rest.
    #[default]
    SubstituteOrBuild,
    /// Never build; what cannot be substituted fails.
    SubstituteOnly,
    /// Never substitute; what is not in the store is built, and so is what it needs.
    BuildOnly,
}

/// What to do for one package.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Action {
    /// What.
    pub kind: ActionKind,
    /// For which package.
    pub id: PackageId,
}

/// What can be done for a package.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ActionKind {
    /// Find out whether its output is in the store and, if the policy substitutes, whether anybody trusted has it.
    Lookup,
    /// Get the output that a lookup found.
    Substitute,
    /// Get a seed's content, as any source is got.
    Fetch,
    /// Build it; its build closure is realised.
    Build,
}

/// How an action went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Lookup: the output is in the store.
    Present,
    /// Lookup: the output can be substituted.
    Found,
    /// Lookup: nobody has an output that may be used.
    Missing,
    /// Substitute: the output is in the store now.
    Substituted,
    /// Substitute: none of those who had it delivered it. It is built instead, if the policy builds.
    SubstituteFailed,
    /// Fetch: the seed is in the store now.
    Fetched,
    /// Build: the output is in the store now.
    Built,
    /// Any action: it failed, and the package with it.
    Failed,
}

impl Outcome {
    /// The outcome of an action of this kind that does what it is meant to; for a lookup, that there is something to do.
    pub const fn success(kind: ActionKind) -> Self {
        match kind {
            ActionKind::Lookup => Self::Missing,
            ActionKind::Substitute => Self::Substituted,
            ActionKind::Fetch => Self::Fetched,
            ActionKind::Build => Self::Built,
        }
    }
}

/// How far a package has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Nothing that is done needs it.
    Unneeded,
    /// It waits for its turn, or for its build closure.
    Waiting,
    /// An action is under way.
    Running(ActionKind),
    /// Its output was in the store already.
    Present,
    /// Its output was substituted.
    Substituted,
    /// The seed was fetched.
    Fetched,
    /// It was built.
    Built,
    /// It cannot be had.
    Failed,
    /// It was not built because a package it needs failed.
    Skipped {
        /// The package whose failure it was.
        because: PackageId,
    },
}

impl State {
    /// Is the output in the store?
    pub const fn is_realised(self) -> bool {
        matches!(
            self,
            Self::Present | Self::Substituted | Self::Fetched | Self::Built
        )
    }
}

/// What became of the packages, each list in topological order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Was in the store.
    pub present: Vec<PackageId>,
    /// Substituted.
    pub substituted: Vec<PackageId>,
    /// Seeds that were fetched.
    pub fetched: Vec<PackageId>,
    /// Built.
    pub built: Vec<PackageId>,
    /// Cannot be had.
    pub failed: Vec<PackageId>,
    /// Not built, and the package whose failure is the reason.
    pub skipped: Vec<(PackageId, PackageId)>,
    /// Needed, but the plan stopped before.
    pub unfinished: Vec<PackageId>,
}

/// The state machine. See the module's text for how to run it.
#[derive(Clone, Debug)]
pub struct Plan {
    policy: Policy,
    keep_going: bool,
    stopped: bool,
    running: usize,
    roots: Vec<PackageId>,
    items: Vec<Item>,
    lookups: VecDeque<PackageId>,
    transfers: VecDeque<Action>,
    builds: BTreeSet<PackageId>,
    /// The longest chain of builds that waits for each package, and how many outcomes it does not know of.
    after: Vec<Duration>,
    outcomes_since: usize,
    /// How long each package's build is thought to take.
    times: Box<[Duration]>,
}

#[derive(Clone, Debug)]
struct Item {
    is_seed: bool,
    build_deps: Box<[PackageId]>,
    run_deps: Box<[PackageId]>,
    state: State,
    /// What is still missing until the package and its run closure are realised: itself and each direct run dependency.
    until_complete: usize,
    /// Direct build dependencies that are not complete.
    until_buildable: usize,
    /// Who waits for this package being complete, to be complete or to be built.
    run_waiters: Vec<PackageId>,
    build_waiters: Vec<PackageId>,
    /// The failure because of which it will never be complete.
    broken: Option<PackageId>,
}

impl Plan {
    /// A plan to realise `roots` and their run closures.
    pub fn new(graph: &Graph, roots: &[PackageId], policy: Policy) -> Self {
        let item = |id| Item {
            is_seed: graph.recipe(id).seed().is_some(),
            build_deps: graph.build_deps(id).into(),
            run_deps: graph.run_deps(id).into(),
            state: State::Unneeded,
            until_complete: 0,
            until_buildable: 0,
            run_waiters: Vec::new(),
            build_waiters: Vec::new(),
            broken: None,
        };
        let mut plan = Self {
            policy,
            keep_going: false,
            stopped: false,
            running: 0,
            roots: roots.to_vec(),
            items: graph.packages().map(item).collect(),
            lookups: VecDeque::new(),
            transfers: VecDeque::new(),
            builds: BTreeSet::new(),
            after: Vec::new(),
            outcomes_since: 0,
            times: order::with_median(&vec![None; graph.len()]),
        };
        roots.iter().for_each(|root| plan.need(*root));
        plan
    }

    /// Whether to go on with what does not depend on a failure. Otherwise the first failure stops the plan.
    #[must_use]
    pub const fn keep_going(mut self, keep_going: bool) -> Self {
        self.keep_going = keep_going;
        self
    }

    /// How long the build of each package took when it was last timed. What has the longest chain of builds behind it is
    /// then built first; without it, the chain of the most builds.
    #[must_use]
    pub fn with_times(mut self, time: impl Fn(PackageId) -> Option<Duration>) -> Self {
        let known: Vec<_> = (0..self.items.len())
            .map(|n| time(PackageId::new(n)))
            .collect();
        self.times = order::with_median(&known);
        self
    }

    /// The next action to run; `None` if there is none before another answer, or at all.
    pub fn poll(&mut self) -> Option<Action> {
        self.poll_if(|_| true)
    }

    /// As [`Self::poll`], but only actions of kinds that `may` allows: downloads wait for the network and builds for the
    /// processors, so their numbers are bounded apart. Lookups come first, builds last.
    pub fn poll_if(&mut self, may: impl Fn(ActionKind) -> bool) -> Option<Action> {
        if self.stopped {
            return None;
        }
        let action = self
            .poll_lookup(&may)
            .or_else(|| self.poll_transfer(&may))
            .or_else(|| self.poll_build(&may))?;
        self.running += 1;
        self.item(action.id).state = State::Running(action.kind);
        Some(action)
    }

    /// The packages that are still to be looked up, in this order; whatever else comes to be is put behind them. Who can answer
    /// for many at once may look at them before they are given out.
    pub const fn lookups(&self) -> &VecDeque<PackageId> {
        &self.lookups
    }

    /// Takes in how the action that runs for a package went.
    ///
    /// # Panics
    /// If no action runs for it, or the outcome is not one of that action's: the caller has lost count.
    pub fn handle(&mut self, id: PackageId, outcome: Outcome) {
        let state = self.state(id);
        self.running = self.running.saturating_sub(1);
        self.outcomes_since += 1;
        match (state, outcome) {
            (State::Running(ActionKind::Lookup), Outcome::Present) => {
                self.realised(id, State::Present);
            }
            (State::Running(ActionKind::Lookup), Outcome::Found)
                if self.policy != Policy::BuildOnly && !self.items[id.index()].is_seed =>
            {
                self.enqueue_transfer(id, ActionKind::Substitute);
            }
            (State::Running(ActionKind::Lookup), Outcome::Found | Outcome::Missing)
            | (State::Running(ActionKind::Substitute), Outcome::SubstituteFailed) => {
                self.not_substituted(id);
            }
            (State::Running(ActionKind::Substitute), Outcome::Substituted) => {
                self.realised(id, State::Substituted);
            }
            (State::Running(ActionKind::Fetch), Outcome::Fetched) => {
                self.realised(id, State::Fetched);
            }
            (State::Running(ActionKind::Build), Outcome::Built) => self.realised(id, State::Built),
            (State::Running(_), Outcome::Failed) => self.failed(id),
            (state, outcome) => unreachable!("{outcome:?} does not answer {state:?} of {id:?}"),
        }
    }

    /// Gives out no further actions; what runs may still be answered.
    pub const fn stop(&mut self) {
        self.stopped = true;
    }

    /// Is there nothing left to run and nothing running?
    pub fn is_done(&self) -> bool {
        let is_idle =
            self.lookups.is_empty() && self.transfers.is_empty() && self.builds.is_empty();
        self.running == 0 && (self.stopped || is_idle)
    }

    /// Are all roots realised, with their run closures?
    pub fn is_success(&self) -> bool {
        self.roots.iter().all(|root| self.is_complete(*root))
    }

    /// Is the package realised together with its run closure?
    pub fn is_complete(&self, id: PackageId) -> bool {
        let item = &self.items[id.index()];
        item.state.is_realised() && item.until_complete == 0
    }

    /// How far a package has come.
    pub fn state(&self, id: PackageId) -> State {
        self.items[id.index()].state
    }

    /// What became of all packages so far.
    pub fn summary(&self) -> Summary {
        let mut summary = Summary::default();
        for (index, item) in self.items.iter().enumerate() {
            let id = PackageId::new(index);
            match item.state {
                State::Unneeded => {}
                State::Waiting | State::Running(_) => summary.unfinished.push(id),
                State::Present => summary.present.push(id),
                State::Substituted => summary.substituted.push(id),
                State::Fetched => summary.fetched.push(id),
                State::Built => summary.built.push(id),
                State::Failed => summary.failed.push(id),
                State::Skipped { because } => summary.skipped.push((id, because)),
            }
        }
        summary
    }

    /// Asks `lookup` about every package it comes to and takes for granted that all else succeeds: what would be done.
    pub fn dry_run(mut self, mut lookup: impl FnMut(PackageId) -> Outcome) -> Summary {
        self.keep_going = true;
        while let Some(Action { kind, id }) = self.poll() {
            let outcome = match kind {
                ActionKind::Lookup => lookup(id),
                _ => Outcome::success(kind),
            };
            self.handle(id, outcome);
        }
        self.summary()
    }

    fn poll_lookup(&mut self, may: impl Fn(ActionKind) -> bool) -> Option<Action> {
        let kind = ActionKind::Lookup;
        may(kind)
            .then(|| self.lookups.pop_front())
            .flatten()
            .map(|id| Action { kind, id })
    }

    fn poll_transfer(&mut self, may: impl Fn(ActionKind) -> bool) -> Option<Action> {
        let position = self.transfers.iter().position(|a| may(a.kind))?;
        self.transfers.remove(position)
    }

    fn poll_build(&mut self, may: impl Fn(ActionKind) -> bool) -> Option<Action> {
        let kind = ActionKind::Build;
        let id = may(kind).then(|| self.most_urgent()).flatten()?;
        self.builds.remove(&id);
        Some(Action { kind, id })
    }

    fn item(&mut self, id: PackageId) -> &mut Item {
        &mut self.items[id.index()]
    }

    /// Puts a package and its run closure on the list, unless they are.
    fn need(&mut self, id: PackageId) {
        let mut open = vec![id];
        while let Some(id) = open.pop() {
            if self.state(id) != State::Unneeded {
                continue;
            }
            self.item(id).state = State::Waiting;
            self.lookups.push_back(id);
            let run_deps = self.items[id.index()].run_deps.clone();
            let mut missing = 1;
            for dependency in &run_deps {
                if self.is_complete(*dependency) {
                    continue;
                }
                missing += 1;
                self.item(*dependency).run_waiters.push(id);
            }
            self.item(id).until_complete = missing;
            if let Some(because) = self.broken(&run_deps) {
                self.breaks(id, because);
            }
            open.extend(run_deps.iter().rev());
        }
    }

    fn enqueue_transfer(&mut self, id: PackageId, kind: ActionKind) {
        self.item(id).state = State::Waiting;
        self.transfers.push_back(Action { kind, id });
    }

    /// The output is nowhere, or cannot be had from where it is.
    fn not_substituted(&mut self, id: PackageId) {
        if self.items[id.index()].is_seed {
            self.enqueue_transfer(id, ActionKind::Fetch);
        } else if self.policy == Policy::SubstituteOnly {
            self.failed(id);
        } else {
            self.wait_for_build_closure(id);
        }
    }

    fn wait_for_build_closure(&mut self, id: PackageId) {
        self.item(id).state = State::Waiting;
        let build_deps = self.items[id.index()].build_deps.clone();
        if let Some(because) = self.broken(&build_deps) {
            return self.skipped(id, because);
        }
        build_deps.iter().for_each(|d| self.need(*d));
        // A package that was not needed until now may have a run dependency that failed before.
        if let Some(because) = self.broken(&build_deps) {
            return self.skipped(id, because);
        }
        let mut missing = 0;
        for dependency in &build_deps {
            if !self.is_complete(*dependency) {
                self.item(*dependency).build_waiters.push(id);
                missing += 1;
            }
        }
        self.item(id).until_buildable = missing;
        if missing == 0 {
            self.builds.insert(id);
        }
    }

    fn realised(&mut self, id: PackageId, state: State) {
        self.item(id).state = state;
        let mut open = vec![id];
        while let Some(id) = open.pop() {
            let item = self.item(id);
            item.until_complete -= 1;
            if item.until_complete > 0 {
                continue;
            }
            open.append(&mut item.run_waiters);
            for waiter in std::mem::take(&mut item.build_waiters) {
                let item = self.item(waiter);
                item.until_buildable -= 1;
                if item.until_buildable == 0 && item.state == State::Waiting {
                    self.builds.insert(waiter);
                }
            }
        }
    }

    fn failed(&mut self, id: PackageId) {
        self.item(id).state = State::Failed;
        self.stopped |= !self.keep_going;
        self.breaks(id, id);
    }

    fn skipped(&mut self, id: PackageId, because: PackageId) {
        self.item(id).state = State::Skipped { because };
        self.breaks(id, because);
    }

    /// The failure, if any, because of which one of the packages will never be complete.
    fn broken(&self, ids: &[PackageId]) -> Option<PackageId> {
        ids.iter().find_map(|id| self.items[id.index()].broken)
    }

    /// Tells everybody who waits for `id` that it will never be complete.
    fn breaks(&mut self, id: PackageId, because: PackageId) {
        let mut open = vec![id];
        while let Some(id) = open.pop() {
            let item = self.item(id);
            item.broken.get_or_insert(because);
            open.append(&mut item.run_waiters);
            for waiter in std::mem::take(&mut item.build_waiters) {
                let item = self.item(waiter);
                if item.state == State::Waiting {
                    item.state = State::Skipped { because };
                    open.push(waiter);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
