//! The sweep over real connections: what it hands out is what ordinary lookups find.

use std::time::Instant;

use base::Multihash;
use store::ProvideScope;

use super::*;

const SERVERS: usize = 6;

fn key(name: u32) -> Multihash {
    Multihash::sha2_256(&Sha256::of(&name.to_be_bytes()))
}

fn sources(names: std::ops::Range<u32>) -> Vec<(Multihash, ProvideKind)> {
    names.map(|name| (key(name), ProvideKind::Source)).collect()
}

/// Nodes of a DHT that all know the first one.
async fn servers() -> Vec<TestNode> {
    let mut servers = vec![TestNode::server(&[]).await];
    for _ in 1..SERVERS {
        let first = servers[0].address.clone();
        servers.push(TestNode::server(&[&first]).await);
    }
    servers
}

#[tokio::test(flavor = "multi_thread")]
async fn hundreds_of_keys_take_a_few_streams_and_ordinary_lookups_find_them() {
    let servers = servers().await;
    let first = &servers[0].address;
    let holder = TestNode::server(&[first]).await;
    eventually(holder.client_handle(), "knowing all", |status| {
        status.dht_peers >= SERVERS
    })
    .await;
    let start = Instant::now();
    holder.store.provide_all(&sources(0..500)).unwrap();
    let status = eventually(holder.client_handle(), "announcing", |status| {
        status.provide.done >= 500 && status.provide.queued == 0
    })
    .await;
    // Six streams one after the other, if every server were waited for in vain, would take half a minute.
    assert!(
        start.elapsed() < Duration::from_secs(5),
        "{:?}",
        start.elapsed()
    );
    let provide = status.provide;
    assert_eq!((provide.keys, provide.done, provide.failed), (500, 500, 0));
    assert!(provide.lookups <= 10, "{provide:?}");
    assert!(provide.streams <= 4 * SERVERS as u64, "{provide:?}");
    assert_eq!(provide.records, 500 * SERVERS as u64);
    assert_eq!((provide.cycle_keys, provide.overdue), (500, 0));
    for server in &servers {
        server.keeps(500).await;
    }
    let seeker = TestNode::client(&[first]).await;
    for name in [0, 17, 250, 499] {
        let found = seeker.client_handle().find_providers(key(name)).await;
        assert_eq!(found.unwrap().peers, [holder.peer_id()]);
    }
    let told = holder.client_handle().provide(key(1000)).await.unwrap();
    assert_eq!(told as usize, SERVERS);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_comes_back_at_the_same_address_announces_nothing_and_still_answers_for_all() {
    let middle = TestNode::server(&[]).await;
    let home = tempfile::tempdir().unwrap();
    let store = Store::open(home.path()).unwrap();
    store.provide_all(&sources(0..50)).unwrap();
    let config = |address| Config {
        provide: true,
        listen: vec![address],
        ..config(DhtMode::Server, &[&middle.address])
    };
    let free = config("/ip4/127.0.0.1/tcp/0".parse().unwrap());
    let first = Node::spawn(free.clone(), store.clone()).unwrap();
    let status = eventually(first.client(), "announcing", |status| {
        status.provide.done == 50 && status.provide.queued == 0
    })
    .await;
    let same = status.listen_addrs[0].parse().unwrap();
    first.stop().await;
    let again = Config {
        identity: free.identity,
        ..config(same)
    };
    let second = Node::spawn(again, store.clone()).unwrap();
    let status = eventually(second.client(), "reading the queue", |status| {
        status.dht_peers == 1 && status.provide.keys == 50
    })
    .await;
    assert_eq!((status.provide.queued, status.provide.done), (0, 0));
    // With the middle, all records of it go; but it answers for itself.
    let seeker = TestNode::client(&[&status_address(&status)]).await;
    let TestNode { node, .. } = middle;
    node.stop().await;
    let found = seeker.client_handle().find_providers(key(7)).await.unwrap();
    assert_eq!(found.peers, [second.client().peer_id()]);
}

fn status_address(status: &Status) -> Multiaddr {
    format!("{}/p2p/{}", status.listen_addrs[0], status.peer_id)
        .parse()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_only_fetched_is_not_announced_if_that_is_the_wish() {
    let middle = TestNode::server(&[]).await;
    let modest = TestNode::start(Config {
        provide: true,
        provide_scope: ProvideScope::Made,
        ..config(DhtMode::Server, &[&middle.address])
    })
    .await;
    let fetched = store::ProvideOrigin::Fetched;
    modest.store.provide_as(fetched, &sources(0..5)).unwrap();
    modest.store.provide_all(&sources(5..7)).unwrap();
    let status = eventually(modest.client_handle(), "announcing", |status| {
        status.provide.done >= 2 && status.provide.queued == 0
    })
    .await;
    assert_eq!((status.provide.keys, status.provide.done), (2, 2));
    middle.keeps(2).await;
    let user = TestNode::client(&[&middle.address, &modest.address]).await;
    let client = user.client_handle();
    let found = client.find_providers(key(0)).await.unwrap();
    assert!(
        found.peers.is_empty(),
        "it does not tell who asks it either"
    );
    let found = client.find_providers(key(6)).await.unwrap();
    assert_eq!(found.peers, [modest.peer_id()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_with_a_quota_learns_how_many_others_have_its_files() {
    let middle = TestNode::server(&[]).await;
    let other = TestNode::server(&[&middle.address]).await;
    let (common, rare) = (b"what everybody has", b"what nobody else has");
    other.mirror(common);
    middle.keeps(1).await;
    let curious = TestNode::start(Config {
        provide: true,
        count_others: true,
        ..config(DhtMode::Client, &[&middle.address])
    })
    .await;
    let blobs = [curious.mirror(common), curious.mirror(rare)];
    let known = || {
        let everything = store::gc::Goal {
            free_bytes: None,
            order: store::gc::Order::Commonest,
        };
        let plan = curious.store.plan_collection(&everything, &|_| None);
        let plan = plan.unwrap();
        let of = |blob: &Blob| {
            let mut entries = plan.remove.iter().chain(plan.stay.iter().map(|(e, _)| e));
            entries.find(|entry| entry.sha256 == blob.sha256)?.providers
        };
        blobs.each_ref().map(of)
    };
    let wait = async {
        while known() != [Some(1), Some(0)] {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    in_time("the number of others", wait).await;
}
