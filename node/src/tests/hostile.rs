//! Peers that lie, fall silent, or vanish: they cost time, never an answer and never a wrong byte.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex};

use base::Multihash;
use store::substitute::Origin;
use store::{Block, StoreError};

use super::*;

/// A store whose owner decides what comes out.
struct Twisted<F> {
    inner: Store,
    twist: F,
}

impl<F> BlockStore for Twisted<F>
where
    F: Fn(Block) -> Option<Block> + Send + Sync,
{
    fn size(&self, hash: &Multihash) -> Result<Option<u64>, StoreError> {
        self.inner.size(hash)
    }

    fn get(&self, hash: &Multihash) -> Result<Option<Block>, StoreError> {
        Ok(self.inner.get(hash)?.and_then(&self.twist))
    }

    fn put(&self, block: &Block) -> Result<(), StoreError> {
        self.inner.put(block)
    }
}

fn scratch_store() -> (TempDir, Store) {
    let home = tempfile::tempdir().unwrap();
    let store = Store::open(home.path()).unwrap();
    (home, store)
}

fn source_key(sha256: &Sha256) -> Multihash {
    Multihash::sha2_256(sha256)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_root_is_found_out_remembered_and_another_holder_is_used() {
    let middle = TestNode::server(&[]).await;
    let right = content(1, 1_200_000);
    let sha256 = Sha256::of(&right);
    // It really serves what it names: another file of the same length.
    let (_home, lies) = scratch_store();
    let wrong = ingest(&lies, &content(2, 1_200_000));
    let answers = Answers::Holding(Holding {
        root: wrong.root,
        size: wrong.size,
    });
    let keys = [source_key(&sha256)];
    let liar = Impostor::start(Arc::new(lies), answers, &middle.address, &keys).await;
    middle.keeps(1).await;
    let user = TestNode::client(&[&middle.address]).await;
    let error = user.fetch_source(sha256).await.unwrap_err();
    match &error {
        FetchError::Invalid {
            expected,
            got,
            from,
        } => {
            assert_eq!((expected, got), (&sha256.to_hex(), &wrong.sha256.to_hex()));
            assert_eq!(*from, Origin::LanPeer(liar.peer_id.to_string()));
        }
        other => panic!("{other:?}"),
    }
    assert!(
        user.store.blob(&wrong.sha256).unwrap().is_none(),
        "nothing of it is kept"
    );

    let honest = TestNode::server(&[&middle.address]).await;
    honest.mirror(&right);
    middle.keeps(2).await;
    let fetched = user.fetch_source(sha256).await.unwrap();
    let from: Vec<_> = fetched
        .received
        .iter()
        .map(|(origin, _)| origin.clone())
        .collect();
    assert_eq!(
        from,
        [Origin::LanPeer(honest.peer_id().to_string())],
        "the liar is not asked again"
    );
    assert_eq!(fetched.asked.invalid, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_bytes_under_the_right_name_never_arrive() {
    let middle = TestNode::server(&[]).await;
    let bytes = content(1, 3_300_000);
    let (_home, inner) = scratch_store();
    let blob = ingest(&inner, &bytes);
    // The root is right, every leaf has one bit flipped.
    let twist = |block: Block| {
        let mut bytes = block.bytes().to_vec();
        if bytes.len() > 100_000 {
            bytes[77] ^= 1;
        }
        Some(Block::of(bytes.into()))
    };
    let answers = Answers::Holding(Holding {
        root: blob.root,
        size: blob.size,
    });
    let keys = [source_key(&blob.sha256)];
    let twisted = Arc::new(Twisted { inner, twist });
    let liar = Impostor::start(twisted, answers, &middle.address, &keys).await;
    middle.keeps(1).await;
    let user = TestNode::client(&[&middle.address]).await;
    let error = user.fetch_source(blob.sha256).await.unwrap_err();
    let given_up = matches!(
        error,
        FetchError::Missing { .. } | FetchError::TimedOut { .. }
    );
    assert!(given_up, "{error:?}");
    let is_gone = |status: &Status| {
        let liar = liar.peer_id.to_string();
        status.asked.misbehaved_peers == 1 && status.peers.iter().all(|peer| peer.id != liar)
    };
    eventually(user.client_handle(), "the liar to be dropped", is_gone).await;

    let honest = TestNode::server(&[&middle.address]).await;
    honest.mirror(&bytes);
    middle.keeps(2).await;
    let fetched = user.fetch_source(blob.sha256).await.unwrap();
    assert_eq!(fetched.blob, blob);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_peer_costs_its_deadline_and_nothing_else() {
    let middle = TestNode::server(&[]).await;
    let bytes = content(1, 1_200_000);
    let sha256 = Sha256::of(&bytes);
    let (_home, store) = scratch_store();
    let keys = [source_key(&sha256)];
    let _silent = Impostor::start(Arc::new(store), Answers::Silence, &middle.address, &keys).await;
    middle.keeps(1).await;
    let user = TestNode::client(&[&middle.address]).await;
    match user.fetch_source(sha256).await.unwrap_err() {
        FetchError::Missing { asked } => {
            assert_eq!((asked.providers, asked.timed_out, asked.refused), (1, 1, 0));
        }
        other => panic!("{other:?}"),
    }
    let honest = TestNode::server(&[&middle.address]).await;
    honest.mirror(&bytes);
    middle.keeps(2).await;
    assert_eq!(user.fetch_source(sha256).await.unwrap().blob.sha256, sha256);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_holder_that_never_sends_a_block_is_replaced_by_another() {
    let middle = TestNode::server(&[]).await;
    let bytes = content(1, 3_300_000);
    let honest = TestNode::server(&[&middle.address]).await;
    let blob = honest.mirror(&bytes);
    let (_home, inner) = scratch_store();
    ingest(&inner, &bytes);
    // Its reads wait until the test is over.
    let gate = Arc::new((Mutex::new(false), Condvar::new()));
    let closed = Arc::clone(&gate);
    let twist = move |block: Block| {
        let (open, changed) = &*closed;
        drop(
            changed
                .wait_while(open.lock().unwrap(), |open| !*open)
                .unwrap(),
        );
        Some(block)
    };
    let answers = Answers::Holding(Holding {
        root: blob.root,
        size: blob.size,
    });
    let keys = [source_key(&blob.sha256)];
    let twisted = Arc::new(Twisted { inner, twist });
    let stuck = Impostor::start(twisted, answers, &middle.address, &keys).await;
    middle.keeps(2).await;
    let user = TestNode::client(&[&middle.address, &stuck.address]).await;
    let fetched = user.fetch_source(blob.sha256).await;
    *gate.0.lock().unwrap() = true;
    gate.1.notify_all();
    let from: Vec<_> = fetched
        .unwrap()
        .received
        .into_iter()
        .map(|(origin, _)| origin)
        .collect();
    assert_eq!(from, [Origin::LanPeer(honest.peer_id().to_string())]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_holder_that_vanishes_in_the_middle_is_replaced_by_another() {
    let middle = TestNode::server(&[]).await;
    let bytes = content(1, 12 << 20);
    let honest = TestNode::server(&[&middle.address]).await;
    let blob = honest.mirror(&bytes);
    let (_home, inner) = scratch_store();
    ingest(&inner, &bytes);
    // Four blocks, then its process dies.
    let served = Arc::new(AtomicUsize::new(0));
    let (count, (dies, death)) = (Arc::clone(&served), tokio::sync::mpsc::channel(1));
    let mut death = death;
    let twist = move |block: Block| {
        if count.fetch_add(1, Ordering::SeqCst) < 4 {
            return Some(block);
        }
        let _ = dies.try_send(());
        None
    };
    let answers = Answers::Holding(Holding {
        root: blob.root,
        size: blob.size,
    });
    let keys = [source_key(&blob.sha256)];
    let twisted = Arc::new(Twisted { inner, twist });
    let doomed = Impostor::start(twisted, answers, &middle.address, &keys).await;
    middle.keeps(2).await;
    tokio::spawn(async move {
        death.recv().await;
        drop(doomed);
    });
    let user = TestNode::client(&[&middle.address]).await;
    let fetched = user.fetch_source(blob.sha256).await.unwrap();
    assert_eq!(fetched.blob, blob);
    assert!(
        fetched
            .received
            .iter()
            .any(|(from, _)| *from == Origin::LanPeer(honest.peer_id().to_string()))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claimed_size_that_its_own_dag_contradicts_is_a_lie() {
    let middle = TestNode::server(&[]).await;
    let (_home, store) = scratch_store();
    let blob = ingest(&store, &content(1, 2_200_000));
    let answers = Answers::Holding(Holding {
        root: blob.root,
        size: 5_000_000,
    });
    let keys = [source_key(&blob.sha256)];
    let _liar = Impostor::start(Arc::new(store), answers, &middle.address, &keys).await;
    middle.keeps(1).await;
    let user = TestNode::client(&[&middle.address]).await;
    let error = user.fetch_source(blob.sha256).await.unwrap_err();
    assert!(matches!(error, FetchError::Invalid { .. }), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_announcement_is_kept_under_the_name_of_its_sender() {
    let middle = TestNode::server(&[]).await;
    let (_home, store) = scratch_store();
    let key = source_key(&Sha256::of(b"x"));
    let answers = Answers::Silence;
    let peer = Impostor::start(Arc::new(store), answers, &middle.address, &[key]).await;
    middle.keeps(1).await;
    let seeker = TestNode::client(&[&middle.address]).await;
    let found = seeker.client_handle().find_providers(key).await.unwrap();
    assert_eq!(found.peers, [peer.peer_id]);
}
