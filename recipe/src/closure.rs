//! Closures, as upstream's `.closure` and `.bclosure` define them.
//!
//! The *run closure* of a package is everything it needs at run time, directly or not, without itself. The *build closure*
//! is its build dependencies together with their run closures: what is unpacked into the sandbox, and nothing more.

use crate::chain::Chain;
use crate::graph::{Graph, PackageId};

/// Bits in a word of a [`BitSet`].
const WORD_BITS: usize = 64;

impl Graph {
    /// The run closure of a package, in topological order.
    pub fn run_closure(&self, id: PackageId) -> Vec<PackageId> {
        self.with_run_closures(self.run_deps(id))
    }

    /// The build closure of a package, in topological order.
    pub fn build_closure(&self, id: PackageId) -> Vec<PackageId> {
        self.with_run_closures(self.build_deps(id))
    }

    /// The packages together with their run closures, in topological order: what must be there to use them all.
    pub fn with_run_closures(&self, ids: &[PackageId]) -> Vec<PackageId> {
        let mut seen = BitSet::new(self.len());
        let mut open: Vec<_> = ids
            .iter()
            .copied()
            .filter(|id| seen.insert(id.index()))
            .collect();
        while let Some(id) = open.pop() {
            open.extend(self.run_deps(id).iter().filter(|d| seen.insert(d.index())));
        }
        seen.iter().map(PackageId::new).collect()
    }

    /// A shortest chain of dependencies by which `from` needs `to`, of both kinds; `None` if it does not need it.
    pub fn chain(&self, from: PackageId, to: PackageId) -> Option<Chain> {
        let mut came_by = vec![None; self.len()];
        let mut queue = std::collections::VecDeque::from([from]);
        while let Some(id) = queue.pop_front() {
            if id == to {
                break;
            }
            for (kind, next) in self.edges(id) {
                // What `to` does not lie below need not be searched: ids are in topological order.
                if next >= to && came_by[next.index()].is_none() {
                    came_by[next.index()] = Some((kind, id));
                    queue.push_back(next);
                }
            }
        }
        let mut steps = Vec::new();
        let mut at = to;
        while at != from {
            let (kind, before) = came_by[at.index()]?;
            steps.push((kind, self.name(at).clone()));
            at = before;
        }
        steps.reverse();
        Some(Chain {
            start: self.name(from).clone(),
            steps,
        })
    }
}

/// The run closures of all packages of a graph at once: one row of bits for each, an eighth of n² bytes together.
#[derive(Debug)]
pub struct Closures<'g> {
    graph: &'g Graph,
    run: Vec<BitSet>,
}

impl<'g> Closures<'g> {
    /// Computes them in one pass over the topological order.
    pub fn of(graph: &'g Graph) -> Self {
        let mut run: Vec<BitSet> = Vec::with_capacity(graph.len());
        for id in graph.packages() {
            let mut own = BitSet::new(graph.len());
            for dependency in graph.run_deps(id) {
                own.insert(dependency.index());
                own.unite(&run[dependency.index()]);
            }
            run.push(own);
        }
        Self { graph, run }
    }

    /// The run closure of a package, in topological order.
    pub fn run(&self, id: PackageId) -> impl Iterator<Item = PackageId> + '_ {
        self.run[id.index()].iter().map(PackageId::new)
    }

    /// The build closure of a package, in topological order.
    pub fn build(&self, id: PackageId) -> Vec<PackageId> {
        let mut set = BitSet::new(self.graph.len());
        for dependency in self.graph.build_deps(id) {
            set.insert(dependency.index());
            set.unite(&self.run[dependency.index()]);
        }
        set.iter().map(PackageId::new).collect()
    }
}

/// A set of small numbers.
#[derive(Clone, Debug)]
pub(crate) struct BitSet(Vec<u64>);

impl BitSet {
    /// An empty set with room for the numbers below `len`.
    pub(crate) fn new(len: usize) -> Self {
        Self(vec![0; len.div_ceil(WORD_BITS)])
    }

    /// Adds a number and tells whether it is new.
    pub(crate) fn insert(&mut self, number: usize) -> bool {
        let (word, bit) = (&mut self.0[number / WORD_BITS], 1 << (number % WORD_BITS));
        let is_new = *word & bit == 0;
        *word |= bit;
        is_new
    }

    fn unite(&mut self, other: &Self) {
        self.0
            .iter_mut()
            .zip(&other.0)
            .for_each(|(own, other)| *own |= other);
    }

    fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.0.iter().enumerate().flat_map(|(position, word)| Bits {
            word: *word,
            base: position * WORD_BITS,
        })
    }
}

