//! `p2pkgs key`

use base::PublicKey;
use serde::Serialize;

use crate::context::Context;
use crate::error::{CmdResult, Failure};
use crate::keys::{self, DEFAULT_KEY, TrustedKey};

/// Builder keys: make one, list them, say whom to believe
///
/// A builder key vouches for outputs: whoever trusts it uses what it signed. Your own keys are trusted without being listed.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Make a builder key and print its public half
    New {
        /// What to call it; `build` and `publish` sign with `default`
        #[arg(default_value = DEFAULT_KEY)]
        name: String,
    },
    /// Make the key of a private swarm in this home; whoever is to join needs a copy
    Swarm,
    /// Make the key of a group in this home: in an open network, only its members see what this home looks for and has
    Group,
    /// Print own and trusted keys, one a line: `own` or `trusted`, key, name
    List,
    /// Believe what a key signs
    Trust {
        /// `ed25519:` and 64 hexadecimal digits; none to set only the threshold
        #[arg(required_unless_present = "threshold", value_name = "KEY")]
        keys: Vec<PublicKey>,
        /// What to call it
        #[arg(long)]
        name: Option<String>,
        /// How many trusted keys must agree on an output before it is used
        #[arg(long, value_name = "K", value_parser = clap::value_parser!(u32).range(1..))]
        threshold: Option<u32>,
    },
    /// No longer believe what a key signs
    Untrust {
        /// The keys, or the names they were given
        #[arg(required = true, value_name = "KEY|NAME")]
        keys: Vec<String>,
    },
}

pub fn run(context: &Context, args: &Args) -> CmdResult {
    match &args.command {
        Command::New { name } => new(context, name),
        Command::Swarm => swarm(context),
        Command::Group => group(context),
        Command::List => list(context),
        Command::Trust {
            keys,
            name,
            threshold,
        } => trust(context, keys, name.as_deref(), *threshold),
        Command::Untrust { keys } => untrust(context, keys),
    }
}

fn new(context: &Context, name: &str) -> CmdResult {
    let (key, is_new) = keys::create_key(context.home()?, name)?;
    if !is_new {
        return Err(
            Failure::usage(format!("there is a key `{name}` already: {}", key.public()))
                .hint("name another one: `p2pkgs key new NAME`"),
        );
    }
    context.ui.status(format!(
        "made key `{name}`; others use what it signs after:"
    ));
    context
        .ui
        .status(format!("  p2pkgs key trust {}", key.public()));
    context.ui.data(key.public())
}

fn swarm(context: &Context) -> CmdResult {
    let home = context.home()?;
    let path = keys::create_shared_key(home, "swarm")?;
    context
        .ui
        .status("made the key of a private swarm; copy it to the homes of all members, and use:");
    context.ui.status("  p2pkgs --profile private node run");
    context.ui.data(path.display())
}

fn group(context: &Context) -> CmdResult {
    let path = keys::create_shared_key(context.home()?, "group")?;
    context.ui.status(
        "made the key of a group; copy it to the homes of all members, and add to their `config.toml`:",
    );
    context.ui.status("  [network]");
    context.ui.status("  group-key = \"group.key\"");
    context.ui.data(path.display())
}

#[derive(Serialize)]
struct Listed {
    kind: &'static str,
    key: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
}

#[derive(Serialize)]
struct Listing {
    threshold: usize,
    keys: Vec<Listed>,
}

fn list(context: &Context) -> CmdResult {
    let home = context.home()?;
    let policy = context.trust()?;
    let own = keys::own_keys(home)?.into_iter().map(|own| Listed {
        kind: "own",
        key: own.key.public().to_string(),
        name: Some(own.name),
    });
    let file = keys::trust_file(home)?;
    let trusted = file.keys.into_iter().map(listed_as_trusted);
    let configured = context.config()?.trust()?.keys.into_iter();
    let configured = configured.map(|key| listed_as_trusted(TrustedKey { key, name: None }));
    let listing = Listing {
        threshold: policy.threshold(),
        keys: own.chain(trusted).chain(configured).collect(),
    };
    if context.ui.json() {
        return context.ui.json_data(&listing);
    }
    if listing.threshold > 1 {
        context.ui.status(format!(
            "{} trusted keys must agree on an output",
            listing.threshold
        ));
    }
    listing.keys.iter().try_for_each(|listed| {
        let name = listed.name.as_deref().unwrap_or("-");
        context.ui.data(format!(
            "{} {} {}",
            listed.kind,
            listed.key,
            crate::sanitize::line(name)
        ))
    })
}

fn listed_as_trusted(trusted: TrustedKey) -> Listed {
    Listed {
        kind: "trusted",
        key: trusted.key.to_string(),
        name: trusted.name,
    }
}

fn trust(
    context: &Context,
    keys: &[PublicKey],
    name: Option<&str>,
    threshold: Option<u32>,
) -> CmdResult {
    if name.is_some() && keys.len() != 1 {
        return Err(Failure::usage("`--name` names one key, and not several"));
    }
    let home = context.home()?;
    let mut file = keys::trust_file(home)?;
    for key in keys {
        file.keys.retain(|known| known.key != *key);
        let name = name.map(|name| name.split_whitespace().collect::<Vec<_>>().join(" "));
        file.keys.push(TrustedKey { key: *key, name });
        context.ui.status(format!("trusting {key}"));
    }
    if let Some(threshold) = threshold {
        file.threshold = Some(usize::try_from(threshold).unwrap_or(usize::MAX));
        context.ui.status(format!(
            "{threshold} trusted keys must agree on an output from now on"
        ));
    }
    keys::write_trust_file(home, &file)
}

fn untrust(context: &Context, unwanted: &[String]) -> CmdResult {
    let home = context.home()?;
    let mut file = keys::trust_file(home)?;
    for text in unwanted {
        let before = file.keys.len();
        let is_meant = |known: &TrustedKey| {
            known.key.to_string() == *text || known.name.as_deref() == Some(text)
        };
        file.keys.retain(|known| !is_meant(known));
        if file.keys.len() == before {
            let text = crate::sanitize::line(text);
            return Err(Failure::usage(format!("`{text}` is not a trusted key"))
                .hint("`p2pkgs key list` shows them"));
        }
        context.ui.status(format!(
            "no longer trusting {}",
            crate::sanitize::line(text)
        ));
    }
    keys::write_trust_file(home, &file)
}
