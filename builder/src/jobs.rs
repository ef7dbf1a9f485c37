//! The job server: all builds together run no more jobs than the user allowed, whatever their `make`s would like.
//!
//! It speaks GNU make's protocol, in which a job is a byte in a pipe: a `make` reads one before it starts a second command
//! and writes one when that has ended. Make would share a single pipe among all. Here every build has pipes of its own and
//! a thread of ours, the broker, moves jobs between them, for three reasons. A build that is killed cannot give back what
//! it holds; here that is free as soon as its pipes are gone. A build that writes bytes of its own, or swallows what it
//! reads, cheats nobody but itself. And jobs that nobody takes out of one build's pipe can be had by another.
//!
//! What a build is lent comes through one pipe and goes back through a second one, so that each job that ends passes by
//! the broker, which then lends it to whoever has the fewest. Both ends are inherited as descriptors, since that is what
//! every `make` understands (`--jobserver-auth=R,W`; version 4.3 dies of `fifo:`). A client that knows the newer form only,
//! as ninja 1.13 does, opens the first pipe by its name in `/proc/self/fd` and puts jobs back where it found them.
//!
//! Nothing of this is part of a package hash: it changes how long a build takes, not what it makes.

mod pool;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::fs::{Mode, OFlags, open};
use rustix::io::{Errno, fcntl_dupfd_cloexec, fcntl_setfd, ioctl_fionread, read, write};
use rustix::io::{FdFlags, ioctl_fionbio};

use self::pool::{Borrower, Pool, UNUSED_AFTER};

/// Builds at once, however many jobs there are: each has a scratch root of up to some gigabytes.
const BUILDS_MAX: usize = 8;
/// How often somebody who waits for a seat looks whether all is over.
const TICK: Duration = Duration::from_millis(50);
/// Number of the first descriptor that a build inherits. Always the same, for builds may write `MAKEFLAGS` down; above
/// what this process uses itself, and below the 1024 that `select` can handle and most systems allow.
const FIRST_JOB_FD: i32 = 900;
/// Where it is looked for a descriptor's number if that cannot be had.
const ANY_FD: i32 = 3;
/// Bytes read at once of what a build returns; more come in the next turn.
const RETURNS_BYTES: usize = 4096;
/// What a job looks like in a pipe; make does not care.
const JOB: &[u8] = b"+";

/// Hands out jobs to builds. Dropping it ends the broker.
pub struct JobServer {
    shared: Arc<Shared>,
    total: usize,
}

struct Shared {
    started: Instant,
    state: Mutex<State>,
    /// Told when a seat can be had.
    seats: Condvar,
    /// Wakes the broker.
    wake: OwnedFd,
}

struct State {
    pool: Pool,
    pipes: BTreeMap<Borrower, Arc<Pipes>>,
    broker: Option<JoinHandle<()>>,
    is_over: bool,
}

/// A build's pipes. Our ends never block, and are other open files than the build's, so that it cannot change that.
struct Pipes {
    /// Both ends of the pipe through which jobs are lent.
    lending: OwnedFd,
    /// Where they come back.
    returning: OwnedFd,
    /// What the build inherits.
    to_read: OwnedFd,
    /// As [`Self::to_read`]. As long as we have it, too, the other end does not end.
    to_write: OwnedFd,
}

impl JobServer {
    /// At most so many jobs at once.
    ///
    /// # Errors
    /// When the operating system has no descriptor left.
    pub fn new(jobs: usize) -> io::Result<Self> {
        let total = jobs.max(1);
        let state = State {
            pool: Pool::new(total),
            pipes: BTreeMap::new(),
            broker: None,
            is_over: false,
        };
        let shared = Shared {
            started: Instant::now(),
            state: Mutex::new(state),
            seats: Condvar::new(),
            wake: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
        };
        Ok(Self {
            shared: Arc::new(shared),
            total,
        })
    }

    /// Jobs in all.
    pub const fn jobs(&self) -> usize {
        self.total
    }

    /// How many builds may go on at once: none without a job.
    pub fn builds_max(&self) -> usize {
        self.total.min(BUILDS_MAX)
    }

    /// Waits for a job that a build keeps to its end; `None` if it is over before.
    pub fn seat(&self, cancelled: &dyn Fn() -> bool) -> Option<Seat> {
        let mut state = self.shared.lock();
        let mut taken = state.pool.take_seat();
        if !taken {
            state.pool.wait();
            self.shared.wake();
            while !taken && !cancelled() {
                let waited = self.shared.seats.wait_timeout(state, TICK);
                state = waited.unwrap_or_else(PoisonError::into_inner).0;
                taken = state.pool.take_seat();
            }
            state.pool.end_wait();
        }
        drop(state);
        taken.then(|| Seat(Arc::clone(&self.shared)))
    }
}

impl Drop for JobServer {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.is_over = true;
        let broker = state.broker.take();
        drop(state);
        self.shared.wake();
        if let Some(broker) = broker {
            let _ = broker.join();
        }
    }
}

impl fmt::Debug for JobServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JobServer({} jobs)", self.total)
    }
}

/// The one job that a build owns. Dropping it lets the next one begin.
pub struct Seat(Arc<Shared>);

impl Seat {
    /// Makes the pipes through which a build borrows jobs beside its own.
    pub(crate) fn lend(&self) -> io::Result<Lending> {
        let pipes = Arc::new(Pipes::new()?);
        let mut state = self.0.lock();
        if state.broker.is_none() {
            let shared = Arc::clone(&self.0);
            let broker = thread::Builder::new().name("jobs".into());
            state.broker = Some(broker.spawn(move || shared.serve())?);
        }
        let borrower = state.pool.join();
        state.pipes.insert(borrower, Arc::clone(&pipes));
        drop(state);
        self.0.wake();
        Ok(Lending {
            shared: Arc::clone(&self.0),
            borrower,
            pipes,
        })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.lock().pool.leave_seat();
        self.0.seats.notify_all();
        self.0.wake();
    }
}

