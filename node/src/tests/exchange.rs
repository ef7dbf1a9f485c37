//! The adapter between the Bitswap machine and libp2p.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_want_is_remembered_and_answered_when_the_block_appears() {
    let holder = TestNode::server(&[]).await;
    let user = TestNode::client(&[&holder.address]).await;
    let (client, store) = (user.client_handle().clone(), user.store.clone());
    eventually(&client, "meeting", |status| {
        status.peers.first().is_some_and(|peer| !peer.agent.is_empty())
    })
    .await;
    let bytes = content(1, 500_000);
    let (root, peer) = (raw_root(&bytes), holder.peer_id());
    let blocking = client.blocking();
    let fetch =
        tokio::task::spawn_blocking(move || blocking.fetch_cid(root, &[peer], &store, &NoProgress));
    // The want has reached the holder, which has not got the block.
    eventually(&client, "the transfer", |status| status.transfers.len() == 1).await;
    holder.mirror(&bytes);
    let fetched = in_time("the block", fetch).await.unwrap();
    // Who asks with "tell me if you have not" is told so at once, and may have given up before it appeared.
    match fetched {
        Ok(fetched) => assert_eq!(fetched.blob.sha256, Sha256::of(&bytes)),
        Err(error) => assert!(matches!(error, FetchError::Missing { .. }), "{error:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_fetches_of_the_same_file_at_once_both_succeed() {
    let holder = TestNode::server(&[]).await;
    let blob = holder.mirror(&content(1, 6 << 20));
    let user = TestNode::client(&[&holder.address]).await;
    let (one, two) =
        tokio::join!(user.fetch_source(blob.sha256), user.fetch_source(blob.sha256));
    assert_eq!(one.unwrap().blob, two.unwrap().blob);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_small_blocks_and_several_users_are_served_at_once() {
    let holder = TestNode::server(&[]).await;
    let blobs: Vec<_> = (0..20).map(|name| holder.mirror(&content(name, 30_000))).collect();
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
    let error = in_time("stopping", tokio::task::spawn_blocking(fetch)).await.unwrap().unwrap_err();
    assert!(matches!(error, FetchError::Cancelled), "{error:?}");
    eventually(user.client_handle(), "its session to end", |status| status.transfers.is_empty())
        .await;
}
