//! The planner's promises, over chosen and over arbitrary graphs, policies and luck.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;
use crate::testing::{graph, graphs, id, names};

const TREE: &str = "
    seed
    make: seed
    musl: seed make
    openssl: make musl; musl
    cmake: make openssl; musl openssl
";

/// Runs a plan one action at a time and writes down what it asked for.
pub(super) fn run(
    graph: &Graph,
    mut plan: Plan,
    mut answer: impl FnMut(ActionKind, &str) -> Outcome,
) -> (Vec<String>, Plan) {
    let mut log = Vec::new();
    while let Some(Action { kind, id }) = plan.poll() {
        let name = graph.name(id).to_string();
        let outcome = answer(kind, &name);
        log.push(format!("{kind:?} {name}"));
        plan.handle(id, outcome);
    }
    assert!(plan.is_done());
    (log, plan)
}

pub(super) fn plan_for(graph: &Graph, policy: Policy) -> Plan {
    Plan::new(graph, graph.roots(), policy)
}

#[test]
fn what_is_present_needs_nothing_but_its_run_closure() {
    let graph = graph(TREE, &["cmake"]);
    let plan = plan_for(&graph, Policy::SubstituteOrBuild);
    let (log, plan) = run(&graph, plan, |_, _| Outcome::Present);
    assert_eq!(log, ["Lookup cmake", "Lookup musl", "Lookup openssl"]);
    assert!(plan.is_success());
    assert_eq!(plan.state(id(&graph, "make")), State::Unneeded);
}

#[test]
fn what_is_found_is_substituted_and_its_build_closure_not_touched() {
    let graph = graph(TREE, &["cmake"]);
    let plan = plan_for(&graph, Policy::SubstituteOrBuild);
    let (log, plan) = run(&graph, plan, |kind, _| match kind {
        ActionKind::Lookup => Outcome::Found,
        kind => Outcome::success(kind),
    });
    let expected = [
        "Lookup cmake",
        "Lookup musl",
        "Lookup openssl",
        "Substitute cmake",
        "Substitute musl",
        "Substitute openssl",
    ];
    assert_eq!(log, expected);
    assert!(plan.is_success());
}

#[test]
fn what_nobody_has_is_built_after_its_build_closure_and_seeds_are_fetched() {
    let graph = graph(TREE, &["openssl"]);
    let plan = plan_for(&graph, Policy::SubstituteOrBuild);
    let (log, plan) = run(&graph, plan, |kind, _| Outcome::success(kind));
    let expected = [
        "Lookup openssl",
        "Lookup musl",
        "Lookup make",
        "Lookup seed",
        "Fetch seed",
        "Build make",
        "Build musl",
        "Build openssl",
    ];
    assert_eq!(log, expected);
    assert!(plan.is_success());
    let summary = plan.summary();
    assert_eq!(names(&graph, summary.fetched), ["seed"]);
    assert_eq!(names(&graph, summary.built), ["make", "musl", "openssl"]);
}

#[test]
fn a_substitute_that_fails_is_built_or_missing() {
    let graph = graph(TREE, &["make"]);
    let answer = |kind, name: &str| match (kind, name) {
        (ActionKind::Lookup, "make") => Outcome::Found,
        (ActionKind::Substitute, _) => Outcome::SubstituteFailed,
        (kind, _) => Outcome::success(kind),
    };
    let plan = plan_for(&graph, Policy::SubstituteOrBuild);
    let (log, plan) = run(&graph, plan, answer);
    let expected = [
        "Lookup make",
        "Substitute make",
        "Lookup seed",
        "Fetch seed",
        "Build make",
    ];
    assert_eq!(log, expected);
    assert!(plan.is_success());

    let (log, plan) = run(&graph, plan_for(&graph, Policy::SubstituteOnly), answer);
    assert_eq!(log, ["Lookup make", "Substitute make"]);
    assert!(!plan.is_success());
    assert_eq!(names(&graph, plan.summary().failed), ["make"]);
}

#[test]
fn a_plan_that_only_builds_takes_no_substitute() {
    let graph = graph(TREE, &["make"]);
    let (log, plan) = run(
        &graph,
        plan_for(&graph, Policy::BuildOnly),
        |kind, _| match kind {
            ActionKind::Lookup => Outcome::Found,
            kind => Outcome::success(kind),
        },
    );
    assert_eq!(
        log,
        ["Lookup make", "Lookup seed", "Fetch seed", "Build make"]
    );
    assert!(plan.is_success());
}

