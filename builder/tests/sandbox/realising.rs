//! Building whole graphs: order, parallelism, failures, what is recorded.

use std::sync::atomic::Ordering;

use builder::testing::{World, full, name};
use builder::{Error, ErrorKind, How, JobServer, forecast};
use recipe::Policy;
use store::PinClass;

#[test]
fn a_package_is_built_from_what_it_needs_and_found_again_without_work() {
    let Some(mut world) = World::new() else {
        return;
    };
    world.package_from("tool", "mkdir $DESTDIR/bin; printf '#!/bin/sh\\ncat /share/data\\n' >$DESTDIR/bin/tool; chmod +x $DESTDIR/bin/tool", "../seed\n", "../data\n");
    world.package(
        "data",
        "mkdir $DESTDIR/share; echo data >$DESTDIR/share/data",
    );
    world.package_from(
        "p",
        "mkdir $DESTDIR/share; tool >$DESTDIR/share/out",
        "../seed\n../tool\n",
        "",
    );
    assert_eq!(world.built_text("p", "share/out"), "data\n");
    let lines = world.observer.lines.lock().unwrap().clone();
    let at = |line: &str| lines.iter().position(|l| l == line).unwrap();
    assert!(at("tool built") < at("p Running") && at("data built") < at("p Running"));

    let report = world.realise(&["p"]).unwrap();
    assert_eq!(report.built, []);
    assert_eq!(report.realised[&name("p")].how, How::Present);
    // What was only needed to build is not even looked at.
    assert_eq!(report.realised.len(), 1);
}

#[test]
fn what_was_built_is_signed_noted_and_announced() {
    let Some(mut world) = World::new() else {
        return;
    };
    world.package("p", "mkdir $DESTDIR/share; cp source $DESTDIR/share/");
    world.add_source("p", "source", b"source");
    let report = world.realise(&["p"]).unwrap();
    let (graph, ids) = world.graph(&["p"]);
    let pkghash = graph.pkghash(ids[0]);
    let signed = world.store.realisations(&pkghash).unwrap();
    assert_eq!(signed.len(), 1);
    assert_eq!(signed[0].signer(), &world.key.public());
    assert_eq!(
        signed[0].realisation().sha256,
        report.realised[&name("p")].blob.sha256
    );
    let derivation = world.store.derivation(&pkghash).unwrap().unwrap();
    assert_eq!(base::PkgHash::of_derivation(&derivation), pkghash);
    let notes = |class| world.store.notes(Some(class)).unwrap().len();
    assert_eq!(
        (notes(PinClass::Output), notes(PinClass::Source)),
        (1, 1),
        "outputs and sources are a cache"
    );
    let pins = world.store.pins(None).unwrap();
    assert_eq!(pins.len(), 1, "and the seed is kept");
    assert_eq!(pins[0].kind.class(), PinClass::Seed);
    let provides = world
        .store
        .provides_due(store::ProvideScope::All, u64::MAX, 100)
        .unwrap();
    let has = |key: base::Multihash| provides.iter().any(|p| p.key == key);
    assert!(has(pkghash.dht_key()));
    assert!(has(base::Multihash::sha2_256(&base::Sha256::of(b"source"))));
    assert_eq!(report.fetched.len(), 2);
}

#[test]
fn independent_packages_are_built_at_once_within_the_bound() {
    let Some(mut world) = World::new() else {
        return;
    };
    world.observer.meet = 2;
    let names = ["a", "b", "c", "d"];
    for package in names {
        world.package(package, "mkdir $DESTDIR/share");
    }
    assert_eq!(world.realise(&names).unwrap().built.len(), 4);
}

#[test]
fn a_failure_stops_or_is_worked_around_as_asked() {
    let Some(mut world) = World::new() else {
        return;
    };
    world.jobs = JobServer::new(1).unwrap();
    world.package("bad", "exit 1");
    world.package_from("needs-bad", "true", "../bad\n../seed\n", "");
    world.package("good", "mkdir $DESTDIR/share");
    world.options.keep_going = true;
    let failure = world.realise(&["needs-bad", "good"]).unwrap_err();
    assert_eq!(failure.error.kind(), ErrorKind::BuildFailed);
    assert_eq!(failure.report.built, [name("good")]);
    assert_eq!(failure.report.skipped, [(name("needs-bad"), name("bad"))]);
}

