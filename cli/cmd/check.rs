//! `p2pkgs check`

use std::collections::BTreeSet;
use std::time::Duration;

use base::PackageName;
use builder::{Error as BuilderError, Input, Options, Report, Trial};
use recipe::{Graph, PackageId, PackageSource as _};
use serde::Serialize;

use crate::context::Context;
use crate::error::{CmdResult, Exit, Failure};
use crate::session::{GetArgs, Session};
use crate::tree::DiskTree;
use crate::units;

/// Try packages: does what was built work, in a root of its run closure alone?
///
/// Gets or builds each package, looks whether its closure has every interpreter, loader and library that its files name, and
/// runs its `check` in the sandbox. With `--reproduce` each is also built once more and compared. Goes on after a failure;
/// prints one line for each package. Exit code 5 when one does not work, 6 when one is not reproducible.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Packages of the tree
    #[arg(required_unless_present = "all", value_name = "PKG")]
    packages: Vec<String>,
    /// All packages of the tree
    #[arg(long, conflicts_with = "packages")]
    all: bool,
    /// Build each once more and compare
    #[arg(long, conflicts_with = "substitute_only")]
    reproduce: bool,
    /// With `--reproduce`: build again in other surroundings, as `build --check --vary` does
    #[arg(long, requires = "reproduce")]
    vary: bool,
    /// Print a table in Markdown
    #[arg(long)]
    markdown: bool,
    #[command(flatten)]
    get: GetArgs,
}

pub fn run(context: &Context, args: &Args) -> CmdResult {
    let mut options = args.get.options(context)?;
    options.keep_going = true;
    options.vary = args.vary;
    let mut tree = context.tree()?;
    let names = if args.all {
        built(context, &mut tree)?
    } else {
        tree.package_names(&args.packages)?
    };
    let graph = context.graph(&mut tree, &names)?;
    let session = Session::of(context, args.get.jobs, tree, &with_tools(&graph))?;
    session.bench.require_sandbox()?;
    let (report, failure) = session.realise_what_can_be(&options);
    let mut worst = failure;
    let mut rows = Vec::new();
    for id in names.iter().filter_map(|name| session.graph.id(name)) {
        if context.interrupt.is_set() {
            return Err(Failure::interrupted());
        }
        let (row, failure) = try_one(&session, id, &report, &options, args.reproduce);
        if let Some(failure) = failure {
            // The first is the command's own.
            match &worst {
                None => worst = Some(failure),
                Some(_) => session.bench.ui.failure(&failure),
            }
        }
        rows.push(row);
    }
    print(context, args, &rows)?;
    worst.map_or(Ok(()), Err)
}

/// Every package of the tree but the seeds.
fn built(context: &Context, tree: &mut DiskTree) -> CmdResult<Vec<PackageName>> {
    let names = tree.names();
    let graph = context.graph(tree, &names)?;
    let is_built = |name: &PackageName| {
        let id = graph.id(name);
        id.is_some_and(|id| graph.recipe(id).build().is_some())
    };
    Ok(names.into_iter().filter(is_built).collect())
}

/// The packages and what their checks need.
fn with_tools(graph: &Graph) -> Vec<PackageName> {
    let recipes = graph.roots().iter().map(|id| graph.recipe(*id));
    let names: BTreeSet<_> = recipes
        .flat_map(|recipe| {
            let tools = recipe.check_deps().iter().map(|dep| dep.name.clone());
            tools.chain([recipe.name().clone()])
        })
        .collect();
    names.into_iter().collect()
}

/// What is said of one package.
#[derive(Debug, Default, Serialize)]
struct Row {
    name: String,
    built: bool,
    /// `None` where the recipe has no check; what its files name is looked at all the same.
    works: Option<bool>,
    /// `None` where it was not built once more.
    reproducible: Option<bool>,
    size: Option<u64>,
    build_seconds: Option<f64>,
}

