//! What realising would do, without doing it: the dry run.

use std::collections::HashMap;
use std::thread;

use base::PackageName;
use recipe::{Graph, Outcome, PackageId, Plan};
use store::substitute::Asked;

use crate::error::{Error, Wanted};
use crate::lookup::Found;
use crate::realise::{Context, Options};
use crate::runner::{LOOKUPS, Runner};

/// What a run would do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Forecast {
    /// Outputs that would be fetched, with their sizes in bytes.
    pub fetch: Vec<(PackageName, u64)>,
    /// Packages that would be built.
    pub build: Vec<PackageName>,
    /// Seeds and sources that would be fetched; their sizes are not known before.
    pub sources: Vec<Wanted>,
    /// Packages that can be had neither way.
    pub missing: Vec<PackageName>,
    /// Everybody who was asked.
    pub asked: Asked,
}

/// Lookups that were made together, for each waits for others.
struct LookedUp<'r, 'a> {
    runner: &'r Runner<'a>,
    found: HashMap<PackageId, Result<Found, Error>>,
}

impl LookedUp<'_, '_> {
    /// Looks up what is not here, many at once.
    fn look_up(&mut self, ids: &[PackageId]) -> Result<(), Error> {
        let mut elsewhere = Vec::new();
        for id in ids {
            if !self.found.contains_key(id) && !self.runner.is_here(*id)? {
                elsewhere.push(*id);
            }
        }
        let runner = self.runner;
        for some in elsewhere.chunks(LOOKUPS) {
            let found = thread::scope(|scope| {
                let look = |id: PackageId| scope.spawn(move || (id, runner.look(id)));
                let running: Vec<_> = some.iter().copied().map(look).collect();
                let ended = running.into_iter().filter_map(|thread| thread.join().ok());
                ended.collect::<Vec<_>>()
            });
            self.found.extend(found);
        }
        Ok(())
    }

    fn take(&mut self, id: PackageId) -> Result<Found, Error> {
        self.found
            .remove(&id)
            .unwrap_or_else(|| self.runner.look(id))
    }
}

/// Looks everything up and does nothing.
///
/// # Errors
/// [`Error`] when the store or a lookup fails, or trusted keys contradict each other.
pub fn forecast(
    context: &Context<'_>,
    graph: &Graph,
    roots: &[PackageId],
    options: &Options,
) -> Result<Forecast, Error> {
    let runner = Runner::new(context, graph, options);
    let mut forecast = Forecast::default();
    let mut sizes = HashMap::new();
    let mut failure = None;
    let mut looked = LookedUp {
        runner: &runner,
        found: HashMap::new(),
    };
    looked.look_up(&graph.with_run_closures(roots))?;
    let plan = Plan::new(graph, roots, options.policy);
    let summary = plan.dry_run(|id| match looked.take(id) {
        Ok(Found::Here(_) | Found::Adopted(_)) => Outcome::Present,
        Ok(Found::Elsewhere(offer)) => {
            forecast.asked.merge(offer.asked);
            sizes.insert(id, offer.realisation.size);
            Outcome::Found
        }
        Ok(Found::Nowhere(asked, _)) => {
            forecast.asked.merge(asked);
            if let Err(error) = looked.look_up(&graph.build_closure(id)) {
                failure.get_or_insert(error);
            }
            Outcome::Missing
        }
        Ok(Found::Refused(error)) | Err(error) => {
            failure.get_or_insert(error);
            Outcome::Failed
        }
    });
    if let Some(error) = failure {
        return Err(error);
    }
    let name = |id: &PackageId| graph.name(*id).clone();
    let sized = |id: &PackageId| (name(id), sizes.get(id).copied().unwrap_or_default());
    forecast.fetch = summary.substituted.iter().map(sized).collect();
    forecast.build = summary.built.iter().map(name).collect();
    forecast.missing = summary.failed.iter().map(name).collect();
    forecast.sources = summary
        .fetched
        .iter()
        .map(|id| Wanted::Seed(name(id)))
        .collect();
    for id in &summary.built {
        for source in graph.recipe(*id).sources() {
            if context.store.blob(&source.sha256)?.is_none() {
                let file = source.file.clone();
                forecast.sources.push(Wanted::Source {
                    package: name(id),
                    file,
                });
            }
        }
    }
    Ok(forecast)
}
