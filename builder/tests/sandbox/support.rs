//! A small world to build in: a store, a package tree in memory, a shelf of sources, an observer that remembers.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, OnceLock};
use std::time::Duration;

use base::{PackageName, SecretKey, Sha256, TrustPolicy};
use builder::{
    Context, Event, Failure, LazySandbox, Observer, Options, RecipeFiles, Report, check, realise,
};
use recipe::{FileBytes, FileEntry, Graph, MemoryTree, PackageFiles, PackageId, System};
use store::substitute::{
    Asked, FetchError, Fetched, Origin, Progress, Query, QueryError, SourceFetcher, SourceRequest,
    Substituter,
};
use store::{Expected, Store};

/// The toy seed: BusyBox and its links, as an archive. `Err` says what is missing.
fn toy_seed() -> &'static Result<Vec<u8>, String> {
    static SEED: OnceLock<Result<Vec<u8>, String>> = OnceLock::new();
    SEED.get_or_init(|| {
        let busybox = static_busybox()?;
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
        Ok(archive)
    })
}

fn static_busybox() -> Result<PathBuf, String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut dirs: Vec<_> = std::env::split_paths(&path).collect();
    dirs.extend(["/usr/sbin", "/sbin", "/bin", "/usr/bin"].map(PathBuf::from));
    let names = ["busybox.static", "busybox"];
    let candidates = names
        .iter()
        .flat_map(|name| dirs.iter().map(move |dir| dir.join(name)));
    let is_static = |path: &PathBuf| {
        let bytes = fs::read(path).unwrap_or_default();
        // A dynamic program names its loader.
        !bytes.is_empty() && !bytes.windows(5).any(|w| w == b"/ld-l" || w == b"/ld-m")
    };
    candidates
        .into_iter()
        .find(is_static)
        .ok_or_else(|| "no static busybox".to_owned())
}

pub struct World {
    dir: tempfile::TempDir,
    pub store: Store,
    pub tree: MemoryTree,
    pub shelf: Shelf,
    pub remote: Remote,
    pub files: Files,
    pub sandbox: LazySandbox,
    pub key: SecretKey,
    pub trust: TrustPolicy,
    pub observer: Witness,
    pub options: Options,
}

impl World {
    /// A world with the package `seed`; `None` where builds cannot be sandboxed, after saying why.
    pub fn new() -> Option<Self> {
        let sandbox = LazySandbox::new(std::env::var_os("PATH").unwrap_or_default());
        let missing = match (sandbox.get(), toy_seed()) {
            (Err(error), _) => error.to_string(),
            (_, Err(error)) => error.clone(),
            _ => return Some(Self::with(sandbox)),
        };
        assert!(
            std::env::var_os("P2PKGS_REQUIRE_SANDBOX").is_none_or(|v| v != "1"),
            "{missing}"
        );
        eprintln!("skipped: {missing}");
        None
    }

    fn with(sandbox: LazySandbox) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let key = SecretKey::from_seed(&[7; 32]);
        let mut world = Self {
            store: Store::open(&dir.path().join("store")).unwrap(),
            tree: MemoryTree::default(),
            shelf: Shelf::default(),
            remote: Remote::default(),
            files: Files::default(),
            sandbox,
            trust: TrustPolicy::new([key.public()], 1),
            key,
            observer: Witness::default(),
            options: Options {
                jobs: 2,
                cores: 2,
                ..Options::default()
            },
            dir,
        };
        let seed = toy_seed().clone().unwrap();
        let sha256 = world.shelf.add(&seed);
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

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn scratch(&self) -> PathBuf {
        self.dir.path().join("scratch")
    }

    /// Adds a package built from the seed by a shell script.
    pub fn package(&mut self, package: &str, script: &str) -> &mut PackageFiles {
        self.package_from(package, script, "../seed\n", "")
    }

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

