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

use std::path::Path;
use std::sync::Mutex;

use base::Sha256;
use bootstrap::{Error, Event, Request, STAGES_MAX, Seed, rebuild, verify};
use builder::testing::{World, name};
use builder::{Context, ErrorKind, realise};
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

/// Gives on the tools it was built with.
const TOOLS: &str = "mkdir $DESTDIR/bin\ncp -a /bin/. $DESTDIR/bin/";

struct Circle {
    world: World,
    seed: Seed,
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
            sha256: Sha256::of(b"not pinned yet"),
            size: 0,
            from: vec![name("count"), name("tools")],
        },
        resume: true,
        events: Mutex::default(),
    };
    circle.pin(circle.seed.sha256);
    Some(circle)
}

impl Circle {
    /// Writes a digest where the tree and the list of seeds say which the seed is.
    fn pin(&mut self, sha256: Sha256) {
        self.seed.sha256 = sha256;
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
                compiler: "sh",
                stage_0: STAGE_0.as_bytes(),
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
    let Some(circle) = circle("$old") else {
        return;
    };
    let error = circle.verify().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Missing);
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
