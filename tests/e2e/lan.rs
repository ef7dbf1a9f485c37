//! Two machines on one cable: no Internet, no first peer, no configuration.

use std::fs;
use std::time::Duration;

use crate::support::{COMMAND_DEADLINE, Daemon, Finished, Lan, TestEnv};

#[test]
fn two_machines_without_any_configuration_find_each_other() {
    let Some(lan) = Lan::new() else { return };
    let env = TestEnv::new();
    let (holder, seeker) = (env.home("holder"), env.home("seeker"));
    for home in [&holder, &seeker] {
        fs::remove_file(home.path("config.toml")).unwrap();
    }
    let file = env.path("file");
    fs::write(&file, "something that only one of them has").unwrap();
    let listed = holder.ok(&["mirror", "add", file.to_str().unwrap()]);
    let sha256 = listed.split(' ').next().unwrap().to_owned();
    let command = lan.on(0, &holder.command(&["--json", "node", "run"]));
    let _daemon = Daemon::start(command, &holder.path(""));

    let got = env.path("got");
    let fetch = seeker.command(&[
        "fetch",
        &format!("sha256:{sha256}"),
        "-o",
        got.to_str().unwrap(),
    ]);
    let started = std::time::Instant::now();
    let finished = Finished::of(lan.on(1, &fetch), COMMAND_DEADLINE).assert_exit(0);
    assert!(finished.stderr.contains("LAN peer"), "{}", finished.stderr);
    assert_eq!(fs::read(&got).unwrap(), fs::read(&file).unwrap());
    // Far above the two seconds that it may take on an idle machine, far below any deadline of a lookup.
    assert!(started.elapsed() < Duration::from_secs(8));
}
