//! Builds on another machine, over a real sshd on loopback: `build --on ssh://…`.

use std::fs;
use std::io::Write as _;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;

use crate::support::{
    COMMAND_DEADLINE, Finished, Home, Sshd, TestEnv, processes_with, sandbox_works, signal, start,
    wait_until, write_program,
};

/// Below the time after which a command that does not stop by itself is ended, on either machine.
const ORDERLY_END: Duration = Duration::from_secs(3);

/// Where the machine `host` is, whose home is one of this world's.
fn address(host: &Home<'_>) -> String {
    format!(
        "ssh://builder{}",
        host.path("").to_str().unwrap().trim_end_matches('/')
    )
}

/// A command that finds this `ssh` before any other.
fn with_ssh(home: &Home<'_>, ssh: &Path, args: &[&str]) -> Command {
    let mut command = home.command(args);
    let path = std::env::var("PATH").unwrap();
    command.env("PATH", format!("{}:{path}", ssh.display()));
    command
}

fn run(home: &Home<'_>, ssh: &Path, args: &[&str]) -> Finished {
    Finished::of(with_ssh(home, ssh, args), COMMAND_DEADLINE)
}

/// The world, its sshd, and the folder of the `ssh` that knows it.
fn world() -> Option<(TestEnv, Sshd, PathBuf)> {
    if !sandbox_works() {
        return None;
    }
    let sshd = Sshd::start()?;
    let client = sshd.client();
    Some((TestEnv::new(), sshd, client))
}

/// Lets the user believe what the host signs.
fn trust(user: &Home<'_>, host: &Home<'_>) {
    host.ok(&["key", "new"]);
    user.ok(&["key", "trust", &host.key()]);
}

#[test]
fn a_package_is_built_elsewhere_from_what_this_machine_has_and_nothing_is_sent_twice() {
    let Some((mut env, _sshd, ssh)) = world() else {
        return;
    };
    for home in ["user", "other"] {
        env.home(home).ok(&["fetch", "--sources", "greet", "big"]);
    }
    env.stop_origin();
    let (user, host) = (env.home("user"), env.home("host"));
    trust(&user, &host);
    let on = address(&host);
    let build = ["build", "--on", &on, "greet", "big"];
    let built = run(&user, &ssh, &build).assert_exit(0);
    let built = built
        .assert_says(&format!("on {on}"))
        .assert_says(&format!("3 built on {on}: sent 4 files ("));
    for output in built.stdout.lines() {
        assert!(PathBuf::from(output).is_file(), "{output}");
    }
    assert!(!user.path("keys").exists(), "nothing was built here");
    assert!(user.left_in_scratch().is_empty() && host.left_in_scratch().is_empty());
    // What came is as good as what is built here.
    let again = run(&user, &ssh, &build).assert_exit(0);
    assert_eq!((again.stderr.as_str(), &again.stdout), ("", &built.stdout));
    let greeting = user.ok(&["--offline", "run", "greet", "--", "greet"]);
    assert_eq!(greeting, crate::support::greeting().to_uppercase());

    let other = env.home("other");
    other.ok(&["key", "trust", &host.key()]);
    let line = format!("0 built on {on}: sent 0 files (0 B), received 3 files (");
    run(&other, &ssh, &build).assert_exit(0).assert_says(&line);
}

#[test]
fn what_this_machine_built_is_used_there_if_its_key_is_trusted_there() {
    let Some((env, _sshd, ssh)) = world() else {
        return;
    };
    let (user, host) = (env.home("user"), env.home("host"));
    trust(&user, &host);
    user.ok(&["build", "hello"]);
    host.ok(&["key", "trust", &user.key()]);
    let on = address(&host);
    run(&user, &ssh, &["-v", "build", "--on", &on, "greet"])
        .assert_exit(0)
        .assert_says("sent hello (")
        .assert_says(&format!("1 built on {on}: "));
}

#[test]
fn what_a_stranger_signs_is_not_used_unless_the_user_signs_it() {
    let Some((env, _sshd, ssh)) = world() else {
        return;
    };
    let (user, host) = (env.home("user"), env.home("host"));
    let on = address(&host);
    let refused = run(&user, &ssh, &["build", "--on", &on, "hello"]).assert_exit(4);
    let key = host.key();
    refused
        .assert_says(&format!("p2pkgs key trust {key}"))
        .assert_says("--sign-here");
    assert!(!host.path("logs").exists(), "nothing was built in vain");

    run(&user, &ssh, &["build", "--on", &on, "--sign-here", "hello"])
        .assert_exit(0)
        .assert_says("made builder key");
    assert_ne!(user.key(), key);
    user.ok(&["--offline", "fetch", "hello"]);
}

