//! Names: published by one node, kept by another, resolved by a third; and peers that answer with what does not count.

use std::time::SystemTime;

use libp2p::kad::{self, Quorum, RecordKey, store::MemoryStore};
use libp2p::swarm::NetworkBehaviour;
use libp2p::{identify, ping};

use super::*;
use crate::ipns::{IpnsName, IpnsRecord};
use crate::{Keypair, NameError};

const HOUR: Duration = Duration::from_secs(3600);

fn record_until(key: &Keypair, sequence: u64, expires: SystemTime) -> IpnsRecord {
    let value = format!("/ipfs/bafkqaaa/{sequence}");
    IpnsRecord::sign(key, value.as_bytes(), sequence, expires, HOUR).unwrap()
}

fn record(key: &Keypair, sequence: u64) -> IpnsRecord {
    record_until(key, sequence, SystemTime::now() + HOUR)
}

fn name(key: &Keypair) -> IpnsName {
    IpnsName::of(&key.public())
}

async fn resolve(node: &TestNode, key: &Keypair) -> Result<crate::Resolved, NameError> {
    in_time("a name", node.client_handle().resolve_ipns(name(key))).await
}

async fn publish(node: &TestNode, record: &IpnsRecord) -> Result<u32, NameError> {
    let publishing = node.client_handle().publish_ipns(record.clone());
    in_time("publishing", publishing).await
}

/// A DHT server of another make, which keeps and serves whatever it is given.
#[derive(NetworkBehaviour)]
struct Foreign {
    identify: identify::Behaviour,
    ping: ping::Behaviour,
    kad: kad::Behaviour<MemoryStore>,
}

