//! What a build may leave in its `$DESTDIR`.

use builder::testing::{World, full};
use builder::{Error, ErrorKind, OutputError};
use store::archive::EntryKind;

fn refusal(script: &str) -> Option<OutputError> {
    let mut world = World::new()?;
    world.package("p", script);
    let failure = world.realise(&["p"]).unwrap_err();
    assert_eq!(
        failure.error.kind(),
        ErrorKind::BuildFailed,
        "{}",
        full(&failure)
    );
    assert!(world.left_in_scratch().is_empty());
    let (graph, ids) = world.graph(&["p"]);
    assert_eq!(
        world.store.realisations(&graph.pkghash(ids[0])).unwrap(),
        []
    );
    match failure.error {
        Error::Output { source, .. } => Some(source),
        other => panic!("{other}"),
    }
}

#[test]
fn links_out_of_the_package_are_refused() {
    let Some(error) = refusal("mkdir $DESTDIR/etc; ln -s /etc/passwd $DESTDIR/etc/passwd") else {
        return;
    };
    assert!(matches!(error, OutputError::AbsoluteLink { .. }), "{error}");
    let error = refusal("mkdir $DESTDIR/etc; ln -s ../../etc/passwd $DESTDIR/etc/passwd").unwrap();
    assert!(matches!(error, OutputError::EscapingLink { .. }), "{error}");
}

#[test]
fn pipes_are_refused() {
    let Some(error) = refusal("mkdir $DESTDIR/bin; mkfifo $DESTDIR/bin/pipe") else {
        return;
    };
    assert!(matches!(error, OutputError::Special { .. }), "{error}");
}

#[test]
fn a_setuid_file_is_refused_when_it_is_made_or_else_in_the_output() {
    let Some(mut world) = World::new() else {
        return;
    };
    world.package(
        "p",
        "mkdir $DESTDIR/bin; cp /bin/busybox $DESTDIR/bin/su; chmod 4755 $DESTDIR/bin/su",
    );
    let failure = world.realise(&["p"]).unwrap_err();
    let text = full(&failure);
    match failure.error {
        Error::Output { source, .. } => assert_eq!(source, OutputError::Setuid("bin/su".into())),
        Error::BuildFailed(_) => assert!(text.contains("not permitted"), "{text}"),
        other => panic!("{other}"),
    }
}

#[test]
fn files_outside_the_known_directories_are_refused() {
    let Some(error) = refusal("mkdir $DESTDIR/home; echo x >$DESTDIR/home/x") else {
        return;
    };
    assert_eq!(error, OutputError::TopLevel("home".into()));
}

#[test]
fn replacing_the_destination_by_a_link_leads_nowhere() {
    let Some(mut world) = World::new() else {
        return;
    };
    // It is a mount point: it can be neither removed nor renamed from inside.
    world.package("p", "rmdir /destdir 2>/dev/null && ln -s /etc /destdir; mkdir -p $DESTDIR/share; echo x >$DESTDIR/share/x");
    assert_eq!(world.built_text("p", "share/x"), "x\n");
}

#[test]
fn modes_owners_and_times_of_a_build_do_not_reach_the_output() {
    let Some(mut world) = World::new() else {
        return;
    };
    world.package("a", "mkdir $DESTDIR/bin; echo x >$DESTDIR/bin/x; chmod 0700 $DESTDIR/bin $DESTDIR/bin/x; touch -d 2001-01-01 $DESTDIR/bin/x");
    world.package("b", "umask 077; mkdir $DESTDIR/bin; echo x >$DESTDIR/bin/x; chmod 0111 $DESTDIR/bin/x; chmod 0500 $DESTDIR/bin");
    let report = world
        .realise(&["a", "b"])
        .unwrap_or_else(|f| panic!("{}", full(&f)));
    let blob = |package| &report.realised[&builder::testing::name(package)].blob;
    assert_eq!(blob("a"), blob("b"));
}

#[test]
fn a_leaked_build_path_is_a_warning() {
    let Some(mut world) = World::new() else {
        return;
    };
    world.package(
        "p",
        "mkdir $DESTDIR/share; cat /proc/self/mountinfo >$DESTDIR/share/leak",
    );
    world.realise(&["p"]).unwrap();
    assert!(
        world
            .observer
            .saw("p warning `share/leak` contains the path it was built in")
    );
}

#[test]
fn odd_files_are_packed_as_what_they_are() {
    let Some(mut world) = World::new() else {
        return;
    };
    world.package(
        "p",
        "mkdir -p $DESTDIR/share/many $DESTDIR/lib; cd $DESTDIR/share
         touch \"$(printf 'new\\nline')\" \"$(printf '\\377\\376')\"
         ln -s loop2 loop1; ln -s loop1 loop2
         echo linked >first; ln first ../lib/second
         dd if=/dev/zero of=sparse bs=1 count=0 seek=16M 2>/dev/null
         mkdir -p locked/in; echo x >locked/in/x; chmod 000 locked/in locked
         seq 1 3000 | (cd many; xargs touch)",
    );
    let report = world
        .realise(&["p"])
        .unwrap_or_else(|f| panic!("{}", full(&f)));
    let blob = &report.realised[&builder::testing::name("p")].blob;
    let archive = world.store.open_blob(&blob.sha256).unwrap().unwrap();
    let entries = store::archive::list(archive, &Default::default()).unwrap();
    let find = |path: &[u8]| entries.iter().find(|e| e.path == path).unwrap();
    find(b"share/new\nline");
    find(b"share/\xff\xfe");
    assert_eq!(find(b"share/locked/in/x").mode, 0o644);
    assert_eq!(
        find(b"share/loop1").kind,
        EntryKind::Symlink(b"loop2".to_vec())
    );
    // Copies: which names share a file is an accident of the build.
    assert_eq!(find(b"share/first").sha256, find(b"lib/second").sha256);
    assert_eq!(find(b"lib/second").kind, EntryKind::File);
    assert_eq!(find(b"share/sparse").size, 16 << 20);
    assert!(entries.len() > 3000);
    assert!(world.left_in_scratch().is_empty());
}

#[test]
fn a_hundred_thousand_files_are_packed_and_removed() {
    let Some(mut world) = World::new() else {
        return;
    };
    world.package(
        "p",
        "mkdir -p $DESTDIR/share; cd $DESTDIR/share
         for n in $(seq 1 100); do (mkdir $n; cd $n; seq 1 1000 | xargs touch); done",
    );
    let report = world
        .realise(&["p"])
        .unwrap_or_else(|f| panic!("{}", full(&f)));
    let blob = &report.realised[&builder::testing::name("p")].blob;
    let archive = world.store.open_blob(&blob.sha256).unwrap().unwrap();
    let entries = store::archive::list(archive, &Default::default()).unwrap();
    assert_eq!(entries.len(), 100_000 + 100 + 1);
    assert!(world.left_in_scratch().is_empty());
}

#[test]
fn a_tree_too_deep_to_be_unpacked_is_refused_and_removed() {
    let Some(mut world) = World::new() else {
        return;
    };
    world.package(
        "p",
        "mkdir $DESTDIR/share; cd $DESTDIR/share; for n in $(seq 1 200); do mkdir d; cd d; done",
    );
    let failure = world.realise(&["p"]).unwrap_err();
    let text = full(&failure);
    assert!(
        text.contains("cannot pack") && text.contains("d/d/d"),
        "{text}"
    );
    assert!(world.left_in_scratch().is_empty());
}
