//! What a home remembers of heads, in the folder `trees`, and in the same way, as far as it makes sense for package caches, in
//! the folder `caches`:
//!
//! ```text
//! NAME.head       the highest head that was verified, of a tree with its whole tree; nothing older is taken again
//! NAME.signed     the highest head that was signed here, which may yet lack other signatures
//! NAME.rec        where the tree comes from, where it goes, who must sign, and what carries it
//! NAME.N.proof-1, NAME.N.proof-2   two heads of revision N that name different trees
//! NAME.lock       held while the tree is synced or published
//! ```
//!
//! What was seen of a package cache lies under a name made from its URL, not under its own: it is the user who says which caches
//! there are, so nobody else can fill the folder, and a URL that hands out the head of another cache is found out.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use base::rec::{self, Record};
use base::{Cid, PackageName, parse_root};
use node::ContentPath;
use node::ipns::{IpnsName, IpnsRecord};
use store::Store;
use trust::{HEAD_BYTES_MAX, HeadKind, SignedHead};

use super::{read_head, what};
use crate::error::{CmdResult, Exit, Failure};
use crate::home::{FileLock, Home, private_dir, write_atomically, write_bytes_atomically};
use crate::keys::{reading, writing};
use crate::names::PUBLISH_EVERY;

/// Where a tree comes from and goes, as the user said last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Followed {
    /// The URL.
    pub source: Option<String>,
    /// The folder.
    pub into: Option<PathBuf>,
    /// The rule that says who must sign.
    pub signers: Option<String>,
    /// What carries the highest head and its tree: what the source's name stands for, if it is one.
    pub carrier: Option<Cid>,
}

/// What is remembered of one tree or cache.
#[derive(Clone, Debug)]
pub struct Memory {
    kind: HeadKind,
    folder: PathBuf,
    name: PackageName,
}

impl Memory {
    /// Of the tree or cache of that name.
    pub fn of(home: &Home, kind: HeadKind, name: &PackageName) -> Self {
        Self {
            kind,
            folder: home.path(folder(kind)),
            name: name.clone(),
        }
    }

