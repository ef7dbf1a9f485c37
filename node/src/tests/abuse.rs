//! What strangers may not make a node do.

use std::io;

use base::Multihash;
use libp2p::identity::Keypair;
use libp2p::kad::{KBucketKey, RecordKey};
use store::substitute::Asked;

use super::*;

fn source_key(sha256: &Sha256) -> Multihash {
    Multihash::sha2_256(sha256)
}

/// A listener that speaks nothing, and the address a stranger would give for it.
fn service_of_this_machine() -> (std::net::TcpListener, Multiaddr) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let port = listener.local_addr().unwrap().port();
    let address = format!("/ip4/127.0.0.1/tcp/{port}").parse().unwrap();
    (listener, address)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_private_address_that_a_stranger_names_is_dialled_only_where_such_are_announced() {
    let middle = TestNode::server(&[]).await;
    let (service, address) = service_of_this_machine();
    let sha256 = Sha256::of(b"bait");
    let stranger = config(DhtMode::Client, &[]);
    let mut stranger = swarm_of(&stranger, Arc::new(scratch().1));
    stranger.add_external_address(address);
    let keys = [source_key(&sha256)];
    in_time("the bait", join(&mut stranger, &middle.address, &keys)).await;
    let stranger = tokio::spawn(play(stranger, Answers::Silence, Arc::default()));
    middle.keeps(1).await;
    stranger.abort();
    for (announce, knocks) in [(Announce::Global, false), (Announce::All, true)] {
        let user = TestNode::start(Config {
            listen: Vec::new(),
            announce,
            ..config(DhtMode::Client, &[&middle.address])
        })
        .await;
        let nothing = user.fetch_source(sha256).await.unwrap_err();
        let is_missing = matches!(
            nothing,
            FetchError::Missing { .. } | FetchError::TimedOut { .. }
        );
        assert!(is_missing, "{nothing:?}");
        let knocked = match service.accept() {
            Ok(_) => true,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => false,
            Err(error) => panic!("{error}"),
        };
        assert_eq!(knocked, knocks, "{announce:?}");
    }
}

fn scratch() -> (TempDir, Store) {
    let home = tempfile::tempdir().unwrap();
    let store = Store::open(home.path()).unwrap();
    (home, store)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_leaves_room_for_connections_of_our_own() {
    let mut besieged = config(DhtMode::Server, &[]);
    besieged.limits.connections = 16;
    let besieged = TestNode::start(besieged).await;
    let mut crowd = Vec::new();
    for _ in 0..20 {
        crowd.push(TestNode::client(&[&besieged.address]).await);
    }
    let full = |status: &Status| status.peers.len() >= 12;
    eventually(besieged.client_handle(), "the crowd", full).await;
    let holder = TestNode::server(&[]).await;
    let blob = holder.mirror(b"needed");
    let met = besieged.client_handle().connect(holder.address.clone());
    assert_eq!(in_time("a connection", met).await, Ok(holder.peer_id()));
    let fetched = besieged.fetch_source(blob.sha256).await.unwrap();
    assert_eq!(fetched.blob, blob);
    let status = besieged.client_handle().status().await.unwrap();
    assert!(status.peers.len() <= 13, "{}", status.peers.len());
}

/// An identity nearer to the key than honest nodes of a small network ever are.
fn identity_near(key: &Multihash) -> Keypair {
    let target = KBucketKey::new(RecordKey::new(key.as_bytes()).to_vec());
    loop {
        let identity = identity::ephemeral();
        let peer = KBucketKey::from(identity.public().to_peer_id());
        if target.distance(&peer).ilog2().is_none_or(|log2| log2 < 244) {
            return identity;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_eclipsed_key_costs_a_miss_in_time_and_hides_nothing_from_who_knows_a_holder() {
    let middle = TestNode::server(&[]).await;
    let content = b"what somebody wants to hide";
    let key = source_key(&Sha256::of(content));
    let mut eclipse = Vec::new();
    for _ in 0..24 {
        let sybil = Config {
            identity: identity_near(&key),
            ..config(DhtMode::Server, &[])
        };
        eclipse.push(
            Impostor::of(
                sybil,
                Arc::new(scratch().1),
                Answers::Silence,
                &middle.address,
                &[],
            )
            .await,
        );
    }
    let holder = TestNode::server(&[&middle.address]).await;
    let blob = holder.mirror(content);
    let announced = |status: &Status| status.provide.done >= 1;
    eventually(holder.client_handle(), "the announcement", announced).await;

    let started = std::time::Instant::now();
    let seeker = TestNode::client(&[&middle.address]).await;
    let hidden = seeker.fetch_source(blob.sha256).await;
    // Whoever answers for the key is of the eclipse. If the holder's words reached anybody else, all the better.
    if let Err(error) = hidden {
        assert!(
            matches!(
                error,
                FetchError::Missing {
                    asked: Asked { providers: 0, .. }
                } | FetchError::TimedOut { .. }
            ),
            "{error:?}"
        );
    }
    assert!(started.elapsed() < 2 * deadlines().dht_lookup);

    let neighbour = TestNode::client(&[&middle.address, &holder.address]).await;
    let fetched = neighbour.fetch_source(blob.sha256).await.unwrap();
    assert_eq!(fetched.blob, blob);
}
