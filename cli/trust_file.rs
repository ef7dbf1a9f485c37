//! Whom we believe: `trust.rec` of the home directory, and the policy that follows from it, from own keys and from the
//! configuration.
//!
//! ```text
//! rule: 2 of {alice, bob, 1 of {ci-1, ci-2}}      or `threshold: 2`, or neither: one trusted key is enough
//!
//! key: ed25519:…
//! name: alice
//! for: gcc-*                                      any number of times; without it the key counts for all packages
//! until: 2027-01-31                               the last day on which it counts
//! ```

use std::fs;
use std::io;

use base::rec::{self, Record};
use trust::{Day, Member, Pattern, Ring, Rule, Scope, SignedKeyStatement, TrustPolicy};

use crate::error::{CmdResult, Exit, Failure};
use crate::home::{FileLock, Home, write_atomically};
use crate::keys::{OwnKey, reading, writing};

/// What a record may say of a key, and what the one about all of them may say.
const KEY_FIELDS: &[&str] = &["key", "name", "for", "until"];
const RULE_FIELDS: &[&str] = &["rule", "threshold"];

/// What `trust.rec` says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustFile {
    /// How many signers must agree, if the user decided.
    pub threshold: Option<usize>,
    /// A rule in place of the threshold. It is text, so that a rule that cannot be understood keeps nobody from setting
    /// another one.
    pub rule: Option<String>,
    /// Whom we believe.
    pub keys: Vec<Member>,
}

impl TrustFile {
    /// What `trust.rec` says; an empty one if there is none.
    ///
    /// # Errors
    /// When it cannot be read or understood: a damaged list of whom to believe is never guessed at.
    pub fn read(home: &Home) -> CmdResult<Self> {
        let path = home.path("trust.rec");
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(reading(&path)(error)),
        };
        parse(&bytes).map_err(|f| f.context(format!("cannot read `{}`", path.display())))
    }

    /// Keeps other commands from changing it until the lock is dropped.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn lock(home: &Home) -> CmdResult<FileLock> {
        home.lock("trust.rec")
    }

    /// Replaces `trust.rec`.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn write(&self, home: &Home) -> CmdResult {
        home.create()?;
        let path = home.path("trust.rec");
        write_atomically(&path, &print(self), 0o600).map_err(writing(&path))
    }

    /// The rule that holds: this file's, else the threshold of the configuration.
    ///
    /// # Errors
    /// When it cannot be understood.
    pub fn rule(&self, config: &netconfig::Trust) -> CmdResult<Rule> {
        match &self.rule {
            Some(text) => text.parse().map_err(cannot_be_used),
            None => Ok(Rule::Flat(self.threshold.unwrap_or(config.threshold))),
        }
    }

    /// The policy out of own keys, this file, what keys said of keys, and the configuration.
    ///
    /// # Errors
    /// When the rule cannot be used with these keys.
    pub fn policy(
        &self,
        own: &[OwnKey],
        statements: Vec<SignedKeyStatement>,
        config: &netconfig::Trust,
        now_unix_secs: u64,
    ) -> CmdResult<TrustPolicy> {
        let configured = config.keys.iter().copied().map(Member::new);
        let ring = Ring {
            own: own.iter().map(|own| own.key.public()).collect(),
            members: self.keys.iter().cloned().chain(configured).collect(),
            statements,
        };
        TrustPolicy::of(&ring, &self.rule(config)?, now_unix_secs).map_err(cannot_be_used)
    }
}

fn cannot_be_used(error: trust::RuleError) -> Failure {
    Failure::from(error)
        .exit_with(Exit::Usage)
        .context("the rule of `p2pkgs key policy` cannot be used")
        .hint("`p2pkgs key list` shows who is trusted, `p2pkgs key policy RULE` sets another rule")
}

fn parse(bytes: &[u8]) -> CmdResult<TrustFile> {
    let mut trust = TrustFile::default();
    for record in rec::parse(bytes)? {
        let line = record.line();
        // A limit that is spelled wrong would be no limit.
        let about_key = record.get("key").is_some();
        let known = if about_key { KEY_FIELDS } else { RULE_FIELDS };
        if let Some(field) = record.fields.iter().find(|f| !known.contains(&&*f.name)) {
            let message = format!("line {}: `{}` does not belong here", field.line, field.name);
            return Err(Failure::new(Exit::Other, message));
        }
        if let Some(text) = record.get("rule") {
            trust.rule = Some(text.to_owned());
        } else if let Some(text) = record.get("threshold") {
            let threshold = text.parse().ok().filter(|t| *t > 0);
            trust.threshold = Some(threshold.ok_or_else(|| bad_line(line, "threshold"))?);
        } else {
            trust.keys.push(member(&record)?);
        }
    }
    Ok(trust)
}

