//! Watching a running bubblewrap: what it prints, what it takes, and that nothing of it is left.

use std::io::{self, PipeReader, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::Child;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::error::ProcessError;
use crate::guard::Guard;
use crate::limits::{Ending, Limits};

/// How often cancellation and limits are looked at while a build says nothing, so also how late ^C can act.
const TICK: Duration = Duration::from_millis(50);
/// How long a killed namespace may take to be empty; only a process stuck in the kernel's IO takes longer than an instant.
const DYING_MAX: Duration = Duration::from_secs(30);
/// How long bubblewrap may take to start what runs inside; it takes some hundredths of a second.
const STARTING_MAX: Duration = Duration::from_secs(5);
/// Bytes read from a build's output at once: a pipe's default capacity.
const READ_BYTES: usize = 64 << 10;
/// Longest text on the info pipe we look at; bubblewrap writes about 300 bytes.
const INFO_BYTES_MAX: usize = 4096;
/// What a shell adds to a signal's number to tell of it in an exit status.
const SIGNAL_BASE: i32 = 128;

/// A running bubblewrap and everything needed to see its end.
pub(crate) struct Watch {
    child: Child,
    /// Bubblewrap itself, outside of the sandbox.
    outer: OwnedFd,
    /// Process 1 inside; known once bubblewrap has told it.
    inner: Option<OwnedFd>,
    log: PipeReader,
    log_open: bool,
    log_bytes: u64,
    info: PipeReader,
    info_open: bool,
    info_text: Vec<u8>,
    buffer: Vec<u8>,
    guard: Guard,
}

impl Watch {
    pub(crate) fn new(
        mut child: Child,
        log: PipeReader,
        info: PipeReader,
        guard: Guard,
    ) -> Result<Self, ProcessError> {
        let outer = pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).map_err(|error| {
            // Without a handle it cannot be watched; the child is ours and not reaped, so its number is still its own.
            let _ = child.kill();
            let _ = child.wait();
            ProcessError::Watch(error.into())
        })?;
        Ok(Self {
            child,
            outer,
            inner: None,
            log,
            log_open: true,
            log_bytes: 0,
            info,
            info_open: true,
            info_text: Vec::new(),
            buffer: vec![0; READ_BYTES],
            guard,
        })
    }

    /// Passes output on until bubblewrap has ended by itself (`None`) or has to be killed.
    pub(crate) fn until_end(
        &mut self,
        limits: &Limits,
        output: &mut dyn FnMut(&[u8]),
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Option<Ending>, ProcessError> {
        let started = Instant::now();
        let mut last_output = started;
        loop {
            if cancelled() {
                return Ok(Some(Ending::Cancelled));
            }
            if started.elapsed() >= limits.wall {
                return Ok(Some(Ending::TookTooLong(limits.wall)));
            }
            if last_output.elapsed() >= limits.silence {
                return Ok(Some(Ending::Silent(limits.silence)));
            }
            if let Some(ending) = self.guard.look(limits) {
                return Ok(Some(ending));
            }
            let ready = self.wait()?;
            if ready.info
                && let Some(first) = self.read_info()?
            {
                self.guard.begin(first, limits);
            }
            if ready.log {
                last_output = Instant::now();
                if let Some(ending) = self.read_log(limits, output)? {
                    return Ok(Some(ending));
                }
            }
            // What a process left behind goes on printing is not waited for.
            if ready.outer {
                return Ok(None);
            }
        }
    }

    /// What the guard has to say of a build that has ended: see [`Guard::conclude`].
    pub(crate) fn conclude(&self, limits: &Limits) -> Option<Ending> {
        self.guard.conclude(limits)
    }

    fn wait(&self) -> Result<Ready, ProcessError> {
        let mut fds = vec![PollFd::new(&self.outer, PollFlags::IN)];
        if self.log_open {
            fds.push(PollFd::new(&self.log, PollFlags::IN));
        }
        if self.info_open {
            fds.push(PollFd::new(&self.info, PollFlags::IN));
        }
        poll_for(&mut fds, TICK).map_err(ProcessError::Watch)?;
        let mut ready = fds.iter().map(|fd| !fd.revents().is_empty());
        Ok(Ready {
            outer: ready.next().unwrap_or(false),
            log: self.log_open && ready.next().unwrap_or(false),
            info: self.info_open && ready.next().unwrap_or(false),
        })
    }

    fn read_log(
        &mut self,
        limits: &Limits,
        output: &mut dyn FnMut(&[u8]),
    ) -> Result<Option<Ending>, ProcessError> {
        let n = read_some(&mut self.log, &mut self.buffer).map_err(ProcessError::Watch)?;
        self.log_open = n > 0;
        let room = limits.log_bytes_max.saturating_sub(self.log_bytes);
        let kept = usize::try_from(room).unwrap_or(usize::MAX).min(n);
        if kept > 0 {
            output(&self.buffer[..kept]);
        }
        self.log_bytes += kept as u64;
        Ok((kept < n).then_some(Ending::LoggedTooMuch(limits.log_bytes_max)))
    }

    /// Reads who runs inside; says it once, when it is known.
    fn read_info(&mut self) -> Result<Option<Pid>, ProcessError> {
        let mut buffer = [0; 512];
        let n = read_some(&mut self.info, &mut buffer).map_err(ProcessError::Watch)?;
        self.info_text.extend_from_slice(&buffer[..n]);
        self.info_open = n > 0 && self.info_text.len() < INFO_BYTES_MAX;
        if self.inner.is_none()
            && let Some(pid) = child_pid(&self.info_text).and_then(Pid::from_raw)
        {
            // It may have ended already; then there is nothing left to wait for.
            self.inner = pidfd_open(pid, PidfdFlags::empty()).ok();
            return Ok(Some(pid));
        }
        Ok(None)
    }

    /// Kills whatever still runs, waits until the sandbox is empty, and returns bubblewrap's exit status.
    pub(crate) fn finish(&mut self) -> Result<i32, ProcessError> {
        let status = self.child.try_wait().map_err(ProcessError::Watch)?;
        if status.is_none() {
            self.await_info()?;
            self.kill();
        }
        let status = self.child.wait().map_err(ProcessError::Watch)?;
        // On a normal end, too: bubblewrap returns as soon as the script has ended, whatever it left running.
        self.kill_inner();
        self.await_inner()?;
        let by_signal = SIGNAL_BASE + status.signal().unwrap_or_default();
        Ok(status.code().unwrap_or(by_signal))
    }

    /// Waits until it is known who runs inside. A bubblewrap that was killed in the middle of its first steps could leave a
    /// process that waits for it for ever.
    fn await_info(&mut self) -> Result<(), ProcessError> {
        let begun = Instant::now();
        while self.inner.is_none() && self.info_open && begun.elapsed() < STARTING_MAX {
            let ready = self.wait()?;
            if ready.info {
                self.read_info()?;
            } else if ready.outer {
                break;
            }
        }
        Ok(())
    }

    fn await_inner(&self) -> Result<(), ProcessError> {
        let Some(inner) = &self.inner else {
            return Ok(());
        };
        let killed = Instant::now();
        while killed.elapsed() < DYING_MAX {
            let mut fds = [PollFd::new(inner, PollFlags::IN)];
            if poll_for(&mut fds, TICK).map_err(ProcessError::Watch)? > 0 {
                return Ok(());
            }
        }
        Err(ProcessError::Unkillable(DYING_MAX))
    }

    fn kill(&self) {
        self.kill_inner();
        // Either is gone already or dies of it: there is no third way, so the result says nothing.
        let _ = pidfd_send_signal(&self.outer, Signal::KILL);
    }

    fn kill_inner(&self) {
        if let Some(inner) = &self.inner {
            let _ = pidfd_send_signal(inner, Signal::KILL);
        }
    }

    /// Reads what was still in the pipe. All writers are dead, so there is its end; should one live nevertheless, as when
    /// bubblewrap never said whom it had started, it is not waited for.
    pub(crate) fn drain(
        &mut self,
        limits: &Limits,
        output: &mut dyn FnMut(&[u8]),
    ) -> Result<Option<Ending>, ProcessError> {
        while self.log_open
            && poll_for(&mut [PollFd::new(&self.log, PollFlags::IN)], STARTING_MAX)
                .map_err(ProcessError::Watch)?
                > 0
        {
            if let Some(ending) = self.read_log(limits, output)? {
                return Ok(Some(ending));
            }
        }
        Ok(None)
    }
}

/// Which of a [`Watch`]'s descriptors have news.
struct Ready {
    outer: bool,
    log: bool,
    info: bool,
}

fn poll_for(fds: &mut [PollFd<'_>], time: Duration) -> io::Result<usize> {
    let timeout = Timespec {
        tv_sec: time.as_secs().try_into().unwrap_or(i64::MAX),
        tv_nsec: time.subsec_nanos().into(),
    };
    match poll(fds, Some(&timeout)) {
        // The caller's loop looks at everything again.
        Err(rustix::io::Errno::INTR) => Ok(0),
        result => result.map_err(Into::into),
    }
}

fn read_some(pipe: &mut (impl Read + AsFd), buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match pipe.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// The number behind `"child-pid":` in bubblewrap's info, once it is there as a whole.
fn child_pid(info: &[u8]) -> Option<i32> {
    let text = std::str::from_utf8(info).ok()?;
    let rest = text.split_once("\"child-pid\":")?.1.trim_start();
    let end = rest.find(|c: char| !c.is_ascii_digit())?;
    rest[..end].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_process_inside_is_read_from_the_info_once_complete() {
        assert_eq!(child_pid(b"{\n    \"child-pid\": 24680,\n"), Some(24680));
        assert_eq!(child_pid(b"{\n    \"child-pid\": 24680\n}\n"), Some(24680));
        for partial in [
            "",
            "{",
            "{\"child-pid\"",
            "{\"child-pid\": ",
            "{\"child-pid\": 246",
            "x",
        ] {
            assert_eq!(child_pid(partial.as_bytes()), None, "{partial}");
        }
        assert_eq!(child_pid(b"{\"child-pid\": 99999999999999,"), None);
        assert_eq!(child_pid(b"\xff"), None);
    }
}
