//! `p2pkgs bootstrap`

use serde::Serialize;

use crate::bench::Bench;
use crate::context::Context;
use crate::error::{CmdResult, Failure};
use crate::seeds;

/// Make the seed that everything else is built from, and compare it with the pinned one
///
/// The seed's sha256 is pinned in the program and in the tree, so nobody needs to do this to use it; anybody can do it to
/// believe it. `tiny` takes a minute, `gcc` half an hour on two idle cores; what was interrupted goes on where it was.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Make a seed with the host's C compiler ($CC, else cc), then with itself until the bytes stop changing
    ///
    /// The seed `gcc` also wants the C++ compiler that goes with it, static libraries for both, and make.
    Rebuild {
        /// Which seed
        #[arg(default_value = "tiny")]
        seed: String,
    },
    /// Make a seed with the pinned one and compare; exit code 6 when they differ
    ///
    /// With `--from` it is made with another compiler instead, and then with itself until the bytes stop changing: a compiler
    /// that hides something in what it compiles would be found out by one that does not.
    Verify {
        /// Which seed
        #[arg(default_value = "tiny")]
        seed: String,
        /// Start from another compiler of this machine, such as `clang` or `tcc -w`, or from the root of another system, where $CC, else cc, is taken
        #[arg(long, value_name = "DIR_OR_COMPILER")]
        from: Option<String>,
    },
}

#[derive(Serialize)]
struct Made {
    seed: String,
    sha256: String,
    cid: String,
    size: u64,
}

pub fn run(context: &Context, args: &Args) -> CmdResult {
    let name = match &args.command {
        Command::Rebuild { seed } | Command::Verify { seed, .. } => seed,
    };
    let seed = seeds::named(name)?;
    let from = match &args.command {
        Command::Rebuild { .. } => Some(seeds::From::here()),
        Command::Verify { from, .. } => from.as_deref().map(seeds::From::named).transpose()?,
    };
    let bench = Bench::open(context, context.tree()?, None)?;
    let made = match &from {
        Some(from) => seeds::rebuild(&bench, &seed, from),
        None => seeds::verify(&bench, &seed),
    };
    let blob = made.map_err(|error| match error {
        bootstrap::Error::Build(builder::Error::Cancelled) => Failure::interrupted(),
        bootstrap::Error::MissingSeed { .. } | bootstrap::Error::NotPinned { .. } => {
            Failure::from(error).hint(format!("`p2pkgs bootstrap rebuild {}` makes it", seed.name))
        }
        error => Failure::from(error),
    })?;
    drop(bench);
    context.ui.status(match seed.sha256 {
        Some(_) if from.is_some() => format!(
            "the seed {} is the pinned one, which your key has signed",
            seed.name
        ),
        Some(_) => format!("the seed {} is the pinned one", seed.name),
        None => format!(
            "the seed {} is made from itself, but not pinned: there is nothing to compare it with",
            seed.name
        ),
    });
    if context.ui.json() {
        return context.ui.json_data(&Made {
            seed: seed.name.to_string(),
            sha256: blob.sha256.to_string(),
            cid: blob.root.to_string(),
            size: blob.size,
        });
    }
    context.ui.data(blob.sha256)
}
