//! Seeds that nobody has: `bootstrap:NAME` in a recipe is answered by rebuilding the seed with the host's C compiler.

use std::sync::{Mutex, PoisonError};

use bootstrap::{Event, Forecast, Request, Seed, stage_0_script};
use builder::Options;
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
        let blob = rebuild(self.bench, seed).map_err(|error| match error {
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

/// Makes a seed from the host's C compiler, and tells of each stage.
///
/// # Errors
/// [`bootstrap::Error`].
pub fn rebuild(bench: &Bench, seed: &Seed) -> Result<Blob, bootstrap::Error> {
    let compiler = std::env::var("CC").ok().filter(|cc| !cc.trim().is_empty());
    let compiler = compiler.as_deref().unwrap_or(DEFAULT_COMPILER);
    let origins = First::new(bench.origins());
    let context = bench.build_context(&origins);
    let options = Options::default();
    let stage_0 = stage_0_script(seed).unwrap_or_default();
    let request = Request {
        seed,
        compiler,
        stage_0,
        options: &options,
        resume: true,
    };
    let (mut tree, system) = (bench.tree.clone(), System::host());
    let forecast = Mutex::new(Forecast::new(&seed.times));
    let tell = |event| {
        let mut forecast = forecast.lock().unwrap_or_else(PoisonError::into_inner);
        tell(&bench.ui, compiler, &mut forecast, &event);
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
    let (compiler, stage_0) = (DEFAULT_COMPILER, &[][..]);
    let request = Request {
        seed,
        compiler,
        stage_0,
        options: &options,
        resume: false,
    };
    let (mut tree, system) = (bench.tree.clone(), System::host());
    let tell = |event| {
        // The one stage it takes is like the last of a rebuild, and called the first.
        let mut forecast = Forecast::new(&[]);
        tell(&bench.ui, DEFAULT_COMPILER, &mut forecast, &event);
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

fn tell(ui: &Ui, compiler: &str, forecast: &mut Forecast, event: &Event) {
    match event {
        Event::Stage { stage, .. } => {
            let of = forecast.last().filter(|last| stage <= last);
            let of = of.map(|last| format!(" of {last}")).unwrap_or_default();
            let from = match stage.checked_sub(1) {
                Some(before) => format!("from stage {before}"),
                None => format!("from the host's `{compiler}`"),
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
