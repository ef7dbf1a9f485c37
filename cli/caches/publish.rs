//! The head that `cache export` writes: which outputs the directory holds, signed, as the next revision.
//!
//! The parts of the index lie in the folder `index`, named by their hashes, so that a reader who has the last head still finds
//! those of the last revision while the next one is written. The head comes last: it never lists what is not there yet.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::Path;

use base::{Multihash, PackageName, PkgHash, SecretKey, Sha256};
use trust::{CacheIndex, HEAD_BYTES_MAX, Head, HeadKind, IndexTop, Shard, SignedHead};

use super::INDEX;
use crate::bench::unix_secs;
use crate::context::Context;
use crate::error::{CmdResult, Exit, Failure};
use crate::heads::{self, HEAD_FILE, Lifetime, Memory, read_head};
use crate::keys::{self, DEFAULT_KEY, reading};
use crate::outfile::OutFile;
use crate::units;

/// How the head is made.
#[derive(Debug, clap::Args)]
pub struct HeadArgs {
    /// What the cache is called in its head [default: as it is called already, else a name that nothing else has]
    #[arg(long, value_name = "NAME")]
    name: Option<PackageName>,
    #[command(flatten)]
    lifetime: Lifetime,
    /// The builder key to sign the head with [default: `default`, if there is one]
    #[arg(long, value_name = "NAME")]
    key: Option<String>,
}

/// Which output a directory holds of which package.
type Outputs = BTreeMap<PkgHash, Sha256>;

/// Writes the next head of a cache, in which these outputs have just been put. Without a key there is none.
///
/// # Errors
/// When the key, the directory, or the head that is there cannot be used.
pub fn write_head(context: &Context, dir: &Path, new: &Outputs, args: &HeadArgs) -> CmdResult {
    let home = context.home()?;
    let key = match &args.key {
        Some(name) => Some(keys::signing_key(home, &context.ui, name)?),
        None => keys::own_key(home, DEFAULT_KEY)?,
    };
    let Some(key) = key else {
        let without = "no head was written, for there is no key `default`: who uses the cache cannot notice what it withholds";
        context.ui.status(without);
        return Ok(());
    };
    let name = match (&args.name, head_in(dir)?) {
        (Some(name), _) => name.clone(),
        (None, Some(there)) => there.head().name.clone(),
        (None, None) => new_name()?,
    };
    let memory = Memory::of(home, HeadKind::Cache, &name);
    let _lock = memory.lock_shortly(home)?;
    let there = head_in(dir)?;
    let outputs = held(dir, new, &listed_before(dir, there.as_ref(), &key))?;
    let index = CacheIndex::new(outputs)?;
    let (root, parts) = index.parts();
    let mut keep = there
        .as_ref()
        .map_or_else(BTreeSet::new, |there| named_by(dir, there));
    fs::create_dir_all(dir.join(INDEX))?;
    for (sha256, bytes) in &parts {
        let path = dir.join(INDEX).join(sha256.to_hex());
        if !path.exists() {
            write_whole(&path, bytes)?;
        }
        keep.insert(*sha256);
    }
    let of_name = there.filter(|there| there.head().name == name);
    let last = [of_name, memory.signed()?];
    let last = last.iter().flatten().map(|signed| signed.head().revision);
    let no_more = || Failure::new(Exit::Other, "there is no higher revision");
    let head = Head {
        kind: HeadKind::Cache,
        name,
        revision: last.max().unwrap_or(0).checked_add(1).ok_or_else(no_more)?,
        expires_unix_secs: args.lifetime.ends(unix_secs()),
        root,
    };
    let signed = head.sign(&key)?;
    memory.remember_signed(&signed)?;
    write_whole(&dir.join(HEAD_FILE), &signed.to_bytes())?;
    remove_others(dir, &keep);
    let head = signed.head();
    context.ui.status(format!(
        "revision {} of the cache `{}` lists {}, holds until {}",
        head.revision,
        head.name,
        units::count(index.len(), "package"),
        heads::last_day(head.expires_unix_secs)
    ));
    Ok(())
}

/// Adds a signature to the head of a cache, if the directory holds what the head lists. Users who trust either signer then hold the
/// cache to it.
///
/// # Errors
/// Exit code 3 without a head, 4 when the directory does not hold it all, or another head was signed here as this revision or later.
pub fn sign_head(context: &Context, dir: &Path, key: &str) -> CmdResult {
    let home = context.home()?;
    let no_head = || {
        let message = format!("there is no head in `{}`", dir.display());
        Failure::new(Exit::NotFound, message)
    };
    let mut signed = head_in(dir)?.ok_or_else(no_head)?;
    let head = signed.head().clone();
    let memory = Memory::of(home, HeadKind::Cache, &head.name);
    let _lock = memory.lock_shortly(home)?;
    let before = memory.signed()?;
    let next = head.follows(before.as_ref().map(SignedHead::head));
    next.map_err(|error| Failure::from(error).exit_with(Exit::Mismatch))?;
    let lacking = |what: String| {
        let message = format!("`{}` does not hold what its head lists", dir.display());
        Failure::new(Exit::Mismatch, message).detail(vec![what])
    };
    for named in shards_of(dir, &signed).ok_or_else(|| lacking("the index is damaged".into()))? {
        let part = shard(dir, &named).ok_or_else(|| lacking(format!("no part {named}")))?;
        for (pkghash, sha256) in part {
            let file = dir.join(format!("{pkghash}.tar.zst"));
            let size = fs::metadata(&file).map_or(0, |meta| meta.len());
            if vouched(dir, &pkghash, size) != Some(sha256) {
                return Err(lacking(format!(
                    "no output {sha256} of the package {pkghash}"
                )));
            }
        }
    }
    signed.sign(&keys::signing_key(home, &context.ui, key)?)?;
    memory.remember_signed(&signed)?;
    write_whole(&dir.join(HEAD_FILE), &signed.to_bytes())?;
    context.ui.status(format!(
        "revision {} of the cache `{}` has {}",
        head.revision,
        head.name,
        units::count(signed.signers().count(), "signature")
    ));
    context.ui.data(dir.join(HEAD_FILE).display())
}

