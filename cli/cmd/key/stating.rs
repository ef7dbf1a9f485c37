//! `p2pkgs key delegate`, `rotate`, `revoke`, `import` and `export`: what keys say of keys.

use std::path::{Path, PathBuf};

use base::{PublicKey, SecretKey};
use trust::{Day, KeyStatement, Pattern, Scope, SignedKeyStatement};

use crate::context::Context;
use crate::error::{CmdResult, Exit, Failure};
use crate::keys;
use crate::sanitize;
use crate::statements;
use crate::trust_file::TrustFile;

#[derive(Debug, clap::Args)]
pub struct DelegateArgs {
    /// The key that signs builds
    key: PublicKey,
    /// The key that names it: one of this home by its name, or a key file such as /media/usb/keys/root.key
    #[arg(long, value_name = "NAME|FILE")]
    root: String,
    /// Only for packages of this name; `*` stands for any text, `?` for one character. Can be given several times
    #[arg(long = "for", value_name = "PATTERN")]
    patterns: Vec<Pattern>,
    /// To the end of this day (UTC), written 2027-01-31
    #[arg(long, value_name = "DATE")]
    until: Option<Day>,
    /// Write the statement here, for those who trust the root
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
}

#[derive(Debug, clap::Args)]
pub struct RotateArgs {
    /// Which key of this home
    #[arg(default_value = keys::DEFAULT_KEY)]
    name: String,
    /// Write the statement here, for those who trust the old key
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
}

#[derive(Debug, clap::Args)]
pub struct RevokeArgs {
    /// A key of this home by its name or a key file; with `--root` any key that the root named
    #[arg(value_name = "NAME|FILE|KEY")]
    key: String,
    /// The root that takes back what it named: a key of this home by its name, or a key file
    #[arg(long, value_name = "NAME|FILE")]
    root: Option<String>,
    /// Write the statement here, for those who trust the key or the root
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
}

pub fn delegate(context: &Context, args: &DelegateArgs) -> CmdResult {
    let root = secret(context, &args.root)?;
    let statement = KeyStatement::Delegation {
        root: root.public(),
        key: args.key,
        scope: Scope::new(args.patterns.clone()),
        until_unix_secs: args.until.map(Day::end_unix_secs),
    };
    publish(context, statement, &[&root], &args.output)
}

/// The new key is there before anybody is told of it, and the old one stays as a key of this home: what it signed here remains
/// one's own. When this is interrupted, it can be done again.
pub fn rotate(context: &Context, args: &RotateArgs) -> CmdResult {
    let home = context.home()?;
    let _lock = home.lock("keys")?;
    let old = secret_of_home(context, &args.name)?;
    let next = format!("{}.next", args.name);
    let (new, _) = keys::create_key(home, &next)?;
    let statement = KeyStatement::Rotation {
        old: old.public(),
        new: new.public(),
    };
    publish(context, statement, &[&old, &new], &args.output)?;
    let digits = old.public().to_string();
    let short = digits.rsplit(':').next().unwrap_or_default();
    let kept = format!("{}.{}", args.name, &short[..8.min(short.len())]);
    keys::rename_key(home, &args.name, &kept)?;
    keys::rename_key(home, &next, &args.name)?;
    context.ui.status(format!(
        "`{}` signs with the new key from now on; the old one is kept as `{kept}`",
        sanitize::line(&args.name)
    ));
    context.ui.status(
        "a root that had named the old key must name the new one, and what the old key named itself must be named again",
    );
    context.ui.data(new.public())
}

pub fn revoke(context: &Context, args: &RevokeArgs) -> CmdResult {
    let (key, by) = match &args.root {
        Some(root) => (key_called(context, &args.key)?, secret(context, root)?),
        None => {
            let own = secret(context, &args.key)?;
            (own.public(), own)
        }
    };
    let statement = KeyStatement::Revocation {
        key,
        by: by.public(),
    };
    publish(context, statement, &[&by], &args.output)?;
    // Nothing more is to be signed with it.
    for own in keys::own_keys(context.home()?)? {
        if args.root.is_none() && own.key.public() == key {
            let put_away = keys::put_away(context.home()?, &own.name)?;
            context.ui.status(format!(
                "the secret half is put away as `{}`",
                put_away.display()
            ));
        }
    }
    Ok(())
}

pub fn import(context: &Context, files: &[PathBuf]) -> CmdResult {
    let mut read = Vec::new();
    for file in files {
        read.extend(statements::read_named(file)?);
    }
    let new = statements::add(context.home()?, &read)?;
    let known = read.len() - new.len();
    for signed in &new {
        context.ui.data(statements::in_words(signed))?;
    }
    if known > 0 {
        context.ui.status(format!(
            "{} known already",
            crate::units::count(known, "statement")
        ));
    }
    Ok(())
}

pub fn export(context: &Context, keys: &[String], output: &Path) -> CmdResult {
    let wanted: CmdResult<Vec<_>> = keys.iter().map(|key| key_called(context, key)).collect();
    let wanted = wanted?;
    let mut found = statements::of_home(context.home()?)?;
    let is_wanted = |signed: &SignedKeyStatement| {
        wanted.is_empty() || wanted.iter().any(|key| statements::concerns(signed, key))
    };
    found.retain(is_wanted);
    if found.is_empty() {
        return Err(Failure::new(
            Exit::NotFound,
            "there are no such statements about keys",
        ));
    }
    statements::write(output, &found)?;
    context.ui.data(output.display())
}

/// Signs a statement, keeps it in the home and writes it where it is handed on from.
fn publish(
    context: &Context,
    statement: KeyStatement,
    keys: &[&SecretKey],
    output: &Path,
) -> CmdResult {
    let signed = statement
        .sign(keys)
        .map_err(|error| Failure::usage(error.to_string()))?;
    statements::add(context.home()?, std::slice::from_ref(&signed))?;
    statements::write(output, std::slice::from_ref(&signed))?;
    context.ui.status(statements::in_words(&signed));
    context
        .ui
        .status("others take it in after they have the file:");
    context
        .ui
        .status(format!("  p2pkgs key import {}", output.display()));
    Ok(())
}

/// A secret key of this home, or of a file elsewhere: a path has a slash in it.
fn secret(context: &Context, text: &str) -> CmdResult<SecretKey> {
    if !text.contains('/') {
        return secret_of_home(context, text);
    }
    let path = Path::new(text);
    keys::key_in_file(path)?.ok_or_else(|| {
        let message = format!("there is no key file `{}`", path.display());
        Failure::new(Exit::NotFound, message)
    })
}

fn secret_of_home(context: &Context, name: &str) -> CmdResult<SecretKey> {
    keys::own_key(context.home()?, name)?.ok_or_else(|| {
        let name = sanitize::line(name);
        Failure::new(
            Exit::NotFound,
            format!("there is no key `{name}` in this home"),
        )
        .hint("`p2pkgs key list` shows its keys; a key file elsewhere is named by its path")
    })
}

/// A public key, written out, or one of this home or of those trusted by its name.
fn key_called(context: &Context, text: &str) -> CmdResult<PublicKey> {
    if let Ok(key) = text.parse() {
        return Ok(key);
    }
    let home = context.home()?;
    if let Some(own) = keys::own_keys(home)?.iter().find(|own| own.name == text) {
        return Ok(own.key.public());
    }
    let trusted = TrustFile::read(home)?.keys;
    let called = trusted
        .iter()
        .find(|known| known.name.as_deref() == Some(text));
    called.map(|known| known.key).ok_or_else(|| {
        let text = sanitize::line(text);
        Failure::usage(format!("`{text}` is neither a key nor the name of one"))
    })
}
