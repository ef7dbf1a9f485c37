//! A store, a package tree in memory, a toy seed, and everything a [`Context`] wants.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use base::{PackageName, SecretKey};
use recipe::{FileBytes, FileEntry, Graph, MemoryTree, PackageFiles, PackageId, System};
use store::Store;
use trust::{LivePolicy, TrustPolicy};

use super::host::{can_go_on, search_path, static_busybox};
use super::network::{Remote, Shelf};
use super::witness::Witness;
use super::{full, name, sandbox_works};
use crate::{
    Context, Failure, JobServer, LazySandbox, Limits, Options, RecipeFiles, Report, check, realise,
    unused,
};

/// How long a build in a world may take: far more than any does, and soon enough to see which one hangs.
const WALL: Duration = Duration::from_secs(120);

/// A world to build in. Removed when dropped.
#[derive(Debug)]
pub struct World {
    dir: tempfile::TempDir,
    /// Where everything ends up.
    pub store: Store,
    /// The recipes.
    pub tree: MemoryTree,
    /// Who has sources.
    pub shelf: Shelf,
    /// Who has outputs: nobody at first.
    pub remote: Remote,
    /// What recipes bring.
    pub files: Files,
    /// The sandbox.
    pub sandbox: LazySandbox,
    /// Signs what is built.
    pub key: SecretKey,
    /// Trusts `key`.
    pub trust: LivePolicy,
    /// Who watches.
    pub observer: Witness,
    /// What builds may run at once: two jobs.
    pub jobs: JobServer,
    /// How to build.
    pub options: Options,
}

impl World {
    /// A world with the package `seed`; `None` where builds cannot be sandboxed, after saying why.
    pub fn new() -> Option<Self> {
        sandbox_works().then(Self::build)
    }

