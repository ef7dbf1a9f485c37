//! The sandbox builder: from a plan to outputs in the store, by substitution or by a build that sees nothing of the host.
//!
//! This crate is the only door to child processes, namespaces and scratch directories. It is synchronous, opens no
//! socket, reads neither environment nor configuration, and prints nothing: what to use comes in ([`Context`]), what
//! happens goes out as [`Event`]s, what came of it is a [`Report`].
//!
//! * [`realise`] drives [`recipe::Plan`]: lookup, substitute, build. [`check`] builds again and compares, [`forecast`] is
//!   the dry run.
//! * [`Workshop`] builds one package: scratch root, [`BuildRequest`], [`argv`], output checks, archive.
//! * [`JobServer`] keeps all builds together within the jobs that the user allowed.
//! * [`Kept`] is a failed build that was kept, to look around in.
//! * [`Trial`] is how a built package is tried in a root of its run closure alone.
//! * [`LazySandbox`] finds out whether this machine can sandbox, and else what to change.
//! * [`venv`] composes closures into directories that commands run in, and exports them; [`Image`] and [`squashfs`] export them
//!   for others to run, [`sbom`] says what they are made of.

mod ahead;
mod build;
mod bwrap;
mod census;
mod cgroup;
mod check;
mod diagnose;
mod diffoscope;
mod error;
mod forecast;
mod guard;
mod hosted;
mod image;
mod inputs;
mod jobs;
mod kept;
mod layers;
mod limits;
mod linked;
mod log;
mod lookup;
mod masks;
mod observe;
mod output;
mod probe;
mod process;
mod realise;
mod references;
mod request;
mod root;
mod runner;
mod scratch;
mod seccomp;
mod signer;
mod sources;
mod squashfs;
mod ssh;
mod stack;
mod surroundings;
#[cfg(feature = "testing")]
pub mod testing;
mod trial;
mod untidy;
mod unused;
pub mod venv;
mod watch;

pub use crate::build::{Finished, Workshop};
pub use crate::bwrap::{Features, argv};
pub use crate::cgroup::Groups;
pub use crate::check::{DIFFERENCES_MAX, build_anew, check, differences};
pub use crate::diagnose::SandboxUnavailable;
pub use crate::error::{BuildFailure, Error, ErrorKind, OutputError, ProcessError, Wanted};
pub use crate::forecast::{Forecast, forecast};
pub use crate::hosted::{Host, HostedBuild};
pub use crate::image::{Image, ImageSettings, ImageSummary, sbom};
pub use crate::inputs::{InputList, InputListError, UsedInput};
pub use crate::jobs::{JobServer, Seat};
pub use crate::kept::Kept;
pub use crate::layers::{Idle, Layers};
pub use crate::limits::{Ending, Limits};
pub use crate::log::{LAST_LINES, Log, log_path};
pub use crate::lookup::refusal;
pub use crate::observe::{Event, NoObserver, Observer, Phase};
pub use crate::output::TOP_LEVEL;
pub use crate::probe::{LazySandbox, Sandbox};
pub use crate::realise::{Context, Failure, How, Options, Realised, Report, realise};
pub use crate::request::{
    BUILD_SCRIPT, BuildRequest, CHECK_SCRIPT, DESTDIR, InMemory, Mount, SOURCE_DATE_EPOCH, Stack,
    build_env, check_env,
};
pub use crate::root::{Input, NoFiles, RecipeFiles};
pub use crate::scratch::Scratch;
pub use crate::signer::Signer;
pub use crate::sources::FetchedItem;
pub use crate::squashfs::squashfs;
pub use crate::ssh::{Ssh, SshStreams, SshTarget};
pub use crate::surroundings::Surroundings;
pub use crate::trial::Trial;
pub use crate::untidy::untidy;
pub use crate::unused::unused;
