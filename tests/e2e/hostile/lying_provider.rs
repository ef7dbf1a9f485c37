//! A peer that announces a source under its right name and delivers something else is found out, dropped, and the fetch
//! completes from another peer.

use base::Sha256;
use rustix::process::Signal;
use std::fs;
use std::process::Child;

use super::liar::{Liar, Orders};
use crate::support::{COMMAND_DEADLINE, Daemon, Finished, TestEnv, signal, start, wait_until};

/// One honest mirror of the large source, one meeting point, no origin.
struct World {
    env: TestEnv,
    meeting: Daemon,
    mirror: Daemon,
    sha256: String,
    root: String,
    size: u64,
}

impl World {
    fn new() -> Self {
        let mut env = TestEnv::new();
        let home = env.home("mirror");
        let seeded = home.ok(&["--json", "mirror", "seed", "big"]);
        let seeded: serde_json::Value = serde_json::from_str(&seeded).unwrap();
        let of = seeded
            .as_array()
            .unwrap()
            .iter()
            .find(|s| s["file"] == "noise.bin")
            .unwrap();
        let text = |name: &str| of[name].as_str().unwrap().to_owned();
        let (sha256, root, size) = (text("sha256"), text("cid"), of["size"].as_u64().unwrap());
        let meeting = env.home("meeting").daemon(&[]);
        let mirror = env.home("mirror").daemon(&[&meeting]);
        mirror.wait_until_all_is_announced();
        env.stop_origin();
        Self {
            env,
            meeting,
            mirror,
            sha256,
            root,
            size,
        }
    }

    fn liar(&self, root: Option<String>) -> Liar {
        let (sha256, size) = (self.sha256.clone(), self.size);
        let log = self.env.path("liar.log");
        Liar::start(&Orders {
            meeting: self.meeting.address(),
            sha256,
            root,
            size,
            log,
        })
    }

    fn start_fetch(&self) -> Child {
        let user = self.env.home("user");
        user.bootstrap_from(&self.meeting);
        let name = format!("sha256:{}", self.sha256);
        start(user.command(&["fetch", &name, "-o", "out"]))
    }

    /// While the mirror stands still the user can only turn to the liar; then the mirror goes on.
    fn fetch_with_the_liar_first(&self, liar: &Liar, lie: &str) -> Finished {
        signal(self.mirror.pid(), Signal::STOP);
        let fetch = self.start_fetch();
        wait_until("the liar has lied", || liar.has_logged(lie));
        signal(self.mirror.pid(), Signal::CONT);
        Finished::wait(fetch, "fetch".into(), COMMAND_DEADLINE)
    }

    fn assert_fetched_from_the_mirror(&self, finished: &Finished) {
        let bytes = fs::read(self.env.path("out")).unwrap();
        assert_eq!(Sha256::of(&bytes).to_string(), self.sha256);
        assert!(
            finished.stderr.contains("1 LAN peer"),
            "{}",
            finished.stderr
        );
    }
}

#[test]
fn a_wrong_root_is_found_out_by_the_sha256() {
    let world = World::new();
    let liar = world.liar(None);
    let finished = world
        .fetch_with_the_liar_first(&liar, "sent wrong bytes")
        .assert_exit(0);
    world.assert_fetched_from_the_mirror(&finished);
}

#[test]
fn wrong_blocks_under_the_right_root_are_never_taken() {
    let world = World::new();
    let liar = world.liar(Some(world.root.clone()));
    let finished = world
        .fetch_with_the_liar_first(&liar, "sent wrong bytes")
        .assert_exit(0);
    world.assert_fetched_from_the_mirror(&finished);
}

#[test]
fn with_nobody_but_a_liar_nothing_is_kept_and_the_liar_is_named() {
    let world = World::new();
    let liar = world.liar(None);
    let World {
        env,
        meeting,
        mirror,
        sha256,
        ..
    } = world;
    mirror.kill();
    let user = env.home("user");
    user.bootstrap_from(&meeting);
    let name = format!("sha256:{sha256}");
    user.run(&["fetch", &name, "-o", "out"])
        .assert_exit(4)
        .assert_says(&sha256);
    assert!(liar.has_logged("claimed"));
    assert!(!env.path("out").exists());
}
