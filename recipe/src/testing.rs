//! Small package trees for the tests of this crate, written in a line a package.

use base::PackageName;
use proptest::prelude::*;

use crate::graph::{Graph, PackageId};
use crate::package::{FileBytes, PackageFiles};
use crate::system::System;
use crate::tree::MemoryTree;

/// A package name that is known to be one.
pub(crate) fn name(text: &str) -> PackageName {
    text.parse().unwrap()
}

/// The system all tests are for.
pub(crate) fn system() -> System {
    System::new("x86_64-linux").unwrap()
}

/// A tree of lines such as `seed` (a seed), `make: seed` (build dependencies), `bash: make seed; musl` (and run
/// dependencies), `rust-seed; musl` (a seed with run dependencies). A colon without names behind it makes a build.
pub(crate) fn tree(text: &str) -> MemoryTree {
    let mut tree = MemoryTree::default();
    for line in text.lines().map(str::trim).filter(|l| !l.is_empty()) {
        let (head, run) = line.split_once(';').unwrap_or((line, ""));
        let (own, build) = head
            .split_once(':')
            .map_or((head, None), |(n, b)| (n, Some(b)));
        tree.insert(name(own.trim()), package(own.trim(), build, run));
    }
    tree
}

/// The files of one package of [`tree`].
pub(crate) fn package(own: &str, build: Option<&str>, run: &str) -> PackageFiles {
    let deps = |names: &str| -> Vec<u8> {
        names
            .split_whitespace()
            .map(|n| format!("../{n}\n"))
            .collect::<String>()
            .into()
    };
    let digest = base::Sha256::of(own.as_bytes());
    PackageFiles {
        build: build.map(|_| FileBytes {
            executable: true,
            bytes: format!("#!/bin/sh\necho {own}\n").into(),
        }),
        build_deps: build.map(deps),
        run_deps: Some(deps(run)),
        fetch: Some(format!("url: https://example.org/{own}.tar\nsha256: {digest}\n").into()),
        ..PackageFiles::default()
    }
}

/// The graph below some roots of such a tree.
pub(crate) fn graph(text: &str, roots: &[&str]) -> Graph {
    let roots: Vec<_> = roots.iter().map(|r| name(r)).collect();
    Graph::resolve(&mut tree(text), &roots, &system()).unwrap()
}

/// The id of a package of a graph.
pub(crate) fn id(graph: &Graph, text: &str) -> PackageId {
    graph.id(&name(text)).unwrap()
}

/// Names of packages, for comparing lists.
pub(crate) fn names(graph: &Graph, ids: impl IntoIterator<Item = PackageId>) -> Vec<String> {
    ids.into_iter()
        .map(|id| graph.name(id).to_string())
        .collect()
}

/// Arbitrary graphs without cycles: each package needs any of those before it, every third on average is a seed.
/// All packages are roots, so that ids cover them all.
pub(crate) fn graphs() -> impl Strategy<Value = Graph> {
    let shape = (0..3u8, any::<u16>(), any::<u16>(), any::<u16>());
    prop::collection::vec(shape, 1..12).prop_map(|packages| {
        let mut tree = MemoryTree::default();
        let mut roots = Vec::new();
        for (own, (kind, thin, build, run)) in packages.iter().enumerate() {
            let listed = |mask: u16| -> String {
                (0..own)
                    .filter(|n| mask >> n & 1 == 1)
                    .map(|n| format!("p{n} "))
                    .collect()
            };
            let own = format!("p{own}");
            let build = (*kind != 0).then(|| listed(build & thin));
            tree.insert(
                name(&own),
                package(&own, build.as_deref(), &listed(run & !thin)),
            );
            roots.push(name(&own));
        }
        // Latest first, so that what lies deep is reached through what needs it.
        roots.reverse();
        Graph::resolve(&mut tree, &roots, &system()).unwrap()
    })
}
