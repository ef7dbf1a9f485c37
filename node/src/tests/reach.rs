//! Transports other than plain TCP, private swarms, and being met through a relay.

use super::*;
use crate::{ClientError, Traversal};

fn listen(address: &str) -> Config {
    Config {
        listen: vec![address.parse().unwrap()],
        provide: true,
        ..config(DhtMode::Server, &[])
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_comes_over_quic() {
    let holder = TestNode::start(listen("/ip4/127.0.0.1/udp/0/quic-v1")).await;
    assert!(holder.address.to_string().contains("/quic-v1/"));
    let blob = holder.mirror(&content(1, 3 << 20));
    let user = TestNode::client(&[&holder.address]).await;
    assert_eq!(user.fetch_source(blob.sha256).await.unwrap().blob, blob);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_who_has_the_key_joins_a_private_swarm() {
    let member = |bootstrap: &[&Multiaddr], key: u8| Config {
        swarm_key: Some([key; 32]),
        provide: true,
        ..config(DhtMode::Server, bootstrap)
    };
    let holder = TestNode::start(member(&[], 7)).await;
    let blob = holder.mirror(&content(1, 1 << 20));
    let friend = TestNode::start(member(&[&holder.address], 7)).await;
    assert_eq!(friend.fetch_source(blob.sha256).await.unwrap().blob, blob);

    let (other, open) = (
        TestNode::start(member(&[], 8)).await,
        TestNode::client(&[]).await,
    );
    for stranger in [other, open] {
        let met = stranger.client_handle().connect(holder.address.clone());
        assert_eq!(met.await, Err(ClientError::TimedOut));
    }
    let status = holder.client_handle().status().await.unwrap();
    assert_eq!(status.peers.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_cannot_be_reached_is_met_through_a_relay() {
    let relay = TestNode::start(Config {
        traversal: Traversal {
            serve: true,
            ..Traversal::default()
        },
        ..config(DhtMode::Server, &[])
    })
    .await;
    // It listens nowhere: nobody can dial it.
    let hidden = TestNode::start(Config {
        listen: Vec::new(),
        provide: true,
        traversal: Traversal {
            seek_relays: true,
            relays: vec![relay.address.clone()],
            serve: false,
        },
        ..config(DhtMode::Client, &[&relay.address])
    })
    .await;
    let blob = hidden.mirror(b"something");
    let status = eventually(hidden.client_handle(), "a relay to stand in", |status| {
        status
            .external_addrs
            .iter()
            .any(|a| a.contains("/p2p-circuit"))
    })
    .await;
    let circuit = status
        .external_addrs
        .iter()
        .find(|a| a.contains("/p2p-circuit"))
        .unwrap();
    let circuit: Multiaddr = if circuit.ends_with(&hidden.peer_id().to_string()) {
        circuit.parse().unwrap()
    } else {
        format!("{circuit}/p2p/{}", hidden.peer_id())
            .parse()
            .unwrap()
    };
    relay.keeps(1).await;
    let user = TestNode::client(&[&circuit]).await;
    let key = base::Multihash::sha2_256(&blob.sha256);
    let met = user.client_handle().connect(circuit).await.unwrap();
    assert_eq!(met, hidden.peer_id());
    // Small questions go through the relay; its provider record is found at the relay, which is in the DHT.
    let asker = TestNode::client(&[&relay.address]).await;
    let found = asker.client_handle().find_providers(key).await.unwrap();
    assert_eq!(found.peers, [hidden.peer_id()]);
}