/// Such a server in the DHT of `bootstrap`, with a value under a name's key, running until the test ends.
async fn foreign_server(bootstrap: &TestNode, key: Vec<u8>, value: Vec<u8>) -> JoinHandle<()> {
    let identity = identity::ephemeral();
    let local = identity.public().to_peer_id();
    let mut kad = kad::Behaviour::with_config(
        local,
        MemoryStore::new(local),
        kad::Config::new(libp2p::StreamProtocol::new(DHT_LAN)),
    );
    kad.set_mode(Some(kad::Mode::Server));
    kad::store::RecordStore::put(
        kad.store_mut(),
        kad::Record::new(RecordKey::new(&key), value),
    )
    .unwrap();
    let behaviour = Foreign {
        identify: identify::Behaviour::new(identify::Config::new(
            "test/1".to_owned(),
            identity.public(),
        )),
        ping: ping::Behaviour::default(),
        kad,
    };
    let config = Config {
        announce: Announce::All,
        ..Config::new(identity)
    };
    let (transport, _relay) = transport::build(&config, &Acquaintances::default()).unwrap();
    let settings = libp2p::swarm::Config::with_tokio_executor()
        .with_idle_connection_timeout(Duration::from_secs(60));
    let mut swarm = Swarm::new(transport, behaviour, local, settings);
    swarm
        .listen_on("/ip4/127.0.0.1/tcp/0".parse().unwrap())
        .unwrap();
    swarm.dial(bootstrap.address.clone()).unwrap();
    let task = tokio::spawn(async move {
        loop {
            swarm.select_next_some().await;
        }
    });
    eventually(bootstrap.client_handle(), "the foreign server", |status| {
        status.dht_peers >= 1
    })
    .await;
    task
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_is_published_by_one_kept_by_another_and_resolved_by_a_third() {
    let middle = TestNode::server(&[]).await;
    let owner = TestNode::client(&[&middle.address]).await;
    let reader = TestNode::client(&[&middle.address]).await;
    let key = identity::ephemeral();
    let (first, second) = (record(&key, 1), record(&key, 2));
    assert_eq!(publish(&owner, &first).await.unwrap(), 1);
    let resolved = resolve(&reader, &key).await.unwrap();
    assert_eq!(resolved.record, first);
    assert!(!resolved.is_remembered && resolved.asked.dht_nodes >= 1);
    let kept = owner
        .store
        .name_record(&name(&key).to_bytes())
        .unwrap()
        .unwrap();
    assert!(kept.published_unix_secs.is_some());
    assert_eq!(publish(&owner, &second).await.unwrap(), 1);
    assert_eq!(resolve(&reader, &key).await.unwrap().record, second);
    let nobodys = resolve(&reader, &identity::ephemeral()).await.unwrap_err();
    assert!(matches!(nobodys, NameError::Missing { .. }), "{nobodys}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_keeps_the_newer_record_whoever_comes_with_an_older_one() {
    let middle = TestNode::server(&[]).await;
    let owner = TestNode::client(&[&middle.address]).await;
    let forgetful = TestNode::client(&[&middle.address]).await;
    let reader = TestNode::client(&[&middle.address]).await;
    let key = identity::ephemeral();
    publish(&owner, &record(&key, 5)).await.unwrap();
    let older = publish(&forgetful, &record(&key, 4)).await.unwrap();
    assert_eq!(older, 0, "who has a newer one has not taken it");
    assert_eq!(resolve(&reader, &key).await.unwrap().record.sequence(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_is_refused_by_who_saw_the_newer_record() {
    let middle = TestNode::server(&[]).await;
    let owner = TestNode::client(&[&middle.address]).await;
    let reader = TestNode::client(&[&middle.address]).await;
    let key = identity::ephemeral();
    publish(&owner, &record(&key, 1)).await.unwrap();
    // Seen while it was valid, and over by now.
    let past = record_until(&key, 9, SystemTime::now() - HOUR);
    let bytes = name(&key).to_bytes();
    reader
        .store
        .keep_name_record(&bytes, 9, past.bytes())
        .unwrap();
    assert!(matches!(
        resolve(&reader, &key).await,
        Err(NameError::RolledBack {
            seen: 9,
            got: 1,
            ..
        })
    ));
    assert!(matches!(
        publish(&reader, &record(&key, 8)).await,
        Err(NameError::Older { sequence: 8, .. })
    ));
    // One that is still valid counts although nobody has it any more.
    let valid = record(&key, 10);
    reader
        .store
        .keep_name_record(&bytes, 10, valid.bytes())
        .unwrap();
    let resolved = resolve(&reader, &key).await.unwrap();
    assert_eq!((resolved.record, resolved.is_remembered), (valid, true));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_lying_server_answers_is_not_believed() {
    let middle = TestNode::server(&[]).await;
    let reader = TestNode::client(&[&middle.address]).await;
    let (key, other) = (identity::ephemeral(), identity::ephemeral());
    // A good record, of another name.
    let lie = record(&other, 99).bytes().to_vec();
    let liar = foreign_server(&middle, name(&key).dht_key(), lie).await;
    let Err(NameError::Missing { asked, .. }) = resolve(&reader, &key).await else {
        panic!("the lie was believed");
    };
    assert_eq!(asked.invalid, 1, "it was asked and answered");
    let owner = TestNode::client(&[&middle.address]).await;
    publish(&owner, &record(&key, 1)).await.unwrap();
    assert_eq!(resolve(&reader, &key).await.unwrap().record.sequence(), 1);
    liar.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_record_is_not_used() {
    let middle = TestNode::server(&[]).await;
    let reader = TestNode::client(&[&middle.address]).await;
    let key = identity::ephemeral();
    let past = record_until(&key, 7, SystemTime::now() - HOUR);
    let server = foreign_server(&middle, name(&key).dht_key(), past.bytes().to_vec()).await;
    assert!(matches!(
        resolve(&reader, &key).await,
        Err(NameError::Missing { asked, .. }) if asked.invalid == 1
    ));
    server.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_record_that_a_peer_pushes_is_not_kept() {
    let middle = TestNode::server(&[]).await;
    let key = identity::ephemeral();
    let mut bytes = record(&key, 1).bytes().to_vec();
    *bytes.last_mut().unwrap() ^= 1;
    let mut swarm = swarm_of(
        &config(DhtMode::Client, &[]),
        Arc::new(store::MemoryBlockStore::new()),
    );
    in_time("meeting", join(&mut swarm, &middle.address, &[])).await;
    let pushed = kad::Record::new(RecordKey::new(&name(&key).dht_key()), bytes);
    let peers = [middle.peer_id()].into_iter();
    swarm
        .behaviour_mut()
        .kad
        .put_record_to(pushed, peers, Quorum::One);
    in_time("pushing", async {
        loop {
            if let SwarmEvent::Behaviour(BehaviourEvent::Kad(
                kad::Event::OutboundQueryProgressed { .. },
            )) = swarm.select_next_some().await
            {
                return;
            }
        }
    })
    .await;
    // The middle has told nobody of its refusal; that nobody gets the record from it is what counts.
    let reader = TestNode::client(&[&middle.address]).await;
    assert!(matches!(
        resolve(&reader, &key).await,
        Err(NameError::Missing { asked, .. }) if asked.invalid == 0
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_without_a_network_says_at_once_that_nobody_was_asked() {
    let alone = TestNode::client(&[]).await;
    let key = identity::ephemeral();
    let error = resolve(&alone, &key).await.unwrap_err();
    assert!(error.to_string().ends_with("asked nobody"), "{error}");
    assert_eq!(publish(&alone, &record(&key, 1)).await.unwrap(), 0);
}
