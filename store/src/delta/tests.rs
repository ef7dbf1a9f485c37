//! Whole round trips, and what lies.

use std::fs;
use std::path::Path;

use base::{PackageName, PkgHash, Realisation, SecretKey};
use proptest::prelude::*;
use tempfile::TempDir;

use super::segment::{compress, expand};
use super::*;
use crate::archive::pack;
use crate::{Blob, Expected, Pin, PinKind};

/// A store with outputs of one package.
struct Fixture {
    store: Store,
    home: TempDir,
    versions: u8,
}

impl Fixture {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let store = Store::open(&home.path().join("store")).unwrap();
        Self {
            store,
            home,
            versions: 0,
        }
    }

    /// Packs a tree of these files as the next version's output.
    fn version(&mut self, files: &[(&str, Vec<u8>)]) -> (PkgHash, Blob) {
        self.versions += 1;
        let tree = self.home.path().join(format!("tree{}", self.versions));
        write_tree(&tree, files);
        let mut ingest = self.store.ingest().unwrap();
        pack(&tree, &mut ingest).unwrap();
        let blob = ingest.finish(&Expected::anything()).unwrap();
        let pkghash = self.announce(&blob, "thing");
        (pkghash, blob)
    }

    /// Says that a blob is the output of a package of this name.
    fn announce(&self, blob: &Blob, name: &str) -> PkgHash {
        let n = self.versions;
        let text = format!("p2pkgs-derivation 1\nname {name}\nsystem x\nbuild {n}\n");
        let pkghash = self.store.put_derivation(text.as_bytes()).unwrap();
        let realisation = Realisation {
            pkghash,
            output: blob.root,
            sha256: blob.sha256,
            size: blob.size,
        };
        let signed = realisation.sign(&SecretKey::from_seed(&[1; 32]));
        self.store.put_realisation(&signed).unwrap();
        let package: PackageName = name.parse().unwrap();
        let kind = PinKind::Output { pkghash, package };
        let note = Pin {
            sha256: blob.sha256,
            kind,
            added_unix_secs: u64::from(n),
        };
        self.store.note(&note).unwrap();
        pkghash
    }

    /// Sends `new` to another store that has `old`; what came out, and how many bytes went.
    fn send(&self, old: &Blob, new: &Blob) -> (Result<Blob, DeltaError>, u64) {
        let receiver = Fixture::new();
        let mut file = self.store.open_blob(&old.sha256).unwrap().unwrap();
        let mut ingest = receiver.store.ingest().unwrap();
        std::io::copy(&mut file, &mut ingest).unwrap();
        let here = ingest.finish(&Expected::anything()).unwrap();
        receiver.announce(&here, "thing");
        let unpack = |blob: &Blob| self.store.unpack_output(&blob.sha256).unwrap().unwrap();
        let (old_tar, new_tar) = (unpack(old), unpack(new));
        let size = new_tar.size();
        let mut assembly = Assembly::begin(&receiver.store, &old.sha256, new.size, size)
            .unwrap()
            .unwrap();
        let mut moved = 0;
        while let Some(index) = assembly.next() {
            let segment = make_segment(&old_tar, &new_tar, index).unwrap().unwrap();
            moved += segment.packed.len() as u64;
            assembly.push(&segment).unwrap();
        }
        let expected = Expected {
            sha256: Some(new.sha256),
            ..Expected::anything()
        };
        (assembly.finish(&expected), moved)
    }
}