#[test]
fn a_build_that_fails_elsewhere_fails_as_it_would_here() {
    let Some((env, _sshd, ssh)) = world() else {
        return;
    };
    let (user, host) = (env.home("user"), env.home("host"));
    trust(&user, &host);
    let on = address(&host);
    let failed = run(
        &user,
        &ssh,
        &["build", "--on", &on, "-k", "broken", "hello"],
    );
    let failed = failed
        .assert_exit(5)
        .assert_says("exit status 7")
        .assert_says("`p2pkgs log broken` shows the whole log")
        .assert_says("built hello");
    assert!(failed.stderr.contains("line 60") && failed.stderr.contains("red alert"));
    assert!(!failed.stderr.contains('\u{1b}') && !failed.stderr.contains("line 21\n"));
    let log = user.ok(&["log", "broken"]);
    assert_eq!(log.lines().count(), 61);
    // What did not fail is here.
    user.ok(&["--offline", "fetch", "hello"]);
    // With a second build here, what was built there is compared.
    run(&user, &ssh, &["build", "--on", &on, "--check", "flaky"])
        .assert_exit(6)
        .assert_says("share/random");
}

#[test]
fn an_interrupt_here_ends_the_build_there() {
    let Some((env, _sshd, ssh)) = world() else {
        return;
    };
    let (user, host) = (env.home("user"), env.home("host"));
    trust(&user, &host);
    let on = address(&host);
    let build = start(with_ssh(&user, &ssh, &["build", "--on", &on, "slow"]));
    wait_until("the build runs", || {
        user.run(&["log", "slow"]).stdout.contains("started")
    });
    let scratch = host.path("scratch").display().to_string();
    assert!(!processes_with(&scratch).is_empty());
    let interrupted = Instant::now();
    signal(build.id(), Signal::INT);
    Finished::wait(build, "build --on".into(), COMMAND_DEADLINE).assert_exit(130);
    let home = host.path("").display().to_string();
    let home = home.trim_end_matches('/').to_owned();
    wait_until("nothing is left of it", || processes_with(&home).is_empty());
    let took = interrupted.elapsed();
    assert!(took < ORDERLY_END, "{took:?} after the interrupt");
    assert!(host.left_in_scratch().is_empty() && user.left_in_scratch().is_empty());
}

#[test]
fn a_host_that_is_gone_is_told_and_the_build_goes_on_here() {
    if !sandbox_works() {
        return;
    }
    let env = TestEnv::new();
    let ssh = env.path("bin");
    // Says what ssh says, and ends as it does.
    let says = "ssh: connect to host builder port 22: Connection refused";
    write_program(&ssh.join("ssh"), &format!("echo '{says}' >&2; exit 255"));
    let user = env.home("user");
    run(&user, &ssh, &["build", "--on", "ssh://builder", "hello"])
        .assert_exit(0)
        .assert_says(&format!(
            "cannot build on ssh://builder: {says}, so it is built here"
        ))
        .assert_says("built hello (");
    run(
        &user,
        &ssh,
        &["build", "--on", "ssh://builder", "--on-only", "greet"],
    )
    .assert_exit(7)
    .assert_says("`ssh builder true` has to work");
    write_program(&ssh.join("ssh"), "exit 127");
    run(
        &user,
        &ssh,
        &["build", "--on", "ssh://builder", "--on-only", "greet"],
    )
    .assert_exit(7)
    .assert_says("there is no p2pkgs on it");
    run(&user, &ssh, &["build", "--on", "http://builder", "greet"]).assert_exit(2);
    run(
        &user,
        &ssh,
        &["build", "--on", "ssh://-oProxyCommand=x", "greet"],
    )
    .assert_exit(2);
    run(&user, &ssh, &["build", "--sign-here", "greet"]).assert_exit(2);
    let mut forced = with_ssh(&user, &ssh, &["build", "--on", "ssh://builder", "greet"]);
    forced.env("PKG_FORCE_BINARY", "yes");
    Finished::of(forced, COMMAND_DEADLINE).assert_exit(2);
    let offline = ["--offline", "build", "--on", "ssh://builder", "greet"];
    run(&user, &ssh, &offline).assert_exit(2);
    run(&user, &ssh, &["build-server"]).assert_exit(0);
}

