//! Packages in use: venvs, commands in them, exports.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use builder::testing::World;
use builder::{Layers, venv};

/// What a command prints in a venv of a package.
pub fn output_of(world: &mut World, package: &str, command: &[&str]) -> String {
    let dir = world.path().join("a venv");
    if !dir.exists() {
        create(world, package, &dir);
    }
    run_in(&dir, command)
}

fn create(world: &mut World, package: &str, dir: &Path) {
    let (graph, ids) = world.graph(&[package]);
    let report = world.realise(&[package]).unwrap();
    let inputs = report.closure(&graph, &ids).unwrap();
    venv::create(&world.store, &inputs, dir).unwrap();
}

fn run_in(dir: &Path, command: &[&str]) -> String {
    let output = Command::new(dir.join(venv::VENV_RUN))
        .args(command)
        .output()
        .unwrap();
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{out}{err}");
    out.into_owned()
}

/// Every path below a directory with what it is: permissions, and contents or target.
fn listing(dir: &Path) -> BTreeMap<PathBuf, (u32, Vec<u8>)> {
    let mut found = BTreeMap::new();
    let mut open = vec![dir.to_owned()];
    while let Some(at) = open.pop() {
        for entry in fs::read_dir(at).unwrap() {
            let path = entry.unwrap().path();
            let metadata = fs::symlink_metadata(&path).unwrap();
            let bytes = if metadata.is_symlink() {
                fs::read_link(&path)
                    .unwrap()
                    .into_os_string()
                    .into_encoded_bytes()
            } else if metadata.is_dir() {
                open.push(path.clone());
                Vec::new()
            } else {
                fs::read(&path).unwrap()
            };
            let name = path.strip_prefix(dir).unwrap().to_owned();
            found.insert(name, (metadata.mode(), bytes));
        }
    }
    found
}

/// A package with a program of its own, one that is a script, and data both need.
fn tool() -> Option<World> {
    let mut world = World::new()?;
    world.package_from(
        "tool",
        r#"mkdir -p $DESTDIR/bin $DESTDIR/lib/tool
cp /bin/busybox $DESTDIR/bin/busybox
cat >$DESTDIR/bin/tool <<'END'
#!/bin/sh
cat /share/data /lib/tool/more
printf '%s\n' "$@"
END
chmod +x $DESTDIR/bin/tool
echo more >$DESTDIR/lib/tool/more"#,
        "../seed\n",
        "../data\n",
    );
    world.package("data", "mkdir -p $DESTDIR/share $DESTDIR/etc; echo data >$DESTDIR/share/data; echo x >$DESTDIR/etc/x");
    Some(world)
}

#[test]
fn programs_and_scripts_find_their_data_and_the_host_is_still_there() {
    let Some(mut world) = tool() else { return };
    assert_eq!(
        output_of(&mut world, "tool", &["tool", "a b", "*"]),
        "data\nmore\na b\n*\n"
    );
    assert_eq!(
        output_of(&mut world, "tool", &["busybox", "echo", "own"]),
        "own\n"
    );
    assert_eq!(
        output_of(&mut world, "tool", &["/bin/tool"]),
        "data\nmore\n\n"
    );
    // Dynamic programs of the host, by name and by path, though the package has a /bin, a /lib and an /etc.
    assert_eq!(output_of(&mut world, "tool", &["id", "-u"]), host("id -u"));
    assert_eq!(
        output_of(&mut world, "tool", &["/bin/sh", "-c", "echo shell"]),
        "shell\n"
    );
    assert_eq!(
        output_of(&mut world, "tool", &["env", "test", "-s", "/etc/passwd"]),
        ""
    );
    assert_eq!(output_of(&mut world, "tool", &["cat", "/etc/x"]), "x\n");
    assert_eq!(
        output_of(&mut world, "tool", &["sh", "-c", "ls /usr | sort"]),
        host("ls /usr | sort")
    );
    assert_eq!(
        output_of(&mut world, "tool", &["sh", "-c", "ls /.host/bin/ | sort"]),
        host("ls /bin/ | sort")
    );
}

