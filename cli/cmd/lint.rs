//! `p2pkgs lint`

use base::PackageName;
use builder::{Context as BuildContext, Input, Options, TOP_LEVEL, untidy};
use recipe::{Graph, PackageId, lint};
use serde::Serialize;

use crate::context::Context;
use crate::error::{CmdResult, Exit, Failure};
use crate::sanitize;
use crate::session::Session;
use crate::units;

/// Look for what is allowed in a recipe and yet most likely a mistake
///
/// Missing checks, sources with one URL only or that nothing uses, lists that are not sorted, commands whose answer differs
/// between machines; and in outputs that the store holds, files that no package needs or that two packages have. Prints one
/// remark a line; exit code 1 when there are any.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Packages of the tree [default: all]
    #[arg(value_name = "PKG")]
    packages: Vec<String>,
    /// Also build each once more without each of its build dependencies: those that are not missed are named
    #[arg(long)]
    unused: bool,
}

#[derive(Serialize)]
struct Said {
    package: String,
    place: String,
    text: String,
}

pub fn run(context: &Context, args: &Args) -> CmdResult {
    let tree = context.tree()?;
    let names = tree.package_names_or_all(&args.packages)?;
    let session = Session::of(context, None, tree, &names)?;
    let graph = &session.graph;
    let sources = session.bench.fetcher();
    let builder = session.bench.build_context(&sources);
    let mut count = 0;
    for name in &names {
        let Some(id) = graph.id(name) else { continue };
        let mut remarks = remarks(&builder, graph, id, name)?;
        if args.unused {
            remarks.extend(about_dependencies(&session, id)?);
        }
        for said in remarks {
            count += 1;
            if context.ui.json() {
                context.ui.json_data(&said)?;
            } else {
                let line = format!("{}: {}", said.place, said.text);
                context.ui.data(sanitize::line(&line))?;
            }
        }
    }
    match count {
        0 => Ok(()),
        count => Err(Failure::new(
            Exit::Other,
            format!(
                "there is something to say: {}",
                units::count(count, "remark")
            ),
        )),
    }
}

/// About the recipe, and about the output if the store has it.
fn remarks(
    builder: &BuildContext<'_>,
    graph: &Graph,
    id: PackageId,
    name: &PackageName,
) -> CmdResult<Vec<Said>> {
    let recipe = graph.recipe(id);
    let package = name.to_string();
    let mut said: Vec<_> = lint(recipe, &TOP_LEVEL)
        .into_iter()
        .map(|remark| Said {
            package: package.clone(),
            place: remark.place.to_string(),
            text: remark.text,
        })
        .collect();
    if recipe.build().is_none() {
        return Ok(said);
    }
    let Some(output) = output_of(builder, graph, id)? else {
        return Ok(said);
    };
    let mut closure = Vec::new();
    for id in graph.run_closure(id) {
        closure.extend(output_of(builder, graph, id)?);
    }
    let about_output = untidy(builder.store, &output, &closure)?;
    said.extend(about_output.into_iter().map(|text| Said {
        package: package.clone(),
        place: format!("output of {name}"),
        text,
    }));
    Ok(said)
}

/// About what the package is built with.
fn about_dependencies(session: &Session, id: PackageId) -> CmdResult<Vec<Said>> {
    let package = session.graph.name(id);
    let unused = session.unused(id, &Options::default())?;
    let said = |dep: PackageName| Said {
        package: package.to_string(),
        place: format!("pkg/{package}/build-deps"),
        text: format!("`../{dep}` is not used: the same comes out without it"),
    };
    Ok(unused.into_iter().map(said).collect())
}

fn output_of(builder: &BuildContext<'_>, graph: &Graph, id: PackageId) -> CmdResult<Option<Input>> {
    let name = graph.name(id);
    let blob = builder.find_here(name, &graph.pkghash(id))?;
    Ok(blob.map(|blob| Input {
        name: name.to_string(),
        blob,
    }))
}
