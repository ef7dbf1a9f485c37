//! As whom and where a build runs: always the same, unless a second build is to show what the first one took in of that.
//!
//! What is varied is what can be varied without rights. The clock is not set: it differs by what passes between two builds,
//! and local time by a day, for the time zone is another one. Addresses of programs (ASLR) differ from run to run anyway.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How long a second build waits, so that clocks that are cut to seconds, or to two as in zip files, differ.
pub(crate) const PAUSE: Duration = Duration::from_secs(2);
/// What a build may need in its home, as a multiple of its sources: they are compressed, and objects are larger than text.
const ROOM_FACTOR: u64 = 40;

/// User, host, directories, time zone and processors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Surroundings {
    /// As every build has them.
    #[default]
    Usual,
    /// Different in everything: a build whose output depends on one of them gives another output.
    Other,
}

impl Surroundings {
    /// The user's number. Not 0: as root of a user namespace tar would try to change owners.
    pub const fn uid(self) -> u32 {
        match self {
            Self::Usual => 1000,
            Self::Other => 2001,
        }
    }

    /// The group's number.
    pub const fn gid(self) -> u32 {
        match self {
            Self::Usual => 1000,
            Self::Other => 2002,
        }
    }

    /// The name of user and group.
    pub const fn user(self) -> &'static str {
        match self {
            Self::Usual => "build",
            Self::Other => "other",
        }
    }

    /// The host name inside.
    pub const fn hostname(self) -> &'static str {
        match self {
            Self::Usual => "build",
            Self::Other => "elsewhere",
        }
    }

    /// The build's home and working directory, where sources and `files/` lie.
    pub const fn home(self) -> &'static str {
        match self {
            Self::Usual => "/home/build",
            Self::Other => "/home/another/directory",
        }
    }

    /// The time zone, as `TZ` has it. The other one is a day ahead, which is the most that POSIX allows.
    pub const fn time_zone(self) -> &'static str {
        match self {
            Self::Usual => "UTC",
            Self::Other => "ELSE-24",
        }
    }

    /// The number of jobs that `MAKEFLAGS` names. How many run is the job server's to say.
    pub(crate) fn jobs(self, jobs: usize) -> usize {
        match self {
            Self::Usual => jobs,
            Self::Other => jobs.saturating_add(1),
        }
    }

    /// Whether a build may use one processor only, where the usual one may use all.
    pub(crate) fn has_one_processor(self) -> bool {
        self == Self::Other
    }

    /// Whether sources and files are put into the home in the opposite order, which is the order in which many file systems
    /// list them.
    pub(crate) fn is_reversed(self) -> bool {
        self == Self::Other
    }

    /// Whether the root may be a stack. One of copies has other inode numbers, and lists directories in another order.
    pub(crate) fn may_stack(self) -> bool {
        self == Self::Usual
    }
}

/// What a home may take that lies in memory, in bytes, if so much is available and sources are so large; `None` if that is
/// not likely to be enough.
pub(crate) fn room_in_memory(available: u64, sources: u64) -> Option<u64> {
    let room = available / 2;
    (room > 0 && sources.saturating_mul(ROOM_FACTOR) <= room).then_some(room)
}

/// The memory that can be had without swapping, in bytes, from `/proc/meminfo`.
pub(crate) fn available(meminfo: &str) -> Option<u64> {
    let line = meminfo
        .lines()
        .find_map(|l| l.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1 << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_the_same_elsewhere() {
        let (usual, other) = (Surroundings::Usual, Surroundings::Other);
        assert_ne!(usual.uid(), other.uid());
        assert_ne!(usual.gid(), other.gid());
        assert_ne!(usual.user(), other.user());
        assert_ne!(usual.hostname(), other.hostname());
        assert_ne!(usual.home(), other.home());
        // A path of another length changes more than one of the same.
        assert_ne!(usual.home().len(), other.home().len());
        assert_ne!(usual.time_zone(), other.time_zone());
        assert_ne!(usual.jobs(2), other.jobs(2));
    }

    #[test]
    fn a_home_lies_in_memory_only_if_there_is_plenty() {
        let gib = 1 << 30;
        assert_eq!(room_in_memory(16 * gib, 100 << 20), Some(8 * gib));
        assert_eq!(room_in_memory(16 * gib, gib), None);
        assert_eq!(room_in_memory(16 * gib, 0), Some(8 * gib));
        assert_eq!(room_in_memory(0, 0), None);
        assert_eq!(room_in_memory(gib, u64::MAX), None);
    }

    #[test]
    fn available_memory_is_read_as_the_kernel_writes_it() {
        let text = "MemTotal:       24642164 kB\nMemFree: 1 kB\nMemAvailable:   21000000 kB\n";
        assert_eq!(available(text), Some(21_000_000 << 10));
        assert_eq!(available("MemTotal: 1 kB\n"), None);
        assert_eq!(available("MemAvailable: many\n"), None);
    }
}
