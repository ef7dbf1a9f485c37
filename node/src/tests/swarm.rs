//! Fetches that are interrupted, and nodes that fetch the same thing at the same time.

use std::sync::atomic::{AtomicU64, Ordering};

use store::dag::{Walk, WalkLimits};
use store::substitute::{Origin, Progress};

use super::*;

const MIB: usize = 1 << 20;

/// Wants no more after so many bytes.
struct Until(u64, AtomicU64);

impl Progress for Until {
    fn bytes(&self, bytes: u64, _: Option<u64>) {
        self.1.fetch_add(bytes, Ordering::Relaxed);
    }

    fn cancelled(&self) -> bool {
        self.1.load(Ordering::Relaxed) >= self.0
    }
}

impl TestNode {
    /// Fetches by CID from these, until so many bytes are there in order.
    async fn fetch_root(
        &self,
        root: base::Cid,
        from: &[PeerId],
        until: u64,
    ) -> Result<Fetched, FetchError> {
        let (blocking, store) = (self.client_handle().blocking(), self.store.clone());
        let from = from.to_vec();
        let until = Until(until, AtomicU64::new(0));
        let fetch = move || blocking.fetch_cid(root, &from, &store, &until);
        in_time("a fetch", tokio::task::spawn_blocking(fetch))
            .await
            .unwrap()
    }

    async fn uploaded(&self) -> u64 {
        self.client_handle().status().await.unwrap().uploaded_bytes
    }

    async fn meets(&self, other: &TestNode) {
        self.client_handle()
            .connect(other.address.clone())
            .await
            .unwrap();
    }
}

/// In no DHT and known to nobody but those that it meets.
async fn lonely() -> TestNode {
    TestNode::start(config(DhtMode::Client, &[])).await
}

