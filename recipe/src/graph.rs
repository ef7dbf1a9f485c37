//! The dependency graph below some roots: loaded on demand, ordered, free of cycles, every package hashed.
//!
//! Build and run dependencies go into one graph, since both enter the hash: a cycle through either has no first hash.
//! Everything is iterative, so a chain of ten thousand packages needs no deeper stack than one of three.

use std::collections::{HashMap, HashSet};

use base::{PackageName, PkgHash};

use crate::chain::{Chain, EdgeKind};
use crate::derivation::Derivation;
use crate::error::{Error, Place};
use crate::limits::DERIVATION_BYTES_MAX;
use crate::nearest::nearest;
use crate::recipe::{Dependency, Recipe};
use crate::system::System;
use crate::tree::PackageSource;

/// A package of one [`Graph`]. Ids are in topological order: whatever a package needs has a smaller id than itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PackageId(u32);

impl PackageId {
    /// Position in [`Graph::packages`].
    pub const fn index(self) -> usize {
        self.0 as usize
    }

    pub(crate) fn new(index: usize) -> Self {
        Self(u32::try_from(index).expect("a graph in memory has less than 2^32 packages"))
    }
}

/// The packages that some roots need, with their hashes.
#[derive(Clone, Debug)]
pub struct Graph {
    system: System,
    nodes: Vec<Node>,
    ids: HashMap<PackageName, PackageId>,
    roots: Vec<PackageId>,
}

#[derive(Clone, Debug)]
struct Node {
    recipe: Recipe,
    pkghash: PkgHash,
    build_deps: Vec<PackageId>,
    run_deps: Vec<PackageId>,
}

impl Graph {
    /// Loads `roots` and all they need, orders and hashes it. A package that no root needs is not looked at.
    ///
    /// # Errors
    /// The first [`Error`] met: a package that is wrong, missing or unreadable, a cycle, or an oversize derivation.
    pub fn resolve<S: PackageSource>(
        source: &mut S,
        roots: &[PackageName],
        system: &System,
    ) -> Result<Self, Error> {
        let graph = Self {
            system: system.clone(),
            nodes: Vec::new(),
            ids: HashMap::new(),
            roots: Vec::new(),
        };
        let mut resolver = Resolver {
            source,
            graph,
            open: Vec::new(),
            positions: HashMap::new(),
        };
        let mut seen = HashSet::new();
        for root in roots.iter().filter(|root| seen.insert(*root)) {
            let id = resolver.visit(root)?;
            resolver.graph.roots.push(id);
        }
        Ok(resolver.graph)
    }

    /// The packages asked for, each once, in the order asked for.
    pub fn roots(&self) -> &[PackageId] {
        &self.roots
    }

    /// All packages, dependencies first.
    pub fn packages(&self) -> impl ExactSizeIterator<Item = PackageId> + use<> {
        (0..self.nodes.len()).map(PackageId::new)
    }

    /// How many packages there are.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Is nothing asked for?
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// The package of that name, if a root needs it.
    pub fn id(&self, name: &PackageName) -> Option<PackageId> {
        self.ids.get(name).copied()
    }

    /// A package's name.
    pub fn name(&self, id: PackageId) -> &PackageName {
        self.node(id).recipe.name()
    }

    /// A package's recipe.
    pub fn recipe(&self, id: PackageId) -> &Recipe {
        &self.node(id).recipe
    }

    /// A package's hash.
    pub fn pkghash(&self, id: PackageId) -> PkgHash {
        self.node(id).pkghash
    }

    /// A package's derivation; its text is [`ToString`]. Made when asked for: ten thousand texts are not kept in memory.
    pub fn derivation(&self, id: PackageId) -> Derivation {
        self.derive(&self.node(id).recipe)
    }

    /// Direct build dependencies, in the recipe's order.
    pub fn build_deps(&self, id: PackageId) -> &[PackageId] {
        &self.node(id).build_deps
    }

    /// Direct run dependencies, in the recipe's order.
    pub fn run_deps(&self, id: PackageId) -> &[PackageId] {
        &self.node(id).run_deps
    }

