//! Why a package cannot be realised, told apart by what the user can do about it.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base::{PackageName, PublicKey, Sha256};
use store::StoreError;
use store::archive::ArchiveError;
use store::substitute::{Asked, FetchError, QueryError};
use trust::Testimony;

use crate::diagnose::SandboxUnavailable;
use crate::limits::Ending;

/// Why a package cannot be realised, checked, composed or exported.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Nobody has the package, and building it was not allowed.
    #[error("`{package}` was not found anywhere: {asked}")]
    Missing {
        /// Which package.
        package: PackageName,
        /// Who was asked.
        asked: Asked,
    },
    /// There are outputs of the package, but nobody trusted vouches for any.
    #[error("`{package}` is only vouched for by keys that are not trusted")]
    Untrusted {
        /// Which package.
        package: PackageName,
        /// Who signed; trusting one of them would help.
        signers: Vec<PublicKey>,
        /// Who said what, and why it does not count.
        testimonies: Vec<Testimony>,
    },
    /// Too few trusted keys vouch for the package.
    #[error("`{package}` is vouched for by {have} trusted keys, {need} must agree")]
    TooFewSigners {
        /// Which package.
        package: PackageName,
        /// How many agree.
        have: usize,
        /// How many the policy asks for.
        need: usize,
        /// The rule, if it is more than a count of trusted keys.
        rule: Option<String>,
        /// Who said what.
        testimonies: Vec<Testimony>,
    },
    /// Trusted keys vouch for different outputs of one package.
    #[error("trusted keys vouch for different outputs of `{package}`")]
    Conflict {
        /// Which package.
        package: PackageName,
        /// Who said what.
        testimonies: Vec<Testimony>,
    },
    /// The search for a package went wrong.
    #[error("cannot look up `{package}`")]
    Lookup {
        /// Which package.
        package: PackageName,
        /// What went wrong.
        #[source]
        source: QueryError,
    },
    /// A package, seed or source could not be fetched.
    #[error("cannot fetch {what}")]
    Fetch {
        /// What.
        what: Wanted,
        /// What went wrong.
        #[source]
        source: FetchError,
    },
    /// The build script failed or was killed.
    #[error("build of `{}` {}", .0.package, .0.ending)]
    BuildFailed(Box<BuildFailure>),
    /// The package was built, but its check failed or was killed.
    #[error("check of `{}` {}", .0.package, .0.ending)]
    CheckFailed(Box<BuildFailure>),
    /// Files of a package need what its run closure does not have.
    #[error("`{package}` needs what its run closure does not have")]
    Incomplete {
        /// Which package.
        package: PackageName,
        /// Which file needs what, one line each.
        missing: Vec<String>,
    },
    /// The build ended well, but its output cannot be a package.
    #[error("output of `{package}` is refused")]
    Output {
        /// Which package.
        package: PackageName,
        /// Why.
        #[source]
        source: OutputError,
        /// Where the scratch directory is kept, if that was asked for.
        kept: Option<PathBuf>,
    },
    /// A directory is none that a failed build left, or cannot be entered any more.
    #[error("cannot enter `{}`: {why}", dir.display())]
    NotKept {
        /// The directory.
        dir: PathBuf,
        /// What is missing.
        why: String,
    },
    /// A second build gave another output.
    #[error("`{package}` is not reproducible: {} entries differ", differences.len())]
    NotReproducible {
        /// Which package.
        package: PackageName,
        /// What differs, one line each, the first ones first.
        differences: Vec<String>,
        /// What `diffoscope` says of it where the host has one, raw: whoever prints it strips control characters.
        explained: Vec<String>,
    },
    /// This machine cannot sandbox.
    #[error(transparent)]
    SandboxUnavailable(#[from] SandboxUnavailable),
    /// The host's compiler, which a seed is to be made with, is not there.
    #[error("there is no C compiler `{compiler}`")]
    NoCompiler {
        /// As it was given.
        compiler: String,
    },
    /// A program of the host that an export needs is not there.
    #[error("there is no `{program}` on this machine")]
    NoProgram {
        /// Its name.
        program: &'static str,
        /// The package that has it in most distributions.
        package: &'static str,
    },
    /// A program of the host failed.
    #[error("`{program}` failed ({status}): {complaint}")]
    Program {
        /// Its name.
        program: &'static str,
        /// How it ended.
        status: String,
        /// What it printed.
        complaint: String,
    },
    /// A process could not be started or watched.
    #[error("cannot run a sandbox")]
    Process(#[from] ProcessError),
    /// A file of a recipe is not the one that was hashed.
    #[error(
        "`files/{path}` of `{package}` changed while it was used: expected `{expected}`, got `{got}`"
    )]
    FileChanged {
        /// Which package.
        package: PackageName,
        /// Which file.
        path: String,
        /// The digest in the package hash.
        expected: Sha256,
        /// The digest now.
        got: Sha256,
    },
    /// An archive could not be packed or unpacked.
    #[error("cannot use the output of `{package}`")]
    Archive {
        /// Whose output.
        package: String,
        /// What went wrong.
        #[source]
        source: ArchiveError,
    },
    /// What was built could not be signed.
    #[error("cannot sign the output of `{package}`")]
    Sign {
        /// Which package.
        package: PackageName,
        /// What is wrong with the key.
        #[source]
        source: io::Error,
    },
    /// The operating system refused an operation.
    #[error("cannot {op} `{}`", path.display())]
    Io {
        /// Verb for what was tried.
        op: &'static str,
        /// On which path.
        path: PathBuf,
        /// The operating system's answer.
        #[source]
        source: io::Error,
    },
    /// The store could not do its part.
    #[error("cannot use the store")]
    Store(#[from] StoreError),
    /// The caller stopped it.
    #[error("cancelled")]
    Cancelled,
}

