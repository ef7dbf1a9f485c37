//! Why a package hash is another than it was: the difference of two derivations, followed down to its causes.

use std::collections::{BTreeMap, HashSet};
use std::fmt;

use base::{PackageName, PkgHash, Sha256};

use crate::chain::EdgeKind;
use crate::derivation::{Body, Derivation, DerivedDep, DerivedFile, DerivedSource};
use crate::fault::quote;
use crate::recipe::FileMode;

/// Deepest indentation shown; below it lines are no longer moved to the right, or long chains would fill the terminal.
const INDENT_LEVELS_MAX: usize = 16;
/// Digits of a digest shown: enough to tell two apart by eye.
const DIGITS_SHOWN: usize = 12;

/// One way in which two derivations differ.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Change {
    /// They are of packages with different names.
    Name(PackageName, PackageName),
    /// They are for different systems.
    System(crate::System, crate::System),
    /// A seed's content differs.
    Seed(Sha256, Sha256),
    /// One is a seed and the other is built.
    SeedOrBuild {
        /// Is it a seed now?
        is_seed: bool,
    },
    /// The `build` script differs.
    Build,
    /// An entry below `files/` is there on one side only.
    FileOnOneSide {
        /// Its path.
        path: String,
        /// Is it there now?
        is_new: bool,
    },
    /// An entry below `files/` has another content or kind.
    File {
        /// Its path.
        path: String,
        /// Kinds before and now.
        modes: (FileMode, FileMode),
    },
    /// A source is there on one side only.
    SourceOnOneSide {
        /// Its file name.
        file: String,
        /// Is it there now?
        is_new: bool,
    },
    /// A source has another digest.
    Source {
        /// Its file name.
        file: String,
        /// Digests before and now.
        sha256: (Sha256, Sha256),
    },
    /// A dependency is there on one side only.
    DependencyOnOneSide {
        /// Which list it stands in.
        kind: EdgeKind,
        /// Its name.
        name: PackageName,
        /// Is it there now?
        is_new: bool,
    },
    /// A dependency has another package hash.
    Dependency {
        /// Which list it stands in.
        kind: EdgeKind,
        /// Its name.
        name: PackageName,
        /// Its hashes before and now.
        pkghash: (PkgHash, PkgHash),
        /// Where to read why.
        because: Because,
    },
}

/// Where the causes of a dependency's change are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Because {
    /// In the lines that follow, one level deeper.
    Below,
    /// In lines that came before: two packages share the dependency.
    Above,
    /// Nowhere, for one of its derivations is not at hand.
    Unknown,
}

/// A change and how deep below the packages compared it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    /// 0 for the packages compared, 1 for their direct dependencies, and so on.
    pub depth: usize,
    /// What differs.
    pub change: Change,
}

/// All reasons, each followed by the reasons for it. Printed one a line, indented by depth.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Explanation {
    /// The reasons in the order of printing; none if the derivations are equal.
    pub reasons: Vec<Reason>,
}

/// Compares two derivations and, as far as `lookup` knows them, those of the dependencies that differ.
///
/// A pair of dependencies reached in several ways is followed once.
pub fn explain(
    old: &Derivation,
    new: &Derivation,
    mut lookup: impl FnMut(&PkgHash) -> Option<Derivation>,
) -> Explanation {
    let mut explanation = Explanation::default();
    let mut seen = HashSet::new();
    let mut open: Vec<Reason> = reasons(old, new, 0);
    while let Some(mut reason) = open.pop() {
        let mut causes = Vec::new();
        if let Change::Dependency {
            pkghash, because, ..
        } = &mut reason.change
        {
            if seen.insert(*pkghash) {
                let pair = lookup(&pkghash.0).zip(lookup(&pkghash.1));
                *because = if pair.is_some() {
                    Because::Below
                } else {
                    Because::Unknown
                };
                causes = pair.map_or_else(Vec::new, |(o, n)| reasons(&o, &n, reason.depth + 1));
            } else {
                *because = Because::Above;
            }
        }
        explanation.reasons.push(reason);
        open.append(&mut causes);
    }
    explanation
}