#[test]
fn a_plan_that_only_substitutes_still_fetches_seeds() {
    let graph = graph("musl: \nrust-seed; musl", &["rust-seed"]);
    let answer = |kind, name: &str| match (kind, name) {
        (ActionKind::Lookup, "musl") => Outcome::Found,
        (kind, _) => Outcome::success(kind),
    };
    let (log, plan) = run(&graph, plan_for(&graph, Policy::SubstituteOnly), answer);
    let expected = [
        "Lookup rust-seed",
        "Lookup musl",
        "Fetch rust-seed",
        "Substitute musl",
    ];
    assert_eq!(log, expected);
    assert!(plan.is_success());
}

#[test]
fn the_first_failure_stops_the_plan_unless_it_keeps_going() {
    let graph = graph("seed\na: seed\nb: a\nc: seed\nd: b c", &["d", "c"]);
    let answer = |kind, name: &str| match (kind, name) {
        (ActionKind::Build, "a") => Outcome::Failed,
        (kind, _) => Outcome::success(kind),
    };
    let plan = plan_for(&graph, Policy::SubstituteOrBuild);
    let (log, plan) = run(&graph, plan.clone(), answer);
    assert_eq!(log.last().map(String::as_str), Some("Build a"));
    let summary = plan.summary();
    assert_eq!(names(&graph, summary.failed), ["a"]);
    assert_eq!(names(&graph, summary.unfinished), ["c"]);

    let plan = plan_for(&graph, Policy::SubstituteOrBuild).keep_going(true);
    let (log, plan) = run(&graph, plan, answer);
    assert_eq!(log.last().map(String::as_str), Some("Build c"));
    assert!(plan.is_complete(id(&graph, "c")));
    assert!(!plan.is_success());
    let because = State::Skipped {
        because: id(&graph, "a"),
    };
    assert_eq!(plan.state(id(&graph, "b")), because);
    assert_eq!(plan.state(id(&graph, "d")), because);
}

#[test]
fn a_package_is_not_complete_while_its_run_closure_is_not() {
    let graph = graph(
        "musl: \nzlib: ; musl\npython: ; zlib\nuser: python",
        &["user", "python"],
    );
    let answer = |kind, name: &str| match (kind, name) {
        (ActionKind::Build, "musl") => Outcome::Failed,
        (kind, _) => Outcome::success(kind),
    };
    let plan = plan_for(&graph, Policy::SubstituteOrBuild).keep_going(true);
    let (_, plan) = run(&graph, plan, answer);
    assert_eq!(plan.state(id(&graph, "python")), State::Built);
    assert!(!plan.is_complete(id(&graph, "python")));
    // Its build dependency is there, but not what that needs to run.
    let because = State::Skipped {
        because: id(&graph, "musl"),
    };
    assert_eq!(plan.state(id(&graph, "user")), because);
}

#[test]
fn a_failure_is_known_to_those_who_need_the_failed_package_only_later() {
    let graph = graph(
        "bad: \nlib: ; bad\ntool: ; lib\nlate: tool",
        &["bad", "late"],
    );
    let mut plan = plan_for(&graph, Policy::SubstituteOrBuild).keep_going(true);
    let (bad, late) = (id(&graph, "bad"), id(&graph, "late"));
    assert_eq!(
        plan.poll(),
        Some(Action {
            kind: ActionKind::Lookup,
            id: bad
        })
    );
    assert_eq!(
        plan.poll(),
        Some(Action {
            kind: ActionKind::Lookup,
            id: late
        })
    );
    plan.handle(bad, Outcome::Failed);
    plan.handle(late, Outcome::Missing);
    assert_eq!(plan.state(late), State::Skipped { because: bad });
}

#[test]
fn kinds_of_actions_can_be_taken_apart() {
    let graph = graph("a\nb: \nc: ", &["a", "b", "c"]);
    let mut plan = plan_for(&graph, Policy::SubstituteOrBuild);
    assert_eq!(plan.poll_if(|kind| kind != ActionKind::Lookup), None);
    for name in ["a", "b", "c"] {
        let action = plan.poll().map(|a| (a.kind, graph.name(a.id).to_string()));
        assert_eq!(action, Some((ActionKind::Lookup, name.to_owned())));
        plan.handle(id(&graph, name), Outcome::Missing);
    }
    let build = plan.poll_if(|kind| kind == ActionKind::Build);
    assert_eq!(
        build,
        Some(Action {
            kind: ActionKind::Build,
            id: id(&graph, "b")
        })
    );
    let fetch = plan.poll_if(|kind| kind != ActionKind::Build);
    assert_eq!(
        fetch,
        Some(Action {
            kind: ActionKind::Fetch,
            id: id(&graph, "a")
        })
    );
    assert_eq!(plan.poll_if(|kind| kind != ActionKind::Build), None);
    assert!(!plan.is_done());
}

