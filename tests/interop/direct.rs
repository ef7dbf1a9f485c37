//! Two nodes, one of which was told the other's address.

use std::fs;

use crate::support::{Kubo, LEGACY, MODERN, Role, SIZES, World, sha256_of, write_file};

#[test]
fn files_of_the_modern_profile_are_fetched_from_kubo() {
    fetch_from_kubo(MODERN, "bafk");
}

#[test]
fn files_of_the_legacy_profile_are_fetched_from_kubo() {
    fetch_from_kubo(LEGACY, "Qm");
}

fn fetch_from_kubo(profile: &str, prefix: &str) {
    let Some(world) = World::with_kubo() else {
        return;
    };
    let kubo = Kubo::start(&world, profile, Role::DhtServer, None);
    let home = world.home("user");
    for size in SIZES {
        let file = world.path("file");
        let sha256 = write_file(&file, size);
        let cid = kubo.add(&file);
        assert!(size > 1 << 20 || cid.starts_with(prefix), "{cid}");
        let fetched = home.fetch(&cid, &kubo.address());
        assert_eq!(sha256_of(&fetched), sha256, "{size} bytes, {cid}");
    }
}

#[test]
fn kubo_gets_files_from_a_daemon_it_is_connected_to() {
    let Some(world) = World::with_kubo() else {
        return;
    };
    let home = world.home("mirror");
    let daemon = home.daemon(Role::DhtServer, None);
    let kubo = Kubo::start(&world, MODERN, Role::DhtClient, None);
    kubo.connect(&daemon.address());
    for size in SIZES {
        let file = world.path("file");
        let sha256 = write_file(&file, size);
        let cid = home.add(&file);
        assert_eq!(sha256_of(&kubo.get(&cid)), sha256, "{size} bytes, {cid}");
    }
}

/// Length of a file that has one leaf more than a node of our profile has links.
const TWO_LEVELS: u64 = (1 << 30) + 1;

#[test]
fn a_gibibyte_goes_to_kubo_and_from_there_to_another_home() {
    let Some(world) = World::with_kubo() else {
        return;
    };
    let file = world.path("file");
    let sha256 = write_file(&file, TWO_LEVELS);
    let mirror = world.home("mirror");
    let cid = mirror.add(&file);
    let kubo = Kubo::start(&world, MODERN, Role::DhtServer, None);
    assert_eq!(cid, kubo.cid_of(&file));
    fs::remove_file(file).unwrap();
    let daemon = mirror.daemon(Role::DhtServer, None);
    kubo.connect(&daemon.address());
    let got = kubo.get(&cid);
    assert_eq!(sha256_of(&got), sha256);
    fs::remove_file(got).unwrap();
    daemon.kill();
    let fetched = world.home("user").fetch(&cid, &kubo.address());
    assert_eq!(sha256_of(&fetched), sha256);
}

#[test]
fn kubo_and_our_daemon_introduce_themselves_and_answer_pings() {
    let Some(world) = World::with_kubo() else {
        return;
    };
    let daemon = world.home("mirror").daemon(Role::DhtServer, None);
    let kubo = Kubo::start(&world, MODERN, Role::DhtServer, None);
    kubo.connect(&daemon.address());
    let known = kubo.run(&["id", daemon.peer_id()]);
    let known: serde_json::Value = serde_json::from_str(&known).unwrap();
    let agent = concat!("p2pkgs/", env!("CARGO_PKG_VERSION"));
    assert_eq!(known["AgentVersion"], agent);
    let protocols = known["Protocols"].as_array().unwrap();
    for protocol in [
        "/ipfs/bitswap/1.2.0",
        "/ipfs/lan/kad/1.0.0",
        "/ipfs/ping/1.0.0",
    ] {
        assert!(protocols.iter().any(|p| p == protocol), "{known}");
    }
    kubo.run(&["ping", "--count", "1", daemon.peer_id()]);
    daemon.wait_for_status("our daemon knows Kubo as a node of the DHT", |status| {
        let peers = status["peers"].as_array().into_iter().flatten();
        let mut kubos = peers.filter(|peer| peer["agent"].as_str().unwrap().starts_with("kubo/"));
        kubos.any(|peer| peer["dht"] == true)
    });
}

/// Ways to import a file that Kubo offers, each giving a DAG of another shape.
const SHAPES: [&[&str]; 9] = [
    &["--cid-version=1", "--raw-leaves=false"],
    &["--cid-version=0", "--raw-leaves"],
    &["--trickle"],
    &["--trickle", "--raw-leaves", "--max-file-links=3"],
    &["--chunker=rabin"],
    &["--chunker=buzhash", "--raw-leaves"],
    &["--chunker=size-1000", "--max-file-links=2"],
    // The last 8 bytes stand in a CID of their own.
    &["--chunker=size-100", "--inline", "--raw-leaves"],
    &["--preserve-mode", "--preserve-mtime"],
];

#[test]
fn dags_of_every_shape_are_fetched_from_kubo() {
    let Some(world) = World::with_kubo() else {
        return;
    };
    let kubo = Kubo::start(&world, LEGACY, Role::DhtServer, None);
    let home = world.home("user");
    for (number, options) in (1..).zip(SHAPES) {
        for size in [200 + number, 1_000_000 + number] {
            let file = world.path("file");
            let sha256 = write_file(&file, size);
            let args = [&["add", "--quieter"], options, &[file.to_str().unwrap()]].concat();
            let cid = kubo.run(&args);
            let fetched = home.fetch(&cid, &kubo.address());
            assert_eq!(
                sha256_of(&fetched),
                sha256,
                "{options:?}, {size} bytes, {cid}"
            );
        }
    }
}
