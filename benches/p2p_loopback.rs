//! One file of 256 MiB from one process to another over loopback: our whole path beside a bare libp2p stream.
//!
//! `cargo bench --bench p2p_loopback` prints a table. *Ours* is a node with a store on disk on either side: the source is
//! looked up by its SHA-256, its DAG fetched over Bitswap, every block and the whole file hashed, written, synchronised and
//! indexed. *Bare* is the same transport (TCP, Noise, Yamux) with one stream whose length is known, sent from memory and
//! thrown away on arrival: what the transport alone can do. The two alternate, each run has two fresh processes, the
//! table shows medians of five. CPU is user and system time of one process while the transfer runs; memory is its peak.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use base::Sha256;
use futures::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, StreamExt as _};
use libp2p::request_response::{self, ProtocolSupport};
use libp2p::swarm::SwarmEvent;
use libp2p::{StreamProtocol, Swarm, noise, tcp, yamux};
use p2pkgs_node::{Announce, Config, DHT_LAN, DhtMode, Multiaddr, Node, PeerSources, identity};
use store::substitute::{NoProgress, SourceFetcher as _, SourceRequest};
use store::{Expected, Store};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const FILE_BYTES: u64 = 256 << 20;
const ROUNDS: usize = 5;
/// What the bare side writes at a time: measured as best for libp2p streams.
const PIECE_BYTES: usize = 256 << 10;
const BARE: StreamProtocol = StreamProtocol::new("/p2pkgs/bench/bare/1.0.0");

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match words[..] {
        ["serve-ours", home] => in_runtime(serve_ours(home)),
        ["fetch-ours", address, sha256, home] => fetch_ours(address, sha256, home),
        ["serve-bare"] => in_runtime(serve_bare()),
        ["fetch-bare", address] => in_runtime(fetch_bare(address)),
        // Cargo passes `--bench`; a filter or anything else is not for us.
        _ => compare(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "p2p_loopback: {error}");
            ExitCode::FAILURE
        }
    }
}

fn in_runtime<T>(future: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?
        .block_on(future)
}

// ---- the comparison ----

/// One run of one side.
#[derive(Clone, Copy)]
struct Sample {
    secs: f64,
    client: Used,
    server: Used,
}

/// What a process spent on a transfer.
#[derive(Clone, Copy)]
struct Used {
    cpu_secs: f64,
    peak_mib: f64,
}

fn compare() -> Result<()> {
    let scratch = tempfile::tempdir()?;
    let home = scratch.path().join("server");
    let sha256 = fill(&home)?;
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let client_home = scratch.path().join(format!("client-{round}"));
        ours.push(run_ours(&home, &sha256, &client_home)?);
        std::fs::remove_dir_all(&client_home)?;
        bare.push(run_bare()?);
    }
    print_table(&ours, &bare)
}

/// A store that holds one file of bytes that nothing can compress or guess.
fn fill(home: &Path) -> Result<Sha256> {
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
    Ok(ingest.finish(&Expected::anything())?.sha256)
}

fn run_ours(server_home: &Path, sha256: &Sha256, client_home: &Path) -> Result<Sample> {
    let (server_home, client_home) = (path_text(server_home)?, path_text(client_home)?);
    let mut server = Peer::start(&["serve-ours", server_home])?;
    let address = server.word("READY")?;
    let client = Peer::start(&["fetch-ours", &address, &sha256.to_hex(), client_home])?;
    finish(server, client)
}

fn run_bare() -> Result<Sample> {
    let mut server = Peer::start(&["serve-bare"])?;
    let address = server.word("READY")?;
    let client = Peer::start(&["fetch-bare", &address])?;
    finish(server, client)
}

fn finish(mut server: Peer, mut client: Peer) -> Result<Sample> {
    let done = client.word("DONE")?;
    let (secs, client_used) = done.split_once(' ').ok_or("the client said too little")?;
    let client_used = Used::parse(client_used)?;
    server.child.stdin.take();
    let server_used = Used::parse(&server.word("USED")?)?;
    client.child.wait()?;
    server.child.wait()?;
    Ok(Sample {
        secs: secs.parse()?,
        client: client_used,
        server: server_used,
    })
}

fn path_text(path: &Path) -> Result<&str> {
    path.to_str()
        .ok_or_else(|| "the temporary directory has an odd name".into())
}

