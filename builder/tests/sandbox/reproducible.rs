//! `check`: building again and comparing.

use builder::testing::{World, full};
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
