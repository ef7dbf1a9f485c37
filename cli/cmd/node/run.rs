//! `p2pkgs node run`

use std::time::{Duration, Instant};

use node::{Client, Node, Status};
use serde::Serialize;

use crate::bug::NODE_THREAD;
use crate::context::Context;
use crate::daemon::{self, Lock};
use crate::error::{CmdResult, Exit, Failure};
use crate::home::Home;
use crate::names;
use crate::network::daemon_config;

/// How often the state file is written, so that `node status` is never older.
const STATE_EVERY: Duration = Duration::from_secs(1);
/// How often is looked whether to stop.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How long the system may take to open the listening sockets.
const LISTEN_DEADLINE: Duration = Duration::from_secs(10);
/// Threads of the runtime, at most: the swarm is one task, the rest encrypts.
const WORKERS_MAX: usize = 4;

/// Serve the store to peers and announce it, until told to stop
///
/// Prints one line of JSON on stdout when it is ready: its peer id and addresses. Ends with exit code 0 on ^C and SIGTERM.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Multiaddr to listen on instead of those configured; may be repeated
    #[arg(
        long,
        value_name = "ADDR",
        env = "P2PKGS_LISTEN",
        value_delimiter = ' '
    )]
    listen: Vec<String>,
    /// First peer instead of those configured, ending in /p2p/ID; may be repeated
    #[arg(
        long,
        value_name = "ADDR",
        env = "P2PKGS_BOOTSTRAP",
        value_delimiter = ' '
    )]
    bootstrap: Vec<String>,
}

/// The line that says that the daemon can be used.
#[derive(Serialize)]
struct Ready<'a> {
    event: &'static str,
    peer_id: &'a str,
    addrs: &'a [String],
}

/// The state file: what the node says of itself, and which process it is.
#[derive(Serialize)]
struct State<'a> {
    pid: u32,
    version: &'static str,
    #[serde(flatten)]
    status: &'a Status,
}

pub fn run(context: &mut Context, args: &Args) -> CmdResult {
    if !args.listen.is_empty() {
        context.set_flag("--listen", "network.listen", args.listen.join(" "));
    }
    if !args.bootstrap.is_empty() {
        context.set_flag("--bootstrap", "network.bootstrap", args.bootstrap.join(" "));
    }
    let home = context.home()?;
    let _lock = Lock::take(home)?;
    let config = daemon_config(context)?;
    let store = context.store()?.clone();
    let workers = std::thread::available_parallelism()
        .map_or(1, usize::from)
        .min(WORKERS_MAX);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(workers)
        .thread_name(NODE_THREAD)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let is_listening = !config.listen.is_empty();
        let node = Node::spawn(config, store.clone())?;
        let home = context.home()?.clone();
        tokio::spawn(names::keep_published(home, store, node.client().clone()));
        let result = serve(context, node.client(), is_listening).await;
        node.stop().await;
        context.ui.status("stopped");
        result
    })
}

async fn serve(context: &Context, client: &Client, is_listening: bool) -> CmdResult {
    let home = context.home()?;
    let status = first_status(client, is_listening).await?;
    let addrs = dialable(&status);
    daemon::write_address(home, &addrs)?;
    write_state(home, &status)?;
    context
        .ui
        .status(format!("this node is {}", status.peer_id));
    for addr in &addrs {
        context.ui.status(format!("listening on {addr}"));
    }
    context.ui.json_data(&Ready {
        event: "ready",
        peer_id: &status.peer_id,
        addrs: &addrs,
    })?;
    let mut told = addrs;
    let mut written = Instant::now();
    while !context.interrupt.is_set() {
        tokio::time::sleep(LOOK_EVERY).await;
        if written.elapsed() < STATE_EVERY {
            continue;
        }
        written = Instant::now();
        let status = client
            .status()
            .await
            .map_err(|e| Failure::from(e).exit_with(Exit::Bug))?;
        let addrs = dialable(&status);
        if let Err(error) = write_state(home, &status) {
            // A full disk must not stop what serves others; the file is merely old then.
            context.ui.warn(error.message());
        }
        if addrs != told {
            daemon::write_address(home, &addrs)?;
            told = addrs;
        }
    }
    Ok(())
}

/// Waits until the addresses that were asked for are known.
async fn first_status(client: &Client, is_listening: bool) -> CmdResult<Status> {
    let deadline = Instant::now() + LISTEN_DEADLINE;
    loop {
        let status = client.status().await?;
        if !is_listening || !status.listen_addrs.is_empty() {
            return Ok(status);
        }
        if Instant::now() >= deadline {
            return Err(Failure::new(
                Exit::Network,
                "none of the addresses can be listened on",
            ));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Addresses with the peer id, those for this machine first: that is whom `node.addr` is for.
fn dialable(status: &Status) -> Vec<String> {
    let mut addrs = status.listen_addrs.clone();
    let is_far = |addr: &String| !(addr.starts_with("/ip4/127.") || addr.starts_with("/ip6/::1/"));
    addrs.sort_by_key(is_far);
    let suffix = format!("/p2p/{}", status.peer_id);
    addrs
        .into_iter()
        .map(|addr| {
            if addr.ends_with(&suffix) {
                addr
            } else {
                addr + &suffix
            }
        })
        .collect()
}

fn write_state(home: &Home, status: &Status) -> CmdResult {
    let state = State {
        pid: std::process::id(),
        version: env!("CARGO_PKG_VERSION"),
        status,
    };
    let text = serde_json::to_string_pretty(&state)? + "\n";
    daemon::write_state(home, &text)
        .map_err(|e| Failure::from(e).context("cannot write `node.json`"))
}
