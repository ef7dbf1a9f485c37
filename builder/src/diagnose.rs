//! Why a sandbox cannot be had, told from what the machine says about itself.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::probe::VERSION_MIN;

const SETUID: u32 = 0o4000;

/// No build can be sandboxed on this machine as it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("builds cannot be sandboxed: {finding}")]
pub struct SandboxUnavailable {
    /// What is in the way, as a clause.
    pub finding: String,
    /// The setting behind it, as `name = value`, where one was found.
    pub setting: Option<String>,
    /// Commands or steps that help, in the order in which to try them.
    pub fix: Vec<String>,
}

/// What a machine says about itself. All of it can be wrong or missing; none of it is needed on a machine that works.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct HostFacts {
    /// Bubblewrap's version, when it was found and says.
    pub bwrap: Option<(u32, u32)>,
    /// What bubblewrap printed when it failed; empty when it was not run.
    pub output: String,
    /// The path of bubblewrap, if it is installed setuid.
    pub setuid: Option<PathBuf>,
    /// Whether we are root here.
    pub root: bool,
    /// Whether the kernel has user namespaces at all.
    pub user_namespaces: bool,
    /// `user.max_user_namespaces`
    pub max_user_namespaces: Option<u64>,
    /// `kernel.unprivileged_userns_clone`
    pub unprivileged_userns_clone: Option<u64>,
    /// `kernel.apparmor_restrict_unprivileged_userns`
    pub apparmor_restrict: Option<u64>,
    /// The container we are in.
    pub container: Option<&'static str>,
    /// `ID` and `ID_LIKE` of the distribution.
    pub distribution: Vec<String>,
}

impl HostFacts {
    pub(crate) fn read(bwrap: Option<(u32, u32)>, path: Option<&Path>, output: String) -> Self {
        let os_release = fs::read_to_string("/etc/os-release")
            .or_else(|_| fs::read_to_string("/usr/lib/os-release"))
            .unwrap_or_default();
        Self {
            bwrap,
            output,
            setuid: path.filter(|p| is_setuid(p)).map(Path::to_owned),
            root: rustix::process::geteuid().is_root(),
            user_namespaces: Path::new("/proc/self/ns/user").exists(),
            max_user_namespaces: sysctl("user/max_user_namespaces"),
            unprivileged_userns_clone: sysctl("kernel/unprivileged_userns_clone"),
            apparmor_restrict: sysctl("kernel/apparmor_restrict_unprivileged_userns"),
            container: container(),
            distribution: distribution(&os_release),
        }
    }
}

/// Names the most likely reason. The order matters: what is certain comes before what is merely usual.
pub(crate) fn diagnose(facts: &HostFacts) -> SandboxUnavailable {
    if facts.output.is_empty() {
        return match facts.bwrap {
            None => missing(facts),
            Some(version) => too_old(version, facts),
        };
    }
    if !facts.user_namespaces {
        return no_user_namespaces(&facts.output);
    }
    if facts.max_user_namespaces == Some(0) {
        let fix = persistent_sysctl("user.max_user_namespaces", 15_000);
        return setting(
            "user.max_user_namespaces = 0",
            "user namespaces are switched off",
            fix,
        );
    }
    if facts.unprivileged_userns_clone == Some(0) && !facts.root {
        let fix = persistent_sysctl("kernel.unprivileged_userns_clone", 1);
        let finding = "user namespaces are reserved to root";
        return setting("kernel.unprivileged_userns_clone = 0", finding, fix);
    }
    if facts.apparmor_restrict == Some(1) && !facts.root {
        return apparmor();
    }
    match facts.container {
        Some(container) => in_container(container, &facts.output),
        None => match &facts.setuid {
            Some(path) => setuid(path, &facts.output),
            None => unknown(&facts.output),
        },
    }
}

fn missing(facts: &HostFacts) -> SandboxUnavailable {
    SandboxUnavailable {
        finding: "the program `bwrap` (bubblewrap) is not installed".into(),
        setting: None,
        fix: install(facts),
    }
}

fn too_old((major, minor): (u32, u32), facts: &HostFacts) -> SandboxUnavailable {
    let (need_major, need_minor) = VERSION_MIN;
    let finding =
        format!("bubblewrap {major}.{minor} is too old, {need_major}.{need_minor} is needed");
    SandboxUnavailable {
        finding,
        setting: None,
        fix: install(facts),
    }
}

