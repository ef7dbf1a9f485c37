//! What the tests stand on: a temporary world with homes of ours, Kubo nodes, and files of a known content.

#[allow(dead_code)] // The end-to-end tests use the rest of it.
#[path = "../../e2e/support/daemon.rs"]
mod daemon;
mod files;
#[allow(dead_code)] // As above.
#[path = "../../e2e/support/http.rs"]
mod http;
mod ipfs;
mod kubo;
#[allow(dead_code)] // As above.
#[path = "../../e2e/support/lan.rs"]
mod lan;
#[allow(dead_code)] // As above.
#[path = "../../e2e/support/origin.rs"]
mod origin;
#[allow(dead_code)] // As above.
#[path = "../../e2e/support/output.rs"]
mod output;
#[path = "../../e2e/support/process.rs"]
mod process;
#[allow(dead_code)] // As above.
#[path = "../../e2e/support/toy.rs"]
mod toy;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

pub use builder::testing::sandbox_works;
use builder::testing::static_busybox;
pub use daemon::Daemon;
pub use files::{SIZES, sha256_of, write_file};
pub use http::get;
pub use ipfs::object_store;
pub use kubo::{Kubo, LEGACY, MODERN, Repo, Role};
use lan::Lan;
pub use origin::Origin;
pub use output::Finished;
use output::wait_with_deadline;
pub use process::wait_until;
use process::{signal, start};

/// Longest time any one command may take before the test calls it hung.
const COMMAND_DEADLINE: Duration = Duration::from_secs(240);
/// How often a condition is looked at again; each look may start a process.
const POLL_EVERY: Duration = Duration::from_millis(100);

/// What the nodes of a world can reach, which decides the DHT that they use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Net {
    /// Loopback, and the DHT for private addresses.
    Loopback,
    /// Two machines with public addresses, one for Kubo and one for us, and the DHT of the public network: Kubo wants
    /// no private address there.
    Public,
}

impl Net {
    /// Addresses of Kubo and of us. The public ones are used inside network namespaces without a way out.
    const fn addresses(self) -> [&'static str; 2] {
        match self {
            Self::Loopback => ["127.0.0.1", "127.0.0.1"],
            Self::Public => ["5.5.1.1", "5.5.1.2"],
        }
    }

    /// The network's profile.
    const fn profile(self) -> &'static str {
        match self {
            Self::Loopback => "lan",
            Self::Public => "public",
        }
    }
}

/// A temporary world. Removed when dropped.
#[derive(Debug)]
pub struct World {
    dir: tempfile::TempDir,
    ipfs: PathBuf,
    net: Net,
    machines: Option<Lan>,
}

impl World {
    /// An empty world on loopback; nothing, after saying why, where there is no Kubo.
    pub fn with_kubo() -> Option<Self> {
        Self::on(Net::Loopback)
    }

    /// An empty world on loopback in which nobody is from elsewhere.
    pub fn without_kubo() -> Self {
        Self::of(PathBuf::new(), Net::Loopback, None)
    }

    /// An empty world; nothing, after saying why, where it cannot be.
    pub fn on(net: Net) -> Option<Self> {
        let ipfs = ipfs::program()?.to_owned();
        let machines = match net {
            Net::Loopback => None,
            Net::Public => Some(Lan::with_addresses(net.addresses())?),
        };
        Some(Self::of(ipfs, net, machines))
    }

    fn of(ipfs: PathBuf, net: Net, machines: Option<Lan>) -> Self {
        // Not in /tmp, which may be held in memory: some files are large.
        let dir = tempfile::Builder::new()
            .prefix("interop.")
            .tempdir_in(env!("CARGO_TARGET_TMPDIR"))
            .unwrap();
        Self {
            dir,
            ipfs,
            net,
            machines,
        }
    }

    /// A file or folder of this world.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The toy tree of the end-to-end tests, and the server of its sources.
    pub fn toy_tree(&self) -> (PathBuf, Origin) {
        let (sources, tree) = (self.path("origin"), self.path("tree"));
        fs::create_dir_all(&sources).unwrap();
        toy::write_sources(&sources);
        let origin = Origin::serve(&sources);
        toy::write_tree(&tree, &sources, &origin.url());
        (tree, origin)
    }

