//! System calls that no build needs, refused.
//!
//! Namespaces take away what a build must not see; some things of the kernel are in no namespace, or are parts of it that
//! sandbox escapes went through. These calls are answered with the error that programs expect of a kernel without them, so
//! that they do without, as on many machines. It is a list of what is denied, as Nix, Docker and Flatpak have it: what is new
//! in the kernel works without a change here.
//!
//! * Keyrings are inherited by bubblewrap's children: a build could read keys of whoever started it.
//! * Sockets other than those of a network namespace or a file system (`AF_VSOCK` reaches the machine's own host).
//! * Set-uid bits and extended attributes: no output can have them, so what asks for them should hear it at once.
//!
//! The number of errors is the number of filters, for each knows one answer. A program for another processor than the host's
//! (32-bit code, that is) is killed: its calls have other numbers.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Seek as _, Write as _};

use rustix::fs::{MemfdFlags, memfd_create};
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch,
};

/// Set-uid and set-gid bits.
const SETID_BITS: [u64; 2] = [0o4000, 0o2000];
/// On x86-64 every call has a second number, for the ABI with short pointers.
const X32_BIT: i64 = 0x4000_0000;
/// What puts bytes into a terminal's input (`TIOCSTI`, `TIOCLINUX`).
const TERMINAL_INPUT: [u64; 2] = [0x5412, 0x541c];
/// Sockets that a network namespace or the file system keeps apart: local ones, IPv4, IPv6, and questions to the kernel.
const FAMILIES: [i32; 4] = [
    libc::AF_UNIX,
    libc::AF_INET,
    libc::AF_INET6,
    libc::AF_NETLINK,
];

/// As on a kernel that was built without them.
const UNKNOWN: [i64; 37] = [
    // Keyrings.
    libc::SYS_add_key,
    libc::SYS_keyctl,
    libc::SYS_request_key,
    // Programs in the kernel, and what watches it.
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_syslog,
    libc::SYS_lookup_dcookie,
    libc::SYS_fanotify_init,
    // What the most escapes went through; programs fall back to older calls.
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    // Mounts and namespaces.
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_setns,
    libc::SYS_open_by_handle_at,
    // The machine.
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_nfsservctl,
    libc::SYS_settimeofday,
    libc::SYS_vhangup,
];

/// As on a file system without extended attributes. Programs that copy them go on without.
const UNSUPPORTED: [i64; 6] = [
    libc::SYS_setxattr,
    libc::SYS_lsetxattr,
    libc::SYS_fsetxattr,
    libc::SYS_removexattr,
    libc::SYS_lremovexattr,
    libc::SYS_fremovexattr,
];
/// `setxattrat` and `removexattrat` of newer kernels, the same on every processor.
const UNSUPPORTED_NEW: [i64; 2] = [463, 466];
/// `fchmodat2` of newer kernels, the same on every processor.
const SYS_FCHMODAT2: i64 = 452;

/// Programs that bubblewrap puts before the build's system calls.
#[derive(Clone, Debug)]
pub(crate) struct Filters(Vec<Vec<u8>>);

impl Filters {
    /// Those for this processor; `None` for one that has no filters.
    pub(crate) fn new() -> Option<Self> {
        let arch = TargetArch::try_from(std::env::consts::ARCH).ok()?;
        Self::build(arch).ok()
    }

    fn build(arch: TargetArch) -> Result<Self, BackendError> {
        let denied = [
            (libc::ENOSYS, always(&UNKNOWN)),
            (
                libc::ENOTSUP,
                always(&[&UNSUPPORTED[..], &UNSUPPORTED_NEW].concat()),
            ),
            (libc::EPERM, forbidden()?),
            (libc::EAFNOSUPPORT, sockets()?),
        ];
        let programs = denied.into_iter().map(|(errno, mut rules)| {
            if arch == TargetArch::x86_64 {
                let again: Vec<_> = rules
                    .iter()
                    .map(|(nr, r)| (nr | X32_BIT, r.clone()))
                    .collect();
                rules.extend(again);
            }
            let answer = SeccompAction::Errno(errno.unsigned_abs());
            let filter = SeccompFilter::new(rules, SeccompAction::Allow, answer, arch)?;
            Ok(bytes(&BpfProgram::try_from(filter)?))
        });
        Ok(Self(programs.collect::<Result<_, _>>()?))
    }