fn member(record: &Record) -> CmdResult<Member> {
    let line = record.line();
    let at = |failure: Failure| failure.context(format!("line {line}"));
    let text = record.get("key").ok_or_else(|| bad_line(line, "key"))?;
    let key = text.parse();
    let key = key.map_err(|e: base::KeyError| at(Failure::from(e)))?;
    let patterns: Result<Vec<Pattern>, _> = record.all("for").map(str::parse).collect();
    let until: Result<Option<Day>, _> = record.get("until").map(str::parse).transpose();
    Ok(Member {
        key,
        name: record.get("name").map(str::to_owned),
        scope: Scope::new(patterns.map_err(|e| at(Failure::from(e)))?),
        until: until.map_err(|e| at(Failure::from(e)))?,
    })
}

fn bad_line(line: usize, field: &str) -> Failure {
    Failure::new(Exit::Other, format!("line {line}: no usable `{field}`"))
}

fn print(trust: &TrustFile) -> String {
    let mut records = Vec::new();
    let mut how_many = Record::default();
    match (&trust.rule, trust.threshold) {
        (Some(rule), _) => how_many.push("rule", rule.as_str()),
        (None, Some(threshold)) => how_many.push("threshold", threshold.to_string()),
        (None, None) => {}
    }
    if !how_many.fields.is_empty() {
        records.push(how_many);
    }
    for trusted in &trust.keys {
        let mut record = Record::default();
        record.push("key", trusted.key.to_string());
        if let Some(name) = &trusted.name {
            record.push("name", name.as_str());
        }
        for pattern in trusted.scope.patterns() {
            record.push("for", pattern.as_str());
        }
        if let Some(until) = trusted.until {
            record.push("until", until.to_string());
        }
        records.push(record);
    }
    format!(
        "# Builder keys this user believes, kept by `p2pkgs key trust`.\n\n{}",
        rec::print(&records)
    )
}

#[cfg(test)]
mod tests {
    use base::SecretKey;

    use super::*;
    use crate::keys::tests::home;
    use crate::keys::{create_key, own_keys};

    #[test]
    fn the_trust_file_survives_and_a_damaged_one_is_an_error_with_its_line() {
        let (_dir, home) = home();
        assert_eq!(TrustFile::read(&home).unwrap(), TrustFile::default());
        let key = SecretKey::from_seed(&[3; 32]).public();
        let ann = Member {
            key,
            name: Some("ann".into()),
            scope: Scope::new(vec!["gcc-*".parse().unwrap(), "make".parse().unwrap()]),
            until: Some("2027-01-31".parse().unwrap()),
        };
        for (threshold, rule) in [(Some(2), None), (None, Some("1 of {ann}".to_owned()))] {
            let keys = vec![ann.clone()];
            let trust = TrustFile {
                threshold,
                rule,
                keys,
            };
            trust.write(&home).unwrap();
            assert_eq!(TrustFile::read(&home).unwrap(), trust);
        }
        for (field, says) in [
            ("key: ed25519:00", "line 1"),
            ("name: ann", "line 1: `name` does not belong here"),
            ("threshold: 0", "line 1: no usable `threshold`"),
            (
                "threshold: 1\nuntill: soon",
                "line 2: `untill` does not belong here",
            ),
            ("rule: ann\nkey: x", "line 1: `rule` does not belong here"),
        ] {
            fs::write(home.path("trust.rec"), format!("{field}\n")).unwrap();
            let message = TrustFile::read(&home).unwrap_err().message();
            assert!(message.contains(says), "{message}");
        }
        for (field, says) in [("for: A", "pattern"), ("until: soon", "2027-01-31")] {
            fs::write(home.path("trust.rec"), format!("\nkey: {key}\n{field}\n")).unwrap();
            let message = TrustFile::read(&home).unwrap_err().message();
            let is_said = message.contains("line 2") && message.contains(says);
            assert!(is_said, "{message}");
        }
    }

    #[test]
    fn own_keys_count_without_being_listed() {
        let (_dir, home) = home();
        let (own, _) = create_key(&home, "default").unwrap();
        let config = netconfig::Trust {
            threshold: 1,
            keys: Vec::new(),
        };
        let own_keys = own_keys(&home).unwrap();
        let policy = TrustFile::default()
            .policy(&own_keys, Vec::new(), &config, 0)
            .unwrap();
        assert_eq!(policy.keys().collect::<Vec<_>>(), [&own.public()]);
        assert_eq!(policy.threshold(), 1);
    }
}
