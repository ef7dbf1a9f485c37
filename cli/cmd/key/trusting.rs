//! `p2pkgs key trust`, `untrust` and `policy`: who is believed, for what, and how many of them must agree.

use base::PublicKey;
use trust::{Day, Member, Pattern, Rule, Scope};

use crate::bench::unix_secs;
use crate::context::Context;
use crate::error::{CmdResult, Failure};
use crate::keys;
use crate::sanitize;
use crate::statements;
use crate::trust_file::TrustFile;

#[derive(Debug, clap::Args)]
pub struct TrustArgs {
    /// `ed25519:` and 64 hexadecimal digits; none to set only the threshold
    #[arg(required_unless_present = "threshold", value_name = "KEY")]
    keys: Vec<PublicKey>,
    /// What to call it
    #[arg(long)]
    name: Option<String>,
    /// Believe it only for packages of this name; `*` stands for any text, `?` for one character. Can be given several times
    #[arg(long = "for", value_name = "PATTERN", requires = "keys")]
    patterns: Vec<Pattern>,
    /// Believe it to the end of this day (UTC), written 2027-01-31
    #[arg(long, value_name = "DATE", requires = "keys")]
    until: Option<Day>,
    /// How many trusted keys must agree on an output before it is used; takes the place of a rule of `key policy`
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u32).range(1..))]
    threshold: Option<u32>,
}

pub fn trust(context: &Context, args: &TrustArgs) -> CmdResult {
    if args.name.is_some() && args.keys.len() != 1 {
        return Err(Failure::usage("`--name` names one key, and not several"));
    }
    let _lock = TrustFile::lock(context.home()?)?;
    let mut file = TrustFile::read(context.home()?)?;
    for key in &args.keys {
        let name = args.name.as_deref();
        let name = name.map(|name| name.split_whitespace().collect::<Vec<_>>().join(" "));
        let member = Member {
            key: *key,
            name,
            scope: Scope::new(args.patterns.clone()),
            until: args.until,
        };
        // Its place in the file stays, so that the file reads as the user wrote it.
        match file.keys.iter_mut().find(|known| known.key == *key) {
            Some(known) => *known = member,
            None => file.keys.push(member),
        }
    }
    if let Some(threshold) = args.threshold {
        file.threshold = Some(usize::try_from(threshold).unwrap_or(usize::MAX));
        file.rule = None;
    }
    save(context, &file)?;
    let policy = context.trust()?;
    for key in &args.keys {
        context.ui.status(format!("trusting {key}"));
        if let Some(why) = policy.discount(None, key) {
            context.ui.warn(format!("{key} does not count: {why}"));
        }
    }
    if let Some(threshold) = args.threshold {
        context.ui.status(format!(
            "{threshold} trusted keys must agree on an output from now on"
        ));
    }
    Ok(())
}

pub fn untrust(context: &Context, unwanted: &[String]) -> CmdResult {
    let _lock = TrustFile::lock(context.home()?)?;
    let mut file = TrustFile::read(context.home()?)?;
    for text in unwanted {
        let before = file.keys.len();
        let is_meant =
            |known: &Member| known.key.to_string() == *text || known.name.as_deref() == Some(text);
        file.keys.retain(|known| !is_meant(known));
        if file.keys.len() == before {
            let text = sanitize::line(text);
            return Err(Failure::usage(format!("`{text}` is not a trusted key"))
                .hint("`p2pkgs key list` shows them"));
        }
    }
    save(context, &file)?;
    for text in unwanted {
        let text = sanitize::line(text);
        context.ui.status(format!("no longer trusting {text}"));
    }
    Ok(())
}

pub fn policy(context: &Context, rule: Option<&str>) -> CmdResult {
    let config = context.config()?.trust()?;
    let Some(text) = rule else {
        let file = TrustFile::read(context.home()?)?;
        return context.ui.data(file.rule(&config)?);
    };
    let _lock = TrustFile::lock(context.home()?)?;
    let mut file = TrustFile::read(context.home()?)?;
    let rule: Rule = text.parse().map_err(|error| {
        Failure::usage(trust::RuleError::to_string(&error))
            .hint("a rule reads like `2 of {alice, bob, 1 of {ci-1, ci-2}}` or `2 of trusted`")
    })?;
    (file.threshold, file.rule) = match rule {
        Rule::Flat(threshold) => (Some(threshold), None),
        Rule::Nested(term) => (None, Some(term.to_string())),
    };
    save(context, &file)?;
    context
        .ui
        .status("this rule decides from now on which outputs are used");
    Ok(())
}

/// Writes the file, unless its rule does not fit its keys: what is written can be used.
fn save(context: &Context, file: &TrustFile) -> CmdResult {
    let home = context.home()?;
    let config = context.config()?.trust()?;
    let own = keys::own_keys(home)?;
    let said = statements::of_home(home)?;
    file.policy(&own, said, &config, unix_secs())?;
    file.write(home)
}
