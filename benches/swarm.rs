//! Thirty-two nodes without anything, and one seeder with a file and a narrow line.
//!
//! `cargo bench --bench swarm` prints a table. All nodes run in this process, each with a store on disk, over TCP on
//! loopback; all begin at the same time. The seeder is behind a relay of bytes that lets so many a second out, whoever
//! they go to, and counts them: upload is what was on the wire. *Together* all nodes know each other, as on a local
//! network, and serve what they have while they fetch the rest. *Alone* each knows nobody but the seeder, so that it has
//! to send the file to everybody.

use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use p2pkgs_node::{Announce, Config, DHT_LAN, DhtMode, Multiaddr, Node, identity};
use store::substitute::NoProgress;
use store::{Blob, Expected, Store};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Mutex;
use tokio::time::sleep_until;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const FILE_BYTES: u64 = 64 << 20;
const NODES: usize = 32;
/// What the seeder may send: less than what two cores can encrypt, so that the line is what is measured.
const UPLOAD_BYTES_PER_SEC: u64 = 32 << 20;
/// What the relay passes on at a time.
const PIECE_BYTES: usize = 16 << 10;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    let result = runtime
        .map_err(Into::into)
        .and_then(|runtime| runtime.block_on(compare()));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "swarm: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn compare() -> Result<()> {
    let scratch = tempfile::tempdir()?;
    let home = scratch.path().join("seeder");
    let blob = fill(&home)?;
    let mut out = io::stdout().lock();
    let (nodes, mib) = (NODES, FILE_BYTES >> 20);
    writeln!(
        out,
        "| {nodes} nodes fetch {mib} MiB from one seeder, {} MiB/s | until all have it | seeder sends |",
        UPLOAD_BYTES_PER_SEC >> 20
    )?;
    writeln!(out, "|---|---|---|")?;
    for (name, together) in [("together", true), ("alone", false)] {
        let run = run(scratch.path(), &home, &blob, together).await?;
        let files = run.sent as f64 / FILE_BYTES as f64;
        let secs = run.time.as_secs_f64();
        writeln!(out, "| {name} | {secs:.1} s | {files:.1} files |")?;
        out.flush()?;
    }
    Ok(())
}

/// A store that holds one file of bytes that nothing can compress or guess.
fn fill(home: &Path) -> Result<Blob> {
    let store = Store::open(home)?;
    let mut ingest = store.ingest()?;
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut piece = vec![0; 1 << 20];
    for _ in 0..FILE_BYTES / piece.len() as u64 {
        for word in piece.chunks_exact_mut(8) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            word.copy_from_slice(&state.to_le_bytes());
        }
        ingest.write_all(&piece)?;
    }
    Ok(ingest.finish(&Expected::anything())?)
}

struct Run {
    time: Duration,
    sent: u64,
}

async fn run(scratch: &Path, seeder_home: &Path, blob: &Blob, together: bool) -> Result<Run> {
    let seeder = start(seeder_home).await?;
    let relay = Arc::new(Relay::new(seeder.address.clone())?);
    let seeder_address = Arc::clone(&relay).listen().await?;
    let (mut nodes, mut homes) = (Vec::new(), Vec::new());
    for number in 0..NODES {
        let home = scratch.join(format!("node-{number}"));
        let node = start(&home).await?;
        node.node.client().connect(seeder_address.clone()).await?;
        for other in nodes.iter().filter(|_| together) {
            let Running { address, .. } = other;
            node.node.client().connect(address.clone()).await?;
        }
        nodes.push(node);
        homes.push(home);
    }
    let (before, started) = (relay.sent.load(Ordering::Relaxed), Instant::now());
    let seeder_id = seeder.node.client().peer_id();
    let fetches = nodes.iter().map(|node| {
        let (client, store, root) = (node.node.client().blocking(), node.store.clone(), blob.root);
        tokio::task::spawn_blocking(move || {
            client.fetch_cid(root, &[seeder_id], &store, &NoProgress)
        })
    });
    for fetched in futures::future::join_all(fetches).await {
        if fetched??.blob != *blob {
            return Err("another file came".into());
        }
    }
    let time = started.elapsed();
    let sent = relay.sent.load(Ordering::Relaxed) - before;
    for node in nodes {
        node.node.stop().await;
    }
    seeder.node.stop().await;
    for home in homes {
        std::fs::remove_dir_all(home)?;
    }
    Ok(Run { time, sent })
}

struct Running {
    node: Node,
    store: Store,
    address: Multiaddr,
}

async fn start(home: &Path) -> Result<Running> {
    let store = Store::open(home)?;
    let config = Config {
        listen: vec!["/ip4/127.0.0.1/tcp/0".parse()?],
        dht_mode: DhtMode::Client,
        dht_protocol: DHT_LAN.to_owned(),
        announce: Announce::All,
        ..Config::new(identity::ephemeral())
    };
    let node = Node::spawn(config, store.clone())?;
    let status = loop {
        let status = node.client().status().await?;
        if !status.listen_addrs.is_empty() {
            break status;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    };
    let address = format!("{}/p2p/{}", status.listen_addrs[0], status.peer_id).parse()?;
    Ok(Running {
        node,
        store,
        address,
    })
}

/// Passes bytes on to the seeder and back; what comes back is counted, and goes at the seeder's pace.
struct Relay {
    seeder: Multiaddr,
    port: u16,
    sent: AtomicU64,
    /// When the line is free again.
    free_at: Mutex<tokio::time::Instant>,
}

impl Relay {
    fn new(seeder: Multiaddr) -> Result<Self> {
        let text = seeder.to_string();
        let port = text.split('/').nth(4).ok_or("an address without a port")?;
        Ok(Self {
            port: port.parse()?,
            seeder,
            sent: AtomicU64::new(0),
            free_at: Mutex::new(tokio::time::Instant::now()),
        })
    }

    /// The address under which the seeder is reached through it.
    async fn listen(self: Arc<Self>) -> Result<Multiaddr> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let text = self.seeder.to_string();
        let (of, by) = (self.port, listener.local_addr()?.port());
        let address = text.replace(&format!("/tcp/{of}/"), &format!("/tcp/{by}/"));
        tokio::spawn(async move {
            while let Ok((peer, _)) = listener.accept().await {
                // Who cannot be served is gone; the nodes would tell.
                tokio::spawn(Arc::clone(&self).serve(peer));
            }
        });
        Ok(address.parse()?)
    }

    async fn serve(self: Arc<Self>, peer: TcpStream) -> io::Result<()> {
        let seeder = TcpStream::connect(("127.0.0.1", self.port)).await?;
        peer.set_nodelay(true)?;
        seeder.set_nodelay(true)?;
        let (mut from_peer, mut to_peer) = peer.into_split();
        let (mut from_seeder, mut to_seeder) = seeder.into_split();
        tokio::spawn(async move { tokio::io::copy(&mut from_peer, &mut to_seeder).await });
        let mut piece = vec![0; PIECE_BYTES];
        loop {
            let length = from_seeder.read(&mut piece).await?;
            if length == 0 {
                return Ok(());
            }
            self.pay(length as u64).await;
            to_peer.write_all(&piece[..length]).await?;
        }
    }

    async fn pay(&self, bytes: u64) {
        self.sent.fetch_add(bytes, Ordering::Relaxed);
        let time = Duration::from_nanos(bytes * 1_000_000_000 / UPLOAD_BYTES_PER_SEC);
        let until = {
            let mut free_at = self.free_at.lock().await;
            *free_at = (*free_at).max(tokio::time::Instant::now()) + time;
            *free_at
        };
        sleep_until(until).await;
    }
}