    /// All of a kind that a home remembers, by name.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn all(home: &Home, kind: HeadKind) -> CmdResult<Vec<(PackageName, Self)>> {
        let folder = home.path(folder(kind));
        let entries = match fs::read_dir(&folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(reading(&folder))?,
        };
        let file_names = entries.flatten().map(|entry| entry.file_name());
        let mut names: Vec<PackageName> = file_names
            .filter_map(|file| {
                let file = file.to_str()?;
                let name = file.strip_suffix(".head");
                name.or_else(|| file.strip_suffix(".signed"))?.parse().ok()
            })
            .collect();
        names.sort();
        names.dedup();
        let memory = |name: PackageName| (name.clone(), Self::of(home, kind, &name));
        Ok(names.into_iter().map(memory).collect())
    }

    /// Keeps others away until the lock is dropped.
    ///
    /// # Errors
    /// Exit code 9 when another process works with the tree or cache.
    pub fn lock(&self, home: &Home) -> CmdResult<FileLock> {
        let busy = |failure: Failure| match failure.exit() {
            Exit::Busy => {
                let what = what(self.kind);
                let message = format!("another process works with the {what} `{}`", self.name);
                Failure::new(Exit::Busy, message)
            }
            _ => failure,
        };
        FileLock::take_now(&self.lock_file(home)?).map_err(busy)
    }

    /// As [`Self::lock`], for who needs it for a moment only, as all who do the same: waits for them.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn lock_shortly(&self, home: &Home) -> CmdResult<FileLock> {
        FileLock::wait(&self.lock_file(home)?)
    }

    fn lock_file(&self, home: &Home) -> CmdResult<PathBuf> {
        home.create()?;
        private_dir(&self.folder).map_err(writing(&self.folder))?;
        Ok(self.path("lock"))
    }

    /// The highest head that was verified.
    ///
    /// # Errors
    /// When it is there and cannot be read: what was seen is never guessed at.
    pub fn head(&self) -> CmdResult<Option<SignedHead>> {
        self.read("head")
    }

    /// The highest head that was signed here.
    ///
    /// # Errors
    /// As [`Self::head`].
    pub fn signed(&self) -> CmdResult<Option<SignedHead>> {
        self.read("signed")
    }

    /// Remembers a head that was verified, one of a tree with its whole tree.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn remember(&self, head: &SignedHead) -> CmdResult {
        self.write("head", head)
    }

    /// Remembers a head that was signed here.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn remember_signed(&self, head: &SignedHead) -> CmdResult {
        self.write("signed", head)
    }

    /// Keeps two heads that contradict each other.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn keep_proof(&self, heads: [&SignedHead; 2]) -> CmdResult<[PathBuf; 2]> {
        let revision = heads[0].head().revision;
        let kinds = [1, 2].map(|n| format!("{revision}.proof-{n}"));
        for (kind, head) in kinds.iter().zip(heads) {
            self.write(kind, head)?;
        }
        Ok(kinds.map(|kind| self.path(&kind)))
    }

    /// Where the tree comes from and goes.
    ///
    /// # Errors
    /// When the file is there and cannot be read.
    pub fn followed(&self) -> CmdResult<Followed> {
        let path = self.path("rec");
        let bytes = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Followed::default()),
            bytes => bytes.map_err(reading(&path))?,
        };
        let records = rec::parse(&bytes)?;
        let get = |field: &str| Some(records.first()?.get(field)?.to_owned());
        Ok(Followed {
            source: get("source"),
            into: get("into").map(PathBuf::from),
            signers: get("signers"),
            carrier: get("carrier").and_then(|text| parse_root(&text).ok()),
        })
    }

    /// Remembers where the tree comes from and goes.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn follow(&self, followed: &Followed) -> CmdResult {
        let mut record = Record::default();
        let into = followed
            .into
            .as_ref()
            .map(|path| path.display().to_string());
        let carrier = followed.carrier.map(|cid| cid.to_string());
        for (field, value) in [
            ("source", followed.source.clone()),
            ("into", into),
            ("signers", followed.signers.clone()),
            ("carrier", carrier),
        ] {
            if let Some(value) = value {
                record.push(field, value);
            }
        }
        let path = self.path("rec");
        write_atomically(&path, &rec::print(&[record]), 0o600).map_err(writing(&path))
    }

    /// Forgets the tree, but for proofs.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn forget(&self) -> CmdResult {
        for kind in ["head", "signed", "rec"] {
            let path = self.path(kind);
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(writing(&path)(error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn path(&self, kind: &str) -> PathBuf {
        self.folder.join(format!("{}.{kind}", self.name))
    }

    fn read(&self, kind: &str) -> CmdResult<Option<SignedHead>> {
        let path = self.path(kind);
        match fs::metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Ok(meta) if meta.len() > HEAD_BYTES_MAX as u64 => {
                let message = format!("`{}` holds no head", path.display());
                return Err(Failure::new(Exit::Other, message));
            }
            meta => meta.map_err(reading(&path))?,
        };
        let bytes = fs::read(&path).map_err(reading(&path))?;
        let head = read_head(&bytes, self.kind).map_err(|failure| {
            let failure = failure.exit_with(Exit::Other);
            failure.context(format!("`{}` is damaged", path.display()))
        })?;
        Ok(Some(head))
    }

    fn write(&self, kind: &str, head: &SignedHead) -> CmdResult {
        let path = self.path(kind);
        write_bytes_atomically(&path, &head.to_bytes(), 0o600).map_err(writing(&path))
    }
}

/// Records of others' names that lead to trees this home has verified, and that are due to be published again: whoever
/// follows a tree helps others to hear of it. They are handed on as their owners signed them, until they expire.
pub fn due_records(home: &Home, store: &Store, now: SystemTime) -> Vec<IpnsRecord> {
    let trees = Memory::all(home, HeadKind::Tree)
        .unwrap_or_default()
        .into_iter();
    let due = trees.filter_map(|(name, memory)| {
        due_record(&memory, store, now).unwrap_or_else(|failure| {
            tracing::warn!(%name, error = failure.message(), "cannot hand on a tree's name");
            None
        })
    });
    due.collect()
}

fn due_record(memory: &Memory, store: &Store, now: SystemTime) -> CmdResult<Option<IpnsRecord>> {
    let followed = memory.followed()?;
    let name = followed.source.as_deref().and_then(name_of);
    let (Some(name), Some(carrier)) = (name, followed.carrier) else {
        return Ok(None);
    };
    let Some(kept) = store.name_record(&name.to_bytes())? else {
        return Ok(None);
    };
    let is_due = kept.published_unix_secs.is_none_or(|published| {
        SystemTime::UNIX_EPOCH + Duration::from_secs(published) + PUBLISH_EVERY <= now
    });
    let record = IpnsRecord::verify(&name, &kept.record, now).ok();
    // Only what was verified: a record may be newer than the tree that is here.
    let leads_here =
        |record: &IpnsRecord| record.value() == ContentPath::of(carrier).to_string().as_bytes();
    Ok(record.filter(|record| is_due && leads_here(record)))
}

/// Where what is remembered of a kind lies in a home.
const fn folder(kind: HeadKind) -> &'static str {
    match kind {
        HeadKind::Tree => "trees",
        HeadKind::Cache => "caches",
    }
}