#[test]
fn a_host_that_makes_no_sense_is_given_up() {
    let env = TestEnv::new();
    let ssh = env.path("bin");
    let user = env.home("user");
    let greeting = "printf 'p2pkgs-remote-build-1\\n'";
    for (script, says) in [
        (
            "echo 'Welcome to Linux!'; cat >/dev/null".to_owned(),
            "it answers `Welcome to Linux",
        ),
        (
            "echo p2pkgs-remote-build-9; cat >/dev/null".to_owned(),
            "it speaks `p2pkgs-remote-build-9`",
        ),
        (
            format!("{greeting}; printf '\\377\\377\\377\\377'; cat >/dev/null"),
            "a frame of 4294967295 bytes",
        ),
        (
            format!("{greeting}; printf '\\0\\0\\0\\3abc'; cat >/dev/null"),
            "no message",
        ),
        (
            format!("{greeting}; printf '\\0\\0\\0\\6ealive'"),
            "it broke off",
        ),
        (
            format!("{greeting}; printf '\\0\\0'"),
            "in the middle of a frame",
        ),
        (
            format!("{greeting}; head -c 1000000 /dev/urandom; cat >/dev/null"),
            "cannot build on",
        ),
    ] {
        write_program(&ssh.join("ssh"), &script);
        run(
            &user,
            &ssh,
            &["build", "--on", "ssh://x", "--on-only", "hello"],
        )
        .assert_exit(7)
        .assert_says(says);
    }
}

/// Messages of a host, as frames.
fn frames(messages: &[serde_json::Value]) -> Vec<u8> {
    let mut bytes = b"p2pkgs-remote-build-1\n".to_vec();
    for message in messages {
        let body = serde_ipld_dagcbor::to_vec(message).unwrap();
        bytes.extend(u32::try_from(body.len()).unwrap().to_be_bytes());
        bytes.extend(body);
    }
    bytes
}

#[test]
fn a_host_that_lies_is_given_up_and_gets_only_what_the_request_names() {
    let env = TestEnv::new();
    let user = env.home("user");
    let secret = env.path("secret");
    fs::write(&secret, "a secret of another kind").unwrap();
    let added = user.ok(&["mirror", "add", secret.to_str().unwrap()]);
    let secret = added.split_whitespace().next().unwrap().to_owned();
    let key = env.home("liar").ok(&["key", "new"]);
    let welcome = json!({"welcome": {"key": key.trim_end(), "version": "\u{1b}]0;9\u{7}"}});
    let news = |news| json!({"news": news});
    let warning =
        |package: &str| news(json!({"warning": {"package": package, "text": "\u{1b}[31mred"}}));
    let built = news(json!({"built": {"package": "hello", "bytes": 1, "millis": 1}}));
    let done = |package: &str| {
        let output = json!({"package": package, "sha256": &secret, "statements": []});
        json!({"done": {"outputs": [output], "failures": [], "skipped": []}})
    };
    let ssh = env.path("bin");
    let (said, heard) = (env.path("said"), env.path("heard"));
    let play = format!("cat {}; cat > {}", said.display(), heard.display());
    write_program(&ssh.join("ssh"), &play);
    let hear = |messages: Vec<serde_json::Value>, says: &str| {
        let all: Vec<_> = std::iter::once(welcome.clone()).chain(messages).collect();
        fs::write(&said, frames(&all)).unwrap();
        let args = [
            "-v",
            "build",
            "--on",
            "ssh://x",
            "--sign-here",
            "--on-only",
            "hello",
        ];
        let ended = run(&user, &ssh, &args).assert_exit(7).assert_says(says);
        assert!(!ended.stderr.contains('\u{1b}'), "{}", ended.stderr);
    };
    hear(vec![warning("busybox")], "packages that were not asked for");
    hear(vec![warning("hello"); 10_001], "it warns without an end");
    hear(vec![built.clone(), built], "it builds a package again");
    hear(
        vec![done("busybox")],
        "it sends packages that were not asked for",
    );
    hear(
        vec![done("toy")],
        "it sends a seed that is not the recipe's",
    );
    hear(vec![done("hello")], "it vouches for nothing that it sends");
    hear(vec![welcome.clone()], "something that was not asked for");
    let want = json!({"want": {"sha256": &secret}});
    hear(
        vec![want, warning("busybox")],
        "packages that were not asked for",
    );
    let heard = fs::read(&heard).unwrap();
    let text = String::from_utf8_lossy(&heard);
    assert!(!text.contains("a secret of another kind"), "{text}");
}

