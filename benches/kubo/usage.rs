//! What processes cost: time, processor time and memory, as `/proc` counts them.

use std::fs;
use std::ops::Add;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// How often a running command is looked at: its peak of memory can be read only while it lives.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// What a process or several used.
#[derive(Clone, Copy, Debug, Default)]
pub struct Used {
    /// User and system time, in seconds.
    pub cpu_secs: f64,
    /// Peak of resident memory, in MiB.
    pub peak_mib: f64,
}

impl Add for Used {
    type Output = Self;

    /// Both at once.
    fn add(self, other: Self) -> Self {
        Self {
            cpu_secs: self.cpu_secs + other.cpu_secs,
            peak_mib: self.peak_mib + other.peak_mib,
        }
    }
}

/// A daemon that is watched from a moment on.
#[derive(Clone, Copy, Debug)]
pub struct Watched {
    pid: u32,
    cpu_before: f64,
}

impl Watched {
    /// Counts its processor time from now on.
    pub fn from_now(pid: u32) -> Self {
        Self {
            pid,
            cpu_before: cpu_secs(pid),
        }
    }

    /// What it used since then; its peak of memory is that of its whole life.
    pub fn used(&self) -> Used {
        Used {
            cpu_secs: cpu_secs(self.pid) - self.cpu_before,
            peak_mib: memory_mib(self.pid, "VmHWM:").unwrap(),
        }
    }
}

/// Runs a command that must succeed; how long it took, in seconds, and what it used.
pub fn run(mut command: Command) -> (f64, Used) {
    let before = children_cpu_secs();
    let start = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut peak_mib: f64 = 0.0;
    let status = loop {
        // Nothing to be read any more once it has ended.
        peak_mib = peak_mib.max(memory_mib(child.id(), "VmHWM:").unwrap_or_default());
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        thread::sleep(LOOK_EVERY);
    };
    let secs = start.elapsed().as_secs_f64();
    assert!(status.success(), "{command:?}: {status}");
    let cpu_secs = children_cpu_secs() - before;
    (secs, Used { cpu_secs, peak_mib })
}

/// As [`run`], for a command that may start others: the memory is that of all its processes together, at the moment when they
/// had most of it.
pub fn run_whole(command: &mut Command) -> (f64, Used) {
    let before = children_cpu_secs();
    let start = Instant::now();
    let quiet = command.stdin(Stdio::null()).stdout(Stdio::null());
    let mut child = quiet.stderr(Stdio::null()).spawn().unwrap();
    let mut peak_mib: f64 = 0.0;
    let status = loop {
        peak_mib = peak_mib.max(whole_mib(child.id()));
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        thread::sleep(LOOK_EVERY);
    };
    let secs = start.elapsed().as_secs_f64();
    assert!(status.success(), "{command:?}: {status}");
    let cpu_secs = children_cpu_secs() - before;
    (secs, Used { cpu_secs, peak_mib })
}

/// What a process and its descendants have in memory. Some of them may end meanwhile.
fn whole_mib(pid: u32) -> f64 {
    let own = memory_mib(pid, "VmRSS:").unwrap_or_default();
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    let children = children.unwrap_or_default();
    let pids = children
        .split_whitespace()
        .filter_map(|pid| pid.parse().ok());
    own + pids.map(whole_mib).sum::<f64>()
}

/// User and system time of a process so far, in seconds.
pub fn cpu_secs(pid: u32) -> f64 {
    ticks(&pid.to_string(), 11)
}

/// The same of all children that have ended. Nothing else ends while one is measured.
fn children_cpu_secs() -> f64 {
    ticks("self", 13)
}

/// The sum of two neighbouring counters of `/proc/PID/stat`, in seconds.
fn ticks(process: &str, first: usize) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    // The second field is a name in parentheses, which may hold anything.
    let (_, fields) = stat.rsplit_once(')').unwrap();
    let fields: Vec<f64> = fields
        .split_whitespace()
        .map(|field| field.parse().unwrap_or_default())
        .collect();
    (fields[first] + fields[first + 1]) / rustix::param::clock_ticks_per_second() as f64
}

/// A line of `/proc/PID/status`, in MiB.
pub fn memory_mib(pid: u32, label: &str) -> Option<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(label))?;
    let kib: f64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib / 1024.0)
}
