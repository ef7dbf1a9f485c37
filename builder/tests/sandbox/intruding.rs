//! A program that tries what builds must not be able to do (`intruder.c`), and what it gets for an answer.

use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::Path;
use std::process::Command;

use builder::testing::{World, can_go_on};

/// The intruder, which needs nothing of the root it runs in.
fn intruder(dir: &Path) -> Option<Vec<u8>> {
    let program = dir.join("intruder");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sandbox/intruder.c");
    let compiler = std::env::var_os("CC").unwrap_or_else(|| "cc".into());
    let compiled = Command::new(compiler)
        .args(["-static", "-O1", "-w", "-o"])
        .args([&program, &source])
        .output();
    let works = match compiled {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(!text.contains("error:"), "{text}");
            Err(format!("no static C library: {text}"))
        }
        Err(error) => Err(format!("no C compiler: {error}")),
    };
    can_go_on(&works, "P2PKGS_REQUIRE_COMPILER").then(|| std::fs::read(&program).unwrap())
}

#[test]
fn an_intruder_gets_nowhere() {
    let Some(mut world) = World::new() else {
        return;
    };
    if !world.sandbox.get().unwrap().filters() {
        can_go_on(
            &Err("no filters of system calls".into()),
            "P2PKGS_REQUIRE_FILTERS",
        );
        return;
    }
    let Some(program) = intruder(world.path()) else {
        return;
    };
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = tcp.local_addr().unwrap().port();
    let name = format!("p2pkgs-test-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let _abstract = UnixListener::bind_addr(&address).unwrap();
    let script = format!(
        "mkdir $DESTDIR/share; chmod +x intruder; ./intruder {port} {name} >$DESTDIR/share/tried"
    );
    world.package("p", &script);
    world.add_source("p", "intruder", &program);
    let tried = world.built_text("p", "share/tried");
    let mut lines: Vec<_> = tried.lines().collect();
    let terminal = lines
        .iter()
        .position(|l| l.starts_with("terminal: "))
        .unwrap();
    assert_ne!(lines.remove(terminal), "terminal: allowed");
    let expected = "\
        keyctl: ENOSYS\nadd_key: ENOSYS\nrequest_key: ENOSYS\nbpf: ENOSYS\nperf_event_open: ENOSYS\nuserfaultfd: ENOSYS\n\
        io_uring_setup: ENOSYS\nmount: ENOSYS\nfsopen: ENOSYS\nopen_tree: ENOSYS\nsetns: ENOSYS\nkexec_load: ENOSYS\n\
        syslog: ENOSYS\nfchmod 755: allowed\nfchmod 4755: EPERM\nfchmod 2755: EPERM\nchmod 4755: EPERM\n\
        fchmodat 4755: EPERM\nfchmodat2 4755: EPERM\nopen 4755: EPERM\nopen with a mode that means nothing: allowed\n\
        setxattr: ENOTSUP\nfsetxattr capability: ENOTSUP\nvsock: EAFNOSUPPORT\nkernel crypto: EAFNOSUPPORT\n\
        netlink: allowed\nhost's listener: ECONNREFUSED\nhost's abstract socket: ECONNREFUSED\npty: allowed\n\
        TIOCSTI: EPERM\nsetuid: EINVAL";
    assert_eq!(lines, expected.lines().collect::<Vec<_>>());
}

#[test]
fn a_build_has_no_rights_and_can_get_none() {
    let Some(mut world) = World::new() else {
        return;
    };
    world.package(
        "p",
        "mkdir $DESTDIR/share; grep -E '^(Cap|NoNewPrivs|Groups)' /proc/self/status >$DESTDIR/share/rights
         for mount in / /bin /home /tmp /destdir /proc /dev; do
           grep \" $mount \" /proc/self/mountinfo | grep -q nosuid || echo $mount honours set-uid bits >>$DESTDIR/share/rights
         done",
    );
    let rights = world.built_text("p", "share/rights");
    for line in rights.lines() {
        let (what, value) = line.split_once(':').unwrap_or((line, "nothing"));
        match what {
            "CapInh" | "CapPrm" | "CapEff" | "CapAmb" => {
                assert_eq!(value.trim(), "0".repeat(16), "{what}");
            }
            "NoNewPrivs" => assert_eq!(value.trim(), "1"),
            // What might be regained by a set-uid program, of which there can be none.
            "CapBnd" | "Groups" => {}
            other => panic!("{other}"),
        }
    }
}

#[test]
fn a_build_has_no_terminal() {
    let Some(mut world) = World::new() else {
        return;
    };
    world.package(
        "p",
        "set +e; mkdir $DESTDIR/share; { tty; (: </dev/tty) 2>/dev/null && echo has one; cut -d' ' -f7 /proc/self/stat; } >$DESTDIR/share/tty; true",
    );
    assert_eq!(world.built_text("p", "share/tty"), "not a tty\n0\n");
}
