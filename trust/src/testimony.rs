//! Who said what, and why it counts or does not: what a user is shown when something is stopped.

use std::fmt;

use base::{PublicKey, Sha256};

use crate::{Day, Scope};

/// What a key signed about a package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Testimony {
    /// Who signed.
    pub signer: PublicKey,
    /// What the user calls the signer.
    pub name: Option<String>,
    /// SHA-256 of the output.
    pub sha256: Sha256,
    /// Size of the output in bytes.
    pub size: u64,
    /// Why it does not count, if it does not.
    pub discount: Option<Discount>,
}

/// Why what a key signed does not count.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Discount {
    /// Nobody named the key.
    Stranger,
    /// The key is trusted, but the rule does not name it.
    NotInRule,
    /// The key is trusted for other packages.
    OutOfScope(Scope),
    /// The time for which it was trusted is over; the last day, where the calendar has one.
    Expired(Option<Day>),
    /// It signed another output of the same package, too.
    Fault,
    /// It was revoked.
    Revoked,
    /// It was replaced by another key.
    ReplacedBy(PublicKey),
    /// It said of two different keys that they replace it.
    Torn,
    /// Another key named it, for outputs only, and this is a head.
    OutputsOnly,
}

impl fmt::Display for Discount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stranger => f.write_str("it is not trusted"),
            Self::NotInRule => f.write_str("the rule does not name it"),
            Self::OutOfScope(scope) => write!(f, "it is trusted for {scope}"),
            Self::Expired(Some(day)) => write!(f, "it was trusted until {day}"),
            Self::Expired(None) => f.write_str("the time for which it was trusted is over"),
            Self::Revoked => f.write_str("it was revoked"),
            Self::ReplacedBy(new) => write!(f, "it was replaced by {new}"),
            Self::Torn => f.write_str("it said of two different keys that they replace it"),
            Self::OutputsOnly => f.write_str("another key named it, and that is for outputs only"),
            Self::Fault => f.write_str("it signed different outputs of this package"),
        }
    }
}

impl fmt::Display for Testimony {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(name) = &self.name {
            write!(f, "{name} ")?;
        }
        let Self {
            signer,
            sha256,
            size,
            ..
        } = self;
        write!(f, "{signer} signed {sha256} ({size} bytes)")?;
        match &self.discount {
            Some(why) => write!(f, ", which does not count: {why}"),
            None => Ok(()),
        }
    }
}