impl fmt::Debug for Seat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seat")
    }
}

/// A build that may borrow jobs. Dropping it takes back all it holds.
pub(crate) struct Lending {
    shared: Arc<Shared>,
    borrower: Borrower,
    pipes: Arc<Pipes>,
}

impl Lending {
    /// The two ends under numbers that a child is to find them by. Close-on-exec, until [`Inherited::open_to_children`].
    pub(crate) fn to_inherit(&self) -> io::Result<Inherited> {
        let copy = |end: &OwnedFd| {
            fcntl_dupfd_cloexec(end, FIRST_JOB_FD).or_else(|_| fcntl_dupfd_cloexec(end, ANY_FD))
        };
        Ok(Inherited {
            read: copy(&self.pipes.to_read)?,
            write: copy(&self.pipes.to_write)?,
        })
    }
}

impl Drop for Lending {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.pipes.remove(&self.borrower);
        state.pool.part(self.borrower);
        drop(state);
        self.shared.seats.notify_all();
        self.shared.wake();
    }
}

/// What a child inherits.
pub(crate) struct Inherited {
    read: OwnedFd,
    write: OwnedFd,
}

impl Inherited {
    /// As `--jobserver-auth` names it.
    pub(crate) fn auth(&self) -> String {
        format!("{},{}", self.read.as_raw_fd(), self.write.as_raw_fd())
    }

    /// From now on every child inherits them.
    pub(crate) fn open_to_children(&self) -> io::Result<()> {
        fcntl_setfd(&self.read, FdFlags::empty())?;
        fcntl_setfd(&self.write, FdFlags::empty())?;
        Ok(())
    }
}

impl Pipes {
    fn new() -> io::Result<Self> {
        let (to_read, _) = io::pipe()?;
        let to_read = OwnedFd::from(to_read);
        // Through its name the pipe is opened anew; whatever the build does to its own open file, ours stays as it is.
        let name = format!("/proc/self/fd/{}", to_read.as_raw_fd());
        let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let lending = open(name, flags, Mode::empty())?;
        let (returning, to_write) = io::pipe()?;
        ioctl_fionbio(&returning, true)?;
        Ok(Self {
            lending,
            returning: returning.into(),
            to_read,
            to_write: to_write.into(),
        })
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere leaves the accounts as they were: each change is one step.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        // It can only fail when the broker was woken very often and is about to look anyway.
        let _ = write(&self.wake, &1u64.to_ne_bytes());
    }

    /// The broker's life.
    fn serve(&self) {
        loop {
            let (pipes, timeout) = {
                let mut state = self.lock();
                if state.is_over {
                    return;
                }
                state.turn(self.started.elapsed());
                if state.pool.can_seat() {
                    self.seats.notify_all();
                }
                (
                    state.heard(),
                    state.pool.is_contended().then_some(UNUSED_AFTER),
                )
            };
            let returning = pipes.iter().map(|pipes| pipes.returning.as_fd());
            wait_for(self.wake.as_fd(), returning, timeout);
            let _ = read(&self.wake, &mut [0u8; 8]);
        }
    }
}

impl State {
    /// Who is listened to.
    fn heard(&self) -> Vec<Arc<Pipes>> {
        let heard = self.pipes.iter();
        let heard = heard.filter(|(borrower, _)| !self.pool.is_shunned(**borrower));
        heard.map(|(_, pipes)| Arc::clone(pipes)).collect()
    }

    /// Takes in what came back, takes back what lies unused, and lends what is free.
    fn turn(&mut self, now: Duration) {
        let Self { pool, pipes, .. } = self;
        for (borrower, pipes) in &*pipes {
            let mut buffer = [0; RETURNS_BYTES];
            if !pool.is_shunned(*borrower)
                && let Ok(jobs) = read(&pipes.returning, &mut buffer)
            {
                pool.returned(*borrower, jobs);
            }
            let bytes = ioctl_fionread(&pipes.lending).unwrap_or(0);
            pool.seen(*borrower, usize::try_from(bytes).unwrap_or(usize::MAX));
        }
        for borrower in pool.to_take_back(now) {
            // The build may have been faster.
            if let Some(pipes) = pipes.get(&borrower)
                && matches!(read(&pipes.lending, &mut [0; 1]), Ok(1))
            {
                pool.took_back(borrower, now);
            }
        }
        while let Some(borrower) = pool.next_to_lend(now) {
            let lent = pipes.get(&borrower).map(|p| write(&p.lending, JOB));
            match lent {
                Some(Ok(1)) => pool.lent(borrower, now),
                // Its pipe is full, and not by us.
                _ => pool.shun(borrower),
            }
        }
    }
}

fn wait_for<'a>(
    wake: BorrowedFd<'a>,
    others: impl Iterator<Item = BorrowedFd<'a>>,
    timeout: Option<Duration>,
) {
    let mut fds: Vec<_> = std::iter::once(wake)
        .chain(others)
        .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN))
        .collect();
    let timeout = timeout.map(|time| Timespec {
        tv_sec: 0,
        tv_nsec: time.subsec_nanos().into(),
    });
    // Should it fail, everything is looked at again, a little later.
    if !matches!(poll(&mut fds, timeout.as_ref()), Ok(_) | Err(Errno::INTR)) {
        thread::sleep(TICK);
    }
}

#[cfg(test)]
mod tests;
