//! Going round the circle for real, with a toy: its "compiler" is BusyBox, its packages copy themselves and count.
//!
//! Skipped, loudly, without a sandbox or a static BusyBox; with `P2PKGS_REQUIRE_SANDBOX=1` that is a failure.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]
#![allow(clippy::print_stderr, reason = "skips are told")]

// The name by which the other crates know it.
extern crate p2pkgs_bootstrap as bootstrap;

use std::collections::HashMap;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;

use base::{PackageName, PkgHash, Realisation, SecretKey, Sha256, TrustPolicy};
use bootstrap::{Error, Event, Request, STAGES_MAX, Seed, rebuild, verify};
use builder::{Context, ErrorKind, LazySandbox, NoObserver, Options, RecipeFiles, realise};
use recipe::{FileBytes, FileEntry, Graph, MemoryTree, PackageFiles, System};
use store::substitute::{
    Asked, FetchError, Fetched, Origin, Progress, Query, QueryError, SourceFetcher, SourceRequest,
    Substituter,
};
use store::{Expected, Store};

/// Takes the host's BusyBox for a seed, after looking at what it was promised to find.
const STAGE_0: &str = r#"#!/bin/sh
set -eu
test -x "$CC" && test "$CC" != sh
test "$(cat /src/count/start)" = 0 && test -x /src/count/build && test -f /src/tools/source.txt
test -z "$(ls -A)" && test -z "$(ls -A "$DESTDIR")" && test ! -e /root
if (: >/src/x) 2>/dev/null || (: >/usr/x) 2>/dev/null; then exit 1; fi
mkdir -p "$DESTDIR/bin" "$DESTDIR/share"
cp "$(command -v busybox)" "$DESTDIR/bin/busybox"
for applet in sh cat cp mkdir ls test expr; do ln -s busybox "$DESTDIR/bin/$applet"; done
cp /src/count/start "$DESTDIR/share/count"
"#;

/// Gives on the tools it was built with.
const TOOLS: &str = "mkdir $DESTDIR/bin\ncp -a /bin/. $DESTDIR/bin/";

struct Circle {
    dir: tempfile::TempDir,
    store: Store,
    tree: MemoryTree,
    shelf: Shelf,
    files: Files,
    sandbox: LazySandbox,
    key: SecretKey,
    trust: TrustPolicy,
    seed: Seed,
    options: Options,
    resume: bool,
    events: Mutex<Vec<Event>>,
}

/// A circle in which `count` writes `next`, a shell expression over `$old`, in every stage.
fn circle(next: &str) -> Option<Circle> {
    let sandbox = LazySandbox::new(std::env::var_os("PATH").unwrap_or_default());
    let missing = match sandbox.get() {
        Err(error) => Some(error.to_string()),
        Ok(_) if !has_static_busybox() => Some("no static busybox in /usr/bin".to_owned()),
        Ok(_) => None,
    };
    if let Some(missing) = missing {
        assert!(
            std::env::var_os("P2PKGS_REQUIRE_SANDBOX").is_none_or(|v| v != "1"),
            "{missing}"
        );
        eprintln!("skipped: {missing}");
        return None;
    }
    let dir = tempfile::tempdir().unwrap();
    let key = SecretKey::from_seed(&[3; 32]);
    let mut circle = Circle {
        store: Store::open(&dir.path().join("store")).unwrap(),
        tree: MemoryTree::default(),
        shelf: Shelf::default(),
        files: Files(HashMap::new()),
        sandbox,
        trust: TrustPolicy::new([key.public()], 1),
        key,
        seed: Seed {
            name: name("toy"),
            sha256: Sha256::of(b"not pinned yet"),
            size: 0,
            from: vec![name("count"), name("tools")],
        },
        options: Options {
            jobs: 2,
            ..Options::default()
        },
        resume: true,
        events: Mutex::default(),
        dir,
    };
    let count = format!(
        "read old </share/count\nmkdir $DESTDIR/share\nnext={next}\necho $next >$DESTDIR/share/count"
    );
    circle.package("count", &count);
    circle.package("tools", TOOLS);
    let start = FileEntry::regular("start", false, b"0\n");
    circle
        .tree
        .get_mut(&name("count"))
        .unwrap()
        .files
        .push(start);
    circle
        .files
        .0
        .insert((name("count"), "start".into()), b"0\n".to_vec());
    let source = circle.shelf.add(b"source");
    circle.tree.get_mut(&name("tools")).unwrap().fetch =
        Some(format!("url: https://example.org/source.txt\nsha256: {source}\n").into());
    circle.pin(circle.seed.sha256);
    Some(circle)
}

