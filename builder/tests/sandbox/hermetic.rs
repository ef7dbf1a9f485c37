//! What a build can see: the contract and nothing besides.

use builder::testing::World;

#[test]
fn the_environment_is_exactly_the_contract() {
    let Some(mut world) = World::new() else {
        return;
    };
    world.package(
        "p",
        "mkdir -p $DESTDIR/share; env | sort >$DESTDIR/share/env",
    );
    let env = world.built_text("p", "share/env");
    // SHLVL is BusyBox ash's own, PWD bubblewrap's.
    let lines: Vec<_> = env.lines().filter(|l| !l.starts_with("SHLVL=")).collect();
    assert_eq!(
        lines,
        [
            "DESTDIR=/destdir",
            "HOME=/home/build",
            "LC_ALL=C",
            "MAKEFLAGS=-j2 --jobserver-auth=900,901",
            "PATH=/bin:/usr/bin",
            "PKG_JOBSERVER=900,901",
            "PWD=/home/build",
            "SOURCE_DATE_EPOCH=1609459200",
            "TMPDIR=/tmp",
            "TZ=UTC",
        ]
    );
}

#[test]
fn the_build_user_is_named_and_nobody_special() {
    let Some(mut world) = World::new() else {
        return;
    };
    world.package(
        "p",
        "mkdir -p $DESTDIR/share; { id -u; id -g; id -un; hostname; pwd; umask; date +%Z; } >$DESTDIR/share/who",
    );
    let who = world.built_text("p", "share/who");
    assert_eq!(who, "1000\n1000\nbuild\nbuild\n/home/build\n0022\nUTC\n");
}

#[test]
fn the_root_holds_the_skeleton_and_nothing_of_the_host() {
    let Some(mut world) = World::new() else {
        return;
    };
    world.package(
        "p",
        "mkdir -p $DESTDIR/share; ls -A / >$DESTDIR/share/root; ls -A /etc /tmp /home /var /usr /home/build >>$DESTDIR/share/root
         ls -d /root /sys /opt /etc/shadow /etc/hostname 2>/dev/null && exit 1; true",
    );
    let root = world.built_text("p", "share/root");
    assert_eq!(
        root,
        "bin\nbuild\ndestdir\ndev\netc\nhome\ninclude\nlib\nlibexec\nproc\nrun\nshare\ntmp\nusr\nvar\n\
         /etc:\ngroup\npasswd\n\n/home:\nbuild\n\n/home/build:\n\n/tmp:\n\n/usr:\n\n/var:\n"
    );
}

#[test]
fn there_is_no_network_no_other_process_and_no_way_to_the_kernels_settings() {
    let Some(mut world) = World::new() else {
        return;
    };
    world.package(
        "p",
        "set +e; mkdir -p $DESTDIR/share; exec >$DESTDIR/share/seen
         ls /sys/class/net 2>/dev/null; grep : /proc/net/dev | cut -d: -f1 | tr -d ' '
         ping -c1 -w1 1.1.1.1 >/dev/null 2>&1 && echo pinged
         nc -w1 127.0.0.1 22 </dev/null >/dev/null 2>&1 && echo connected
         echo processes $(ls -d /proc/[0-9]* | wc -l)
         # Opened for writing, but nothing is written: were it possible, it would hit this machine.
         for file in $(find /proc/sys /proc/fs /proc/irq /proc/[a-z]* -maxdepth 2 -type f 2>/dev/null); do
           case $file in /proc/self/* | /proc/thread-self/*) continue ;; esac
           (: >>$file) 2>/dev/null && ! [ -c $file ] && echo can write $file
         done
         (: >>/proc/sys/kernel/core_pattern) 2>/dev/null && echo can write core_pattern
         (echo x >/new) 2>/dev/null && echo wrote to the root
         mount -t tmpfs none /tmp 2>/dev/null && echo mounted
         unshare -U true 2>/dev/null && echo unshared
         mknod /tmp/device c 1 3 2>/dev/null && echo made a device
         chown 0:0 /tmp 2>/dev/null && echo changed an owner
         ls -A /proc/acpi /proc/scsi 2>/dev/null | grep -v :
         head -c1 /proc/timer_list 2>/dev/null | wc -c
         true",
    );
    let seen = world.built_text("p", "share/seen");
    // Processes: bubblewrap's own process 1, the script, and what lists them.
    let lines: Vec<_> = seen
        .lines()
        .filter(|l| !l.starts_with("processes "))
        .collect();
    assert_eq!(lines, ["lo", "0"], "{seen}");
    let processes: usize = seen
        .lines()
        .find_map(|l| l.strip_prefix("processes "))
        .unwrap()
        .parse()
        .unwrap();
    assert!(processes <= 5, "{processes}");
}

#[test]
fn no_descriptor_of_ours_is_left_open_inside() {
    let Some(mut world) = World::new() else {
        return;
    };
    // As a shell or a make would leave it to us: open, and inherited by everybody.
    let file = std::fs::File::open("/etc/passwd").unwrap();
    rustix::io::fcntl_setfd(&file, rustix::io::FdFlags::empty()).unwrap();
    world.package(
        "p",
        "mkdir -p $DESTDIR/share; for fd in /proc/$$/fd/*; do readlink $fd || true; done >/tmp/fds; cp /tmp/fds $DESTDIR/share/",
    );
    let fds = world.built_text("p", "share/fds");
    let targets: Vec<_> = fds.lines().collect();
    assert!(targets.contains(&"/dev/null"), "{fds}");
    for target in targets {
        let is_ours = target == "/dev/null"
            || target == "/build"
            || target == "/tmp/fds"
            || target.starts_with("pipe:");
        assert!(is_ours, "{target} is open inside");
    }
}

#[test]
fn sources_and_files_lie_in_the_home_and_the_script_cannot_be_changed() {
    let Some(mut world) = World::new() else {
        return;
    };
    world.package(
        "p",
        "mkdir -p $DESTDIR/share; cat hello.txt sub/patch >$DESTDIR/share/all; ./tool >>$DESTDIR/share/all
         stat -c '%a %Y %n' hello.txt sub/patch tool >>$DESTDIR/share/all
         (echo x >>/build) 2>/dev/null && exit 1; echo changed >hello.txt",
    );
    world.add_source("p", "hello.txt", b"hello\n");
    world.add_file("p", "sub/patch", false, b"patch\n");
    world.add_file("p", "tool", true, b"#!/bin/sh\necho tool\n");
    let all = world.built_text("p", "share/all");
    assert_eq!(
        all,
        "hello\npatch\ntool\n644 1609459200 hello.txt\n644 1609459200 sub/patch\n755 1609459200 tool\n"
    );
    // The build wrote to a copy: the store still has what it had.
    let sha256 = base::Sha256::of(b"hello\n");
    assert_eq!(
        world.store.verify_blob(&sha256).unwrap(),
        store::BlobState::Intact
    );
}

#[test]
fn a_file_that_changed_since_it_was_hashed_stops_the_build() {
    let Some(mut world) = World::new() else {
        return;
    };
    world.package("p", "true");
    world.add_file("p", "patch", false, b"before");
    world.files.0.insert(
        (builder::testing::name("p"), "patch".into()),
        b"after".to_vec(),
    );
    let failure = world.realise(&["p"]).unwrap_err();
    assert!(
        matches!(failure.error, builder::Error::FileChanged { .. }),
        "{failure}"
    );
}
