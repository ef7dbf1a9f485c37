//! `p2pkgs node run`

use std::sync::Arc;
use std::time::{Duration, Instant};

use node::web::{Facts, Site, Web};
use node::{Client, Node, Status};
use serde::Serialize;

use super::facts::HomeFacts;
use super::reload::Reloading;

use crate::bug::NODE_THREAD;
use crate::context::Context;
use crate::daemon::{self, Lock};
use crate::error::{CmdResult, Exit, Failure};
use crate::home::Home;
use crate::names;
use crate::network::daemon_config;
use crate::notify::Notify;

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
/// Prints one line of JSON on stdout when it is ready: its peer id, its addresses and its HTTP door. Ends with exit code 0 on
/// ^C and SIGTERM, and reads its configuration again on SIGHUP. Tells systemd how it is doing (Type=notify).
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
    http: &'a [String],
}

/// The state file: what the node says of itself, and which process it is.
#[derive(Serialize)]
struct State<'a> {
    pid: u32,
    version: &'static str,
    http: &'a [String],
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
    context.interrupt.reload_on_hangup();
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
        let _ = daemon::write_http(context.home()?, &[]);
        node.stop().await;
        context.ui.status("stopped");
        result
    })
}

async fn serve(context: &Context, client: &Client, is_listening: bool) -> CmdResult {
    let home = context.home()?;
    let store = context.store()?;
    let mut notify = notify(context);
    let mut reloading = Reloading::new(context)?;
    let status = first_status(client, is_listening).await?;
    let (_web, http) = open_door(context, client, is_listening).await?;
    let addrs = dialable(&status);
    daemon::write_address(home, &addrs)?;
    daemon::write_http(home, &http)?;
    write_state(home, &status, &http)?;
    context
        .ui
        .status(format!("this node is {}", status.peer_id));
    for addr in &addrs {
        context.ui.status(format!("listening on {addr}"));
    }
    for url in &http {
        context.ui.status(format!("HTTP at {url}/"));
    }
    context.ui.json_data(&Ready {
        event: "ready",
        peer_id: &status.peer_id,
        addrs: &addrs,
        http: &http,
    })?;
    let is = format!("node {}", status.peer_id);
    notify.ready(&is);
    let mut told = addrs;
    let mut written = Instant::now();
    while !context.interrupt.is_set() {
        tokio::time::sleep(LOOK_EVERY).await;
        if context.interrupt.take_reload() {
            notify.reloading();
            if let Err(error) = reloading.reload(context, client, store).await {
                context.ui.warn(format!(
                    "the configuration stays as it was: {}",
                    error.message()
                ));
            }
            notify.ready(&is);
        }
        if written.elapsed() < STATE_EVERY {
            continue;
        }
        written = Instant::now();
        let status = client
            .status()
            .await
            .map_err(|e| Failure::from(e).exit_with(Exit::Bug))?;
        notify.alive();
        let addrs = dialable(&status);
        if let Err(error) = write_state(home, &status, &http) {
            // A full disk must not stop what serves others; the file is merely old then.
            context.ui.warn(error.message());
        }
        if addrs != told {
            daemon::write_address(home, &addrs)?;
            told = addrs;
        }
    }
    notify.stopping();
    Ok(())
}

/// A manager that cannot be reached must not keep the node from serving.
fn notify(context: &Context) -> Notify {
    Notify::of_environment().unwrap_or_else(|error| {
        context
            .ui
            .warn(format!("cannot tell the service manager: {error}"));
        Notify::default()
    })
}

/// Opens the HTTP door, and says where it is. The node runs on without it.
async fn open_door(
    context: &Context,
    client: &Client,
    is_listening: bool,
) -> CmdResult<(Web, Vec<String>)> {
    let http = context.config()?.http()?;
    let store = context.store()?.clone();
    let tree = context.tree().ok();
    let facts = HomeFacts::new(tree.as_ref(), context.home()?, store.clone());
    let facts: Arc<dyn Facts> = Arc::new(facts);
    let site = Site::new(client.clone(), store, facts, is_listening)
        .with_pages_to_network(http.pages_to_network);
    let (web, failed) = Web::start(&http.listen, site).await;
    for (address, error) in failed {
        let message = format!("no HTTP at {address}: {error}; the node runs on without it");
        context.ui.warn(message);
    }
    let urls = web.addresses().iter().map(|a| format!("http://{a}"));
    let urls = urls.collect();
    Ok((web, urls))
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

fn write_state(home: &Home, status: &Status, http: &[String]) -> CmdResult {
    let state = State {
        pid: std::process::id(),
        version: env!("CARGO_PKG_VERSION"),
        http,
        status,
    };
    let text = serde_json::to_string_pretty(&state)? + "\n";
    daemon::write_state(home, &text)
        .map_err(|e| Failure::from(e).context("cannot write `node.json`"))
}
