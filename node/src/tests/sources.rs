//! Sources by their plain SHA-256.

use std::io::Read as _;

use store::substitute::Origin;

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_source_is_found_by_its_hash_and_comes_from_a_peer() {
    let middle = TestNode::server(&[]).await;
    let mirror = TestNode::server(&[&middle.address]).await;
    let user = TestNode::client(&[&middle.address]).await;
    let bytes = content(1, 2_500_000);
    let blob = mirror.mirror(&bytes);
    middle.keeps(1).await;
    let fetched = user.fetch_source(blob.sha256).await.unwrap();
    assert_eq!(fetched.blob, blob);
    assert!(
        matches!(&fetched.received[..], [(Origin::LanPeer(peer), n)]
        if *peer == mirror.peer_id().to_string() && *n >= 2_500_000),
        "{:?}",
        fetched.received
    );
    assert_eq!(
        (fetched.asked.providers, fetched.asked.dht_nodes > 0),
        (1, true)
    );
    let mut got = Vec::new();
    user.store
        .open_blob(&blob.sha256)
        .unwrap()
        .unwrap()
        .read_to_end(&mut got)
        .unwrap();
    assert_eq!(got, bytes);
    let status = mirror.client_handle().status().await.unwrap();
    assert!(status.uploaded_bytes >= 2_500_000, "{status:?}");
    // Now it is here.
    let again = user.fetch_source(blob.sha256).await.unwrap();
    assert_eq!(again.received, [(Origin::Local, 2_500_000)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_every_shape_arrive() {
    let mirror = TestNode::server(&[]).await;
    let user = TestNode::client(&[&mirror.address]).await;
    let zeros = vec![0; 5 << 20];
    for bytes in [
        Vec::new(),
        vec![7],
        content(2, 1 << 20),
        content(3, (1 << 20) + 1),
        zeros,
    ] {
        let blob = mirror.mirror(&bytes);
        let fetched = user.fetch_source(blob.sha256).await.unwrap();
        assert_eq!(fetched.blob, blob, "{} bytes", bytes.len());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_user_serves_the_next_one_when_the_mirror_is_gone() {
    let middle = TestNode::server(&[]).await;
    let mirror = TestNode::server(&[&middle.address]).await;
    let first = TestNode::server(&[&middle.address]).await;
    let blob = mirror.mirror(&content(1, 1_200_000));
    middle.keeps(1).await;
    first.fetch_source(blob.sha256).await.unwrap();
    first
        .store
        .provide(
            &base::Multihash::sha2_256(&blob.sha256),
            ProvideKind::Source,
        )
        .unwrap();
    middle.keeps(2).await;
    let TestNode { node, .. } = mirror;
    node.stop().await;
    let second = TestNode::client(&[&middle.address]).await;
    let fetched = second.fetch_source(blob.sha256).await.unwrap();
    let from: Vec<_> = fetched
        .received
        .iter()
        .map(|(origin, _)| origin.clone())
        .collect();
    assert_eq!(from, [Origin::LanPeer(first.peer_id().to_string())]);
}

#[tokio::test(flavor = "multi_thread")]
async fn several_holders_share_the_work() {
    let holders = [TestNode::server(&[]).await, TestNode::server(&[]).await];
    let addresses: Vec<_> = holders.iter().map(|holder| &holder.address).collect();
    let bytes = content(1, 24 << 20);
    let blob = holders.each_ref().map(|holder| holder.mirror(&bytes))[0].clone();
    let user = TestNode::client(&addresses).await;
    // Both are connected before the question is asked, so both answer it.
    eventually(user.client_handle(), "both", |status| {
        status
            .peers
            .iter()
            .filter(|peer| !peer.agent.is_empty())
            .count()
            == 2
    })
    .await;
    let fetched = user.fetch_source(blob.sha256).await.unwrap();
    let total: u64 = fetched.received.iter().map(|(_, bytes)| bytes).sum();
    assert_eq!(fetched.received.len(), 2, "{:?}", fetched.received);
    assert!(
        total < (24 << 20) + (1 << 20),
        "hardly anything twice: {total}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_source_is_missing_and_says_who_was_asked() {
    let middle = TestNode::server(&[]).await;
    let user = TestNode::client(&[&middle.address]).await;
    match user.fetch_source(Sha256::of(b"nowhere")).await.unwrap_err() {
        FetchError::Missing { asked } => assert_eq!((asked.dht_nodes, asked.providers), (1, 0)),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_miss_by_cid_without_anybody_says_that_the_first_peers_were_not_there() {
    let user = TestNode::client(&[&gone().await]).await;
    let (blocking, store) = (user.client_handle().blocking(), user.store.clone());
    let fetch = move || blocking.fetch_cid(raw_root(b"nowhere"), &[], &store, &NoProgress);
    let error = in_time("a fetch", tokio::task::spawn_blocking(fetch))
        .await
        .unwrap()
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "not found: asked nobody (1 first peer unreachable)"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn any_content_is_fetched_by_its_cid() {
    let middle = TestNode::server(&[]).await;
    let holder = TestNode::server(&[&middle.address]).await;
    let blob = holder.mirror(&content(1, 1_500_000));
    let key = base::Multihash::of(&blob.root).unwrap();
    holder.store.provide(&key, ProvideKind::Root).unwrap();
    middle.keeps(2).await;
    let user = TestNode::client(&[&middle.address]).await;
    let (blocking, store, root) = (
        user.client_handle().blocking(),
        user.store.clone(),
        blob.root,
    );
    let fetch = move || blocking.fetch_cid(root, &[], &store, &NoProgress);
    let fetched = in_time("a fetch", tokio::task::spawn_blocking(fetch))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(fetched.blob, blob);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_a_foreign_node_holds_as_one_block_is_found_by_its_hash() {
    let middle = TestNode::server(&[]).await;
    let bytes = content(1, 1 << 20);
    let home = tempfile::tempdir().unwrap();
    let store = Store::open(home.path()).unwrap();
    let blob = ingest(&store, &bytes);
    let key = base::Multihash::sha2_256(&blob.sha256);
    let blocks = Arc::new(store);
    let _foreign = Impostor::start(blocks, Answers::Unknown, &middle.address, &[key]).await;
    middle.keeps(1).await;
    let user = TestNode::client(&[&middle.address]).await;
    let fetched = user.fetch_source(blob.sha256).await.unwrap();
    assert_eq!(fetched.blob, blob);
    assert_eq!(fetched.asked.refused, 0);
}