    fn build() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let key = SecretKey::from_seed(&[7; 32]);
        let mut world = Self {
            store: Store::open(&dir.path().join("store")).unwrap(),
            tree: MemoryTree::default(),
            shelf: Shelf::default(),
            remote: Remote::default(),
            files: Files::default(),
            sandbox: LazySandbox::new(search_path()),
            trust: TrustPolicy::new([key.public()], 1).into(),
            key,
            observer: Witness::default(),
            jobs: JobServer::new(2).unwrap(),
            options: Options {
                limits: Limits {
                    wall: WALL,
                    ..Limits::default()
                },
                ..Options::default()
            },
            dir,
        };
        let sha256 = world.shelf.add(toy_seed());
        let fetch = format!("url: bootstrap:toy\nfile: seed.tar.zst\nsha256: {sha256}\n");
        world.tree.insert(
            name("seed"),
            PackageFiles {
                fetch: Some(fetch.into()),
                ..PackageFiles::default()
            },
        );
        world
    }

    /// Where all of it lies.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Where scratch directories are made.
    pub fn scratch(&self) -> PathBuf {
        self.path().join("scratch")
    }

    /// The same world on a machine that cannot stack layers.
    pub fn unstacked(mut self) -> Self {
        self.sandbox = LazySandbox::unstacked(search_path());
        self
    }

    /// Whether builds of this world get roots that are stacked. Prints why not.
    pub fn stacks(&self) -> bool {
        let stacks = self.sandbox.get().unwrap().stacks(&self.scratch());
        can_go_on(&stacks, "P2PKGS_REQUIRE_STACKING")
    }

    /// Adds a package built from the seed by a shell script.
    pub fn package(&mut self, package: &str, script: &str) -> &mut PackageFiles {
        self.package_from(package, script, "../seed\n", "")
    }

    /// Adds a package with dependencies of its own.
    pub fn package_from(
        &mut self,
        package: &str,
        script: &str,
        build_deps: &str,
        run_deps: &str,
    ) -> &mut PackageFiles {
        let script = format!("#!/bin/sh\nset -e\n{script}\n");
        let files = PackageFiles {
            build: Some(FileBytes {
                executable: true,
                bytes: script.into_bytes(),
            }),
            build_deps: Some(build_deps.into()),
            run_deps: Some(run_deps.into()),
            ..PackageFiles::default()
        };
        self.tree.insert(name(package), files);
        self.tree.get_mut(&name(package)).unwrap()
    }

    /// Adds a file below a package's `files/`.
    pub fn add_file(&mut self, package: &str, path: &str, executable: bool, bytes: &[u8]) {
        let entry = FileEntry::regular(path, executable, bytes);
        self.tree.get_mut(&name(package)).unwrap().files.push(entry);
        self.files
            .0
            .insert((name(package), path.to_owned()), bytes.to_vec());
    }

    /// Adds a source to the shelf and to a package's `fetch`.
    pub fn add_source(&mut self, package: &str, file: &str, bytes: &[u8]) {
        let sha256 = self.shelf.add(bytes);
        let record = format!("url: https://example.org/{file}\nsha256: {sha256}\n\n");
        let fetch = &mut self.tree.get_mut(&name(package)).unwrap().fetch;
        fetch
            .get_or_insert_with(Vec::new)
            .extend_from_slice(record.as_bytes());
    }

    /// Resolves packages.
    pub fn graph(&mut self, roots: &[&str]) -> (Graph, Vec<PackageId>) {
        let roots: Vec<_> = roots.iter().map(|r| name(r)).collect();
        let graph = Graph::resolve(&mut self.tree, &roots, &System::host()).unwrap();
        let ids = graph.roots().to_vec();
        (graph, ids)
    }

    /// Realises packages.
    ///
    /// # Errors
    /// As [`realise`].
    pub fn realise(&mut self, roots: &[&str]) -> Result<Report, Box<Failure>> {
        let (graph, ids) = self.graph(roots);
        self.with_context(|context, options| realise(context, &graph, &ids, options))
    }

    /// Builds packages twice.
    ///
    /// # Errors
    /// As [`check`].
    pub fn check(&mut self, roots: &[&str]) -> Result<Report, Box<Failure>> {
        let (graph, ids) = self.graph(roots);
        self.with_context(|context, options| check(context, &graph, &ids, options))
    }

    /// Realises a package and what it is built with, and says what of that it does without.
    pub fn unused(&mut self, package: &str) -> Vec<PackageName> {
        let (graph, ids) = self.graph(&[package]);
        let wanted: Vec<_> = ids
            .iter()
            .copied()
            .chain(graph.build_closure(ids[0]))
            .collect();
        self.with_context(|context, options| {
            let report = realise(context, &graph, &wanted, options).unwrap();
            unused(context, &graph, ids[0], &report, options).unwrap()
        })
    }

    /// Does something with all of it.
    pub fn with_context<T>(&self, act: impl FnOnce(&Context<'_>, &Options) -> T) -> T {
        let (scratch, logs) = (self.scratch(), self.path().join("logs"));
        let context = Context {
            store: &self.store,
            substituter: &self.remote,
            sources: &self.shelf,
            trust: &self.trust,
            signer: &self.key,
            files: &self.files,
            sandbox: &self.sandbox,
            jobs: &self.jobs,
            observer: &self.observer,
            scratch: &scratch,
            logs: &logs,
            now_unix_secs: 1_700_000_000,
        };
        act(&context, &self.options)
    }

    /// Builds one package and returns the text of a file of its output.
    pub fn built_text(&mut self, package: &str, path: &str) -> String {
        let report = self
            .realise(&[package])
            .unwrap_or_else(|f| panic!("{}", full(&f)));
        let blob = &report.realised[&name(package)].blob;
        let dest = tempfile::tempdir().unwrap();
        let archive = self.store.open_blob(&blob.sha256).unwrap().unwrap();
        store::archive::unpack(archive, dest.path(), &Default::default()).unwrap();
        fs::read_to_string(dest.path().join(path)).unwrap()
    }

    /// Names of what is left in the scratch folder, besides its lock and the layers.
    pub fn left_in_scratch(&self) -> Vec<OsString> {
        let entries = fs::read_dir(self.scratch()).into_iter().flatten();
        entries
            .map(|e| e.unwrap().file_name())
            .filter(|n| n != "lock" && n != "layers")
            .collect()
    }
}

/// The `files/` of all packages.
#[derive(Debug, Default)]
pub struct Files(pub HashMap<(PackageName, String), Vec<u8>>);

impl RecipeFiles for Files {
    fn read(&self, package: &PackageName, path: &str) -> std::io::Result<Vec<u8>> {
        let key = (package.clone(), path.to_owned());
        self.0
            .get(&key)
            .cloned()
            .ok_or_else(|| std::io::ErrorKind::NotFound.into())
    }
}

/// The toy seed: BusyBox and its links, as an archive.
fn toy_seed() -> &'static [u8] {
    static SEED: OnceLock<Vec<u8>> = OnceLock::new();
    SEED.get_or_init(|| {
        let busybox = static_busybox().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let bin = dir.path().join("bin");
        fs::create_dir(&bin).unwrap();
        fs::copy(&busybox, bin.join("busybox")).unwrap();
        let list = Command::new(&busybox).arg("--list").output().unwrap();
        for applet in String::from_utf8(list.stdout).unwrap().lines() {
            if applet != "busybox" {
                symlink("busybox", bin.join(applet)).unwrap();
            }
        }
        let mut archive = Vec::new();
        store::archive::pack(dir.path(), &mut archive).unwrap();
        archive
    })
}
