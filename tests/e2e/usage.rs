//! Using what was built.

use std::fs;
use std::process::Command;

use crate::support::{COMMAND_DEADLINE, Finished, TestEnv, greeting, sandbox_works};

#[test]
fn a_venv_runs_its_programs_with_everything_they_need() {
    if !sandbox_works() {
        return;
    }
    let env = TestEnv::new();
    let home = env.home("user");
    let dir = env.path("my venv");
    let script = home.ok(&["venv", dir.to_str().unwrap(), "greet"]);
    assert_eq!(
        script.trim_end(),
        dir.join("bin/venv-run").to_str().unwrap()
    );
    let mut command = Command::new(script.trim_end());
    command.arg("greet").current_dir(env.path("tree"));
    let greeted = Finished::of(command, COMMAND_DEADLINE).assert_exit(0);
    assert_eq!(greeted.stdout, greeting().to_uppercase());
    home.run(&["venv", dir.to_str().unwrap(), "greet"])
        .assert_exit(2)
        .assert_says("exists already");
}

#[test]
fn run_ends_with_the_exit_code_of_its_command() {
    if !sandbox_works() {
        return;
    }
    let env = TestEnv::new();
    let home = env.home("user");
    let greeted = home
        .run(&["run", "greet", "hello", "--", "greet"])
        .assert_exit(0);
    assert_eq!(greeted.stdout, greeting().to_uppercase());
    home.run(&["run", "greet", "--", "sh", "-c", "exit 42"])
        .assert_exit(42);
    let again = home
        .run(&["--offline", "run", "greet", "--", "hello"])
        .assert_exit(0);
    assert_eq!(again.stdout, greeting());
}

#[test]
fn an_export_holds_the_closure_and_is_the_same_on_every_machine() {
    if !sandbox_works() {
        return;
    }
    let env = TestEnv::new();
    let export = |home: &str, out: &str| {
        let out = env.path(out);
        env.home(home).ok(&[
            "export",
            "--format",
            "tar",
            "-o",
            out.to_str().unwrap(),
            "greet",
        ]);
        fs::read(out).unwrap()
    };
    let archive = export("one", "one.tar.zst");
    assert!(
        archive == export("two", "two.tar.zst"),
        "the same packages make the same archive"
    );
    let piped = env
        .home("one")
        .command(&["export", "--format", "tar", "-o", "-", "greet"])
        .output();
    assert!(piped.unwrap().stdout == archive);
    let limits = store::archive::UnpackLimits::default();
    let entries = store::archive::list(&archive[..], &limits).unwrap();
    for path in [
        "bin/greet",
        "bin/hello",
        "bin/busybox",
        "share/hello/greeting.txt",
    ] {
        assert!(
            entries.iter().any(|e| e.path == path.as_bytes()),
            "no `{path}` in the archive"
        );
    }
    let dir = env.path("exported");
    env.home("one").ok(&[
        "export",
        "--format",
        "dir",
        "-o",
        dir.to_str().unwrap(),
        "greet",
    ]);
    assert_eq!(
        fs::read_to_string(dir.join("share/hello/greeting.txt")).unwrap(),
        greeting()
    );
    let dir = dir.to_str().unwrap();
    env.home("one")
        .run(&["export", "--format", "dir", "-o", dir, "greet"])
        .assert_exit(2);
}
