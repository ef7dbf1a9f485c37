//! How builds end that do not end well.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use builder::testing::{World, can_go_on};
use builder::{Ending, Error, ErrorKind, Kept, Layers, Limits};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use store::Store;

/// Is a process running on this machine whose command line contains this text?
fn runs(marker: &str) -> Vec<i32> {
    let mut pids = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let command = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        if let Ok(pid) = entry.file_name().to_string_lossy().parse()
            && String::from_utf8_lossy(&command).contains(marker)
        {
            pids.push(pid);
        }
    }
    pids
}

/// Set to a kept directory in the process that is to enter it.
const ENTER: &str = "P2PKGS_TEST_ENTER";
/// Set to the store that it needs.
const ENTER_STORE: &str = "P2PKGS_TEST_ENTER_STORE";

/// The ending of a build that has to fail.
fn ending(world: &mut World, package: &str) -> Ending {
    let failure = world.realise(&[package]).unwrap_err();
    assert_eq!(failure.error.kind(), ErrorKind::BuildFailed);
    match failure.error {
        Error::BuildFailed(failure) => failure.ending,
        other => panic!("{other}"),
    }
}

#[test]
fn a_failing_build_shows_its_last_lines_and_keeps_the_whole_log() {
    let Some(mut world) = World::new() else {
        return;
    };
    world.package(
        "p",
        "for n in $(seq 1 100); do echo line $n; done; echo trouble >&2; exit 7",
    );
    let failure = world.realise(&["p"]).unwrap_err();
    let Error::BuildFailed(failure) = failure.error else {
        panic!("{failure}")
    };
    assert_eq!(failure.ending, Ending::Exited(7));
    assert_eq!(failure.last_lines.len(), 40);
    assert_eq!(failure.last_lines[0], b"line 62");
    assert_eq!(failure.last_lines[39], b"trouble");
    assert_eq!(
        fs::read_to_string(&failure.log).unwrap().lines().count(),
        101
    );
    assert_eq!(failure.to_owned().kept, None);
    assert!(world.left_in_scratch().is_empty());
}

#[test]
fn a_failed_builds_scratch_directory_is_kept_when_asked_for() {
    let Some(mut world) = World::new() else {
        return;
    };
    world.options.keep_failed = true;
    world.package("p", "echo evidence >clue; exit 1");
    let failure = world.realise(&["p"]).unwrap_err();
    let Error::BuildFailed(failure) = failure.error else {
        panic!("{failure}")
    };
    let clue = failure.kept.unwrap().join("root/home/build/clue");
    assert_eq!(fs::read_to_string(clue).unwrap(), "evidence\n");
}

#[test]
fn a_kept_build_is_entered_again_with_its_root_its_environment_and_its_user() {
    let Some(world) = World::new() else {
        return;
    };
    if let Some(dir) = std::env::var_os(ENTER) {
        // What runs inside prints and reads where this process does.
        let store = std::env::var_os(ENTER_STORE).unwrap();
        let store = Store::open(Path::new(&store)).unwrap();
        let kept = Kept::open(Path::new(&dir), &store).unwrap();
        let twice = Kept::open(Path::new(&dir), &store).unwrap_err();
        assert!(twice.to_string().contains("in use"), "{twice}");
        kept.shell(&world.sandbox, &world.jobs).unwrap();
        return;
    }
    enter_again(World::new().unwrap());
    enter_again(world.unstacked());
}

