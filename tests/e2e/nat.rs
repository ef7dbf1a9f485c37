//! Who gets files from whom behind which kind of address translation.
//!
//! One node that everybody can reach, as the public network has many: it holds the DHT, tells others whether they can be
//! reached, and relays their first words. One holder behind each kind of router, and one seeker behind each kind, who knows
//! that node and nobody else. `docs/mirrors.md` has the table that this prints.

use std::fmt::Write as _;
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use crate::support::{COMMAND_DEADLINE, Daemon, Finished, Home, Internet, Nat, TestEnv};

const KINDS: [Nat; 5] = [
    Nat::Open,
    Nat::FullCone,
    Nat::Restricted,
    Nat::Symmetric,
    Nat::SymmetricNoUdp,
];
/// Longest time that a fetch may take which cannot succeed: far above the deadline of a dial, far below a user's patience.
const GIVES_UP: Duration = Duration::from_secs(20);
/// Bytes of a file: more than any relay carries.
const FILE_BYTES: usize = 3 << 20;

/// How a file came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Direct,
    Punched,
    /// It did not: both sides could only talk through the relay.
    RelayOnly,
}

impl Way {
    const fn shown(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Punched => "hole punched",
            Self::RelayOnly => "no",
        }
    }
}

/// What must be, or better.
fn worst(holder: Nat, seeker: Nat) -> Way {
    match (holder, seeker) {
        (Nat::Open, _) => Way::Direct,
        (Nat::FullCone, _) | (Nat::Restricted, Nat::Open | Nat::FullCone | Nat::Restricted) => {
            Way::Punched
        }
        _ => Way::RelayOnly,
    }
}

#[test]
fn whoever_can_be_reached_or_has_a_port_of_its_own_is_a_holder_for_all_alike() {
    let kinds: Vec<_> = KINDS.into_iter().chain(KINDS).collect();
    let Some(internet) = Internet::new(&kinds) else {
        return;
    };
    let env = TestEnv::new();
    let middle = env.home("middle");
    let address = format!("/ip4/{}/tcp/4001", Internet::MIDDLE);
    let quic = format!("/ip4/{}/udp/4001/quic-v1", Internet::MIDDLE);
    configure(
        &middle,
        &format!("listen = [\"{address}\", \"{quic}\"]"),
        "",
    );
    let command = internet.in_the_middle(&middle.command(&["--json", "node", "run"]));
    let middle = Daemon::start(command, &middle.path(""));
    // Only TCP is named. That there is QUIC must be found out.
    let first = format!("{address}/p2p/{}", middle.peer_id());
    let holders: Vec<_> = (0..KINDS.len())
        .map(|number| Holder::start(&env, &internet, number, &first))
        .collect();
    for (holder, kind) in holders.iter().zip(KINDS) {
        holder.wait_until_found(kind);
    }
    let table: Vec<Vec<Way>> = thread::scope(|scope| {
        let seek = |number| {
            let (env, internet, holders, first) = (&env, &internet, &holders, &first);
            scope.spawn(move || seek(env, internet, number, first, holders))
        };
        let seekers: Vec<_> = (0..KINDS.len()).map(seek).collect();
        let found = seekers.into_iter().map(|seeker| seeker.join().unwrap());
        found.collect()
    });
    eprintln!("{}", shown(&table));
    for (seeker, ways) in KINDS.into_iter().zip(&table) {
        for (holder, way) in KINDS.into_iter().zip(ways) {
            let fine = match worst(holder, seeker) {
                Way::Direct => *way == Way::Direct,
                Way::Punched => *way != Way::RelayOnly,
                Way::RelayOnly => true,
            };
            assert!(fine, "holder: {holder}, seeker: {seeker}: {way:?}");
        }
    }
}

/// A daemon with a file of its own.
struct Holder {
    daemon: Daemon,
    sha256: String,
    content: Vec<u8>,
}

impl Holder {
    fn start(env: &TestEnv, internet: &Internet, number: usize, first: &str) -> Self {
        let home = env.home(&format!("holder-{number}"));
        configure(&home, "", first);
        // No two blocks alike, in any file.
        let byte = |at: usize| (number * 16 + (at >> 20)) as u8;
        let content: Vec<_> = (0..FILE_BYTES).map(byte).collect();
        let file = home.path("file");
        fs::write(&file, &content).unwrap();
        let listed = home.ok(&["mirror", "add", file.to_str().unwrap()]);
        let command = internet.on(number, &home.command(&["--json", "node", "run"]));
        Self {
            daemon: Daemon::start(command, &home.path("")),
            sha256: listed.split(' ').next().unwrap().to_owned(),
            content,
        }
    }

    /// Waits until it knows where it can be reached, and the DHT knows what it has.
    fn wait_until_found(&self, kind: Nat) {
        let reachable = matches!(kind, Nat::Open | Nat::FullCone);
        self.daemon
            .wait_for_status("the holder can be reached", |status| {
                let addresses = status["external_addrs"].as_array();
                addresses.into_iter().flatten().any(|address| {
                    let is_circuit = address.as_str().unwrap().contains("/p2p-circuit");
                    is_circuit != reachable
                })
            });
        self.daemon.wait_until_all_is_announced();
    }
}

/// Fetches from each holder in turn.
fn seek(
    env: &TestEnv,
    internet: &Internet,
    number: usize,
    first: &str,
    holders: &[Holder],
) -> Vec<Way> {
    let home = env.home(&format!("seeker-{number}"));
    configure(&home, "", first);
    let host = KINDS.len() + number;
    holders
        .iter()
        .map(|holder| {
            let got = home.path("got");
            let content = format!("sha256:{}", holder.sha256);
            let mut fetch = home.command(&["fetch", &content, "-o", got.to_str().unwrap()]);
            fetch.env("RUST_LOG", "p2pkgs_node=debug");
            let started = Instant::now();
            let finished = Finished::of(internet.on(host, &fetch), COMMAND_DEADLINE);
            if finished.code == Some(0) {
                assert_eq!(fs::read(&got).unwrap(), holder.content);
                let peer = holder.daemon.peer_id();
                let is_hole = |line: &str| line.contains("punched a hole") && line.contains(peer);
                let punched = finished.stderr.lines().any(is_hole);
                return if punched { Way::Punched } else { Way::Direct };
            }
            assert!(started.elapsed() < GIVES_UP, "{finished:?}");
            finished.assert_says("1 provider (1 reachable only through a relay");
            Way::RelayOnly
        })
        .collect()
}

/// The settings that users have, but for the first peer and shorter deadlines.
fn configure(home: &Home<'_>, network: &str, first: &str) {
    let bootstrap = if first.is_empty() {
        String::new()
    } else {
        format!("\"{first}\"")
    };
    let config = format!(
        "profile = \"public\"\n[network]\nbootstrap = [{bootstrap}]\nmdns = false\n{network}\n\
         [deadlines]\ndial-secs = 4\nlookup-secs = 10\n"
    );
    fs::write(home.path("config.toml"), config).unwrap();
}

/// The table of the documentation.
fn shown(table: &[Vec<Way>]) -> String {
    let mut text = String::from("| holder ↓, seeker → |");
    for seeker in KINDS {
        write!(text, " {seeker} |").unwrap();
    }
    text.push_str("\n|---|");
    text.push_str(&"---|".repeat(KINDS.len()));
    for (number, holder) in KINDS.into_iter().enumerate() {
        write!(text, "\n| {holder} |").unwrap();
        for ways in table {
            write!(text, " {} |", ways[number].shown()).unwrap();
        }
    }
    text
}
