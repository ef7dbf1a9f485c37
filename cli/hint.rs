//! What to do about an error: lines with the exact command, found by looking through the chain of causes.

use std::error::Error;
use std::path::Path;

use base::{PackageName, PublicKey};
use builder::{BuildFailure, SandboxUnavailable};
use store::StoreError;
use trust::{Discount, Testimony};

use crate::sanitize;

/// Characters of a log's line that are shown.
const LINE_CHARACTERS_MAX: usize = 400;
/// Statements that are shown; what counts comes first, and strangers can make as many as they like.
const TESTIMONIES_SHOWN_MAX: usize = 20;

/// The hints for an error, most helpful first.
pub fn hints(error: &anyhow::Error) -> Vec<String> {
    error.chain().flat_map(hints_of_cause).collect()
}

/// Lines to show before the error: the end of a build's log, the differences of two builds, who signed what.
pub fn details(error: &anyhow::Error) -> Vec<String> {
    error.chain().find_map(details_of_cause).unwrap_or_default()
}

fn hints_of_cause(cause: &(dyn Error + 'static)) -> Vec<String> {
    if let Some(error) = cause.downcast_ref::<recipe::Error>() {
        return error.hint().into_iter().collect();
    }
    if let Some(error) = cause.downcast_ref::<builder::Error>() {
        return hints_of_builder(error);
    }
    // A transparent error is no cause of its own: its text is that of what it holds.
    if let Some(bootstrap::Error::Build(error)) = cause.downcast_ref() {
        return hints_of_builder(error);
    }
    if let Some(unavailable) = cause.downcast_ref::<SandboxUnavailable>() {
        return hints_of_sandbox(unavailable);
    }
    match cause.downcast_ref::<StoreError>() {
        Some(StoreError::Busy { .. }) => vec!["try again when the other process is done".into()],
        Some(StoreError::DiskFull { .. }) => {
            vec![
                "`p2pkgs gc` frees what is not pinned; or free some space, or name another `--home DIR`".into(),
            ]
        }
        Some(StoreError::QuotaExceeded { .. }) => vec![
            "`p2pkgs pin` lists what is pinned, `p2pkgs unpin NAME` lets it go".into(),
            "or raise `quota` in the section `[store]` of the configuration".into(),
        ],
        _ => Vec::new(),
    }
}

fn hints_of_builder(error: &builder::Error) -> Vec<String> {
    match error {
        builder::Error::Untrusted {
            package, signers, ..
        } => hints_of_untrusted(package.as_str(), signers),
        builder::Error::TooFewSigners { rule: Some(_), .. } => {
            vec!["`p2pkgs key policy RULE` sets another rule".into()]
        }
        builder::Error::TooFewSigners { .. } => vec![
            "trust more of its signers with `p2pkgs key trust KEY`, or ask for fewer with \
             `p2pkgs key trust --threshold K`"
                .into(),
        ],
        builder::Error::Conflict { package, .. } => vec![
            "stop believing one of them: `p2pkgs key untrust KEY`".into(),
            format!("or build it yourself: `p2pkgs build --no-substitutes {package}`"),
        ],
        builder::Error::Missing { package, .. } => {
            vec![format!("`p2pkgs build {package}` builds it from source")]
        }
        builder::Error::BuildFailed(failure) => hints_of_build(failure),
        builder::Error::CheckFailed(failure) => {
            let mut hints = vec![format!("the whole log is `{}`", failure.log.display())];
            if failure.kept.is_some() {
                hints.extend(hints_of_scratch(&failure.package, failure.kept.as_deref()));
            }
            hints
        }
        builder::Error::Output { package, kept, .. } => hints_of_scratch(package, kept.as_deref()),
        builder::Error::NotKept { .. } => {
            vec!["`p2pkgs build --keep-failed PKG` leaves such a directory, and says where".into()]
        }
        builder::Error::Incomplete { package, .. } => vec![format!(
            "name in `pkg/{package}/run-deps` what it needs, or remove the file at the end of its `build`"
        )],
        builder::Error::NoProgram { package, .. } => {
            vec![format!(
                "install the package `{package}` of your distribution"
            )]
        }
        builder::Error::NotReproducible { package, .. } => {
            vec![format!(
                "`p2pkgs log {package}` shows the log of the first build"
            )]
        }
        // Transparent, too.
        builder::Error::SandboxUnavailable(unavailable) => hints_of_sandbox(unavailable),
        _ => Vec::new(),
    }
}

fn hints_of_untrusted(package: &str, signers: &[PublicKey]) -> Vec<String> {
    let mut hints: Vec<_> = signers
        .iter()
        .map(|key| format!("if you believe its builder: `p2pkgs key trust {key}`"))
        .collect();
    hints.push(format!(
        "or build it yourself: `p2pkgs build --no-substitutes {package}`"
    ));
    hints
}

fn hints_of_sandbox(unavailable: &SandboxUnavailable) -> Vec<String> {
    let setting = unavailable
        .setting
        .iter()
        .map(|setting| format!("found `{setting}`"));
    setting.chain(unavailable.fix.iter().cloned()).collect()
}

fn hints_of_build(failure: &BuildFailure) -> Vec<String> {
    let mut hints = vec![format!("the whole log is `{}`", failure.log.display())];
    hints.extend(hints_of_scratch(&failure.package, failure.kept.as_deref()));
    hints
}

/// How to look around where a build failed.
fn hints_of_scratch(package: &PackageName, kept: Option<&Path>) -> Vec<String> {
    match kept {
        Some(kept) => vec![
            format!("its scratch directory is kept in `{}`", kept.display()),
            format!("`p2pkgs shell {}` opens a shell in it", kept.display()),
        ],
        None => vec![format!(
            "`p2pkgs build --shell-on-failure {package}` opens a shell where it failed, `--keep-failed` leaves its scratch directory"
        )],
    }
}

fn details_of_cause(cause: &(dyn Error + 'static)) -> Option<Vec<String>> {
    let clean = |lines: &[String]| Some(lines.iter().map(|line| sanitize::line(line)).collect());
    match cause.downcast_ref() {
        Some(bootstrap::Error::Build(error)) => return details_of_builder(error),
        Some(
            bootstrap::Error::NotReproducible { differences, .. }
            | bootstrap::Error::NoFixedPoint { differences, .. },
        ) => return clean(differences),
        _ => {}
    }
    details_of_builder(cause.downcast_ref()?)
}

fn details_of_builder(error: &builder::Error) -> Option<Vec<String>> {
    match error {
        builder::Error::BuildFailed(failure) | builder::Error::CheckFailed(failure) => {
            let lines = failure.last_lines.iter();
            Some(
                lines
                    .map(|line| sanitize::bytes(line, LINE_CHARACTERS_MAX))
                    .collect(),
            )
        }
        builder::Error::Conflict { testimonies, .. } => Some(told(testimonies)),
        // Strangers are in the hints already; whom the user knows is shown with the reason why it does not count.
        builder::Error::Untrusted { testimonies, .. } => {
            let known = |said: &&Testimony| said.discount != Some(Discount::Stranger);
            Some(told(testimonies.iter().filter(known)))
        }
        builder::Error::TooFewSigners {
            rule, testimonies, ..
        } => {
            let rule = rule.iter().map(|rule| format!("the rule is: {rule}"));
            Some(rule.chain(told(testimonies)).collect())
        }
        builder::Error::NotReproducible {
            differences,
            explained,
            ..
        } => Some(
            differences
                .iter()
                .map(|line| sanitize::line(line))
                .chain(
                    explained
                        .iter()
                        .map(|line| sanitize::bytes(line.as_bytes(), LINE_CHARACTERS_MAX)),
                )
                .collect(),
        ),
        builder::Error::Incomplete { missing: lines, .. } => {
            Some(lines.iter().map(|line| sanitize::line(line)).collect())
        }
        _ => None,
    }
}

/// Who said what, one line each.
fn told<'a>(testimonies: impl IntoIterator<Item = &'a Testimony>) -> Vec<String> {
    let said = testimonies.into_iter().take(TESTIMONIES_SHOWN_MAX);
    said.map(|said| sanitize::line(&said.to_string())).collect()
}
