//! Images that others load and run: `export --format oci|squashfs|spdx`.

use std::fs;
use std::process::Command;

use crate::support::{COMMAND_DEADLINE, Finished, TestEnv, greeting, judge, sandbox_works};

/// Podman with a storage of its own, and a runtime that needs no manager of control groups.
fn podman(env: &TestEnv) -> Option<Command> {
    judge("runc")?;
    let mut podman = judge("podman")?;
    let dir = |name: &str| env.path(name).to_str().unwrap().to_owned();
    podman.args(["--root", &dir("images"), "--runroot", &dir("containers")]);
    podman.args(["--storage-driver", "vfs", "--runtime", "runc"]);
    podman.args(["--cgroup-manager", "cgroupfs"]);
    Some(podman)
}

fn printed(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn an_image_is_the_same_on_every_machine_and_runs_in_a_runtime_of_others() {
    if !sandbox_works() {
        return;
    }
    let env = TestEnv::new();
    let export = |home: &str, out: &str| {
        let out = env.path(out).to_str().unwrap().to_owned();
        let image = ["export", "--format", "oci", "-o", &out, "greet"];
        let settings = ["--name", "example/greet:1", "--env", "WHO=world"];
        env.home(home).ok(&[&image[..], &settings].concat());
        out
    };
    let image = export("one", "one.tar");
    let other = export("two", "two.tar");
    assert!(fs::read(&image).unwrap() == fs::read(other).unwrap());

    let Some(mut load) = podman(&env) else { return };
    assert!(printed(load.args(["load", "-i", &image])).contains("example/greet:1"));
    let run = |words: &[&str]| {
        let mut run = podman(&env).unwrap();
        run.args(["run", "--rm", "--network", "none"]);
        // No more than whoever runs the tests may have.
        run.args(["--ulimit", "nofile=256:256", "--ulimit", "nproc=256:256"]);
        printed(run.arg("example/greet:1").args(words))
    };
    // The program of the package's name, then one of its run closure, with the variable.
    assert_eq!(run(&[]), greeting().to_uppercase());
    assert_eq!(run(&["/bin/busybox", "sh", "-c", "echo $WHO"]), "world\n");
    let bill = run(&["/bin/busybox", "cat", "/var/lib/db/sbom/greet.spdx.json"]);
    assert!(bill.contains("SPDX-2.3"), "{bill}");
}

#[test]
fn a_bill_of_materials_is_written_alone_and_image_settings_belong_to_images() {
    if !sandbox_works() {
        return;
    }
    let env = TestEnv::new();
    let home = env.home("one");
    let bill = home.ok(&["export", "--format", "spdx", "-o", "-", "greet"]);
    for named in ["\"greet\"", "\"hello\"", "\"toy\"", "GENERATED_FROM"] {
        assert!(bill.contains(named), "no {named} in {bill}");
    }
    home.run(&[
        "export", "--format", "tar", "--cmd", "x", "-o", "-", "greet",
    ])
    .assert_exit(2)
    .assert_says("`--format oci`");
    home.run(&["export", "--format", "squashfs", "-o", "-", "greet"])
        .assert_exit(2);
    home.run(&[
        "export", "--format", "oci", "--env", "=x", "-o", "-", "greet",
    ])
    .assert_exit(2);
}

#[test]
fn a_squashfs_image_holds_the_closure_and_is_the_same_every_time() {
    if !sandbox_works() || judge("mksquashfs").is_none() {
        return;
    }
    let env = TestEnv::new();
    let export = |name: &str| {
        let out = env.path(name).to_str().unwrap().to_owned();
        let home = env.home("one");
        home.ok(&["export", "--format", "squashfs", "-o", &out, "greet"]);
        out
    };
    let image = export("one.squashfs");
    assert!(fs::read(&image).unwrap() == fs::read(export("two.squashfs")).unwrap());
    let listing = printed(Command::new("unsquashfs").args(["-l", &image]));
    for path in ["/bin/greet", "/bin/hello", "/share/hello/greeting.txt"] {
        assert!(listing.contains(path), "no {path} in {listing}");
    }
}

#[test]
fn a_machine_without_the_program_for_squashfs_says_what_to_install() {
    if !sandbox_works() {
        return;
    }
    let env = TestEnv::new();
    let home = env.home("one");
    home.ok(&["build", "greet"]);
    let out = env.path("out");
    let mut bare = home.command(&[
        "export",
        "--format",
        "squashfs",
        "-o",
        out.to_str().unwrap(),
        "greet",
    ]);
    bare.env("PATH", "/nowhere");
    Finished::of(bare, COMMAND_DEADLINE)
        .assert_exit(1)
        .assert_says("squashfs-tools");
    assert!(!out.exists());
}
