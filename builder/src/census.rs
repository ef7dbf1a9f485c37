//! What runs in a sandbox and how much memory it has, counted from outside: the way that works on every machine.
//!
//! A sandbox has a process file system of its own, which lists nothing but its own processes. It is reached through the root
//! directory of the sandbox's process 1, so a look costs as much as the build has processes, however many the machine has.

use std::ffi::CStr;
use std::fs::File;
use std::io::Read as _;
use std::os::fd::OwnedFd;

use rustix::fs::{CWD, Dir, Mode, OFlags, fstat, openat, stat};
use rustix::process::Pid;

/// Longest status of a process that is read, in bytes: the kernel writes about 1500.
const STATUS_BYTES_MAX: u64 = 8 << 10;

/// A sandbox's processes.
#[derive(Debug)]
pub(crate) struct Census {
    /// The sandbox's own process file system.
    processes: OwnedFd,
}

/// What a sandbox's processes take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Taken {
    /// Processes and threads.
    pub(crate) tasks: u64,
    /// Memory in bytes. What several processes share is counted for each.
    pub(crate) memory: u64,
}

impl Census {
    /// Of the sandbox whose process 1 has this number outside; `None` as long as it is not set up.
    pub(crate) fn of(first: Pid) -> Option<Self> {
        let path = format!("/proc/{}/root/proc", first.as_raw_nonzero());
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let processes = openat(CWD, path, flags, Mode::empty()).ok()?;
        // Before it has a root of its own, it sees ours.
        let (own, ours) = (fstat(&processes).ok()?, stat("/proc").ok()?);
        (own.st_dev != ours.st_dev).then_some(Self { processes })
    }

    /// What its processes take now. Counts no further than to `tasks_max`, for more is too much anyway.
    pub(crate) fn take(&self, tasks_max: u64) -> Taken {
        let mut taken = Taken::default();
        self.each("status", |text| {
            taken.tasks += field(text, "Threads:").unwrap_or(1);
            taken.memory += field(text, "VmRSS:").unwrap_or(0) << 10;
            taken.tasks <= tasks_max
        });
        taken
    }

    /// The memory in bytes where what is shared is counted once. The kernel looks at every page for that, so it is only asked
    /// when it matters.
    pub(crate) fn proportional(&self) -> u64 {
        let mut bytes = 0;
        self.each("smaps_rollup", |text| {
            bytes += field(text, "Pss:").unwrap_or(0) << 10;
            true
        });
        bytes
    }

    /// Shows a file of each process until told to stop. Processes come and go meanwhile; that is none of our concern.
    fn each(&self, file: &str, mut show: impl FnMut(&str) -> bool) {
        let Ok(mut dir) = Dir::read_from(&self.processes) else {
            return;
        };
        while let Some(Ok(entry)) = dir.read() {
            let Some(pid) = number(entry.file_name()) else {
                continue;
            };
            let Some(text) = self.read(&format!("{pid}/{file}")) else {
                continue;
            };
            if !show(&text) {
                return;
            }
        }
    }

    fn read(&self, path: &str) -> Option<String> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let file = openat(&self.processes, path, flags, Mode::empty()).ok()?;
        let mut bytes = Vec::new();
        let mut file = File::from(file).take(STATUS_BYTES_MAX);
        file.read_to_end(&mut bytes).ok()?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }
}

fn number(name: &CStr) -> Option<u32> {
    name.to_str().ok()?.parse().ok()
}

/// The number behind a name, whatever its unit.
fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_the_kernel_writes_them() {
        let text = "Name:\tsh\nVmRSS:\t    1204 kB\nThreads:\t3\n";
        assert_eq!(field(text, "VmRSS:"), Some(1204));
        assert_eq!(field(text, "Threads:"), Some(3));
        // A kernel thread, or a process that is ending, has no memory.
        assert_eq!(field("Name:\tx\n", "VmRSS:"), None);
        assert_eq!(number(c"4242"), Some(4242));
        assert_eq!(number(c"self"), None);
    }

    #[test]
    fn what_sees_our_own_processes_is_no_sandbox() {
        assert!(Census::of(rustix::process::getpid()).is_none());
    }
}
