//! What of `/proc` is covered inside the sandbox.
//!
//! The kernel asks no capability for many files there, only that their owner writes: whoever runs the program as root is
//! that owner inside, too, whatever number the build user has. So `/proc/sys` and all other directories that are not
//! about processes become read-only (bubblewrap does that for some of them only), writable files are covered, and what
//! tells of this machine's hardware is hidden, for outputs must not depend on it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::request::Mount;

/// Directories about hardware; nothing that is built needs them.
const HIDDEN_DIRS: [&str; 4] = ["acpi", "asound", "driver", "scsi"];
/// Files about hardware, other programs or the kernel's own addresses.
const HIDDEN_FILES: [&str; 10] = [
    "interrupts",
    "kallsyms",
    "kcore",
    "keys",
    "key-users",
    "latency_stats",
    "sched_debug",
    "slabinfo",
    "timer_list",
    "timer_stats",
];
const WRITABLE: u32 = 0o222;

/// Something directly below `/proc`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    name: String,
    is_dir: bool,
    mode: u32,
}

/// The covers for this machine's `/proc`.
pub(crate) fn masks() -> Vec<Mount> {
    let mut entries = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        // The entry itself: what is a link there leads to a process.
        if let (Ok(name), Ok(metadata)) = (
            entry.file_name().into_string(),
            fs::symlink_metadata(entry.path()),
        ) && !metadata.is_symlink()
        {
            let (is_dir, mode) = (metadata.is_dir(), metadata.permissions().mode());
            entries.push(Entry { name, is_dir, mode });
        }
    }
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    entries.iter().filter_map(cover).collect()
}

fn cover(entry: &Entry) -> Option<Mount> {
    let name = entry.name.as_str();
    let at = Path::new("/proc").join(name);
    let is_process = name.bytes().all(|b| b.is_ascii_digit());
    if entry.is_dir && HIDDEN_DIRS.contains(&name) {
        Some(Mount::Tmpfs { at })
    } else if entry.is_dir && !is_process {
        Some(Mount::ReadOnly {
            from: at.clone(),
            at,
        })
    } else if !entry.is_dir && (HIDDEN_FILES.contains(&name) || entry.mode & WRITABLE != 0) {
        Some(Mount::ReadOnly {
            from: "/dev/null".into(),
            at,
        })
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cover_of(name: &str, is_dir: bool, mode: u32) -> Option<Mount> {
        cover(&Entry {
            name: name.into(),
            is_dir,
            mode,
        })
    }

    #[test]
    fn settings_are_read_only_hardware_is_hidden_and_processes_are_left_alone() {
        let read_only = |path: &str| {
            Some(Mount::ReadOnly {
                from: path.into(),
                at: path.into(),
            })
        };
        assert_eq!(cover_of("sys", true, 0o555), read_only("/proc/sys"));
        assert_eq!(cover_of("fs", true, 0o555), read_only("/proc/fs"));
        assert_eq!(
            cover_of("acpi", true, 0o555),
            Some(Mount::Tmpfs {
                at: "/proc/acpi".into()
            })
        );
        assert_eq!(cover_of("1", true, 0o555), None);
        assert_eq!(cover_of("meminfo", false, 0o444), None);
    }

    #[test]
    fn every_writable_file_is_covered_whether_we_know_it_or_not() {
        let covered = |path: &str| {
            Some(Mount::ReadOnly {
                from: "/dev/null".into(),
                at: path.into(),
            })
        };
        assert_eq!(
            cover_of("sysrq-trigger", false, 0o200),
            covered("/proc/sysrq-trigger")
        );
        assert_eq!(cover_of("new", false, 0o644), covered("/proc/new"));
        assert_eq!(cover_of("kcore", false, 0o400), covered("/proc/kcore"));
    }

    #[test]
    fn this_machines_settings_are_among_what_is_covered() {
        let sys = Path::new("/proc/sys");
        assert!(masks().contains(&Mount::ReadOnly {
            from: sys.into(),
            at: sys.into()
        }));
    }
}