/// The changes between two derivations, last first, so that they can be popped in order.
fn reasons(old: &Derivation, new: &Derivation, depth: usize) -> Vec<Reason> {
    let mut changes = Vec::new();
    if old.name() != new.name() {
        changes.push(Change::Name(old.name().clone(), new.name().clone()));
    }
    if old.system() != new.system() {
        changes.push(Change::System(old.system().clone(), new.system().clone()));
    }
    compare_bodies(old.body(), new.body(), &mut changes);
    compare_deps(
        EdgeKind::Build,
        old.build_deps(),
        new.build_deps(),
        &mut changes,
    );
    compare_deps(EdgeKind::Run, old.run_deps(), new.run_deps(), &mut changes);
    changes
        .into_iter()
        .rev()
        .map(|change| Reason { depth, change })
        .collect()
}

fn compare_bodies(old: &Body, new: &Body, changes: &mut Vec<Change>) {
    match (old, new) {
        (Body::Seed(old), Body::Seed(new)) if old == new => {}
        (Body::Seed(old), Body::Seed(new)) => changes.push(Change::Seed(*old, *new)),
        (Body::Seed(_), _) => changes.push(Change::SeedOrBuild { is_seed: false }),
        (_, Body::Seed(_)) => changes.push(Change::SeedOrBuild { is_seed: true }),
        (
            Body::Build {
                script: old,
                files: old_files,
                sources: old_sources,
                ..
            },
            Body::Build {
                script: new,
                files: new_files,
                sources: new_sources,
                ..
            },
        ) => {
            if old != new {
                changes.push(Change::Build);
            }
            compare_files(old_files, new_files, changes);
            compare_sources(old_sources, new_sources, changes);
        }
    }
}

fn compare_files(old: &[DerivedFile], new: &[DerivedFile], changes: &mut Vec<Change>) {
    changes.extend(
        sides(old, new, |f| f.path.as_str()).filter_map(|(path, sides)| match sides {
            (Some(old), Some(new)) => (old != new).then(|| Change::File {
                path: path.to_owned(),
                modes: (old.mode, new.mode),
            }),
            (old, _) => Some(Change::FileOnOneSide {
                path: path.to_owned(),
                is_new: old.is_none(),
            }),
        }),
    );
}

fn compare_sources(old: &[DerivedSource], new: &[DerivedSource], changes: &mut Vec<Change>) {
    changes.extend(
        sides(old, new, |s| s.file.as_str()).filter_map(|(file, sides)| match sides {
            (Some(old), Some(new)) => (old != new).then(|| Change::Source {
                file: file.to_owned(),
                sha256: (old.sha256, new.sha256),
            }),
            (old, _) => Some(Change::SourceOnOneSide {
                file: file.to_owned(),
                is_new: old.is_none(),
            }),
        }),
    );
}

fn compare_deps(kind: EdgeKind, old: &[DerivedDep], new: &[DerivedDep], changes: &mut Vec<Change>) {
    changes.extend(
        sides(old, new, |d| &d.name).filter_map(|(name, sides)| match sides {
            (Some(old), Some(new)) => (old != new).then(|| Change::Dependency {
                kind,
                name: name.clone(),
                pkghash: (old.pkghash, new.pkghash),
                because: Because::Unknown,
            }),
            (old, _) => {
                let is_new = old.is_none();
                Some(Change::DependencyOnOneSide {
                    kind,
                    name: name.clone(),
                    is_new,
                })
            }
        }),
    );
}

