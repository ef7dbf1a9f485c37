//! Roots that are stacked from layers, and roots that are unpacked: no build can tell them apart, and none can reach what
//! others use.

use std::fs;

use builder::testing::{World, full, name};
use builder::{Error, Event, Layers, Observer, Phase};

/// The same world twice: with stacked roots, where this machine can stack, and with unpacked ones.
fn both() -> Vec<World> {
    let Some(world) = World::new() else {
        return Vec::new();
    };
    let unstacked = World::new().unwrap().unstacked();
    if world.stacks() {
        vec![world, unstacked]
    } else {
        vec![unstacked]
    }
}

#[test]
fn a_build_cannot_tell_a_stacked_root_from_an_unpacked_one() {
    let look = "find / -path /proc -prune -o -path /dev -prune -o -print | sort >/tmp/all
        while read -r path; do
          if [ -L \"$path\" ]; then echo \"link $path $(readlink \"$path\")\"
          elif [ -d \"$path\" ]; then stat -c 'dir %n %a %u:%g' \"$path\"
          else stat -c 'file %n %a %u:%g %s %Y %h' \"$path\"; fi
        done </tmp/all | grep -v ' /tmp/all' >$DESTDIR/share/root
        for dir in /*; do case $dir in /proc | /dev | /tmp | /destdir | /build) ;; *)
          stat -c '%n %Y' $dir >>$DESTDIR/share/root ;; esac; done";
    let mut seen = Vec::new();
    for mut world in both() {
        world.package(
            "a",
            "mkdir -p $DESTDIR/lib/sub $DESTDIR/bin; echo a >$DESTDIR/lib/both; echo a >$DESTDIR/lib/sub/a
             ln -s sub $DESTDIR/lib/link; echo a >$DESTDIR/lib/turns",
        );
        world.package(
            "b",
            "mkdir -p $DESTDIR/lib/sub $DESTDIR/lib/turns $DESTDIR/etc; echo bb >$DESTDIR/lib/both; echo b >$DESTDIR/lib/sub/b
             echo evil >$DESTDIR/etc/passwd; chmod +x $DESTDIR/lib/both; echo b >$DESTDIR/lib/turns/b",
        );
        let script = format!("mkdir -p $DESTDIR/share; {look}");
        world.package_from("p", &script, "../a\n../b\n../seed\n", "");
        seen.push(world.built_text("p", "share/root"));
    }
    for root in &seen {
        assert!(root.contains("link /lib/link sub"), "{root}");
        assert!(
            root.contains("file /lib/both 755 1000:1000 3 1609459200 1\n"),
            "{root}"
        );
        assert!(root.contains("file /lib/turns/b 644"), "{root}");
        assert_eq!(root, &seen[0]);
    }
}

#[test]
fn what_a_build_does_to_its_root_reaches_no_other_build() {
    for mut world in both() {
        world.package("tool", "mkdir -p $DESTDIR/share/d/e; echo clean >$DESTDIR/share/d/file; echo x >$DESTDIR/share/d/e/x");
        world.package_from(
            "vandal",
            "echo dirty >>/share/d/file; echo new >/share/d/new; rm -r /share/d/e; mv /share/d/file /share/moved
             chmod 700 /share/d; ln /share/moved /share/linked; touch /bin/trap; rm /bin/vi; mkdir -p /share/d/deep/er
             mv /share /share2 2>/dev/null || true; cat /share/linked; mkdir $DESTDIR/bin; cp /share/moved $DESTDIR/bin/x",
            "../seed\n../tool\n",
            "",
        );
        world.package_from(
            "heir",
            "mkdir $DESTDIR/share; { cat /share/d/file; ls -A /share /share/d; [ -e /bin/trap ] || [ ! -e /bin/vi ] || echo whole
             stat -c %a /share/d; } >$DESTDIR/share/seen",
            "../seed\n../tool\n",
            "",
        );
        assert_eq!(world.built_text("vandal", "bin/x"), "clean\ndirty\n");
        let expected = "clean\n/share:\nd\n\n/share/d:\ne\nfile\nwhole\n755\n";
        assert_eq!(world.built_text("heir", "share/seen"), expected);
        assert!(world.left_in_scratch().is_empty());
    }
}

#[test]
fn a_file_never_replaces_a_directory() {
    for mut world in both() {
        world.package(
            "a",
            "mkdir -p $DESTDIR/lib/thing; echo a >$DESTDIR/lib/thing/a",
        );
        world.package("b", "mkdir -p $DESTDIR/lib; echo b >$DESTDIR/lib/thing");
        world.package_from("p", "true", "../a\n../b\n../seed\n", "");
        let failure = world.realise(&["p"]).unwrap_err();
        assert!(matches!(failure.error, Error::Archive { .. }), "{failure}");
        let text = full(&failure);
        assert!(
            text.contains("`lib/thing` is in `a` and, differently, in `b`"),
            "{text}"
        );
    }
}

#[test]
fn a_layer_that_was_removed_is_unpacked_again() {
    let Some(mut world) = World::new() else {
        return;
    };
    if !world.stacks() {
        return;
    }
    for package in ["p", "q"] {
        world.package(
            package,
            "mkdir $DESTDIR/share; echo made >$DESTDIR/share/made",
        );
        assert_eq!(world.built_text(package, "share/made"), "made\n");
        let layers = Layers::below(&world.scratch()).unwrap();
        let all = layers.list();
        assert_eq!(all.len(), 1, "the seed's");
        assert!(layers.remove(&all[0].sha256));
    }
}

#[test]
fn a_layer_stays_while_a_build_uses_it() {
    /// Tries to remove every layer when a build runs.
    struct Collector(std::path::PathBuf, std::sync::Mutex<Vec<bool>>);
    impl Observer for Collector {
        fn event(&self, event: &Event<'_>) {
            let layers = Layers::below(&self.0).unwrap();
            if matches!(
                event,
                Event::Building {
                    phase: Phase::Running,
                    ..
                }
            ) {
                let removed = layers.list().into_iter().map(|l| layers.remove(&l.sha256));
                self.1.lock().unwrap().extend(removed);
            }
        }
        fn cancelled(&self) -> bool {
            false
        }
    }
    let Some(mut world) = World::new() else {
        return;
    };
    if !world.stacks() {
        return;
    }
    world.package("p", "mkdir $DESTDIR/share; echo made >$DESTDIR/share/made");
    let collector = Collector(world.scratch(), std::sync::Mutex::default());
    let (graph, ids) = world.graph(&["p"]);
    world.with_context(|context, options| {
        let context = builder::Context {
            observer: &collector,
            ..*context
        };
        let report = builder::realise(&context, &graph, &ids, options);
        assert_eq!(
            report.unwrap_or_else(|f| panic!("{}", full(&f))).built,
            [name("p")]
        );
    });
    assert_eq!(*collector.1.lock().unwrap(), [false]);
}

#[test]
fn a_kept_scratch_directory_holds_what_the_build_changed() {
    let Some(mut world) = World::new() else {
        return;
    };
    if !world.stacks() {
        return;
    }
    world.options.keep_failed = true;
    world.package(
        "p",
        "echo changed >/bin/changed; rm /bin/vi; mkdir -m 0 /bin/locked; exit 1",
    );
    let failure = world.realise(&["p"]).unwrap_err();
    let Error::BuildFailed(failure) = failure.error else {
        panic!("{failure}")
    };
    let kept = failure.kept.unwrap();
    assert_eq!(
        fs::read_to_string(kept.join("upper/bin/changed")).unwrap(),
        "changed\n"
    );
}

#[test]
fn the_second_build_of_a_closure_unpacks_nothing() {
    let Some(mut world) = World::new() else {
        return;
    };
    if !world.stacks() {
        return;
    }
    world.package("p", "mkdir $DESTDIR/share; echo made >$DESTDIR/share/made");
    world.package("q", "mkdir $DESTDIR/share; echo also >$DESTDIR/share/made");
    world.built_text("p", "share/made");
    let layers = Layers::below(&world.scratch()).unwrap();
    let before: Vec<_> = layers.list().into_iter().map(|l| l.sha256).collect();
    world.built_text("q", "share/made");
    let after: Vec<_> = layers.list().into_iter().map(|l| l.sha256).collect();
    assert_eq!(before, after);
}
