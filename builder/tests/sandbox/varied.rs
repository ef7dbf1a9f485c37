//! `check` in other surroundings: what a build takes in of where it runs is found out.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use builder::testing::{World, full, name};
use builder::{Error, ErrorKind, LazySandbox};

/// A world with a package that puts something into its output, and the options to vary what is around it.
fn world(takes_in: &str) -> Option<World> {
    let mut world = World::new()?;
    world.options.vary = true;
    world.package(
        "p",
        &format!(
            "mkdir $DESTDIR/share; echo same >$DESTDIR/share/same; {takes_in} >$DESTDIR/share/taken"
        ),
    );
    Some(world)
}

/// What differs between two builds of a package that takes something in.
fn found_out(world: &mut World) -> Vec<String> {
    let failure = world.check(&["p"]).unwrap_err();
    assert_eq!(
        failure.error.kind(),
        ErrorKind::NotReproducible,
        "{}",
        full(&failure)
    );
    assert!(world.left_in_scratch().is_empty());
    match failure.error {
        Error::NotReproducible { differences, .. } => differences,
        other => panic!("{other}"),
    }
}

#[test]
fn a_package_that_takes_in_what_is_around_it_is_found_out() {
    let taken_in = [
        ("day", "date +%Y-%m-%d"),
        ("directory", "pwd"),
        ("group", "id -g"),
        ("home", "echo $HOME"),
        ("host", "hostname"),
        ("jobs", "echo $MAKEFLAGS"),
        ("second", "date -u +%s"),
        ("user", "id -u"),
        ("user's-name", "id -un"),
    ];
    let lines: Vec<_> = taken_in
        .iter()
        .map(|(what, script)| format!("{script} >\"$DESTDIR/share/{what}\""))
        .collect();
    let Some(mut world) = world(&format!("echo same; {}; echo same", lines.join("; "))) else {
        return;
    };
    let differences = found_out(&mut world);
    let expected = taken_in.map(|(what, _)| format!("`share/{what}`: "));
    assert_eq!(differences.len(), expected.len(), "{differences:?}");
    for (difference, expected) in differences.iter().zip(expected) {
        assert!(difference.starts_with(&expected), "{differences:?}");
    }
}

#[test]
fn a_package_that_takes_in_the_number_of_processors_is_found_out() {
    let Some(mut world) = world("nproc") else {
        return;
    };
    let several = std::thread::available_parallelism().is_ok_and(|n| n.get() > 1);
    if several {
        found_out(&mut world);
    } else {
        world
            .check(&["p"])
            .unwrap_or_else(|f| panic!("{}", full(&f)));
    }
    // This thread and those that come after have what they had.
    let still = std::thread::available_parallelism().is_ok_and(|n| n.get() > 1);
    assert_eq!(several, still);
}

#[test]
fn a_package_that_takes_in_the_order_of_files_is_found_out() {
    // Of its sources, and of what it unpacked or made itself.
    for listed in [".", "unpacked"] {
        let script = format!(
            "(mkdir unpacked; cd unpacked; for n in $(seq 1 40); do echo $n >made-$n; done; cd ..; find {listed} -type f)"
        );
        let Some(mut world) = world(&script) else {
            return;
        };
        for n in 0..20 {
            world.add_file("p", &format!("file-{n}"), false, b"x");
        }
        found_out(&mut world);
    }
}

#[test]
fn a_package_that_takes_in_nothing_passes() {
    let Some(mut world) = world(
        "(tool; cat source.txt sub/patch; stat -c '%a %Y %h %s' source.txt sub/patch tool; stat -c '%a %Y' . sub /home; umask; echo $PATH $TMPDIR $DESTDIR $LC_ALL; ls | grep -v tool; date -u -d @$SOURCE_DATE_EPOCH)",
    ) else {
        return;
    };
    let script = world
        .tree
        .get_mut(&name("p"))
        .unwrap()
        .build
        .as_mut()
        .unwrap();
    let text = String::from_utf8(script.bytes.clone()).unwrap();
    script.bytes = text.replace("(tool;", "(./tool;").into_bytes();
    world.add_source("p", "source.txt", b"source\n");
    world.add_file("p", "sub/patch", false, b"patch\n");
    world.add_file("p", "tool", true, b"#!/bin/sh\necho tool\n");
    let report = world
        .check(&["p"])
        .unwrap_or_else(|f| panic!("{}", full(&f)));
    assert!(report.rebuilt.contains_key(&name("p")));
    assert!(
        !world.observer.saw("listed in the order"),
        "the home lay in memory"
    );
    assert!(world.left_in_scratch().is_empty());
    // The log of the first build stays.
    assert_eq!(fs::read_dir(world.path().join("logs")).unwrap().count(), 2);
}

#[test]
fn without_variation_the_same_packages_pass() {
    let Some(mut world) = world("(id -u; hostname; pwd; date +%Y; nproc; echo $MAKEFLAGS)") else {
        return;
    };
    world.options.vary = false;
    world
        .check(&["p"])
        .unwrap_or_else(|f| panic!("{}", full(&f)));
}

#[test]
fn a_diffoscope_of_the_host_says_more_and_sees_nothing_else() {
    let Some(mut world) = world("hostname") else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("diffoscope");
    let secret = world.path().join("secret");
    fs::write(&secret, "secret").unwrap();
    let script = format!(
        "#!/bin/sh\necho \"$@\"; [ -s \"$5\" ] && [ -s \"$6\" ] && echo compared; cat {} 2>&1\n\
         (echo x >\"$5\") 2>/dev/null && echo wrote; ls -A /tmp | grep -v {}; exit 1\n",
        secret.display(),
        dir.path().file_name().unwrap().to_string_lossy(),
    );
    fs::write(&program, script).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let mut path = OsString::from(dir.path());
    path.push(":");
    path.push(std::env::var_os("PATH").unwrap());
    world.sandbox = LazySandbox::new(path);
    let failure = world.check(&["p"]).unwrap_err();
    let Error::NotReproducible { explained, .. } = &failure.error else {
        panic!("{}", full(&failure))
    };
    let text = explained.join("\n");
    assert!(
        explained[0].starts_with("--text - --max-text-report-size 65536 /"),
        "{text}"
    );
    assert_eq!(explained[1], "compared", "{text}");
    assert!(explained[2].contains("No such file"), "{text}");
    assert_eq!(explained.len(), 3, "{text}");

    // One that prints without end is cut, one that fails is told.
    for (script, said) in [
        ("yes", "and more"),
        (
            "exit 3",
            "diffoscope said nothing: it failed with exit status 3",
        ),
    ] {
        fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
        let failure = world.check(&["p"]).unwrap_err();
        let Error::NotReproducible { explained, .. } = &failure.error else {
            panic!("{}", full(&failure))
        };
        assert_eq!(explained.last().unwrap(), said);
        assert!(explained.len() <= 201);
    }
}
