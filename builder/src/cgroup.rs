//! A group of the kernel's (cgroup, version 2) for each build, where we may make groups: exact limits, and an end for all at once.
//!
//! Who is not root may make groups where the system's manager has left them a part of the tree, as systemd does for the
//! services and terminals of a user. A group is made beside our own, in the nearest parent that hands the controllers of memory
//! and processes down; nothing else of the tree is touched. Elsewhere [`crate::census`] counts.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{Access, access};
use rustix::process::Pid;

use crate::limits::Limits;

/// How the names of our groups begin; the number of our process and another one follow.
const PREFIX: &str = "p2pkgs-build-";

/// As many processes as the kernel can number (`PID_MAX_LIMIT`): a limit of so many it takes for a mistake.
const PROCESSES_ALL: u64 = 1 << 22;

/// Where groups can be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Groups {
    parent: PathBuf,
}

impl Groups {
    /// Looks for a place.
    pub fn find() -> Option<Self> {
        let own = fs::read_to_string("/proc/self/cgroup").ok()?;
        let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
        let (mount, path) = own_group(&own, &mounts)?;
        Self::above(&mount, &path)
    }

    /// The directory in which groups are made.
    pub fn parent(&self) -> &Path {
        &self.parent
    }

    /// The nearest directory above `path` in which we may make groups with limits.
    fn above(mount: &Path, path: &Path) -> Option<Self> {
        let own = mount.join(path);
        let parents = own.ancestors().skip(1);
        let mut within = parents.take_while(|dir| dir.starts_with(mount));
        let parent = within.find(|dir| hands_down(dir) && is_ours(dir))?;
        let parent = parent.to_owned();
        Some(Self { parent })
    }

    /// Makes a group with limits.
    pub(crate) fn make(&self, limits: &Limits) -> io::Result<Group> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("{PREFIX}{}-{number}", std::process::id());
        let dir = self.parent.join(name);
        fs::create_dir(&dir)?;
        let group = Group { dir };
        group.write("memory.max", &limits.memory_max)?;
        if limits.processes_max < PROCESSES_ALL {
            group.write("pids.max", &limits.processes_max)?;
        }
        // All or nothing: a build that lost one process to the limit would fail for reasons that nobody understands.
        let _ = group.write("memory.oom.group", &1);
        // A machine without swap has no such file.
        let _ = group.write("memory.swap.max", &0);
        Ok(group)
    }
}

/// One build's group. Dropping it kills what is in it, and removes it.
#[derive(Debug)]
pub(crate) struct Group {
    dir: PathBuf,
}

impl Group {
    /// Takes a process in; what it starts is in the group, too.
    pub(crate) fn add(&self, pid: Pid) -> io::Result<()> {
        self.write("cgroup.procs", &pid.as_raw_nonzero())
    }

    /// Whether the kernel has ended it for want of memory.
    pub(crate) fn is_out_of_memory(&self) -> bool {
        self.count("memory.events", "oom_kill") > 0
    }

    /// Whether it wanted more processes than it may have.
    pub(crate) fn is_out_of_processes(&self) -> bool {
        self.count("pids.events", "max") > 0
    }

    fn count(&self, file: &str, name: &str) -> u64 {
        let text = fs::read_to_string(self.dir.join(file)).unwrap_or_default();
        let mut lines = text.lines().filter_map(|line| line.split_once(' '));
        let found = lines.find(|(n, _)| *n == name);
        found.and_then(|(_, n)| n.parse().ok()).unwrap_or(0)
    }

    fn write(&self, file: &str, value: &impl ToString) -> io::Result<()> {
        fs::write(self.dir.join(file), value.to_string())
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = self.write("cgroup.kill", &1);
        if let Err(error) = fs::remove_dir(&self.dir) {
            tracing::debug!(path = %self.dir.display(), %error, "cannot remove a group");
        }
    }
}

/// Where groups of version 2 are mounted, and which of them is ours, below there.
fn own_group(own: &str, mounts: &str) -> Option<(PathBuf, PathBuf)> {
    let path = Path::new(own.lines().find_map(|line| line.strip_prefix("0::"))?);
    let mount = |line: &str| {
        let (head, tail) = line.split_once(" - ")?;
        let mut fields = head.split(' ').skip(3);
        let (root, at) = (fields.next()?, fields.next()?);
        let below = path.strip_prefix(root).ok()?;
        tail.starts_with("cgroup2 ")
            .then(|| (PathBuf::from(at), below.to_owned()))
    };
    mounts.lines().find_map(mount)
}

