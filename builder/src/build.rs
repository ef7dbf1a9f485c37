//! One build of one package: scratch root, sandbox, script, output. Who decides that it is to be built stands elsewhere.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use base::PackageName;
use recipe::Recipe;
use store::{Blob, Store};

use crate::error::{BuildFailure, Error, chain};
use crate::log::Log;
use crate::observe::{Event, Observer, Phase};
use crate::output;
use crate::probe::LazySandbox;
use crate::process::{Ending, Limits, run};
use crate::request::BuildRequest;
use crate::root::{self, Input, RecipeFiles, Root};
use crate::scratch::Scratch;

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
    /// What a build's `make` may run at once.
    pub cores: usize,
    /// Whether the scratch directory of a failed build is left for the user to look at.
    pub keep_failed: bool,
}

impl std::fmt::Debug for Workshop<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Workshop(in {})", self.scratch.display())
    }
}

/// A build that ended well; its output still lies in the scratch directory.
#[derive(Debug)]
pub struct Finished {
    package: PackageName,
    scratch: Scratch,
    /// How long the script ran.
    pub elapsed: Duration,
}

impl Workshop<'_> {
    /// Builds a package whose sources are in the store. `inputs` are the outputs of its build closure.
    ///
    /// # Errors
    /// [`Error::BuildFailed`] with the last lines of the log, [`Error::Output`] when what it made is no package,
    /// and whatever keeps a build from being started.
    pub fn build(&self, recipe: &Recipe, inputs: &[Input], log: &Path) -> Result<Finished, Error> {
        let sandbox = self.sandbox.get()?;
        self.phase(recipe, Phase::Unpacking);
        let scratch = Scratch::new(self.scratch)?;
        let layers = self.sandbox.layers(self.scratch);
        let mut root = Root::new(&scratch, inputs, self.store, layers.as_ref())?;
        let script = root::add_recipe(&scratch, recipe, self.files, self.store)?;
        let top_level = std::mem::take(&mut root.top_level);
        let mut request = BuildRequest::for_recipe(&script, top_level, self.cores);
        request.stack = root.stack.take();
        sandbox.mask(&mut request);
        self.run(recipe.name(), &request, scratch, log)
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
        log: &Path,
    ) -> Result<Finished, Error> {
        self.observer.event(&Event::Building {
            package,
            phase: Phase::Running,
        });
        let mut log = Log::create(log)?;
        let (ending, elapsed) = self.run_script(package, request, &mut log)?;
        match ending {
            Ending::Exited(0) => self.check_output(package, scratch, elapsed),
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
        log: &mut Log,
    ) -> Result<(Ending, Duration), Error> {
        let sandbox = self.sandbox.get()?;
        let started = Instant::now();
        let mut output = |text: &[u8]| {
            log.write(text);
            self.observer.event(&Event::Output { package, text });
        };
        let cancelled = || self.observer.cancelled();
        let ending = run(sandbox, request, &self.limits, &mut output, &cancelled)?;
        let elapsed = started.elapsed();
        if let Some(error) = log.take_error() {
            self.warn(
                package,
                &format!("its log is incomplete: {}", chain(&error)),
            );
        }
        Ok((ending, elapsed))
    }

    fn check_output(
        &self,
        package: &PackageName,
        scratch: Scratch,
        elapsed: Duration,
    ) -> Result<Finished, Error> {
        self.observer.event(&Event::Building {
            package,
            phase: Phase::Packing,
        });
        let destdir = root::destdir(&scratch);
        if let Err(source) = output::check(&destdir)? {
            if self.keep_failed {
                let kept = scratch.keep();
                self.warn(
                    package,
                    &format!("its scratch directory is kept in `{}`", kept.display()),
                );
            }
            return Err(Error::Output {
                package: package.clone(),
                source,
            });
        }
        for leak in output::leaks(&destdir, scratch.path())? {
            self.warn(package, &leak);
        }
        Ok(Finished {
            package: package.clone(),
            scratch,
            elapsed,
        })
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

impl Finished {
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
