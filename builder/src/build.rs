//! One build of one package: scratch root, sandbox, script, output. Who decides that it is to be built stands elsewhere.

use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use base::PackageName;
use recipe::Recipe;
use store::{Blob, Store};

use crate::error::{BuildFailure, Error, ProcessError, chain};
use crate::jobs::{JobServer, Lending, Seat};
use crate::kept;
use crate::limits::{Ending, Limits};
use crate::log::Log;
use crate::observe::{Busy, Event, Observer, Phase};
use crate::output;
use crate::probe::LazySandbox;
use crate::process::run;
use crate::request::{BuildRequest, InMemory};
use crate::root::{self, Input, RecipeFiles, Root};
use crate::scratch::Scratch;
use crate::surroundings::{self, Surroundings};

/// What builds need from the machine and the caller, whatever the package.
#[derive(Clone, Copy)]
pub struct Workshop<'a> {
    /// Where inputs and sources lie.
    pub store: &'a Store,
    /// Reads the `files/` of recipes.
    pub files: &'a dyn RecipeFiles,
    /// The sandbox.
    pub sandbox: &'a LazySandbox,
    /// Who watches.
    pub observer: &'a dyn Observer,
    /// Where scratch directories are made: large builds need gigabytes here.
    pub scratch: &'a Path,
    /// How long a build may take, and how much it may print.
    pub limits: Limits,
    /// What all builds together may run at once.
    pub jobs: &'a JobServer,
    /// Whether the scratch directory of a failed build is left for the user to look at.
    pub keep_failed: bool,
}

impl std::fmt::Debug for Workshop<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Workshop(in {})", self.scratch.display())
    }
}

/// A build that ended well; its output still lies in the scratch directory.
pub struct Finished<'a> {
    package: PackageName,
    scratch: Scratch,
    _busy: Busy<'a>,
    /// Packing takes a processor, too.
    _seat: Seat,
    /// How long the script ran.
    pub elapsed: Duration,
}

impl std::fmt::Debug for Finished<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Finished({})", self.package)
    }
}

/// What a build holds from its beginning to its end.
pub(crate) struct Begun<'a> {
    busy: Busy<'a>,
    seat: Seat,
}

