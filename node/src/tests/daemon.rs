//! A long-running node and other processes that share its home.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn keys_and_blobs_of_another_process_are_announced_and_served_at_once() {
    let middle = TestNode::server(&[]).await;
    let home = tempfile::tempdir().unwrap();
    let daemon_store = Store::open(home.path()).unwrap();
    let config = Config {
        provide: true,
        ..config(DhtMode::Server, &[&middle.address])
    };
    let daemon = Node::spawn(config, daemon_store).unwrap();
    eventually(daemon.client(), "joining", |status| status.dht_peers == 1).await;
    // Another handle on the same directory, as another process has it.
    let other = Store::open(home.path()).unwrap();
    let blob = ingest(&other, &content(1, 1_100_000));
    other
        .provide(
            &base::Multihash::sha2_256(&blob.sha256),
            ProvideKind::Source,
        )
        .unwrap();
    eventually(daemon.client(), "announcing", |status| {
        status.provide.done == 1
    })
    .await;
    let user = TestNode::client(&[&middle.address]).await;
    assert_eq!(user.fetch_source(blob.sha256).await.unwrap().blob, blob);
    // It is noted for other processes too, so that nobody announces it again before its time.
    let now = std::time::SystemTime::now().duration_since(std::time::SystemTime::UNIX_EPOCH);
    let now = now.unwrap().as_secs();
    let wait = async {
        while !other
            .provides_due(store::ProvideScope::All, now, 10)
            .unwrap()
            .is_empty()
        {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    in_time("the schedule", wait).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_announces_nothing() {
    let middle = TestNode::server(&[]).await;
    let command = TestNode::client(&[&middle.address]).await;
    command.mirror(b"something");
    let key = base::Multihash::sha2_256(&Sha256::of(b"something"));
    // A whole search is more time than a tick.
    for _ in 0..3 {
        let found = command.client_handle().find_providers(key).await.unwrap();
        assert!(found.peers.is_empty());
    }
    let status = command.client_handle().status().await.unwrap();
    assert_eq!((status.provide.done, status.provide.in_flight), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_wait_in_the_queue_until_somebody_can_be_told() {
    let mirror = TestNode::server(&[]).await;
    let blob = mirror.mirror(b"something");
    let status = mirror.client_handle().status().await.unwrap();
    assert_eq!((status.provide.done, status.provide.failed), (0, 0));
    let late = TestNode::server(&[]).await;
    mirror
        .client_handle()
        .connect(late.address.clone())
        .await
        .unwrap();
    late.keeps(1).await;
    let key = base::Multihash::sha2_256(&blob.sha256);
    let found = late.client_handle().find_providers(key).await.unwrap();
    assert_eq!(found.peers, [mirror.peer_id()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_node_announces_its_new_address() {
    let middle = TestNode::server(&[]).await;
    let home = tempfile::tempdir().unwrap();
    let config = Config {
        provide: true,
        ..config(DhtMode::Server, &[&middle.address])
    };
    let store = Store::open(home.path()).unwrap();
    let blob = ingest(&store, &content(1, 1_100_000));
    store
        .provide(
            &base::Multihash::sha2_256(&blob.sha256),
            ProvideKind::Source,
        )
        .unwrap();
    let first = Node::spawn(config.clone(), store.clone()).unwrap();
    eventually(first.client(), "announcing", |status| {
        status.provide.done == 1
    })
    .await;
    first.stop().await;
    // Same identity, same home, another port; the schedule says it is not due for 20 hours.
    let second = Node::spawn(config, store).unwrap();
    eventually(second.client(), "announcing again", |status| {
        status.provide.done >= 1
    })
    .await;
    let user = TestNode::client(&[&middle.address]).await;
    assert_eq!(user.fetch_source(blob.sha256).await.unwrap().blob, blob);
}