/// Whether groups made in a directory can have limits on memory and processes.
fn hands_down(dir: &Path) -> bool {
    let controllers = fs::read_to_string(dir.join("cgroup.subtree_control")).unwrap_or_default();
    let has = |name| controllers.split_whitespace().any(|c| c == name);
    has("memory") && has("pids")
}

/// Whether we may make groups in a directory, and move our processes to them.
fn is_ours(dir: &Path) -> bool {
    let may_write = |path: &Path| access(path, Access::WRITE_OK).is_ok();
    may_write(dir) && may_write(&dir.join("cgroup.procs"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "24 1 0:21 / /proc rw - proc proc rw\n\
        30 24 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw\n";

    #[test]
    fn our_own_group_is_found_where_it_is_mounted() {
        let found = own_group("0::/user.slice/a.scope\n", MOUNTS).unwrap();
        assert_eq!(
            found,
            ("/sys/fs/cgroup".into(), "user.slice/a.scope".into())
        );
        let part = MOUNTS.replace("0:26 / ", "0:26 /user.slice ");
        let found = own_group("0::/user.slice/a.scope\n", &part).unwrap();
        assert_eq!(found.1, Path::new("a.scope"));
        assert_eq!(own_group("0::/elsewhere\n", &part), None);
        assert_eq!(own_group("4:memory:/x\n", MOUNTS), None);
        assert_eq!(
            own_group("0::/x\n", "24 1 0:21 / /proc rw - proc proc rw\n"),
            None
        );
    }

    /// A tree as the kernel shows it, of ordinary files.
    fn tree(handing_down: &[&str]) -> tempfile::TempDir {
        let mount = tempfile::tempdir().unwrap();
        fs::create_dir_all(mount.path().join("user/app/terminal")).unwrap();
        for dir in ["", "user", "user/app", "user/app/terminal"] {
            let dir = mount.path().join(dir);
            fs::write(dir.join("cgroup.procs"), "").unwrap();
            fs::write(dir.join("cgroup.subtree_control"), "cpu\n").unwrap();
        }
        for dir in handing_down {
            let file = mount.path().join(dir).join("cgroup.subtree_control");
            fs::write(file, "cpu memory pids\n").unwrap();
        }
        mount
    }

    #[test]
    fn groups_are_made_in_the_nearest_parent_that_hands_controllers_down() {
        let own = Path::new("user/app/terminal");
        let mount = tree(&["", "user", "user/app/terminal"]);
        let groups = Groups::above(mount.path(), own).unwrap();
        assert_eq!(groups.parent(), mount.path().join("user"));
        let mount = tree(&["user/app/terminal"]);
        assert_eq!(Groups::above(mount.path(), own), None);
        // Nothing is above the mount.
        let mount = tree(&["user"]);
        assert_eq!(
            Groups::above(&mount.path().join("user"), Path::new("")),
            None
        );
    }

    #[test]
    fn a_group_has_the_limits_and_tells_what_met_them() {
        let mount = tree(&["user"]);
        let groups = Groups::above(mount.path(), Path::new("user/app")).unwrap();
        let limits = Limits {
            memory_max: 1 << 30,
            processes_max: 100,
            ..Limits::default()
        };
        let group = groups.make(&limits).unwrap();
        let read = |file: &str| fs::read_to_string(group.dir.join(file)).unwrap();
        assert_eq!(read("memory.max"), "1073741824");
        assert_eq!(read("pids.max"), "100");
        assert_eq!(read("memory.oom.group"), "1");
        group.add(rustix::process::getpid()).unwrap();
        assert_eq!(read("cgroup.procs"), std::process::id().to_string());
        assert!(!group.is_out_of_memory() && !group.is_out_of_processes());
        fs::write(group.dir.join("memory.events"), "oom 1\noom_kill 1\n").unwrap();
        fs::write(group.dir.join("pids.events"), "max 3\n").unwrap();
        assert!(group.is_out_of_memory() && group.is_out_of_processes());
        let limits = Limits {
            processes_max: u64::MAX,
            ..limits
        };
        let another = groups.make(&limits).unwrap();
        assert!(!another.dir.join("pids.max").exists());
        assert_ne!(another.dir, group.dir);
    }
}
