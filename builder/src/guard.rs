//! Keeps a build within what it may take of memory and processes.
//!
//! Before the build's first program is started, bubblewrap waits for us ([`Gate`]): then its process is put into a group of the
//! kernel's, where we may make one ([`crate::cgroup`]), and gets a bound on processes that the kernel keeps for everybody but
//! root. Where there is no group, processes and memory are counted several times a second ([`crate::census`]): what comes
//! and goes between two looks is not seen, and a build can take some hundred megabytes too much before it is ended.

use std::io::{PipeWriter, Write as _};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};

use crate::census::Census;
use crate::cgroup::{Group, Groups};
use crate::limits::{Ending, Limits};

/// How often is looked: a memory that is filled as fast as one processor can grows by some hundred megabytes meanwhile.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// By how many processes the kernel's own bound is at least above ours: more than are started between two looks. So a look finds
/// too many, which can be told, where the kernel would only refuse.
const TASKS_ABOVE: u64 = 4096;

/// Watches one build.
#[derive(Debug)]
pub(crate) struct Guard {
    gate: Option<PipeWriter>,
    group: Option<Group>,
    first: Option<Pid>,
    census: Option<Census>,
    looked: Instant,
}

impl Guard {
    /// Of a build that waits until something comes out of the pipe.
    pub(crate) fn new(limits: &Limits, gate: PipeWriter) -> Self {
        let group = Groups::find().and_then(|groups| match groups.make(limits) {
            Ok(group) => Some(group),
            Err(error) => {
                tracing::debug!(%error, "no group for a build, so it is counted");
                None
            }
        });
        Self {
            gate: Some(gate),
            group,
            first: None,
            census: None,
            looked: Instant::now(),
        }
    }

    /// Puts limits on the sandbox's first process, and lets it begin.
    pub(crate) fn begin(&mut self, first: Pid, limits: &Limits) {
        self.first = Some(first);
        if self
            .group
            .as_ref()
            .is_some_and(|group| group.add(first).is_err())
        {
            self.group = None;
        }
        bound(first, limits.processes_max.saturating_add(TASKS_ABOVE));
        if let Some(mut gate) = self.gate.take() {
            // If nobody reads, it has ended; that is seen elsewhere.
            let _ = gate.write_all(b"x");
        }
    }

    /// Whether the build has taken too much, if it is time for a look.
    pub(crate) fn look(&mut self, limits: &Limits) -> Option<Ending> {
        if self.looked.elapsed() < LOOK_EVERY {
            return None;
        }
        self.looked = Instant::now();
        match &self.group {
            Some(_) => self.conclude(limits),
            None => self.count(limits),
        }
    }

    /// Whether the kernel has ended the build, or refused it something, for having taken too much.
    pub(crate) fn conclude(&self, limits: &Limits) -> Option<Ending> {
        let group = self.group.as_ref()?;
        if group.is_out_of_memory() {
            return Some(Ending::TookTooMuchMemory(limits.memory_max));
        }
        let too_many = Ending::TooManyProcesses(limits.processes_max);
        group.is_out_of_processes().then_some(too_many)
    }

    fn count(&mut self, limits: &Limits) -> Option<Ending> {
        if self.census.is_none() {
            self.census = Census::of(self.first?);
        }
        let census = self.census.as_ref()?;
        let taken = census.take(limits.processes_max);
        if taken.tasks > limits.processes_max {
            return Some(Ending::TooManyProcesses(limits.processes_max));
        }
        // A server and its thousand children share most of what they have.
        let too_much =
            taken.memory > limits.memory_max && census.proportional() > limits.memory_max;
        too_much.then_some(Ending::TookTooMuchMemory(limits.memory_max))
    }
}

/// Bounds the processes of a sandbox. Since Linux 5.14 they are counted for each user namespace, so others of the same user do
/// not count; root is not bound by it.
fn bound(first: Pid, processes: u64) {
    let ours = getrlimit(Resource::Nproc).maximum;
    let processes = Some(ours.map_or(processes, |ours| ours.min(processes)));
    let limit = Rlimit {
        current: processes,
        maximum: processes,
    };
    if let Err(error) = prlimit(Some(first), Resource::Nproc, limit) {
        tracing::debug!(%error, "cannot bound the processes of a build");
    }
}
