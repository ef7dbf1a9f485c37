//! Building in a real sandbox.

use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::{
    COMMAND_DEADLINE, Finished, Home, P2PKGS, TestEnv, greeting, processes_with, sandbox_works,
    signal, start, wait_until,
};

/// Where a package's output lies, as `build` prints it.
fn output(stdout: &str) -> PathBuf {
    PathBuf::from(stdout.lines().last().unwrap())
}

#[test]
fn what_is_built_once_is_there_the_next_time_without_a_network() {
    if !sandbox_works() {
        return;
    }
    let mut env = TestEnv::new();
    {
        let home = env.home("user");
        let first = home
            .run(&["build", "hello"])
            .assert_exit(0)
            .assert_says("made builder key");
        let first = first.assert_says("built hello").assert_says("fetched 2 (");
        assert!(output(&first.stdout).is_file());
        assert!(home.ok(&["log", "hello"]).is_empty(), "it prints nothing");
    }
    env.stop_origin();
    let home = env.home("user");
    let again = home.run(&["--offline", "build", "hello"]).assert_exit(0);
    assert!(output(&again.stdout).is_file());
    assert!(
        again.stderr.is_empty(),
        "nothing was to be done: {}",
        again.stderr
    );
    let fetched = home
        .run(&["--offline", "fetch", "hello", "--into", "placed"])
        .assert_exit(0);
    assert_eq!(fetched.stdout, again.stdout);
    let placed = fs::read_to_string(env.path("placed/share/hello/greeting.txt")).unwrap();
    assert_eq!(placed, greeting());
}

#[test]
fn a_key_is_made_to_sign_the_first_build_and_by_nothing_else() {
    if !sandbox_works() {
        return;
    }
    let env = TestEnv::new();
    let builder = env.home("builder");
    builder.ok(&["build", "--dry-run", "hello"]);
    builder.ok(&["--offline", "doctor"]);
    builder.ok(&["fetch", "--sources", "hello"]);
    builder.run(&["--offline", "fetch", "hello"]).assert_exit(3);
    builder.run(&["build", "broken"]).assert_exit(5);
    assert!(!builder.path("keys").exists(), "nothing was signed yet");
    builder.ok(&["build", "hello"]);
    assert!(builder.path("keys/default.key").is_file());

    // Who only uses what others built signs nothing.
    let daemon = builder.daemon(&[]);
    let user = env.home("user");
    user.bootstrap_from(&daemon);
    user.ok(&["key", "trust", &builder.key()]);
    user.ok(&["build", "hello"]);
    user.ok(&["venv", "venv", "hello"]);
    user.ok(&["run", "hello", "--", "hello"]);
    assert!(!user.path("keys").exists(), "nothing was built here");
}

#[test]
fn two_machines_build_the_same_bytes() {
    if !sandbox_works() {
        return;
    }
    let env = TestEnv::new();
    let hash_of = |home: &str| {
        let text = env.home(home).ok(&["--json", "build", "greet"]);
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        value[0]["sha256"].as_str().unwrap().to_owned()
    };
    assert_eq!(hash_of("one"), hash_of("another-home-with-a-longer-path"));
}

#[test]
fn a_failed_build_ends_with_5_and_shows_the_last_forty_lines_without_escapes() {
    if !sandbox_works() {
        return;
    }
    let env = TestEnv::new();
    let home = env.home("user");
    let failed = home
        .run(&["build", "broken"])
        .assert_exit(5)
        .assert_says("exit status 7");
    let failed = failed.assert_says("hint: the whole log is `");
    assert!(failed.stderr.contains("line 60") && failed.stderr.contains("line 22"));
    assert!(
        !failed.stderr.contains("line 21\n"),
        "only the last lines: {}",
        failed.stderr
    );
    assert!(failed.stderr.contains("red alert"));
    assert!(
        !failed.stderr.contains('\u{1b}'),
        "no escape sequence of a build reaches the terminal"
    );
    let log = home.ok(&["log", "broken"]);
    assert_eq!(log.lines().count(), 61);
    assert!(log.starts_with("line 1\n") && !log.contains('\u{1b}'));
}

