//! The other transports, and the networks with a key.

use std::fs;

use serde_json::json;

use crate::support::{Home, Kubo, MODERN, Role, World, sha256_of, write_file};

/// Length of the files: a few blocks.
const SIZE: u64 = (3 << 20) + 7;

/// A file goes from us to Kubo and another one back to us; what Kubo says of its connection.
fn there_and_back(world: &World, home: &Home<'_>, kubo: &Kubo<'_>) -> String {
    let file = world.path("file");
    let sha256 = write_file(&file, SIZE);
    let cid = home.add(&file);
    let daemon = home.daemon(Role::DhtServer, None);
    kubo.connect(&daemon.address());
    assert_eq!(sha256_of(&kubo.get(&cid)), sha256);
    let connections = kubo.run(&["swarm", "peers"]);
    daemon.kill();
    let sha256 = write_file(&file, SIZE + 1);
    let cid = kubo.add(&file);
    assert_eq!(sha256_of(&home.fetch(&cid, &kubo.address())), sha256);
    connections
}

/// The same with a Kubo that secures TCP in one way only.
fn with_security(off: &str) {
    let Some(world) = World::with_kubo() else {
        return;
    };
    let kubo = Kubo::start_with(&world, MODERN, Role::DhtServer, None, |setup| {
        setup.config["Swarm"]["Transports"]["Security"][off] = json!(false);
    });
    let connections = there_and_back(&world, &world.home("home"), &kubo);
    assert!(connections.contains("/tcp/"), "{connections}");
}

#[test]
fn files_go_both_ways_over_noise() {
    with_security("TLS");
}

#[test]
fn files_go_both_ways_over_tls() {
    with_security("Noise");
}

#[test]
fn files_go_both_ways_over_quic() {
    let Some(world) = World::with_kubo() else {
        return;
    };
    let quic = "/ip4/127.0.0.1/udp/0/quic-v1";
    let home = world.home("home").with("P2PKGS_NETWORK_LISTEN", quic);
    let kubo = Kubo::start_with(&world, MODERN, Role::DhtServer, None, |setup| {
        setup.config["Addresses"]["Swarm"] = json!([quic]);
    });
    let connections = there_and_back(&world, &home, &kubo);
    assert!(connections.contains("/quic-v1"), "{connections}");
}

#[test]
fn files_go_both_ways_in_a_private_swarm_and_to_nobody_else() {
    let Some(world) = World::with_kubo() else {
        return;
    };
    let home = world.home("home").with("P2PKGS_PROFILE", "private");
    home.ok(&["key", "swarm"]);
    let key = fs::read_to_string(home.path("swarm.key")).unwrap();
    let start = |swarm_key: Option<String>| {
        Kubo::start_with(&world, MODERN, Role::DhtServer, None, |setup| {
            setup.swarm_key = swarm_key;
        })
    };
    there_and_back(&world, &home, &start(Some(key.clone())));
    let daemon = home.daemon(Role::DhtServer, None);
    start(None).cannot_connect(&daemon.address());
    // The last digit of the key is another one.
    let mut other = key.trim_end().to_owned();
    let last = if other.pop() == Some('0') { '1' } else { '0' };
    start(Some(format!("{other}{last}\n"))).cannot_connect(&daemon.address());
}
