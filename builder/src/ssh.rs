//! A command on another machine, by the `ssh` of this one.
//!
//! OpenSSH does what it is good at: it finds the machine, checks its key, proves who we are, and encrypts. What the user has
//! configured for it holds here too, except that it never asks, gives nothing of this machine on to the other, and does not wait
//! for ever. The command's standard streams are ours; it ends when they are closed.

use std::ffi::OsStr;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

use crate::error::{Error, ProcessError};
use crate::probe::find_program;

/// The program.
const PROGRAM: &str = "ssh";
/// Options that stand above the user's own.
const OPTIONS: [&str; 9] = [
    // Nobody is there to be asked.
    "BatchMode=yes",
    // In seconds: longer than a connection round the world takes, shorter than patience.
    "ConnectTimeout=10",
    // A machine that is gone is noticed after three of these, in seconds.
    "ServerAliveInterval=5",
    "ServerAliveCountMax=3",
    // What the other machine builds has no business with our agent, screen, ports or shell.
    "ForwardAgent=no",
    "ClearAllForwardings=yes",
    "PermitLocalCommand=no",
    "RemoteCommand=none",
    // A connection that is shared may be used, but one that others go on with would never end.
    "ControlMaster=no",
];

/// How often is looked whether it has ended.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Which machine, in words that cannot be taken for options.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SshTarget {
    /// As whom; `None` leaves it to the configuration of ssh.
    pub user: Option<String>,
    /// A name, an address, or an alias of the configuration.
    pub host: String,
    /// `None` leaves it to the configuration.
    pub port: Option<u16>,
}

/// A command that runs on another machine. Dropping it ends it.
#[derive(Debug)]
pub struct Ssh(Mutex<Child>);

/// The standard streams of such a command.
#[derive(Debug)]
pub struct SshStreams {
    /// What it reads.
    pub stdin: ChildStdin,
    /// What it writes.
    pub stdout: ChildStdout,
    /// What it and ssh itself complain.
    pub stderr: ChildStderr,
}

impl Ssh {
    /// Starts a command, which the other machine's shell will read.
    ///
    /// # Errors
    /// [`Error::NoProgram`] when `search_path` (as in `PATH`) has no `ssh`, [`Error::Process`] when it does not start. That the
    /// machine cannot be reached is told by its standard error and its end.
    pub fn start(
        target: &SshTarget,
        command: &str,
        search_path: &OsStr,
    ) -> Result<(Self, SshStreams), Error> {
        let program = find_program(PROGRAM, search_path).ok_or(Error::NoProgram {
            program: PROGRAM,
            package: "openssh-client",
        })?;
        let start = |e| Error::Process(ProcessError::Start(e));
        let mut child = Command::new(program)
            .args(arguments(target, command))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // With whatever it starts in its turn, such as a proxy, which is to end with it.
            .process_group(0)
            .spawn()
            .map_err(start)?;
        let streams = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (Some(stdin), Some(stdout), Some(stderr)) = streams else {
            return Err(start(io::Error::other("no pipes")));
        };
        let streams = SshStreams {
            stdin,
            stdout,
            stderr,
        };
        Ok((Self(Mutex::new(child)), streams))
    }

    /// Ends it at once.
    pub fn kill(&self) {
        let mut child = self.lock();
        // Once it was waited for, its number may be somebody else's.
        if matches!(child.try_wait(), Ok(None)) {
            let _ = kill_process_group(Pid::from_child(&child), Signal::KILL);
        }
    }

    /// How it ends by itself; ends it when that takes longer than it may.
    pub fn finish(&self, patience: Duration) -> Option<ExitStatus> {
        let until = Instant::now() + patience;
        loop {
            if let Ok(Some(status)) = self.lock().try_wait() {
                return Some(status);
            }
            if Instant::now() >= until {
                self.kill();
                return self.lock().wait().ok();
            }
            thread::sleep(LOOK_EVERY);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Child> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Ssh {
    fn drop(&mut self) {
        self.kill();
        let _ = self.lock().wait();
    }
}

fn arguments(target: &SshTarget, command: &str) -> Vec<String> {
    let mut arguments: Vec<String> = ["-a", "-x", "-T"].map(str::to_owned).to_vec();
    for option in OPTIONS {
        arguments.extend(["-o".to_owned(), option.to_owned()]);
    }
    if let Some(user) = &target.user {
        arguments.extend(["-l".to_owned(), user.clone()]);
    }
    if let Some(port) = target.port {
        arguments.extend(["-p".to_owned(), port.to_string()]);
    }
    arguments.extend(["--".to_owned(), target.host.clone(), command.to_owned()]);
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_never_taken_for_an_option() {
        let target = SshTarget {
            user: Some("me".into()),
            host: "-oProxyCommand=evil".into(),
            port: Some(2222),
        };
        let arguments = arguments(&target, "true");
        let end = arguments.iter().position(|word| word == "--").unwrap();
        assert_eq!(arguments[end + 1..], ["-oProxyCommand=evil", "true"]);
        assert!(arguments[..end].windows(2).any(|w| w == ["-p", "2222"]));
        assert!(arguments[..end].windows(2).any(|w| w == ["-l", "me"]));
    }

    #[test]
    fn a_machine_without_ssh_is_told_what_to_install() {
        let target = SshTarget {
            user: None,
            host: "h".into(),
            port: None,
        };
        let error = Ssh::start(&target, "true", OsStr::new("")).unwrap_err();
        assert_eq!(error.to_string(), "there is no `ssh` on this machine");
    }
}
