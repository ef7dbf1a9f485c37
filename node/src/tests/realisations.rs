//! Signed statements about packages, and the outputs they name.

use store::substitute::Origin;

use super::*;

fn package(name: u8) -> PkgHash {
    PkgHash::of_derivation(&[name])
}

#[tokio::test(flavor = "multi_thread")]
async fn statements_are_found_through_the_dht_and_verified() {
    let middle = TestNode::server(&[]).await;
    let builder = TestNode::server(&[&middle.address]).await;
    let user = TestNode::client(&[&middle.address]).await;
    let key = SecretKey::from_seed(&[1; 32]);
    let signed = builder.publish(package(1), b"output", &key);
    middle.keeps(1).await;
    let found = query(user.substituter(), package(1)).await.unwrap();
    assert_eq!(found.realisations, [signed]);
    assert_eq!((found.asked.providers, found.asked.refused), (1, 0));
    assert!(found.asked.dht_nodes >= 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_output_of_a_realisation_is_fetched_and_checked_twice() {
    let middle = TestNode::server(&[]).await;
    let builder = TestNode::server(&[&middle.address]).await;
    let user = TestNode::client(&[&middle.address]).await;
    let output = content(1, 3_500_000);
    let signed = builder.publish(package(1), &output, &SecretKey::from_seed(&[1; 32]));
    middle.keeps(1).await;
    let substituter = user.substituter();
    let found = query(substituter.clone(), package(1)).await.unwrap();
    assert_eq!(found.realisations, std::slice::from_ref(&signed));
    let store = user.store.clone();
    let fetch = move || substituter.fetch(signed.realisation(), &store, &NoProgress);
    let fetched = in_time("a fetch", tokio::task::spawn_blocking(fetch))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        fetched.received,
        [(
            Origin::LanPeer(builder.peer_id().to_string()),
            3_500_000 + root_bytes(&fetched.blob)
        )]
    );
    assert!(user.store.blob(&Sha256::of(&output)).unwrap().is_some());
}

/// Size of the root node above the leaves: it travels too.
fn root_bytes(blob: &Blob) -> u64 {
    let home = tempfile::tempdir().unwrap();
    let store = Store::open(home.path()).unwrap();
    let again = ingest(&store, &content(1, 3_500_000));
    assert_eq!(&again, blob);
    let hash = base::Multihash::of(&blob.root).unwrap();
    store.size(&hash).unwrap().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connected_peer_is_asked_without_any_dht() {
    let builder = TestNode::server(&[]).await;
    let user = TestNode::client(&[&builder.address]).await;
    // In its store, but never announced.
    let blob = ingest(&builder.store, b"output");
    let signed = sign(package(1), &blob, &SecretKey::from_seed(&[1; 32]));
    builder.store.put_realisation(&signed).unwrap();
    let found = query(user.substituter(), package(1)).await.unwrap();
    assert_eq!((found.realisations.len(), found.asked.providers), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn statements_of_several_holders_are_collected_once_each() {
    let middle = TestNode::server(&[]).await;
    let a = TestNode::server(&[&middle.address]).await;
    let b = TestNode::server(&[&middle.address]).await;
    let (one, two) = (
        SecretKey::from_seed(&[1; 32]),
        SecretKey::from_seed(&[2; 32]),
    );
    let first = a.publish(package(1), b"output", &one);
    let second = b.publish(package(1), b"output", &two);
    b.store.put_realisation(&first).unwrap();
    middle.keeps(2).await;
    let user = TestNode::client(&[&middle.address]).await;
    let found = query(user.substituter(), package(1)).await.unwrap();
    assert_eq!(found.realisations.len(), 2);
    assert!(found.realisations.contains(&first) && found.realisations.contains(&second));
    assert_eq!(found.asked.providers, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_ends_as_soon_as_the_caller_has_enough() {
    let builder = TestNode::server(&[]).await;
    // Half of this one's bootstrap list is a host that swallows packets, so a full search takes its time.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let silent: Multiaddr = format!("/ip4/127.0.0.1/tcp/{port}/p2p/{}", PeerId::random())
        .parse()
        .unwrap();
    let user = TestNode::client(&[&builder.address, &silent]).await;
    let blob = ingest(&builder.store, b"output");
    let signed = sign(package(1), &blob, &SecretKey::from_seed(&[1; 32]));
    builder.store.put_realisation(&signed).unwrap();
    let substituter = user.substituter().until(|pkghash, found| {
        assert_eq!(*pkghash, package(1));
        !found.is_empty()
    });
    let found = query(substituter, package(1)).await.unwrap();
    assert_eq!(found.realisations, [signed]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_miss_ends_in_time_and_says_who_was_asked() {
    let middle = TestNode::server(&[]).await;
    let gone = TestNode::server(&[&middle.address]).await;
    gone.publish(package(1), b"output", &SecretKey::from_seed(&[1; 32]));
    middle.keeps(1).await;
    let peer = gone.peer_id().to_string();
    let TestNode { node, .. } = gone;
    node.stop().await;
    eventually(middle.client_handle(), "noticing", |status| {
        status.peers.iter().all(|known| known.id != peer)
    })
    .await;
    let user = TestNode::client(&[&middle.address]).await;
    let found = query(user.substituter(), package(1)).await.unwrap();
    assert!(found.realisations.is_empty());
    assert_eq!((found.asked.providers, found.asked.unreachable), (1, 1));
    let found = query(user.substituter(), package(2)).await.unwrap();
    assert_eq!(
        (found.asked.providers, found.asked.dht_nodes > 0),
        (0, true)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_miss_without_anybody_says_that_the_first_peers_were_not_there() {
    let user = TestNode::client(&[&gone().await]).await;
    let found = query(user.substituter(), package(1)).await.unwrap();
    assert_eq!(
        found.asked.to_string(),
        "asked nobody (1 first peer unreachable)"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_is_asked_for_a_closure_in_few_requests() {
    let builder = TestNode::server(&[]).await;
    let user = TestNode::client(&[&builder.address]).await;
    let blob = ingest(&builder.store, b"output");
    let key = SecretKey::from_seed(&[1; 32]);
    for name in 0..30 {
        let signed = sign(package(name), &blob, &key);
        builder.store.put_realisation(&signed).unwrap();
    }
    let client = user.client_handle();
    let lookup = |name| client.find_realisations(package(name), |found| !found.is_empty());
    let found = futures::future::join_all((0..30).map(lookup)).await;
    for one in found {
        assert_eq!(one.unwrap().found.len(), 1);
    }
    // One, were it not for a busy machine.
    let served = builder.client_handle().status().await.unwrap();
    let requests = served.asked.realisations_served;
    assert!((1..=4).contains(&requests), "{requests} requests");
}
