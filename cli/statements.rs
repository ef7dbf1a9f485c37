//! Statements about keys that this home knows: the file `key-statements`, in the form in which they are handed on.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use base::PublicKey;
use trust::{KeyStatement, STATEMENT_BYTES_MAX, STATEMENTS_MAX, SignedKeyStatement};

use crate::error::{CmdResult, Exit, Failure};
use crate::home::{Home, write_bytes_atomically};
use crate::keys::{reading, writing};

/// The file's name, in a home and in a package cache.
pub const FILE: &str = "key-statements";

/// Longest such file in bytes.
pub const BYTES_MAX: usize = STATEMENT_BYTES_MAX * STATEMENTS_MAX;

/// All statements of a home; none if there is no file.
///
/// # Errors
/// When the file cannot be read or understood: what was said of keys is never guessed at.
pub fn of_home(home: &Home) -> CmdResult<Vec<SignedKeyStatement>> {
    let path = home.path(FILE);
    if path.exists() {
        read(&path)
    } else {
        Ok(Vec::new())
    }
}

/// The statements of a file.
///
/// # Errors
/// When it cannot be read, or one of them is not what it has to be; exit code 4 then.
pub fn read(path: &Path) -> CmdResult<Vec<SignedKeyStatement>> {
    let mut bytes = Vec::new();
    let longest = BYTES_MAX + 1;
    let file = File::open(path).map_err(reading(path))?;
    file.take(longest as u64)
        .read_to_end(&mut bytes)
        .map_err(reading(path))?;
    SignedKeyStatement::parse_file(&bytes).map_err(|error| {
        Failure::from(error)
            .exit_with(Exit::Mismatch)
            .context(format!("`{}` cannot be used", path.display()))
    })
}

/// Writes statements where they are handed on from.
///
/// # Errors
/// When the disk fails.
pub fn write(path: &Path, statements: &[SignedKeyStatement]) -> CmdResult {
    let bytes = SignedKeyStatement::print_file(statements);
    write_bytes_atomically(path, &bytes, 0o644).map_err(writing(path))
}

/// Adds statements to those of the home; returns those that are new.
///
/// # Errors
/// When there are too many, when a key would be rotated to two others (exit code 4: the first is kept), or the disk fails.
pub fn add(home: &Home, statements: &[SignedKeyStatement]) -> CmdResult<Vec<SignedKeyStatement>> {
    let _lock = home.lock(FILE)?;
    let mut known = of_home(home)?;
    let mut new = Vec::new();
    for signed in statements {
        if known.contains(signed) {
            continue;
        }
        refuse_second_successor(&known, signed)?;
        known.push(signed.clone());
        new.push(signed.clone());
    }
    if known.len() > STATEMENTS_MAX {
        return Err(Failure::new(
            Exit::Other,
            format!("a home keeps at most {STATEMENTS_MAX} statements about keys"),
        ));
    }
    if !new.is_empty() {
        write(&home.path(FILE), &known)?;
    }
    Ok(new)
}

/// Whoever has an old key can name one more successor, so what was known first stays.
fn refuse_second_successor(known: &[SignedKeyStatement], signed: &SignedKeyStatement) -> CmdResult {
    let KeyStatement::Rotation { old, new } = signed.statement() else {
        return Ok(());
    };
    for other in known {
        match other.statement() {
            KeyStatement::Rotation {
                old: same,
                new: first,
            } if same == old => {
                let message = format!("{old} was rotated to {first} already, and now to {new}");
                return Err(Failure::new(Exit::Mismatch, message)
                    .hint("ask its owner; `p2pkgs key untrust KEY` stops believing it"));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Whether a statement is about a key.
pub fn concerns(signed: &SignedKeyStatement, key: &PublicKey) -> bool {
    match signed.statement() {
        KeyStatement::Delegation {
            root: a, key: b, ..
        }
        | KeyStatement::Rotation { old: a, new: b }
        | KeyStatement::Revocation { key: a, by: b } => a == key || b == key,
    }
}

/// A statement in words.
pub fn in_words(signed: &SignedKeyStatement) -> String {
    match signed.statement() {
        KeyStatement::Delegation {
            root,
            key,
            scope,
            until_unix_secs,
        } => {
            let until = until_unix_secs.map_or(String::new(), |until| {
                trust::Day::before(until).map_or(String::new(), |day| format!(" until {day}"))
            });
            format!("{root} delegates to {key} for {scope}{until}")
        }
        KeyStatement::Rotation { old, new } => format!("{old} is replaced by {new}"),
        KeyStatement::Revocation { key, by } if key == by => format!("{key} is revoked"),
        KeyStatement::Revocation { key, by } => format!("{by} revokes {key}"),
    }
}

/// A missing file is a miss, as everywhere.
pub fn read_named(path: &Path) -> CmdResult<Vec<SignedKeyStatement>> {
    match path.metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Failure::new(
            Exit::NotFound,
            format!("there is no file `{}`", path.display()),
        )),
        _ => read(path),
    }
}
