//! What a package means: recipes, the graph they make, the derivation text whose SHA-256 is the package hash, and the plan.
//!
//! This crate is pure. It gets the bytes of package directories from a [`PackageSource`] and gives back values: it opens no
//! file, starts no process, asks no peer and reads no clock (its `clippy.toml` enforces that), so that the meaning of a
//! package tree can be tested in milliseconds. The way through it:
//!
//! 1. [`Recipe::parse`] reads one package directory, with file and line in every error.
//! 2. [`Graph::resolve`] loads what the roots need, orders it, refuses cycles, and hashes every [`Derivation`].
//! 3. [`Plan`] decides step by step what to look up, substitute, fetch and build.
//! 4. [`lint`] says what a careful reviewer would.
//! 5. [`explain`] and [`Graph::chain`] answer why.
//!
//! ```
//! # extern crate p2pkgs_recipe as recipe;
//! use recipe::{FileBytes, Graph, MemoryTree, PackageFiles, System};
//!
//! let mut tree = MemoryTree::default();
//! let seed = PackageFiles {
//!     fetch: Some(format!("url: https://example.org/seed.tar.gz\nsha256: {}\n", "5".repeat(64)).into()),
//!     ..PackageFiles::default()
//! };
//! let hello = PackageFiles {
//!     build: Some(FileBytes { executable: true, bytes: b"#!/bin/sh\necho hello > $DESTDIR/hello\n".to_vec() }),
//!     build_deps: Some(b"../seed\n".to_vec()),
//!     ..PackageFiles::default()
//! };
//! tree.insert("seed".parse()?, seed);
//! tree.insert("hello".parse()?, hello);
//!
//! let graph = Graph::resolve(&mut tree, &["hello".parse()?], &System::new("x86_64-linux")?)?;
//! let hello = graph.roots()[0];
//! assert!(graph.run_closure(hello).is_empty());
//! assert_eq!(graph.build_closure(hello).len(), 1);
//! assert_eq!(
//!     graph.pkghash(hello).to_string(),
//!     "685d9d2125ef16e1a2cb0e2495621bf8ef3b35d9728276f48cb44d526b18a72e"
//! );
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod chain;
mod closure;
mod deps;
mod derivation;
mod dot;
mod error;
mod fault;
mod fetch;
mod files;
mod graph;
pub mod limits;
mod lint;
mod nearest;
mod package;
mod percent;
mod plan;
mod recipe;
mod release;
mod source_url;
mod system;
#[cfg(test)]
mod testing;
mod tree;
mod why;
mod words;

pub use crate::chain::{Chain, EdgeKind};
pub use crate::closure::Closures;
pub use crate::derivation::{
    Body, Derivation, DerivationError, DerivedDep, DerivedFile, DerivedSource,
};
pub use crate::error::{Error, Place};
pub use crate::fault::Fault;
pub use crate::graph::{Graph, PackageId};
pub use crate::lint::{Remark, lint};
pub use crate::package::{FileBytes, FileContent, FileEntry, PackageFiles};
pub use crate::plan::{Action, ActionKind, Outcome, Plan, Policy, State, Summary};
pub use crate::recipe::{
    Dependency, FileKind, FileMode, Recipe, RecipeFile, Script, Source, Warning,
};
pub use crate::release::{Release, Version, links};
pub use crate::source_url::SourceUrl;
pub use crate::system::{System, SystemError};
pub use crate::tree::{MemoryTree, PackageSource};
pub use crate::why::{Because, Change, Explanation, Reason, explain};
