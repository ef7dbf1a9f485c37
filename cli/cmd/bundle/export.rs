//! Writing a bundle.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, BufWriter};
use std::path::Path;

use base::{Cid, Codec, block_cid};
use store::{Blob, Expected, Store};
use trust::SignedKeyStatement;

use super::ExportArgs;
use super::manifest::{FileName, Format, Manifest, Package, Source};
use crate::as_text::Text;
use crate::context::Context;
use crate::error::{CmdResult, Exit, Failure};
use crate::outfile::OutFile;
use crate::recipes;
use crate::session::Session;
use crate::sources::SourceSet;
use crate::statements;
use crate::units;

pub(super) fn run(context: &Context, args: &ExportArgs, output: &Path) -> CmdResult {
    let options = args.get.options(context)?;
    let session = Session::open(context, args.get.jobs, &args.packages)?;
    let store = &session.bench.store;
    let mut sources = if args.no_sources {
        BTreeMap::new()
    } else {
        sources(context, &session)?
    };
    let packages = if args.no_packages {
        Vec::new()
    } else {
        let report = session.realise(&options)?;
        sources.extend(seeds(&session, &report));
        packages(&session, &report)?
    };
    let manifest = Manifest {
        format: Format::Bundle1,
        tree: Text(
            recipes::pack(
                &session.bench.tree,
                &session.graph,
                store,
                &session.bench.scratch,
            )?
            .root,
        ),
        sources: sources.into_iter().map(source).collect::<CmdResult<_>>()?,
        packages,
        key_statements: key_statements(context, store)?,
    };
    let text = serde_json::to_vec(&manifest).map_err(io::Error::from)?;
    let mut roots = vec![take_in(store, &text)?.root];
    roots.extend(manifest.roots());
    if output == Path::new("-") {
        store.export_car(&roots, BufWriter::new(io::stdout().lock()))?;
        return Ok(());
    }
    let mut out = OutFile::create(output)?;
    store.export_car(&roots, BufWriter::new(out.file()))?;
    out.finish()?;
    let size = fs::metadata(output)?.len();
    context.ui.status(format!(
        "{}, {}, {}",
        units::count(manifest.packages.len(), "package"),
        units::count(manifest.sources.len(), "source"),
        units::bytes(size)
    ));
    context.ui.data(output.display())
}

/// What this home knows of keys, as a file of the bundle; none where it knows nothing.
fn key_statements(context: &Context, store: &Store) -> CmdResult<Option<Text<Cid>>> {
    let known = statements::of_home(context.home()?)?;
    let file = (!known.is_empty()).then(|| SignedKeyStatement::print_file(&known));
    let blob = file.map(|bytes| take_in(store, &bytes)).transpose()?;
    Ok(blob.map(|blob| Text(blob.root)))
}

/// Sources by their content, with the names recipes use.
type Sources = BTreeMap<Cid, String>;

/// Gets the sources and seeds of packages and of all that these are built with.
fn sources(context: &Context, session: &Session) -> CmdResult<Sources> {
    let set = SourceSet::of_graph(&session.graph);
    set.fetch_with(context, &session.bench)?;
    let here = set.here(&session.bench.store)?.into_iter();
    Ok(here
        .map(|(file, blob)| (blob.root, file.to_owned()))
        .collect())
}

/// The seeds that packages need when they run: without them nothing can be installed.
fn seeds(session: &Session, report: &builder::Report) -> Sources {
    let graph = &session.graph;
    let of_package = |id| {
        let seed = graph.recipe(id).seed()?;
        let realised = report.realised.get(graph.name(id))?;
        Some((realised.blob.root, seed.file.clone()))
    };
    let closure = graph.with_run_closures(graph.roots()).into_iter();
    closure.filter_map(of_package).collect()
}

fn source((root, file): (Cid, String)) -> CmdResult<Source> {
    let no_name = || Failure::new(Exit::Bug, format!("`{file}` is no file name"));
    Ok(Source {
        file: FileName::new(&file).ok_or_else(no_name)?,
        content: Text(root),
    })
}

/// The outputs of the packages and their run closures, and who signed them.
fn packages(session: &Session, report: &builder::Report) -> CmdResult<Vec<Package>> {
    let (graph, store) = (&session.graph, &session.bench.store);
    let mut packages = Vec::new();
    for (id, realised) in session.signable(report) {
        let name = graph.name(id);
        let pkghash = store.put_derivation(graph.derivation(id).to_string().as_bytes())?;
        let statements = node::encode_statements(&store.realisations(&pkghash)?);
        packages.push(Package {
            name: Text(name.clone()),
            derivation: Text(derivation_cid(&pkghash)),
            output: Text(realised.blob.root),
            statements: Text(take_in(store, &statements)?.root),
        });
    }
    Ok(packages)
}

/// The CID under which a derivation is a block like any other.
fn derivation_cid(pkghash: &base::PkgHash) -> Cid {
    block_cid(Codec::Raw, pkghash.digest())
}

fn take_in(store: &Store, bytes: &[u8]) -> CmdResult<Blob> {
    let mut ingest = store.ingest()?;
    ingest.append(bytes)?;
    Ok(ingest.finish(&Expected::anything())?)
}