#[test]
fn one_failure_stops_the_rest_unless_told_to_keep_going() {
    if !sandbox_works() {
        return;
    }
    let env = TestEnv::new();
    let home = env.home("user");
    let failed = home
        .run(&["build", "-j1", "-k", "-K", "broken", "hello"])
        .assert_exit(5);
    let failed = failed
        .assert_says("built hello")
        .assert_says("scratch directory is kept in `");
    let kept = failed
        .stderr
        .split("kept in `")
        .nth(1)
        .unwrap()
        .split('`')
        .next()
        .unwrap();
    assert!(PathBuf::from(kept).is_dir());
    home.run(&["--offline", "fetch", "hello"]).assert_exit(0);
}

#[test]
fn a_second_build_is_compared_with_the_first() {
    if !sandbox_works() {
        return;
    }
    let env = TestEnv::new();
    let home = env.home("user");
    home.run(&["build", "--check", "greet"])
        .assert_exit(0)
        .assert_says("same bytes");
    home.run(&["build", "--check", "flaky"])
        .assert_exit(6)
        .assert_says("share/random")
        .assert_says("not reproducible");
}

/// A command on a terminal of its own, with what is typed there.
fn on_a_terminal(home: &Home<'_>, command: &str, typed: &str) -> Finished {
    let mut script = home.command_of("script", &["-qec", command, "/dev/null"]);
    let mut child = script
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut terminal = child.stdin.take().unwrap();
    terminal.write_all(typed.as_bytes()).unwrap();
    let finished = Finished::wait(child, command.to_owned(), COMMAND_DEADLINE);
    drop(terminal);
    finished
}

#[test]
fn a_shell_opens_where_a_build_failed() {
    if !sandbox_works() {
        return;
    }
    let env = TestEnv::new();
    let home = env.home("user");
    let failed = home.run(&["build", "broken"]).assert_exit(5);
    failed.assert_says("`p2pkgs build --shell-on-failure broken` opens a shell where it failed");
    let kept = || {
        let entries = fs::read_dir(home.path("scratch")).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.starts_with("kept-")).count()
    };

    let command = format!("{P2PKGS} build --shell-on-failure broken");
    let typed = "echo in $PWD, $((6 * 7)) jobs in $MAKEFLAGS; exit\n";
    let shown = on_a_terminal(&home, &command, typed).assert_exit(5);
    assert!(shown.stdout.contains("line 60"), "{}", shown.stdout);
    assert!(
        shown.stdout.contains("in /home/build, 42 jobs in -j"),
        "{}",
        shown.stdout
    );
    assert_eq!(kept(), 0, "it goes with the shell");

    // Without a terminal it is kept, and the command to open it is said.
    let failed = home
        .run(&["build", "--shell-on-failure", "broken"])
        .assert_exit(5);
    let (_, rest) = failed.stderr.split_once("`p2pkgs shell ").unwrap();
    let dir = rest.split('`').next().unwrap().to_owned();
    let command = format!("{P2PKGS} shell {dir}");
    let typed = "echo again in $PWD; exit\n";
    let shown = on_a_terminal(&home, &command, typed).assert_exit(0);
    assert!(
        shown.stdout.contains("again in /home/build"),
        "{}",
        shown.stdout
    );
    assert_eq!(kept(), 1);
    home.run(&["shell", "/tmp"])
        .assert_exit(1)
        .assert_says("none that a failed build left");
}

#[test]
fn a_second_build_elsewhere_is_compared_too() {
    if !sandbox_works() {
        return;
    }
    let env = TestEnv::new();
    let home = env.home("user");
    home.run(&["build", "--check", "--vary", "greet"])
        .assert_exit(0)
        .assert_says("in other surroundings gave the same bytes");
    home.run(&["build", "--check", "--vary", "flaky"])
        .assert_exit(6)
        .assert_says("share/random");
    home.run(&["check", "--reproduce", "--vary", "greet"])
        .assert_exit(0);
    // Without a second build there is nothing to vary.
    home.run(&["build", "--vary", "greet"]).assert_exit(2);
    home.run(&["check", "--vary", "greet"]).assert_exit(2);
}