/// The head that lies in a directory.
fn head_in(dir: &Path) -> CmdResult<Option<SignedHead>> {
    let path = dir.join(HEAD_FILE);
    let Some(bytes) = read(&path, HEAD_BYTES_MAX)? else {
        return Ok(None);
    };
    let head = read_head(&bytes, HeadKind::Cache);
    head.map(Some).map_err(|failure| {
        failure.exit_with(Exit::Other).context(format!(
            "`{}` cannot be followed by another head",
            path.display()
        ))
    })
}

/// A name that no other cache has: heads of two directories must not be taken for two revisions of one.
fn new_name() -> CmdResult<PackageName> {
    let mut random = [0; 6];
    getrandom::fill(&mut random)
        .map_err(|e| Failure::from(io::Error::from(e)).context("no randomness for a name"))?;
    let digits: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(format!("cache-{digits}").parse()?)
}

/// All outputs in the directory, with what is known of them: what was put there now, what the last head listed, and else what the
/// statements beside them say. One that nothing fits is left out.
fn held(dir: &Path, new: &Outputs, before: &Outputs) -> CmdResult<Outputs> {
    let mut outputs = Outputs::new();
    for entry in fs::read_dir(dir).map_err(reading(dir))?.flatten() {
        let file = entry.file_name();
        let Some(pkghash) = (file.to_str()).and_then(|file| file.strip_suffix(".tar.zst")) else {
            continue;
        };
        let Ok(pkghash) = pkghash.parse::<PkgHash>() else {
            continue;
        };
        let known = new.get(&pkghash).or_else(|| before.get(&pkghash)).copied();
        let size = || entry.metadata().map_or(0, |meta| meta.len());
        let sha256 = known.or_else(|| vouched(dir, &pkghash, size()));
        outputs.extend(sha256.map(|sha256| (pkghash, sha256)));
    }
    Ok(outputs)
}

/// The output of this size that the statements in the directory name, if it is one.
fn vouched(dir: &Path, pkghash: &PkgHash, size: u64) -> Option<Sha256> {
    let file = File::open(dir.join(format!("{pkghash}.realisations"))).ok()?;
    let said = node::read_statements(file, pkghash).ok()?;
    let of_size = said.iter().map(base::SignedRealisation::realisation);
    let of_size = of_size.filter(|said| said.size == size);
    let outputs: BTreeSet<_> = of_size.map(|said| said.sha256).collect();
    let only = outputs.len() == 1;
    outputs.into_iter().next().filter(|_| only)
}

/// What the head in the directory lists, if this key signed it: for others' lists it does not vouch.
fn listed_before(dir: &Path, there: Option<&SignedHead>, key: &SecretKey) -> Outputs {
    let ours = there.filter(|there| there.signers().any(|signer| *signer == key.public()));
    let shards = ours
        .and_then(|there| shards_of(dir, there))
        .unwrap_or_default();
    let outputs = shards.iter().filter_map(|named| shard(dir, named));
    outputs.flatten().collect()
}

fn shard(dir: &Path, named: &Sha256) -> Option<Outputs> {
    let bytes = fs::read(dir.join(INDEX).join(named.to_hex())).ok()?;
    Some(Shard::parse(&bytes, named).ok()?.into_outputs())
}

fn shards_of(dir: &Path, there: &SignedHead) -> Option<Vec<Sha256>> {
    let root = &there.head().root;
    let digest = Multihash::of(root).ok()?.digest();
    let bytes = fs::read(dir.join(INDEX).join(digest.to_hex())).ok()?;
    let top = IndexTop::parse(&bytes, root).ok()?;
    Some(top.shards().map(|(_, sha256)| *sha256).collect())
}

/// The parts of a head's index.
fn named_by(dir: &Path, there: &SignedHead) -> BTreeSet<Sha256> {
    let root = Multihash::of(&there.head().root).map(|root| root.digest());
    let shards = shards_of(dir, there).unwrap_or_default();
    shards.into_iter().chain(root).collect()
}

/// Removes the parts of revisions before the last. What cannot be removed now goes another time.
fn remove_others(dir: &Path, keep: &BTreeSet<Sha256>) {
    for entry in fs::read_dir(dir.join(INDEX))
        .into_iter()
        .flatten()
        .flatten()
    {
        let sha256 = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok());
        if sha256.is_some_and(|sha256: Sha256| !keep.contains(&sha256)) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// A small file; `None` if there is none.
fn read(path: &Path, max: usize) -> CmdResult<Option<Vec<u8>>> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file.map_err(reading(path))?,
    };
    let mut bytes = Vec::new();
    file.take(max as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(reading(path))?;
    Ok(Some(bytes))
}

/// Replaces a small file, so that nobody reads half of it.
fn write_whole(path: &Path, bytes: &[u8]) -> CmdResult {
    let mut out = OutFile::create(path)?;
    out.file().write_all(bytes)?;
    out.finish()
}