/// What stands on either side under each key, in the order of the keys.
fn sides<'a, T, K: Ord + ?Sized + 'a>(
    old: &'a [T],
    new: &'a [T],
    key: impl Fn(&'a T) -> &'a K,
) -> impl Iterator<Item = (&'a K, (Option<&'a T>, Option<&'a T>))> {
    let mut both: BTreeMap<&K, (Option<&T>, Option<&T>)> = BTreeMap::new();
    old.iter()
        .for_each(|item| both.entry(key(item)).or_default().0 = Some(item));
    new.iter()
        .for_each(|item| both.entry(key(item)).or_default().1 = Some(item));
    both.into_iter()
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(old, new) => write!(f, "the name changed from `{old}` to `{new}`"),
            Self::System(old, new) => write!(f, "the system changed from {old} to {new}"),
            Self::Seed(old, new) => write!(f, "the seed changed: {} -> {}", short(old), short(new)),
            Self::SeedOrBuild { is_seed: true } => f.write_str("it was built and is a seed now"),
            Self::SeedOrBuild { is_seed: false } => f.write_str("it was a seed and is built now"),
            Self::Build => f.write_str("`build` changed"),
            Self::FileOnOneSide { path, is_new } => {
                write!(f, "`files/{}` {}", quote(path), came_or_went(*is_new))
            }
            Self::File {
                path,
                modes: (old, new),
            } if old == new => {
                write!(f, "`files/{}` changed", quote(path))
            }
            Self::File {
                path,
                modes: (old, new),
            } => {
                let (old, new) = (old.as_str(), new.as_str());
                write!(f, "`files/{}` changed from {old} to {new}", quote(path))
            }
            Self::SourceOnOneSide { file, is_new } => {
                write!(f, "source `{}` {}", quote(file), came_or_went(*is_new))
            }
            Self::Source {
                file,
                sha256: (old, new),
            } => {
                let (file, old, new) = (quote(file), short(old), short(new));
                write!(f, "source `{file}` changed sha256 {old} -> {new}")
            }
            Self::DependencyOnOneSide { kind, name, is_new } => {
                write!(f, "{kind}-dep `{name}` {}", came_or_went(*is_new))
            }
            Self::Dependency {
                kind,
                name,
                because,
                ..
            } => {
                write!(f, "{kind}-dep `{name}` changed{}", because.as_str())
            }
        }
    }
}

impl Because {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Below => ", because:",
            Self::Above => ", as told above",
            Self::Unknown => "; one of its derivations is not at hand",
        }
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.reasons.iter().try_for_each(|reason| {
            let indent = 2 * reason.depth.min(INDENT_LEVELS_MAX);
            writeln!(f, "{:indent$}{}", "", reason.change)
        })
    }
}

const fn came_or_went(is_new: bool) -> &'static str {
    if is_new { "is new" } else { "is gone" }
}