    pub fn graph(&mut self, roots: &[&str]) -> (Graph, Vec<PackageId>) {
        let roots: Vec<_> = roots.iter().map(|r| name(r)).collect();
        let graph = Graph::resolve(&mut self.tree, &roots, &System::host()).unwrap();
        let ids = graph.roots().to_vec();
        (graph, ids)
    }

    pub fn realise(&mut self, roots: &[&str]) -> Result<Report, Box<Failure>> {
        let (graph, ids) = self.graph(roots);
        self.with_context(|context, options| realise(context, &graph, &ids, options))
    }

    pub fn check(&mut self, roots: &[&str]) -> Result<Report, Box<Failure>> {
        let (graph, ids) = self.graph(roots);
        self.with_context(|context, options| check(context, &graph, &ids, options))
    }

    pub fn with_context<T>(&self, act: impl FnOnce(&Context<'_>, &Options) -> T) -> T {
        let (scratch, logs) = (self.scratch(), self.dir.path().join("logs"));
        let context = Context {
            store: &self.store,
            substituter: &self.remote,
            sources: &self.shelf,
            trust: &self.trust,
            signer: Some(&self.key),
            files: &self.files,
            sandbox: &self.sandbox,
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

    /// Names of what is left in the scratch folder, besides its lock.
    pub fn left_in_scratch(&self) -> Vec<OsString> {
        let entries = fs::read_dir(self.scratch()).into_iter().flatten();
        entries
            .map(|e| e.unwrap().file_name())
            .filter(|n| n != "lock")
            .collect()
    }
}

pub fn name(text: &str) -> PackageName {
    text.parse().unwrap()
}

/// A failure with the last lines of the log, for assertions.
pub fn full(failure: &Failure) -> String {
    let mut text = failure.error.to_string();
    let mut cause = std::error::Error::source(&failure.error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    if let builder::Error::BuildFailed(failure) = &failure.error {
        for line in &failure.last_lines {
            text = format!("{text}\n{}", String::from_utf8_lossy(line));
        }
    }
    text
}

/// Is a process running on this machine whose command line contains this text?
pub fn runs(marker: &str) -> Vec<i32> {
    let mut pids = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let command = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        if let Ok(pid) = entry.file_name().to_string_lossy().parse()
            && String::from_utf8_lossy(&command).contains(marker)
        {
            pids.push(pid);
        }
    }
    pids
}

/// Sources by digest.
#[derive(Default)]
pub struct Shelf {
    bytes: HashMap<Sha256, Vec<u8>>,
    pub fetched: AtomicUsize,
}

impl Shelf {
    pub fn add(&mut self, bytes: &[u8]) -> Sha256 {
        let sha256 = Sha256::of(bytes);
        self.bytes.insert(sha256, bytes.to_vec());
        sha256
    }
}

impl SourceFetcher for Shelf {
    fn fetch(
        &self,
        request: &SourceRequest<'_>,
        store: &Store,
        progress: &dyn Progress,
    ) -> Result<Fetched, FetchError> {
        let asked = Asked {
            caches: 1,
            ..Asked::default()
        };
        let bytes = self
            .bytes
            .get(&request.sha256)
            .ok_or(FetchError::Missing { asked })?;
        self.fetched.fetch_add(1, Ordering::Relaxed);
        let mut ingest = store.ingest()?;
        ingest.write_all(bytes).unwrap();
        progress.bytes(bytes.len() as u64, Some(bytes.len() as u64));
        let blob = ingest.finish(&Expected::sha256(request.sha256))?;
        let received = vec![(Origin::Http("shelf".into()), blob.size)];
        Ok(Fetched {
            blob,
            received,
            asked,
        })
    }
}

/// Another machine: its store, reached as if over a network.
#[derive(Default)]
pub struct Remote {
    pub store: Option<Store>,
    pub queries: AtomicUsize,
    /// Whether everything it sends is something else.
    pub lies: bool,
}

impl Substituter for Remote {
    fn query(&self, pkghash: &base::PkgHash, _: &dyn Progress) -> Result<Query, QueryError> {
        self.queries.fetch_add(1, Ordering::Relaxed);
        let asked = Asked {
            providers: 1,
            ..Asked::default()
        };
        let realisations = match &self.store {
            Some(store) => store.realisations(pkghash).unwrap(),
            None => Vec::new(),
        };
        Ok(Query {
            realisations,
            asked,
        })
    }

    fn fetch(
        &self,
        realisation: &base::Realisation,
        store: &Store,
        _progress: &dyn Progress,
    ) -> Result<Fetched, FetchError> {
        let asked = Asked {
            providers: 1,
            ..Asked::default()
        };
        let from = Origin::Peer("remote".into());
        let remote = self.store.as_ref().ok_or(FetchError::Missing { asked })?;
        if self.lies {
            let (expected, got) = (
                realisation.sha256.to_string(),
                Sha256::of(b"lie").to_string(),
            );
            return Err(FetchError::Invalid {
                expected,
                got,
                from,
            });
        }
        let mut file = remote
            .open_blob(&realisation.sha256)?
            .ok_or(FetchError::Missing { asked })?;
        let mut ingest = store.ingest()?;
        std::io::copy(&mut file, &mut ingest).unwrap();
        let blob = ingest.finish(&Expected::realisation(realisation))?;
        Ok(Fetched {
            received: vec![(from, blob.size)],
            blob,
            asked,
        })
    }
}

/// The `files/` of all packages.
#[derive(Default)]
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

/// Remembers what happened; stops everything once a build prints a chosen word.
#[derive(Default)]
pub struct Witness {
    pub stop_at: Option<&'static str>,
    stopped: AtomicBool,
    pub lines: Mutex<Vec<String>>,
    pub output: Mutex<String>,
    /// Builds that start wait until so many run at once.
    pub meet: usize,
    /// How many have started, and how many of these run.
    running: Mutex<(usize, usize)>,
    met: Condvar,
}

impl Witness {
    pub fn saw(&self, text: &str) -> bool {
        self.lines
            .lock()
            .unwrap()
            .iter()
            .any(|line| line.contains(text))
    }
}

impl Witness {
    fn arrive(&self) {
        let mut running = self.running.lock().unwrap();
        *running = (running.0 + 1, running.1 + 1);
        assert!(
            self.meet == 0 || running.1 <= self.meet,
            "{} builds at once",
            running.1
        );
        self.met.notify_all();
        let waiting = |running: &mut (usize, usize)| running.0 < self.meet;
        let (_running, late) = self
            .met
            .wait_timeout_while(running, Duration::from_secs(60), waiting)
            .unwrap();
        assert!(!late.timed_out(), "no other build came");
    }
}

impl Observer for Witness {
    fn event(&self, event: &Event<'_>) {
        let line = match event {
            Event::Output { text, .. } => {
                let mut output = self.output.lock().unwrap();
                output.push_str(&String::from_utf8_lossy(text));
                if self.stop_at.is_some_and(|word| output.contains(word)) {
                    self.stopped.store(true, Ordering::Relaxed);
                }
                return;
            }
            Event::Building { package, phase } => {
                match phase {
                    builder::Phase::Running => self.arrive(),
                    builder::Phase::Packing => self.running.lock().unwrap().1 -= 1,
                    _ => {}
                }
                format!("{package} {phase:?}")
            }
            Event::Built { package, .. } => format!("{package} built"),
            Event::Warning { package, text } => format!("{package} warning {text}"),
            Event::Fetched {
                package, source, ..
            } => format!("{package} fetched {source:?}"),
            Event::Failed { package, error } => format!("{package} failed {error}"),
            other => format!("{other:?}"),
        };
        self.lines.lock().unwrap().push(line);
    }

    fn cancelled(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }
}
