//! Can this machine sandbox? And if not: what is in the way, and which command removes it.
//!
//! [`Sandbox::find`] does not guess from settings: it starts a real sandbox that does nothing. Only when that fails are
//! the settings read, and [`diagnose`], a pure function of what was read, names the most likely one.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd as _, RawFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::bwrap::{Features, Stacker, argv, remembering, stacking};
use crate::diagnose::{HostFacts, SandboxUnavailable, diagnose};
use crate::error::{Error, chain};
use crate::layers::Layers;
use crate::limits::{Ending, Limits};
use crate::masks::masks;
use crate::process::run;
use crate::request::{BuildRequest, InMemory, Mount, Stack};
use crate::root::{make_dir, write_file};
use crate::scratch::Scratch;
use crate::seccomp::Filters;
use crate::surroundings::Surroundings;

/// The oldest bubblewrap we drive: it has `--clearenv`.
pub(crate) const VERSION_MIN: (u32, u32) = (0, 5);
/// The first bubblewrap with `--disable-userns`.
const VERSION_DISABLE_USERNS: (u32, u32) = (0, 8);
/// The first minor version with `--add-seccomp-fd`; 0.6.0 lacks it, which the attempt finds out.
const VERSION_SECCOMP: (u32, u32) = (0, 6);
/// A sandbox that does nothing takes some ten milliseconds; a machine that needs a hundred times that can still build.
const PROBE_LIMITS: Limits = Limits {
    wall: Duration::from_secs(20),
    silence: Duration::from_secs(20),
    log_bytes_max: 64 << 10,
    disk_free_min: 0,
    memory_max: u64::MAX,
    processes_max: u64::MAX,
};

/// A way to sandbox that was seen to work on this machine.
#[derive(Clone, Debug)]
pub struct Sandbox {
    bwrap: PathBuf,
    features: Features,
    masks: Vec<Mount>,
    stacker: Option<Stacker>,
    filters: Option<Filters>,
}

impl Sandbox {
    /// Looks for bubblewrap in `search_path` (as in `PATH`) and tries it.
    ///
    /// # Errors
    /// [`SandboxUnavailable`] with the finding, the setting behind it and the commands that help.
    pub fn find(search_path: &OsStr) -> Result<Self, SandboxUnavailable> {
        let Some(bwrap) = find_program("bwrap", search_path) else {
            return Err(diagnose(&HostFacts::read(None, None, String::new())));
        };
        let version = version_of(&bwrap);
        let path = bwrap.clone();
        let unavailable = |output| diagnose(&HostFacts::read(version, Some(&path), output));
        if version.is_some_and(|v| v < VERSION_MIN) {
            return Err(unavailable(String::new()));
        }
        let features = Features {
            disable_userns: version.is_some_and(|v| v >= VERSION_DISABLE_USERNS),
            seccomp: version.is_some_and(|v| v >= VERSION_SECCOMP),
        };
        let sandbox = Self {
            bwrap,
            features,
            masks: masks(),
            stacker: stacker(search_path),
            filters: Filters::new(),
        };
        let mut attempts = vec![sandbox.clone()];
        if !rustix::process::geteuid().is_root() {
            // In a container some of `/proc` is covered already and cannot be covered again. To an ordinary user the
            // kernel gives nothing there anyway; for root the covers are what keeps a build from the settings.
            attempts.push(Self {
                masks: Vec::new(),
                ..sandbox.clone()
            });
        }
        let strongest = attempts.clone();
        for features in weaker(features) {
            attempts.extend(strongest.iter().cloned().map(|attempt| Self {
                features,
                ..attempt
            }));
        }
        let mut first_output = None;
        for attempt in attempts {
            match attempt.attempt() {
                Ok(()) => return Ok(attempt),
                Err(output) => {
                    first_output.get_or_insert(output);
                }
            }
        }
        Err(unavailable(first_output.unwrap_or_default()))
    }

    /// The path of bubblewrap.
    pub(crate) fn bwrap(&self) -> &Path {
        &self.bwrap
    }

    /// Whether system calls that no build needs are refused.
    pub fn filters(&self) -> bool {
        self.features.seccomp && self.filters.is_some()
    }

    /// The filters of system calls, each as a file to be inherited.
    pub(crate) fn filter_files(&self) -> io::Result<Vec<File>> {
        match &self.filters {
            Some(filters) if self.features.seccomp => filters.files(),
            _ => Ok(Vec::new()),
        }
    }

    /// The arguments of bubblewrap for a request; it writes who runs inside to the descriptor `info`, waits for something to
    /// come from `gate` before it starts that, and reads the filters from `filters`.
    pub(crate) fn argv(
        &self,
        request: &BuildRequest,
        info: RawFd,
        gate: RawFd,
        filters: &[File],
    ) -> Vec<OsString> {
        let mut own = vec![OsString::from("--info-fd"), info.to_string().into()];
        own.extend(["--block-fd".into(), gate.to_string().into()]);
        for filter in filters {
            own.push("--add-seccomp-fd".into());
            own.push(filter.as_raw_fd().to_string().into());
        }
        own.extend(argv(request, self.features));
        let Some(stacker) = &self.stacker else {
            return own;
        };
        if let Some(in_memory) = &request.in_memory {
            own.insert(0, self.bwrap.clone().into());
            own = remembering(in_memory, stacker, own);
        }
        if let Some(stack) = &request.stack {
            own.insert(0, self.bwrap.clone().into());
            own = stacking(stack, stacker, own);
        }
        own
    }