fn enter_again(mut world: World) {
    world.options.keep_failed = true;
    world.package(
        "p",
        "echo evidence >clue; echo changed >/etc/changed; echo x >/lib/added; rm /bin/vi; env | sort >env; exit 1",
    );
    world.add_source("p", "source.txt", b"source\n");
    let failure = world.realise(&["p"]).unwrap_err();
    let kept = failure.error.kept().unwrap().to_owned();
    // The layers below may go; they are made again.
    for layer in Layers::below(&world.scratch()).unwrap().list() {
        Layers::below(&world.scratch())
            .unwrap()
            .remove(&layer.sha256);
    }
    let mut shell = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "limits::a_kept_build_is_entered_again_with_its_root_its_environment_and_its_user",
            "--nocapture",
        ])
        .env(ENTER, &kept)
        .env(ENTER_STORE, world.path().join("store"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    shell
        .stdin
        .take()
        .unwrap()
        .write_all(b"pwd; cat clue source.txt /etc/changed /lib/added; id -u; hostname; ls /bin/vi; env | sort | diff - env | grep -v _=; cat /proc/net/dev | wc -l; touch more; echo end; exit 3\n")
        .unwrap();
    let output = shell.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let text = text.split("running 1 test\n").last().unwrap();
    let text = text.split("end\n").next().unwrap().trim();
    assert!(
        text.starts_with("/home/build\nevidence\nsource\nchanged\nx\n1000\nbuild\n"),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let rest: Vec<_> = text.lines().skip(7).collect();
    assert_eq!(
        rest,
        ["3"],
        "the environment is the same, and there is no network: {text}"
    );
    assert!(
        kept.join("root/home/build/more").is_file(),
        "it is the directory itself"
    );
}

#[test]
fn what_no_build_left_is_not_entered() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("store")).unwrap();
    let refused = |text: &str| {
        let error = Kept::open(dir.path(), &store).unwrap_err();
        assert!(error.to_string().contains(text), "{error}");
    };
    refused("none that a failed build left");
    fs::write(dir.path().join("kept.json"), "{}").unwrap();
    refused("cannot be read");
    fs::write(dir.path().join("kept.json"), vec![b' '; 2 << 20]).unwrap();
    refused("too long");
}

#[test]
fn a_build_that_takes_too_long_is_killed_with_all_its_children() {
    let Some(mut world) = World::new() else {
        return;
    };
    world.options.limits.wall = Duration::from_millis(500);
    world.package(
        "p",
        "(while :; do echo x; sleep 0.05; done) & sleep 4242.001",
    );
    assert_eq!(
        ending(&mut world, "p"),
        Ending::TookTooLong(Duration::from_millis(500))
    );
    assert_eq!(runs("4242.001"), Vec::<i32>::new());
    assert!(world.left_in_scratch().is_empty());
}

#[test]
fn a_build_that_falls_silent_is_killed() {
    let Some(mut world) = World::new() else {
        return;
    };
    world.options.limits.silence = Duration::from_millis(500);
    world.package("p", "echo last words; sleep 4242.002");
    assert_eq!(
        ending(&mut world, "p"),
        Ending::Silent(Duration::from_millis(500))
    );
    assert_eq!(runs("4242.002"), Vec::<i32>::new());
}

#[test]
fn a_build_that_prints_without_end_is_killed_at_the_bound() {
    let Some(mut world) = World::new() else {
        return;
    };
    world.options.limits.log_bytes_max = 1 << 20;
    world.package("p", "yes 0123456789");
    assert_eq!(ending(&mut world, "p"), Ending::LoggedTooMuch(1 << 20));
    let log = fs::read_dir(world.path().join("logs"))
        .unwrap()
        .next()
        .unwrap()
        .unwrap();
    assert_eq!(log.metadata().unwrap().len(), 1 << 20);
}

#[test]
fn a_build_is_killed_before_the_disk_is_full_and_what_it_wrote_is_removed() {
    let Some(mut world) = World::new() else {
        return;
    };
    let sized = rustix::fs::statvfs(world.path()).is_ok_and(|disk| disk.f_blocks > 0);
    let sized = sized
        .then_some(())
        .ok_or_else(|| "the disk does not tell its size".to_owned());
    if !can_go_on(&sized, "P2PKGS_REQUIRE_SIZED_DISK") {
        return;
    }
    // As much as any disk can say: some that lie in memory say almost 2^63.
    world.options.limits.disk_free_min = u64::MAX;
    world.package(
        "p",
        "dd if=/dev/zero of=big bs=1M count=8 2>&1; sleep 4242.006",
    );
    let failure = world.realise(&["p"]).unwrap_err();
    assert_eq!(failure.error.kind(), ErrorKind::DiskFull);
    assert!(
        failure.to_string().contains("left on the disk"),
        "{failure}"
    );
    assert!(runs("4242.006").is_empty());
    assert!(world.left_in_scratch().is_empty());
}

#[test]
fn a_build_that_takes_too_much_memory_is_killed() {
    let Some(mut world) = World::new() else {
        return;
    };
    world.options.limits.memory_max = 64 << 20;
    world.package("p", "dd if=/dev/zero of=/dev/null bs=256M count=1000000");
    let ending = ending(&mut world, "p");
    assert_eq!(ending, Ending::TookTooMuchMemory(64 << 20));
    let text = ending.to_string();
    assert_eq!(text, "was killed when it took more than 64 MiB of memory");
    assert!(runs("bs=256M").is_empty());
    assert!(world.left_in_scratch().is_empty());
}