    /// Direct dependencies of both kinds; a package may occur as both.
    pub(crate) fn edges(&self, id: PackageId) -> impl Iterator<Item = (EdgeKind, PackageId)> + '_ {
        let node = self.node(id);
        let build = node.build_deps.iter().map(|d| (EdgeKind::Build, *d));
        build.chain(node.run_deps.iter().map(|d| (EdgeKind::Run, *d)))
    }

    fn node(&self, id: PackageId) -> &Node {
        &self.nodes[id.index()]
    }

    fn derive(&self, recipe: &Recipe) -> Derivation {
        Derivation::of(recipe, &self.system, |name| {
            self.node(self.known(name)).pkghash
        })
    }

    fn known(&self, name: &PackageName) -> PackageId {
        *self
            .ids
            .get(name)
            .expect("dependencies come before what needs them")
    }

    /// Takes in a package all of whose dependencies are in.
    fn close(&mut self, recipe: Recipe) -> Result<PackageId, Error> {
        let text = self.derive(&recipe).text();
        if text.len() > DERIVATION_BYTES_MAX {
            let (name, bytes) = (recipe.name().clone(), text.len());
            return Err(Error::DerivationTooLarge { name, bytes });
        }
        let ids = |deps: &[Dependency]| deps.iter().map(|d| self.known(&d.name)).collect();
        let node = Node {
            pkghash: PkgHash::of_derivation(text.as_bytes()),
            build_deps: ids(recipe.build_deps()),
            run_deps: ids(recipe.run_deps()),
            recipe,
        };
        let id = PackageId::new(self.nodes.len());
        self.ids.insert(node.recipe.name().clone(), id);
        self.nodes.push(node);
        Ok(id)
    }
}

/// Depth-first search with its own stack.
struct Resolver<'s, S> {
    source: &'s mut S,
    graph: Graph,
    /// Packages whose dependencies are being visited, each needed by the one below it.
    open: Vec<Open>,
    /// Where in `open` a package stands.
    positions: HashMap<PackageName, usize>,
}

struct Open {
    recipe: Recipe,
    /// Which dependency comes next; build dependencies are counted before run dependencies.
    next: usize,
}

impl Open {
    fn dependency(&self, position: usize) -> Option<(EdgeKind, &Dependency)> {
        let build = self.recipe.build_deps();
        match build.get(position) {
            Some(dependency) => Some((EdgeKind::Build, dependency)),
            None => {
                let run = self.recipe.run_deps().get(position - build.len());
                run.map(|dependency| (EdgeKind::Run, dependency))
            }
        }
    }
}