/// The positions of the bits set in one word, ascending.
struct Bits {
    word: u64,
    base: usize,
}

impl Iterator for Bits {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        if self.word == 0 {
            return None;
        }
        let bit = self.word.trailing_zeros() as usize;
        self.word &= self.word - 1;
        Some(self.base + bit)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::testing::{graph, graphs, id, names};

    #[test]
    fn closures_are_the_ones_upstream_computes() {
        // Upstream's own packages, as `.closure` and `.bclosure` list them there.
        let graph = graph(
            "seed
             make: seed
             oksh: seed make
             gcc: seed make
             musl: oksh make gcc
             openssl: oksh make gcc musl; musl
             zlib: oksh make gcc musl; musl
             cmake: oksh make gcc musl openssl; musl openssl
             rust-seed; musl
             rust: oksh gcc musl cmake rust-seed zlib; musl openssl zlib",
            &["rust"],
        );
        let run = |n| names(&graph, graph.run_closure(id(&graph, n)));
        assert_eq!(run("rust"), ["musl", "openssl", "zlib"]);
        assert_eq!(run("rust-seed"), ["musl"]);
        assert_eq!(run("musl"), [] as [&str; 0]);
        let build = |n| names(&graph, graph.build_closure(id(&graph, n)));
        assert_eq!(build("make"), ["seed"]);
        // Without what its build dependencies were built with: neither `make` nor `seed`.
        let expected = [
            "oksh",
            "gcc",
            "musl",
            "openssl",
            "cmake",
            "rust-seed",
            "zlib",
        ];
        assert_eq!(build("rust"), expected);
        let both = [id(&graph, "cmake"), id(&graph, "zlib")];
        let used = names(&graph, graph.with_run_closures(&both));
        assert_eq!(used, ["musl", "openssl", "cmake", "zlib"]);
    }

    #[test]
    fn a_chain_is_a_shortest_one() {
        let graph = graph("d: \nc: ; d\nb: c\na: b; c", &["a"]);
        let chain = |a, b| {
            graph
                .chain(id(&graph, a), id(&graph, b))
                .map(|c| c.to_string())
        };
        assert_eq!(chain("a", "d"), Some("a -run-> c -run-> d".into()));
        assert_eq!(chain("b", "c"), Some("b -build-> c".into()));
        assert_eq!(chain("a", "a"), Some("a".into()));
        assert_eq!(chain("d", "a"), None);
    }

    /// The definition, written as a fixed point.
    fn naive_run_closure(graph: &Graph, of: &[PackageId]) -> Vec<PackageId> {
        let mut set: BTreeSet<PackageId> = of.iter().copied().collect();
        loop {
            let more: BTreeSet<_> = set
                .iter()
                .flat_map(|p| graph.run_deps(*p))
                .copied()
                .collect();
            if more.is_subset(&set) {
                return set.into_iter().collect();
            }
            set.extend(more);
        }
    }

    proptest! {
        #[test]
        fn closures_on_demand_and_all_at_once_are_the_definition(graph in graphs()) {
            let all = Closures::of(&graph);
            for id in graph.packages() {
                let run = naive_run_closure(&graph, graph.run_deps(id));
                prop_assert_eq!(&graph.run_closure(id), &run);
                prop_assert_eq!(all.run(id).collect::<Vec<_>>(), run);
                let build = naive_run_closure(&graph, graph.build_deps(id));
                prop_assert_eq!(&graph.build_closure(id), &build);
                prop_assert_eq!(all.build(id), build);
            }
        }

        #[test]
        fn there_is_a_chain_to_all_that_is_needed_and_each_step_is_an_edge(graph in graphs()) {
            for from in graph.packages() {
                for to in graph.packages() {
                    let Some(chain) = graph.chain(from, to) else { continue };
                    let mut at = from;
                    for (kind, name) in &chain.steps {
                        let next = graph.id(name).unwrap();
                        prop_assert!(graph.edges(at).any(|edge| edge == (*kind, next)));
                        at = next;
                    }
                    prop_assert_eq!(at, to);
                }
                for (_, to) in graph.edges(from) {
                    prop_assert_eq!(graph.chain(from, to).map(|c| c.steps.len()), Some(1));
                }
            }
        }

        #[test]
        fn a_bit_set_is_a_set(numbers in prop::collection::vec(0usize..200, 0..60)) {
            let mut set = BitSet::new(200);
            let mut model = BTreeSet::new();
            for number in numbers {
                prop_assert_eq!(set.insert(number), model.insert(number));
            }
            prop_assert_eq!(set.iter().collect::<Vec<_>>(), model.into_iter().collect::<Vec<_>>());
        }
    }
}
