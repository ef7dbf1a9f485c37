//! New versions of packages as what changed since the old ones, and holders who lie about it.

use std::fs;

use base::PackageName;
use store::delta::{SEGMENT_BYTES, Segment};
use store::substitute::Origin;
use store::{Pin, PinKind, archive};

use super::*;
use crate::delta_protocol;
use crate::realisation_protocol;

/// Files of a package: two large ones that stay, and before them one that is another in each version, so that no block of
/// the archive stays.
fn output(version: u8) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let version = u32::from(version);
    let news = content(100 + version, 2000 + 1000 * version as usize);
    fs::write(dir.path().join("0"), news).unwrap();
    fs::write(dir.path().join("a"), content(1, 3_000_000)).unwrap();
    fs::write(dir.path().join("c"), content(2, 6_000_000)).unwrap();
    let mut packed = Vec::new();
    archive::pack(dir.path(), &mut packed).unwrap();
    packed
}

/// The text of a version's derivation.
fn derivation(version: u8) -> String {
    format!("p2pkgs-derivation 1\nname thing\nsystem x86_64-linux\nbuild {version}\n")
}

fn package(version: u8) -> PkgHash {
    PkgHash::of_derivation(derivation(version).as_bytes())
}

/// Puts a version into a store, as whoever has built or fetched it does.
fn keep(store: &Store, version: u8) -> (Blob, SignedRealisation) {
    let blob = ingest(store, &output(version));
    let pkghash = store
        .put_derivation(derivation(version).as_bytes())
        .unwrap();
    let signed = sign(pkghash, &blob, &SecretKey::from_seed(&[1; 32]));
    store.put_realisation(&signed).unwrap();
    let package: PackageName = "thing".parse().unwrap();
    let note = Pin {
        sha256: blob.sha256,
        kind: PinKind::Output { pkghash, package },
        added_unix_secs: u64::from(version),
    };
    store.note(&note).unwrap();
    (blob, signed)
}

/// Looks for the second version and fetches it.
async fn fetch_second(user: &TestNode) -> Fetched {
    // As whoever wants it does.
    user.store.put_derivation(derivation(2).as_bytes()).unwrap();
    let (substituter, store) = (user.substituter(), user.store.clone());
    let found = query(substituter.clone(), package(2)).await.unwrap();
    let realisation = found.realisations[0].realisation().clone();
    let fetch = move || substituter.fetch(&realisation, &store, &NoProgress);
    let fetched = in_time("a fetch", tokio::task::spawn_blocking(fetch)).await;
    let fetched = fetched.unwrap().unwrap();
    assert_eq!(fetched.blob.sha256, Sha256::of(&output(2)));
    assert!(user.store.blob(&fetched.blob.sha256).unwrap().is_some());
    fetched
}

