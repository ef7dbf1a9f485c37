//! What the tests stand on: homes in a temporary directory, a toy package tree, an origin server, real daemons.
//!
//! Nothing here sleeps for a guessed time: a daemon is up when it says `ready`, a condition is waited for with a deadline
//! that only a broken program reaches.

mod browser;
mod counting;
mod daemon;
mod door;
mod http;
mod judge;
mod lan;
mod nat;
mod origin;
mod output;
mod process;
mod sandbox;
mod sshd;
mod toy;

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

pub use browser::Browser;
pub use builder::testing::{sandbox_works, static_busybox};
pub use counting::Counting;
pub use daemon::Daemon;
pub use door::{Door, Manner};
pub use http::get;
pub use judge::judge;
pub use lan::Lan;
pub use nat::{Internet, Nat};
pub use origin::Origin;
pub use output::{Finished, wait_with_deadline};
pub use process::{processes_with, signal, start, wait_until};
pub use sandbox::may_unshare;
pub use sshd::{Sshd, write_program};
pub use toy::{NOISE_BYTES, greeting};

/// The program that is tested.
pub const P2PKGS: &str = env!("CARGO_BIN_EXE_p2pkgs");
/// Longest time any one command may take before the test calls it hung.
pub const COMMAND_DEADLINE: Duration = Duration::from_secs(120);
/// How often a condition is looked at again.
const POLL_EVERY: Duration = Duration::from_millis(20);

/// A temporary world: one package tree, one origin server, any number of homes. Removed when dropped.
#[derive(Debug)]
pub struct TestEnv {
    dir: tempfile::TempDir,
    /// Where sources come from over HTTP; `None` once it was switched off.
    pub origin: Option<Origin>,
}

impl TestEnv {
    /// A world with the toy tree of `tests/fixtures/pkg`.
    pub fn new() -> Self {
        let dir = tempfile::Builder::new()
            .prefix("p2pkgs-e2e.")
            .tempdir()
            .unwrap();
        let files = dir.path().join("origin");
        fs::create_dir(&files).unwrap();
        toy::write_sources(&files);
        let origin = Origin::serve(&files);
        toy::write_tree(&dir.path().join("tree"), &files, &origin.url());
        Self {
            dir,
            origin: Some(origin),
        }
    }

    /// A folder of this world.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The package tree.
    pub fn tree(&self) -> PathBuf {
        self.path("tree")
    }

    /// A home of that name, configured for loopback; made on first use.
    pub fn home(&self, name: &str) -> Home<'_> {
        let root = self.path(name);
        if !root.exists() {
            fs::create_dir(&root).unwrap();
            fs::write(root.join("config.toml"), CONFIG).unwrap();
        }
        Home { env: self, root }
    }

    /// Switches the origin server off: from now on nobody can get a source there.
    pub fn stop_origin(&mut self) {
        self.origin = None;
    }
}

/// Settings of every home: loopback only, nobody found who was not named, deadlines that suit a machine under load.
const CONFIG: &str = "\
profile = \"lan\"

[network]
listen = [\"/ip4/127.0.0.1/tcp/0\"]
mdns = false
deltas = \"all\"

[http]
listen = [\"127.0.0.1:0\"]

[deadlines]
dial-secs = 5
lookup-secs = 10
first-byte-secs = 10
stall-secs = 10
";

/// One home directory and the commands run in it.
#[derive(Clone, Debug)]
pub struct Home<'e> {
    env: &'e TestEnv,
    root: PathBuf,
}

impl Home<'_> {
    /// A file or folder of the home.
    pub fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// A command in this home, not yet started.
    pub fn command(&self, args: &[&str]) -> Command {
        self.command_of(P2PKGS, args)
    }

    /// Another program that runs commands in this home. Whatever the tester's own environment says of p2pkgs is left out.
    pub fn command_of(&self, program: &str, args: &[&str]) -> Command {
        let mut command = Command::new(program);
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy();
            if name.starts_with("P2PKGS_") || name.starts_with("PKG_") || name == "RUST_LOG" {
                command.env_remove(name.as_ref());
            }
        }
        command
            .env("P2PKGS_HOME", &self.root)
            .env("P2PKGS_TREE", self.env.tree())
            .current_dir(self.env.dir.path())
            .stdin(Stdio::null())
            .args(args);
        command
    }

    /// Runs a command to its end.
    pub fn run(&self, args: &[&str]) -> Finished {
        Finished::of(self.command(args), COMMAND_DEADLINE)
    }

    /// Runs a command that must succeed, and returns what it printed on stdout.
    pub fn ok(&self, args: &[&str]) -> String {
        self.run(args).assert_exit(0).stdout
    }

    /// The key that signs what is built here, once something was.
    pub fn key(&self) -> String {
        let list = self.ok(&["key", "list"]);
        list.split_whitespace().nth(1).unwrap().to_owned()
    }

    /// Starts the home's daemon, which is told of the given peers, and waits until it is ready.
    pub fn daemon(&self, bootstrap: &[&Daemon]) -> Daemon {
        let mut args = vec!["node".to_owned(), "run".to_owned()];
        for peer in bootstrap {
            args.extend(["--bootstrap".to_owned(), peer.address()]);
        }
        let args: Vec<_> = args.iter().map(String::as_str).collect();
        Daemon::start(self.command(&args), &self.root)
    }

    /// Starts to build `slow`, which never ends by itself, and waits until its script runs.
    pub fn start_slow_build(&self) -> Child {
        let build = start(self.command(&["build", "slow"]));
        wait_until("the build runs", || {
            self.run(&["log", "slow"]).stdout.contains("started")
        });
        build
    }

    /// What builds have left in the scratch folder, besides its lock and the layers.
    pub fn left_in_scratch(&self) -> Vec<OsString> {
        let entries = fs::read_dir(self.path("scratch")).into_iter().flatten();
        let names = entries.map(|entry| entry.unwrap().file_name());
        names
            .filter(|name| name != "lock" && name != "layers")
            .collect()
    }

    /// Lets this home's commands start from a peer.
    pub fn bootstrap_from(&self, peer: &Daemon) {
        let path = self.root.join("config.toml");
        let text = fs::read_to_string(&path).unwrap();
        let line = format!("[network]\nbootstrap = [\"{}\"]\n", peer.address());
        fs::write(&path, text.replace("[network]\n", &line)).unwrap();
    }
}

/// The root of the project's own sources.
pub fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