fn print_table(ours: &[Sample], bare: &[Sample]) -> Result<()> {
    let mut out = io::stdout().lock();
    writeln!(
        out,
        "| 256 MiB over loopback | MB/s | client CPU s/GiB | server CPU s/GiB | client peak MiB | server peak MiB |"
    )?;
    writeln!(out, "|---|---|---|---|---|---|")?;
    for (name, samples) in [
        ("p2pkgs, store to store", ours),
        ("bare libp2p stream", bare),
    ] {
        writeln!(
            out,
            "| {name} | {:.0} | {:.2} | {:.2} | {:.0} | {:.0} |",
            median(samples, rate),
            median(samples, |s| per_gib(s.client.cpu_secs)),
            median(samples, |s| per_gib(s.server.cpu_secs)),
            median(samples, |s| s.client.peak_mib),
            median(samples, |s| s.server.peak_mib),
        )?;
    }
    let ratio = median(ours, rate) / median(bare, rate);
    let peak = ours
        .iter()
        .map(|s| s.client.peak_mib.max(s.server.peak_mib))
        .fold(0.0, f64::max);
    writeln!(
        out,
        "\nratio {ratio:.2} (at least 0.5 is promised), highest peak {peak:.0} MiB (below 100 is promised)"
    )?;
    Ok(())
}

fn rate(sample: &Sample) -> f64 {
    FILE_BYTES as f64 / 1e6 / sample.secs
}

fn per_gib(secs: f64) -> f64 {
    secs * (1u64 << 30) as f64 / FILE_BYTES as f64
}

fn median(samples: &[Sample], of: impl Fn(&Sample) -> f64) -> f64 {
    let mut values: Vec<_> = samples.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

// ---- processes ----

/// This program again, in another role.
struct Peer {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Peer {
    fn start(arguments: &[&str]) -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let output = child.stdout.take().ok_or("no pipe")?;
        Ok(Self {
            child,
            output: BufReader::new(output),
        })
    }

    /// What follows `label` on the next line.
    fn word(&mut self, label: &str) -> Result<String> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        let rest = line
            .trim_end()
            .strip_prefix(label)
            .ok_or("a process ended early")?;
        Ok(rest.trim_start().to_owned())
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // Already gone, unless something went wrong.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Used {
    fn parse(text: &str) -> Result<Self> {
        let (cpu, peak) = text.split_once(' ').ok_or("a process said too little")?;
        Ok(Self {
            cpu_secs: cpu.parse()?,
            peak_mib: peak.parse()?,
        })
    }

    /// What this process has used since its processor time was `before`.
    fn since(before: f64) -> Result<Self> {
        let status = std::fs::read_to_string("/proc/self/status")?;
        let peak = status
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB"))
            .ok_or("no peak in /proc/self/status")?;
        Ok(Self {
            cpu_secs: cpu_secs()? - before,
            peak_mib: peak.trim().parse::<f64>()? / 1024.0,
        })
    }
}

impl std::fmt::Display for Used {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.cpu_secs, self.peak_mib)
    }
}

/// User and system time of this process so far.
fn cpu_secs() -> Result<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    // The second field is a name in parentheses, which may hold anything.
    let (_, fields) = stat.rsplit_once(')').ok_or("odd /proc/self/stat")?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let ticks: f64 = fields[11].parse::<f64>()? + fields[12].parse::<f64>()?;
    Ok(ticks / rustix::param::clock_ticks_per_second() as f64)
}

fn say(line: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}

/// Waits until the parent closes our input, then says what was used.
async fn until_closed(before: f64) -> Result<()> {
    tokio::task::spawn_blocking(|| io::stdin().lock().read_line(&mut String::new())).await??;
    say(&format!("USED {}", Used::since(before)?))
}

// ---- ours ----

fn config(dht_mode: DhtMode) -> Config {
    Config {
        dht_mode,
        dht_protocol: DHT_LAN.to_owned(),
        announce: Announce::All,
        ..Config::new(identity::ephemeral())
    }
}