/// The command of the distribution we are on, or those of all.
fn install(facts: &HostFacts) -> Vec<String> {
    let commands = [
        (&["debian", "ubuntu"][..], "sudo apt-get install bubblewrap"),
        (
            &["fedora", "rhel", "centos"][..],
            "sudo dnf install bubblewrap",
        ),
        (&["arch"][..], "sudo pacman -S bubblewrap"),
        (&["alpine"][..], "sudo apk add bubblewrap"),
        (&["suse", "opensuse"][..], "sudo zypper install bubblewrap"),
    ];
    let is_ours = |ids: &[&str]| {
        ids.iter()
            .any(|id| facts.distribution.iter().any(|d| d == id))
    };
    let ours: Vec<_> = commands.iter().filter(|(ids, _)| is_ours(ids)).collect();
    let chosen = if ours.is_empty() {
        commands.iter().collect()
    } else {
        ours
    };
    chosen
        .into_iter()
        .map(|(_, command)| (*command).to_owned())
        .collect()
}

fn no_user_namespaces(output: &str) -> SandboxUnavailable {
    SandboxUnavailable {
        finding: format!(
            "this kernel has no user namespaces ({})",
            first_line(output)
        ),
        setting: Some("CONFIG_USER_NS is not set".into()),
        fix: vec!["boot a kernel that was compiled with CONFIG_USER_NS=y".into()],
    }
}

fn setting(setting: &str, finding: &str, fix: Vec<String>) -> SandboxUnavailable {
    SandboxUnavailable {
        finding: finding.into(),
        setting: Some(setting.into()),
        fix,
    }
}

fn persistent_sysctl(name: &str, value: u64) -> Vec<String> {
    vec![
        format!("sudo sysctl -w {name}={value}"),
        format!("echo '{name} = {value}' | sudo tee /etc/sysctl.d/60-bubblewrap.conf"),
    ]
}

fn apparmor() -> SandboxUnavailable {
    let profile = r"printf 'abi <abi/4.0>,\ninclude <tunables/global>\nprofile bwrap /usr/bin/bwrap flags=(unconfined) {\n  userns,\n}\n' | sudo tee /etc/apparmor.d/bwrap";
    SandboxUnavailable {
        finding: "AppArmor keeps ordinary programs from making user namespaces".into(),
        setting: Some("kernel.apparmor_restrict_unprivileged_userns = 1".into()),
        fix: vec![
            format!("{profile} && sudo apparmor_parser -r /etc/apparmor.d/bwrap"),
            "or, for all programs: sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"
                .into(),
        ],
    }
}

fn in_container(container: &str, output: &str) -> SandboxUnavailable {
    let fix = match container {
        "docker" => vec![
            "start the container with --security-opt seccomp=unconfined --security-opt \
             apparmor=unconfined --security-opt systempaths=unconfined",
            "or with --privileged",
        ],
        "podman" => vec![
            "start the container with --security-opt seccomp=unconfined --security-opt unmask=ALL",
            "or with --privileged",
        ],
        _ => {
            vec!["allow user namespaces and a full /proc in this container, or build outside of it"]
        }
    };
    SandboxUnavailable {
        finding: format!(
            "this {container} container forbids it ({})",
            first_line(output)
        ),
        setting: None,
        fix: fix.into_iter().map(Into::into).collect(),
    }
}

/// A setuid bubblewrap makes its namespaces as root and then refuses some of the options that a build needs.
fn setuid(path: &Path, output: &str) -> SandboxUnavailable {
    SandboxUnavailable {
        finding: format!(
            "the setuid bubblewrap does not work here ({})",
            first_line(output)
        ),
        setting: Some(format!("`{}` is setuid", path.display())),
        fix: vec![format!("sudo chmod u-s {}", path.display())],
    }
}

fn is_setuid(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|m| m.permissions().mode() & SETUID != 0)
}

fn unknown(output: &str) -> SandboxUnavailable {
    SandboxUnavailable {
        finding: format!("bubblewrap does not work here ({})", first_line(output)),
        setting: None,
        fix: vec![
            "see what it says to: bwrap --unshare-user --unshare-net --ro-bind / / true".into(),
            "a machine or container that allows user namespaces is needed; nested sandboxes are not enough"
                .into(),
        ],
    }
}

fn first_line(output: &str) -> &str {
    output.lines().next().unwrap_or_default()
}

fn sysctl(name: &str) -> Option<u64> {
    fs::read_to_string(Path::new("/proc/sys").join(name))
        .ok()?
        .trim()
        .parse()
        .ok()
}

