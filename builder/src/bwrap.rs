//! A [`BuildRequest`] as a bubblewrap command line. Pure, so that the sandbox can be reviewed and pinned as text.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use crate::request::{BuildRequest, InMemory, Mount, Stack};

/// Mounts the stack in `$2` with the options `$3`, and becomes what follows. Newer `mount` programs hand options on one by
/// one unless told not to, and the kernel takes only short ones then.
const STACKING: &str = "LIBMOUNT_FORCE_MOUNT2=always \"$1\" -t overlay -o \"$3\" overlay \"$2\" || exit; shift 3; exec \"$@\"";
/// Mounts memory on `$3` with the options `$4`, copies `$2` there, and becomes what follows.
const REMEMBERING: &str = "\"$1\" -t tmpfs -o \"$4\" tmpfs \"$3\" && cp -a \"$2/.\" \"$3/\" || exit; shift 4; exec \"$@\"";

/// The host's programs that stack layers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stacker {
    /// A shell.
    pub sh: PathBuf,
    /// `mount`, which is of no use outside of a namespace of its own.
    pub mount: PathBuf,
}

/// What the installed bubblewrap can do beyond the oldest one we support (0.5, for `--clearenv`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features {
    /// `--disable-userns` (0.8 and later): the build cannot make user namespaces of its own, which is the part of the
    /// kernel that sandbox escapes most often went through.
    pub disable_userns: bool,
    /// `--add-seccomp-fd` (0.6.1 and later): system calls that no build needs are refused.
    pub seccomp: bool,
}

/// The arguments of bubblewrap, without the program's name.
pub fn argv(request: &BuildRequest, features: Features) -> Vec<OsString> {
    let mut argv = Argv::default();
    for namespace in ["user", "net", "pid", "ipc", "uts"] {
        argv.push([format!("--unshare-{namespace}")]);
    }
    // Kernels without cgroup namespaces exist; what they hide (the name of our own cgroup) is worth no failure.
    argv.push(["--unshare-cgroup-try"]);
    if features.disable_userns {
        argv.push(["--disable-userns"]);
    }
    argv.push(["--die-with-parent"]);
    // A terminal of the user's could be typed into. Where filters refuse that, a shell may have it, and with it ^C and jobs.
    if !(request.interactive && features.seccomp) {
        argv.push(["--new-session"]);
    }
    argv.push(["--clearenv"]);
    let as_whom = request.surroundings;
    let (uid, gid) = (as_whom.uid().to_string(), as_whom.gid().to_string());
    argv.push(["--uid", &uid, "--gid", &gid]);
    argv.push(["--hostname", as_whom.hostname()]);
    for mount in &request.mounts {
        argv.mount(mount);
    }
    argv.push(["--remount-ro", "/"]);
    argv.push([OsStr::new("--chdir"), request.directory.as_os_str()]);
    for (name, value) in &request.env {
        argv.push([OsStr::new("--setenv"), name, value]);
    }
    argv.push(["--"]);
    argv.push(&request.command);
    argv.0
}

/// The arguments of an outer bubblewrap, in whose namespaces the layers are stacked before `inner`, a whole command line, is
/// run. Whoever is root of user and mount namespaces may do that; the host sees nothing of it.
pub fn stacking(stack: &Stack, stacker: &Stacker, inner: Vec<OsString>) -> Vec<OsString> {
    let mut argv = outer(&stack.dir, stacker, STACKING);
    argv.push([stacker.mount.as_os_str(), OsStr::new(stack.place())]);
    argv.push([stack.options()]);
    argv.push(inner);
    argv.0
}

/// The arguments of an outer bubblewrap, in whose namespaces a directory lies in memory while `inner` is run.
pub fn remembering(in_memory: &InMemory, stacker: &Stacker, inner: Vec<OsString>) -> Vec<OsString> {
    let mut argv = outer(Path::new("/"), stacker, REMEMBERING);
    argv.push([stacker.mount.as_os_str(), in_memory.from.as_os_str()]);
    argv.push([in_memory.dir.as_os_str()]);
    argv.push([format!("mode=755,size={}", in_memory.bytes_max)]);
    argv.push(inner);
    argv.0
}

/// A bubblewrap that sees the whole host and is root of user and mount namespaces of its own, where a shell runs a script.
fn outer(directory: &Path, stacker: &Stacker, script: &str) -> Argv {
    let mut argv = Argv::default();
    argv.push(["--unshare-user", "--uid", "0", "--gid", "0"]);
    // The kernel works in the layers with the rights of who mounted them, so these must be an owner's whole rights.
    argv.push(["--cap-add", "ALL", "--die-with-parent"]);
    argv.push(["--dev-bind", "/", "/"]);
    argv.push([OsStr::new("--chdir"), directory.as_os_str()]);
    argv.push([OsStr::new("--"), stacker.sh.as_os_str()]);
    argv.push(["-c", script, "sh"]);
    argv
}

#[derive(Default)]
struct Argv(Vec<OsString>);

impl Argv {
    fn push<T: Into<OsString>>(&mut self, arguments: impl IntoIterator<Item = T>) {
        self.0.extend(arguments.into_iter().map(Into::into));
    }