#[test]
fn a_dry_run_says_what_would_be_done_and_does_nothing() {
    if !sandbox_works() {
        return;
    }
    let env = TestEnv::new();
    let home = env.home("user");
    let plan = home
        .run(&["--offline", "build", "--dry-run", "greet"])
        .assert_exit(0);
    let plan = plan.assert_says("0 to fetch (0 B), 2 to build");
    assert_eq!(
        plan.stdout,
        "source toy\nsource hello/greeting.txt\nbuild hello\nbuild greet\n"
    );
    home.run(&[
        "--offline",
        "build",
        "--dry-run",
        "--substitute-only",
        "greet",
    ])
    .assert_exit(3);
    home.ok(&["build", "greet"]);
    let plan = home
        .run(&["--offline", "build", "--dry-run", "greet"])
        .assert_exit(0);
    assert_eq!(plan.stdout, "");
}

#[test]
fn a_miss_is_explained_by_what_a_cache_has() {
    if !sandbox_works() {
        return;
    }
    let env = TestEnv::new();
    let cache = env.path("cache");
    let builder = env.home("builder");
    builder.ok(&["cache", "export", cache.to_str().unwrap(), "greet"]);
    let user = env.home("user");
    let url = format!("file://{}", cache.display());
    let why_miss = |name: &str| {
        let mut command = user.command(&["why-miss", name]);
        command.env("PKG_CACHE_URL", &url);
        Finished::of(command, COMMAND_DEADLINE)
    };
    why_miss("greet")
        .assert_exit(0)
        .assert_says("has `greet` as it is here");
    why_miss("flaky")
        .assert_exit(3)
        .assert_says("know another `flaky`");

    let script = env.tree().join("pkg/hello/build");
    let text = fs::read_to_string(&script).unwrap();
    fs::write(&script, text + "# changed\n").unwrap();
    let why = why_miss("greet").assert_exit(0).assert_says("nearest is ");
    assert!(
        why.stdout.contains("hello") && why.stdout.contains("`build` changed"),
        "{}",
        why.stdout
    );

    // What does not have its hash is not believed.
    for entry in fs::read_dir(&cache).unwrap() {
        let path = entry.unwrap().path();
        if path
            .extension()
            .is_some_and(|ending| ending == "derivation")
        {
            let mut text = fs::read(&path).unwrap();
            text.push(b'\n');
            fs::write(&path, text).unwrap();
        }
    }
    why_miss("greet").assert_exit(3);
    // The one who built it has its own store.
    builder
        .run(&["why-miss", "greet"])
        .assert_exit(0)
        .assert_says("which the store has");
}

#[test]
fn a_changed_recipe_is_explained_down_to_its_cause() {
    if !sandbox_works() {
        return;
    }
    let env = TestEnv::new();
    let home = env.home("user");
    home.run(&["why", "greet"])
        .assert_exit(0)
        .assert_says("holds no other");
    home.ok(&["build", "greet"]);
    let script = env.tree().join("pkg/hello/build");
    let text = fs::read_to_string(&script).unwrap();
    fs::write(&script, text + "# changed\n").unwrap();
    let why = home.run(&["why", "greet"]).assert_exit(0);
    assert!(
        why.stdout.contains("hello") && why.stdout.contains("`build` changed"),
        "{}",
        why.stdout
    );
}

#[test]
fn several_commands_in_one_home_build_side_by_side() {
    if !sandbox_works() {
        return;
    }
    let env = TestEnv::new();
    let home = env.home("user");
    let names = ["hello", "greet", "greet", "hello"];
    let children = names.map(|name| start(home.command(&["build", name])));
    for (child, name) in children.into_iter().zip(names) {
        let finished = Finished::wait(child, format!("build {name}"), COMMAND_DEADLINE);
        assert!(output(&finished.assert_exit(0).stdout).is_file());
    }
}

#[test]
fn an_interrupted_build_ends_with_130_and_leaves_nothing_running() {
    if !sandbox_works() {
        return;
    }
    let env = TestEnv::new();
    let home = env.home("user");
    let scratch = home.path("scratch").display().to_string();
    let build = home.start_slow_build();
    assert!(!processes_with(&scratch).is_empty());
    signal(build.id(), Signal::INT);
    Finished::wait(build, "build slow".into(), COMMAND_DEADLINE).assert_exit(130);
    wait_until("the sandbox is gone", || {
        processes_with(&scratch).is_empty()
    });
    assert!(home.left_in_scratch().is_empty());
}