    /// Covers what is to be covered; for requests that mount `/proc`.
    pub(crate) fn mask(&self, request: &mut BuildRequest) {
        request.mounts.extend(self.masks.iter().cloned());
    }

    /// Starts bubblewrap inside of bubblewrap's sandbox, just to print its version: a program that is surely there.
    fn attempt(&self) -> Result<(), String> {
        let mut request = BuildRequest {
            surroundings: Surroundings::Usual,
            interactive: false,
            in_memory: None,
            stack: None,
            mounts: vec![
                Mount::ReadOnly {
                    from: "/".into(),
                    at: "/".into(),
                },
                Mount::Proc,
                Mount::Dev,
            ],
            env: BTreeMap::new(),
            directory: "/".into(),
            command: vec![self.bwrap.clone().into(), "--version".into()],
        };
        self.mask(&mut request);
        self.try_request(&request)
    }

    /// Whether layers can be stacked in a scratch folder. Tries what builds do: to change a file of a layer, and to make
    /// one beside it.
    ///
    /// # Errors
    /// What keeps it from working, in the words of who refused.
    pub fn stacks(&self, scratch: &Path) -> Result<(), String> {
        let stacker = self
            .stacker
            .as_ref()
            .ok_or("there is no `mount` program in the search path")?;
        let made = || {
            let scratch = Scratch::new(scratch)?;
            let lower = ["lower-0", "lower-1"].map(|name| scratch.path().join(name));
            for dir in &lower {
                make_dir(dir)?;
                make_dir(&dir.join("bin"))?;
                write_file(&dir.join("bin/old"), b"old", false)?;
            }
            let stack = Stack::in_dir(scratch.path(), lower)?;
            Ok((scratch, stack))
        };
        let (_scratch, stack) = made().map_err(|error: Error| chain(&error))?;
        let bin = stack.dir.join(stack.place()).join("bin");
        let mut request = BuildRequest {
            surroundings: Surroundings::Usual,
            interactive: false,
            in_memory: None,
            stack: Some(stack),
            mounts: vec![
                Mount::ReadOnly {
                    from: "/".into(),
                    at: "/".into(),
                },
                Mount::Writable {
                    from: bin.clone(),
                    at: bin.clone(),
                },
                Mount::Proc,
                Mount::Dev,
            ],
            env: BTreeMap::new(),
            directory: bin,
            command: vec![
                stacker.sh.clone().into(),
                "-c".into(),
                "echo new >>old && echo new >new && read -r line <old && [ \"$line\" = oldnew ]"
                    .into(),
            ],
        };
        self.mask(&mut request);
        self.try_request(&request)
    }

    /// Whether a directory of a build can lie in memory.
    ///
    /// # Errors
    /// As [`Self::stacks`].
    pub(crate) fn remembers(&self, scratch: &Path) -> Result<(), String> {
        let stacker = self.stacker.as_ref().ok_or("there is no `mount` program")?;
        let made = || {
            let scratch = Scratch::new(scratch)?;
            let [dir, from] = ["memory", "disk"].map(|name| scratch.path().join(name));
            make_dir(&dir)?;
            make_dir(&from)?;
            write_file(&from.join("file"), b"", false)?;
            Ok((scratch, dir, from))
        };
        let (_scratch, dir, from) = made().map_err(|error: Error| chain(&error))?;
        let root = Path::new("/");
        let mut request = BuildRequest {
            surroundings: Surroundings::Other,
            interactive: false,
            in_memory: Some(InMemory {
                dir: dir.clone(),
                from,
                bytes_max: 1 << 20,
            }),
            stack: None,
            mounts: vec![
                Mount::ReadOnly {
                    from: root.into(),
                    at: root.into(),
                },
                Mount::Writable {
                    from: dir.clone(),
                    at: dir.clone(),
                },
                Mount::Proc,
                Mount::Dev,
            ],
            env: BTreeMap::new(),
            directory: dir,
            command: vec![
                stacker.sh.clone().into(),
                "-c".into(),
                "[ -f file ] && echo new >new".into(),
            ],
        };
        self.mask(&mut request);
        self.try_request(&request)
    }

