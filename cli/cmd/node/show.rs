//! `p2pkgs node id`, `node status`, `node peers`: out of the key file and the daemon's state file.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use crate::context::Context;
use crate::daemon;
use crate::error::CmdResult;
use crate::sanitize;
use crate::units;

/// Characters of a stranger's name for itself that are shown.
const AGENT_CHARACTERS_MAX: usize = 64;

pub fn id(context: &Context) -> CmdResult {
    let home = context.home()?;
    home.create()?;
    let key = node::identity::load_or_create(&home.path("node.key"))?;
    context.ui.data(key.public().to_peer_id())
}

pub fn status(context: &Context) -> CmdResult {
    let state = daemon::read_state(context.home()?)?;
    if context.ui.json() {
        return context.ui.json_data(&state);
    }
    let number = |value: &Value| value.as_u64().unwrap_or_default();
    let peers = state["peers"].as_array().map_or(0, Vec::len);
    let provide = &state["provide"];
    let mut lines = vec![
        ("peer id", text(&state["peer_id"])),
        ("process", number(&state["pid"]).to_string()),
        (
            "running for",
            units::duration(Duration::from_secs(number(&state["uptime_secs"]))),
        ),
    ];
    for address in state["listen_addrs"].as_array().into_iter().flatten() {
        lines.push(("listens on", text(address)));
    }
    for url in state["http"].as_array().into_iter().flatten() {
        lines.push(("HTTP at", format!("{}/status", text(url))));
    }
    lines.extend(reachable(&state).map(|at| ("reachable at", at)));
    lines.extend([
        (
            "peers",
            format!(
                "{peers} connected, {} of the DHT known",
                number(&state["dht_peers"])
            ),
        ),
        (
            "keys",
            format!(
                "{} in all, {} to announce ({} overdue), {} under way",
                number(&provide["keys"]),
                number(&provide["queued"]),
                number(&provide["overdue"]),
                number(&provide["in_flight"]),
            ),
        ),
        ("announced", announced(provide)),
        ("sent", units::bytes(number(&state["uploaded_bytes"]))),
        ("received", units::bytes(number(&state["downloaded_bytes"]))),
    ]);
    lines
        .iter()
        .try_for_each(|(what, value)| context.ui.data(format!("{what}: {value}")))
}

/// Where others get through to the node, as far as it knows; these addresses are announced.
fn reachable(state: &Value) -> impl Iterator<Item = String> {
    let known = state["external_addrs"].as_array();
    let known: Vec<_> = known.into_iter().flatten().map(text).collect();
    let none = known.is_empty();
    let nowhere = "no address that others confirmed, `p2pkgs doctor` says what helps";
    known.into_iter().chain(none.then(|| nowhere.to_owned()))
}

/// What announcing has done: since the start, within the last cycle, and when it did so last.
fn announced(provide: &Value) -> String {
    let number = |name: &str| provide[name].as_u64().unwrap_or_default();
    let counted = |name: &str, noun| units::count(number(name) as usize, noun);
    let mut line = format!(
        "{} done, {} failed; last 22 hours: {} in {} of 256 regions with {}",
        number("done"),
        number("failed"),
        counted("cycle_keys", "key"),
        number("cycle_regions"),
        counted("cycle_lookups", "lookup"),
    );
    if let Some(at) = provide["last_unix_secs"].as_u64() {
        let last = UNIX_EPOCH + Duration::from_secs(at);
        let ago = SystemTime::now().duration_since(last).unwrap_or_default();
        line.push_str(&format!("; last {} ago", units::duration(ago)));
    }
    line
}

pub fn peers(context: &Context) -> CmdResult {
    let state = daemon::read_state(context.home()?)?;
    if context.ui.json() {
        return context.ui.json_data(&state["peers"]);
    }
    for peer in state["peers"].as_array().into_iter().flatten() {
        let agent = sanitize::bytes(text(&peer["agent"]).as_bytes(), AGENT_CHARACTERS_MAX);
        context.ui.data(format!(
            "{} {} {} {} {agent}",
            text(&peer["id"]),
            text(&peer["addr"]),
            peer["bytes_up"].as_u64().unwrap_or_default(),
            peer["bytes_down"].as_u64().unwrap_or_default(),
        ))?;
    }
    Ok(())
}

fn text(value: &Value) -> String {
    sanitize::line(value.as_str().unwrap_or_default())
}