fn host(command: &str) -> String {
    let output = Command::new("sh").args(["-c", command]).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_program_of_the_venv_comes_before_the_hosts_of_the_same_name() {
    let Some(mut world) = World::new() else {
        return;
    };
    world.package("p", "mkdir $DESTDIR/bin; printf '#!/bin/sh\\necho venv\\n' >$DESTDIR/bin/id; chmod +x $DESTDIR/bin/id");
    assert_eq!(output_of(&mut world, "p", &["id"]), "venv\n");
}

#[test]
fn the_working_directory_environment_and_exit_status_are_kept() {
    let Some(mut world) = tool() else { return };
    let dir = world.path().join("it's \"odd\" $HOME `x`");
    create(&mut world, "tool", &dir);
    let elsewhere = tempfile::tempdir().unwrap();
    let output = Command::new(dir.join(venv::VENV_RUN))
        .args(["sh", "-c", "pwd; echo $MARK; exit 23"])
        .env("MARK", "mark")
        .current_dir(elsewhere.path())
        .output()
        .unwrap();
    let expected = format!(
        "{}\nmark\n",
        elsewhere.path().canonicalize().unwrap().display()
    );
    assert_eq!(String::from_utf8_lossy(&output.stdout), expected);
    assert_eq!(
        output.status.code(),
        Some(23),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn the_script_can_be_called_through_links_and_without_a_command_says_how() {
    let Some(mut world) = tool() else { return };
    assert_eq!(
        output_of(&mut world, "tool", &["busybox", "echo", "x"]),
        "x\n"
    );
    let bin = world.path().join("a venv/bin");
    std::os::unix::fs::symlink("venv-run", bin.join("link")).unwrap();
    std::os::unix::fs::symlink(bin.join("link"), world.path().join("far link")).unwrap();
    let output = Command::new(world.path().join("far link"))
        .args(["tool"])
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "data\nmore\n\n");
    let output = Command::new("sh")
        .arg("venv-run")
        .arg("tool")
        .current_dir(&bin)
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "data\nmore\n\n");
    let output = Command::new(bin.join("venv-run")).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn a_cached_venv_is_made_once_and_an_existing_directory_never_touched() {
    let Some(mut world) = tool() else { return };
    let (graph, ids) = world.graph(&["tool"]);
    let report = world.realise(&["tool"]).unwrap();
    let inputs = report.closure(&graph, &ids).unwrap();
    let cache = world.path().join("venvs");
    let first = venv::cached(&world.store, &inputs, &cache).unwrap();
    fs::write(first.join("mark"), "").unwrap();
    assert_eq!(venv::cached(&world.store, &inputs, &cache).unwrap(), first);
    assert!(first.join("mark").exists());
    let status = venv::run(&first, &["busybox", "false"].map(OsString::from)).unwrap();
    assert_eq!(status.code(), Some(1));
    venv::create(&world.store, &inputs, &first).unwrap_err();
    assert!(first.join("mark").exists());
    assert_eq!(fs::read_dir(&cache).unwrap().count(), 1);
}

#[test]
fn later_names_win_and_an_export_holds_the_closure_and_nothing_else() {
    let Some(mut world) = World::new() else {
        return;
    };
    world.package(
        "a",
        "mkdir $DESTDIR/share; echo a >$DESTDIR/share/who; echo a >$DESTDIR/share/a",
    );
    world.package("b", "mkdir $DESTDIR/share; echo b >$DESTDIR/share/who");
    let (graph, ids) = world.graph(&["b", "a"]);
    let report = world.realise(&["b", "a"]).unwrap();
    let inputs = report.closure(&graph, &ids).unwrap();
    let export = |inputs: &[builder::Input]| {
        let mut archive = Vec::new();
        venv::export(&world.store, inputs, &world.scratch(), &mut archive).unwrap();
        archive
    };
    let archive = export(&inputs);
    let reversed: Vec<_> = inputs.iter().rev().cloned().collect();
    assert_eq!(archive, export(&reversed));
    let dest = tempfile::tempdir().unwrap();
    store::archive::unpack(&archive[..], dest.path(), &Default::default()).unwrap();
    assert_eq!(
        fs::read_to_string(dest.path().join("share/who")).unwrap(),
        "b\n"
    );
    assert_eq!(fs::read_dir(dest.path()).unwrap().count(), 1);
    assert_eq!(fs::read_dir(dest.path().join("share")).unwrap().count(), 2);
    assert!(world.left_in_scratch().is_empty());
}

#[test]
fn a_venv_of_links_is_like_any_other_but_for_what_may_be_written_to() {
    let Some(mut world) = tool() else { return };
    // A later name wins, and a link may take the place of a file.
    world.package_from(
        "zz",
        "mkdir $DESTDIR/share $DESTDIR/bin; echo zz >$DESTDIR/share/data; ln -s tool $DESTDIR/bin/busybox",
        "../seed\n",
        "../tool\n",
    );
    let (graph, ids) = world.graph(&["zz"]);
    let report = world.realise(&["zz"]).unwrap();
    let inputs = report.closure(&graph, &ids).unwrap();
    let (copied, linked) = (world.path().join("copied"), world.path().join("linked"));
    venv::create(&world.store, &inputs, &copied).unwrap();
    let layers = Layers::linked_below(&world.scratch()).unwrap();
    venv::link(&world.store, &inputs, &layers, &linked).unwrap();
    let mut expected = listing(&copied);
    for (path, (mode, _)) in &mut expected {
        // The script of the venv is its own.
        if *mode & 0o170_000 == 0o100_000 && path != Path::new(venv::VENV_RUN) {
            *mode &= !0o222;
        }
    }
    assert_eq!(listing(&linked), expected);
    let (one, more) = (linked.join("lib/tool/more"), world.path().join("again"));
    venv::link(&world.store, &inputs, &layers, &more).unwrap();
    let inode = |path: &Path| fs::metadata(path).unwrap().ino();
    assert_eq!(inode(&one), inode(&more.join("lib/tool/more")));
    // What is forgotten stays where it is used.
    let forgotten = layers.list();
    assert!(forgotten.iter().all(|layer| layers.remove(&layer.sha256)));
    assert_eq!(run_in(&linked, &["tool", "a b"]), "zz\nmore\na b\n");
}