fn container() -> Option<&'static str> {
    if Path::new("/run/.containerenv").exists() {
        Some("podman")
    } else if Path::new("/.dockerenv").exists() {
        Some("docker")
    } else if Path::new("/run/systemd/container").exists() {
        Some("systemd-nspawn or LXC")
    } else {
        None
    }
}

/// `ID` first, then the words of `ID_LIKE`, from an `os-release` file.
fn distribution(os_release: &str) -> Vec<String> {
    let value = |key: &str| {
        os_release
            .lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
            .map(|value| value.trim_matches('"').to_owned())
            .unwrap_or_default()
    };
    let all = format!("{} {}", value("ID"), value("ID_LIKE"));
    all.split_whitespace().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine on which nothing is known to be in the way.
    fn blocked(output: &str) -> HostFacts {
        HostFacts {
            bwrap: Some((0, 8)),
            output: output.into(),
            user_namespaces: true,
            max_user_namespaces: Some(96_365),
            ..HostFacts::default()
        }
    }

    #[test]
    fn a_missing_bubblewrap_is_installed_the_distributions_way() {
        let os_release = "NAME=\"Linux Mint\"\nID=linuxmint\nID_LIKE=\"ubuntu debian\"\n";
        let facts = HostFacts {
            distribution: distribution(os_release),
            ..HostFacts::default()
        };
        assert_eq!(diagnose(&facts).fix, ["sudo apt-get install bubblewrap"]);
        assert_eq!(diagnose(&HostFacts::default()).fix.len(), 5);
        let alpine = HostFacts {
            distribution: distribution("ID=alpine"),
            ..HostFacts::default()
        };
        assert_eq!(diagnose(&alpine).fix, ["sudo apk add bubblewrap"]);
    }

    #[test]
    fn each_setting_is_named_with_the_command_that_changes_it() {
        let facts = HostFacts {
            max_user_namespaces: Some(0),
            ..blocked("bwrap: No space left")
        };
        let found = diagnose(&facts);
        assert_eq!(
            found.setting.as_deref(),
            Some("user.max_user_namespaces = 0")
        );
        assert_eq!(
            found.fix[0],
            "sudo sysctl -w user.max_user_namespaces=15000"
        );

        let facts = HostFacts {
            unprivileged_userns_clone: Some(0),
            ..blocked("bwrap: x")
        };
        let found = diagnose(&facts);
        assert_eq!(
            found.setting.as_deref(),
            Some("kernel.unprivileged_userns_clone = 0")
        );
        assert_eq!(
            found.fix[0],
            "sudo sysctl -w kernel.unprivileged_userns_clone=1"
        );

        let denied = "bwrap: setting up uid map: Permission denied";
        let facts = HostFacts {
            apparmor_restrict: Some(1),
            ..blocked(denied)
        };
        let found = diagnose(&facts);
        assert!(
            found
                .setting
                .unwrap()
                .contains("apparmor_restrict_unprivileged_userns")
        );
        assert!(found.fix[0].contains("/etc/apparmor.d/bwrap"));
    }

    #[test]
    fn settings_that_do_not_bind_root_are_not_blamed_when_root_fails() {
        let facts = HostFacts {
            root: true,
            unprivileged_userns_clone: Some(0),
            apparmor_restrict: Some(1),
            container: Some("docker"),
            ..blocked("bwrap: Can't mount proc on /newroot/proc: Operation not permitted")
        };
        let found = diagnose(&facts);
        assert!(
            found.finding.contains("docker container"),
            "{}",
            found.finding
        );
        assert!(found.finding.contains("Can't mount proc"));
        assert!(found.fix[0].contains("systempaths=unconfined"));
    }

    #[test]
    fn kernels_without_namespaces_old_bubblewraps_and_unknown_troubles_are_told_apart() {
        let facts = HostFacts {
            user_namespaces: false,
            ..blocked("bwrap: no namespaces")
        };
        assert!(diagnose(&facts).setting.unwrap().contains("CONFIG_USER_NS"));
        let facts = HostFacts {
            bwrap: Some((0, 4)),
            ..HostFacts::default()
        };
        assert!(
            diagnose(&facts)
                .finding
                .contains("0.4 is too old, 0.5 is needed")
        );
        assert!(
            diagnose(&blocked("bwrap: odd\nmore"))
                .finding
                .ends_with("(bwrap: odd)")
        );
    }
}
