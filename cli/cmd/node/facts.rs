//! What the daemon's pages tell that only the program knows: what packages are called, and what keys said of keys.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use base::{PackageName, PkgHash, Sha256};
use node::web::{Facts, PackageFacts};
use recipe::{Graph, PackageSource as _, System};
use store::Store;
use trust::SignedKeyStatement;

use crate::home::Home;
use crate::statements;
use crate::tree::DiskTree;

/// How long an answer is used again: a tree is some hundred small files, and pages load themselves again.
const FRESH: Duration = Duration::from_secs(5);

/// The packages of a tree, as far as they are in a store, and what a home knows of keys.
#[derive(Debug)]
pub struct HomeFacts {
    /// The tree's; `None` where there is no tree.
    root: Option<PathBuf>,
    home: Home,
    store: Store,
    last: Mutex<Option<(Instant, Vec<PackageFacts>)>>,
}

impl HomeFacts {
    /// Of this tree, in this home and its store.
    pub fn new(tree: Option<&DiskTree>, home: &Home, store: Store) -> Self {
        Self {
            root: tree.map(|tree| tree.root().to_owned()),
            home: home.clone(),
            store,
            last: Mutex::default(),
        }
    }

    /// What cannot be read is left out: a page is no place to fail.
    fn look(&self) -> Vec<PackageFacts> {
        let Some(Ok(mut tree)) = self.root.as_deref().map(|root| DiskTree::find(Some(root))) else {
            return Vec::new();
        };
        let names = tree.names();
        let Here { files, outputs } = Here::of(&self.store);
        let mut facts = Vec::new();
        let mut add = |graph: &Graph, name: &PackageName| {
            let Some(id) = graph.id(name) else { return };
            let pkghash = graph.pkghash(id);
            let sources = graph.recipe(id).sources();
            facts.push(PackageFacts {
                name: name.to_string(),
                pkghash: pkghash.to_string(),
                output: outputs.contains(&pkghash),
                sources_here: sources.iter().filter(|s| files.contains(&s.sha256)).count(),
                sources: sources.len(),
            });
        };
        match Graph::resolve(&mut tree, &names, &System::host()) {
            Ok(graph) => names.iter().for_each(|name| add(&graph, name)),
            // One package that is wrong must not hide the others.
            Err(_) => {
                for name in &names {
                    let alone = std::slice::from_ref(name);
                    if let Ok(graph) = Graph::resolve(&mut tree, alone, &System::host()) {
                        add(&graph, name);
                    }
                }
            }
        }
        facts
    }
}

/// What a store holds.
struct Here {
    files: HashSet<Sha256>,
    outputs: HashSet<PkgHash>,
}

impl Here {
    fn of(store: &Store) -> Self {
        let files = store.blobs().unwrap_or_default();
        Self {
            files: files.into_iter().map(|blob| blob.sha256).collect(),
            outputs: store.realised().unwrap_or_default().into_iter().collect(),
        }
    }
}

impl Facts for HomeFacts {
    fn key_statements(&self) -> Option<Vec<u8>> {
        let known = statements::of_home(&self.home).unwrap_or_default();
        (!known.is_empty()).then(|| SignedKeyStatement::print_file(&known))
    }

    fn packages(&self) -> Vec<PackageFacts> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, facts)) = &*last
            && at.elapsed() < FRESH
        {
            return facts.clone();
        }
        let facts = self.look();
        *last = Some((Instant::now(), facts.clone()));
        facts
    }
}