/// The name that a source is, if it is one without a path.
fn name_of(source: &str) -> Option<IpnsName> {
    source.strip_prefix("ipns://")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use base::{Codec, SecretKey, Sha256, block_cid};
    use trust::Head;

    use super::*;

    fn home() -> (tempfile::TempDir, Home, Memory) {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::find(Some(&dir.path().join("home"))).unwrap();
        let memory = Memory::of(&home, HeadKind::Tree, &"main".parse().unwrap());
        (dir, home, memory)
    }

    fn signed() -> SignedHead {
        Head {
            kind: HeadKind::Tree,
            name: "main".parse().unwrap(),
            revision: 3,
            expires_unix_secs: 0,
            root: block_cid(Codec::DagPb, &Sha256::of(b"")),
        }
        .sign(&SecretKey::from_seed(&[1; 32]))
        .unwrap()
    }

    #[test]
    fn what_is_remembered_is_read_back_and_a_damaged_memory_is_an_error() {
        let (_dir, home, memory) = home();
        assert!(memory.head().unwrap().is_none());
        let lock = memory.lock(&home).unwrap();
        assert_eq!(memory.lock(&home).unwrap_err().exit(), Exit::Busy);
        drop(lock);
        memory.remember(&signed()).unwrap();
        assert_eq!(memory.head().unwrap(), Some(signed()));
        let followed = Followed {
            source: Some("file:///srv/tree".into()),
            into: Some("/home/tree".into()),
            signers: Some("2 of {a, b}".into()),
            carrier: Some(signed().head().root),
        };
        memory.follow(&followed).unwrap();
        assert_eq!(memory.followed().unwrap(), followed);
        assert_eq!(Memory::all(&home, HeadKind::Tree).unwrap().len(), 1);
        fs::write(home.path("trees/main.head"), "nonsense").unwrap();
        assert_eq!(memory.head().unwrap_err().exit(), Exit::Other);
        memory.forget().unwrap();
        assert!(memory.head().unwrap().is_none());
        assert_eq!(memory.followed().unwrap(), Followed::default());
    }

    #[test]
    fn a_name_is_handed_on_while_it_leads_to_what_was_verified_here() {
        let (dir, home, memory) = home();
        let store = Store::open(&dir.path().join("store")).unwrap();
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let carrier = signed().head().root;
        let key = node::identity::ephemeral();
        let keep = |to: &Cid, sequence| {
            let value = ContentPath::of(*to).to_string();
            let record = crate::names::sign(&key, &value, sequence, now).unwrap();
            let name = record.name().to_bytes();
            store
                .keep_name_record(&name, sequence, record.bytes())
                .unwrap();
            record
        };
        let record = keep(&carrier, 1);
        let _lock = memory.lock(&home).unwrap();
        memory.remember(&signed()).unwrap();
        let follow = |source: String| {
            let followed = Followed {
                source: Some(source),
                carrier: Some(carrier),
                ..Followed::default()
            };
            memory.follow(&followed).unwrap();
        };
        follow("file:///srv/tree".into());
        assert!(due_records(&home, &store, now).is_empty());
        follow(format!("ipns://{}", record.name()));
        assert_eq!(
            due_records(&home, &store, now),
            std::slice::from_ref(&record)
        );
        let name = record.name().to_bytes();
        store
            .set_name_published(&name, record.bytes(), 1_800_000_000)
            .unwrap();
        assert!(due_records(&home, &store, now).is_empty());
        assert_eq!(due_records(&home, &store, now + PUBLISH_EVERY).len(), 1);
        // It expires, as its owner said, and what it leads to later has to be verified first.
        assert!(due_records(&home, &store, now + 12 * PUBLISH_EVERY).is_empty());
        keep(&base::block_cid(Codec::DagPb, &Sha256::of(b"newer")), 2);
        assert!(due_records(&home, &store, now + PUBLISH_EVERY).is_empty());
    }
}
