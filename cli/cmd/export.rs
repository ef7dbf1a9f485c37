//! `p2pkgs export`

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use builder::venv;

use crate::cmd::venv::refuse_existing;
use crate::context::Context;
use crate::error::{CmdResult, Failure};
use crate::outfile::OutFile;
use crate::session::{GetArgs, Session};
use crate::units;

/// Write packages and their run closures as one archive or directory
///
/// The bytes of the archive depend on the packages alone, so two machines export the same file.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What to write
    #[arg(long, value_name = "FORMAT")]
    format: Format,
    /// Where to; `-` is stdout
    #[arg(short, long, value_name = "OUT")]
    output: PathBuf,
    /// Packages of the tree
    #[arg(required = true, value_name = "PKG")]
    packages: Vec<String>,
    #[command(flatten)]
    get: GetArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// A tar archive compressed with zstd
    Tar,
    /// A directory that does not exist yet
    Dir,
}

pub fn run(context: &Context, args: &Args) -> CmdResult {
    let to_stdout = args.output == Path::new("-");
    match (args.format, to_stdout) {
        (Format::Dir, true) => {
            return Err(Failure::usage("a directory cannot be written to stdout"));
        }
        (Format::Dir, false) => refuse_existing(&args.output)?,
        (Format::Tar, _) => {}
    }
    let options = args.get.options()?;
    let session = Session::open(context, args.get.jobs, &args.packages)?;
    let report = session.realise(&options)?;
    let inputs = session.closure(&report)?;
    if args.format == Format::Dir {
        venv::compose(&session.bench.store, &inputs, &args.output)?;
        return context.ui.data(args.output.display());
    }
    let export = |writer: &mut dyn std::io::Write| {
        venv::export(
            &session.bench.store,
            &inputs,
            &session.bench.scratch,
            writer,
        )
        .map_err(Failure::from)
    };
    if to_stdout {
        export(&mut std::io::stdout().lock())?;
        return Ok(std::io::stdout().flush()?);
    }
    let mut out = OutFile::create(&args.output)?;
    let summary = export(out.file())?;
    out.finish()?;
    let size = File::open(&args.output)?.metadata()?.len();
    let (entries, size) = (summary.entries, units::bytes(size));
    context.ui.status(format!("{entries} entries, {size}"));
    context.ui.data(args.output.display())
}