/// What an [`Error`] means for whoever called: the exit codes of the command line follow it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Nobody has it.
    Missing,
    /// A hash, a signature or trust stands against it.
    Mismatch,
    /// The build failed.
    BuildFailed,
    /// Two builds gave two outputs.
    NotReproducible,
    /// The network did not answer in time, or not usefully.
    Network,
    /// No sandbox on this machine.
    SandboxUnavailable,
    /// The store is locked by others.
    Busy,
    /// No space left.
    DiskFull,
    /// Stopped by the caller.
    Cancelled,
    /// Anything else.
    Other,
}

impl Error {
    /// The kind that decides the exit code.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Missing { .. } => ErrorKind::Missing,
            Self::Untrusted { .. } | Self::TooFewSigners { .. } | Self::Conflict { .. } => {
                ErrorKind::Mismatch
            }
            Self::Lookup {
                source: QueryError::Cancelled,
                ..
            }
            | Self::Cancelled => ErrorKind::Cancelled,
            Self::Lookup { .. } => ErrorKind::Network,
            Self::Fetch { source, .. } => fetch_kind(source),
            Self::BuildFailed(failure) | Self::CheckFailed(failure)
                if matches!(failure.ending, Ending::FilledTheDisk(_)) =>
            {
                ErrorKind::DiskFull
            }
            Self::BuildFailed(_)
            | Self::CheckFailed(_)
            | Self::Incomplete { .. }
            | Self::Output { .. } => ErrorKind::BuildFailed,
            Self::NotReproducible { .. } => ErrorKind::NotReproducible,
            Self::SandboxUnavailable(_) => ErrorKind::SandboxUnavailable,
            Self::Store(error) => store_kind(error),
            Self::Io { source, .. } if is_disk_full(source) => ErrorKind::DiskFull,
            Self::Archive { source, .. } => archive_kind(source),
            Self::NoCompiler { .. }
            | Self::NoProgram { .. }
            | Self::Program { .. }
            | Self::Process(_)
            | Self::FileChanged { .. }
            | Self::NotKept { .. }
            | Self::Sign { .. }
            | Self::Io { .. } => ErrorKind::Other,
        }
    }

    /// Who said what about a package that is not used, and why it does not count.
    pub fn testimonies(&self) -> &[Testimony] {
        match self {
            Self::Untrusted { testimonies, .. }
            | Self::TooFewSigners { testimonies, .. }
            | Self::Conflict { testimonies, .. } => testimonies,
            _ => &[],
        }
    }

    /// Where the scratch directory of the build that failed is kept, if it is.
    pub fn kept(&self) -> Option<&Path> {
        match self {
            Self::BuildFailed(failure) | Self::CheckFailed(failure) => failure.kept.as_deref(),
            Self::Output { kept, .. } => kept.as_deref(),
            _ => None,
        }
    }

    pub(crate) fn archive(package: &str, source: ArchiveError) -> Self {
        Self::Archive {
            package: package.to_owned(),
            source,
        }
    }

    pub(crate) fn io(op: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io {
            op,
            path: path.to_owned(),
            source,
        }
    }
}

/// An error and its causes in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

fn fetch_kind(error: &FetchError) -> ErrorKind {
    match error {
        FetchError::Missing { .. } => ErrorKind::Missing,
        FetchError::Invalid { .. } => ErrorKind::Mismatch,
        FetchError::Cancelled => ErrorKind::Cancelled,
        FetchError::Store(error) => store_kind(error),
        _ => ErrorKind::Network,
    }
}