fn from_peers(fetched: &Fetched) -> u64 {
    let received = fetched.received.iter();
    let remote = received.filter(|(origin, _)| *origin != Origin::Local);
    remote.map(|(_, bytes)| bytes).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_fetch_is_gone_on_with_and_nothing_is_sent_twice() {
    let seeder = lonely().await;
    let bytes = content(1, 64 * MIB);
    let blob = seeder.mirror(&bytes);
    let mut config = config(DhtMode::Client, &[]);
    config.limits.fetch_window_bytes = 4 << 20;
    let user = TestNode::start(config).await;
    user.meets(&seeder).await;
    let from = [seeder.peer_id()];
    // What is here already counts as progress, so each run gets further.
    for until in [12 << 20, 30 << 20] {
        let error = user.fetch_root(blob.root, &from, until).await.unwrap_err();
        assert!(matches!(error, FetchError::Cancelled), "{error:?}");
    }
    let fetched = user.fetch_root(blob.root, &from, u64::MAX).await.unwrap();
    assert_eq!(fetched.blob, blob);
    let received = &fetched.received;
    let here = received.iter().find(|(origin, _)| *origin == Origin::Local);
    assert!(
        here.is_some_and(|(_, bytes)| *bytes >= 30 << 20),
        "{received:?}"
    );
    assert!(from_peers(&fetched) <= 34 << 20, "{received:?}");
    // What was on its way when a run ended may be sent again: a window, and what had left the store before.
    let sent = seeder.uploaded().await;
    assert!(sent <= (64 + 2 * (4 + 4)) << 20, "{sent}");
}

#[tokio::test(flavor = "multi_thread")]
async fn half_a_file_is_served_by_who_fetches_it_and_by_a_daemon_beside_it() {
    let seeder = lonely().await;
    let blob = seeder.mirror(&content(1, 24 * MIB));
    let half = lonely().await;
    half.meets(&seeder).await;
    let error = half
        .fetch_root(blob.root, &[seeder.peer_id()], 8 << 20)
        .await
        .unwrap_err();
    assert!(matches!(error, FetchError::Cancelled), "{error:?}");
    // Another process of the same home.
    let daemon = Node::spawn(
        config(DhtMode::Client, &[]),
        Store::open(half.store.root()).unwrap(),
    )
    .unwrap();
    let listening = |status: &Status| !status.external_addrs.is_empty();
    let status = eventually(daemon.client(), "listening", listening).await;
    let address = format!("{}/p2p/{}", status.listen_addrs[0], status.peer_id);
    for (holder, address) in [
        (half.peer_id(), half.address.clone()),
        (daemon.client().peer_id(), address.parse().unwrap()),
    ] {
        let mut config = config(DhtMode::Client, &[]);
        // So that it does not ask for more than there is before it has enough.
        config.limits.fetch_window_bytes = 4 << 20;
        let user = TestNode::start(config).await;
        user.client_handle().connect(address).await.unwrap();
        let before = seeder.uploaded().await;
        let got = user.fetch_root(blob.root, &[holder], 4 << 20).await;
        let error = got.unwrap_err();
        assert!(matches!(error, FetchError::Cancelled), "{error:?}");
        assert_eq!(seeder.uploaded().await, before);
    }
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn downloaders_that_know_each_other_share_what_a_slow_seeder_sends() {
    // The seeder counts nobody as near, so that its upload is limited.
    let bytes = content(1, 24 * MIB);
    let seeder = lonely().await;
    let blob = seeder.mirror(&bytes);
    let slow: Arc<dyn BlockStore> = Arc::new(Slow(seeder.store.clone()));
    let mut swarm = swarm_of(&config(DhtMode::Client, &[]), slow);
    let seeder_id = *swarm.local_peer_id();
    swarm
        .listen_on("/ip4/127.0.0.1/tcp/0".parse().unwrap())
        .unwrap();
    let address = in_time("listening", async {
        loop {
            if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
                return address.with_p2p(seeder_id).unwrap();
            }
        }
    })
    .await;
    let (counted, serving) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let sent = Arc::clone(&counted);
    let task = tokio::spawn(async move {
        loop {
            swarm.select_next_some().await;
            let stats = swarm.behaviour().exchange.stats();
            sent.store(stats.total.bytes_sent, Ordering::Relaxed);
        }
    });
    let mut users = Vec::new();
    for _ in 0..4 {
        let user = lonely().await;
        user.client_handle().connect(address.clone()).await.unwrap();
        for other in &users {
            user.meets(other).await;
        }
        users.push(user);
    }
    let from = [seeder_id];
    let fetches = users
        .iter()
        .map(|user| user.fetch_root(blob.root, &from, u64::MAX));
    for fetched in futures::future::join_all(fetches).await {
        assert_eq!(fetched.unwrap().blob, blob);
    }
    for user in &users {
        serving.fetch_add(user.uploaded().await, Ordering::Relaxed);
    }
    task.abort();
    let (sent, serving) = (
        counted.load(Ordering::Relaxed),
        serving.load(Ordering::Relaxed),
    );
    // Each for itself it would be four files.
    assert!(
        sent < 3 * bytes.len() as u64,
        "{sent} by the seeder, {serving} by the others"
    );
    assert!(serving > bytes.len() as u64, "{serving}");
}

/// A store on a disk that takes its time.
struct Slow(Store);

impl BlockStore for Slow {
    fn size(&self, hash: &base::Multihash) -> Result<Option<u64>, store::StoreError> {
        self.0.size(hash)
    }

    fn get(&self, hash: &base::Multihash) -> Result<Option<base::Block>, store::StoreError> {
        // Four are read at a time: 80 MiB/s in all, which is less than five nodes on a machine can move.
        std::thread::sleep(Duration::from_millis(50));
        self.0.get(hash)
    }

    fn put(&self, block: &base::Block) -> Result<(), store::StoreError> {
        self.0.put(block)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn five_holders_of_different_speed_send_hardly_a_byte_twice() {
    let bytes = content(1, 48 * MIB);
    let user = lonely().await;
    let mut holders = Vec::new();
    for _ in 0..5 {
        let holder = lonely().await;
        holder.mirror(&bytes);
        user.meets(&holder).await;
        holders.push(holder);
    }
    let blob = holders[0].store.blob(&Sha256::of(&bytes)).unwrap().unwrap();
    let from: Vec<_> = holders.iter().map(TestNode::peer_id).collect();
    let fetched = user.fetch_root(blob.root, &from, u64::MAX).await.unwrap();
    assert_eq!(fetched.blob, blob);
    let mut sent = 0;
    for holder in &holders {
        sent += holder.uploaded().await;
    }
    let most = bytes.len() as u64 * 102 / 100 + MIB as u64;
    assert!(sent <= most, "{sent}");
    // And each of its blocks is here.
    let mut walk = Walk::new(blob.root, WalkLimits::default()).unwrap();
    while !walk.is_done() {
        for cid in walk.wants(8) {
            walk.handle_block(&user.store.get_cid(&cid).unwrap().unwrap())
                .unwrap();
        }
        while walk.next_bytes().unwrap().is_some() {}
    }
}
