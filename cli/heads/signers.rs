//! Who may sign the heads of a tree: a rule of its own, which the user gave for this tree.
//!
//! It is not the rule for outputs. Whoever chooses the recipes chooses what is built, so nobody may do that only because he
//! is believed in what he has built. Keys that the rule writes out need not be trusted for outputs.

use trust::{Discount, Member, Ring, Rule, SignedHead, TrustPolicy};

use crate::bench::unix_secs;
use crate::context::Context;
use crate::error::{CmdResult, Exit, Failure};
use crate::keys;
use crate::sanitize;
use crate::statements;
use crate::trust_file::TrustFile;

/// The rule where the user gave none: his own keys.
pub const OWN: &str = "own";

/// The policy that a rule makes with the keys this home knows.
///
/// # Errors
/// A usage error when the rule cannot be used, others when keys cannot be read.
pub fn policy(context: &Context, rule: &str) -> CmdResult<TrustPolicy> {
    let cannot = |error: trust::RuleError| {
        let failure = Failure::from(error).exit_with(Exit::Usage);
        failure
            .context("the rule of `--signers` cannot be used")
            .hint("`--signers ed25519:…` names a key, `--signers '2 of {alice, bob, carol}'` trusted ones")
    };
    let rule: Rule = rule.parse().map_err(cannot)?;
    let home = context.home()?;
    let configured = context.config()?.trust()?.keys.into_iter();
    let mut members = TrustFile::read(home)?.keys;
    members.extend(configured.chain(rule.keys()).map(Member::new));
    let own = keys::own_keys(home)?;
    let ring = Ring {
        own: own.iter().map(|own| own.key.public()).collect(),
        members,
        statements: statements::of_home(home)?,
    };
    TrustPolicy::of(&ring, &rule, unix_secs()).map_err(cannot)
}

/// Checks that enough of the right keys signed.
///
/// # Errors
/// Exit code 4, with who signed and why it does not count.
pub fn check(policy: &TrustPolicy, rule: &str, signed: &SignedHead) -> CmdResult {
    let (is_enough, said) = policy.judge_signers(signed.signers());
    if is_enough {
        return Ok(());
    }
    let head = signed.head();
    let line = |(key, discount): &(base::PublicKey, Option<Discount>)| {
        let name = policy.name(key).map_or(String::new(), |n| format!("{n} "));
        let why = discount.as_ref().map_or(String::new(), |why| {
            format!(", which does not count: {why}")
        });
        sanitize::line(&format!("{name}{key} signed{why}"))
    };
    let mut lines = vec![format!("the rule is: {}", sanitize::line(rule))];
    lines.extend(said.iter().map(line));
    let message = format!(
        "revision {} of the tree `{}` is not signed by those whom you named",
        head.revision, head.name
    );
    Err(Failure::new(Exit::Mismatch, message)
        .detail(lines)
        .hint("`--signers RULE` names those who may sign this tree"))
}