#[test]
fn a_stopped_plan_gives_out_nothing_and_is_done_when_its_actions_are() {
    let graph = graph(TREE, &["cmake"]);
    let mut plan = plan_for(&graph, Policy::SubstituteOrBuild);
    let action = plan.poll().unwrap();
    plan.stop();
    assert_eq!(plan.poll(), None);
    assert!(!plan.is_done());
    plan.handle(action.id, Outcome::Present);
    assert!(plan.is_done());
    assert_eq!(
        names(&graph, plan.summary().unfinished),
        ["musl", "openssl"]
    );
}

#[test]
fn a_dry_run_tells_what_would_be_done() {
    let graph = graph(TREE, &["cmake"]);
    let plan = plan_for(&graph, Policy::SubstituteOrBuild);
    let summary = plan.dry_run(|id| match graph.name(id).as_str() {
        "seed" => Outcome::Present,
        "musl" | "make" => Outcome::Found,
        _ => Outcome::Missing,
    });
    assert_eq!(names(&graph, summary.substituted), ["make", "musl"]);
    assert_eq!(names(&graph, summary.built), ["openssl", "cmake"]);
    assert!(summary.present.is_empty(), "nobody needs the seed");

    let plan = plan_for(&graph, Policy::SubstituteOnly);
    let summary = plan.dry_run(|_| Outcome::Missing);
    assert_eq!(names(&graph, summary.failed), ["musl", "openssl", "cmake"]);
}

#[test]
fn nothing_to_do_is_done() {
    let graph = graph(TREE, &["cmake"]);
    let mut plan = Plan::new(&graph, &[], Policy::default());
    assert_eq!(plan.poll(), None);
    assert!(plan.is_done() && plan.is_success());
}

/// What happens to one package, whatever is asked about it.
#[derive(Clone, Copy, Debug)]
struct Luck {
    lookup: Outcome,
    is_delivered: bool,
    is_fetched: bool,
    is_built: bool,
}

fn lucks() -> impl Strategy<Value = Vec<Luck>> {
    let lookup = prop_oneof![
        2 => Just(Outcome::Present),
        4 => Just(Outcome::Found),
        6 => Just(Outcome::Missing),
        1 => Just(Outcome::Failed),
    ];
    let mostly = || prop::bool::weighted(0.8);
    let luck = (lookup, mostly(), mostly(), mostly()).prop_map(
        |(lookup, is_delivered, is_fetched, is_built)| Luck {
            lookup,
            is_delivered,
            is_fetched,
            is_built,
        },
    );
    prop::collection::vec(luck, 12)
}

impl Luck {
    fn outcome(self, kind: ActionKind) -> Outcome {
        let unless = |is_good: bool, bad| if is_good { Outcome::success(kind) } else { bad };
        match kind {
            ActionKind::Lookup => self.lookup,
            ActionKind::Substitute => unless(self.is_delivered, Outcome::SubstituteFailed),
            ActionKind::Fetch => unless(self.is_fetched, Outcome::Failed),
            ActionKind::Build => unless(self.is_built, Outcome::Failed),
        }
    }
}

fn policies() -> impl Strategy<Value = Policy> {
    prop_oneof![
        Just(Policy::SubstituteOrBuild),
        Just(Policy::SubstituteOnly),
        Just(Policy::BuildOnly)
    ]
}

/// One run of a plan with up to `width` actions at a time, answered in an order that `order` picks.
struct Run<'a> {
    graph: &'a Graph,
    luck: &'a [Luck],
    plan: Plan,
    /// All actions given out, with what was answered.
    answers: HashMap<(PackageId, ActionKind), Outcome>,
}

