//! `p2pkgs doctor`

use builder::{Groups, Sandbox};
use serde::Serialize;

use crate::bench::search_path;
use crate::context::Context;
use crate::daemon;
use crate::error::{CmdResult, Exit, Failure};
use crate::network::Remote;
use crate::units;

/// Free space below which a build of any size is likely to fail, in bytes.
const FREE_BYTES_WANTED: u64 = 1 << 30;

/// Check what this machine and home need: sandbox, build roots, store, disk, keys, configuration, daemon, first peers
///
/// Prints one line for each check: `ok`, `warn` or `fail`, the check, what was found. Ends with the exit code of the
/// first failed check. Opens no socket with `--offline`.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// How a check went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Ok,
    Warn,
    Fail,
}

#[derive(Serialize)]
struct Check {
    verdict: Verdict,
    check: &'static str,
    found: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    hints: Vec<String>,
    #[serde(skip)]
    exit: Exit,
}

impl Check {
    fn ok(check: &'static str, found: impl Into<String>) -> Self {
        Self {
            verdict: Verdict::Ok,
            check,
            found: found.into(),
            hints: Vec::new(),
            exit: Exit::Ok,
        }
    }

    fn warn(check: &'static str, found: impl Into<String>, hint: &str) -> Self {
        Self {
            verdict: Verdict::Warn,
            hints: vec![hint.to_owned()],
            ..Self::ok(check, found)
        }
    }

    fn fail(check: &'static str, failure: &Failure) -> Self {
        Self {
            verdict: Verdict::Fail,
            check,
            found: failure.message(),
            hints: failure.hint_lines().to_vec(),
            exit: failure.exit(),
        }
    }

    fn of(check: &'static str, result: CmdResult<String>) -> Self {
        match result {
            Ok(found) => Self::ok(check, found),
            Err(failure) => Self::fail(check, &failure),
        }
    }
}

pub fn run(context: &Context, _args: &Args) -> CmdResult {
    let checks = [
        sandbox(),
        roots(context),
        limits(context),
        Check::of("home", Ok(context.home()?.root().display().to_string())),
        Check::of("store", store(context)),
        disk(context),
        Check::of("keys", keys(context)),
        tree(context),
        Check::of("configuration", configuration(context)),
        running(context),
        peers(context),
    ];
    if context.ui.json() {
        context.ui.json_data(&checks)?;
    } else {
        for check in &checks {
            print(context, check)?;
        }
    }
    let failed: Vec<_> = checks
        .iter()
        .filter(|check| check.verdict == Verdict::Fail)
        .collect();
    match failed.first() {
        None => Ok(()),
        Some(first) => {
            let message = format!("{} failed", units::count(failed.len(), "check"));
            Err(Failure::new(first.exit, message))
        }
    }
}

fn print(context: &Context, check: &Check) -> CmdResult {
    let verdict = match check.verdict {
        Verdict::Ok => "ok",
        Verdict::Warn => "warn",
        Verdict::Fail => "fail",
    };
    context
        .ui
        .data(format!("{verdict} {}: {}", check.check, check.found))?;
    for hint in &check.hints {
        context.ui.status(format!("hint: {hint}"));
    }
    Ok(())
}

fn sandbox() -> Check {
    const CHECK: &str = "sandbox";
    match Sandbox::find(&search_path()) {
        Ok(sandbox) if sandbox.filters() => Check::ok(
            CHECK,
            "bubblewrap can make one, with a filter of system calls",
        ),
        Ok(_) => Check::warn(
            CHECK,
            "bubblewrap can make one, without a filter of system calls",
            "bubblewrap 0.6.1 and later filters them, on x86-64 and aarch64, where nothing around us forbids it",
        ),
        Err(error) => Check::fail(CHECK, &error.into()),
    }
}

/// How the roots of builds come to be: at once, or by unpacking all that a build needs.
fn roots(context: &Context) -> Check {
    const CHECK: &str = "build roots";
    let tried = || -> CmdResult<Option<String>> {
        let home = context.home()?;
        home.create()?;
        let Ok(sandbox) = Sandbox::find(&search_path()) else {
            return Ok(Some("there is no sandbox".into()));
        };
        Ok(sandbox.stacks(&home.path("scratch")).err())
    };
    match tried() {
        Ok(None) => Check::ok(CHECK, "stacked from packages that are unpacked once"),
        Ok(Some(reason)) => Check::warn(
            CHECK,
            format!("unpacked anew for each build, which takes seconds: {reason}"),
            "stacking needs Linux 5.11, a `mount` program, a home on a local file system, and no AppArmor rule against it",
        ),
        Err(failure) => Check::fail(CHECK, &failure),
    }
}

/// How memory and processes of a build are kept within limits.
fn limits(context: &Context) -> Check {
    let found = || -> CmdResult<String> {
        let builds = context.config()?.builds()?;
        let bytes = builds
            .memory_bytes
            .unwrap_or(builder::Limits::default().memory_max);
        let how = match Groups::find() {
            Some(groups) => format!(
                "kept by the kernel (cgroup in `{}`)",
                groups.parent().display()
            ),
            None => "counted ten times a second, for no cgroup of version 2 is left to us".into(),
        };
        let (bytes, processes) = (units::bytes(bytes), builds.processes);
        Ok(format!(
            "{bytes} of memory and {processes} processes, {how}"
        ))
    };
    Check::of("build limits", found())
}

