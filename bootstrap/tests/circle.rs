//! Going round the circle for real, with a toy: its "compiler" is BusyBox, its packages copy themselves and count.
//!
//! Skipped, loudly, without a sandbox or a static BusyBox; with `P2PKGS_REQUIRE_SANDBOX=1` that is a failure.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

// The name by which the other crates know it.
extern crate p2pkgs_bootstrap as bootstrap;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::sync::Mutex;

use base::Sha256;
use bootstrap::{Error, Event, Request, STAGES_MAX, Seed, rebuild, verify};
use builder::testing::{World, name, static_busybox};
use builder::{Context, ErrorKind, Host, realise};
use recipe::{Graph, MemoryTree, PackageFiles, System};

/// Takes the host's BusyBox for a seed, after looking at what it was promised to find.
const STAGE_0: &str = r#"#!/bin/sh
set -eu
test -x "$CC" && test "$CC" != sh
test "$(cat /src/count/start)" = 0 && test -x /src/count/build && test -f /src/tools/source.txt
test -z "$(ls -A)" && test -z "$(ls -A "$DESTDIR")" && test ! -e /root
if (: >/src/x) 2>/dev/null || (: >/usr/x) 2>/dev/null; then exit 1; fi
mkdir -p "$DESTDIR/bin" "$DESTDIR/share"
cp "$(command -v busybox.static || command -v busybox)" "$DESTDIR/bin/busybox"
for applet in sh cat cp mkdir ls test expr; do ln -s busybox "$DESTDIR/bin/$applet"; done
cp /src/count/start "$DESTDIR/share/count"
"#;

/// The same, one package at a time: the tools, the count for which it needs them, and the tools once more.
const STEPS_0: &str = r#"#!/bin/sh
set -eu
test -x "$CC" && test -x "/src/$(ls /src)/build" && test -z "$(ls -A)" && test -z "$(ls -A "$DESTDIR")"
if (: >/stage/x) 2>/dev/null; then exit 1; fi
case $(ls /src) in
tools)
	test -e /src/tools/source.txt
	test ! -e /stage/bin || test -e /stage/share/count
	mkdir "$DESTDIR/bin"
	cp "$(command -v busybox.static || command -v busybox)" "$DESTDIR/bin/busybox"
	for applet in sh cat cp mkdir ls test expr; do ln -s busybox "$DESTDIR/bin/$applet"; done
	;;
count)
	mkdir "$DESTDIR/share"
	/stage/bin/busybox cat /src/count/start >"$DESTDIR/share/count"
	;;
esac
"#;

/// Gives on the tools it was built with.
const TOOLS: &str = "mkdir $DESTDIR/bin\ncp -a /bin/. $DESTDIR/bin/";

struct Circle {
    world: World,
    seed: Seed,
    stage_0: String,
    root: PathBuf,
    compiler: &'static str,
    resume: bool,
    events: Mutex<Vec<Event>>,
}

/// A circle in which `count` writes `next`, a shell expression over `$old`, in every stage. `None` without a sandbox.
fn circle(next: &str) -> Option<Circle> {
    let mut world = World::new()?;
    let count = format!(
        "read old </share/count\nmkdir $DESTDIR/share\nnext={next}\necho $next >$DESTDIR/share/count"
    );
    world.package("count", &count);
    world.add_file("count", "start", false, b"0\n");
    world.package("tools", TOOLS);
    world.add_source("tools", "source.txt", b"source");
    let mut circle = Circle {
        world,
        seed: Seed {
            name: name("toy"),
            sha256: None,
            size: None,
            from: vec![name("count"), name("tools")],
            steps: Vec::new(),
            times: Vec::new(),
        },
        stage_0: STAGE_0.to_owned(),
        root: "/".into(),
        compiler: "sh",
        resume: true,
        events: Mutex::default(),
    };
    circle.put_seed(Sha256::of(b"not pinned yet"));
    Some(circle)
}

impl Circle {
    /// Writes a digest where the tree and the list of seeds say which the seed is.
    fn pin(&mut self, sha256: Sha256) {
        self.seed.sha256 = Some(sha256);
        self.put_seed(sha256);
    }

    fn put_seed(&mut self, sha256: Sha256) {
        let fetch = format!("url: bootstrap:toy\nfile: seed.tar.zst\nsha256: {sha256}\n");
        let files = PackageFiles {
            fetch: Some(fetch.into()),
            ..PackageFiles::default()
        };
        self.world.tree.insert(name("seed"), files);
    }

    fn act<T>(
        &self,
        act: impl FnOnce(&Context<'_>, &mut MemoryTree, &Request<'_>, &dyn Fn(Event)) -> T,
    ) -> T {
        let events = |event| self.events.lock().unwrap().push(event);
        self.world.with_context(|context, options| {
            let request = Request {
                seed: &self.seed,
                host: Host {
                    root: &self.root,
                    compiler: self.compiler,
                },
                stage_0: self.stage_0.as_bytes(),
                options,
                resume: self.resume,
            };
            act(context, &mut self.world.tree.clone(), &request, &events)
        })
    }

    fn rebuild(&self) -> Result<bootstrap::Rebuilt, Error> {
        let system = System::host();
        self.act(|context, tree, request, events| rebuild(context, tree, &system, request, events))
    }

    fn verify(&self) -> Result<bootstrap::Verified, Error> {
        let system = System::host();
        self.act(|context, tree, request, events| verify(context, tree, &system, request, events))
    }

