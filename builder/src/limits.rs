//! What a build may take, and how it can end.

use std::time::Duration;

/// What a build may take before it is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// From start to end.
    pub wall: Duration,
    /// Without a byte of output.
    pub silence: Duration,
    /// Output in bytes.
    pub log_bytes_max: u64,
    /// What the disk of the scratch directory always has to have more of, in bytes.
    pub disk_free_min: u64,
    /// Memory of all its processes together, in bytes.
    pub memory_max: u64,
    /// Processes and threads at once.
    pub processes_max: u64,
}

impl Limits {
    /// None at all, for what a user does by hand.
    pub(crate) const NONE: Self = Self {
        wall: Duration::MAX,
        silence: Duration::MAX,
        log_bytes_max: u64::MAX,
        disk_free_min: 0,
        memory_max: u64::MAX,
        processes_max: u64::MAX,
    };
}

impl Default for Limits {
    /// Twelve hours (the largest compilers on a slow machine), one hour of silence (a long link), 256 MiB of log (a
    /// hundred times the log of a large build; a loop that prints fills it in seconds), and 128 MiB of the disk for everybody
    /// else (what a fast disk takes between two looks at it). All memory of the machine but an eighth, and 8192 processes: ten times
    /// what the largest builds run on the largest machines.
    fn default() -> Self {
        Self {
            wall: Duration::from_secs(12 * 3600),
            silence: Duration::from_secs(3600),
            log_bytes_max: 256 << 20,
            disk_free_min: 128 << 20,
            memory_max: machine_memory().saturating_mul(7) / 8,
            processes_max: 8192,
        }
    }
}

/// The memory of this machine in bytes.
fn machine_memory() -> u64 {
    let info = rustix::system::sysinfo();
    (info.totalram as u64).saturating_mul(info.mem_unit.into())
}

/// How a build ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// By itself, with this status; 128 and the signal's number when a signal ended it.
    Exited(i32),
    /// Killed: [`Limits::wall`].
    TookTooLong(Duration),
    /// Killed: [`Limits::silence`].
    Silent(Duration),
    /// Killed: [`Limits::log_bytes_max`].
    LoggedTooMuch(u64),
    /// Killed: [`Limits::disk_free_min`].
    FilledTheDisk(u64),
    /// Killed: [`Limits::memory_max`].
    TookTooMuchMemory(u64),
    /// Killed: [`Limits::processes_max`].
    TooManyProcesses(u64),
    /// Killed because the caller said so.
    Cancelled,
}
