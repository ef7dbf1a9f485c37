//! The adapter between the Bitswap machine and libp2p.

use super::*;
use crate::exchange::Event;

#[tokio::test(flavor = "multi_thread")]
async fn a_want_is_remembered_and_answered_when_the_block_appears() {
    let holder = TestNode::server(&[]).await;
    let bytes = content(1, 500_000);
    let root = raw_root(&bytes);
    let user_home = tempfile::tempdir().unwrap();
    let user_store = Arc::new(Store::open(user_home.path()).unwrap());
    let mut user = swarm_of(&config(DhtMode::Client, &[]), user_store);
    in_time("joining", join(&mut user, &holder.address, &[])).await;
    let session = user
        .behaviour_mut()
        .exchange
        .open_session(&[holder.peer_id()]);
    user.behaviour_mut().exchange.want(session, &[root]);
    let wait = async {
        loop {
            match user.select_next_some().await {
                // It has been told that the block is not there.
                SwarmEvent::Behaviour(BehaviourEvent::Exchange(Event::FindProviders {
                    ..
                })) => {
                    holder.mirror(&bytes);
                    // Whether anybody can be told of it is another matter, and must not keep this swarm from being polled.
                    let client = holder.client_handle().clone();
                    let key = base::Multihash::of(&root).unwrap();
                    tokio::spawn(async move { client.provide(key).await });
                }
                SwarmEvent::Behaviour(BehaviourEvent::Exchange(event)) => return event,
                _ => {}
            }
        }
    };
    match in_time("the block", wait).await {
        Event::Block { block, from, .. } => {
            assert_eq!(
                (block.cid(Codec::Raw), &block.bytes()[..], from),
                (root, &bytes[..], Some(holder.peer_id()))
            );
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_root_that_nobody_announced_is_fetched_from_the_peer_that_was_named_first() {
    // In no DHT, so that nobody can be told, or asked, who holds what.
    let holder = TestNode::start(config(DhtMode::Client, &[])).await;
    let blob = holder.mirror(&content(1, 3 << 20));
    let user = TestNode::client(&[&holder.address]).await;
    let (blocking, store) = (user.client_handle().blocking(), user.store.clone());
    let root = blob.root;
    let fetch = move || blocking.fetch_cid(root, &[], &store, &NoProgress);
    let fetched = in_time("a fetch", tokio::task::spawn_blocking(fetch)).await;
    assert_eq!(fetched.unwrap().unwrap().blob, blob);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_fetches_of_the_same_file_at_once_both_succeed() {
    let holder = TestNode::server(&[]).await;
    let blob = holder.mirror(&content(1, 6 << 20));
    let user = TestNode::client(&[&holder.address]).await;
    let (one, two) = tokio::join!(
        user.fetch_source(blob.sha256),
        user.fetch_source(blob.sha256)
    );
    assert_eq!(one.unwrap().blob, two.unwrap().blob);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_small_blocks_and_several_users_are_served_at_once() {
    let holder = TestNode::server(&[]).await;
    let blobs: Vec<_> = (0..20)
        .map(|name| holder.mirror(&content(name, 30_000)))
        .collect();
    let large = holder.mirror(&content(99, 8 << 20));
    let mut users = Vec::new();
    for _ in 0..3 {
        users.push(TestNode::client(&[&holder.address]).await);
    }
    let work = users.iter().map(|user| async {
        for blob in &blobs {
            assert_eq!(user.fetch_source(blob.sha256).await.unwrap().blob, *blob);
        }
        assert_eq!(user.fetch_source(large.sha256).await.unwrap().blob, large);
    });
    futures::future::join_all(work).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fetch_stops_when_its_owner_wants_it_to() {
    struct Impatient;
    impl store::substitute::Progress for Impatient {
        fn bytes(&self, _: u64, _: Option<u64>) {}
        fn cancelled(&self) -> bool {
            true
        }
    }
    let user = TestNode::client(&[]).await;
    let (blocking, store) = (user.client_handle().blocking(), user.store.clone());
    let fetch = move || blocking.fetch_cid(raw_root(b"x"), &[], &store, &Impatient);
    let error = in_time("stopping", tokio::task::spawn_blocking(fetch))
        .await
        .unwrap()
        .unwrap_err();
    assert!(matches!(error, FetchError::Cancelled), "{error:?}");
    eventually(user.client_handle(), "its session to end", |status| {
        status.transfers.is_empty()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_download_limit_can_be_changed_and_does_not_count_this_machine() {
    let now = std::time::Instant::now();
    let download = crate::Budget::new(Some(1), now);
    download.charge(1 << 30, now);
    let holder = TestNode::server(&[]).await;
    let blob = holder.mirror(&content(1, 3 << 20));
    let user = TestNode::start(Config {
        listen: Vec::new(),
        download: download.clone(),
        ..config(DhtMode::Client, &[&holder.address])
    })
    .await;
    let fetched = user.fetch_source(blob.sha256).await.unwrap();
    assert_eq!(fetched.blob, blob);
    assert!(download.ready(0, now).is_err(), "as far in debt as before");
    let limits = crate::RunningLimits {
        connections: 8,
        connections_per_peer: 2,
        memory_bytes: usize::MAX,
        upload_bytes_per_sec: None,
        download_bytes_per_sec: None,
    };
    user.client_handle().set_limits(limits).await.unwrap();
    assert!(download.ready(0, now).is_ok());
}