fn has_static_busybox() -> bool {
    let bytes = std::fs::read("/usr/bin/busybox").unwrap_or_default();
    let runs = || {
        Command::new("/usr/bin/busybox")
            .arg("true")
            .status()
            .is_ok_and(|s| s.success())
    };
    !bytes.is_empty() && !bytes.windows(5).any(|w| w == b"/ld-l" || w == b"/ld-m") && runs()
}

impl Circle {
    fn package(&mut self, package: &str, script: &str) {
        let bytes = format!("#!/bin/sh\nset -eu\n{script}\n").into_bytes();
        let files = PackageFiles {
            build: Some(FileBytes {
                executable: true,
                bytes,
            }),
            build_deps: Some("../seed\n".into()),
            ..PackageFiles::default()
        };
        self.tree.insert(name(package), files);
    }

    /// Writes a digest where the tree and the list of seeds say which the seed is.
    fn pin(&mut self, sha256: Sha256) {
        self.seed.sha256 = sha256;
        let fetch = format!("url: bootstrap:toy\nfile: seed.tar.zst\nsha256: {sha256}\n");
        let files = PackageFiles {
            fetch: Some(fetch.into()),
            ..PackageFiles::default()
        };
        self.tree.insert(name("seed"), files);
    }

    fn act<T>(
        &mut self,
        act: impl FnOnce(&Context<'_>, &mut MemoryTree, &Request<'_>, &dyn Fn(Event)) -> T,
    ) -> T {
        let (scratch, logs) = (
            self.dir.path().join("scratch"),
            self.dir.path().join("logs"),
        );
        let context = Context {
            store: &self.store,
            substituter: &Nobody,
            sources: &self.shelf,
            trust: &self.trust,
            signer: Some(&self.key),
            files: &self.files,
            sandbox: &self.sandbox,
            observer: &NoObserver,
            scratch: &scratch,
            logs: &logs,
            now_unix_secs: 1_700_000_000,
        };
        let request = Request {
            seed: &self.seed,
            compiler: "sh",
            stage_0: STAGE_0.as_bytes(),
            options: &self.options,
            resume: self.resume,
        };
        let events = |event| self.events.lock().unwrap().push(event);
        act(&context, &mut self.tree, &request, &events)
    }

    fn rebuild(&mut self) -> Result<bootstrap::Rebuilt, Error> {
        let system = System::host();
        self.act(|context, tree, request, events| rebuild(context, tree, &system, request, events))
    }

    fn verify(&mut self) -> Result<bootstrap::Verified, Error> {
        let system = System::host();
        self.act(|context, tree, request, events| verify(context, tree, &system, request, events))
    }

    /// Rebuilds, pins what came out, and returns it.
    fn rebuild_and_pin(&mut self) -> Sha256 {
        let Err(Error::NotReproducible { made, .. }) = self.rebuild() else {
            panic!("nothing was pinned that could have been made")
        };
        self.pin(made);
        made
    }

    /// How many packages each stage found built already.
    fn reused(&self) -> Vec<usize> {
        let events = self.events.lock().unwrap();
        let reused = |event: &Event| match event {
            Event::Done { reused, .. } => Some(*reused),
            Event::Stage { .. } => None,
        };
        events.iter().filter_map(reused).collect()
    }
}

#[test]
fn stages_follow_each_other_until_two_are_equal() {
    let Some(mut circle) = circle("$((old < 2 ? old + 1 : 2))") else {
        return;
    };
    let made = circle.rebuild_and_pin();
    circle.events.lock().unwrap().clear();
    let rebuilt = circle.rebuild().unwrap();
    // 0, 1, 2, and 2 again.
    assert_eq!(rebuilt.stages.len(), 4);
    assert_eq!(rebuilt.blob.sha256, made);
    assert_ne!(rebuilt.stages[1].sha256, rebuilt.stages[2].sha256);
    // The second time nothing but stage 0 was built again.
    assert_eq!(circle.reused(), [0, 2, 2, 2]);
    circle.events.lock().unwrap().clear();
    circle.resume = false;
    assert_eq!(circle.rebuild().unwrap(), rebuilt);
    assert_eq!(circle.reused(), [0, 0, 0, 0]);
}

#[test]
fn a_rebuilt_seed_is_kept_like_a_source_and_its_packages_are_built() {
    let Some(mut circle) = circle("$old") else {
        return;
    };
    let made = circle.rebuild_and_pin();
    let pins = circle.store.pins(Some(store::PinClass::Seed)).unwrap();
    assert_eq!(pins.iter().map(|p| p.sha256).collect::<Vec<_>>(), [made]);
    let provided = circle.store.provides_due(u64::MAX, 100).unwrap();
    assert!(
        provided
            .iter()
            .any(|p| p.key == base::Multihash::sha2_256(&made))
    );
    // The ordinary packages of the tree, with that seed pinned, are what the last stage built.
    let report = circle.act(|context, tree, request, _| {
        let graph = Graph::resolve(tree, &[name("count"), name("tools")], &System::host()).unwrap();
        realise(context, &graph, graph.roots(), request.options).unwrap()
    });
    assert_eq!(report.built, []);
}

