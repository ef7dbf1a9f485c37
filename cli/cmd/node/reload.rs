//! `p2pkgs node reload`, and what the daemon does when it is told: it reads its configuration again.
//!
//! Limits change at once. Everything else is decided when a daemon starts (sockets, the identity, the part in the DHT); that
//! such a setting was changed is said, so that nobody believes it counts already.

use netconfig::Layered;
use node::Client;
use rustix::process::{Pid, Signal, kill_process};
use store::Store;

use crate::context::{Context, store_limits};
use crate::daemon;
use crate::error::{CmdResult, Exit, Failure};
use crate::network::running_limits;
use crate::sanitize;

/// Sections that are taken over while the daemon runs.
const RUNNING: [&str; 2] = ["limits.", "store."];

/// Sends the daemon the signal.
pub fn run(context: &Context) -> CmdResult {
    let state = daemon::read_state(context.home()?)?;
    let pid = state["pid"]
        .as_i64()
        .and_then(|pid| i32::try_from(pid).ok());
    let pid = pid.and_then(Pid::from_raw).ok_or_else(|| {
        Failure::new(
            Exit::Other,
            "`node.json` does not name the daemon's process",
        )
    })?;
    kill_process(pid, Signal::HUP).map_err(|errno| {
        Failure::from(std::io::Error::from(errno)).context("cannot send the daemon a signal")
    })?;
    context
        .ui
        .status("the daemon reads its configuration again");
    Ok(())
}

/// The settings in force, and whom they concern.
#[derive(Debug)]
pub struct Reloading {
    current: Layered,
}

impl Reloading {
    /// As the daemon started.
    ///
    /// # Errors
    /// When the configuration cannot be read.
    pub fn new(context: &Context) -> CmdResult<Self> {
        Ok(Self {
            current: context.config()?.clone(),
        })
    }

    /// Reads the configuration and takes over what may change now. A configuration that cannot be used changes nothing.
    ///
    /// # Errors
    /// When it cannot be read or used.
    pub async fn reload(&mut self, context: &Context, client: &Client, store: &Store) -> CmdResult {
        let new = context.read_config_again()?;
        let (limits, store_limits) = (running_limits(&new.limits()?), store_limits(&new)?);
        for warning in new.warnings() {
            context.ui.warn(warning);
        }
        let changed = changes(&self.current, &new);
        client.set_limits(limits).await?;
        store.set_limits(store_limits);
        if changed.is_empty() {
            context
                .ui
                .status("read the configuration again, nothing changed");
        }
        for line in changed {
            context.ui.status(line);
        }
        self.current = new;
        Ok(())
    }
}

/// What differs, one line each.
fn changes(old: &Layered, new: &Layered) -> Vec<String> {
    let before = |name: &str| {
        old.settings()
            .find(|(n, _)| *n == name)
            .map(|(_, s)| &s.value)
    };
    let mut lines = Vec::new();
    for (name, setting) in new.settings() {
        let old = before(name);
        if old == Some(&setting.value) {
            continue;
        }
        let was = old.map_or_else(|| "unset".to_owned(), ToString::to_string);
        let change = sanitize::line(&format!("{name}: {was} -> {}", setting.value));
        if RUNNING.iter().any(|section| name.starts_with(section)) {
            lines.push(change);
        } else {
            lines.push(format!("{change} (from the next start on)"));
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use netconfig::{Layer, Origin};

    use super::*;

    #[test]
    fn what_counts_at_once_is_told_from_what_needs_a_restart() {
        let with = |text: &str| {
            let file = Layer::from_toml(&Origin::File("config.toml".into()), text);
            Layered::new([Layer::built_in(), file])
        };
        let old = with("");
        assert!(changes(&old, &with("")).is_empty());
        let new = with("[limits]\nconnections = 7\n[network]\nmdns = false\n");
        assert_eq!(
            changes(&old, &new),
            [
                "limits.connections: 256 -> 7",
                "network.mdns: true -> false (from the next start on)"
            ]
        );
    }
}