impl Run<'_> {
    fn go(&mut self, width: usize, order: &[prop::sample::Index]) {
        let mut running: Vec<Action> = Vec::new();
        let mut turns = order.iter().cycle();
        loop {
            while running.len() < width {
                let Some(action) = self.plan.poll() else {
                    break;
                };
                self.check(action);
                running.push(action);
            }
            assert_eq!(
                self.plan.is_done(),
                running.is_empty(),
                "done means nothing runs"
            );
            if running.is_empty() {
                return;
            }
            let turn = turns.next().map_or(0, |t| t.index(running.len()));
            let Action { kind, id } = running.swap_remove(turn);
            let outcome = self.luck[id.index()].outcome(kind);
            self.plan.handle(id, outcome);
            let before = self.answers.insert((id, kind), outcome);
            assert_eq!(before, None, "{kind:?} twice for one package");
        }
    }

    /// What must hold of every action when it is given out.
    fn check(&self, Action { kind, id }: Action) {
        let answer = |kind| self.answers.get(&(id, kind)).copied();
        let is_seed = self.graph.recipe(id).seed().is_some();
        let policy = self.plan.policy;
        match kind {
            ActionKind::Lookup => {}
            ActionKind::Fetch => assert!(is_seed),
            ActionKind::Substitute => {
                assert!(!is_seed && policy != Policy::BuildOnly);
                assert_eq!(answer(ActionKind::Lookup), Some(Outcome::Found));
            }
            ActionKind::Build => {
                assert!(!is_seed && policy != Policy::SubstituteOnly);
                let could_not_be_had = answer(ActionKind::Lookup) == Some(Outcome::Missing)
                    || answer(ActionKind::Substitute) == Some(Outcome::SubstituteFailed)
                    || policy == Policy::BuildOnly;
                assert!(could_not_be_had, "built what could be substituted");
                for needed in self.graph.build_closure(id) {
                    assert!(self.plan.state(needed).is_realised(), "built too early");
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn every_run_ends_and_keeps_the_promises(
        graph in graphs(),
        luck in lucks(),
        policy in policies(),
        keep_going: bool,
        wanted: u16,
        width in 1usize..5,
        order in prop::collection::vec(any::<prop::sample::Index>(), 1..20),
    ) {
        let roots: Vec<_> =
            graph.packages().filter(|id| wanted >> id.index() & 1 == 1).collect();
        let plan = Plan::new(&graph, &roots, policy).keep_going(keep_going);
        let mut run = Run { graph: &graph, luck: &luck, plan, answers: HashMap::new() };
        run.go(width, &order);
        let Run { plan, answers, .. } = run;
        let summary = plan.summary();

        // Only what is wanted, or below something that was to be built, is touched.
        let wanted = graph.with_run_closures(&roots);
        let to_build = graph.packages().filter(|id| {
            matches!(plan.state(*id), State::Built | State::Skipped { .. } | State::Waiting)
                || answers.contains_key(&(*id, ActionKind::Build))
        });
        let below: Vec<_> = to_build.flat_map(|id| graph.build_closure(id)).collect();
        for (id, _) in answers.keys() {
            prop_assert!(wanted.contains(id) || below.contains(id));
        }

        // Success is what it says, and without a failure there is success.
        let all_there = wanted.iter().all(|id| plan.state(*id).is_realised());
        prop_assert_eq!(plan.is_success(), all_there);
        prop_assert_eq!(plan.is_success() || !summary.failed.is_empty(), true);

        // With keep_going nothing is left in the air, and who is skipped needs whom it names.
        if keep_going {
            prop_assert_eq!(&summary.unfinished, &vec![]);
            for (skipped, because) in &summary.skipped {
                prop_assert_eq!(plan.state(*because), State::Failed);
                prop_assert!(graph.chain(*skipped, *because).is_some());
            }
            prop_assert!(wanted.iter().all(|id| plan.state(*id) != State::Unneeded));
        }
    }

    #[test]
    fn how_many_actions_run_at_once_does_not_change_what_becomes_of_what_is_wanted(
        graph in graphs(),
        luck in lucks(),
        policy in policies(),
        wanted: u16,
        width in 2usize..6,
        order in prop::collection::vec(any::<prop::sample::Index>(), 1..20),
    ) {
        let roots: Vec<_> =
            graph.packages().filter(|id| wanted >> id.index() & 1 == 1).collect();
        let result = |width, order: &[prop::sample::Index]| -> Vec<State> {
            let plan = Plan::new(&graph, &roots, policy).keep_going(true);
            let mut run = Run { graph: &graph, luck: &luck, plan, answers: HashMap::new() };
            run.go(width, order);
            let state = |id| match run.plan.state(id) {
                // Which of several failures is named depends on which came first.
                State::Skipped { .. } => State::Skipped { because: id },
                state => state,
            };
            graph.with_run_closures(&roots).into_iter().map(state).collect()
        };
        prop_assert_eq!(result(1, &order[..1]), result(width, &order));
    }
}
