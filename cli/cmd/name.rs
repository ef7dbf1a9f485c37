//! `p2pkgs name`

use std::time::SystemTime;

use node::ipns::{IpnsName, IpnsRecord};
use node::{ContentPath, NameError, Resolved};
use serde::Serialize;

use crate::context::Context;
use crate::daemon;
use crate::error::{CmdResult, Exit, Failure};
use crate::names::{self, DEFAULT_NAME};
use crate::network::Remote;
use crate::watch::Watch;
use crate::{roots, sanitize, units};

/// Names (IPNS) that stand for content and can be pointed elsewhere by who has their key
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Point a name of your own to something, and print the name
    ///
    /// The name's key is made on first use. A running daemon publishes the record again every four hours; without one, others
    /// find it for two days.
    Publish {
        /// A CID, a path below one, or a package of the tree
        #[arg(value_name = "CID|PKG")]
        target: String,
        /// Which of your names
        #[arg(long, value_name = "NAME", default_value = DEFAULT_NAME)]
        key: String,
    },
    /// Print the path that a name stands for
    Resolve {
        /// The name: `k51…`, `12D3…`, `Qm…` or a CID of a key
        #[arg(value_name = "NAME")]
        name: String,
    },
}

#[derive(Serialize)]
struct Told {
    name: String,
    value: String,
    sequence: u64,
    expires_unix_secs: u64,
}

pub fn run(context: &Context, args: &Args) -> CmdResult {
    match &args.command {
        Command::Publish { target, key } => publish(context, target, key),
        Command::Resolve { name } => resolve(context, name),
    }
}

fn publish(context: &Context, target: &str, key: &str) -> CmdResult {
    let path = match target.parse::<ContentPath>() {
        Ok(path) => path,
        Err(_) => {
            let roots = roots::of(context, &[target.to_owned()])?;
            let root = roots.first().expect("one item was asked for");
            ContentPath::of(*root)
        }
    };
    let record = point(context, &path, key)?;
    let name = record.name().to_string();
    print(context, &record, &name)
}

/// Points a name of this home to a path. Without a network the record is kept for the daemon.
///
/// # Errors
/// When the key cannot be used, or nobody took the record and no daemon will try again.
pub fn point(context: &Context, path: &ContentPath, key: &str) -> CmdResult<IpnsRecord> {
    let key = names::key(context.home()?, key)?;
    let name = IpnsName::of(&key.public());
    let remote = Remote::new(context)?;
    let value = path.to_string();
    let sequence = match last(context, &remote, &name)? {
        Some(last) if last.value() == value.as_bytes() => last.sequence(),
        Some(last) => last.sequence().saturating_add(1),
        None => 0,
    };
    let record = names::sign(&key, &value, sequence, SystemTime::now())?;
    match remote.client()? {
        Some(client) => {
            let nodes = client.publish_ipns(record.clone())?;
            tell_of_nodes(context, nodes)?;
        }
        None => {
            let store = context.store()?;
            store.keep_name_record(&name.to_bytes(), sequence, record.bytes())?;
            context
                .ui
                .status("the network is switched off: a daemon publishes it");
        }
    }
    Ok(record)
}

/// The last record of an own name: as this home remembers it, else as others do, so that a key that was copied here does
/// not begin again at zero.
fn last(context: &Context, remote: &Remote, name: &IpnsName) -> CmdResult<Option<IpnsRecord>> {
    let remembered = names::last_record(context.store()?, name)?;
    let (None, Some(client)) = (&remembered, remote.client()?) else {
        return Ok(remembered);
    };
    let watch = Watch::new(&context.ui, &context.interrupt);
    let progress = watch.transfer(format!("resolving {name}"));
    match client.resolve_ipns(*name, &progress) {
        Ok(resolved) => Ok(Some(resolved.record)),
        Err(NameError::Missing { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn tell_of_nodes(context: &Context, nodes: u32) -> CmdResult {
    if nodes > 0 {
        let nodes = units::count(nodes as usize, "node");
        context
            .ui
            .status(format!("{nodes} of the DHT took the record"));
        return Ok(());
    }
    if daemon::is_running(context.home()?) {
        context
            .ui
            .status("no node of the DHT took the record yet: the daemon tries again");
        return Ok(());
    }
    Err(
        Failure::new(Exit::Network, "no node of the DHT took the record").hint(
            "the record is kept: `p2pkgs node run` publishes it as soon as the network can be reached",
        ),
    )
}

fn resolve(context: &Context, name: &str) -> CmdResult {
    let bare = ["ipns://", "/ipns/"]
        .iter()
        .find_map(|p| name.strip_prefix(p));
    let name: IpnsName = bare.unwrap_or(name).parse().map_err(|e| {
        let name = sanitize::line(name);
        Failure::from(e)
            .context(format!("cannot resolve `{name}`"))
            .exit_with(Exit::Usage)
    })?;
    let remote = Remote::new(context)?;
    let watch = Watch::new(&context.ui, &context.interrupt);
    let progress = watch.transfer(format!("resolving {name}"));
    let Resolved {
        record,
        is_remembered,
        asked,
    } = match remote.client()? {
        Some(client) => client.resolve_ipns(name, &progress)?,
        None => node::remembered_name(context.store()?, &name, SystemTime::now())?,
    };
    drop(progress);
    if is_remembered {
        context.ui.status(format!(
            "nobody has a newer record than the one seen before: {asked}"
        ));
    } else {
        context.ui.detail(asked);
    }
    let value = sanitize::line(&String::from_utf8_lossy(record.value()));
    print(context, &record, &value)
}

fn print(context: &Context, record: &IpnsRecord, line: &str) -> CmdResult {
    if !context.ui.json() {
        return context.ui.data(line);
    }
    let expires = record.expires().duration_since(SystemTime::UNIX_EPOCH);
    context.ui.json_data(&Told {
        name: record.name().to_string(),
        value: String::from_utf8_lossy(record.value()).into_owned(),
        sequence: record.sequence(),
        expires_unix_secs: expires.unwrap_or_default().as_secs(),
    })
}
