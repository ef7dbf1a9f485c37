//! `p2pkgs challenge`

use std::fs::File;

use base::{Realisation, SignedRealisation};
use recipe::PackageId;
use serde::Serialize;
use store::Blob;

use crate::blobs;
use crate::context::Context;
use crate::error::{CmdResult, Exit, Failure};
use crate::sanitize;
use crate::session::{GetArgs, Session};
use crate::units;

/// Differing outputs of one package that are fetched to be compared: each is as large as the package.
const COMPARED_MAX: usize = 3;

/// Build packages anew, and say whether the same comes out as others have signed
///
/// Asks peers and package caches who signed an output of each package, builds it here in other surroundings (see `build
/// --vary`), and compares. What came out is signed with your key, so that others see who agrees, and who does not; `p2pkgs
/// node run` announces it. Prints a line for each package: its name, how many keys agree, and how many do not; tells who
/// does not, and which files differ where their output can be had. Exit code 6 when somebody does not agree.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Packages of the tree
    #[arg(required = true, value_name = "PKG")]
    packages: Vec<String>,
    /// Build in the usual surroundings
    #[arg(long)]
    no_vary: bool,
    #[command(flatten)]
    get: GetArgs,
}

/// What was found out about one package.
#[derive(Debug, Serialize)]
struct Outcome {
    name: String,
    sha256: String,
    agree: Vec<String>,
    disagree: Vec<Other>,
}

/// Somebody who signed another output.
#[derive(Debug, Serialize)]
struct Other {
    signer: String,
    sha256: String,
}

pub fn run(context: &Context, args: &Args) -> CmdResult {
    let mut options = args.get.options(context)?;
    options.vary = !args.no_vary;
    let session = Session::open(context, args.get.jobs, &args.packages)?;
    session.bench.require_sandbox()?;
    let mut contested = 0;
    for id in session.graph.roots().iter().copied() {
        let name = session.graph.name(id);
        if session.graph.recipe(id).build().is_none() {
            context.ui.status(format!(
                "{name} is taken as it is: `p2pkgs bootstrap` makes it again"
            ));
            continue;
        }
        let said = statements(&session, id)?;
        let made = session.build_anew(id, &options)?;
        let (agree, disagree): (Vec<_>, Vec<_>) = said
            .iter()
            .partition(|signed| signed.realisation().sha256 == made.sha256);
        contested += usize::from(!disagree.is_empty());
        sign(&session, id, &made, &said)?;
        tell(context, name.as_str(), &made, &agree, &disagree)?;
        compare(&session, name.as_str(), &made, &disagree);
    }
    match contested {
        0 => Ok(()),
        count => Err(Failure::new(
            Exit::NotReproducible,
            format!(
                "not everybody got the same of {}",
                units::count(count, "package")
            ),
        )),
    }
}

/// What everybody who can be asked has signed, each key and output once.
fn statements(session: &Session, id: PackageId) -> CmdResult<Vec<SignedRealisation>> {
    let bench = &session.bench;
    let pkghash = session.graph.pkghash(id);
    let label = format!("asking who built {}", session.graph.name(id));
    let mut said = bench.store.realisations(&pkghash)?;
    said.extend(
        bench
            .query(&pkghash, &bench.watch.transfer(label))?
            .realisations,
    );
    said.retain(|signed| signed.realisation().pkghash == pkghash);
    let key = |signed: &SignedRealisation| (*signed.signer(), signed.realisation().sha256);
    said.sort_by_key(key);
    said.dedup_by_key(|signed| key(signed));
    Ok(said)
}

/// Signs what came out, unless the same key has signed something else before: then one of the two is not to be had again,
/// and a second statement would be proof against the key.
fn sign(session: &Session, id: PackageId, made: &Blob, said: &[SignedRealisation]) -> CmdResult {
    let sources = session.bench.fetcher();
    let context = session.bench.build_context(&sources);
    let own = context.signer.public();
    let mut earlier = said.iter().filter(|signed| Some(*signed.signer()) == own);
    if earlier.all(|signed| signed.realisation().sha256 == made.sha256) {
        let options = builder::Options::default();
        context.record_built(&session.graph.derivation(id), made, None, &options)?;
    }
    Ok(())
}

fn tell(
    context: &Context,
    name: &str,
    made: &Blob,
    agree: &[&SignedRealisation],
    disagree: &[&SignedRealisation],
) -> CmdResult {
    if context.ui.json() {
        let other = |signed: &&SignedRealisation| Other {
            signer: signed.signer().to_string(),
            sha256: signed.realisation().sha256.to_string(),
        };
        return context.ui.json_data(&Outcome {
            name: name.to_owned(),
            sha256: made.sha256.to_string(),
            agree: agree
                .iter()
                .map(|signed| signed.signer().to_string())
                .collect(),
            disagree: disagree.iter().map(other).collect(),
        });
    }
    let (agree, differ) = (agree.len(), disagree.len());
    context.ui.data(format!("{name} {agree} {differ}"))?;
    for signed in disagree {
        let sha256 = signed.realisation().sha256;
        let here = made.sha256;
        context.ui.status(format!(
            "{} signed {sha256}, here came {here}",
            signed.signer()
        ));
    }
    Ok(())
}

/// Shows which files differ, as far as the other outputs can be had. They are compared and used for nothing else.
fn compare(session: &Session, name: &str, made: &Blob, disagree: &[&SignedRealisation]) {
    for signed in disagree.iter().take(COMPARED_MAX) {
        let ui = &session.bench.ui;
        match differences(session, name, made, signed.realisation()) {
            Ok(lines) => lines
                .iter()
                .for_each(|line| ui.status(format!("  {}", sanitize::line(line)))),
            Err(error) => ui.failure(&error.context("cannot compare the two")),
        }
    }
}

fn gone() -> Failure {
    Failure::new(Exit::Other, "it vanished from the store again")
}

fn differences(
    session: &Session,
    name: &str,
    made: &Blob,
    other: &Realisation,
) -> CmdResult<Vec<String>> {
    let store = &session.bench.store;
    if store.blob(&other.sha256)?.is_none() {
        let sources = session.bench.fetcher();
        let context = session.bench.build_context(&sources);
        let progress = session
            .bench
            .watch
            .transfer(format!("fetching another {name}"));
        context.substituter.fetch(other, store, &progress)?;
    }
    let theirs = store.blob(&other.sha256)?.ok_or_else(gone)?;
    let (theirs, ours) = (blobs::open(store, &theirs)?, blobs::open(store, made)?);
    let (theirs, ours) = (File::open(theirs.path())?, File::open(ours.path())?);
    Ok(builder::differences(name, theirs, ours)?)
}