/// Bytes that came from peers.
fn moved(fetched: &Fetched) -> u64 {
    let others = fetched.received.iter();
    let others = others.filter(|(origin, _)| *origin != Origin::Local);
    others.map(|(_, bytes)| bytes).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_version_moves_only_what_changed() {
    let builder = TestNode::server(&[]).await;
    keep(&builder.store, 1);
    let (new, _) = keep(&builder.store, 2);
    let user = TestNode::client(&[&builder.address]).await;
    keep(&user.store, 1);
    let fetched = fetch_second(&user).await;
    assert_eq!(fetched.blob, new);
    let bytes = moved(&fetched);
    assert!(bytes * 20 < new.size, "{bytes} of {}", new.size);
    assert!(
        fetched
            .received
            .contains(&(Origin::Local, new.size - bytes))
    );
    let status = builder.client_handle().status().await.unwrap();
    let sent = status.uploaded_bytes;
    assert!(sent > 0 && sent * 20 < new.size, "{sent}");
    assert_eq!(status.uploaded_near_bytes, sent);
    // What came that way is served like everything else.
    let root = base::Multihash::of(&new.root).unwrap();
    assert!(user.store.serve(&root).unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_no_earlier_version_in_common_sends_the_whole() {
    let builder = TestNode::server(&[]).await;
    let (new, _) = keep(&builder.store, 2);
    let user = TestNode::client(&[&builder.address]).await;
    keep(&user.store, 1);
    assert!(moved(&fetch_second(&user).await) >= new.size);
    // And so it is where the user has nothing.
    keep(&builder.store, 1);
    let user = TestNode::client(&[&builder.address]).await;
    assert!(moved(&fetch_second(&user).await) >= new.size);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_is_nobodys_to_ask_for_as_a_delta() {
    let builder = TestNode::server(&[]).await;
    let (old, _) = keep(&builder.store, 1);
    let source = builder.mirror(&output(3));
    let user = TestNode::client(&[&builder.address]).await;
    let ask = |new| {
        let request = delta_protocol::Request {
            new,
            segment: 0,
            earlier: vec![old.sha256],
        };
        user.client_handle()
            .request(|reply| crate::command::Command::Delta {
                peer: builder.peer_id(),
                request,
                reply,
            })
    };
    let has_met = |status: &Status| !status.peers.is_empty();
    eventually(user.client_handle(), "the builder", has_met).await;
    query(user.substituter(), package(1)).await.unwrap();
    let answer = ask(source.sha256).await.unwrap();
    assert_eq!(answer.response, delta_protocol::Response::No);
    let answer = ask(old.sha256).await.unwrap();
    assert_ne!(answer.response, delta_protocol::Response::No);
}

/// A holder that serves the archive as it should, and answers what changed as `lie` says: nothing for `None`.
struct Liar {
    address: Multiaddr,
    asked: Arc<AtomicUsize>,
    task: JoinHandle<()>,
    _home: TempDir,
}

type Lie = fn(&delta_protocol::Request) -> Option<delta_protocol::Response>;

impl Drop for Liar {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Liar {
    async fn start(lie: Lie) -> Self {
        let home = tempfile::tempdir().unwrap();
        let store = Store::open(home.path()).unwrap();
        let (_, signed) = keep(&store, 2);
        let mut config = config(DhtMode::Server, &[]);
        config.deadlines.request = 10 * PATIENCE;
        let mut swarm = swarm_of(&config, Arc::new(store));
        swarm.listen_on(config.listen[0].clone()).unwrap();
        let peer_id = *swarm.local_peer_id();
        let address = in_time("listening", async {
            loop {
                if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
                    return address;
                }
            }
        })
        .await;
        let asked = Arc::default();
        let task = tokio::spawn(lie_about(swarm, signed, lie, Arc::clone(&asked)));
        Self {
            address: address.with_p2p(peer_id).unwrap(),
            asked,
            task,
            _home: home,
        }
    }
}

async fn lie_about(
    mut swarm: Swarm<Behaviour>,
    signed: SignedRealisation,
    lie: Lie,
    asked: Arc<AtomicUsize>,
) {
    use request_response::{Event, Message};
    let mut kept = Vec::new();
    loop {
        match swarm.select_next_some().await {
            SwarmEvent::Behaviour(BehaviourEvent::Realisations(Event::Message {
                message: Message::Request { channel, .. },
                ..
            })) => {
                let response = realisation_protocol::Response {
                    packages: vec![vec![signed.clone()]],
                    invalid: 0,
                };
                let realisations = &mut swarm.behaviour_mut().realisations;
                let _ = realisations.send_response(channel, response);
            }
            SwarmEvent::Behaviour(BehaviourEvent::Deltas(Event::Message {
                message:
                    Message::Request {
                        request, channel, ..
                    },
                ..
            })) => {
                asked.fetch_add(1, Ordering::Relaxed);
                match lie(&request) {
                    Some(response) => {
                        let deltas = &mut swarm.behaviour_mut().deltas;
                        let _ = deltas.send_response(channel, response);
                    }
                    // A dropped channel would be an answer of sorts.
                    None => kept.push(channel),
                }
            }
            _ => {}
        }
    }
}

fn segment(tar_bytes: u64, from: u64, length: u64, packed: Vec<u8>) -> delta_protocol::Response {
    let segment = Segment {
        tar_bytes,
        from,
        length,
        packed,
    };
    delta_protocol::Response::Segment {
        earlier: 0,
        segment,
    }
}

/// A segment of zeros, as long as one can be: a zstd frame with its length, of blocks that repeat one byte.
fn zeros() -> Vec<u8> {
    const BLOCK_BYTES: u32 = 128 << 10;
    let blocks = SEGMENT_BYTES as u32 / BLOCK_BYTES;
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0xa0];
    frame.extend((SEGMENT_BYTES as u32).to_le_bytes());
    for block in 1..=blocks {
        let header = u32::from(block == blocks) | 1 << 1 | BLOCK_BYTES << 3;
        frame.extend(&header.to_le_bytes()[..3]);
        frame.push(0);
    }
    frame
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_a_holder_says_changed_the_signed_output_comes() {
    let lies: [(&str, Lie); 9] = [
        ("no", |_| Some(delta_protocol::Response::No)),
        ("garbage", |_| Some(segment(9_000_000, 0, 0, vec![7; 1000]))),
        ("another tar", |_| {
            Some(segment(2 * SEGMENT_BYTES, 0, 0, zeros()))
        }),
        ("no tar at all", |_| Some(segment(0, 0, 0, zeros()))),
        ("an endless tar", |_| Some(segment(u64::MAX, 0, 0, zeros()))),
        ("a tar beyond the bounds", |_| {
            Some(segment(1 << 31, 0, 0, zeros()))
        }),
        ("a reference behind the end", |_| {
            Some(segment(9_000_000, u64::MAX, 9, zeros()))
        }),
        ("an output that was not offered", |_| {
            let delta_protocol::Response::Segment { segment, .. } =
                segment(9_000_000, 0, 0, zeros())
            else {
                return None;
            };
            Some(delta_protocol::Response::Segment {
                earlier: 255,
                segment,
            })
        }),
        ("half of it", |request| {
            let more = (request.segment == 0).then(|| segment(9_000_000, 0, 0, zeros()));
            Some(more.unwrap_or(delta_protocol::Response::No))
        }),
    ];
    for (what, lie) in lies {
        let liar = Liar::start(lie).await;
        let user = TestNode::client(&[&liar.address]).await;
        let (old, _) = keep(&user.store, 1);
        let fetched = fetch_second(&user).await;
        assert!(moved(&fetched) >= fetched.blob.size, "{what}");
        assert!(liar.asked.load(Ordering::Relaxed) > 0, "{what}");
        let left = fs::read_dir(user._home.path().join("tmp"));
        assert_eq!(left.unwrap().count(), 0, "{what}");
        assert!(user.store.blob(&old.sha256).unwrap().is_some(), "{what}");
    }
}