/// Below the time after which a command that does not stop by itself is ended: it stopped in an orderly way.
const ORDERLY_END: Duration = Duration::from_secs(3);

#[test]
fn an_interrupt_ends_all_builds_at_once_even_those_that_do_not_want_to_hear_of_it() {
    if !sandbox_works() {
        return;
    }
    let env = TestEnv::new();
    let packages = ["stubborn", "stubborner"];
    let script = "#!/bin/sh\ntrap '' INT TERM HUP\nfor n in 1 2 3; do sleep 77001.25 & done\n\
        echo started\nsleep 77001.25\n";
    for package in packages {
        let dir = env.tree().join("pkg").join(package);
        fs::create_dir(&dir).unwrap();
        fs::copy(
            env.tree().join("pkg/slow/build-deps"),
            dir.join("build-deps"),
        )
        .unwrap();
        fs::copy(env.tree().join("pkg/slow/build"), dir.join("build")).unwrap();
        fs::write(dir.join("build"), script).unwrap();
    }
    let home = env.home("user");
    let build = start(home.command(&["build", "-j2", "-k", "stubborn", "stubborner"]));
    for package in packages {
        wait_until("both builds run", || {
            home.run(&["log", package]).stdout.contains("started")
        });
    }
    let sleeping = "sleep 77001.25";
    wait_until("all their children run", || {
        processes_with(sleeping).len() == 8
    });
    let interrupted = Instant::now();
    signal(build.id(), Signal::INT);
    let ended = Finished::wait(build, "build -j2".into(), COMMAND_DEADLINE).assert_exit(130);
    let took = interrupted.elapsed();
    assert!(took < ORDERLY_END, "{took:?} after the interrupt");
    let errors = ended.stderr.lines().filter(|l| l.starts_with("error:"));
    assert_eq!(errors.collect::<Vec<_>>(), ["error: interrupted"]);
    assert_eq!(processes_with(sleeping), Vec::<String>::new());
    assert!(home.left_in_scratch().is_empty());
    // The store is as it was, and good for the next build.
    home.ok(&["store", "verify"]);
    home.ok(&["build", "hello"]);
}

#[test]
fn all_failures_are_told_at_the_end_and_how_long_a_build_took_is_remembered() {
    if !sandbox_works() {
        return;
    }
    let env = TestEnv::new();
    let dir = env.tree().join("pkg/broken-too");
    fs::create_dir(&dir).unwrap();
    for file in ["build", "build-deps"] {
        fs::copy(env.tree().join("pkg/broken").join(file), dir.join(file)).unwrap();
    }
    let home = env.home("user");
    let failed = home
        .run(&["build", "-k", "broken", "broken-too", "hello"])
        .assert_exit(5);
    let failed = failed.assert_says("built hello");
    for package in ["broken", "broken-too"] {
        let line = format!("error: build of `{package}` failed with exit status 7");
        assert!(failed.stderr.contains(&line), "{}", failed.stderr);
    }
    let times = fs::read_to_string(home.path("build-times")).unwrap();
    assert!(
        times.starts_with("hello ") && times.lines().count() == 1,
        "{times}"
    );
}

#[test]
fn a_log_is_followed_until_its_build_ends() {
    if !sandbox_works() {
        return;
    }
    let env = TestEnv::new();
    let home = env.home("user");
    let build = home.start_slow_build();
    let follower = start(home.command(&["log", "-f", "slow"]));
    wait_until("it says more", || {
        home.run(&["log", "slow"]).stdout.contains("still here")
    });
    signal(build.id(), Signal::TERM);
    Finished::wait(build, "build slow".into(), COMMAND_DEADLINE).assert_exit(130);
    let followed = Finished::wait(follower, "log -f slow".into(), COMMAND_DEADLINE).assert_exit(0);
    assert_eq!(followed.stdout, "started\nstill here\n");
}