impl<S: PackageSource> Resolver<'_, S> {
    fn visit(&mut self, root: &PackageName) -> Result<PackageId, Error> {
        if let Some(id) = self.graph.id(root) {
            return Ok(id);
        }
        self.load(root, None)?;
        loop {
            let top = self
                .open
                .last_mut()
                .expect("the root stays open until it returns");
            let position = top.next;
            top.next += 1;
            match top.dependency(position) {
                Some((_, dependency)) if self.graph.ids.contains_key(&dependency.name) => {}
                Some((kind, dependency)) => {
                    let file = match kind {
                        EdgeKind::Build => "build-deps",
                        EdgeKind::Run => "run-deps",
                    };
                    let name = dependency.name.clone();
                    let place = Place::line(top.recipe.name(), file, dependency.line);
                    self.load(&name, Some(place))?;
                }
                None => {
                    let Open { recipe, .. } = self.open.pop().expect("it was just looked at");
                    self.positions.remove(recipe.name());
                    let id = self.graph.close(recipe)?;
                    if self.open.is_empty() {
                        return Ok(id);
                    }
                }
            }
        }
    }

    fn load(&mut self, name: &PackageName, place: Option<Place>) -> Result<(), Error> {
        if let Some(position) = self.positions.get(name) {
            return Err(Error::Cycle(self.cycle(*position)));
        }
        let files = match self.source.load(name) {
            Ok(Some(files)) => files,
            Ok(None) => {
                let nearest = nearest(name, self.source.names());
                let (place, name) = (place.map(Box::new), name.clone());
                return Err(Error::UnknownPackage {
                    place,
                    name,
                    nearest,
                });
            }
            Err(e) => {
                return Err(Error::Load {
                    name: name.clone(),
                    source: Box::new(e),
                });
            }
        };
        let recipe = Recipe::parse(name, files)?;
        self.positions.insert(name.clone(), self.open.len());
        self.open.push(Open { recipe, next: 0 });
        Ok(())
    }

    /// The way from the open package at `position` up to the top, whose current dependency is that package again.
    fn cycle(&self, position: usize) -> Chain {
        let on_it = &self.open[position..];
        let step = |open: &Open| {
            let (kind, dependency) = open
                .dependency(open.next - 1)
                .expect("it was taken before it was followed");
            (kind, dependency.name.clone())
        };
        let start = on_it[0].recipe.name().clone();
        Chain::cycle(start, on_it.iter().map(step).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::convert::Infallible;

    use proptest::prelude::*;

    use super::*;
    use crate::package::PackageFiles;
    use crate::testing::{graph, graphs, id, name, names, package, system, tree};
    use crate::tree::MemoryTree;

    fn error(text: &str, root: &str) -> Error {
        Graph::resolve(&mut tree(text), &[name(root)], &system()).unwrap_err()
    }

    const FIELD: &str = "
        seed
        make: seed
        oksh: seed make
        musl: oksh make
        openssl: make; musl
        cmake: make openssl; musl openssl
        unrelated: missing
    ";

    #[test]
    fn dependencies_come_first_and_only_what_is_needed_is_there() {
        let graph = graph(FIELD, &["cmake", "make", "cmake"]);
        let order = names(&graph, graph.packages());
        assert_eq!(order, ["seed", "make", "oksh", "musl", "openssl", "cmake"]);
        assert_eq!(names(&graph, graph.roots().to_vec()), ["cmake", "make"]);
        let cmake = id(&graph, "cmake");
        assert_eq!(
            names(&graph, graph.build_deps(cmake).to_vec()),
            ["make", "openssl"]
        );
        assert_eq!(
            names(&graph, graph.run_deps(cmake).to_vec()),
            ["musl", "openssl"]
        );
        assert_eq!(graph.id(&name("unrelated")), None);
    }

    #[test]
    fn a_change_deep_below_changes_every_hash_above_and_no_other() {
        let before = graph(FIELD, &["cmake"]);
        let mut changed = tree(FIELD);
        changed.insert(name("oksh"), package("other", Some("seed make"), ""));
        let after = Graph::resolve(&mut changed, &[name("cmake")], &system()).unwrap();
        let differs: Vec<_> = before
            .packages()
            .filter(|p| before.pkghash(*p) != after.pkghash(*p))
            .collect();
        assert_eq!(
            names(&before, differs),
            ["oksh", "musl", "openssl", "cmake"]
        );
    }

    #[test]
    fn an_unknown_package_is_named_with_the_line_that_asks_for_it() {
        let unknown = error("seed\nfoo: seed; \nbar: foo; seed sede", "bar");
        let expected = "pkg/bar/run-deps:2: no package `sede` in the package tree";
        assert_eq!(unknown.to_string(), expected);
        assert_eq!(unknown.hint(), Some("did you mean `seed`?".to_owned()));
        let asked_for = error("seed", "quite-another");
        assert_eq!(
            asked_for.to_string(),
            "no package `quite-another` in the package tree"
        );
        assert_eq!(asked_for.hint(), None);
    }

    #[test]
    fn cycles_are_told_whole_with_the_kind_of_each_edge() {
        let told = |text, root| error(text, root).to_string();
        let ring = "seed\nz: b seed\nb: seed c\nc: ; a\na: seed b\n";
        let expected = "dependency cycle: a -build-> b -build-> c -run-> a";
        assert_eq!(told(ring, "z"), expected);
        assert_eq!(told(ring, "c"), expected);
        assert_eq!(
            told("a: ; b\nb: ; a", "a"),
            "dependency cycle: a -run-> b -run-> a"
        );
        assert_eq!(
            told("gcc: make\nmake: gcc", "make"),
            "dependency cycle: gcc -build-> make -build-> gcc"
        );
    }

    #[test]
    fn a_broken_package_that_nobody_needs_does_no_harm() {
        let mut tree = tree("a: \nb: ");
        tree.insert(name("b"), PackageFiles::default());
        assert!(Graph::resolve(&mut tree, &[name("a")], &system()).is_ok());
        let error = Graph::resolve(&mut tree, &[name("a"), name("b")], &system()).unwrap_err();
        assert!(matches!(error, Error::Invalid { .. }));
    }

    #[test]
    fn what_the_reader_says_is_passed_on_as_the_cause() {
        #[derive(Debug, thiserror::Error)]
        #[error("permission denied")]
        struct Denied;
        struct Locked;
        impl PackageSource for Locked {
            type Error = Denied;
            fn load(&mut self, _: &PackageName) -> Result<Option<PackageFiles>, Denied> {
                Err(Denied)
            }
        }
        let error = Graph::resolve(&mut Locked, &[name("a")], &system()).unwrap_err();
        assert_eq!(error.to_string(), "cannot read package `a`");
        let cause = std::error::Error::source(&error).map(ToString::to_string);
        assert_eq!(cause, Some("permission denied".to_owned()));
    }

    #[test]
    fn each_package_is_loaded_once() {
        struct Counting(MemoryTree, Vec<String>);
        impl PackageSource for Counting {
            type Error = Infallible;
            fn load(&mut self, name: &PackageName) -> Result<Option<PackageFiles>, Infallible> {
                self.1.push(name.to_string());
                self.0.load(name)
            }
        }
        let mut source = Counting(tree(FIELD), Vec::new());
        Graph::resolve(&mut source, &[name("cmake"), name("musl")], &system()).unwrap();
        let distinct: HashSet<_> = source.1.iter().collect();
        assert_eq!((source.1.len(), distinct.len()), (6, 6));
    }

    #[test]
    fn a_recipe_of_too_many_parts_is_refused_by_name() {
        let mut tree = MemoryTree::default();
        let mut foo = package("foo", Some(""), "");
        let long = "d".repeat(200);
        foo.files = (0..5000)
            .map(|n| crate::FileEntry::regular(format!("{long}/{n}"), false, b""))
            .collect();
        tree.insert(name("foo"), foo);
        let error = Graph::resolve(&mut tree, &[name("foo")], &system()).unwrap_err();
        assert!(matches!(&error, Error::DerivationTooLarge { name, .. } if name.as_str() == "foo"));
        assert!(error.hint().is_some());
    }

    #[test]
    fn chains_of_a_hundred_thousand_packages_need_no_deep_stack() {
        struct Chain(usize);
        impl PackageSource for Chain {
            type Error = Infallible;
            fn load(&mut self, own: &PackageName) -> Result<Option<PackageFiles>, Infallible> {
                let number: usize = own.as_str()[1..].parse().unwrap();
                let next = format!("p{}", number + 1);
                let (build, run) = if number == self.0 {
                    ("", "")
                } else if number.is_multiple_of(2) {
                    (next.as_str(), "")
                } else {
                    ("", next.as_str())
                };
                Ok(Some(package(own.as_str(), Some(build), run)))
            }
        }
        let length = 100_000;
        let graph = Graph::resolve(&mut Chain(length), &[name("p0")], &system()).unwrap();
        assert_eq!(graph.len(), length + 1);
        let (top, bottom) = (id(&graph, "p0"), id(&graph, "p100000"));
        assert_eq!(graph.chain(top, bottom).unwrap().steps.len(), length);
        let plan = crate::Plan::new(&graph, graph.roots(), crate::Policy::BuildOnly);
        let summary = plan.dry_run(|_| crate::Outcome::Missing);
        assert_eq!(summary.built.len(), length + 1);
    }

    proptest! {
        #[test]
        fn ids_are_a_topological_order(graph in graphs()) {
            for id in graph.packages() {
                prop_assert_eq!(graph.id(graph.name(id)), Some(id));
                for (_, dependency) in graph.edges(id) {
                    prop_assert!(dependency < id);
                }
            }
        }

        #[test]
        fn the_hash_of_a_package_does_not_depend_on_who_else_is_asked_for(graph in graphs()) {
            let mut tree = MemoryTree::default();
            for id in graph.packages() {
                let recipe = graph.recipe(id);
                let listed = |deps: &[Dependency]| {
                    deps.iter().rev().map(|d| format!("{} ", d.name)).collect::<String>()
                };
                let build = recipe.build().map(|_| listed(recipe.build_deps()));
                let own = recipe.name().as_str();
                tree.insert(name(own), package(own, build.as_deref(), &listed(recipe.run_deps())));
            }
            for id in graph.packages() {
                let root = graph.name(id).clone();
                let alone = Graph::resolve(&mut tree, &[root], &system()).unwrap();
                prop_assert_eq!(alone.pkghash(alone.roots()[0]), graph.pkghash(id));
            }
        }
    }
}
