//! `p2pkgs key`

mod audit;
mod faults;
mod list;
mod stating;
mod trusting;

use std::path::PathBuf;

use crate::context::Context;
use crate::error::{CmdResult, Failure};
use crate::keys::{self, DEFAULT_KEY};

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
    /// Print own and trusted keys, one a line: kind, key, name, and what it is limited to
    ///
    /// The kinds are `own`, `trusted`, `follows` for a key that took the place of a trusted one, and `delegated` for one that a
    /// trusted key named.
    List,
    /// Believe what a key signs
    Trust(trusting::TrustArgs),
    /// Show the rule that says which keys must agree before an output is used, or set it
    ///
    /// `2 of trusted` counts all trusted keys, as `key trust --threshold 2` does. A rule of one's own names them, and may be
    /// nested: `2 of {alice, bob, any 1 of {ci-1, ci-2}}`. `own` stands for this home's keys, which count as one; a key
    /// without a name is written out. Nobody can stand in a rule twice.
    Policy {
        /// The rule
        rule: Option<String>,
    },
    /// Print with what a package was built by those who signed it, one input a line: finding, name, package hash, sha256, signer
    ///
    /// `same` is what this home would use, `other` is not, of `unknown` nobody trusted has spoken here, and `foreign` does not belong
    /// to the recipe; with `other` or `foreign` the exit code is 4. Statements are those of the store: `fetch` or `build` first.
    Audit {
        /// Package of the tree
        #[arg(value_name = "PKG")]
        package: String,
    },
    /// Print proofs that a key signed two outputs of one package, one a line: package hash, key, the two sha256, names
    ///
    /// Either the key is not used honestly, or the package is not reproducible. For this package the key does not count.
    Faults,
    /// Let a key sign builds for another one, which can be kept offline
    ///
    /// Whoever trusts the root and takes the statement in with `key import` believes what the key signs, within the limits of
    /// both. However many keys a root names, in a rule they count as one. A key that was named names no further ones.
    Delegate(stating::DelegateArgs),
    /// Replace a key of this home by a new one; whoever trusts the old one follows with `key import`
    ///
    /// Both keys sign the statement. The new one takes the old one's name, limits and place in rules.
    Rotate(stating::RotateArgs),
    /// Say that nothing a key signed counts any more
    ///
    /// Signed by the key itself, whoever takes the statement in believes it in nothing. Signed by a root that named the key, it
    /// ends what this root had given it.
    Revoke(stating::RevokeArgs),
    /// Take in statements of `key delegate`, `key rotate` and `key revoke`; trusts nobody who was not trusted
    Import {
        /// Files
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
    },
    /// Write the statements about keys that this home knows into one file
    Export {
        /// Only those about these keys
        #[arg(value_name = "KEY|NAME")]
        keys: Vec<String>,
        /// The file
        #[arg(short, long, value_name = "FILE")]
        output: PathBuf,
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
        Command::List => list::list(context),
        Command::Trust(args) => trusting::trust(context, args),
        Command::Policy { rule } => trusting::policy(context, rule.as_deref()),
        Command::Delegate(args) => stating::delegate(context, args),
        Command::Rotate(args) => stating::rotate(context, args),
        Command::Revoke(args) => stating::revoke(context, args),
        Command::Import { files } => stating::import(context, files),
        Command::Export { keys, output } => stating::export(context, keys, output),
        Command::Audit { package } => audit::audit(context, package),
        Command::Faults => faults::faults(context),
        Command::Untrust { keys } => trusting::untrust(context, keys),
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