#[test]
fn other_bytes_than_a_host_vouches_for_are_not_taken() {
    let Some((env, _sshd, ssh)) = world() else {
        return;
    };
    let (user, host) = (env.home("user"), env.home("host"));
    trust(&user, &host);
    let output = PathBuf::from(host.ok(&["build", "hello"]).trim_end());
    // Unnoticed by its store: of the same length, and as old.
    fs::set_permissions(&output, fs::Permissions::from_mode(0o644)).unwrap();
    let meta = fs::metadata(&output).unwrap();
    fs::write(&output, vec![7; usize::try_from(meta.len()).unwrap()]).unwrap();
    let file = fs::File::options().write(true).open(&output).unwrap();
    file.set_modified(meta.modified().unwrap()).unwrap();
    let on = address(&host);
    run(&user, &ssh, &["build", "--on", &on, "--on-only", "hello"])
        .assert_exit(7)
        .assert_says("another file than it vouches for");
    run(&user, &ssh, &["build", "--on", &on, "hello"])
        .assert_exit(0)
        .assert_says("so it is built here")
        .assert_says("built hello (");
}

#[test]
fn who_asks_for_what_makes_no_sense_is_told_and_nothing_goes_on() {
    let env = TestEnv::new();
    let host = env.home("host");
    let greeting = b"p2pkgs-remote-build-1\n".to_vec();
    let with = |more: &[u8]| [&greeting, more].concat();
    // A map with the one key `piece`, and an empty byte string.
    let piece = b"\0\0\0\x0e\xa1\x64file\xa1\x65piece\x40";
    for (said, code, says) in [
        (Vec::new(), 0, ""),
        (with(b""), 0, ""),
        (with(b"\0\0\0\x06\x65alive"), 0, ""),
        (
            b"GET / HTTP/1.1\r\n".to_vec(),
            1,
            "it answers `GET / HTTP/1.1`",
        ),
        (
            b"p2pkgs-remote-build-2\n".to_vec(),
            1,
            "it speaks `p2pkgs-remote-build-2`",
        ),
        (with(b"\xff\xff\xff\xff"), 1, "a frame of 4294967295 bytes"),
        (with(b"\0\0\0\x02{}"), 1, "no message"),
        (with(b"\0\0\0\x06\x65ali"), 1, "in the middle of a frame"),
        (with(piece), 1, "a file that nobody wanted"),
    ] {
        let mut command = host.command(&["-q", "build-server"]);
        command.stdin(Stdio::piped());
        let mut server = start(command);
        let mut stdin = server.stdin.take().unwrap();
        stdin.write_all(&said).unwrap();
        drop(stdin);
        let shown = format!("build-server that hears {said:?}");
        let ended = Finished::wait(server, shown, COMMAND_DEADLINE);
        ended.assert_exit(code).assert_says(says);
    }
}

#[test]
fn a_host_that_hangs_costs_its_deadline() {
    let Some((env, _sshd, _)) = world() else {
        return;
    };
    // One takes connections and never says a word, the other falls silent after a greeting, and what it has started holds its
    // pipes even when it is killed.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let on = format!("ssh://{}", silent.local_addr().unwrap());
    let ssh = env.path("bin");
    let hang = "printf 'p2pkgs-remote-build-1\\n'; setsid sleep 45 & sleep 1000";
    write_program(&ssh.join("ssh"), hang);
    let (user, other) = (env.home("user"), env.home("other"));
    let args = ["build", "--on", "ssh://x", "--on-only", "hello"];
    let falls_silent = start(with_ssh(&other, &ssh, &args));
    user.run(&["build", "--on", &on, "hello"])
        .assert_exit(0)
        .assert_says("so it is built here")
        .assert_says("built hello (");
    Finished::wait(falls_silent, format!("{args:?}"), COMMAND_DEADLINE)
        .assert_exit(7)
        .assert_says("it said nothing for 30 seconds");
}
