//! What realising would do, without doing it: the dry run.

use std::collections::HashMap;

use base::PackageName;
use recipe::{Graph, Outcome, PackageId, Plan};
use store::substitute::Asked;

use crate::error::{Error, Wanted};
use crate::lookup::Found;
use crate::realise::{Context, Options};
use crate::runner::Runner;

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
    let plan = Plan::new(graph, roots, options.policy);
    let summary = plan.dry_run(|id| match runner.look(id) {
        Ok(Found::Here(_) | Found::Adopted(_)) => Outcome::Present,
        Ok(Found::Elsewhere(offer)) => {
            forecast.asked.merge(offer.asked);
            sizes.insert(id, offer.realisation.size);
            Outcome::Found
        }
        Ok(Found::Nowhere(asked, _)) => {
            forecast.asked.merge(asked);
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