    /// A command that sees nothing of the tester's own settings.
    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy();
            let foreign = ["P2PKGS_", "PKG_", "IPFS_", "LIBP2P_", "GOLOG_"];
            if foreign.iter().any(|f| name.starts_with(f)) || name == "RUST_LOG" {
                command.env_remove(name.as_ref());
            }
        }
        command
            .env("HOME", self.dir.path())
            .current_dir(self.dir.path())
            .stdin(Stdio::null());
        command
    }

    /// The command on the machine it belongs to.
    fn placed(&self, machine: usize, command: Command) -> Command {
        match &self.machines {
            Some(machines) => {
                let mut placed = machines.on(machine, &command);
                placed.stdin(Stdio::null());
                placed
            }
            None => command,
        }
    }

    /// A home of that name, made on first use.
    pub fn home(&self, name: &str) -> Home<'_> {
        let root = self.path(name);
        fs::create_dir_all(&root).unwrap();
        let [_, address] = self.net.addresses();
        let profile = self.net.profile();
        let listen = format!("listen = [\"/ip4/{address}/tcp/0\"]");
        let config = format!("profile = \"{profile}\"\n[network]\n{listen}\n{CONFIG}");
        fs::write(root.join("config.toml"), config).unwrap();
        Home {
            world: self,
            root,
            settings: Vec::new(),
        }
    }
}

/// Settings of every home: nobody is found who was not named, and deadlines suit a machine under load.
const CONFIG: &str = "\
bootstrap = []
mdns = false

[http]
listen = [\"127.0.0.1:0\"]

[deadlines]
dial-secs = 20
lookup-secs = 30
first-byte-secs = 60
stall-secs = 60
";

/// The root of the project's own sources.
fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// One home directory of p2pkgs and the commands run in it.
#[derive(Clone, Debug)]
pub struct Home<'w> {
    world: &'w World,
    root: PathBuf,
    settings: Vec<(&'static str, String)>,
}

impl Home<'_> {
    /// A command in this home, not yet started, with one peer to start from.
    pub fn command(&self, first_peer: Option<&str>, args: &[&str]) -> Command {
        let mut command = self.world.command(Path::new(env!("CARGO_BIN_EXE_p2pkgs")));
        command.env("P2PKGS_HOME", &self.root).args(args);
        if let Some(address) = first_peer {
            command.env("P2PKGS_NETWORK_BOOTSTRAP", address);
        }
        for (name, value) in &self.settings {
            command.env(name, value);
        }
        self.world.placed(1, command)
    }

    /// The home with one more setting, by the name of its environment variable.
    pub fn with(mut self, name: &'static str, value: &str) -> Self {
        self.settings.push((name, value.to_owned()));
        self
    }

    /// A file or folder of the home.
    pub fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// Runs a command to its end.
    pub fn run(&self, args: &[&str]) -> Finished {
        Finished::of(self.command(None, args), COMMAND_DEADLINE)
    }

    /// Runs a command that must succeed; what it printed.
    pub fn ok(&self, args: &[&str]) -> String {
        self.run(args).assert_exit(0).stdout
    }

    /// Starts the home's daemon and waits until it is ready.
    pub fn daemon(&self, role: Role, first_peer: Option<&str>) -> Daemon {
        let home = self.clone().with("P2PKGS_NETWORK_DHT_MODE", role.of_ours());
        Daemon::start(home.command(first_peer, &["node", "run"]), &self.root)
    }

    /// Takes a file into the store; its CID.
    pub fn add(&self, file: &Path) -> String {
        let args = ["--json", "mirror", "add", file.to_str().unwrap()];
        let listed: serde_json::Value = serde_json::from_str(&self.ok(&args)).unwrap();
        listed[0]["cid"].as_str().unwrap().to_owned()
    }

    /// Fetches content by a CID or `sha256:…` with one peer to start from; where it lies then.
    pub fn fetch(&self, content: &str, first_peer: &str) -> PathBuf {
        let file = self.root.join("fetched");
        let args = ["fetch", content, "-o", file.to_str().unwrap()];
        Finished::of(self.command(Some(first_peer), &args), COMMAND_DEADLINE).assert_exit(0);
        file
    }
}
