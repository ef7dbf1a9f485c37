//! What the system says of this process, under the names that every Prometheus client library uses.

use std::fs;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// This process. What the system does not tell is `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Process {
    /// User and system time in seconds.
    pub(super) cpu_secs: Option<f64>,
    /// Resident memory in bytes.
    pub(super) resident_bytes: Option<u64>,
    /// Virtual memory in bytes.
    pub(super) virtual_bytes: Option<u64>,
    /// Open file descriptors.
    pub(super) open_fds: Option<u64>,
    /// How many there may be.
    pub(super) max_fds: Option<u64>,
    /// When it started, in seconds since 1970.
    pub(super) started_unix_secs: Option<f64>,
}

impl Process {
    /// This process now.
    pub(super) fn now() -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
        let uptime = fs::read_to_string("/proc/uptime").unwrap_or_default();
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
        let since_boot: Option<f64> = uptime
            .split_whitespace()
            .next()
            .and_then(|s| s.parse().ok());
        let ticks = rustix::param::clock_ticks_per_second() as f64;
        let times = times(&stat);
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let started = |started: u64| {
            let age = since_boot? - started as f64 / ticks;
            Some((now.saturating_sub(Duration::from_secs_f64(age.max(0.0)))).as_secs_f64())
        };
        Self {
            cpu_secs: times.map(|(cpu, _)| cpu as f64 / ticks),
            resident_bytes: kibibytes(&status, "VmRSS:"),
            virtual_bytes: kibibytes(&status, "VmSize:"),
            open_fds: fs::read_dir("/proc/self/fd")
                .ok()
                .map(|fds| fds.count() as u64),
            max_fds: limit.current,
            started_unix_secs: times.and_then(|(_, at)| started(at)),
        }
    }
}

/// A line such as `VmRSS: 1234 kB`, in bytes.
fn kibibytes(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    let number: u64 = line.split_whitespace().next()?.parse().ok()?;
    number.checked_mul(1024)
}

/// Processor time and start in clock ticks. The second field is a name that may hold blanks and brackets, so counting begins
/// behind its end: there the state is the third field (proc_pid_stat(5)).
fn times(stat: &str) -> Option<(u64, u64)> {
    let fields: Vec<_> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    Some((field(14)? + field(15)?, field(22)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_blanks_and_brackets_does_not_shift_the_fields() {
        let rest = "S 1 2 3 4 5 6 7 8 9 10 70 30 11 12 13 14 15 16 4711 17";
        let stat = format!("42 (a ) b) {rest}");
        assert_eq!(times(&stat), Some((100, 4711)));
        assert_eq!(times("42 (a) S 1"), None);
    }

    #[test]
    fn this_process_has_memory_and_files() {
        let process = Process::now();
        assert!(process.resident_bytes > Some(1 << 20), "{process:?}");
        assert!(process.open_fds > Some(2), "{process:?}");
        assert!(process.cpu_secs.is_some() && process.started_unix_secs > Some(1e9));
    }
}