#[test]
fn every_failure_is_told_when_it_was_worked_around() {
    let Some(mut world) = World::new() else {
        return;
    };
    world.options.keep_going = true;
    world.package("bad", "exit 1");
    world.package("worse", "exit 2");
    world.package_from("needs-worse", "true", "../worse\n../seed\n", "");
    world.package("empty", "touch $DESTDIR/stray");
    world.package("good", "mkdir $DESTDIR/share");
    let failure = world
        .realise(&["bad", "needs-worse", "empty", "good"])
        .unwrap_err();
    let all = std::iter::once(&failure.error).chain(&failure.others);
    let mut told: Vec<_> = all.map(ToString::to_string).collect();
    told.sort();
    assert_eq!(told.len(), 3, "{told:?}");
    assert!(
        told[0].contains("`bad` failed") && told[1].contains("`worse` failed"),
        "{told:?}"
    );
    assert!(told[2].contains("`empty`"), "{told:?}");
    assert_eq!(failure.report.built, [name("good")]);
    let skipped = [(name("needs-worse"), name("worse"))];
    assert_eq!(failure.report.skipped, skipped);
    assert!(world.left_in_scratch().is_empty());
}

#[test]
fn a_source_nobody_has_is_named_and_nothing_is_built() {
    let Some(mut world) = World::new() else {
        return;
    };
    world.package("p", "true").fetch = Some(
        format!(
            "url: https://example.org/gone.tar\nsha256: {}\n",
            "0".repeat(64)
        )
        .into(),
    );
    let failure = world.realise(&["p"]).unwrap_err();
    assert_eq!(failure.error.kind(), ErrorKind::Missing);
    let text = full(&failure);
    assert!(
        text.contains("source `gone.tar` of `p`") && text.contains("asked 1 cache"),
        "{text}"
    );
    assert!(!world.observer.saw("p Running"));
}

#[test]
fn a_source_that_two_packages_need_is_fetched_once() {
    let Some(mut world) = World::new() else {
        return;
    };
    for package in ["a", "b"] {
        world.package(package, "true");
        world.add_source(package, "same.tar", b"same");
    }
    world.realise(&["a", "b"]).unwrap();
    // The seed and the source.
    assert_eq!(world.shelf.fetched.load(Ordering::Relaxed), 2);
}

#[test]
fn a_dry_run_says_what_would_be_done_and_does_nothing() {
    let Some(mut world) = World::new() else {
        return;
    };
    world.package("lib", "mkdir $DESTDIR/lib");
    world.package_from("p", "true", "../lib\n../seed\n", "");
    world.add_source("p", "source", b"source");
    let (graph, ids) = world.graph(&["p"]);
    let forecast = world
        .with_context(|context, options| forecast(context, &graph, &ids, options))
        .unwrap();
    assert_eq!(forecast.build, [name("lib"), name("p")]);
    assert_eq!(forecast.sources.len(), 2);
    assert_eq!(world.shelf.fetched.load(Ordering::Relaxed), 0);
    assert!(!world.scratch().exists());
}

#[test]
fn a_machine_that_cannot_sandbox_says_so_before_it_fetches_anything() {
    let Some(mut world) = World::new() else {
        return;
    };
    world.sandbox = builder::LazySandbox::new("/nonexistent");
    world.options.policy = Policy::BuildOnly;
    world.package("p", "true");
    world.add_source("p", "source", b"source");
    let failure = world.realise(&["p"]).unwrap_err();
    assert_eq!(failure.error.kind(), ErrorKind::SandboxUnavailable);
    let Error::SandboxUnavailable(unavailable) = &failure.error else {
        panic!("{failure}")
    };
    assert!(!unavailable.fix.is_empty());
    // Only the seed, which is wanted either way.
    assert_eq!(world.shelf.fetched.load(Ordering::Relaxed), 1);
}
