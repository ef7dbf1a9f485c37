//! `p2pkgs tree`

mod list;
mod publish;
mod sign;
mod sync;

use base::PackageName;
use trust::HeadKind;

use crate::context::Context;
use crate::error::CmdResult;
use crate::heads::{DEFAULT_TREE, Memory};

/// The package tree itself, handed on as signed heads: recipes that need no server
///
/// A head names one revision of a whole tree. It is signed, counts up and ends, so nobody who hands it on can change a tree,
/// bring back an old one, or keep a new one back unnoticed.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Sign the recipes of the tree as its next revision, and hand them on
    ///
    /// They are announced below a name of this home (IPNS), which is printed; with `--into`, written into a directory that any
    /// web server can serve. Publish again before the head expires, changed or not: that tells users that nothing is kept
    /// from them.
    Publish(publish::PublishArgs),
    /// Add your signature to a head, if it names the tree that is here
    ///
    /// For trees whose users ask for more than one signature. Get the recipes your own way, look at them, and sign: the head is
    /// refused if it names anything else. Then `tree publish --head FILE` hands it on.
    Sign(sign::SignArgs),
    /// Get the latest revision of a tree and put it in the place of the last one
    ///
    /// Source, folder and signers are remembered; `p2pkgs tree sync` alone does it again. Exit code 4 if it is not signed by those
    /// whom you named, if it is older than one that was seen, or if it contradicts one; the tree stays as it was then.
    Sync(sync::SyncArgs),
    /// Print the trees that this home knows, one a line: name, revision, day on which it expires, root, source
    List,
    /// Forget a tree: its source, its signers, and which revision was seen. Its folder stays
    Forget {
        /// What the tree is called
        #[arg(value_name = "NAME", default_value = DEFAULT_TREE)]
        name: PackageName,
    },
}

pub fn run(context: &Context, args: &Args) -> CmdResult {
    match &args.command {
        Command::Publish(args) => publish::run(context, args),
        Command::Sign(args) => sign::run(context, args),
        Command::Sync(args) => sync::run(context, args),
        Command::List => list::run(context),
        Command::Forget { name } => {
            let memory = Memory::of(context.home()?, HeadKind::Tree, name);
            let _lock = memory.lock(context.home()?)?;
            memory.forget()
        }
    }
}
