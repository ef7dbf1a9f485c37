//! A real Kubo node: configured for loopback, started, asked, killed.

use std::fs;
use std::io::{BufRead as _, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;

use serde_json::{Value, json};

use super::output::Finished;
use super::{COMMAND_DEADLINE, Net, World, wait_until};

/// The import profile that our own files have: CIDv1, raw leaves of 1 MiB, 1024 links a node.
pub const MODERN: &str = "unixfs-v1-2025";
/// The import profile of most of what is on the network: CIDv0, 256 KiB inside dag-pb, 174 links a node.
pub const LEGACY: &str = "unixfs-v0-2015";

/// What a daemon prints when it can be used.
const READY: &str = "Daemon is ready";

/// A node's part in the DHT.
#[derive(Clone, Copy, Debug)]
pub enum Role {
    /// Answers others and keeps their provider records.
    DhtServer,
    /// Only asks.
    DhtClient,
}

impl Role {
    /// Kubo's word for it.
    fn of_kubo(self) -> &'static str {
        match self {
            Self::DhtServer => "dhtserver",
            Self::DhtClient => "dhtclient",
        }
    }

    /// Our own word for it.
    pub(super) fn of_ours(self) -> &'static str {
        match self {
            Self::DhtServer => "server",
            Self::DhtClient => "client",
        }
    }
}

/// A repository of Kubo's.
#[derive(Debug)]
pub struct Repo<'w> {
    world: &'w World,
    path: PathBuf,
}

/// A running `ipfs daemon`. Dropping it kills it.
#[derive(Debug)]
pub struct Kubo<'w> {
    repo: Repo<'w>,
    child: Child,
}

impl<'w> Repo<'w> {
    /// Makes one, with changes to the configuration and to what else lies in it.
    pub fn init(world: &'w World, profile: &str, change: impl FnOnce(&mut Setup)) -> Self {
        let path = tempfile::Builder::new()
            .prefix("kubo.")
            .tempdir_in(world.dir.path())
            .unwrap()
            .keep();
        let repo = Self { world, path };
        let mut setup = Setup::new(&repo, profile);
        change(&mut setup);
        setup.write(&repo.path);
        repo
    }

    /// A command of `ipfs`, not yet started. With the daemon if one runs, else by itself.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = self.world.command(&self.world.ipfs);
        command
            .env("IPFS_PATH", &self.path)
            .env("IPFS_TELEMETRY", "off")
            .args(args);
        self.world.placed(0, command)
    }

    /// Runs a command that must succeed; what it printed, without the last newline.
    pub fn run(&self, args: &[&str]) -> String {
        let finished = Finished::of(self.command(args), COMMAND_DEADLINE).assert_exit(0);
        finished.stdout.trim_end().to_owned()
    }

    /// Removes it, before the world ends.
    pub fn remove(&self) {
        fs::remove_dir_all(&self.path).unwrap();
    }

    /// Starts the daemon and waits until it is ready.
    fn daemon(&self) -> Child {
        let mut child = self
            .command(&["daemon"])
            .stdout(Stdio::piped())
            .stderr(fs::File::create(self.path.join("stderr")).unwrap())
            .spawn()
            .unwrap();
        if !wait_for_line(child.stdout.take().unwrap(), READY) {
            let _ = child.kill();
            let _ = child.wait();
            panic!("Kubo did not get ready: {}", self.stderr());
        }
        child
    }

    /// What the daemon said so far.
    fn stderr(&self) -> String {
        fs::read_to_string(self.path.join("stderr")).unwrap_or_default()
    }
}

impl<'w> Kubo<'w> {
    /// Starts a node with a repository of its own and waits until it is ready.
    pub fn start(world: &'w World, profile: &str, role: Role, first_peer: Option<&str>) -> Self {
        Self::start_with(world, profile, role, first_peer, |_| ())
    }

    /// As [`Self::start`], after changes to the configuration and to what else lies in the repository.
    pub fn start_with(
        world: &'w World,
        profile: &str,
        role: Role,
        first_peer: Option<&str>,
        change: impl FnOnce(&mut Setup),
    ) -> Self {
        let repo = Repo::init(world, profile, |setup| {
            setup.config["Routing"]["Type"] = json!(role.of_kubo());
            setup.config["Bootstrap"] = first_peer.into_iter().collect();
            change(setup);
        });
        let child = repo.daemon();
        Self { repo, child }
    }

    /// The same node in a new process.
    #[must_use]
    pub fn restart(mut self) -> Self {
        self.kill();
        self.child = self.repo.daemon();
        self
    }

    /// Ends it and removes its repository, before the world ends.
    pub fn remove(mut self) {
        self.kill();
        self.repo.remove();
    }

    fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its address on loopback, with its peer id.
    pub fn address(&self) -> String {
        let addresses = self.run(&["id", "--format", "<addrs>"]);
        addresses.lines().next().unwrap().to_owned()
    }

    /// Its peer id.
    pub fn peer_id(&self) -> String {
        self.run(&["id", "--format", "<id>"])
    }

    /// The URL of its gateway.
    pub fn gateway(&self) -> String {
        let url = fs::read_to_string(self.repo.path.join("gateway")).unwrap();
        url.trim().trim_end_matches('/').to_owned()
    }

    /// Adds a file under the node's import profile; its CID.
    pub fn add(&self, file: &Path) -> String {
        self.run(&["add", "--quieter", file.to_str().unwrap()])
    }

    /// The CID that a file has under the node's import profile.
    pub fn cid_of(&self, file: &Path) -> String {
        self.run(&["add", "--quieter", "--only-hash", file.to_str().unwrap()])
    }

    /// Tells the DHT of a root.
    pub fn announce(&self, cid: &str) {
        self.run(&["routing", "provide", cid]);
    }

    /// Gets content from its peers; where it lies then.
    pub fn get(&self, cid: &str) -> PathBuf {
        let file = self.repo.path.join("got");
        let _ = fs::remove_file(&file);
        self.run(&["get", "--output", file.to_str().unwrap(), cid]);
        file
    }

    /// Connects to a peer.
    pub fn connect(&self, address: &str) {
        self.run(&["swarm", "connect", address]);
    }

    /// Fails to connect to a peer.
    pub fn cannot_connect(&self, address: &str) {
        let command = self.command(&["swarm", "connect", address]);
        Finished::of(command, COMMAND_DEADLINE).assert_exit(1);
    }

    /// Whether a peer is connected.
    pub fn knows(&self, peer: &str) -> bool {
        self.run(&["swarm", "peers"]).contains(peer)
    }

    /// Waits until a peer is in the DHT's routing table.
    pub fn wait_for_dht_peer(&self, peer: &str) {
        wait_until("Kubo has the DHT node in its table", || {
            let dht = match self.repo.world.net {
                Net::Loopback => "lan",
                Net::Public => "wan",
            };
            self.run(&["stats", "dht", dht]).contains(peer)
        });
    }

    /// Runs a command of `ipfs` with the node; what it printed, without the last newline.
    pub fn run(&self, args: &[&str]) -> String {
        self.repo.run(args)
    }

    /// A command of `ipfs` with the node, not yet started.
    pub fn command(&self, args: &[&str]) -> Command {
        self.repo.command(args)
    }
}

impl Drop for Kubo<'_> {
    fn drop(&mut self) {
        self.kill();
        if thread::panicking() {
            eprintln!(
                "Kubo in {}: {}",
                self.repo.path.display(),
                self.repo.stderr()
            );
        }
    }
}

/// What a node is started with.
#[derive(Debug)]
pub struct Setup {
    /// The configuration file.
    pub config: Value,
    /// The key of a private swarm.
    pub swarm_key: Option<String>,
}

impl Setup {
    /// Makes a repository whose node speaks TCP and to nobody but the peers it is told of.
    fn new(repo: &Repo<'_>, profile: &str) -> Self {
        // Kubo's own profile for tests: loopback only, no mDNS, no AutoTLS, no AutoConf, loopback allowed in the LAN's DHT.
        let profiles = format!("test,{profile}");
        repo.run(&["init", "--empty-repo", "--profile", &profiles]);
        let file = fs::read(repo.path.join("config")).unwrap();
        let mut config: Value = serde_json::from_slice(&file).unwrap();
        let [address, _] = repo.world.net.addresses();
        config["Addresses"]["Swarm"] = json!([format!("/ip4/{address}/tcp/0")]);
        config["Provide"]["Strategy"] = json!("roots");
        Self {
            config,
            swarm_key: None,
        }
    }

    fn write(&self, repo: &Path) {
        fs::write(repo.join("config"), self.config.to_string()).unwrap();
        if let Some(key) = &self.swarm_key {
            fs::write(repo.join("swarm.key"), key).unwrap();
        }
    }
}

/// Whether a line with the text comes before the end, or the deadline. The pipe is drained until then and afterwards.
fn wait_for_line(pipe: impl Read + Send + 'static, text: &'static str) -> bool {
    let (sender, receiver) = mpsc::sync_channel(1);
    thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            if line.contains(text) {
                let _ = sender.send(());
            }
        }
    });
    receiver.recv_timeout(COMMAND_DEADLINE).is_ok()
}
