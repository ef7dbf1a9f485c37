//! `check`: building again and comparing.

use builder::testing::{World, full, name};
use builder::{Error, ErrorKind};

#[test]
fn a_package_that_takes_in_the_time_is_found_out() {
    let Some(mut world) = World::new() else {
        return;
    };
    world.package(
        "p",
        "mkdir $DESTDIR/share; echo same >$DESTDIR/share/same; head -c 16 /dev/urandom | od >$DESTDIR/share/random",
    );
    let failure = world.check(&["p"]).unwrap_err();
    assert_eq!(failure.error.kind(), ErrorKind::NotReproducible);
    let Error::NotReproducible { differences, .. } = &failure.error else {
        panic!("{failure}")
    };
    assert_eq!(differences.len(), 1, "{differences:?}");
    assert!(
        differences[0].starts_with("`share/random`: other content"),
        "{differences:?}"
    );
    assert!(world.left_in_scratch().is_empty());
}

#[test]
fn differing_names_modes_sizes_and_links_are_told_apart() {
    let Some(mut world) = World::new() else {
        return;
    };
    world.package(
        "p",
        "mkdir $DESTDIR/bin; cd $DESTDIR/bin; r=$(head -c 8 /dev/urandom | od -An -tx1 | tr -d ' ')
         echo x >only-$r; ln -s $r link",
    );
    let failure = world.check(&["p"]).unwrap_err();
    let Error::NotReproducible { differences, .. } = &failure.error else {
        panic!("{failure}")
    };
    let text = differences.join("\n");
    assert_eq!(differences.len(), 3, "{text}");
    assert!(text.contains("`bin/link`: another target"), "{text}");
    assert!(
        text.contains("only in the first") && text.contains("only in the second"),
        "{text}"
    );
}

#[test]
fn a_reproducible_package_passes_whether_it_was_there_or_not() {
    let Some(mut world) = World::new() else {
        return;
    };
    world.package("lib", "mkdir $DESTDIR/lib; echo lib >$DESTDIR/lib/lib");
    world.package_from(
        "p",
        "mkdir $DESTDIR/share; cat /lib/lib >$DESTDIR/share/x",
        "../lib\n../seed\n",
        "",
    );
    for _ in 0..2 {
        let report = world
            .check(&["p"])
            .unwrap_or_else(|f| panic!("{}", full(&f)));
        assert_eq!(report.realised.len(), 3);
    }
}

#[test]
fn a_dependency_without_which_the_same_comes_out_is_named() {
    let Some(mut world) = World::new() else {
        return;
    };
    world.package("lib", "mkdir $DESTDIR/lib; echo lib >$DESTDIR/lib/lib");
    world.package("idle", "mkdir $DESTDIR/lib; echo idle >$DESTDIR/lib/idle");
    world.package("tuned", "mkdir $DESTDIR/lib; echo fast >$DESTDIR/lib/tuned");
    world.package_from(
        "user",
        "mkdir $DESTDIR/lib; echo >$DESTDIR/lib/user",
        "../seed\n",
        "../brought\n",
    );
    world.package("brought", "mkdir $DESTDIR/lib; echo >$DESTDIR/lib/brought");
    world.package_from(
        "p",
        "mkdir $DESTDIR/share; cat /lib/lib /lib/user >$DESTDIR/share/x
         if test -e /lib/tuned; then cat /lib/tuned >>$DESTDIR/share/x; fi",
        "../brought\n../idle\n../lib\n../seed\n../tuned\n../user\n",
        "",
    );
    assert_eq!(world.unused("p"), [name("idle")]);
    assert!(world.left_in_scratch().is_empty());
}
