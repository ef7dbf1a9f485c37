//! Machines of our own: network namespaces joined by a virtual cable, with nothing else to be reached.
//!
//! They need root and iproute2. Where either is missing a test says so and passes, unless P2PKGS_REQUIRE_NETNS is set, as
//! it is in CI.

use std::fs::File;
use std::net::TcpListener;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Addresses of the two machines.
const ADDRESSES: [&str; 2] = ["10.77.0.1", "10.77.0.2"];
/// An address at which nobody is, though it seems so.
const BLACK_HOLE: &str = "10.77.0.66";

/// Two machines on one cable. Removed when dropped.
#[derive(Debug)]
pub struct Lan {
    names: [String; 2],
}

impl Lan {
    /// Joins two machines with private addresses; `None` where that cannot be done.
    pub fn new() -> Option<Self> {
        Self::with_addresses(ADDRESSES)
    }

    /// Joins two machines with these addresses of one /24 network.
    pub fn with_addresses(addresses: [&str; 2]) -> Option<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = |side| format!("p2pkgs-{}-{number}{side}", std::process::id());
        let lan = Self {
            names: [name("a"), name("b")],
        };
        made(lan.join(addresses)).then_some(lan)
    }

    fn join(&self, addresses: [&str; 2]) -> Result<(), String> {
        let [a, b] = &self.names;
        ip(&["netns", "add", a])?;
        ip(&["netns", "add", b])?;
        ip(&[
            "-n", a, "link", "add", "cable", "type", "veth", "peer", "name", "cable", "netns", b,
        ])?;
        for (name, address) in self.names.iter().zip(addresses) {
            let address = format!("{address}/24");
            ip(&["-n", name, "addr", "add", &address, "dev", "cable"])?;
            ip(&["-n", name, "link", "set", "lo", "up"])?;
            ip(&["-n", name, "link", "set", "cable", "up"])?;
        }
        Ok(())
    }

    /// A port that listens on the first or the second machine, to be served from this one.
    pub fn listen(&self, machine: usize) -> TcpListener {
        let namespace = Path::new("/run/netns").join(&self.names[machine]);
        let bind = move || {
            // A thread may move alone; the socket stays where it was made.
            let namespace = File::open(namespace).unwrap();
            let kind = Some(LinkNameSpaceType::Network);
            move_into_link_name_space(namespace.as_fd(), kind).unwrap();
            TcpListener::bind((ADDRESSES[machine], 0)).unwrap()
        };
        thread::spawn(bind).join().unwrap()
    }

    /// Gives the second machine a neighbour that swallows all it is sent; its address.
    pub fn black_hole(&self) -> &'static str {
        let cable = ["lladdr", "02:00:00:00:00:01", "dev", "cable"];
        let neighbour = ["-n", &self.names[1], "neigh", "add", BLACK_HOLE];
        ip(&[&neighbour[..], &cable].concat()).unwrap();
        BLACK_HOLE
    }

    /// Puts a command that was not started yet on the first or the second machine.
    pub fn on(&self, machine: usize, command: &Command) -> Command {
        inside(&self.names[machine], command)
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        for name in &self.names {
            // Whatever could not be made need not be removed.
            let _ = ip(&["netns", "del", name]);
        }
    }
}

/// Whether the machines are there. Prints why not, or fails where they are required.
pub fn made(machines: Result<(), String>) -> bool {
    let Err(missing) = machines else { return true };
    let required = std::env::var_os("P2PKGS_REQUIRE_NETNS").is_some_and(|v| v == "1");
    assert!(!required, "P2PKGS_REQUIRE_NETNS is set: {missing}");
    eprintln!("skipped: no network namespaces: {missing}");
    false
}

/// A command that was not started yet, put into a namespace.
pub fn inside(namespace: &str, command: &Command) -> Command {
    let mut placed = Command::new("ip");
    placed
        .args(["netns", "exec", namespace])
        .arg(command.get_program())
        .args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => placed.env(name, value),
            None => placed.env_remove(name),
        };
    }
    if let Some(dir) = command.get_current_dir() {
        placed.current_dir(dir);
    }
    placed
}

/// Runs `ip`.
pub fn ip(args: &[&str]) -> Result<(), String> {
    let output = Command::new("ip")
        .args(args)
        .output()
        .map_err(|error| format!("`ip`: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(format!("`ip {}`: {said}", args.join(" ")))
}
