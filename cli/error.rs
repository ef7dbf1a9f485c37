//! From library errors to what the user sees: a chain of causes, hints with the command to run, an exit code.
//!
//! The exit codes are a contract (`cli.md`): scripts branch on them. Which one an error gets is decided in one place,
//! by looking through its chain of causes for the library error that says most, so that wrapping changes nothing.

use std::error::Error;
use std::fmt;
use std::io;
use std::path::Path;

use builder::ErrorKind;
use netconfig::ConfigError;
use store::StoreError;
use store::substitute::{FetchError, QueryError};

use crate::hint;

/// How a command can end, as the number the shell sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Ok = 0,
    /// Failed for a reason that has no code of its own.
    Other = 1,
    /// The command line cannot be understood.
    Usage = 2,
    /// Nobody has it.
    NotFound = 3,
    /// Bytes or signatures are not what they should be, or nobody trusted vouches for them.
    Mismatch = 4,
    /// A build failed.
    BuildFailed = 5,
    /// A second build gave other bytes.
    NotReproducible = 6,
    /// The network cannot be reached, or a deadline passed.
    Network = 7,
    /// This machine cannot sandbox builds.
    Sandbox = 8,
    /// Another process holds what is needed.
    Busy = 9,
    /// No space left.
    DiskFull = 10,
    /// A bug in this program.
    Bug = 70,
    /// Stopped by the user.
    Interrupted = 130,
}

impl Exit {
    /// The code of that number, among those that a build can end with on its own account.
    pub fn of_build(code: u8) -> Option<Self> {
        let all = [
            Self::NotFound,
            Self::Mismatch,
            Self::BuildFailed,
            Self::Network,
            Self::Sandbox,
            Self::Busy,
            Self::DiskFull,
        ];
        all.into_iter().find(|exit| *exit as u8 == code)
    }
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a command did not succeed.
#[derive(Debug)]
pub struct Failure {
    exit: Exit,
    error: anyhow::Error,
    /// Lines shown before the error, such as the end of a build's log.
    details: Vec<String>,
    hints: Vec<String>,
}

/// What every command returns.
pub type CmdResult<T = ()> = Result<T, Failure>;

impl Failure {
    /// A failure without a library error behind it.
    pub fn new(
        exit: Exit,
        message: impl fmt::Display + fmt::Debug + Send + Sync + 'static,
    ) -> Self {
        Self {
            exit,
            error: anyhow::Error::msg(message),
            details: Vec::new(),
            hints: Vec::new(),
        }
    }

    /// The command line asks for something that makes no sense.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message.into())
    }

    /// The user pressed ^C.
    pub fn interrupted() -> Self {
        Self::new(Exit::Interrupted, "interrupted")
    }

    /// Puts what was being done in front of the chain of causes.
    #[must_use]
    pub fn context(mut self, doing: impl fmt::Display + Send + Sync + 'static) -> Self {
        self.error = self.error.context(doing);
        self
    }

    /// Adds a hint: what to do, with the exact command.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// Replaces the lines that are shown before the error.
    #[must_use]
    pub fn detail(mut self, lines: Vec<String>) -> Self {
        self.details = lines;
        self
    }

    /// Replaces the exit code.
    #[must_use]
    pub const fn exit_with(mut self, exit: Exit) -> Self {
        self.exit = exit;
        self
    }

    /// How the process ends.
    pub const fn exit(&self) -> Exit {
        self.exit
    }

    /// The error with its causes, to become the cause of another one.
    pub fn into_error(self) -> anyhow::Error {
        self.error
    }

    /// Whether the reader of our output went away, which is no failure of ours.
    pub fn is_broken_pipe(&self) -> bool {
        self.error.chain().any(|cause| {
            cause
                .downcast_ref::<io::Error>()
                .is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
        })
    }

    /// The chain of causes on one line.
    pub fn message(&self) -> String {
        let causes: Vec<_> = self.error.chain().map(ToString::to_string).collect();
        causes.join(": ")
    }

    /// Where the scratch directory of the build that failed is kept, if it is.
    pub fn kept(&self) -> Option<&Path> {
        self.error
            .chain()
            .find_map(|cause| cause.downcast_ref::<builder::Error>()?.kept())
    }

