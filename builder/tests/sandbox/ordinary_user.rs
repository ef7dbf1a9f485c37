//! Everything works for a user with no rights at all. Where the tests run as root, one of them becomes such a user.

use builder::testing::World;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::process::Command;

/// `nobody` on every distribution.
const NOBODY: u32 = 65534;
const HELPER: &str = "P2PKGS_TEST_AS_NOBODY";

fn builds_and_runs() {
    let Some(world) = World::new() else {
        return;
    };
    // What this user can do is what counts, and said if it is less.
    world.stacks();
    builds_and_runs_in(world.unstacked());
    builds_and_runs_in(World::new().unwrap());
}

fn builds_and_runs_in(mut world: World) {
    world.package(
        "p",
        "mkdir -p $DESTDIR/bin; { printf '#!/bin/sh\\necho '; id -u; } >$DESTDIR/bin/who; chmod +x $DESTDIR/bin/who
         mkdir -p locked/in; chmod 000 locked; mkdir -p /lib/locked/in; chmod 000 /lib/locked; rm /bin/vi",
    );
    let report = world
        .realise(&["p"])
        .unwrap_or_else(|f| panic!("{}", builder::testing::full(&f)));
    assert_eq!(report.built.len(), 1);
    assert!(world.left_in_scratch().is_empty());
    world.options.limits.processes_max = 50;
    world.package("bomb", "bomb() { sleep 4242.008 & bomb; }; bomb");
    let failure = world.realise(&["bomb"]).unwrap_err();
    let text = failure.error.to_string();
    assert!(text.contains("more than 50 processes"), "{text}");
    assert!(world.left_in_scratch().is_empty());
    world.options.limits.memory_max = 64 << 20;
    world.package("hog", "dd if=/dev/zero of=/dev/null bs=256M count=1000000");
    let failure = world.realise(&["hog"]).unwrap_err();
    let text = failure.error.to_string();
    assert!(text.contains("more than 64 MiB of memory"), "{text}");
    assert_eq!(crate::venvs::output_of(&mut world, "p", &["who"]), "1000\n");
}

#[test]
fn an_ordinary_user_builds_and_runs_packages() {
    if std::env::var_os(HELPER).is_some() || !rustix::process::geteuid().is_root() {
        return builds_and_runs();
    }
    if World::new().is_none() {
        return;
    }
    // This very program may lie where only root can read it.
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let program = dir.path().join("tests");
    fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let home = dir.path().join("home");
    fs::create_dir(&home).unwrap();
    chown(&home, Some(NOBODY), Some(NOBODY)).unwrap();
    let output = Command::new(&program)
        .args([
            "--exact",
            "ordinary_user::an_ordinary_user_builds_and_runs_packages",
            "--nocapture",
        ])
        .env(HELPER, "1")
        .env("TMPDIR", &home)
        .current_dir(&home)
        .uid(NOBODY)
        .gid(NOBODY)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{}{text}",
        String::from_utf8_lossy(&output.stdout)
    );
}