#[test]
fn what_never_settles_is_given_up_with_what_differed() {
    let Some(mut circle) = circle("$((old + 1))") else {
        return;
    };
    let error = circle.rebuild().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotReproducible);
    let Error::NoFixedPoint {
        stages,
        differences,
    } = error
    else {
        panic!("{error}")
    };
    assert_eq!(stages, 1 + STAGES_MAX);
    assert_eq!(
        differences,
        ["`share/count`: other content, 2 bytes in both, from byte 0 on"]
    );
}

#[test]
fn a_seed_verifies_itself_and_another_one_is_told_apart() {
    let Some(mut circle) = circle("$old") else {
        return;
    };
    let made = circle.rebuild_and_pin();
    assert_eq!(circle.verify().unwrap().blob.sha256, made);
    // A changed recipe does not make the pinned seed any more.
    circle.package(
        "tools",
        &format!("{TOOLS}\nln -s busybox $DESTDIR/bin/backdoor"),
    );
    let error = circle.verify().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotReproducible);
    let Error::NotReproducible {
        pinned,
        differences,
        ..
    } = error
    else {
        panic!("{error}")
    };
    assert_eq!(pinned, made);
    assert_eq!(differences, ["`bin/backdoor`: only in the second"]);
}

#[test]
fn packages_that_disagree_or_need_more_than_the_seed_are_refused() {
    let Some(mut circle) = circle("$old") else {
        return;
    };
    circle.tree.get_mut(&name("tools")).unwrap().build_deps = Some("../count\n../seed\n".into());
    assert!(matches!(circle.rebuild(), Err(Error::NotFromSeed { .. })));
    circle.package(
        "tools",
        &format!("{TOOLS}\nmkdir $DESTDIR/share; echo x >$DESTDIR/share/count"),
    );
    circle.tree.get_mut(&name("tools")).unwrap().fetch = Some(
        format!(
            "url: https://example.org/source.txt\nsha256: {}\n",
            Sha256::of(b"source")
        )
        .into(),
    );
    let error = circle.rebuild().unwrap_err();
    assert!(matches!(error, Error::Archive { stage: 1, .. }), "{error}");
}

#[test]
fn a_seed_that_is_not_here_cannot_be_verified() {
    let Some(mut circle) = circle("$old") else {
        return;
    };
    let error = circle.verify().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Missing);
}

fn name(text: &str) -> PackageName {
    text.parse().unwrap()
}

struct Files(HashMap<(PackageName, String), Vec<u8>>);

impl RecipeFiles for Files {
    fn read(&self, package: &PackageName, path: &str) -> std::io::Result<Vec<u8>> {
        let key = (package.clone(), path.to_owned());
        self.0
            .get(&key)
            .cloned()
            .ok_or_else(|| std::io::ErrorKind::NotFound.into())
    }
}

#[derive(Default)]
struct Shelf(HashMap<Sha256, Vec<u8>>);

impl Shelf {
    fn add(&mut self, bytes: &[u8]) -> Sha256 {
        let sha256 = Sha256::of(bytes);
        self.0.insert(sha256, bytes.to_vec());
        sha256
    }
}

impl SourceFetcher for Shelf {
    fn fetch(
        &self,
        request: &SourceRequest<'_>,
        store: &Store,
        _progress: &dyn Progress,
    ) -> Result<Fetched, FetchError> {
        let asked = Asked::default();
        let bytes = self
            .0
            .get(&request.sha256)
            .ok_or(FetchError::Missing { asked })?;
        let mut ingest = store.ingest()?;
        ingest.write_all(bytes).unwrap();
        let blob = ingest.finish(&Expected::sha256(request.sha256))?;
        Ok(Fetched {
            received: vec![(Origin::File("shelf".into()), blob.size)],
            blob,
            asked,
        })
    }
}

struct Nobody;

impl Substituter for Nobody {
    fn query(&self, _pkghash: &PkgHash, _: &dyn Progress) -> Result<Query, QueryError> {
        Ok(Query::default())
    }

    fn fetch(
        &self,
        _realisation: &Realisation,
        _store: &Store,
        _progress: &dyn Progress,
    ) -> Result<Fetched, FetchError> {
        Err(FetchError::Missing {
            asked: Asked::default(),
        })
    }
}

#[test]
fn the_built_in_stage_0_is_a_shell_script() {
    assert!(bootstrap::TINY_STAGE_0.starts_with(b"#!/bin/sh\n"));
    assert!(
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tiny/stage0.sh")
            .exists()
    );
}