    /// Lines to show before the message.
    pub fn detail_lines(&self) -> &[String] {
        &self.details
    }

    /// What to do about it.
    pub fn hint_lines(&self) -> &[String] {
        &self.hints
    }
}

impl<E: Error + Send + Sync + 'static> From<E> for Failure {
    fn from(error: E) -> Self {
        let error = anyhow::Error::new(error);
        let (details, hints) = (hint::details(&error), hint::hints(&error));
        Self {
            exit: exit_of(&error),
            error,
            details,
            hints,
        }
    }
}

/// The first cause that has an exit code of its own decides.
fn exit_of(error: &anyhow::Error) -> Exit {
    let strong = error.chain().find_map(exit_of_cause);
    strong
        .or_else(|| error.chain().find_map(likely_exit_of_cause))
        .unwrap_or(Exit::Other)
}

/// What it most likely is when nothing in the chain knows better: a fetch that failed in an unforeseen way.
fn likely_exit_of_cause(cause: &(dyn Error + 'static)) -> Option<Exit> {
    let failed = cause.is::<FetchError>() || cause.is::<QueryError>();
    let builder = cause.downcast_ref::<builder::Error>();
    let network = builder.is_some_and(|error| error.kind() == ErrorKind::Network);
    (failed || network).then_some(Exit::Network)
}

fn exit_of_cause(cause: &(dyn Error + 'static)) -> Option<Exit> {
    if let Some(error) = cause.downcast_ref::<StoreError>() {
        return exit_of_store(error);
    }
    if let Some(error) = cause.downcast_ref::<FetchError>() {
        return exit_of_fetch(error);
    }
    if let Some(error) = cause.downcast_ref::<builder::Error>() {
        return exit_of_kind(error.kind());
    }
    if let Some(error) = cause.downcast_ref::<bootstrap::Error>() {
        return exit_of_kind(error.kind());
    }
    if cause.is::<builder::SandboxUnavailable>() {
        return Some(Exit::Sandbox);
    }
    if let Some(recipe::Error::UnknownPackage { place: None, .. }) = cause.downcast_ref() {
        return Some(Exit::Usage);
    }
    if let Some(error) = cause.downcast_ref::<QueryError>() {
        return match error {
            QueryError::TimedOut { .. } => Some(Exit::Network),
            QueryError::Cancelled => Some(Exit::Interrupted),
            _ => None,
        };
    }
    if let Some(error) = cause.downcast_ref::<node::PathError>() {
        return exit_of_path(error);
    }
    if let Some(error) = cause.downcast_ref::<node::ClientError>() {
        return exit_of_client(error);
    }
    if let Some(error) = cause.downcast_ref::<node::NameError>() {
        return exit_of_name(error);
    }
    if let Some(error) = cause.downcast_ref::<store::car::CarError>() {
        return exit_of_car(error);
    }
    if cause.is::<ConfigError>() {
        return Some(Exit::Usage);
    }
    let io = cause.downcast_ref::<io::Error>()?;
    matches!(
        io.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
    .then_some(Exit::DiskFull)
}

const fn exit_of_kind(kind: ErrorKind) -> Option<Exit> {
    match kind {
        ErrorKind::Missing => Some(Exit::NotFound),
        ErrorKind::Mismatch => Some(Exit::Mismatch),
        ErrorKind::BuildFailed => Some(Exit::BuildFailed),
        ErrorKind::NotReproducible => Some(Exit::NotReproducible),
        ErrorKind::SandboxUnavailable => Some(Exit::Sandbox),
        ErrorKind::Busy => Some(Exit::Busy),
        ErrorKind::DiskFull => Some(Exit::DiskFull),
        ErrorKind::Cancelled => Some(Exit::Interrupted),
        // A cause further down may say more.
        _ => None,
    }
}

fn exit_of_store(error: &StoreError) -> Option<Exit> {
    match error {
        StoreError::Busy { .. } => Some(Exit::Busy),
        StoreError::DiskFull { .. } | StoreError::QuotaExceeded { .. } => Some(Exit::DiskFull),
        StoreError::Mismatch { .. } => Some(Exit::Mismatch),
        _ => None,
    }
}

fn exit_of_fetch(error: &FetchError) -> Option<Exit> {
    match error {
        FetchError::Missing { .. } | FetchError::Refused { .. } => Some(Exit::NotFound),
        FetchError::Invalid { .. } => Some(Exit::Mismatch),
        FetchError::TimedOut { .. } => Some(Exit::Network),
        FetchError::Cancelled => Some(Exit::Interrupted),
        // What went wrong below may have a code of its own.
        _ => None,
    }
}

fn exit_of_car(error: &store::car::CarError) -> Option<Exit> {
    use store::car::CarError;
    match error {
        CarError::Missing { .. } => Some(Exit::NotFound),
        CarError::Truncated { .. }
        | CarError::Malformed { .. }
        | CarError::TooLarge { .. }
        | CarError::Unsupported { .. }
        | CarError::Mismatch { .. } => Some(Exit::Mismatch),
        // Transparent: it is no cause of its own.
        CarError::Store(error) => exit_of_store(error),
        _ => None,
    }
}

const fn exit_of_client(error: &node::ClientError) -> Option<Exit> {
    match error {
        node::ClientError::Cancelled => Some(Exit::Interrupted),
        _ => None,
    }
}

const fn exit_of_name(error: &node::NameError) -> Option<Exit> {
    match error {
        node::NameError::Missing { .. } => Some(Exit::NotFound),
        node::NameError::RolledBack { .. } | node::NameError::Older { .. } => Some(Exit::Mismatch),
        // Transparent: it is no cause of its own.
        node::NameError::Client(error) => exit_of_client(error),
        _ => None,
    }
}

fn exit_of_path(error: &node::PathError) -> Option<Exit> {
    match error {
        node::PathError::NoEntry { .. } => Some(Exit::NotFound),
        // Transparent: the errors inside are no causes of their own.
        node::PathError::Name(error) => exit_of_name(error),
        node::PathError::Fetch(error) => exit_of_fetch(error).or(Some(Exit::Network)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use store::substitute::Asked;

    use super::*;

    #[test]
    fn the_codes_are_those_of_the_contract() {
        let codes = [
            (Exit::Ok, 0),
            (Exit::Other, 1),
            (Exit::Usage, 2),
            (Exit::NotFound, 3),
            (Exit::Mismatch, 4),
            (Exit::BuildFailed, 5),
            (Exit::NotReproducible, 6),
            (Exit::Network, 7),
            (Exit::Sandbox, 8),
            (Exit::Busy, 9),
            (Exit::DiskFull, 10),
            (Exit::Bug, 70),
            (Exit::Interrupted, 130),
        ];
        for (exit, code) in codes {
            assert_eq!(exit as u8, code);
        }
    }

    #[test]
    fn an_error_keeps_its_code_however_deep_it_lies() {
        let full = StoreError::DiskFull {
            path: PathBuf::from("/x"),
            needed: None,
            available: None,
        };
        let failure = Failure::from(FetchError::Store(full)).context("cannot fetch `make`");
        assert_eq!(failure.exit(), Exit::DiskFull);
        assert_eq!(
            failure.message(),
            "cannot fetch `make`: cannot keep what was fetched: no space left for `/x`"
        );
        let busy = StoreError::Busy { waited_secs: 1 };
        assert_eq!(Failure::from(busy).exit(), Exit::Busy);
        let missing = FetchError::Missing {
            asked: Asked::default(),
        };
        assert_eq!(Failure::from(missing).exit(), Exit::NotFound);
        let inner = io::Error::from(io::ErrorKind::StorageFull);
        let failed = FetchError::Failed {
            source: Box::new(inner),
        };
        assert_eq!(Failure::from(failed).exit(), Exit::DiskFull);
        assert_eq!(Failure::new(Exit::Other, "odd").exit(), Exit::Other);
    }

    #[test]
    fn a_reader_that_went_away_is_told_apart() {
        let pipe = Failure::from(io::Error::from(io::ErrorKind::BrokenPipe));
        assert!(pipe.context("cannot print").is_broken_pipe());
        assert!(!Failure::interrupted().is_broken_pipe());
    }
}
