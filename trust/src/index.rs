//! The index of a package cache: for each package that it has, the SHA-256 of the output. Its head names it by one root.
//!
//! Whoever misses one package must not have to fetch a list of all. So the list is cut into shards by the first byte of the
//! package hash, 256 at most, and the root is that of a short list of the shards' hashes. One question costs two small files,
//! of 8 KiB and, at 50,000 packages, 13 KiB. Every part is named by its hash, so parts of two revisions cannot be mixed, and
//! any of them can lie in a directory beside the old ones, or be asked for as a block like any other.
//!
//! ```text
//! top    = (first:1  sha256 of the shard:32)×n      sorted by first, which stands once; n ≤ 256
//! shard  = (package hash:32  sha256:32)×m           sorted by package hash, each beginning with first; 1 ≤ m ≤ 16384
//! ```

use std::collections::BTreeMap;

use base::{Cid, Codec, Multihash, PkgHash, Sha256, block_cid};

/// Longest list of shards in bytes.
pub const INDEX_TOP_BYTES_MAX: usize = 256 * TOP_RECORD_BYTES;
/// Longest shard in bytes: so that it is one block. With 256 of them an index has room for four million packages.
pub const SHARD_BYTES_MAX: usize = SHARD_RECORDS_MAX * SHARD_RECORD_BYTES;

const TOP_RECORD_BYTES: usize = 1 + Sha256::LEN;
const SHARD_RECORD_BYTES: usize = 2 * Sha256::LEN;
const SHARD_RECORDS_MAX: usize = 16384;

/// A whole index, as its maker has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CacheIndex {
    outputs: BTreeMap<PkgHash, Sha256>,
}

/// The list of the shards of an index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexTop {
    shards: BTreeMap<u8, Sha256>,
}

/// The packages whose hashes begin with the same byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shard {
    outputs: BTreeMap<PkgHash, Sha256>,
}

/// Why bytes are no part of an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IndexError {
    /// Other bytes than those that were named.
    #[error("a part of the index has another hash than was named")]
    Hash,
    /// Not sorted, cut off, or something else.
    #[error("malformed index of a package cache")]
    Malformed,
    /// More packages than an index has room for.
    #[error("too many packages for one index")]
    TooLarge,
}

impl CacheIndex {
    /// The index of these outputs.
    ///
    /// # Errors
    /// [`IndexError::TooLarge`].
    pub fn new(outputs: BTreeMap<PkgHash, Sha256>) -> Result<Self, IndexError> {
        let index = Self { outputs };
        match index.shards().values().map(Vec::len).max() {
            Some(longest) if longest > SHARD_BYTES_MAX => Err(IndexError::TooLarge),
            _ => Ok(index),
        }
    }

    /// The root, and all parts under their hashes: the list of shards first.
    pub fn parts(&self) -> (Cid, Vec<(Sha256, Vec<u8>)>) {
        let mut parts = vec![(Sha256::of(b""), Vec::new())];
        let mut top = Vec::new();
        for (first, shard) in self.shards() {
            let sha256 = Sha256::of(&shard);
            top.push(first);
            top.extend(sha256.as_bytes());
            parts.push((sha256, shard));
        }
        let sha256 = Sha256::of(&top);
        parts[0] = (sha256, top);
        (block_cid(Codec::Raw, &sha256), parts)
    }

    /// How many packages it lists.
    pub fn len(&self) -> usize {
        self.outputs.len()
    }

    /// Whether it lists none.
    pub fn is_empty(&self) -> bool {
        self.outputs.is_empty()
    }

    fn shards(&self) -> BTreeMap<u8, Vec<u8>> {
        let mut shards: BTreeMap<u8, Vec<u8>> = BTreeMap::new();
        for (pkghash, sha256) in &self.outputs {
            let shard = shards.entry(first_byte(pkghash)).or_default();
            shard.extend(pkghash.digest().as_bytes());
            shard.extend(sha256.as_bytes());
        }
        shards
    }
}