    /// Runs something that takes an instant and says nothing unless it fails.
    fn try_request(&self, request: &BuildRequest) -> Result<(), String> {
        let mut output = Vec::new();
        let mut keep = |bytes: &[u8]| output.extend_from_slice(bytes);
        match run(self, request, None, &PROBE_LIMITS, &mut keep, &|| false) {
            Ok(Ending::Exited(0)) => Ok(()),
            Ok(Ending::Exited(_)) if output.is_empty() => {
                Err("it failed without a word".to_owned())
            }
            Ok(Ending::Exited(_)) => Err(String::from_utf8_lossy(&output).trim().to_owned()),
            Ok(_) => Err("a sandbox that does nothing did not end".to_owned()),
            Err(error) => Err(chain(&error)),
        }
    }
}

/// What is done without where the kernel, or whoever confines us, does not allow all of it: least first.
fn weaker(features: Features) -> [Features; 3] {
    let with_userns = Features {
        disable_userns: false,
        ..features
    };
    let unfiltered = Features {
        seccomp: false,
        ..features
    };
    [with_userns, unfiltered, Features::default()]
}

fn stacker(search_path: &OsStr) -> Option<Stacker> {
    let sh = find_program("sh", search_path)?;
    let mount = find_program("mount", search_path)?;
    Some(Stacker { sh, mount })
}

/// The first executable file of that name in a search path.
pub(crate) fn find_program(name: &str, search_path: &OsStr) -> Option<PathBuf> {
    std::env::split_paths(search_path)
        .filter(|dir| dir.is_absolute())
        .map(|dir| dir.join(name))
        .find(|path| path.is_file())
}

/// The version that a bubblewrap reports; `None` when it does not say, as development builds may.
fn version_of(bwrap: &Path) -> Option<(u32, u32)> {
    let output = Command::new(bwrap)
        .arg("--version")
        .env_clear()
        .stdin(Stdio::null())
        .output();
    parse_version(&String::from_utf8_lossy(&output.ok()?.stdout))
}

fn parse_version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.trim().rsplit(' ').next()?.split('.');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// A [`Sandbox`] that is looked for when the first build needs it, once.
///
/// A run that only fetches never needs one and must not fail for want of it.
#[derive(Debug)]
pub struct LazySandbox {
    search_path: OsString,
    may_stack: bool,
    stacks: std::sync::OnceLock<bool>,
    found: std::sync::OnceLock<Result<Sandbox, SandboxUnavailable>>,
}

impl LazySandbox {
    /// Will look in this search path (as in `PATH`).
    pub fn new(search_path: impl Into<OsString>) -> Self {
        Self {
            search_path: search_path.into(),
            may_stack: true,
            stacks: std::sync::OnceLock::new(),
            found: std::sync::OnceLock::new(),
        }
    }

    /// The same, but layers are not stacked, whether this machine can or not.
    pub fn unstacked(search_path: impl Into<OsString>) -> Self {
        Self {
            may_stack: false,
            ..Self::new(search_path)
        }
    }

    /// The layers of a scratch folder where they can be stacked, which is found out once.
    pub(crate) fn layers(&self, scratch: &Path) -> Option<Layers> {
        let find_out = || {
            let tried = self.get().map(|sandbox| sandbox.stacks(scratch));
            if let Ok(Err(reason)) = &tried {
                tracing::debug!(reason, "layers cannot be stacked, so they are unpacked");
            }
            matches!(tried, Ok(Ok(())))
        };
        (self.may_stack && *self.stacks.get_or_init(find_out))
            .then(|| Layers::below(scratch))
            .flatten()
    }

    /// A program of the host.
    pub(crate) fn program(&self, name: &str) -> Option<PathBuf> {
        find_program(name, &self.search_path)
    }

    /// The sandbox.
    ///
    /// # Errors
    /// [`SandboxUnavailable`], the same on every call.
    pub fn get(&self) -> Result<&Sandbox, SandboxUnavailable> {
        self.found
            .get_or_init(|| Sandbox::find(&self.search_path))
            .as_ref()
            .map_err(Clone::clone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_bubblewrap_prints_them() {
        assert_eq!(parse_version("bubblewrap 0.8.0\n"), Some((0, 8)));
        assert_eq!(parse_version("bubblewrap 0.11.0"), Some((0, 11)));
        assert_eq!(parse_version("bubblewrap"), None);
        assert_eq!(parse_version(""), None);
    }

    #[test]
    fn relative_entries_of_a_search_path_are_not_trusted() {
        let here = tempfile::tempdir().unwrap();
        std::fs::write(here.path().join("bwrap"), "").unwrap();
        let path = OsString::from(format!(".::{}", here.path().display()));
        assert_eq!(
            find_program("bwrap", &path),
            Some(here.path().join("bwrap"))
        );
        assert_eq!(find_program("bwrap", OsStr::new(".::relative")), None);
    }

    #[test]
    fn a_machine_without_bubblewrap_is_told_how_to_install_it() {
        let nowhere = tempfile::tempdir().unwrap();
        let error = Sandbox::find(nowhere.path().as_os_str()).unwrap_err();
        assert!(error.to_string().contains("bubblewrap"), "{error}");
        assert!(
            error.fix.iter().any(|line| line.contains("install")),
            "{:?}",
            error.fix
        );
    }
}
