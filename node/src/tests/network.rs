//! Meeting, introducing, announcing, finding.

use std::sync::atomic::AtomicBool;

use store::substitute::{Progress, QueryError};

use super::*;
use crate::ipns::IpnsName;
use crate::{ClientError, PathError, fetch_path};

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

/// Wants to stop when asked for the second time: while something is waited for.
#[derive(Default)]
struct SecondThoughts(AtomicBool);

impl Progress for SecondThoughts {
    fn bytes(&self, _: u64, _: Option<u64>) {}

    fn cancelled(&self) -> bool {
        self.0.swap(true, Ordering::Relaxed)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_lookup_ends_when_its_owner_wants_it_to() {
    // A first peer that takes connections and says nothing, and a node that would wait for it longer than this test.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let silent = format!("/ip4/127.0.0.1/tcp/{port}/p2p/{}", PeerId::random());
    let user = TestNode::start(Config {
        listen: Vec::new(),
        deadlines: Deadlines {
            dial: 2 * PATIENCE,
            dht_lookup: 2 * PATIENCE,
            ..deadlines()
        },
        ..config(DhtMode::Client, &[&silent.parse().unwrap()])
    })
    .await;
    let (client, store) = (user.client_handle().clone(), user.store.clone());
    let lookups = move || {
        let (blocking, stop) = (client.blocking(), SecondThoughts::default);
        let sha256 = Sha256::of(b"x");
        let key = base::Multihash::sha2_256(&sha256);
        let found = blocking.find_providers(key, &stop());
        assert_eq!(found, Err(ClientError::Cancelled));
        let pkghash = PkgHash::of_derivation(b"x");
        let found = PeerSubstituter::new(client.clone()).query(&pkghash, &stop());
        assert!(matches!(found, Err(QueryError::Cancelled)), "{found:?}");
        let request = SourceRequest {
            sha256,
            file_name: "x",
            urls: &[],
        };
        let fetched = PeerSources::new(client.clone()).fetch(&request, &store, &stop());
        let is_cancelled = matches!(fetched, Err(FetchError::Cancelled));
        assert!(is_cancelled, "{fetched:?}");
        let name = IpnsName::of(&identity::ephemeral().public());
        let path = format!("/ipns/{name}").parse().unwrap();
        let fetched = fetch_path(Some(&blocking), &path, &store, &stop());
        let is_cancelled = matches!(fetched, Err(PathError::Fetch(FetchError::Cancelled)));
        assert!(is_cancelled, "{fetched:?}");
    };
    in_time("the lookups", tokio::task::spawn_blocking(lookups))
        .await
        .unwrap();
}
