//! `p2pkgs build`

use std::io::{self, IsTerminal as _};
use std::path::Path;

use builder::{Forecast, Wanted};
use serde::Serialize;

use crate::context::Context;
use crate::error::{CmdResult, Exit, Failure};
use crate::remote::{self, OnArgs};
use crate::session::{GetArgs, Session, TrustArgs};
use crate::units;

/// Get packages or build them, and print where their outputs lie
///
/// Looks in the store, then asks peers for outputs signed by trusted keys, then builds in a sandbox what nobody has, with
/// sources from peers, mirrors and URLs. What is built is signed with the key `default`, which the first build makes.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Packages of the tree
    #[arg(required = true, value_name = "PKG")]
    packages: Vec<String>,
    #[command(flatten)]
    get: GetArgs,
    #[command(flatten)]
    trust: TrustArgs,
    /// Only say what would be fetched and built
    #[arg(long)]
    dry_run: bool,
    /// Build again and compare; exit code 6 when the outputs differ
    #[arg(long, conflicts_with_all = ["dry_run", "substitute_only"])]
    check: bool,
    /// With `--check`: build again as another user, on another host, in another directory, a day ahead, with fewer processors
    /// and files in another order
    #[arg(long, requires = "check")]
    vary: bool,
    /// Go on with what does not depend on a failure
    #[arg(short, long)]
    keep_going: bool,
    /// Leave the scratch directories of failed builds
    #[arg(short = 'K', long)]
    keep_failed: bool,
    /// Open a shell where the first build has failed, in its sandbox; its scratch directory goes afterwards, unless it is kept
    #[arg(long, conflicts_with_all = ["dry_run", "substitute_only"])]
    shell_on_failure: bool,
    #[command(flatten)]
    on: OnArgs,
}

pub fn run(context: &Context, args: &Args) -> CmdResult {
    args.trust.apply(context);
    let mut options = args.get.options(context)?;
    options.keep_going = args.keep_going;
    options.keep_failed = args.keep_failed || args.shell_on_failure;
    options.vary = args.vary;
    let session = Session::open(context, args.get.jobs, &args.packages)?;
    if args.dry_run {
        return show(context, &session.forecast(&options)?);
    }
    let options = remote::build(context, &session, &args.on, args.get.jobs, options)?;
    let realised = if args.check {
        session.check(&options)
    } else {
        session.realise(&options)
    };
    let report = match realised {
        Err(failure) if args.shell_on_failure => {
            return Err(look_around(&session, failure, args.keep_failed));
        }
        realised => realised?,
    };
    if args.check {
        context.ui.status(if args.vary {
            "a second build in other surroundings gave the same bytes"
        } else {
            "a second build gave the same bytes"
        });
    }
    session.print_outputs(&report)
}

/// Opens a shell where a build failed, if there is a terminal for it. That build's failure remains the command's.
fn look_around(session: &Session, failure: Failure, keep: bool) -> Failure {
    let terminal = io::stdin().is_terminal() && io::stderr().is_terminal();
    let Some(dir) = failure.kept().map(Path::to_owned).filter(|_| terminal) else {
        // The hints say how to open it.
        return failure;
    };
    let (ui, exit, message) = (&session.bench.ui, failure.exit(), failure.message());
    ui.failure(&failure);
    match session.bench.shell(&dir) {
        Ok(kept) if keep => ui.status(format!("kept in `{}`", kept.dir().display())),
        Ok(kept) => {
            if let Err(error) = kept.remove() {
                ui.failure(&error.into());
            }
        }
        Err(error) => ui.failure(&error),
    }
    Failure::new(exit, message)
}

#[derive(Serialize)]
struct Fetch {
    name: String,
    size: u64,
}

#[derive(Serialize)]
struct Plan {
    fetch: Vec<Fetch>,
    build: Vec<String>,
    sources: Vec<String>,
    missing: Vec<String>,
}

fn show(context: &Context, forecast: &Forecast) -> CmdResult {
    let plan = Plan {
        fetch: forecast
            .fetch
            .iter()
            .map(|(name, size)| Fetch {
                name: name.to_string(),
                size: *size,
            })
            .collect(),
        build: forecast.build.iter().map(ToString::to_string).collect(),
        sources: forecast.sources.iter().map(source_name).collect(),
        missing: forecast.missing.iter().map(ToString::to_string).collect(),
    };
    if context.ui.json() {
        context.ui.json_data(&plan)?;
    } else {
        print(context, &plan)?;
    }
    let bytes = plan.fetch.iter().map(|fetch| fetch.size).sum();
    let (fetch, build) = (plan.fetch.len(), plan.build.len());
    context.ui.status(format!(
        "{fetch} to fetch ({}), {build} to build",
        units::bytes(bytes)
    ));
    match plan.missing.first() {
        None => Ok(()),
        Some(name) => {
            let message = format!("`{name}` was not found anywhere: {}", forecast.asked);
            Err(Failure::new(Exit::NotFound, message))
        }
    }
}

fn print(context: &Context, plan: &Plan) -> CmdResult {
    for fetch in &plan.fetch {
        context
            .ui
            .data(format!("fetch {} {}", fetch.name, fetch.size))?;
    }
    for source in &plan.sources {
        context
            .ui
            .data(format!("source {}", crate::sanitize::line(source)))?;
    }
    for name in &plan.build {
        context.ui.data(format!("build {name}"))?;
    }
    plan.missing
        .iter()
        .try_for_each(|name| context.ui.data(format!("missing {name}")))
}

fn source_name(wanted: &Wanted) -> String {
    match wanted {
        Wanted::Output(package) | Wanted::Seed(package) => package.to_string(),
        Wanted::Source { package, file } => format!("{package}/{file}"),
    }
}
