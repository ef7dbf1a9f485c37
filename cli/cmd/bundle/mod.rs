//! `p2pkgs bundle`

mod export;
mod import;
mod manifest;

use std::path::PathBuf;

use crate::context::Context;
use crate::error::{CmdResult, Failure};
use crate::session::GetArgs;

/// Packages with all they are made from in one file, for a machine without a network
///
/// The file holds the recipes of the packages and of everything they are built with, the sources and seeds of all of these, the
/// built packages with their run closures, and who signed them. Whoever imports it can build or install from it without a
/// network. It is a CAR: any IPFS node can take it in and serve it.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    export: ExportArgs,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Take a bundle into the store, and write its recipes into a new folder
    ///
    /// What others built is used only if you trust a key that signed it (`p2pkgs key trust`); sources need no trust, their sha256
    /// is in the recipes.
    Import {
        /// The bundle
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Where to write the recipes: a folder that does not exist yet
        #[arg(long, value_name = "DIR")]
        into: Option<PathBuf>,
    },
}

#[derive(Debug, clap::Args)]
struct ExportArgs {
    /// The file to write; `-` is stdout
    #[arg(short, long, value_name = "FILE", required = true)]
    output: Option<PathBuf>,
    /// Packages of the tree
    #[arg(value_name = "PKG", required = true)]
    packages: Vec<String>,
    /// Leave the sources and seeds out: what is in it can be installed, not built
    #[arg(long, conflicts_with = "no_packages")]
    no_sources: bool,
    /// Leave the built packages out: everything is built where it is imported
    #[arg(long)]
    no_packages: bool,
    #[command(flatten)]
    get: GetArgs,
}

pub fn run(context: &Context, args: &Args) -> CmdResult {
    match (&args.command, &args.export.output) {
        (Some(Command::Import { file, into }), _) => import::run(context, file, into.as_deref()),
        (None, Some(output)) => export::run(context, &args.export, output),
        (None, None) => Err(Failure::usage("`-o FILE` says where to write the bundle")),
    }
}
