//! A group in an open network: its members find each other, and strangers learn nothing.

use base::Multihash;

use super::*;
use crate::GroupKey;

fn key() -> GroupKey {
    GroupKey::from_bytes([1; 32])
}

async fn member(key: GroupKey, bootstrap: &Multiaddr) -> TestNode {
    TestNode::start(Config {
        provide: true,
        group: Some(key),
        ..config(DhtMode::Server, &[bootstrap])
    })
    .await
}

/// A short-lived command of a member.
async fn guest(key: GroupKey, bootstrap: &Multiaddr) -> TestNode {
    TestNode::start(Config {
        listen: Vec::new(),
        group: Some(key),
        ..config(DhtMode::Client, &[bootstrap])
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn members_find_each_other_through_strangers_who_see_only_a_keyed_name() {
    let stranger = TestNode::server(&[]).await;
    let holder = member(key(), &stranger.address).await;
    let file = content(1, 3 << 20);
    let blob = holder.mirror(&file);
    let signer = SecretKey::from_seed(&[7; 32]);
    let pkghash = PkgHash::of_derivation(b"package");
    holder.publish(pkghash, b"output", &signer);
    stranger.keeps(2).await;

    let plain = Multihash::sha2_256(&blob.sha256);
    let strangers = stranger.client_handle();
    let found = strangers.find_providers(plain).await.unwrap();
    assert!(found.peers.is_empty(), "the plain name is nowhere");
    let keyed = key().lookup_key(&plain);
    let found = strangers.find_providers(keyed).await.unwrap();
    assert_eq!(found.peers, [holder.peer_id()]);

    let seeker = guest(key(), &stranger.address).await;
    let fetched = seeker.fetch_source(blob.sha256).await.unwrap();
    assert_eq!(fetched.blob, blob);
    let found = query(seeker.substituter(), pkghash).await.unwrap();
    assert_eq!(found.realisations.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_serves_nothing_to_who_has_no_key_or_another() {
    let stranger = TestNode::server(&[]).await;
    let holder = member(key(), &stranger.address).await;
    let blob = holder.mirror(&content(1, 3 << 20));
    stranger.keeps(1).await;
    let impatient = |group| Config {
        listen: Vec::new(),
        group,
        deadlines: Deadlines {
            first_byte: Duration::from_secs(2),
            ..deadlines()
        },
        ..config(DhtMode::Client, &[&holder.address])
    };
    let outsiders = [
        TestNode::start(impatient(None)).await,
        TestNode::start(impatient(Some(GroupKey::from_bytes([2; 32])))).await,
    ];
    for outsider in outsiders {
        let nothing = outsider.fetch_source(blob.sha256).await.unwrap_err();
        assert!(matches!(nothing, FetchError::Missing { .. }), "{nothing:?}");
        let (client, store) = (outsider.client_handle().blocking(), outsider.store.clone());
        let fetch = move || client.fetch_cid(blob.root, &[], &store, &NoProgress);
        let nothing = tokio::task::spawn_blocking(fetch).await.unwrap();
        // It is answered as by somebody who has nothing, and need not wait.
        let nothing = nothing.unwrap_err();
        assert!(matches!(nothing, FetchError::Missing { .. }), "{nothing:?}");
    }
    let status = holder.client_handle().status().await.unwrap();
    assert_eq!(status.asked.sources_served, 0);
    assert_eq!(status.uploaded_bytes, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_only_repeats_a_keyed_name_is_asked_nothing() {
    let stranger = TestNode::server(&[]).await;
    let file = content(1, 3 << 20);
    let held = TestNode::client(&[]).await;
    let blob = ingest(&held.store, &file);
    let holding = Holding {
        root: blob.root,
        size: blob.size,
    };
    // A spy who has seen the name in the DHT, has even the file, and hopes to learn who wants it.
    let keyed = key().lookup_key(&Multihash::sha2_256(&blob.sha256));
    let blocks = Arc::new(held.store.clone());
    let spy = Impostor::start(
        blocks,
        Answers::Holding(holding),
        &stranger.address,
        &[keyed],
    )
    .await;
    stranger.keeps(1).await;
    let seeker = guest(key(), &stranger.address).await;
    let error = seeker.fetch_source(blob.sha256).await.unwrap_err();
    let FetchError::Missing { asked } = error else {
        panic!("{error:?}")
    };
    assert_eq!((asked.providers, asked.refused), (1, 1), "{asked}");
    assert_eq!(spy.questions.load(Ordering::Relaxed), 0);
}
