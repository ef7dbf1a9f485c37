//! Is a package reproducible? Build it again from the same inputs and compare, entry by entry.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use recipe::{Graph, PackageId};
use store::Blob;
use store::archive::{self, Entry, EntryKind, UnpackLimits};

use crate::build::Finished;
use crate::diffoscope;
use crate::error::Error;
use crate::observe::Event;
use crate::realise::{Context, Failure, Options, Realised, Report};
use crate::root::{Input, open};
use crate::runner::Runner;
use crate::surroundings::{PAUSE, Surroundings};

/// How late ^C may act during a pause.
const TICK: Duration = Duration::from_millis(50);
/// How many differences an error lists; the first ones tell most.
pub const DIFFERENCES_MAX: usize = 20;

/// Realises `roots`, builds each of them once more, and compares the outputs. Seeds have nothing to compare.
///
/// What the store has may have been built here or by others: either way a second build must give the same bytes.
///
/// # Errors
/// [`Error::NotReproducible`] for each package whose outputs differ, within a [`Failure`] as [`crate::realise`] returns it.
pub fn check(
    context: &Context<'_>,
    graph: &Graph,
    roots: &[PackageId],
    options: &Options,
) -> Result<Report, Box<Failure>> {
    let runner = Runner::new(context, graph, options);
    let is_built = |id: &PackageId| graph.recipe(*id).build().is_some();
    let built: Vec<_> = roots.iter().copied().filter(is_built).collect();
    let mut report = runner.run(roots)?;
    let inputs: Vec<_> = built
        .iter()
        .flat_map(|id| graph.build_closure(*id))
        .collect();
    let outcome = runner.run(&inputs);
    let (for_builds, mut errors) = match outcome {
        Ok(more) => (more, Vec::new()),
        Err(failure) => return Err(merged(report, *failure)),
    };
    for id in built {
        let checked = check_one(&runner, context, graph, id, &mut report, &for_builds);
        // Whatever came of the second build, it is over; the first one's output is in the store.
        let package = graph.name(id);
        context.observer.event(&Event::Present { package });
        if let Err(error) = checked {
            let go_on = options.keep_going && !matches!(error, Error::Cancelled);
            errors.push(error);
            if !go_on {
                break;
            }
        }
    }
    absorb(&mut report, for_builds);
    let mut errors = errors.into_iter();
    match errors.next() {
        None => Ok(report),
        Some(error) => Err(Box::new(Failure {
            error,
            others: errors.collect(),
            report,
        })),
    }
}

fn check_one(
    runner: &Runner<'_>,
    context: &Context<'_>,
    graph: &Graph,
    id: PackageId,
    report: &mut Report,
    for_builds: &Report,
) -> Result<(), Error> {
    let package = graph.name(id);
    let Some(first) = report.realised.get(package).map(input) else {
        return Ok(());
    };
    let finished = build_again(runner, context, graph, id, for_builds)?;
    report.rebuilt.insert(package.clone(), finished.elapsed);
    let second = finished.pack()?;
    let differences = differences_from(context, &first, &second)?;
    if differences.is_empty() {
        return Ok(());
    }
    let explained = diffoscope::explain(context, &first, &second);
    Err(Error::NotReproducible {
        package: package.clone(),
        differences,
        explained,
    })
}

/// Builds a package once more from what a run realised for it.
fn build_again<'a>(
    runner: &'a Runner<'_>,
    context: &Context<'_>,
    graph: &Graph,
    id: PackageId,
    for_builds: &Report,
) -> Result<Finished<'a>, Error> {
    runner.fetch_sources(id)?;
    let inputs = inputs(for_builds, graph, &graph.build_closure(id));
    // The log of the first build tells how the output in the store came to be: it is not overwritten.
    let log = runner.log(&graph.pkghash(id)).with_extension("rebuild.log");
    let surroundings = if runner.options().vary {
        Surroundings::Other
    } else {
        Surroundings::Usual
    };
    if surroundings == Surroundings::Other {
        pause(context)?;
    }
    runner
        .workshop()
        .build_in(graph.recipe(id), &inputs, &log, surroundings)
}

/// Builds a package whatever there is of it, and takes the output into the store as a file that is nobody's yet.
///
/// # Errors
/// [`Failure`] as [`crate::realise`] returns it.
pub fn build_anew(
    context: &Context<'_>,
    graph: &Graph,
    id: PackageId,
    options: &Options,
) -> Result<Blob, Box<Failure>> {
    let runner = Runner::new(context, graph, options);
    let report = runner.run(&graph.build_closure(id))?;
    let built = build_again(&runner, context, graph, id, &report)
        .and_then(|finished| finished.ingest(context.store));
    let package = graph.name(id);
    context.observer.event(&Event::Present { package });
    built.map_err(|error| {
        Box::new(Failure {
            error,
            others: Vec::new(),
            report,
        })
    })
}

