//! Seeds that nobody has: `bootstrap:NAME` in a recipe is answered by rebuilding the seed with the host's C compiler.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use bootstrap::{Event, Forecast, Request, Seed, stage_0_script};
use builder::{Host, Options};
use recipe::System;
use store::substitute::{
    Asked, FetchError, Fetched, First, Origin, Progress, SourceFetcher, SourceRequest,
};
use store::{Blob, Store};

use crate::bench::Bench;
use crate::error::{CmdResult, Exit, Failure};
use crate::ui::Ui;
use crate::units;

const SCHEME: &str = "bootstrap:";
/// The compiler when $CC does not name one, as make assumes it.
const DEFAULT_COMPILER: &str = "cc";

/// Makes seeds instead of fetching them.
#[derive(Debug)]
pub struct RebuiltSeeds<'a> {
    bench: &'a Bench,
}

impl<'a> RebuiltSeeds<'a> {
    /// Builds with these tools.
    pub const fn new(bench: &'a Bench) -> Self {
        Self { bench }
    }
}

impl SourceFetcher for RebuiltSeeds<'_> {
    fn fetch(
        &self,
        request: &SourceRequest<'_>,
        _store: &Store,
        _progress: &dyn Progress,
    ) -> Result<Fetched, FetchError> {
        let missing = || FetchError::Missing {
            asked: Asked::default(),
        };
        let name = request.urls.iter().find_map(|url| url.strip_prefix(SCHEME));
        let seeds = bootstrap::seeds().map_err(|e| FetchError::Failed {
            source: Box::new(e),
        })?;
        let seed = seeds.iter().find(|seed| Some(seed.name.as_str()) == name);
        // A tree may pin another seed than the one this program knows how to make.
        let Some(seed) = seed.filter(|seed| seed.sha256 == Some(request.sha256)) else {
            return Err(missing());
        };
        self.bench.ui.status(format!(
            "nobody has the seed {}, so it is made here",
            seed.name
        ));
        let blob = rebuild(self.bench, seed, &From::here()).map_err(|error| match error {
            bootstrap::Error::Build(builder::Error::Cancelled) => FetchError::Cancelled,
            error => FetchError::Failed {
                source: Box::new(error),
            },
        })?;
        let received = vec![(Origin::Bootstrap, blob.size)];
        Ok(Fetched {
            blob,
            received,
            asked: Asked::default(),
        })
    }
}

/// Whose programs make a seed first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct From {
    root: PathBuf,
    compiler: String,
}

impl From {
    /// This machine, with the compiler that $CC names.
    pub fn here() -> Self {
        let compiler = std::env::var("CC").ok().filter(|cc| !cc.trim().is_empty());
        Self {
            root: "/".into(),
            compiler: compiler.unwrap_or_else(|| DEFAULT_COMPILER.to_owned()),
        }
    }

    /// The root of another system, with the compiler that $CC names there; or another compiler of this machine.
    ///
    /// # Errors
    /// When the directory cannot be looked at.
    pub fn named(name: &str) -> CmdResult<Self> {
        let here = Self::here();
        if !Path::new(name).is_dir() {
            let compiler = name.to_owned();
            return Ok(Self { compiler, ..here });
        }
        let root = fs::canonicalize(name)
            .map_err(|e| Failure::from(e).context(format!("cannot look at `{name}`")))?;
        Ok(Self { root, ..here })
    }

    fn host(&self) -> Host<'_> {
        Host {
            root: &self.root,
            compiler: &self.compiler,
        }
    }

    /// In words.
    fn shown(&self) -> String {
        let compiler = crate::sanitize::line(&self.compiler);
        if self.root == Path::new("/") {
            return format!("the host's `{compiler}`");
        }
        let root = self.root.display().to_string();
        format!("`{compiler}` in `{}`", crate::sanitize::line(&root))
    }
}

/// Makes a seed, first with a compiler from elsewhere and then with itself, and tells of each stage.
///
/// # Errors
/// [`bootstrap::Error`].
pub fn rebuild(bench: &Bench, seed: &Seed, from: &From) -> Result<Blob, bootstrap::Error> {
    let origins = First::new(bench.origins());
    let context = bench.build_context(&origins);
    let options = Options::default();
    let request = Request {
        seed,
        host: from.host(),
        stage_0: stage_0_script(seed).unwrap_or_default(),
        options: &options,
        resume: true,
    };
    let (mut tree, system) = (bench.tree.clone(), System::host());
    let forecast = Mutex::new(Forecast::new(&seed.times));
    let from = from.shown();
    let tell = |event| {
        let mut forecast = forecast.lock().unwrap_or_else(PoisonError::into_inner);
        tell(&bench.ui, &from, &mut forecast, &event);
    };
    let rebuilt = bootstrap::rebuild(&context, &mut tree, &system, &request, &tell)?;
    Ok(rebuilt.blob)
}

/// Makes a pinned seed from itself and compares.
///
/// # Errors
/// [`bootstrap::Error`].
pub fn verify(bench: &Bench, seed: &Seed) -> Result<Blob, bootstrap::Error> {
    let origins = First::new(bench.origins());
    let context = bench.build_context(&origins);
    let options = Options::default();
    let here = From::here();
    let request = Request {
        seed,
        host: here.host(),
        stage_0: &[],
        options: &options,
        resume: false,
    };
    let (mut tree, system) = (bench.tree.clone(), System::host());
    let tell = |event| {
        // The one stage it takes is like the last of a rebuild, and called the first.
        let mut forecast = Forecast::new(&[]);
        tell(&bench.ui, "", &mut forecast, &event);
    };
    Ok(bootstrap::verify(&context, &mut tree, &system, &request, &tell)?.blob)
}

/// The seed of that name.
///
/// # Errors
/// A usage error naming the seeds there are.
pub fn named(name: &str) -> CmdResult<Seed> {
    let seeds = bootstrap::seeds().map_err(|e| Failure::from(e).exit_with(Exit::Bug))?;
    let known: Vec<_> = seeds.iter().map(|seed| seed.name.to_string()).collect();
    seeds
        .into_iter()
        .find(|seed| seed.name.as_str() == name)
        .ok_or_else(|| {
            let name = crate::sanitize::line(name);
            Failure::usage(format!(
                "there is no seed `{name}`, known: {}",
                known.join(", ")
            ))
        })
}

fn tell(ui: &Ui, from: &str, forecast: &mut Forecast, event: &Event) {
    match event {
        Event::Stage { stage, .. } => {
            let of = forecast.last().filter(|last| stage <= last);
            let of = of.map(|last| format!(" of {last}")).unwrap_or_default();
            let from = match stage.checked_sub(1) {
                Some(before) => format!("from stage {before}"),
                None => format!("from {from}"),
            };
            let left = forecast.left(*stage).map(units::duration);
            let left = left.map(|time| format!(", about {time} to go"));
            ui.status(format!(
                "stage {stage}{of}: {from}{}",
                left.unwrap_or_default()
            ));
        }
        Event::Done {
            stage,
            blob,
            elapsed,
            reused,
        } => {
            let (size, time) = (units::bytes(blob.size), units::duration(*elapsed));
            let reused = if *reused > 0 {
                format!(", {reused} built before")
            } else {
                forecast.took(*stage, *elapsed);
                String::new()
            };
            ui.status(format!(
                "stage {stage} done in {time}: {} ({size}{reused})",
                blob.sha256
            ));
        }
    }
}