fn short(digest: &Sha256) -> String {
    let mut hex = digest.to_hex();
    hex.truncate(DIGITS_SHOWN);
    hex + ".."
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;
    use crate::graph::Graph;
    use crate::package::{FileEntry, PackageFiles};
    use crate::testing::{graph, graphs, name, package, system, tree};
    use crate::tree::MemoryTree;

    const TREE: &str = "
        seed
        make: seed
        musl: seed make
        zlib: make musl; musl
        python: make zlib; zlib musl
    ";

    fn resolve(mut tree: MemoryTree, root: &str) -> Graph {
        Graph::resolve(&mut tree, &[name(root)], &system()).unwrap()
    }

    /// Explains the root's change with the derivations of both graphs at hand.
    fn told(old: &Graph, new: &Graph) -> String {
        let known: HashMap<_, _> = [old, new]
            .into_iter()
            .flat_map(|g| g.packages().map(|id| (g.pkghash(id), g.derivation(id))))
            .collect();
        let root = |g: &Graph| g.derivation(g.roots()[0]);
        explain(&root(old), &root(new), |hash| known.get(hash).cloned()).to_string()
    }

    fn edited(root: &str, changed: &str, edit: impl FnOnce(&mut PackageFiles)) -> String {
        let mut tree = tree(TREE);
        edit(tree.get_mut(&name(changed)).unwrap());
        told(&graph(TREE, &[root]), &resolve(tree, root))
    }

    #[test]
    fn a_change_deep_below_is_followed_and_told_once() {
        let text = edited("python", "make", |f| {
            f.build.as_mut().unwrap().bytes.push(b'\n');
        });
        let expected = "\
build-dep `make` changed, because:
  `build` changed
build-dep `zlib` changed, because:
  build-dep `make` changed, as told above
  build-dep `musl` changed, because:
    build-dep `make` changed, as told above
  run-dep `musl` changed, as told above
run-dep `musl` changed, as told above
run-dep `zlib` changed, as told above
";
        assert_eq!(text, expected);
    }

    #[test]
    fn every_kind_of_change_has_its_words() {
        let old = Sha256::of(b"zlib").to_hex();
        let text = edited("zlib", "zlib", |f| {
            f.fetch = Some(format!("url: http://a/zlib.tar\nsha256: {}", "0".repeat(64)).into());
            f.build_deps = Some(b"../make\n".to_vec());
            f.run_deps = Some(b"../musl\n../make".to_vec());
            f.files = vec![FileEntry::regular("a b", false, b"")];
        });
        let expected = format!(
            "`files/a b` is new\nsource `zlib.tar` changed sha256 {}.. -> 000000000000..\n\
             build-dep `musl` is gone\nrun-dep `make` is new\n",
            &old[..12]
        );
        assert_eq!(text, expected);
    }

    #[test]
    fn files_sources_and_seeds_have_their_words_too() {
        let with = |entry, fetch: &str| {
            let mut files = package("a", Some(""), "");
            files.files = vec![entry];
            files.fetch = Some(fetch.as_bytes().to_vec());
            let mut tree = tree("");
            tree.insert(name("a"), files);
            resolve(tree, "a")
        };
        let source = |n: &str| format!("url: http://a/{n}\nsha256: {}\n", "1".repeat(64));
        let plain = with(FileEntry::regular("p", false, b"1"), &source("x"));
        let program = with(FileEntry::regular("p", true, b"1"), &source("y"));
        let expected = "`files/p` changed from 644 to 755\nsource `x` is gone\nsource `y` is new\n";
        assert_eq!(told(&plain, &program), expected);
        let other = with(FileEntry::regular("p", false, b"2"), &source("x"));
        assert_eq!(told(&plain, &other), "`files/p` changed\n");
        let seed = graph("a", &["a"]);
        assert_eq!(told(&seed, &plain), "it was a seed and is built now\n");
        assert_eq!(told(&plain, &seed), "it was built and is a seed now\n");
        let renamed = told(&seed, &graph("b", &["b"]));
        assert!(renamed.starts_with("the name changed from `a` to `b`\nthe seed changed: "));
    }

    #[test]
    fn derivations_that_are_not_at_hand_are_said_to_be_so() {
        let (old, new) = (graph(TREE, &["make"]), {
            let mut tree = tree(TREE);
            tree.insert(name("seed"), package("other", None, ""));
            resolve(tree, "make")
        });
        let root = |g: &Graph| g.derivation(g.roots()[0]);
        let text = explain(&root(&old), &root(&new), |_| None).to_string();
        assert_eq!(
            text,
            "build-dep `seed` changed; one of its derivations is not at hand\n"
        );
    }

    #[test]
    fn long_chains_are_followed_to_their_end_without_wandering_off_to_the_right() {
        let long = |seed: &str| {
            let mut tree = MemoryTree::default();
            tree.insert(name("p0"), package(seed, None, ""));
            for n in 1..2000 {
                let (own, below) = (format!("p{n}"), format!("p{}", n - 1));
                tree.insert(name(&own), package(&own, Some(&below), ""));
            }
            resolve(tree, "p1999")
        };
        let text = told(&long("one"), &long("other"));
        assert_eq!(text.lines().count(), 2000);
        let last = text.lines().last().unwrap();
        assert!(last.trim_start().starts_with("the seed changed"), "{last}");
        assert_eq!(last.len() - last.trim_start().len(), 2 * INDENT_LEVELS_MAX);
    }

    proptest! {
        #[test]
        fn equal_derivations_need_no_words_and_others_need_some(graph in graphs(), other in graphs()) {
            prop_assert_eq!(told(&graph, &graph), "");
            let root = |g: &Graph| g.pkghash(g.roots()[0]);
            prop_assert_eq!(told(&graph, &other).is_empty(), root(&graph) == root(&other));
        }
    }
}
