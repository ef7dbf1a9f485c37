//! Which build dependencies does a package do without? It is built once more for each, with all others.
//!
//! Nothing else tells: what a script opens is not what it needs, for configure scripts look at much that they then leave. So
//! a dependency counts as unused when the same bytes come out without it.

use base::PackageName;
use recipe::{Graph, PackageId};

use crate::check::{differences_from, input, inputs};
use crate::error::Error;
use crate::log::log_path;
use crate::observe::Event;
use crate::realise::{Context, Options, Report};

/// The build dependencies without which the same output comes out, in the recipe's order. One that others bring along
/// anyway is not tried. `report` is of a run that realised the package and its build closure.
///
/// # Errors
/// Whatever keeps a build from being tried; that it fails is an answer.
pub fn unused(
    context: &Context<'_>,
    graph: &Graph,
    id: PackageId,
    report: &Report,
    options: &Options,
) -> Result<Vec<PackageName>, Error> {
    let mut found = Vec::new();
    context.fetch_sources(graph.recipe(id), options)?;
    for dep in graph.build_deps(id) {
        let others: Vec<_> = graph
            .build_deps(id)
            .iter()
            .copied()
            .filter(|d| d != dep)
            .collect();
        let closure = graph.with_run_closures(&others);
        if !others.is_empty()
            && !closure.contains(dep)
            && same_without(context, graph, id, &closure, report, options)?
        {
            found.push(graph.name(*dep).clone());
        }
    }
    Ok(found)
}

/// Does the output in the store also come out of these inputs?
fn same_without(
    context: &Context<'_>,
    graph: &Graph,
    id: PackageId,
    closure: &[PackageId],
    report: &Report,
    options: &Options,
) -> Result<bool, Error> {
    let package = graph.name(id);
    let Some(output) = report.realised.get(package) else {
        return Ok(false);
    };
    let inputs = inputs(report, graph, closure);
    // The log of the build that made the output is not overwritten.
    let log = log_path(context.logs, &graph.pkghash(id)).with_extension("unused.log");
    let built = context
        .workshop(options)
        .build(graph.recipe(id), &inputs, &log);
    // Whatever came of it, it is over; the output is in the store.
    context.observer.event(&Event::Present { package });
    match built {
        Ok(finished) => {
            let differences = differences_from(context, &input(output), &finished.pack()?)?;
            Ok(differences.is_empty())
        }
        Err(Error::BuildFailed(_) | Error::Output { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}