    /// Rebuilds, pins what came out, and returns it.
    fn rebuild_and_pin(&mut self) -> Sha256 {
        let made = self.rebuild().unwrap().blob.sha256;
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
fn stage_0_may_be_made_a_package_at_a_time_and_goes_on_where_it_was_cut() {
    let Some(mut circle) = circle("$old") else {
        return;
    };
    circle.stage_0 = STEPS_0.to_owned();
    circle.seed.steps = ["tools", "count", "tools"].map(name).to_vec();
    let rebuilt = circle.rebuild().unwrap();
    assert_eq!(rebuilt.stages.len(), 2, "it is the seed at once");
    assert_eq!(circle.rebuild().unwrap(), rebuilt);
    // Another compiler, or another script, starts anew.
    circle.compiler = "cat";
    assert_eq!(circle.rebuild().unwrap(), rebuilt);
    assert_eq!(circle.reused(), [0, 0, 3, 2, 0, 2]);
}

#[test]
fn another_root_makes_the_same_seed_and_nothing_of_this_one_is_seen() {
    let Some(mut circle) = circle("$old") else {
        return;
    };
    let made = circle.rebuild_and_pin();
    let root = tempfile::tempdir().unwrap();
    let bin = root.path().join("bin");
    fs::create_dir_all(&bin).unwrap();
    fs::create_dir(root.path().join("marker")).unwrap();
    fs::copy(static_busybox().unwrap(), bin.join("busybox.static")).unwrap();
    for applet in ["sh", "cat", "cp", "ls", "mkdir", "ln", "test"] {
        symlink("busybox.static", bin.join(applet)).unwrap();
    }
    circle.root = root.path().to_owned();
    let looks = "test -d /marker && test ! -e /usr && test \"$CC\" = /bin/sh\nmkdir -p";
    circle.stage_0 = STAGE_0
        .replace("|| (: >/usr/x) 2>/dev/null", "")
        .replacen("mkdir -p", looks, 1);
    assert_eq!(circle.rebuild().unwrap().blob.sha256, made);
    circle.compiler = "cc";
    let error = circle.rebuild().unwrap_err();
    assert!(
        matches!(error, Error::Build(builder::Error::NoCompiler { .. })),
        "{error}"
    );
}

#[test]
fn what_is_not_what_is_pinned_is_told_apart_and_kept() {
    let Some(mut circle) = circle("$old") else {
        return;
    };
    let made = circle.rebuild().unwrap().blob.sha256;
    circle.pin(Sha256::of(b"another"));
    let error = circle.rebuild().unwrap_err();
    assert!(
        matches!(error, Error::NotReproducible { made: m, .. } if m == made),
        "{error}"
    );
    assert!(circle.world.store.blob(&made).unwrap().is_some());
}

#[test]
fn a_rebuilt_seed_is_kept_like_a_source_and_its_packages_are_built() {
    let Some(mut circle) = circle("$old") else {
        return;
    };
    let made = circle.rebuild_and_pin();
    let pins = circle
        .world
        .store
        .pins(Some(store::PinClass::Seed))
        .unwrap();
    assert_eq!(pins.iter().map(|p| p.sha256).collect::<Vec<_>>(), [made]);
    let provided = circle
        .world
        .store
        .provides_due(store::ProvideScope::All, u64::MAX, 100)
        .unwrap();
    assert!(
        provided
            .iter()
            .any(|p| p.key == base::Multihash::sha2_256(&made))
    );
    let mut tree = circle.world.tree.clone();
    let graph = Graph::resolve(&mut tree, &[name("seed")], &System::host()).unwrap();
    let signed = circle
        .world
        .store
        .realisations(&graph.pkghash(graph.roots()[0]))
        .unwrap();
    let said: Vec<_> = signed
        .iter()
        .map(|s| (*s.signer(), s.realisation().sha256))
        .collect();
    assert_eq!(said, [(circle.world.key.public(), made)]);
    // The ordinary packages of the tree, with that seed pinned, are what the last stage built.
    let report = circle.act(|context, tree, request, _| {
        let graph = Graph::resolve(tree, &[name("count"), name("tools")], &System::host()).unwrap();
        realise(context, &graph, graph.roots(), request.options).unwrap()
    });
    assert_eq!(report.built, []);
}

#[test]
fn what_never_settles_is_given_up_with_what_differed() {
    let Some(circle) = circle("$((old + 1))") else {
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
    circle.world.package(
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
    circle
        .world
        .tree
        .get_mut(&name("tools"))
        .unwrap()
        .build_deps = Some("../count\n../seed\n".into());
    assert!(matches!(circle.rebuild(), Err(Error::NotFromSeed { .. })));
    circle.world.package(
        "tools",
        &format!("{TOOLS}\nmkdir $DESTDIR/share; echo x >$DESTDIR/share/count"),
    );
    circle.world.tree.get_mut(&name("tools")).unwrap().fetch = Some(
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
    assert!(matches!(error, Error::NotPinned { .. }), "{error}");
    assert_eq!(error.kind(), ErrorKind::Missing);
    circle.pin(Sha256::of(b"nowhere"));
    let error = circle.verify().unwrap_err();
    assert!(matches!(error, Error::MissingSeed { .. }), "{error}");
    assert_eq!(error.kind(), ErrorKind::Missing);
}
