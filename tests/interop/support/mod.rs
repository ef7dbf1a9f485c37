//! What the tests stand on: a temporary world with homes of ours, Kubo nodes, and files of a known content.

#[allow(dead_code)] // The end-to-end tests use the rest of it.
#[path = "../../e2e/support/daemon.rs"]
mod daemon;
mod files;
mod ipfs;
mod kubo;
#[allow(dead_code)] // As above.
#[path = "../../e2e/support/output.rs"]
mod output;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub use daemon::Daemon;
pub use files::{SIZES, sha256_of, write_file};
pub use kubo::{Kubo, LEGACY, MODERN, Role};
use output::{Finished, wait_with_deadline};

/// Longest time any one command may take before the test calls it hung.
const COMMAND_DEADLINE: Duration = Duration::from_secs(240);
/// How often a condition is looked at again; each look may start a process.
const POLL_EVERY: Duration = Duration::from_millis(100);

/// A temporary world. Removed when dropped.
#[derive(Debug)]
pub struct World {
    dir: tempfile::TempDir,
    ipfs: PathBuf,
}

impl World {
    /// An empty world; nothing, after saying why, where there is no Kubo.
    pub fn with_kubo() -> Option<Self> {
        let ipfs = ipfs::program()?.to_owned();
        // Not in /tmp, which may be held in memory: some files are large.
        let dir = tempfile::Builder::new()
            .prefix("interop.")
            .tempdir_in(env!("CARGO_TARGET_TMPDIR"))
            .unwrap();
        Some(Self { dir, ipfs })
    }

    /// A file or folder of this world.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
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

    /// A home of that name, configured for loopback.
    pub fn home(&self, name: &str) -> Home<'_> {
        let root = self.path(name);
        fs::create_dir_all(&root).unwrap();
        fs::write(root.join("config.toml"), CONFIG).unwrap();
        Home { world: self, root }
    }
}

/// Settings of every home: loopback only, deadlines that suit a machine under load.
const CONFIG: &str = "\
profile = \"lan\"

[network]
listen = [\"/ip4/127.0.0.1/tcp/0\"]
mdns = false

[deadlines]
dial-secs = 20
lookup-secs = 30
first-byte-secs = 60
stall-secs = 60
";

/// One home directory of p2pkgs and the commands run in it.
#[derive(Clone, Debug)]
pub struct Home<'w> {
    world: &'w World,
    root: PathBuf,
}

impl Home<'_> {
    fn command(&self, first_peer: Option<&str>, args: &[&str]) -> Command {
        let mut command = self.world.command(Path::new(env!("CARGO_BIN_EXE_p2pkgs")));
        command.env("P2PKGS_HOME", &self.root).args(args);
        if let Some(address) = first_peer {
            command.env("P2PKGS_NETWORK_BOOTSTRAP", address);
        }
        command
    }

    /// Starts the home's daemon and waits until it is ready.
    pub fn daemon(&self, role: Role, first_peer: Option<&str>) -> Daemon {
        let mut command = self.command(first_peer, &["node", "run"]);
        command.env("P2PKGS_NETWORK_DHT_MODE", role.of_ours());
        Daemon::start(command, &self.root)
    }

    /// Takes a file into the store; its CID.
    pub fn add(&self, file: &Path) -> String {
        let args = ["--json", "mirror", "add", file.to_str().unwrap()];
        let finished = Finished::of(self.command(None, &args), COMMAND_DEADLINE).assert_exit(0);
        let listed: serde_json::Value = serde_json::from_str(&finished.stdout).unwrap();
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

/// Starts a command whose output is wanted.
fn start(mut command: Command) -> Child {
    command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Waits until `condition` holds.
///
/// # Panics
/// When it does not within [`COMMAND_DEADLINE`].
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + COMMAND_DEADLINE;
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        std::thread::sleep(POLL_EVERY);
    }
}

/// Sends a signal to a process that this test started.
fn signal(pid: u32, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(pid, signal).unwrap();
}