impl<'a> Workshop<'a> {
    /// Builds a package whose sources are in the store. `inputs` are the outputs of its build closure.
    ///
    /// # Errors
    /// [`Error::BuildFailed`] with the last lines of the log, [`Error::Output`] when what it made is no package,
    /// and whatever keeps a build from being started.
    pub fn build(
        &self,
        recipe: &Recipe,
        inputs: &[Input],
        log: &Path,
    ) -> Result<Finished<'a>, Error> {
        self.build_in(recipe, inputs, log, Surroundings::Usual)
    }

    /// As [`Self::build`], in surroundings that may be other than usual.
    ///
    /// # Errors
    /// As [`Self::build`].
    pub fn build_in(
        &self,
        recipe: &Recipe,
        inputs: &[Input],
        log: &Path,
        surroundings: Surroundings,
    ) -> Result<Finished<'a>, Error> {
        let sandbox = self.sandbox.get()?;
        let begun = self.begin(recipe.name())?;
        self.phase(recipe, Phase::Unpacking);
        let scratch = Scratch::new(self.scratch)?;
        let layers = self.sandbox.layers(self.scratch);
        let mut root = Root::new(&scratch, inputs, self.store, layers.as_ref(), surroundings)?;
        let script = root::add_recipe(&scratch, recipe, self.files, self.store, surroundings)?;
        let top_level = std::mem::take(&mut root.top_level);
        let jobs = self.jobs.jobs();
        let mut request = BuildRequest::for_recipe(&script, top_level, jobs, surroundings);
        request.stack = root.stack.take();
        if surroundings == Surroundings::Other {
            request.in_memory = self.home_in_memory(recipe, &scratch)?;
        }
        sandbox.mask(&mut request);
        if self.keep_failed {
            kept::describe(&scratch, &request, inputs)?;
        }
        self.run(recipe.name(), &request, scratch, begun, log)
    }

    /// Lays the home into memory, where directories list their files in another order than on most disks. `None`, with a
    /// warning, where that is not possible.
    fn home_in_memory(
        &self,
        recipe: &Recipe,
        scratch: &Scratch,
    ) -> Result<Option<InMemory>, Error> {
        let keep_on_disk = |why: &str| {
            let text = format!("files are listed in the order of this disk: {why}");
            self.warn(recipe.name(), &text);
            Ok(None)
        };
        if is_in_memory(scratch.path()) {
            return Ok(None);
        }
        let mut sources = 0_u64;
        for source in recipe.sources() {
            let blob = self.store.blob(&source.sha256)?;
            sources = sources.saturating_add(blob.map_or(0, |blob| blob.size));
        }
        let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let available = surroundings::available(&meminfo).unwrap_or(0);
        let Some(bytes_max) = surroundings::room_in_memory(available, sources) else {
            return keep_on_disk("the sources are too large to be unpacked in memory");
        };
        if let Err(reason) = self.sandbox.get()?.remembers(self.scratch) {
            return keep_on_disk(&reason);
        }
        let (dir, from) = (scratch.root().join("home"), scratch.path().join("home"));
        fs::rename(&dir, &from).map_err(|e| Error::io("rename", &dir, e))?;
        root::make_dir(&dir)?;
        Ok(Some(InMemory {
            dir,
            from,
            bytes_max,
        }))
    }

    /// Runs a request whose output lies in the scratch root's `$DESTDIR`, and checks that output.
    ///
    /// # Errors
    /// As [`Self::build`].
    pub(crate) fn run(
        &self,
        package: &PackageName,
        request: &BuildRequest,
        scratch: Scratch,
        begun: Begun<'a>,
        log: &Path,
    ) -> Result<Finished<'a>, Error> {
        self.observer.event(&Event::Building {
            package,
            phase: Phase::Running,
        });
        let mut log = Log::create(log)?;
        let lending = begun.seat.lend().map_err(ProcessError::Start)?;
        let ran = self.run_script(package, request, Some(&lending), &mut log);
        // Whatever it still held can be used by others while it is packed.
        drop(lending);
        let (ending, elapsed) = ran?;
        match ending {
            Ending::Exited(0) => {
                let scratch = self.check_output(package, scratch)?;
                Ok(Finished {
                    package: package.clone(),
                    scratch,
                    _busy: begun.busy,
                    _seat: begun.seat,
                    elapsed,
                })
            }
            Ending::Cancelled => Err(Error::Cancelled),
            ending => Err(Error::BuildFailed(
                self.failure(package, ending, &log, scratch),
            )),
        }
    }

    /// Runs a request's command to its end, however it ends, and says how long that took.
    pub(crate) fn run_script(
        &self,
        package: &PackageName,
        request: &BuildRequest,
        lending: Option<&Lending>,
        log: &mut Log,
    ) -> Result<(Ending, Duration), Error> {
        let sandbox = self.sandbox.get()?;
        let started = Instant::now();
        let mut output = |text: &[u8]| {
            log.write(text);
            self.observer.event(&Event::Output { package, text });
        };
        let disk_free_min = self.limits.disk_free_min;
        let filled = Cell::new(false);
        let cancelled = || {
            // Asked often enough to be the place where the disk is looked at, too.
            let full = || free_bytes(self.scratch).is_some_and(|free| free <= disk_free_min);
            filled.set(filled.get() || full());
            filled.get() || self.observer.cancelled()
        };
        let ending = run(
            sandbox,
            request,
            lending,
            &self.limits,
            &mut output,
            &cancelled,
        )?;
        let ending = match ending {
            Ending::Cancelled if filled.get() => Ending::FilledTheDisk(disk_free_min),
            ending => ending,
        };
        let elapsed = started.elapsed();
        if let Some(error) = log.take_error() {
            self.warn(
                package,
                &format!("its log is incomplete: {}", chain(&error)),
            );
        }
        Ok((ending, elapsed))
    }

    /// Waits for the job that a build owns.
    pub(crate) fn begin(&self, package: &PackageName) -> Result<Begun<'a>, Error> {
        let busy = Busy::new(self.observer, package);
        self.observer.event(&Event::Building {
            package,
            phase: Phase::Waiting,
        });
        let cancelled = || self.observer.cancelled();
        let seat = self.jobs.seat(&cancelled).ok_or(Error::Cancelled)?;
        Ok(Begun { busy, seat })
    }

    fn check_output(&self, package: &PackageName, scratch: Scratch) -> Result<Scratch, Error> {
        self.observer.event(&Event::Building {
            package,
            phase: Phase::Packing,
        });
        let destdir = root::destdir(&scratch);
        if let Err(source) = output::check(&destdir)? {
            return Err(Error::Output {
                package: package.clone(),
                source,
                kept: self.keep_failed.then(|| scratch.keep()),
            });
        }
        for leak in output::leaks(&destdir, scratch.path())? {
            self.warn(package, &leak);
        }
        Ok(scratch)
    }

    pub(crate) fn failure(
        &self,
        package: &PackageName,
        ending: Ending,
        log: &Log,
        scratch: Scratch,
    ) -> Box<BuildFailure> {
        Box::new(BuildFailure {
            package: package.clone(),
            ending,
            log: log.path().to_owned(),
            last_lines: log.last_lines(),
            kept: self.keep_failed.then(|| scratch.keep()),
        })
    }

    fn phase(&self, recipe: &Recipe, phase: Phase) {
        self.observer.event(&Event::Building {
            package: recipe.name(),
            phase,
        });
    }

    pub(crate) fn warn(&self, package: &PackageName, text: &str) {
        self.observer.event(&Event::Warning { package, text });
    }
}

/// What an ordinary user can still write on a directory's disk; `None` where that cannot be found out, and where there is
/// no bound: a tmpfs without one says that it has no blocks at all.
fn free_bytes(dir: &Path) -> Option<u64> {
    let disk = rustix::fs::statvfs(dir).ok()?;
    (disk.f_blocks > 0).then(|| disk.f_bavail.saturating_mul(disk.f_frsize))
}

/// Whether a directory lies in memory already.
fn is_in_memory(dir: &Path) -> bool {
    // The number of `tmpfs` (statfs(2)).
    rustix::fs::statfs(dir).is_ok_and(|disk| disk.f_type == 0x0102_1994)
}

impl Finished<'_> {
    /// Packs the output into the store.
    ///
    /// # Errors
    /// [`Error::Archive`] or [`Error::Store`].
    pub fn ingest(&self, store: &Store) -> Result<Blob, Error> {
        output::ingest(&self.package, &root::destdir(&self.scratch), store)
    }

    /// Packs the output into a file in the scratch directory, which lives as long as `self`.
    pub(crate) fn pack(&self) -> Result<PathBuf, Error> {
        let path = self.scratch.path().join("output.tar.zst");
        output::pack_to(&self.package, &root::destdir(&self.scratch), &path)?;
        Ok(path)
    }
}
