//! Taking a bundle in. Every block of it was compared with its CID before anything here looks at it; what the manifest says of
//! them is only believed as far as it costs nothing: names are for people, statements count by who signed them.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Read as _;
use std::path::Path;

use base::{Cid, PackageName, PkgHash};
use store::archive::{self, UnpackLimits};
use store::{Blob, Pin, PinKind, Store};
use trust::SignedKeyStatement;

use super::manifest::{BYTES_MAX, Manifest, Package};
use crate::bench::unix_secs;
use crate::blobs;
use crate::cmd::mirror::tell_of_daemon;
use crate::cmd::venv::refuse_existing;
use crate::context::Context;
use crate::error::{CmdResult, Exit, Failure};
use crate::sources::keep;
use crate::statements;
use crate::units;

/// Longest derivation that is read, in bytes: a block.
const DERIVATION_BYTES_MAX: u64 = 2 << 20;

pub(super) fn run(context: &Context, path: &Path, into: Option<&Path>) -> CmdResult {
    if let Some(dir) = into {
        refuse_existing(dir)?;
    }
    // Between taking a file in and noting what it is for, a collector may come by.
    let store = context.store()?.holding()?;
    let cannot = |failure: Failure| failure.context(format!("cannot import `{}`", path.display()));
    let bundle = Bundle::take_in(&store, path).map_err(cannot)?;
    // First, so that what they end does not count any more when the packages are looked at.
    if let Some(said) = bundle.key_statements(&store).map_err(cannot)? {
        let from = format!("`{}`", path.display());
        context.believer()?.take_in(&from, &said);
    }
    let packages = bundle.keep(&store).map_err(cannot)?;
    if let Some(dir) = into {
        bundle.unpack_recipes(&store, dir).map_err(cannot)?;
    }
    let sources = units::count(bundle.manifest.sources.len(), "source");
    let count = units::count(packages.len(), "package");
    context.ui.status(format!("{count}, {sources}"));
    tell_of_daemon(context)?;
    if context.ui.json() {
        let names: Vec<_> = packages.iter().map(ToString::to_string).collect();
        return context.ui.json_data(&names);
    }
    packages.iter().try_for_each(|name| context.ui.data(name))
}

/// A bundle whose files are in the store.
struct Bundle {
    manifest: Manifest,
    files: HashMap<Cid, Blob>,
}

impl Bundle {
    fn take_in(store: &Store, path: &Path) -> CmdResult<Self> {
        let file = File::open(path)?;
        if !file.metadata()?.is_file() {
            return Err(Failure::usage("it is no regular file"));
        }
        let import = store.import_car(&file)?;
        let files: HashMap<_, _> = import.files.into_iter().collect();
        let first = import.roots.first().and_then(|root| files.get(root));
        let no_bundle = |why: String| Failure::new(Exit::Mismatch, format!("no bundle: {why}"));
        let first = first.ok_or_else(|| no_bundle("its first root is no whole file".into()))?;
        let text = read(store, first, BYTES_MAX)?;
        let manifest: Manifest =
            serde_json::from_slice(&text).map_err(|error| no_bundle(error.to_string()))?;
        let bundle = Self { manifest, files };
        for root in bundle.manifest.roots() {
            bundle.file(&root)?;
        }
        Ok(bundle)
    }

    fn file(&self, root: &Cid) -> CmdResult<&Blob> {
        self.files.get(root).ok_or_else(|| {
            let message = format!("it names the file `{root}`, which is not all there");
            Failure::new(Exit::Mismatch, message)
        })
    }

    /// Notes what the files are for.
    fn keep(&self, store: &Store) -> CmdResult<Vec<PackageName>> {
        for source in &self.manifest.sources {
            let blob = self.file(&source.content.0)?;
            keep(
                store,
                blob,
                source.file.as_str(),
                store::ProvideOrigin::Fetched,
            )?;
        }
        for package in &self.manifest.packages {
            self.keep_package(store, package)?;
        }
        let packages = self.manifest.packages.iter();
        Ok(packages.map(|package| package.name.0.clone()).collect())
    }

    fn keep_package(&self, store: &Store, package: &Package) -> CmdResult {
        let text = read(
            store,
            self.file(&package.derivation.0)?,
            DERIVATION_BYTES_MAX,
        )?;
        let pkghash = store.put_derivation(&text)?;
        let statements = self.statements(store, package, &pkghash)?;
        for statement in &statements {
            store.put_realisation(statement)?;
        }
        let kind = PinKind::Output {
            pkghash,
            package: package.name.0.clone(),
        };
        Ok(store.note(&Pin {
            sha256: self.file(&package.output.0)?.sha256,
            kind,
            added_unix_secs: unix_secs(),
        })?)
    }

    fn statements(
        &self,
        store: &Store,
        package: &Package,
        pkghash: &PkgHash,
    ) -> CmdResult<Vec<base::SignedRealisation>> {
        let blob = self.file(&package.statements.0)?;
        let file = blobs::open(store, blob)?;
        node::read_statements(file, pkghash).map_err(|error| {
            let name = &package.name.0;
            Failure::new(
                Exit::Mismatch,
                format!("the statements about `{name}`: {error}"),
            )
        })
    }

    /// What it brings of what keys said of keys.
    fn key_statements(&self, store: &Store) -> CmdResult<Option<Vec<SignedKeyStatement>>> {
        let Some(root) = &self.manifest.key_statements else {
            return Ok(None);
        };
        let bytes = read(store, self.file(&root.0)?, statements::BYTES_MAX as u64)?;
        let said = SignedKeyStatement::parse_file(&bytes);
        said.map(Some).map_err(|error| {
            let message = format!("the statements about keys: {error}");
            Failure::new(Exit::Mismatch, message)
        })
    }

    fn unpack_recipes(&self, store: &Store, dir: &Path) -> CmdResult {
        let recipes = blobs::open(store, self.file(&self.manifest.tree.0)?)?;
        fs::create_dir(dir)?;
        let unpacked = archive::unpack(recipes, dir, &UnpackLimits::default());
        if unpacked.is_err() {
            // What did not come whole is not left to be taken for a tree.
            let _ = fs::remove_dir_all(dir);
        }
        unpacked.map_err(|error| Failure::from(error).context("cannot unpack its recipes"))?;
        Ok(())
    }
}

fn read(store: &Store, blob: &Blob, max: u64) -> CmdResult<Vec<u8>> {
    if blob.size > max {
        let message = format!("a file of {} where {} is the limit", blob.size, max);
        return Err(Failure::new(Exit::Mismatch, message));
    }
    let mut bytes = Vec::new();
    blobs::open(store, blob)?
        .take(max)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}
