//! Does a built package work? It is tried where nothing else is: in a root that holds its run closure and no more.
//!
//! Two things are asked. Is there, within the closure, whatever the package's files name (interpreters, loaders, shared
//! libraries, link targets)? And does the recipe's `check` end well, in the sandbox of builds, with what `check-deps` adds?
//! The first is asked before anything is added, so that a tool of the check cannot stand in for a missing dependency.

use std::path::Path;
use std::time::Duration;

use recipe::Recipe;

use crate::build::Workshop;
use crate::error::Error;
use crate::kept;
use crate::limits::Ending;
use crate::log::Log;
use crate::references;
use crate::request::BuildRequest;
use crate::root::{self, Input};
use crate::scratch::Scratch;

/// A package to be tried.
#[derive(Clone, Debug)]
pub struct Trial<'a> {
    /// The package's recipe.
    pub recipe: &'a Recipe,
    /// The package's own output.
    pub output: &'a Input,
    /// The outputs of its run closure, its own among them.
    pub closure: &'a [Input],
    /// The outputs of what its `check-deps` name, and of their run closures.
    pub tools: &'a [Input],
}

impl Workshop<'_> {
    /// Tries a package, and says how long its check took; `None` if the recipe has none.
    ///
    /// # Errors
    /// [`Error::Incomplete`] when a file needs what the closure does not have, [`Error::CheckFailed`] with the last lines of
    /// the log, and whatever keeps a sandbox from being started.
    pub fn try_out(&self, trial: &Trial<'_>, log: &Path) -> Result<Option<Duration>, Error> {
        let sandbox = self.sandbox.get()?;
        let package = trial.recipe.name();
        let scratch = Scratch::new(self.scratch)?;
        root::fill(&scratch, trial.closure, self.store)?;
        let entries = root::entries(self.store, trial.output)?;
        let missing = references::missing(&scratch.root(), entries.iter().map(|e| &*e.path))?;
        if !missing.is_empty() {
            return Err(Error::Incomplete {
                package: package.clone(),
                missing,
            });
        }
        let Some(check) = trial.recipe.check() else {
            return Ok(None);
        };
        root::fill(&scratch, trial.tools, self.store)?;
        let script = root::add_check(&scratch, check)?;
        let mut request = BuildRequest::for_check(&script, root::top_level(&scratch.root())?);
        sandbox.mask(&mut request);
        if self.keep_failed {
            kept::describe(&scratch, &request, &[])?;
        }
        let mut log = Log::create(log)?;
        match self.run_script(package, &request, None, &mut log)? {
            (Ending::Exited(0), elapsed) => Ok(Some(elapsed)),
            (Ending::Cancelled, _) => Err(Error::Cancelled),
            (ending, _) => Err(Error::CheckFailed(
                self.failure(package, ending, &log, scratch),
            )),
        }
    }
}
