//! Three nodes: holder and fetcher find each other through the DHT node that both know.

use base::Sha256;

use crate::support::{Kubo, MODERN, Net, Role, World, sha256_of, write_file};

/// Length of the files: a few blocks, because only the finding is of interest here.
const SIZE: u64 = (3 << 20) + 7;

/// A world and a file in it.
fn world(net: Net) -> Option<(World, Sha256)> {
    let world = World::on(net)?;
    let sha256 = write_file(&world.path("file"), SIZE);
    Some((world, sha256))
}

#[test]
fn a_kubo_dht_server_leads_kubo_to_our_daemon() {
    a_kubo_dht_server_leads_kubo_to_our_daemon_on(Net::Loopback);
}

#[test]
fn on_public_addresses_a_kubo_dht_server_leads_kubo_to_our_daemon() {
    a_kubo_dht_server_leads_kubo_to_our_daemon_on(Net::Public);
}

fn a_kubo_dht_server_leads_kubo_to_our_daemon_on(net: Net) {
    let Some((world, sha256)) = world(net) else {
        return;
    };
    let server = Kubo::start(&world, MODERN, Role::DhtServer, None);
    let home = world.home("mirror");
    let daemon = home.daemon(Role::DhtClient, Some(&server.address()));
    let cid = home.add(&world.path("file"));
    daemon.wait_until_all_is_announced();
    let user = Kubo::start(&world, MODERN, Role::DhtClient, Some(&server.address()));
    user.wait_for_dht_peer(&server.peer_id());
    assert!(!user.knows(daemon.peer_id()));
    assert_eq!(sha256_of(&user.get(&cid)), sha256);
    assert!(user.knows(daemon.peer_id()));
}

#[test]
fn a_kubo_dht_server_leads_a_command_of_ours_to_kubo() {
    a_kubo_dht_server_leads_a_command_of_ours_to_kubo_on(Net::Loopback);
}

#[test]
fn on_public_addresses_a_kubo_dht_server_leads_a_command_of_ours_to_kubo() {
    a_kubo_dht_server_leads_a_command_of_ours_to_kubo_on(Net::Public);
}

fn a_kubo_dht_server_leads_a_command_of_ours_to_kubo_on(net: Net) {
    let Some((world, sha256)) = world(net) else {
        return;
    };
    let server = Kubo::start(&world, MODERN, Role::DhtServer, None);
    let holder = Kubo::start(&world, MODERN, Role::DhtClient, Some(&server.address()));
    holder.wait_for_dht_peer(&server.peer_id());
    let cid = holder.add(&world.path("file"));
    holder.announce(&cid);
    let fetched = world.home("user").fetch(&cid, &server.address());
    assert_eq!(sha256_of(&fetched), sha256);
}

#[test]
fn our_daemon_as_the_dht_server_leads_kubo_to_kubo() {
    our_daemon_as_the_dht_server_leads_kubo_to_kubo_on(Net::Loopback);
}

#[test]
fn on_public_addresses_our_daemon_as_the_dht_server_leads_kubo_to_kubo() {
    our_daemon_as_the_dht_server_leads_kubo_to_kubo_on(Net::Public);
}

fn our_daemon_as_the_dht_server_leads_kubo_to_kubo_on(net: Net) {
    let Some((world, sha256)) = world(net) else {
        return;
    };
    let server = world.home("server").daemon(Role::DhtServer, None);
    let address = server.address();
    let holder = Kubo::start(&world, MODERN, Role::DhtClient, Some(&address));
    holder.wait_for_dht_peer(server.peer_id());
    let cid = holder.add(&world.path("file"));
    holder.announce(&cid);
    let user = Kubo::start(&world, MODERN, Role::DhtClient, Some(&address));
    user.wait_for_dht_peer(server.peer_id());
    assert!(!user.knows(&holder.peer_id()));
    assert_eq!(sha256_of(&user.get(&cid)), sha256);
    assert!(user.knows(&holder.peer_id()));
}

#[test]
fn a_source_that_kubo_holds_as_one_block_is_found_by_its_sha256() {
    let Some(world) = World::with_kubo() else {
        return;
    };
    let server = Kubo::start(&world, MODERN, Role::DhtServer, None);
    let holder = Kubo::start(&world, MODERN, Role::DhtClient, Some(&server.address()));
    holder.wait_for_dht_peer(&server.peer_id());
    let sha256 = write_file(&world.path("file"), 1 << 20);
    let cid = holder.add(&world.path("file"));
    holder.announce(&cid);
    let content = format!("sha256:{sha256}");
    let fetched = world.home("user").fetch(&content, &server.address());
    assert_eq!(sha256_of(&fetched), sha256);
}
