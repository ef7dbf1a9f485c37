//! What the head of a cache lists, and what of it the cache does not give.

use std::collections::{BTreeMap, BTreeSet};

use base::{Multihash, PkgHash, Sha256};
use store::substitute::FetchError;
use trust::{INDEX_TOP_BYTES_MAX, IndexTop, SHARD_BYTES_MAX, Shard, SignedHead};

use super::INDEX;
use super::watcher::Looking;
use crate::units;

/// Parts of the index that are fetched for one command: 64 MiB at the very most, and 800 KiB of one with 50,000 packages.
const SHARDS_MAX: usize = 64;
/// Packages named in a warning.
const NAMED_MAX: usize = 8;

/// What the head lists, fetched as far as somebody asks.
pub(super) struct Listed<'a> {
    looking: &'a Looking,
    head: &'a SignedHead,
    top: Option<Option<IndexTop>>,
    shards: BTreeMap<Sha256, Option<Shard>>,
    withheld: BTreeSet<String>,
    /// Whether a part of the index itself is kept back.
    is_torn: bool,
}

impl<'a> Listed<'a> {
    /// Nothing of it was fetched yet.
    pub(super) const fn of(looking: &'a Looking, head: &'a SignedHead) -> Self {
        Self {
            looking,
            head,
            top: None,
            shards: BTreeMap::new(),
            withheld: BTreeSet::new(),
            is_torn: false,
        }
    }

    /// Notes that the cache did not give a package, if its head says that it has it; just this output, if one is named.
    pub(super) fn look_for(&mut self, pkghash: &PkgHash, output: Option<&Sha256>) {
        let listed = self.output_of(pkghash);
        if listed.is_some_and(|listed| output.is_none_or(|output| *output == listed)) {
            let name = self.looking.names.get(pkghash);
            let name = name.map_or_else(|| pkghash.to_string(), |name| name.to_string());
            self.withheld.insert(name);
        }
    }

    fn output_of(&mut self, pkghash: &PkgHash) -> Option<Sha256> {
        let root = self.head.head().root;
        if self.top.is_none() {
            let digest = Multihash::of(&root).ok()?.digest();
            let bytes = self.part(&digest, INDEX_TOP_BYTES_MAX);
            let top = bytes.and_then(|bytes| self.parsed(IndexTop::parse(&bytes, &root)));
            self.top = Some(top);
        }
        let named = *self.top.as_ref()?.as_ref()?.shard_of(pkghash)?;
        if !self.shards.contains_key(&named) {
            if self.shards.len() >= SHARDS_MAX {
                return None;
            }
            let bytes = self.part(&named, SHARD_BYTES_MAX);
            let shard = bytes.and_then(|bytes| self.parsed(Shard::parse(&bytes, &named)));
            self.shards.insert(named, shard);
        }
        self.shards
            .get(&named)?
            .as_ref()?
            .output_of(pkghash)
            .copied()
    }

    fn part(&mut self, sha256: &Sha256, max: usize) -> Option<Vec<u8>> {
        let name = format!("{INDEX}/{sha256}");
        match self.looking.shelf.read(&name, max, self.looking) {
            Ok(Some(bytes)) => Some(bytes),
            Ok(None) | Err(FetchError::Refused { .. } | FetchError::Invalid { .. }) => {
                self.is_torn = true;
                None
            }
            Err(_) => None,
        }
    }

    fn parsed<T>(&mut self, part: Result<T, trust::IndexError>) -> Option<T> {
        self.is_torn |= part.is_err();
        part.ok()
    }

    /// Says what was kept back.
    pub(super) fn tell(&self) {
        let (url, head) = (self.looking.shown(), self.head.head());
        if self.is_torn {
            self.looking.warn(format!(
                "`{url}` does not give the list of what it holds that revision {} of its head names: it may keep packages back",
                head.revision
            ));
        }
        if self.withheld.is_empty() {
            return;
        }
        let named: Vec<_> = self.withheld.iter().take(NAMED_MAX).cloned().collect();
        let more = match self.withheld.len() - named.len() {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        self.looking.warn(format!(
            "`{url}` keeps back {} that revision {} of its head lists: {}{more}",
            units::count(self.withheld.len(), "package"),
            head.revision,
            named.join(", ")
        ));
    }
}
