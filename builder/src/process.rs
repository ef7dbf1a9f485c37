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

use std::io::{self, PipeReader, PipeWriter};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};

use rustix::fs::Mode;
use rustix::io::FdFlags;
use rustix::process::umask;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::error::ProcessError;
use crate::guard::Guard;
use crate::jobs::Lending;
use crate::limits::{Ending, Limits};
use crate::probe::Sandbox;
use crate::request::{BuildRequest, add_job_server};
use crate::watch::Watch;

/// First file descriptor that is not one of the three standard ones.
const FIRST_EXTRA_FD: i32 = 3;

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
    let ending = ending?.or_else(|| watch.conclude(limits));
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
