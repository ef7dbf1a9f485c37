//! A command beside a daemon lets the daemon look for it.

use base::Multihash;

use super::*;

/// A command whose home has this daemon.
async fn command(daemon: &TestNode) -> TestNode {
    TestNode::start(Config {
        listen: Vec::new(),
        daemon: Some(daemon.peer_id()),
        ..config(DhtMode::Client, &[&daemon.address])
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_daemon_walks_the_dht_for_a_command_and_answers_the_next_one_at_once() {
    let middle = TestNode::server(&[]).await;
    let holder = TestNode::server(&[&middle.address]).await;
    let blob = holder.mirror(&content(1, 3 << 20));
    middle.keeps(1).await;
    let daemon = TestNode::server(&[&middle.address]).await;

    let user = command(&daemon).await;
    let fetched = user.fetch_source(blob.sha256).await.unwrap();
    assert_eq!(fetched.blob, blob);
    assert!(fetched.asked.dht_nodes >= 1, "{}", fetched.asked);

    // The DHT is gone; the daemon still knows who has it.
    middle.node.stop().await;
    let next = command(&daemon).await;
    let fetched = next.fetch_source(blob.sha256).await.unwrap();
    assert_eq!(fetched.blob, blob);
    let key = Multihash::sha2_256(&blob.sha256);
    let found = next.client_handle().find_providers(key).await.unwrap();
    assert_eq!(found.peers, [holder.peer_id()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_names_itself_for_what_it_announces() {
    let middle = TestNode::server(&[]).await;
    let daemon = TestNode::server(&[&middle.address]).await;
    let blob = daemon.mirror(b"something");
    middle.keeps(1).await;
    let user = command(&daemon).await;
    let key = Multihash::sha2_256(&blob.sha256);
    let found = user.client_handle().find_providers(key).await.unwrap();
    assert_eq!(found.peers, [daemon.peer_id()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_learns_of_the_daemons_neighbours_who_announce_nothing() {
    let neighbour = TestNode::server(&[]).await;
    let blob = ingest(&neighbour.store, &content(1, 3 << 20));
    let daemon = TestNode::server(&[&neighbour.address]).await;
    let met = |status: &Status| status.peers.iter().any(|peer| !peer.agent.is_empty());
    eventually(daemon.client_handle(), "the neighbour", met).await;
    let user = command(&daemon).await;
    let fetched = user.fetch_source(blob.sha256).await.unwrap();
    assert_eq!(fetched.blob, blob);
    let other = command(&daemon).await;
    let (client, store) = (other.client_handle().blocking(), other.store.clone());
    let fetch = move || client.fetch_cid(blob.root, &[], &store, &NoProgress);
    let fetch = in_time("a fetch", tokio::task::spawn_blocking(fetch)).await;
    assert_eq!(fetch.unwrap().unwrap().blob.sha256, blob.sha256);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_looks_for_itself_when_the_daemon_does_not() {
    let middle = TestNode::server(&[]).await;
    let holder = TestNode::server(&[&middle.address]).await;
    let blob = holder.mirror(b"something");
    middle.keeps(1).await;
    // It knows the DHT, and not of walks for others.
    let older = TestNode::start(config(DhtMode::Server, &[&middle.address])).await;
    let user = command(&older).await;
    let fetched = user.fetch_source(blob.sha256).await.unwrap();
    assert_eq!(fetched.blob, blob);
    let TestNode { node, address, .. } = older;
    let peer = node.client().peer_id();
    node.stop().await;
    let user = TestNode::start(Config {
        listen: Vec::new(),
        daemon: Some(peer),
        ..config(DhtMode::Client, &[&address, &middle.address])
    })
    .await;
    let fetched = user.fetch_source(blob.sha256).await.unwrap();
    assert_eq!(fetched.blob, blob);
}