fn store(context: &Context) -> CmdResult<String> {
    let blobs = context.store()?.blobs()?;
    let bytes = blobs.iter().map(|blob| blob.size).sum();
    Ok(format!(
        "{}, {}",
        units::count(blobs.len(), "blob"),
        units::bytes(bytes)
    ))
}

fn disk(context: &Context) -> Check {
    let free = || -> CmdResult<u64> {
        let home = context.home()?;
        home.create()?;
        let stat = rustix::fs::statvfs(home.root()).map_err(std::io::Error::from)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    };
    match free() {
        Ok(free) if free < FREE_BYTES_WANTED => {
            let hint = "free some space, or name another `--home DIR`";
            Check::warn("disk", format!("only {} free", units::bytes(free)), hint)
        }
        Ok(free) => Check::ok("disk", format!("{} free", units::bytes(free))),
        Err(failure) => Check::fail("disk", &failure),
    }
}

fn keys(context: &Context) -> CmdResult<String> {
    let policy = context.trust()?;
    let own = crate::keys::own_keys(context.home()?)?.len();
    let all = policy.keys().count();
    let rule = match policy.rule() {
        Some(rule) => format!("the rule is {rule}"),
        None => format!("{} must agree", policy.threshold()),
    };
    Ok(format!(
        "{own} own, {} trusted, {rule}",
        all.saturating_sub(own)
    ))
}

fn tree(context: &Context) -> Check {
    match context.tree() {
        Ok(tree) => Check::ok("package tree", tree.root().display().to_string()),
        Err(_) => Check::warn(
            "package tree",
            "none here",
            "change into one, or name it with `--tree DIR`",
        ),
    }
}

fn configuration(context: &Context) -> CmdResult<String> {
    let config = context.config()?;
    config.network()?;
    config.limits()?;
    config.builds()?;
    config.deadlines()?;
    config.sources()?;
    config.caches()?;
    config.trust()?;
    context.mirrors()?;
    Ok(match config.warnings().len() {
        0 => "every key is understood".into(),
        unknown => format!("{} not understood", units::count(unknown, "key")),
    })
}

fn running(context: &Context) -> Check {
    match context.home().map(daemon::is_running) {
        Ok(true) => reachable(context),
        Ok(false) => Check::warn("daemon", "does not run", "`p2pkgs node run` starts it"),
        Err(failure) => Check::fail("daemon", &failure),
    }
}

/// Whether others get through to the daemon. One that has just started does not know yet.
fn reachable(context: &Context) -> Check {
    const CHECK: &str = "daemon";
    let state = match context.home().and_then(daemon::read_state) {
        Ok(state) => state,
        Err(failure) => return Check::fail(CHECK, &failure),
    };
    let count = |name: &str| state[name].as_array().map_or(0, Vec::len);
    let addresses = match (count("listen_addrs"), count("external_addrs")) {
        (0, _) => return Check::ok(CHECK, "runs, and only asks: it listens nowhere"),
        (_, 0) => {
            let hint = "let TCP and UDP at the ports of `network.listen` through to this machine; until then others come \
                        through relays, if at all";
            return Check::warn(
                CHECK,
                "runs, but no address is known to work for others",
                hint,
            );
        }
        (_, addresses) => addresses,
    };
    let plural = if addresses == 1 { "" } else { "es" };
    let found = format!("runs, others reach it at {addresses} address{plural}");
    Check::ok(CHECK, found)
}

/// Dials the first peers, all at once.
fn peers(context: &Context) -> Check {
    const CHECK: &str = "first peers";
    let reached = || -> CmdResult<Option<(usize, usize)>> {
        let network = context.network()?;
        if !network.enabled || network.bootstrap.is_empty() {
            return Ok(None);
        }
        let remote = Remote::new(context)?;
        let Some(client) = remote.client()? else {
            return Ok(None);
        };
        let reached = std::thread::scope(|scope| {
            let dial = |address: &str| address.parse().is_ok_and(|a| client.connect(a).is_ok());
            let threads: Vec<_> = network
                .bootstrap
                .iter()
                .map(|address| scope.spawn(move || dial(address)))
                .collect();
            threads
                .into_iter()
                .filter_map(|thread| thread.join().ok())
                .filter(|ok| *ok)
                .count()
        });
        Ok(Some((reached, network.bootstrap.len())))
    };
    match reached() {
        Ok(None) => Check::ok(CHECK, "none are named, so none was asked"),
        Ok(Some((0, all))) => {
            let failure = Failure::new(Exit::Network, format!("none of {all} can be reached"))
                .hint("is there a network? `--offline` works without one");
            Check::fail(CHECK, &failure)
        }
        Ok(Some((reached, all))) => Check::ok(CHECK, format!("{reached} of {all} reached")),
        Err(failure) => Check::fail(CHECK, &failure),
    }
}
