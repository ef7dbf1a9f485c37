//! Whom a running command believes, and the one place where it learns more: statements about keys come along with packages, from
//! caches, gateways, peers and bundles, and what is kept of them is decided here, by [`trust::Intake`].

use base::PublicKey;
use trust::{Intake, LivePolicy, Ring, SignedKeyStatement, TrustPolicy};

use crate::bench::unix_secs;
use crate::error::CmdResult;
use crate::home::Home;
use crate::interrupt::Interrupt;
use crate::keys::{self, OwnKey};
use crate::sanitize;
use crate::statements::{self, FILE};
use crate::trust_file::TrustFile;
use crate::ui::Ui;

/// The policy out of own keys, `trust.rec`, what keys said of keys, and the configuration; one that believes strangers whom nobody
/// contradicts, if `anyone`.
///
/// # Errors
/// When one of these cannot be read.
pub fn policy(home: &Home, config: &netconfig::Trust, anyone: bool) -> CmdResult<TrustPolicy> {
    let own = keys::own_keys(home)?;
    let said = statements::of_home(home)?;
    let policy = TrustFile::read(home)?.policy(&own, said, config, unix_secs())?;
    Ok(if anyone { policy.or_anyone() } else { policy })
}

/// Whom a command believes.
#[derive(Debug)]
pub struct Believer {
    home: Home,
    config: netconfig::Trust,
    anyone: bool,
    ui: Ui,
    interrupt: Interrupt,
    live: LivePolicy,
}

impl Believer {
    /// The user's policy.
    ///
    /// # Errors
    /// As [`policy`].
    pub fn new(
        home: &Home,
        config: netconfig::Trust,
        anyone: bool,
        ui: &Ui,
        interrupt: &Interrupt,
    ) -> CmdResult<Self> {
        Ok(Self {
            live: policy(home, &config, anyone)?.into(),
            home: home.clone(),
            config,
            anyone,
            ui: ui.clone(),
            interrupt: interrupt.clone(),
        })
    }

    /// The policy, which what is taken in changes.
    pub const fn live(&self) -> &LivePolicy {
        &self.live
    }

    /// Whether what a key says of outputs counts now.
    pub fn counts(&self, key: &PublicKey) -> bool {
        self.live.now().counts(key)
    }

    /// Where the user prints.
    pub const fn ui(&self) -> &Ui {
        &self.ui
    }

    /// Whether the user wants the command to stop.
    pub fn is_interrupted(&self) -> bool {
        self.interrupt.is_set()
    }

    /// Takes in what somebody handed on of statements about keys, as far as it concerns keys that have a place, and tells of what is
    /// new. Whoever it was, it can fail nothing.
    pub fn take_in(&self, from: &str, offered: &[SignedKeyStatement]) {
        if offered.is_empty() {
            return;
        }
        if let Err(failure) = self.try_take_in(from, offered) {
            let what = format!("statements about keys from {from} cannot be kept");
            self.ui.warn(failure.context(what).message());
        }
    }

    fn try_take_in(&self, from: &str, offered: &[SignedKeyStatement]) -> CmdResult {
        let known = statements::of_home(&self.home)?;
        if offered.iter().all(|signed| known.contains(signed)) {
            return Ok(());
        }
        let _lock = self.home.lock(FILE)?;
        let ring = self.ring()?;
        let Intake { kept, new, torn } = Intake::of(&ring, offered, unix_secs());
        let from = sanitize::line(from);
        for signed in &torn {
            let words = statements::in_words(signed);
            self.ui.warn(format!(
                "{from} says that {words}, but it was replaced by another key before: ask its owner"
            ));
        }
        if new.is_empty() {
            return Ok(());
        }
        statements::write(&self.home.path(FILE), &kept)?;
        for signed in &new {
            let words = statements::in_words(signed);
            self.ui.status(format!("learned from {from}: {words}"));
        }
        self.live
            .replace(policy(&self.home, &self.config, self.anyone)?);
        Ok(())
    }

    fn ring(&self) -> CmdResult<Ring> {
        let configured = self.config.keys.iter().copied().map(trust::Member::new);
        let own = keys::own_keys(&self.home)?;
        let public = |own: &OwnKey| own.key.public();
        let members = TrustFile::read(&self.home)?.keys.into_iter();
        Ok(Ring {
            own: own.iter().map(public).collect(),
            members: members.chain(configured).collect(),
            statements: statements::of_home(&self.home)?,
        })
    }
}