fn write_tree(tree: &Path, files: &[(&str, Vec<u8>)]) {
    for (path, bytes) in files {
        let path = tree.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
}

/// Bytes that do not compress, different for each `name`.
fn noise(name: u64, length: usize) -> Vec<u8> {
    let mut state = name.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    std::iter::repeat_with(&mut next)
        .flatten()
        .take(length)
        .collect()
}

#[test]
fn one_changed_file_moves_only_that_file() {
    let mut fixture = Fixture::new();
    let mut files = vec![
        ("bin/a", noise(1, 3 << 20)),
        ("lib/b", noise(2, 7 << 20)),
        ("share/c", noise(3, 5 << 20)),
    ];
    let (_, old) = fixture.version(&files);
    files.insert(0, ("bin/A", noise(4, 10_000)));
    files[2].1[1000] ^= 1;
    let (_, new) = fixture.version(&files);
    let (got, moved) = fixture.send(&old, &new);
    assert_eq!(got.unwrap(), new);
    assert!(moved < 40_000, "{moved} bytes of {}", new.size);
}

#[test]
fn what_is_all_new_comes_all_the_same() {
    let mut fixture = Fixture::new();
    let (_, old) = fixture.version(&[("a", noise(1, 100_000))]);
    let (_, new) = fixture.version(&[("b", noise(2, 9 << 20))]);
    assert_eq!(fixture.send(&old, &new).0.unwrap(), new);
    // Down to a package without files.
    let (_, empty) = fixture.version(&[("a", Vec::new())]);
    assert_eq!(fixture.send(&new, &empty).0.unwrap(), empty);
    assert_eq!(fixture.send(&empty, &new).0.unwrap(), new);
}

#[test]
fn earlier_outputs_are_those_of_the_name_the_newest_first() {
    let mut fixture = Fixture::new();
    let (first, one) = fixture.version(&[("a", noise(1, 10))]);
    let (_, two) = fixture.version(&[("a", noise(2, 10))]);
    let (third, three) = fixture.version(&[("a", noise(3, 10))]);
    fixture.announce(&one, "other");
    let earlier = |pkghash| fixture.store.earlier_outputs(&pkghash).unwrap();
    let all = [three.sha256, two.sha256, one.sha256];
    assert_eq!(earlier(third), all);
    assert_eq!(earlier(first), all);
    assert_eq!(earlier(PkgHash::of_derivation(b"unknown")), []);
}

#[test]
fn only_outputs_are_unpacked() {
    let fixture = Fixture::new();
    let mut ingest = fixture.store.ingest().unwrap();
    ingest.append(b"somebody's source").unwrap();
    let source = ingest.finish(&Expected::anything()).unwrap();
    assert!(
        fixture
            .store
            .unpack_output(&source.sha256)
            .unwrap()
            .is_none()
    );
    // An output of another form than ours is no archive to make deltas of.
    fixture.announce(&source, "thing");
    assert!(fixture.store.unpack_output(&source.sha256).is_err());
}

#[test]
fn lies_are_refused_where_they_show() {
    let mut fixture = Fixture::new();
    let (_, old) = fixture.version(&[("a", noise(1, 50_000))]);
    let (_, new) = fixture.version(&[("a", noise(1, 50_001))]);
    let unpack = |blob: &Blob| fixture.store.unpack_output(&blob.sha256).unwrap().unwrap();
    let (old_tar, new_tar) = (unpack(&old), unpack(&new));
    let good = make_segment(&old_tar, &new_tar, 0).unwrap().unwrap();
    let begin = |tar_bytes| Assembly::begin(&fixture.store, &old.sha256, new.size, tar_bytes);
    let push = |segment: Segment| begin(good.tar_bytes).unwrap().unwrap().push(&segment);
    assert!(push(good.clone()).is_ok());
    for (from, length) in [
        (0, u64::MAX),
        (u64::MAX, 1),
        (1, old_tar.size()),
        (u64::MAX, 0),
    ] {
        let lie = Segment {
            from,
            length,
            ..good.clone()
        };
        assert!(matches!(push(lie), Err(DeltaError::Invalid(_))));
    }
    let other = Segment {
        tar_bytes: 1,
        ..good.clone()
    };
    assert!(matches!(push(other), Err(DeltaError::Invalid(_))));
    let garbage = Segment {
        packed: noise(9, 100),
        ..good.clone()
    };
    assert!(matches!(push(garbage), Err(DeltaError::Invalid(_))));
    for tar_bytes in [0, tar_bytes_max(new.size) + 1, u64::MAX] {
        assert!(matches!(begin(tar_bytes), Err(DeltaError::Invalid(_))));
    }
    // An end too early is no archive, a segment too many neither.
    let early = begin(good.tar_bytes).unwrap().unwrap();
    assert!(early.finish(&Expected::anything()).is_err());
    let mut long = begin(good.tar_bytes).unwrap().unwrap();
    long.push(&good).unwrap();
    assert!(matches!(long.push(&good), Err(DeltaError::Invalid(_))));
}

#[test]
fn a_wrong_tar_becomes_no_blob_and_a_long_one_ends_at_the_signed_size() {
    let mut fixture = Fixture::new();
    let (_, old) = fixture.version(&[("a", noise(1, 50_000))]);
    let (_, new) = fixture.version(&[("a", noise(1, 50_001))]);
    let begin = |size: u64, bytes| {
        let begun = Assembly::begin(&fixture.store, &old.sha256, size, bytes);
        begun.unwrap().unwrap()
    };
    let expected = Expected {
        sha256: Some(new.sha256),
        ..Expected::anything()
    };
    let bytes = noise(7, 40_000);
    let lie = Segment {
        tar_bytes: 40_000,
        from: 0,
        length: 0,
        packed: compress(&[], &bytes).unwrap(),
    };
    let mut assembly = begin(new.size, 40_000);
    assembly.push(&lie).unwrap();
    assert!(matches!(
        assembly.finish(&expected),
        Err(DeltaError::Store(StoreError::Mismatch { .. }))
    ));
    let bytes = noise(8, SEGMENT_BYTES as usize);
    let bomb = Segment {
        tar_bytes: SEGMENT_BYTES,
        from: 0,
        length: 0,
        packed: compress(&[], &bytes).unwrap(),
    };
    let mut assembly = begin(100_000, SEGMENT_BYTES);
    assert!(matches!(assembly.push(&bomb), Err(DeltaError::Invalid(_))));
}

#[test]
fn a_segment_never_expands_to_more_than_it_must() {
    let zeros = vec![0; SEGMENT_BYTES as usize];
    let bomb = compress(&[], &zeros).unwrap();
    assert!(bomb.len() < 2000);
    assert!(expand(&[], &bomb, 1000).is_err());
    assert!(expand(&[], &bomb, zeros.len() + 1).is_err());
    assert_eq!(expand(&[], &bomb, zeros.len()).unwrap(), zeros);
}

proptest! {
    #[test]
    fn a_segment_survives_its_way(
        reference in proptest::collection::vec(any::<u8>(), 0..2000),
        segment in proptest::collection::vec(any::<u8>(), 0..2000),
        common in 0_usize..2000,
    ) {
        let common = &reference[..common.min(reference.len())];
        let segment = [common, &segment, common].concat();
        let packed = compress(&reference, &segment).unwrap();
        prop_assert_eq!(expand(&reference, &packed, segment.len()).unwrap(), segment);
    }

    #[test]
    fn garbage_is_never_taken_for_a_segment_nor_panics(
        reference: Vec<u8>,
        garbage: Vec<u8>,
        length in 1_usize..10_000,
    ) {
        prop_assert!(expand(&reference, &garbage, length).is_err());
    }
}