    fn mount(&mut self, mount: &Mount) {
        match mount {
            Mount::Writable { from, at } => self.pair("--bind", from, at),
            Mount::ReadOnly { from, at } => self.pair("--ro-bind", from, at),
            Mount::Symlink { target, at } => self.pair("--symlink", target, at),
            Mount::Tmpfs { at } => self.push([OsStr::new("--tmpfs"), at.as_os_str()]),
            Mount::Proc => self.push(["--proc", "/proc"]),
            Mount::Dev => self.push(["--dev", "/dev"]),
        }
    }

    fn pair(&mut self, option: &str, first: &Path, second: &Path) {
        self.push([OsStr::new(option), first.as_os_str(), second.as_os_str()]);
    }
}

#[cfg(test)]
mod tests {
    use crate::surroundings::Surroundings;

    use super::*;

    #[test]
    fn other_surroundings_change_who_and_where_and_nothing_else() {
        let request = |s| BuildRequest::for_recipe(Path::new("/b"), Vec::new(), 2, s);
        let text = |s| {
            let argv = argv(&request(s), Features::default());
            let argv: Vec<_> = argv.iter().map(|a| a.to_str().unwrap()).collect();
            argv.join(" ")
        };
        let usual = text(Surroundings::Usual)
            .replace(
                "--uid 1000 --gid 1000 --hostname build",
                "--uid 2001 --gid 2002 --hostname elsewhere",
            )
            .replace("/home/build", "/home/another/directory")
            .replace("MAKEFLAGS -j2", "MAKEFLAGS -j3")
            .replace("TZ UTC", "TZ ELSE-24");
        assert_eq!(usual, text(Surroundings::Other));
    }

    #[test]
    fn the_command_line_of_a_build_is_pinned() {
        let top_level = vec![
            Mount::Writable {
                from: "/scratch/root/bin".into(),
                at: "/bin".into(),
            },
            Mount::Symlink {
                target: "bin".into(),
                at: "/sbin".into(),
            },
            Mount::Writable {
                from: "/scratch/root/tmp".into(),
                at: "/tmp".into(),
            },
        ];
        let request = BuildRequest::for_recipe(
            Path::new("/scratch/build"),
            top_level,
            2,
            Surroundings::Usual,
        );
        let got = argv(
            &request,
            Features {
                disable_userns: true,
                seccomp: true,
            },
        );
        let expected = "--unshare-user --unshare-net --unshare-pid --unshare-ipc --unshare-uts \
            --unshare-cgroup-try --disable-userns --die-with-parent --new-session --clearenv \
            --uid 1000 --gid 1000 --hostname build --bind /scratch/root/bin /bin \
            --symlink bin /sbin --bind /scratch/root/tmp /tmp --ro-bind /scratch/build /build \
            --proc /proc --dev /dev --remount-ro / --chdir /home/build \
            --setenv DESTDIR /destdir --setenv HOME /home/build --setenv LC_ALL C \
            --setenv MAKEFLAGS -j2 --setenv PATH /bin:/usr/bin --setenv PKG_JOBSERVER  \
            --setenv SOURCE_DATE_EPOCH 1609459200 --setenv TMPDIR /tmp --setenv TZ UTC -- /build";
        let got: Vec<_> = got.iter().map(|a| a.to_str().unwrap()).collect();
        assert_eq!(got.join(" "), expected);
    }

    #[test]
    fn a_shell_gets_the_terminal_only_where_filters_keep_it_from_typing() {
        let new_session = |interactive, seccomp| {
            let request = BuildRequest {
                interactive,
                ..BuildRequest::for_recipe(Path::new("/b"), Vec::new(), 1, Surroundings::Usual)
            };
            let features = Features {
                seccomp,
                ..Features::default()
            };
            argv(&request, features).contains(&"--new-session".into())
        };
        assert!(new_session(false, true) && new_session(false, false));
        assert!(new_session(true, false) && !new_session(true, true));
    }

    #[test]
    fn the_command_line_that_stacks_layers_is_pinned() {
        let stack = Stack {
            dir: "/scratch".into(),
            layers: 38,
        };
        let stacker = Stacker {
            sh: "/bin/sh".into(),
            mount: "/bin/mount".into(),
        };
        let got = stacking(&stack, &stacker, vec!["bwrap".into(), "--inner".into()]);
        let got: Vec<_> = got.iter().map(|a| a.to_str().unwrap()).collect();
        let head = "--unshare-user --uid 0 --gid 0 --cap-add ALL --die-with-parent --dev-bind / / \
            --chdir /scratch -- /bin/sh -c";
        let (start, rest) = got.split_at(16);
        assert_eq!(start.join(" "), head);
        assert_eq!(rest[..4], [STACKING, "sh", "/bin/mount", "merged"]);
        assert!(rest[4].starts_with("userxattr,lowerdir=_11:_10:_z:_y:"));
        assert!(rest[4].ends_with(":_1:_0,upperdir=upper,workdir=work"));
        assert_eq!(rest[5..], ["bwrap", "--inner"]);
    }

    #[test]
    fn the_network_is_never_shared_and_an_old_bubblewrap_gets_no_new_option() {
        let request = BuildRequest::for_recipe(Path::new("/b"), Vec::new(), 0, Surroundings::Usual);
        let got = argv(&request, Features::default());
        assert!(got.contains(&"--unshare-net".into()));
        assert!(!got.contains(&"--disable-userns".into()));
        assert!(got.contains(&"-j1".into()));
    }
}