fn store_kind(error: &StoreError) -> ErrorKind {
    match error {
        StoreError::Busy { .. } => ErrorKind::Busy,
        StoreError::DiskFull { .. } => ErrorKind::DiskFull,
        StoreError::Mismatch { .. } => ErrorKind::Mismatch,
        _ => ErrorKind::Other,
    }
}

/// An archive's error hides what the disk said: it is the chain's end that counts.
fn archive_kind(error: &ArchiveError) -> ErrorKind {
    if matches!(error, ArchiveError::DiskFull { .. }) {
        return ErrorKind::DiskFull;
    }
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if error.downcast_ref::<io::Error>().is_some_and(is_disk_full) {
            return ErrorKind::DiskFull;
        }
        cause = error.source();
    }
    ErrorKind::Other
}

fn is_disk_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

/// What was to be fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// A package's output.
    Output(PackageName),
    /// A seed.
    Seed(PackageName),
    /// A source.
    Source {
        /// The package that needs it.
        package: PackageName,
        /// Its file name.
        file: String,
    },
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Output(package) => write!(f, "`{package}`"),
            Self::Seed(package) => write!(f, "the seed `{package}`"),
            Self::Source { package, file } => write!(f, "source `{file}` of `{package}`"),
        }
    }
}

/// A build that did not end well, with all that is needed to find out why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuildFailure {
    /// Which package.
    pub package: PackageName,
    /// How it ended.
    pub ending: Ending,
    /// The whole log.
    pub log: PathBuf,
    /// The log's last lines, raw: whoever prints them strips control characters.
    pub last_lines: Vec<Vec<u8>>,
    /// Where the scratch directory is kept, if that was asked for.
    pub kept: Option<PathBuf>,
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(status) => write!(f, "failed with exit status {status}"),
            Self::TookTooLong(limit) => write!(f, "was killed after {}", Length(*limit)),
            Self::Silent(limit) => write!(f, "was killed after {} without output", Length(*limit)),
            Self::LoggedTooMuch(bytes) => {
                write!(
                    f,
                    "was killed after {} MiB of output",
                    bytes.div_ceil(1 << 20)
                )
            }
            Self::FilledTheDisk(bytes) => {
                write!(
                    f,
                    "was killed when less than {} MiB were left on the disk",
                    bytes.div_ceil(1 << 20)
                )
            }
            Self::TookTooMuchMemory(bytes) => {
                write!(
                    f,
                    "was killed when it took more than {} MiB of memory",
                    bytes >> 20
                )
            }
            Self::TooManyProcesses(limit) => {
                write!(f, "was killed when it ran more than {limit} processes")
            }
            Self::Cancelled => f.write_str("was cancelled"),
        }
    }
}

/// A limit as it was meant: in the largest unit that fits.
struct Length(Duration);

impl fmt::Display for Length {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_secs() {
            secs if secs >= 3600 && secs % 3600 == 0 => write!(f, "{} hours", secs / 3600),
            secs if secs >= 60 && secs % 60 == 0 => write!(f, "{} minutes", secs / 60),
            _ => write!(f, "{} seconds", self.0.as_secs_f64()),
        }
    }
}

/// Why bubblewrap could not be run to its end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProcessError {
    /// It did not start.
    #[error("cannot start bubblewrap")]
    Start(#[source] io::Error),
    /// It started, but watching it failed; it was killed.
    #[error("cannot watch bubblewrap")]
    Watch(#[source] io::Error),
    /// It was killed, but something inside does not die.
    #[error("a killed build still runs after {} seconds", .0.as_secs())]
    Unkillable(Duration),
}

/// Why what a build left in its `$DESTDIR` cannot be a package.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OutputError {
    /// A directory or file of a name that packages do not have at their top.
    #[error("`{0}` is not one of the top-level directories of a package: {list}", list = crate::output::TOP_LEVEL.join(", "))]
    TopLevel(String),
    /// A device, pipe or socket.
    #[error("`{path}` is a {kind}")]
    Special {
        /// Where.
        path: String,
        /// What it is.
        kind: &'static str,
    },
    /// A file that runs with its owner's rights.
    #[error("`{0}` has its setuid or setgid bit set")]
    Setuid(String),
    /// A symbolic link with an absolute target.
    #[error("`{path}` links to the absolute path `{target}`; make the link relative")]
    AbsoluteLink {
        /// Where.
        path: String,
        /// Where to.
        target: String,
    },
    /// A symbolic link that leaves the package.
    #[error("`{path}` links out of the package, to `{target}`")]
    EscapingLink {
        /// Where.
        path: String,
        /// Where to.
        target: String,
    },
}
