//! The sandbox as plain data: what a build sees, with which environment, and what is run.
//!
//! A [`BuildRequest`] can be printed, compared and tested without a kernel that allows namespaces; [`crate::argv`] turns
//! it into a bubblewrap command line and nothing else does. The file system starts out empty and read-only: only what is
//! listed in [`BuildRequest::mounts`] exists, so a host path that nobody listed cannot be seen.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::surroundings::Surroundings;

/// Where programs are looked for.
const SEARCH_PATH: &str = "/bin:/usr/bin";
/// Where the build puts its output.
pub const DESTDIR: &str = "/destdir";
/// Where the build script is mounted.
pub const BUILD_SCRIPT: &str = "/build";
/// Where the script that tries a built package is mounted.
pub const CHECK_SCRIPT: &str = "/check";
/// The clock that builds are told, in seconds since 1970: the time stamp of every archive entry.
pub const SOURCE_DATE_EPOCH: &str = "1609459200";

/// One thing that exists inside the sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mount {
    /// A host path that the build may change.
    Writable {
        /// The host path.
        from: PathBuf,
        /// The path inside.
        at: PathBuf,
    },
    /// A host path that the build may read.
    ReadOnly {
        /// The host path.
        from: PathBuf,
        /// The path inside.
        at: PathBuf,
    },
    /// An empty directory in memory.
    Tmpfs {
        /// The path inside.
        at: PathBuf,
    },
    /// A symbolic link.
    Symlink {
        /// Where it points.
        target: PathBuf,
        /// The path inside.
        at: PathBuf,
    },
    /// The process file system of the sandbox's own process namespace.
    Proc,
    /// The few harmless device nodes.
    Dev,
}

/// Layers that the kernel is to stack before anything is mounted; what they show is found below [`Self::dir`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stack {
    /// The scratch directory, which holds all that the stack is made of.
    pub dir: PathBuf,
    /// How many layers are stacked.
    pub layers: usize,
}

/// A directory that is to lie in memory while something runs; see [`crate::Surroundings::Other`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InMemory {
    /// The directory on the host.
    pub dir: PathBuf,
    /// The directory whose contents it has at first.
    pub from: PathBuf,
    /// The most it may take, in bytes.
    pub bytes_max: u64,
}

/// What to run, and the whole world it runs in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuildRequest {
    /// As whom and where.
    pub surroundings: Surroundings,
    /// Whether the command talks to our own terminal.
    pub interactive: bool,
    /// What lies in memory, if anything.
    pub in_memory: Option<InMemory>,
    /// What is stacked beforehand, if anything.
    pub stack: Option<Stack>,
    /// What exists, in the order in which it is put in place.
    pub mounts: Vec<Mount>,
    /// The whole environment. Bubblewrap adds `PWD`, which is [`Self::directory`].
    pub env: BTreeMap<OsString, OsString>,
    /// The working directory inside.
    pub directory: PathBuf,
    /// The program, by its path inside, and its arguments.
    pub command: Vec<OsString>,
}

impl BuildRequest {
    /// The request that runs a recipe's build script: `top_level` are the directories and links of the scratch root.
    pub fn for_recipe(
        script: &Path,
        top_level: Vec<Mount>,
        jobs: usize,
        surroundings: Surroundings,
    ) -> Self {
        let mut env = build_env(SEARCH_PATH, surroundings.jobs(jobs));
        env.insert("HOME".into(), surroundings.home().into());
        env.insert("TZ".into(), surroundings.time_zone().into());
        Self {
            surroundings,
            directory: surroundings.home().into(),
            ..Self::for_script(script, BUILD_SCRIPT, top_level, env)
        }
    }

    /// The request that runs a recipe's check in a root that holds what a user of the package has.
    pub fn for_check(script: &Path, top_level: Vec<Mount>) -> Self {
        Self::for_script(script, CHECK_SCRIPT, top_level, check_env())
    }

    fn for_script(
        script: &Path,
        at: &str,
        top_level: Vec<Mount>,
        env: BTreeMap<OsString, OsString>,
    ) -> Self {
        let mut mounts = top_level;
        mounts.push(Mount::ReadOnly {
            from: script.to_owned(),
            at: at.into(),
        });
        mounts.extend([Mount::Proc, Mount::Dev]);
        Self {
            surroundings: Surroundings::Usual,
            interactive: false,
            in_memory: None,
            stack: None,
            mounts,
            env,
            directory: Surroundings::Usual.home().into(),
            command: vec![at.into()],
        }
    }
}

/// Tells a build of its job server as make does, and as upstream does. Make takes the last `-j` and the last server.
pub(crate) fn add_job_server(env: &mut BTreeMap<OsString, OsString>, auth: &str) {
    let flags = env.entry("MAKEFLAGS".into()).or_default();
    flags.push(" --jobserver-auth=");
    flags.push(auth);
    env.insert("PKG_JOBSERVER".into(), auth.into());
}

/// The environment of a check: what an ordinary user without settings has.
pub fn check_env() -> BTreeMap<OsString, OsString> {
    let home = Surroundings::Usual.home();
    let variables = [
        ("HOME", home),
        ("PATH", SEARCH_PATH),
        ("TMPDIR", "/tmp"),
        ("TERM", "dumb"),
        ("TZ", "UTC"),
        ("LC_ALL", "C"),
    ];
    environment(&variables)
}

fn environment(variables: &[(&str, &str)]) -> BTreeMap<OsString, OsString> {
    variables
        .iter()
        .map(|(name, value)| (name.into(), value.into()))
        .collect()
}

/// The environment that every build has, and nothing besides.
pub fn build_env(path: &str, jobs: usize) -> BTreeMap<OsString, OsString> {
    let home = Surroundings::Usual.home();
    let make_flags = format!("-j{}", jobs.max(1));
    let variables = [
        ("HOME", home),
        ("PATH", path),
        ("TMPDIR", "/tmp"),
        ("DESTDIR", DESTDIR),
        // Recipes may test the variable, so it is always set; the job server is known when the build starts.
        ("PKG_JOBSERVER", ""),
        ("MAKEFLAGS", make_flags.as_str()),
        ("SOURCE_DATE_EPOCH", SOURCE_DATE_EPOCH),
        ("TZ", "UTC"),
        ("LC_ALL", "C"),
    ];
    environment(&variables)
}