fn try_one(
    session: &Session,
    id: PackageId,
    report: &Report,
    options: &Options,
    reproduce: bool,
) -> (Row, Option<Failure>) {
    let name = session.graph.name(id);
    let realised = report.realised.get(name);
    let mut row = Row {
        name: name.to_string(),
        built: realised.is_some(),
        size: realised.map(|realised| realised.blob.size),
        ..Row::default()
    };
    if realised.is_none() {
        // Why was told when it happened.
        return (row, None);
    }
    session.bench.ui.detail(format!("trying {name}"));
    let mut failures = Vec::new();
    match try_out(session, id, report, options) {
        Ok(elapsed) => row.works = elapsed.map(|_| true),
        Err(failure) => {
            row.works = Some(false);
            failures.push(failure);
        }
    }
    if reproduce {
        let (again, failure) = session.build_again(id, options);
        let elapsed = again.rebuilt.get(name);
        row.build_seconds = elapsed.map(Duration::as_secs_f64);
        row.reproducible = elapsed.map(|_| failure.is_none());
        failures.extend(failure);
    }
    let mut failures = failures.into_iter();
    let first = failures.next();
    for other in failures {
        session.bench.ui.failure(&other);
    }
    (row, first)
}

fn try_out(
    session: &Session,
    id: PackageId,
    report: &Report,
    options: &Options,
) -> CmdResult<Option<Duration>> {
    let graph = &session.graph;
    let recipe = graph.recipe(id);
    let tools: Vec<PackageId> = recipe
        .check_deps()
        .iter()
        .filter_map(|dep| graph.id(&dep.name))
        .collect();
    let closure = inputs(report, graph, &[id])?;
    let output = closure
        .iter()
        .find(|input| input.name == recipe.name().as_str())
        .expect("a package is in its own closure");
    let trial = Trial {
        recipe,
        output,
        closure: &closure,
        tools: &inputs(report, graph, &tools)?,
    };
    let sources = session.bench.fetcher();
    let builder = session.bench.build_context(&sources);
    let log = builder::log_path(builder.logs, &graph.pkghash(id)).with_extension("check.log");
    match builder.workshop(options).try_out(&trial, &log) {
        Err(BuilderError::Cancelled) => Err(Failure::interrupted()),
        result => Ok(result?),
    }
}

fn inputs(report: &Report, graph: &Graph, ids: &[PackageId]) -> CmdResult<Vec<Input>> {
    let missing = || Failure::new(Exit::NotFound, "what its check needs could not be had");
    report.closure(graph, ids).ok_or_else(missing)
}

fn print(context: &Context, args: &Args, rows: &[Row]) -> CmdResult {
    if context.ui.json() {
        return rows.iter().try_for_each(|row| context.ui.json_data(row));
    }
    if !args.markdown {
        return rows.iter().try_for_each(|row| context.ui.data(line(row)));
    }
    context
        .ui
        .data("| package | builds | works | reproducible | size | built in |")?;
    context.ui.data("|---|---|---|---|---:|---:|")?;
    rows.iter().try_for_each(|row| context.ui.data(cells(row)))
}

fn line(row: &Row) -> String {
    if !row.built {
        return format!("{}: is not there", row.name);
    }
    let works = match row.works {
        Some(true) => "works",
        Some(false) => "does not work",
        None => "has no check",
    };
    let reproducible = match row.reproducible {
        Some(true) => ", is reproducible",
        Some(false) => ", is not reproducible",
        None => "",
    };
    format!("{}: {works}{reproducible}", row.name)
}

fn cells(row: &Row) -> String {
    let word = |fact: Option<bool>| fact.map_or("–", |fact| if fact { "yes" } else { "no" });
    let size = row.size.map_or_else(|| "–".into(), units::bytes);
    let elapsed = row.build_seconds.map_or_else(
        || "–".into(),
        |secs| units::duration(Duration::from_secs_f64(secs)),
    );
    format!(
        "| {} | {} | {} | {} | {size} | {elapsed} |",
        row.name,
        word(Some(row.built)),
        word(row.works),
        word(row.reproducible)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_says_what_is_known_and_no_more() {
        let mut row = Row {
            name: "lua".into(),
            ..Row::default()
        };
        assert_eq!(line(&row), "lua: is not there");
        assert_eq!(cells(&row), "| lua | no | – | – | – | – |");
        (row.built, row.size) = (true, Some(2048));
        assert_eq!(line(&row), "lua: has no check");
        (row.works, row.reproducible) = (Some(true), Some(false));
        row.build_seconds = Some(3.24);
        assert_eq!(line(&row), "lua: works, is not reproducible");
        assert_eq!(cells(&row), "| lua | yes | yes | no | 2.0 KiB | 3.2 s |");
    }
}
