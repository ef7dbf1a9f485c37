//! No more jobs at once than allowed, over all builds together: real makes, and clients of both forms of the protocol.

use std::fs;
use std::path::Path;
use std::process::Command;

use builder::testing::{World, can_go_on, full, name};
use builder::{JobServer, Report};

/// Set to 1 where a machine without make is a failure.
const REQUIRE_MAKE: &str = "P2PKGS_REQUIRE_SANDBOX";

/// A job of a build: it notes when it began and when it ended, in hundredths of a second since the machine started.
const JOB: &str = "#!/bin/sh
now() { read -r up idle </proc/uptime; echo \"${up%.*}${up#*.}\"; }
from=$(now); sleep 0.15; echo \"$from $(now)\" >times/$1
";

/// The last lines of every recipe here: its output is when its jobs ran.
const KEEP_TIMES: &str = "mkdir $DESTDIR/share; cat times/* >$DESTDIR/share/times";

/// The jobs of the builds that a report tells of: from when to when each ran.
fn jobs(world: &World, report: &Report, packages: &[&str]) -> Vec<(u64, u64)> {
    let mut jobs = Vec::new();
    for package in packages {
        let blob = &report.realised[&name(package)].blob;
        let dest = tempfile::tempdir().unwrap();
        let archive = world.store.open_blob(&blob.sha256).unwrap().unwrap();
        store::archive::unpack(archive, dest.path(), &Default::default()).unwrap();
        let times = fs::read_to_string(dest.path().join("share/times")).unwrap();
        for line in times.lines() {
            let (from, to) = line.split_once(' ').unwrap();
            jobs.push((from.parse().unwrap(), to.parse().unwrap()));
        }
    }
    jobs
}

/// How many ran at once at most. A job began no earlier than another's end if it may have begun because of it.
fn most_at_once(jobs: &[(u64, u64)]) -> usize {
    let running_at = |time: u64| jobs.iter().filter(|(a, b)| *a <= time && time < *b).count();
    jobs.iter()
        .map(|(from, _)| running_at(*from))
        .max()
        .unwrap()
}

/// Puts the host's make and its libraries into a package's home; false, after saying so, where there is none.
fn bring_make(world: &mut World, package: &str) -> bool {
    let listed = Command::new("sh")
        .args(["-c", "command -v make && ldd $(command -v make)"])
        .output();
    let listed = listed.ok().filter(|o| o.status.success());
    let works = listed.ok_or_else(|| "no dynamically linked make on this machine".to_owned());
    if !can_go_on(&works.clone().map(|_| ()), REQUIRE_MAKE) {
        return false;
    }
    let listed = String::from_utf8(works.unwrap().stdout).unwrap();
    for path in listed
        .split_whitespace()
        .filter(|word| word.starts_with('/'))
    {
        let file = Path::new(path).file_name().unwrap().to_string_lossy();
        let file = if file.starts_with("ld-") {
            "loader".into()
        } else {
            file
        };
        world.add_file(package, &file, true, &fs::read(path).unwrap());
    }
    true
}

/// Never more than the server's four at once, and more than the one job that each of two builds owns: the rest was lent. That
/// all four ran at one moment is nothing a busy machine promises.
fn assert_shared(jobs: &[(u64, u64)]) {
    let most = most_at_once(jobs);
    assert!((3..=4).contains(&most), "{most} at once");
}

#[test]
fn the_makes_of_two_builds_share_the_jobs_of_one_server() {
    let Some(mut world) = World::new() else {
        return;
    };
    world.jobs = JobServer::new(4).unwrap();
    let packages = ["a", "b"];
    for package in packages {
        let script = format!("mkdir times; ./loader --library-path . ./make; {KEEP_TIMES}");
        world.package(package, &script);
        world.add_file(package, "job", true, JOB.as_bytes());
        let makefile = b"all: 1 2 3 4 5 6 7 8 9\n1 2 3 4 5 6 7 8 9:\n\t@./job $@\n";
        world.add_file(package, "Makefile", false, makefile);
        if !bring_make(&mut world, package) {
            return;
        }
    }
    let report = world
        .realise(&packages)
        .unwrap_or_else(|f| panic!("{}", full(&f)));
    let jobs = jobs(&world, &report, &packages);
    assert_eq!(jobs.len(), 18);
    assert_shared(&jobs);
    let output = world.observer.output.lock().unwrap();
    assert!(
        !output.contains("jobserver"),
        "make has something to say: {output}"
    );
}

/// A client as make is one: its first job is free, each further one costs a byte. `$in` and `$out` are descriptors.
const CLIENT: &str = "mkdir times
./job 0 & for n in 1 2 3 4 5 6; do
  dd bs=1 count=1 <&$in >byte$n 2>/dev/null; [ -s byte$n ]
  { ./job $n; cat byte$n >&$out; } &
done; wait; wait";

#[test]
fn clients_of_the_older_and_the_newer_form_share_the_jobs_too() {
    let Some(mut world) = World::new() else {
        return;
    };
    world.jobs = JobServer::new(4).unwrap();
    let packages = ["older", "newer"];
    let older = "in=${PKG_JOBSERVER%,*} out=${PKG_JOBSERVER#*,}";
    let newer = "exec 5<>/proc/self/fd/${PKG_JOBSERVER%,*}; in=5 out=5";
    for (package, form) in packages.into_iter().zip([older, newer]) {
        world.package(package, &format!("{form}\n{CLIENT}\n{KEEP_TIMES}"));
        world.add_file(package, "job", true, JOB.as_bytes());
    }
    let report = world
        .realise(&packages)
        .unwrap_or_else(|f| panic!("{}", full(&f)));
    let jobs = jobs(&world, &report, &packages);
    assert_eq!(jobs.len(), 14);
    assert_shared(&jobs);
}

#[test]
fn a_build_that_fails_with_jobs_in_its_hands_leaves_them_to_the_next() {
    let Some(mut world) = World::new() else {
        return;
    };
    world.jobs = JobServer::new(3).unwrap();
    world.options.keep_going = true;
    let take_two = "dd bs=1 count=2 <&${PKG_JOBSERVER%,*} >/dev/null 2>&1";
    world.package("bad", &format!("{take_two}; exit 1"));
    world.package("good", &format!("{take_two}; mkdir $DESTDIR/share"));
    for root in ["bad", "good"] {
        let _ = world.realise(&[root]);
    }
    assert!(world.observer.saw("good built"));
}

#[test]
fn the_number_of_jobs_is_no_part_of_what_is_built() {
    let Some(mut world) = World::new() else {
        return;
    };
    world.package("p", "mkdir $DESTDIR/share");
    let (graph, ids) = world.graph(&["p"]);
    let derivation = graph.derivation(ids[0]).to_string();
    assert!(!derivation.contains("MAKEFLAGS") && !derivation.contains("JOBSERVER"));
}
