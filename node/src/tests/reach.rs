//! Transports other than plain TCP, private swarms, and being met through a relay.

use super::*;
use crate::{ClientError, PeerStatus, Traversal};

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

/// A relay, a node that listens nowhere so that nobody can dial it, and its address at the relay.
async fn relay_and_hidden() -> (TestNode, TestNode, Multiaddr) {
    let relay = TestNode::start(Config {
        traversal: Traversal {
            serve: true,
            ..Traversal::default()
        },
        ..config(DhtMode::Server, &[])
    })
    .await;
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
    let is_circuit = |address: &&String| address.contains("/p2p-circuit");
    let status = eventually(hidden.client_handle(), "a relay to stand in", |status| {
        status.external_addrs.iter().any(|a| is_circuit(&a))
    })
    .await;
    let circuit = status.external_addrs.iter().find(is_circuit).unwrap();
    let circuit: Multiaddr = circuit.parse().unwrap();
    let circuit = circuit.with_p2p(hidden.peer_id()).unwrap();
    (relay, hidden, circuit)
}

#[tokio::test(flavor = "multi_thread")]
async fn who_cannot_be_reached_is_met_through_a_relay() {
    let (relay, hidden, circuit) = relay_and_hidden().await;
    let blob = hidden.mirror(b"something");
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

#[tokio::test(flavor = "multi_thread")]
async fn who_can_be_reached_is_dialled_by_the_holder_that_it_met_through_a_relay() {
    let (_relay, hidden, circuit) = relay_and_hidden().await;
    let blob = hidden.mirror(&content(1, 3 << 20));
    let user = TestNode::start(listen("/ip4/127.0.0.1/tcp/0")).await;
    user.client_handle().connect(circuit).await.unwrap();
    let name = hidden.peer_id().to_string();
    eventually(user.client_handle(), "the holder to dial", |status| {
        let direct = |peer: &PeerStatus| !peer.addr.contains("/p2p-circuit");
        status
            .peers
            .iter()
            .any(|peer| peer.id == name && direct(peer))
    })
    .await;
    assert_eq!(user.fetch_source(blob.sha256).await.unwrap().blob, blob);
}
