//! An internet of our own: one machine that everybody can reach, and others behind routers that translate addresses.
//!
//! Network namespaces and nftables, so it needs root, iproute2 and nft; where one is missing a test is skipped as in `lan`.
//! The addresses look public, because addresses that do not are not announced in the public network, and lead nowhere.

use std::fmt;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use super::lan::{inside, ip, made};

/// What stands between a machine and the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nat {
    /// Nothing: it has a public address.
    Open,
    /// Whatever comes to the router's address is passed on to it, as by a forwarded port.
    FullCone,
    /// The port outside is the port inside, for whomever it talks to. Only who was sent something may answer.
    Restricted,
    /// Each conversation has a port of its own outside. Only who was sent something may answer.
    Symmetric,
    /// As the one before, and no UDP.
    SymmetricNoUdp,
}

impl fmt::Display for Nat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Open => "public address",
            Self::FullCone => "full cone",
            Self::Restricted => "port restricted",
            Self::Symmetric => "symmetric",
            Self::SymmetricNoUdp => "symmetric, UDP blocked",
        })
    }
}

impl Nat {
    /// Rules of the router in front of `host`; the interface `wan` leads outside.
    fn rules(self, host: &str) -> String {
        let masquerade = match self {
            Self::Symmetric | Self::SymmetricNoUdp => "masquerade fully-random",
            Self::Open | Self::FullCone | Self::Restricted => "masquerade",
        };
        let (inbound, forward) = match self {
            Self::FullCone => (
                format!("iifname wan meta l4proto {{ tcp, udp }} dnat to {host}"),
                "iifname wan accept",
            ),
            Self::SymmetricNoUdp => (String::new(), "meta l4proto udp drop"),
            Self::Open | Self::Restricted | Self::Symmetric => (String::new(), ""),
        };
        // What is refused must be dropped: an answer would tell the router that the port is in use, and a hole that is
        // punched at the same time from the other side would get another one.
        format!(
            "table ip nat {{
                chain prerouting {{ type nat hook prerouting priority dstnat; {inbound}; }}
                chain postrouting {{ type nat hook postrouting priority srcnat; oifname wan {masquerade}; }}
            }}
            table ip filter {{
                chain input {{ type filter hook input priority filter; policy drop; iifname != wan accept; }}
                chain forward {{ type filter hook forward priority filter; policy drop;
                    {forward}; ct state established,related accept; iifname != wan accept; }}
            }}"
        )
    }
}

/// The machines. Removed when dropped.
#[derive(Debug)]
pub struct Internet {
    prefix: String,
    names: Vec<String>,
    hosts: usize,
}

impl Internet {
    /// Address of the machine in the middle.
    pub const MIDDLE: &str = "5.6.0.1";

    /// Joins a machine for each kind; `None` where that cannot be done.
    pub fn new(kinds: &[Nat]) -> Option<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let mut internet = Self {
            prefix: format!("p2pkgs-{}-nat{number}", std::process::id()),
            names: Vec::new(),
            hosts: 0,
        };
        let joined = internet.join(kinds);
        made(joined).then_some(internet)
    }

    fn join(&mut self, kinds: &[Nat]) -> Result<(), String> {
        nft_works()?;
        let middle = self.machine("middle")?;
        ip(&["-n", &middle, "addr", "add", Self::MIDDLE, "dev", "lo"])?;
        forward(&middle)?;
        for kind in kinds {
            self.add(&middle, *kind)?;
        }
        Ok(())
    }

    /// A new namespace.
    fn machine(&mut self, what: &str) -> Result<String, String> {
        let name = format!("{}-{what}", self.prefix);
        ip(&["netns", "add", &name])?;
        self.names.push(name.clone());
        ip(&["-n", &name, "link", "set", "lo", "up"])?;
        Ok(name)
    }

    /// One more host, behind a router unless it is open.
    fn add(&mut self, middle: &str, kind: Nat) -> Result<(), String> {
        let number = self.hosts;
        let host = self.machine(&format!("host{number}"))?;
        let (near, far) = (
            format!("5.6.{}.1", number + 1),
            format!("5.6.{}.2", number + 1),
        );
        let port = format!("w{number}");
        if kind == Nat::Open {
            cable((middle, &port, &near), (&host, "wan", &far))?;
        } else {
            let router = self.machine(&format!("router{number}"))?;
            let (inner, inside) = ("192.168.1.1", "192.168.1.2");
            cable((middle, &port, &near), (&router, "wan", &far))?;
            cable((&router, "lan", inner), (&host, "eth", inside))?;
            forward(&router)?;
            nft(&router, &kind.rules(inside))?;
        }
        self.hosts += 1;
        Ok(())
    }

    /// Puts a command on the machine that everybody can reach.
    pub fn in_the_middle(&self, command: &Command) -> Command {
        inside(&format!("{}-middle", self.prefix), command)
    }

    /// Puts a command on one of the machines.
    pub fn on(&self, host: usize, command: &Command) -> Command {
        inside(&format!("{}-host{host}", self.prefix), command)
    }
}

impl Drop for Internet {
    fn drop(&mut self) {
        for name in &self.names {
            // Whatever cannot be removed is for the administrator.
            let _ = ip(&["netns", "del", name]);
        }
    }
}

/// Joins two machines, given as namespace, interface and address; the first is the second's way to everywhere.
fn cable(near: (&str, &str, &str), far: (&str, &str, &str)) -> Result<(), String> {
    ip(&[
        "-n", near.0, "link", "add", near.1, "type", "veth", "peer", "name", far.1, "netns", far.0,
    ])?;
    for (name, interface, address) in [near, far] {
        let address = format!("{address}/24");
        ip(&["-n", name, "addr", "add", &address, "dev", interface])?;
        ip(&["-n", name, "link", "set", interface, "up"])?;
    }
    ip(&["-n", far.0, "route", "add", "default", "via", near.2])
}

/// Lets a machine pass on what is not for it.
fn forward(name: &str) -> Result<(), String> {
    let switch = "echo 1 > /proc/sys/net/ipv4/ip_forward";
    ip(&["netns", "exec", name, "sh", "-c", switch])
}

fn nft_works() -> Result<(), String> {
    let tried = Command::new("nft").arg("--version").output();
    tried.map(drop).map_err(|error| format!("`nft`: {error}"))
}

/// Loads rules.
fn nft(name: &str, rules: &str) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("`nft`: {error}");
    let mut command = Command::new("nft");
    let mut child = inside(name, command.args(["-f", "-"]))
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    if let Some(mut input) = child.stdin.take() {
        input.write_all(rules.as_bytes()).map_err(failed)?;
    }
    let output = child.wait_with_output().map_err(failed)?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!(
        "`nft`: {}",
        String::from_utf8_lossy(&output.stderr)
    ))
}