    /// Each as an open file, to be read from its start by whoever inherits it.
    pub(crate) fn files(&self) -> io::Result<Vec<File>> {
        let file = |program: &Vec<u8>| {
            let mut file = File::from(memfd_create("filter", MemfdFlags::CLOEXEC)?);
            file.write_all(program)?;
            file.rewind()?;
            Ok(file)
        };
        self.0.iter().map(file).collect()
    }
}

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

fn always(calls: &[i64]) -> Rules {
    calls.iter().map(|call| (*call, Vec::new())).collect()
}

/// What is refused for an argument: set-uid and set-gid bits, and bytes for a terminal's input.
fn forbidden() -> Result<Rules, BackendError> {
    let mut rules = Rules::new();
    let mut modes = vec![
        (libc::SYS_fchmod, 1, None),
        (libc::SYS_fchmodat, 2, None),
        (SYS_FCHMODAT2, 2, None),
        // The mode means something only where a file may be made.
        (libc::SYS_openat, 3, Some(2)),
    ];
    #[cfg(target_arch = "x86_64")]
    modes.extend([
        (libc::SYS_chmod, 1, None),
        (libc::SYS_creat, 1, None),
        (libc::SYS_open, 2, Some(1)),
    ]);
    for (call, mode, flags) in modes {
        for bit in SETID_BITS {
            let mut conditions = vec![masked(mode, bit)?];
            if let Some(flags) = flags {
                conditions.push(masked(flags, libc::O_CREAT.unsigned_abs().into())?);
            }
            rules
                .entry(call)
                .or_default()
                .push(SeccompRule::new(conditions)?);
        }
    }
    for request in TERMINAL_INPUT {
        let is_it = SeccompCondition::new(1, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, request)?;
        rules
            .entry(libc::SYS_ioctl)
            .or_default()
            .push(SeccompRule::new(vec![is_it])?);
    }
    Ok(rules)
}

/// Whether an argument has a bit.
fn masked(argument: u8, bit: u64) -> Result<SeccompCondition, BackendError> {
    let has = SeccompCmpOp::MaskedEq(bit);
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, has, bit)
}

/// Sockets of every other family.
fn sockets() -> Result<Rules, BackendError> {
    let not = |family: &i32| {
        let family = family.unsigned_abs().into();
        SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, family)
    };
    let other = FAMILIES.iter().map(not).collect::<Result<Vec<_>, _>>()?;
    let rule = SeccompRule::new(other)?;
    let calls = [libc::SYS_socket, libc::SYS_socketpair];
    Ok(calls.map(|call| (call, vec![rule.clone()])).into())
}

/// As the kernel reads it (`struct sock_filter`), in this machine's byte order.
fn bytes(program: &BpfProgram) -> Vec<u8> {
    let instruction = |i: &seccompiler::sock_filter| {
        let [k0, k1, k2, k3] = i.k.to_ne_bytes();
        let [c0, c1] = i.code.to_ne_bytes();
        [c0, c1, i.jt, i.jf, k0, k1, k2, k3]
    };
    program.iter().flat_map(instruction).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_filters_for_the_processors_we_build_on() {
        for arch in [TargetArch::x86_64, TargetArch::aarch64] {
            let filters = Filters::build(arch).unwrap();
            assert_eq!(filters.0.len(), 4);
            // The kernel's own bound (BPF_MAXINSNS), in bytes.
            assert!(
                filters
                    .0
                    .iter()
                    .all(|p| p.len() % 8 == 0 && p.len() < 4096 * 8)
            );
        }
    }

    #[test]
    fn whoever_inherits_a_filter_reads_it_whole() {
        let filters = Filters::build(TargetArch::x86_64).unwrap();
        for (mut file, program) in filters.files().unwrap().into_iter().zip(&filters.0) {
            let mut read = Vec::new();
            io::Read::read_to_end(&mut file, &mut read).unwrap();
            assert_eq!(&read, program);
        }
    }
}