impl IndexTop {
    /// Reads the list of shards that a head names.
    ///
    /// # Errors
    /// [`IndexError`] for other bytes than those that were named, and for what no maker would have named.
    pub fn parse(bytes: &[u8], root: &Cid) -> Result<Self, IndexError> {
        let named = Multihash::of(root).map_err(|_| IndexError::Hash)?.digest();
        check(bytes, &named, INDEX_TOP_BYTES_MAX, TOP_RECORD_BYTES)?;
        let mut shards = BTreeMap::new();
        for record in bytes.chunks_exact(TOP_RECORD_BYTES) {
            let (first, sha256) = (record[0], sha256(&record[1..])?);
            let is_next = (shards.last_key_value()).is_none_or(|(last, _)| *last < first);
            if !is_next {
                return Err(IndexError::Malformed);
            }
            shards.insert(first, sha256);
        }
        Ok(Self { shards })
    }

    /// The hash of the part that would list a package; without one the cache does not have it.
    pub fn shard_of(&self, pkghash: &PkgHash) -> Option<&Sha256> {
        self.shards.get(&first_byte(pkghash))
    }

    /// The hashes of all other parts.
    pub fn shards(&self) -> impl Iterator<Item = (u8, &Sha256)> {
        self.shards.iter().map(|(first, sha256)| (*first, sha256))
    }
}

impl Shard {
    /// Reads the part with this hash.
    ///
    /// # Errors
    /// As [`IndexTop::parse`].
    pub fn parse(bytes: &[u8], named: &Sha256) -> Result<Self, IndexError> {
        check(bytes, named, SHARD_BYTES_MAX, SHARD_RECORD_BYTES)?;
        let mut outputs = BTreeMap::new();
        for record in bytes.chunks_exact(SHARD_RECORD_BYTES) {
            let (pkghash, output) = record.split_at(Sha256::LEN);
            let pkghash = PkgHash::from_digest(sha256(pkghash)?);
            let is_next =
                |last: &PkgHash| *last < pkghash && first_byte(last) == first_byte(&pkghash);
            if !(outputs.last_key_value()).is_none_or(|(last, _)| is_next(last)) {
                return Err(IndexError::Malformed);
            }
            outputs.insert(pkghash, sha256(output)?);
        }
        if outputs.is_empty() {
            return Err(IndexError::Malformed);
        }
        Ok(Self { outputs })
    }

    /// The output of a package, if the cache has it.
    pub fn output_of(&self, pkghash: &PkgHash) -> Option<&Sha256> {
        self.outputs.get(pkghash)
    }

    /// All that it lists.
    pub fn into_outputs(self) -> BTreeMap<PkgHash, Sha256> {
        self.outputs
    }
}

fn first_byte(pkghash: &PkgHash) -> u8 {
    pkghash.digest().as_bytes()[0]
}

fn sha256(bytes: &[u8]) -> Result<Sha256, IndexError> {
    let bytes = bytes.try_into().map_err(|_| IndexError::Malformed)?;
    Ok(Sha256::from_bytes(bytes))
}

