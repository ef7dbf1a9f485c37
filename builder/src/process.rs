//! Running a request: one bubblewrap, its output, its limits, and its end.
//!
//! Nothing of a build may outlive it: a process left behind could change the output while it is packed. Bubblewrap's
//! first child is process 1 of a process namespace, so the kernel kills everything inside when that one dies. We hold
//! a handle on it (its number comes through `--info-fd`) and wait until it is gone, which the kernel reports only after
//! the whole namespace is empty. Should this program itself be killed, `--die-with-parent` ends the build. That signal
//! is bound to the *thread* that started bubblewrap, so [`run`] starts and awaits it on the same thread.
//!
//! A build inherits its standard descriptors and the two ends of its job server, see [`crate::jobs`], and nothing else. What
//! it takes of memory and processes is looked at by a [`Guard`], which also lets it begin.
//! Standard output and error share one pipe: the log keeps the order in which lines were written.

use std::io::{self, PipeReader, PipeWriter, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::Mode;
use rustix::io::FdFlags;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal, umask};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::error::ProcessError;
use crate::guard::Guard;
use crate::jobs::Lending;
use crate::probe::Sandbox;
use crate::request::{BuildRequest, add_job_server};

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
/// First file descriptor that is not one of the three standard ones.
const FIRST_EXTRA_FD: i32 = 3;

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
    const NONE: Self = Self {
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

/// Runs a request to its end. What it starts beside its first job it borrows by `lending`; `output` gets what it prints,
/// `cancelled` is asked every `TICK`.
///
/// # Errors
/// [`ProcessError`] when bubblewrap could not be started or watched; whatever it had started is dead by then.
pub(crate) fn run(
    sandbox: &Sandbox,
    request: &BuildRequest,
    lending: Option<&Lending>,
    limits: &Limits,
    output: &mut dyn FnMut(&[u8]),
    cancelled: &dyn Fn() -> bool,
) -> Result<Ending, ProcessError> {
    let (log, log_writer) = io::pipe().map_err(ProcessError::Start)?;
    let (info, info_writer) = io::pipe().map_err(ProcessError::Start)?;
    let (gate, gate_writer) = io::pipe().map_err(ProcessError::Start)?;
    let guard = Guard::new(limits, gate_writer);
    let pipes = Pipes {
        streams: Streams::Log(log_writer),
        info: info_writer,
        gate,
    };
    let child = spawn(sandbox, request.clone(), lending, pipes).map_err(ProcessError::Start)?;
    let mut watch = Watch::new(child, log, info, guard)?;
    let ending = watch.until_end(limits, output, cancelled);
    let ended = watch.finish();
    let ending = ending?.or_else(|| watch.guard.conclude(limits));
    let status = ended?;
    if matches!(ending, Some(Ending::LoggedTooMuch(_))) {
        return Ok(ending.unwrap_or(Ending::Exited(status)));
    }
    let too_much = watch.drain(limits, output)?;
    Ok(ending.or(too_much).unwrap_or(Ending::Exited(status)))
}

/// Runs a request on our own terminal until it ends by itself, and returns its exit status.
///
/// # Errors
/// As [`run`].
pub(crate) fn attach(
    sandbox: &Sandbox,
    request: &BuildRequest,
    lending: Option<&Lending>,
) -> Result<i32, ProcessError> {
    // Nothing is logged: this one is at its end at once.
    let log = io::pipe().map_err(ProcessError::Start)?.0;
    let (info, info_writer) = io::pipe().map_err(ProcessError::Start)?;
    let (gate, gate_writer) = io::pipe().map_err(ProcessError::Start)?;
    let pipes = Pipes {
        streams: Streams::Terminal,
        info: info_writer,
        gate,
    };
    let child = spawn(sandbox, request.clone(), lending, pipes).map_err(ProcessError::Start)?;
    let guard = Guard::new(&Limits::NONE, gate_writer);
    let mut watch = Watch::new(child, log, info, guard)?;
    let ending = watch.until_end(&Limits::NONE, &mut |_| {}, &|| false);
    let status = watch.finish();
    ending?;
    status
}

/// What a sandbox inherits.
struct Pipes {
    streams: Streams,
    /// Where bubblewrap says who runs inside.
    info: PipeWriter,
    /// What it waits for before it starts that.
    gate: PipeReader,
}

/// Where what runs in a sandbox prints to.
enum Streams {
    Log(PipeWriter),
    /// Ours, from which it reads as well.
    Terminal,
}

/// Starts bubblewrap with the three standard descriptors, the info pipe, the filters, the job server's ends, and nothing else.
///
/// Rust opens everything close-on-exec, but a shell, a `make` or a test runner may have left us descriptors that are
/// not: in the sandbox they would be holes. What is inherited on purpose must not get into another build that starts at
/// the same moment: hence the lock, which also covers the process-wide umask and the numbers of the job server's ends.
fn spawn(
    sandbox: &Sandbox,
    mut request: BuildRequest,
    lending: Option<&Lending>,
    pipes: Pipes,
) -> io::Result<Child> {
    let Pipes {
        streams,
        info,
        gate,
    } = pipes;
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    close_fds::set_fds_cloexec(FIRST_EXTRA_FD, &[]);
    // Closed again before the lock is released, as is the info pipe.
    let inherited = lending.map(Lending::to_inherit).transpose()?;
    if let Some(inherited) = &inherited {
        add_job_server(&mut request.env, &inherited.auth());
        inherited.open_to_children()?;
    }
    rustix::io::fcntl_setfd(&info, FdFlags::empty())?;
    rustix::io::fcntl_setfd(&gate, FdFlags::empty())?;
    let filters = sandbox.filter_files()?;
    for filter in &filters {
        rustix::io::fcntl_setfd(filter, FdFlags::empty())?;
    }
    let mut command = Command::new(sandbox.bwrap());
    command
        .env_clear()
        .args(sandbox.argv(&request, info.as_raw_fd(), gate.as_raw_fd(), &filters));
    if let Streams::Log(writer) = streams {
        command
            // ^C on the terminal is for us: we kill the build, and know that it did not fail by itself.
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(writer.try_clone()?)
            .stderr(writer);
    }
    let before = umask(Mode::WGRP | Mode::WOTH);
    let child = if request.surroundings.has_one_processor() {
        on_one_processor(|| command.spawn())
    } else {
        command.spawn()
    };
    umask(before);
    drop((inherited, info, gate, filters));
    child
}

/// Starts something on one of the processors that this thread may use. What it starts inherits that; the thread itself
/// gets all of them back. Where the kernel does not want that, nothing is changed.
fn on_one_processor<T>(start: impl FnOnce() -> T) -> T {
    let Ok(all) = sched_getaffinity(None) else {
        return start();
    };
    let mut one = CpuSet::new();
    if let Some(last) = (0..CpuSet::MAX_CPU).rev().find(|cpu| all.is_set(*cpu)) {
        one.set(last);
    }
    let _ = sched_setaffinity(None, &one);
    let started = start();
    let _ = sched_setaffinity(None, &all);
    started
}

/// A running bubblewrap and everything needed to see its end.
struct Watch {
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
    fn new(
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
    fn until_end(
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
    fn finish(&mut self) -> Result<i32, ProcessError> {
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
    fn drain(
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
