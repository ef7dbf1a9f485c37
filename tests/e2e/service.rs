//! The daemon as a service.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use crate::support::{
    COMMAND_DEADLINE, Daemon, Finished, TestEnv, get, judge, project, wait_until,
};

#[test]
fn a_service_manager_hears_when_the_daemon_is_ready_alive_and_ends() {
    let env = TestEnv::new();
    let home = env.home("mirror");
    let path = env.path("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager
        .set_read_timeout(Some(Duration::from_secs(60)))
        .unwrap();
    let mut message = [0; 512];
    let mut hear = || {
        let length = manager.recv(&mut message).unwrap();
        String::from_utf8_lossy(&message[..length]).into_owned()
    };
    let mut command = home.command(&["node", "run"]);
    command
        .env("NOTIFY_SOCKET", &path)
        .env("WATCHDOG_USEC", "2000000");
    let daemon = Daemon::start(command, &home.path(""));
    let ready = hear();
    assert_eq!(ready, format!("READY=1\nSTATUS=node {}", daemon.peer_id()));
    assert_eq!(hear(), "WATCHDOG=1");
    assert_eq!(hear(), "WATCHDOG=1");
    home.run(&["node", "reload"]).assert_exit(0);
    let mut heard = hear();
    while heard == "WATCHDOG=1" {
        heard = hear();
    }
    assert!(heard.starts_with("RELOADING=1\nMONOTONIC_USEC="), "{heard}");
    assert_eq!(hear(), ready);
    assert_eq!(daemon.stop(), Some(0));
    while hear() != "STOPPING=1" {}
}

#[test]
fn limits_change_while_the_daemon_runs_and_a_broken_file_changes_nothing() {
    let env = TestEnv::new();
    let home = env.home("mirror");
    let daemon = home.daemon(&[]);
    let config = home.path("config.toml");
    let before = fs::read_to_string(&config).unwrap();
    let quota = |bytes: u64| {
        let line = format!("p2pkgs_store_quota_bytes {bytes}\n");
        wait_until("the quota is another", || {
            get(daemon.http(), "/metrics", &[]).text().contains(&line)
        });
    };
    let more =
        "[store]\nquota = \"1 MiB\"\n[limits]\nconnections = 7\ndownload-bytes-per-second = 9\n";
    let text = before.replace("mdns = false", "mdns = false\nrelay-service = true");
    fs::write(&config, format!("{text}\n{more}")).unwrap();
    home.run(&["node", "reload"]).assert_exit(0);
    quota(1 << 20);
    daemon.wait_until_it_says("limits.connections: 256 -> 7");
    daemon.wait_until_it_says("limits.download-bytes-per-second: 0 -> 9");
    daemon.wait_until_it_says("network.relay-service: false -> true (from the next start on)");

    fs::write(&config, "[store\n").unwrap();
    crate::support::signal(daemon.pid(), rustix::process::Signal::HUP);
    daemon.wait_until_it_says("warning: the configuration stays as it was");
    quota(1 << 20);
    fs::write(&config, &before).unwrap();
    home.run(&["node", "reload"]).assert_exit(0);
    daemon.wait_until_it_says("limits.connections: 7 -> 256");
    assert_eq!(daemon.stop(), Some(0));
    home.run(&["node", "reload"])
        .assert_exit(1)
        .assert_says("no daemon runs");
}

#[test]
fn what_is_odd_in_the_store_is_told_without_being_asked_for() {
    let env = TestEnv::new();
    let home = env.home("mirror");
    let file = env.path("file");
    fs::write(&file, "as it was").unwrap();
    let listed = home.ok(&["mirror", "add", "--reference", file.to_str().unwrap()]);
    let sha256 = listed.split(' ').next().unwrap();
    let daemon = home.daemon(&[]);
    fs::write(&file, "changed").unwrap();
    assert_eq!(
        get(daemon.http(), &format!("/sha256/{sha256}"), &[]).code,
        404
    );
    daemon.wait_until_it_says("WARN");
    assert!(!daemon.stderr().contains("INFO"), "{}", daemon.stderr());
}

/// The worst that `systemd-analyze security` may think of the unit, in its tenths: what it calls "OK" ends at 50.
const EXPOSURE_MAX: u32 = 15;

#[test]
fn systemd_understands_the_unit_and_calls_it_confined() {
    let Some(mut verify) = judge("systemd-analyze") else {
        return;
    };
    let mut security = judge("systemd-analyze").unwrap();
    // The unit names the program where a package manager puts it.
    let unit = tempfile::tempdir().unwrap();
    let text = fs::read_to_string(project().join("contrib/systemd/p2pkgs.service")).unwrap();
    let text = text.replace("/usr/local/bin/p2pkgs", crate::support::P2PKGS);
    let file = unit.path().join("p2pkgs.service");
    fs::write(&file, text).unwrap();
    verify.args(["verify", "--man=no"]).arg(&file);
    let finished = Finished::of(verify, COMMAND_DEADLINE).assert_exit(0);
    assert!(
        !finished.stderr.contains("p2pkgs.service:"),
        "{}",
        finished.stderr
    );
    security
        .args(["security", "--offline=true", "--no-pager"])
        .arg(format!("--threshold={EXPOSURE_MAX}"))
        .arg(&file);
    Finished::of(security, COMMAND_DEADLINE).assert_exit(0);
}

#[test]
fn prometheus_finds_no_fault_with_the_metrics() {
    let Some(mut promtool) = judge("promtool") else {
        return;
    };
    let env = TestEnv::new();
    let first = env.home("first").daemon(&[]);
    let daemon = env.home("second").daemon(&[&first]);
    let connected = "libp2p_swarm_connections{";
    wait_until("a connection is counted", || {
        get(daemon.http(), "/metrics", &[])
            .text()
            .contains(connected)
    });
    let metrics = env.path("metrics");
    fs::write(&metrics, get(daemon.http(), "/metrics", &[]).text()).unwrap();
    promtool
        .args(["check", "metrics"])
        .stdin(fs::File::open(&metrics).unwrap());
    let output = promtool.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{said}");
}
