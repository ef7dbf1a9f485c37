//! The order of builds: chosen cases, and a simulation over random trees.

use std::collections::BTreeSet;

use super::*;
use crate::graph::Graph;
use crate::plan::tests::{plan_for, run};
use crate::plan::{Action, ActionKind, Outcome, Policy};
use crate::testing::graph;

/// Pseudo-random numbers, always the same (xorshift64*, Vigna 2016).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % below
    }
}

/// A tree of `n` packages, each built from up to three of the twelve before it, and how long each takes: mostly seconds,
/// now and then minutes.
fn random_builds(dice: &mut Dice, n: usize) -> (Graph, Vec<Duration>) {
    let mut text = String::from("seed\n");
    for own in 0..n {
        text += &format!("p{own}: seed");
        let deps = (0..dice.roll(4).min(own)).map(|_| own - 1 - dice.roll(own.min(12)));
        let deps: BTreeSet<_> = deps.collect();
        text.extend(deps.into_iter().map(|dep| format!(" p{dep}")));
        text += "\n";
    }
    let roots: Vec<_> = (0..n).map(|own| format!("p{own}")).collect();
    let graph = graph(&text, &roots.iter().map(String::as_str).collect::<Vec<_>>());
    let times = graph.packages().map(|id| {
        let secs = if dice.roll(8) == 0 {
            60 + dice.roll(300)
        } else {
            1 + dice.roll(30)
        };
        let is_seed = graph.recipe(id).seed().is_some();
        Duration::from_secs(if is_seed { 0 } else { secs as u64 })
    });
    let times = times.collect();
    (graph, times)
}

/// When the last build ends if so many run at once, each for its time; everything else takes none. `next` chooses among
/// builds that could begin.
fn makespan(plan: Plan, times: &[Duration], machines: usize) -> Duration {
    let (mut plan, mut now, mut running) = (plan, Duration::ZERO, BTreeSet::new());
    loop {
        while let Some(Action { kind, id }) =
            plan.poll_if(|kind| kind != ActionKind::Build || running.len() < machines)
        {
            if kind == ActionKind::Build {
                running.insert((now + times[id.index()], id));
            } else {
                plan.handle(id, Outcome::success(kind));
            }
        }
        let Some((end, id)) = running.pop_first() else {
            return now;
        };
        now = end;
        plan.handle(id, Outcome::Built);
    }
}

/// No schedule is shorter: all the work, evenly shared, or the longest chain.
fn bound(graph: &Graph, times: &[Duration], machines: usize) -> Duration {
    let mut ends = vec![Duration::ZERO; graph.len()];
    for id in graph.packages() {
        let starts = graph.build_deps(id).iter().map(|d| ends[d.index()]).max();
        ends[id.index()] = starts.unwrap_or_default() + times[id.index()];
    }
    let work: Duration = times.iter().sum();
    (work / machines as u32).max(ends.into_iter().max().unwrap())
}

#[test]
fn the_longest_way_first_comes_close_to_the_shortest_possible_schedule() {
    let mut dice = Dice(20_260_728);
    let (mut ours, mut listed, mut rounds) = (0.0, 0.0, 0.0);
    for round in 0..200 {
        let (graph, times) = random_builds(&mut dice, 40 + round % 40);
        let machines = 2 + round % 7;
        let plan = plan_for(&graph, Policy::BuildOnly);
        // Where nothing takes any time nothing is urgent, and the order of the list decides.
        let by_list = plan.clone().with_times(|_| Some(Duration::ZERO));
        let timed = plan.with_times(|id| Some(times[id.index()]));
        let bound = bound(&graph, &times, machines);
        let makespan = makespan(timed, &times, machines);
        assert!(
            makespan >= bound && makespan <= 2 * bound,
            "{makespan:?} {bound:?}"
        );
        ours += makespan.as_secs_f64() / bound.as_secs_f64();
        listed += self::makespan(by_list, &times, machines).as_secs_f64() / bound.as_secs_f64();
        rounds += 1.0;
    }
    let (ours, listed) = (ours / rounds, listed / rounds);
    assert!(ours < 1.05, "{ours} times the bound");
    assert!(ours < listed, "{ours} and {listed} times the bound");
}

#[test]
fn what_the_longest_chain_waits_for_is_built_first() {
    let graph = graph("seed\na: seed\nb: seed\nc: b\nd: seed", &["a", "c", "d"]);
    let order = |times: &[(&str, u64)]| {
        let time = |id: PackageId| {
            let known = times
                .iter()
                .find(|(name, _)| *name == graph.name(id).as_str());
            known.map(|(_, secs)| Duration::from_secs(*secs))
        };
        let plan = plan_for(&graph, Policy::BuildOnly).with_times(time);
        let (log, _) = run(&graph, plan, |kind, _| Outcome::success(kind));
        let builds = log.iter().filter_map(|line| line.strip_prefix("Build "));
        builds.collect::<Vec<_>>().join(" ")
    };
    // Nothing is known: two builds are longer than one.
    assert_eq!(order(&[]), "b a c d");
    assert_eq!(order(&[("a", 9), ("d", 10), ("b", 1), ("c", 2)]), "d a b c");
    // What is not known takes as long as the one in the middle: `c` is thought to take 5.
    assert_eq!(order(&[("a", 7), ("d", 5), ("b", 3)]), "b a c d");
}

#[test]
fn what_nobody_builds_makes_nothing_urgent() {
    let graph = graph(
        "seed\nx: seed\na: seed\nbig: a\nb: seed\nc: b",
        &["x", "big", "c"],
    );
    let times = |id: PackageId| {
        let secs = if graph.name(id).as_str() == "big" {
            1000
        } else {
            10
        };
        Some(Duration::from_secs(secs))
    };
    let plan = plan_for(&graph, Policy::SubstituteOrBuild).with_times(times);
    let (log, _) = run(&graph, plan, |kind, name| match (kind, name) {
        (ActionKind::Lookup, "big") => Outcome::Present,
        (kind, _) => Outcome::success(kind),
    });
    let builds: Vec<_> = log
        .iter()
        .filter(|line| line.starts_with("Build"))
        .collect();
    assert_eq!(builds[0], "Build b");
}