fn check(bytes: &[u8], named: &Sha256, max: usize, record: usize) -> Result<(), IndexError> {
    if bytes.len() > max || !bytes.len().is_multiple_of(record) {
        return Err(IndexError::Malformed);
    }
    if Sha256::of(bytes) != *named {
        return Err(IndexError::Hash);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn outputs(count: u32) -> BTreeMap<PkgHash, Sha256> {
        let output = |n: u32| {
            let text = n.to_string();
            (
                PkgHash::of_derivation(text.as_bytes()),
                Sha256::of(text.as_bytes()),
            )
        };
        (0..count).map(output).collect()
    }

    /// Asks as a user does: the list of shards, then one shard.
    fn ask(root: &Cid, parts: &[(Sha256, Vec<u8>)], pkghash: &PkgHash) -> Option<Sha256> {
        let part = |sha256: &Sha256| &parts.iter().find(|part| part.0 == *sha256).unwrap().1;
        let top = IndexTop::parse(part(&Multihash::of(root).unwrap().digest()), root).unwrap();
        let named = top.shard_of(pkghash)?;
        let shard = Shard::parse(part(named), named).unwrap();
        shard.output_of(pkghash).copied()
    }

    #[test]
    fn every_package_is_found_with_two_small_parts_and_no_other() {
        let all = outputs(50_000);
        let index = CacheIndex::new(all.clone()).unwrap();
        let (root, parts) = index.parts();
        assert_eq!((index.len(), parts.len()), (50_000, 257));
        let longest = parts.iter().map(|part| part.1.len()).max().unwrap();
        assert!(longest < 20 << 10, "{longest}");
        for (pkghash, sha256) in all.iter().step_by(997) {
            assert_eq!(ask(&root, &parts, pkghash), Some(*sha256));
        }
        assert_eq!(ask(&root, &parts, &PkgHash::of_derivation(b"none")), None);
        let rebuilt: BTreeMap<_, _> = parts[1..]
            .iter()
            .flat_map(|(named, bytes)| Shard::parse(bytes, named).unwrap().into_outputs())
            .collect();
        assert_eq!(rebuilt, all);
    }

    #[test]
    fn an_empty_index_is_one_too_and_its_root_is_pinned() {
        let (root, parts) = CacheIndex::default().parts();
        assert_eq!((parts.len(), parts[0].1.len()), (1, 0));
        assert_eq!(ask(&root, &parts, &PkgHash::of_derivation(b"none")), None);
        let (root, _) = CacheIndex::new(outputs(100)).unwrap().parts();
        assert_eq!(
            root.to_string(),
            "bafkreidl7gg2ecx3eo4sh4agaghfpxmdxx4xsmjtjrludapizko4u4oj44"
        );
    }

    #[test]
    fn what_is_not_sorted_cut_off_or_of_another_hash_is_refused() {
        let (root, parts) = CacheIndex::new(outputs(600)).unwrap().parts();
        let top = &parts[0].1;
        assert_eq!(IndexTop::parse(&top[33..], &root), Err(IndexError::Hash));
        assert_eq!(
            IndexTop::parse(&top[1..], &root),
            Err(IndexError::Malformed)
        );
        let shard = parts.iter().skip(1).find(|part| part.1.len() > 64);
        let (named, shard) = shard.unwrap();
        assert_eq!(Shard::parse(&shard[64..], named), Err(IndexError::Hash));
        let swapped = [&shard[64..], &shard[..64]].concat();
        let twice = [&shard[..64], &shard[..64]].concat();
        let foreign = [&shard[..64], &[255; 64]].concat();
        for bytes in [swapped, twice, foreign, Vec::new()] {
            let named = Sha256::of(&bytes);
            assert_eq!(Shard::parse(&bytes, &named), Err(IndexError::Malformed));
        }
        let twice = [&top[..33], &top[..33]].concat();
        let named = block_cid(Codec::Raw, &Sha256::of(&twice));
        assert_eq!(IndexTop::parse(&twice, &named), Err(IndexError::Malformed));
        let long = vec![0; SHARD_BYTES_MAX + 64];
        assert_eq!(
            Shard::parse(&long, &Sha256::of(&long)),
            Err(IndexError::Malformed)
        );
    }

    #[test]
    fn more_than_an_index_has_room_for_is_an_error() {
        let crowd = (0..=SHARD_RECORDS_MAX as u32).map(|n| {
            let mut bytes = [0; 32];
            bytes[28..].copy_from_slice(&n.to_be_bytes());
            (
                PkgHash::from_digest(Sha256::from_bytes(bytes)),
                Sha256::of(b""),
            )
        });
        let crowd: BTreeMap<_, _> = crowd.collect();
        assert_eq!(CacheIndex::new(crowd), Err(IndexError::TooLarge));
    }

    proptest! {
        #[test]
        fn garbage_never_panics(garbage: Vec<u8>) {
            let named = Sha256::of(&garbage);
            let _ = Shard::parse(&garbage, &named);
            let _ = IndexTop::parse(&garbage, &block_cid(Codec::Raw, &named));
        }
    }
}