/// Lets the clock go on before a build that is to see another time.
fn pause(context: &Context<'_>) -> Result<(), Error> {
    let begun = Instant::now();
    while begun.elapsed() < PAUSE {
        if context.observer.cancelled() {
            return Err(Error::Cancelled);
        }
        thread::sleep(TICK);
    }
    Ok(())
}

pub(crate) fn input(realised: &Realised) -> Input {
    Input {
        name: realised.package.to_string(),
        blob: realised.blob.clone(),
    }
}

/// The outputs of these packages, as far as a run realised them.
pub(crate) fn inputs(report: &Report, graph: &Graph, ids: &[PackageId]) -> Vec<Input> {
    let realised = ids
        .iter()
        .filter_map(|id| report.realised.get(graph.name(*id)));
    realised.map(input).collect()
}

/// How a packed output differs from one in the store.
pub(crate) fn differences_from(
    context: &Context<'_>,
    first: &Input,
    second: &Path,
) -> Result<Vec<String>, Error> {
    let after = File::open(second).map_err(|e| Error::io("open", second, e))?;
    differences(&first.name, open(context.store, first)?, after)
}

/// How two archives differ, as lines, at most [`DIFFERENCES_MAX`] and a last one that counts the rest.
///
/// # Errors
/// [`Error::Archive`] when one of them cannot be read.
pub fn differences(
    package: &str,
    before: impl Read,
    after: impl Read,
) -> Result<Vec<String>, Error> {
    let list = |reader: Box<dyn Read + '_>| {
        archive::list(reader, &UnpackLimits::default())
            .map(by_path)
            .map_err(|e| Error::archive(package, e))
    };
    let (before, after) = (list(Box::new(before))?, list(Box::new(after))?);
    let mut lines = Vec::new();
    let paths: std::collections::BTreeSet<_> = before.keys().chain(after.keys()).collect();
    for path in paths {
        let name = String::from_utf8_lossy(path);
        match (before.get(path), after.get(path)) {
            (Some(a), Some(b)) => lines.extend(difference(a, b).map(|d| format!("`{name}`: {d}"))),
            (Some(_), None) => lines.push(format!("`{name}`: only in the first")),
            (None, _) => lines.push(format!("`{name}`: only in the second")),
        }
    }
    let rest = lines.len().saturating_sub(DIFFERENCES_MAX);
    if rest > 0 {
        lines.truncate(DIFFERENCES_MAX);
        lines.push(format!("and {rest} more"));
    }
    Ok(lines)
}

fn by_path(entries: Vec<Entry>) -> BTreeMap<Vec<u8>, Entry> {
    entries
        .into_iter()
        .map(|entry| (entry.path.clone(), entry))
        .collect()
}

fn difference(a: &Entry, b: &Entry) -> Option<String> {
    if kind_name(&a.kind) != kind_name(&b.kind) {
        return Some(format!(
            "{} in the first, {} in the second",
            kind_name(&a.kind),
            kind_name(&b.kind)
        ));
    }
    if a.kind != b.kind {
        return Some("another target".into());
    }
    if a.mode != b.mode {
        return Some(format!(
            "mode {:o} in the first, {:o} in the second",
            a.mode, b.mode
        ));
    }
    if a.size != b.size {
        return Some(format!(
            "{} bytes in the first, {} in the second",
            a.size, b.size
        ));
    }
    (a.sha256 != b.sha256).then(|| format!("other content, {} bytes in both", a.size))
}

const fn kind_name(kind: &EntryKind) -> &'static str {
    match kind {
        EntryKind::File => "a file",
        EntryKind::Directory => "a directory",
        EntryKind::Symlink(_) => "a symbolic link",
        EntryKind::HardLink(_) => "a hard link",
    }
}

fn merged(mut report: Report, mut failure: Failure) -> Box<Failure> {
    absorb(&mut report, std::mem::take(&mut failure.report));
    failure.report = report;
    Box::new(failure)
}

/// Adds what a second run did. What the first one did stays: there it was built, in the second it was present.
fn absorb(report: &mut Report, other: Report) {
    for (name, realised) in other.realised {
        report.realised.entry(name).or_insert(realised);
    }
    report.fetched.extend(other.fetched);
    report.built.extend(other.built);
    report.rebuilt.extend(other.rebuilt);
    report.skipped.extend(other.skipped);
    report.asked.merge(other.asked);
}
