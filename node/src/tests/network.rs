//! Meeting, introducing, announcing, finding.

use super::*;
use crate::ClientError;

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_meet_and_know_each_others_names() {
    let (a, b) = (TestNode::server(&[]).await, TestNode::server(&[]).await);
    let met = a.client_handle().connect(b.address.clone()).await.unwrap();
    assert_eq!(met, b.peer_id());
    let status = a.client_handle().status().await.unwrap();
    let peer = &status.peers[0];
    assert_eq!(peer.id, b.peer_id().to_string());
    assert!(
        peer.agent.starts_with("p2pkgs/") && peer.lan && peer.dht,
        "{peer:?}"
    );
    eventually(b.client_handle(), "the other side", |status| {
        status
            .peers
            .first()
            .is_some_and(|peer| !peer.agent.is_empty())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_identity_or_a_dead_address_is_not_met() {
    let (a, b) = (TestNode::server(&[]).await, TestNode::server(&[]).await);
    let (_, address) = crate::address::split_peer(&b.address).unwrap();
    let wrong = address.with_p2p(a.peer_id()).unwrap();
    let c = TestNode::client(&[]).await;
    assert_eq!(
        c.client_handle().connect(wrong).await,
        Err(ClientError::TimedOut)
    );
    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let dead = format!("/ip4/127.0.0.1/tcp/{free}/p2p/{}", PeerId::random())
        .parse()
        .unwrap();
    assert_eq!(
        c.client_handle().connect(dead).await,
        Err(ClientError::TimedOut)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_found_through_a_third_node_that_knows_nobodys_content() {
    let middle = TestNode::server(&[]).await;
    let holder = TestNode::server(&[&middle.address]).await;
    let seeker = TestNode::client(&[&middle.address]).await;
    let blob = holder.mirror(b"something");
    middle.keeps(1).await;
    let key = base::Multihash::sha2_256(&blob.sha256);
    let found = seeker.client_handle().find_providers(key).await.unwrap();
    assert_eq!(found.peers, [holder.peer_id()]);
    assert!(found.asked.dht_nodes >= 1);
    let status = middle.client_handle().status().await.unwrap();
    assert_eq!(status.dht_records, 1, "the middle keeps the record");
    let nothing = base::Multihash::sha2_256(&Sha256::of(b"nothing"));
    let found = seeker
        .client_handle()
        .find_providers(nothing)
        .await
        .unwrap();
    assert!(found.peers.is_empty() && found.asked.dht_nodes >= 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_knows_nobody_finds_nothing_at_once_and_says_so() {
    let alone = TestNode::client(&[]).await;
    let key = base::Multihash::sha2_256(&Sha256::of(b"x"));
    let found = in_time("an empty search", alone.client_handle().find_providers(key))
        .await
        .unwrap();
    assert_eq!(found.asked.to_string(), "asked nobody");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bootstrap_peer_that_comes_up_late_is_still_met() {
    // The address is taken from a node that is gone, then given to one with the same identity.
    let config = config(DhtMode::Server, &[]);
    let first = TestNode::start(config.clone()).await;
    let address = first.address.clone();
    let (_, listen) = crate::address::split_peer(&address).unwrap();
    let TestNode { node, .. } = first;
    node.stop().await;
    let early = TestNode::server(&[&address]).await;
    let late = TestNode::start(Config {
        listen: vec![listen],
        ..config
    })
    .await;
    eventually(early.client_handle(), "meeting the late one", |status| {
        status.dht_peers == 1
    })
    .await;
    assert_eq!(late.address, address);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_node_says_so() {
    let TestNode { node, .. } = TestNode::client(&[]).await;
    let client = node.client().clone();
    node.stop().await;
    assert_eq!(client.status().await.unwrap_err(), ClientError::Stopped);
}

#[tokio::test(flavor = "multi_thread")]
async fn nonsense_in_the_configuration_is_refused_with_its_name() {
    let home = tempfile::tempdir().unwrap();
    let store = Store::open(home.path()).unwrap();
    let plain: Multiaddr = "/ip4/127.0.0.1/tcp/1".parse().unwrap();
    let error = Node::spawn(config(DhtMode::Client, &[&plain]), store.clone()).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("bootstrap address `{plain}` does not end in `/p2p/ID`")
    );
    let config = Config {
        dht_protocol: "kad".to_owned(),
        ..config(DhtMode::Client, &[])
    };
    let error = Node::spawn(config, store).unwrap_err();
    assert_eq!(
        error.to_string(),
        "`kad` is no protocol name, it must start with `/`"
    );
}