#[test]
fn a_build_that_starts_processes_without_end_is_killed_with_all_of_them() {
    let Some(mut world) = World::new() else {
        return;
    };
    world.options.limits.processes_max = 300;
    world.package(
        "p",
        "sleeping() { sleep 4242.007 & }; bomb() { sleeping; bomb & bomb; }; bomb",
    );
    let ending = ending(&mut world, "p");
    assert_eq!(ending, Ending::TooManyProcesses(300));
    let text = ending.to_string();
    assert_eq!(text, "was killed when it ran more than 300 processes");
    assert!(runs("4242.007").is_empty());
    assert!(world.left_in_scratch().is_empty());
}

#[test]
fn a_build_within_its_limits_is_left_alone_however_its_processes_share_memory() {
    let Some(mut world) = World::new() else {
        return;
    };
    // Each has the same few megabytes, which all of them share.
    world.options.limits.memory_max = 64 << 20;
    world.options.limits.processes_max = 300;
    world.package(
        "p",
        "big=$(head -c 4000000 /dev/zero | tr '\\0' x)
         for n in $(seq 1 40); do (read line </dev/zero & sleep 0.5; kill $!) & done; wait; mkdir $DESTDIR/share; echo $(id -u) >$DESTDIR/share/id",
    );
    assert_eq!(world.built_text("p", "share/id"), "1000\n");
}

#[test]
fn a_cancelled_build_leaves_nothing_running_and_nothing_behind() {
    let Some(mut world) = World::new() else {
        return;
    };
    world.observer.stop_at = Some("started");
    world.package(
        "p",
        "trap '' INT TERM HUP; (trap '' TERM; sleep 4242.003) & echo started; sleep 4242.003",
    );
    let failure = world.realise(&["p"]).unwrap_err();
    assert_eq!(failure.error.kind(), ErrorKind::Cancelled);
    assert_eq!(runs("4242.003"), Vec::<i32>::new());
    assert!(world.left_in_scratch().is_empty());
}

#[test]
fn what_a_script_leaves_running_is_dead_before_its_output_is_read() {
    let Some(mut world) = World::new() else {
        return;
    };
    world.package(
        "p",
        "mkdir -p $DESTDIR/share
         for n in 1 2 3 4; do (while :; do echo 4242.004 >>$DESTDIR/share/grows$n; done) & done
         (sleep 4242.004; echo late) &
         until [ -s $DESTDIR/share/grows4 ]; do :; done",
    );
    let report = world.realise(&["p"]).unwrap();
    assert_eq!(report.built.len(), 1);
    assert_eq!(runs("4242.004"), Vec::<i32>::new());
}

#[test]
fn a_build_dies_with_the_program_that_started_it() {
    const HELPER: &str = "P2PKGS_TEST_BUILD_AND_BE_KILLED";
    if std::env::var_os(HELPER).is_some() {
        let mut world = World::new().unwrap();
        world.package("p", "sleep 4242.005");
        let _ = world.realise(&["p"]);
        return;
    }
    if World::new().is_none() {
        return;
    }
    let test = "limits::a_build_dies_with_the_program_that_started_it";
    let mut helper = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(HELPER, "1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = BufReader::new(helper.stdout.take().unwrap());
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    let sleeping = loop {
        if let Some(pid) = runs("sleep\u{0}4242.005").first() {
            break *pid;
        }
        assert!(
            helper.try_wait().unwrap().is_none(),
            "the build ended by itself"
        );
        std::thread::yield_now();
    };
    let sleeping = pidfd_open(Pid::from_raw(sleeping).unwrap(), PidfdFlags::empty()).unwrap();
    helper.kill().unwrap();
    helper.wait().unwrap();
    let mut fds = [PollFd::new(&sleeping, PollFlags::IN)];
    let deadline = Timespec {
        tv_sec: 30,
        tv_nsec: 0,
    };
    assert_eq!(
        poll(&mut fds, Some(&deadline)).unwrap(),
        1,
        "the build outlived its starter"
    );
}

#[test]
fn the_default_limits_are_generous() {
    let limits = Limits::default();
    assert!(limits.wall >= Duration::from_secs(3600) && limits.silence >= Duration::from_secs(600));
}