async fn serve_ours(home: &str) -> Result<()> {
    let store = Store::open(Path::new(home))?;
    let listen = vec!["/ip4/127.0.0.1/tcp/0".parse()?];
    let node = Node::spawn(
        Config {
            listen,
            ..config(DhtMode::Server)
        },
        store,
    )?;
    let status = loop {
        let status = node.client().status().await?;
        if !status.listen_addrs.is_empty() {
            break status;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    };
    let before = cpu_secs()?;
    say(&format!(
        "READY {}/p2p/{}",
        status.listen_addrs[0], status.peer_id
    ))?;
    until_closed(before).await?;
    node.stop().await;
    Ok(())
}

fn fetch_ours(address: &str, sha256: &str, home: &str) -> Result<()> {
    let store = Store::open(Path::new(home))?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let node = runtime.block_on(async { Node::spawn(config(DhtMode::Client), store.clone()) })?;
    runtime.block_on(node.client().connect(address.parse()?))?;
    let sources = PeerSources::new(node.client().clone());
    let request = SourceRequest {
        sha256: sha256.parse()?,
        file_name: "file",
        urls: &[],
    };
    let (before, start) = (cpu_secs()?, Instant::now());
    let fetched = sources.fetch(&request, &store, &NoProgress)?;
    let secs = start.elapsed().as_secs_f64();
    assert_eq!(fetched.blob.size, FILE_BYTES);
    say(&format!("DONE {secs} {}", Used::since(before)?))
}

// ---- the bare stream ----

/// Sends as many bytes as were asked for, from memory; throws away what arrives.
#[derive(Clone, Default)]
struct BareCodec;

impl request_response::Codec for BareCodec {
    type Protocol = StreamProtocol;
    type Request = u64;
    type Response = u64;

    async fn read_request<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<u64>
    where
        T: AsyncRead + Unpin + Send,
    {
        let mut bytes = [0; 8];
        io.read_exact(&mut bytes).await?;
        Ok(u64::from_be_bytes(bytes))
    }

    async fn read_response<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<u64>
    where
        T: AsyncRead + Unpin + Send,
    {
        let mut piece = vec![0; PIECE_BYTES];
        let mut total = 0;
        while total < FILE_BYTES {
            match io.read(&mut piece).await? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                length => total += length as u64,
            }
        }
        Ok(total)
    }

    async fn write_request<T>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
        length: u64,
    ) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        io.write_all(&length.to_be_bytes()).await
    }

    async fn write_response<T>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
        length: u64,
    ) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        let piece = vec![7; PIECE_BYTES];
        for _ in 0..length / PIECE_BYTES as u64 {
            io.write_all(&piece).await?;
        }
        io.flush().await
    }
}

fn bare_swarm() -> Result<Swarm<request_response::Behaviour<BareCodec>>> {
    let settings =
        request_response::Config::default().with_request_timeout(Duration::from_secs(60));
    let swarm = libp2p::SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(
            tcp::Config::default().nodelay(true),
            noise::Config::new,
            yamux::Config::default,
        )?
        .with_behaviour(|_| {
            request_response::Behaviour::<BareCodec>::new([(BARE, ProtocolSupport::Full)], settings)
        })?
        .build();
    Ok(swarm)
}

async fn serve_bare() -> Result<()> {
    let mut swarm = bare_swarm()?;
    swarm.listen_on("/ip4/127.0.0.1/tcp/0".parse()?)?;
    let before = cpu_secs()?;
    let closed = until_closed(before);
    let mut closed = std::pin::pin!(closed);
    loop {
        let event = tokio::select! {
            event = swarm.select_next_some() => event,
            closed = &mut closed => return closed,
        };
        match event {
            SwarmEvent::NewListenAddr { address, .. } => {
                say(&format!("READY {address}/p2p/{}", swarm.local_peer_id()))?;
            }
            SwarmEvent::Behaviour(request_response::Event::Message {
                message:
                    request_response::Message::Request {
                        request, channel, ..
                    },
                ..
            }) => drop(swarm.behaviour_mut().send_response(channel, request)),
            _ => {}
        }
    }
}

async fn fetch_bare(address: &str) -> Result<()> {
    let mut swarm = bare_swarm()?;
    swarm.dial(address.parse::<Multiaddr>()?)?;
    let (mut before, mut start) = (0.0, Instant::now());
    loop {
        match swarm.select_next_some().await {
            SwarmEvent::ConnectionEstablished { peer_id, .. } => {
                (before, start) = (cpu_secs()?, Instant::now());
                swarm.behaviour_mut().send_request(&peer_id, FILE_BYTES);
            }
            SwarmEvent::Behaviour(request_response::Event::Message { .. }) => {
                let secs = start.elapsed().as_secs_f64();
                return say(&format!("DONE {secs} {}", Used::since(before)?));
            }
            SwarmEvent::Behaviour(request_response::Event::OutboundFailure { error, .. }) => {
                return Err(error.into());
            }
            SwarmEvent::OutgoingConnectionError { error, .. } => return Err(error.into()),
            _ => {}
        }
    }
}
