//! Derivations, realisations, pins and the queue of keys.

use base::{
    Codec, Multihash, PackageName, PkgHash, Realisation, SecretKey, SignedRealisation, block_cid,
};

use super::*;
use crate::{
    Block, BlockStore as _, Pin, PinClass, PinKind, ProvideCounts, ProvideKind, StoreError,
};

fn signed(pkghash: PkgHash, by: u8, blob: &Blob) -> SignedRealisation {
    let Blob { sha256, root, size } = blob.clone();
    Realisation {
        pkghash,
        output: root,
        sha256,
        size,
    }
    .sign(&SecretKey::from_seed(&[by; 32]))
}

#[test]
fn a_derivation_is_kept_and_served_as_a_raw_block() {
    let (_dir, store) = store();
    let text = b"p2pkgs derivation 1\n";
    let pkghash = store.put_derivation(text).unwrap();
    assert_eq!(pkghash, PkgHash::of_derivation(text));
    assert_eq!(store.put_derivation(text).unwrap(), pkghash);
    assert_eq!(store.derivation(&pkghash).unwrap(), Some(text.to_vec()));
    let block = store.get_cid(&pkghash.to_cid()).unwrap().unwrap();
    assert_eq!(block.bytes()[..], text[..]);
    assert_eq!(
        store.derivation(&PkgHash::of_derivation(b"other")).unwrap(),
        None
    );
    assert!(matches!(
        store
            .put_derivation(&vec![b'x'; crate::BLOCK_BYTES_MAX + 1])
            .unwrap_err(),
        StoreError::TooLarge { .. }
    ));
}

#[test]
fn an_ordinary_block_is_no_derivation() {
    let (_dir, store) = store();
    let block = Block::of(bytes::Bytes::from_static(b"block"));
    store.put(&block).unwrap();
    let name = PkgHash::from_digest(block.hash().digest());
    assert_eq!(store.derivation(&name).unwrap(), None);
}

#[test]
fn realisations_of_several_signers_and_contradicting_ones_are_kept() {
    let (_dir, store) = store();
    let pkghash = PkgHash::of_derivation(b"package");
    let (one, two) = (add(&store, b"output one"), add(&store, b"output two"));
    let mut all = vec![
        signed(pkghash, 1, &one),
        signed(pkghash, 2, &one),
        signed(pkghash, 1, &two),
    ];
    for realisation in all.iter().chain(&all) {
        store.put_realisation(realisation).unwrap();
    }
    let mut found = store.realisations(&pkghash).unwrap();
    found.sort_by_key(SignedRealisation::to_bytes);
    all.sort_by_key(SignedRealisation::to_bytes);
    assert_eq!(found, all);
    assert_eq!(
        store
            .realisations(&PkgHash::of_derivation(b"other"))
            .unwrap(),
        []
    );
}

#[test]
fn a_package_is_realised_while_its_output_is_here() {
    let (_dir, store) = store();
    let (here, away) = (
        PkgHash::of_derivation(b"here"),
        PkgHash::of_derivation(b"away"),
    );
    let output = add(&store, b"output");
    let sha256 = Sha256::of(b"never fetched");
    let missing = Blob {
        sha256,
        root: block_cid(Codec::Raw, &sha256),
        size: 13,
    };
    store.put_realisation(&signed(here, 1, &output)).unwrap();
    store.put_realisation(&signed(here, 2, &output)).unwrap();
    store.put_realisation(&signed(away, 1, &missing)).unwrap();
    assert_eq!(store.realised().unwrap(), [here]);
    std::fs::remove_file(path_of(&store, &output.sha256)).unwrap();
    assert_eq!(store.blob(&output.sha256).unwrap(), None);
    assert_eq!(store.realised().unwrap(), []);
}

#[test]
fn a_thousand_realisations_of_one_package_are_enough() {
    let (_dir, store) = store();
    let pkghash = PkgHash::of_derivation(b"package");
    let make = |n: u64| {
        let sha256 = Sha256::of(&n.to_le_bytes());
        signed(
            pkghash,
            1,
            &Blob {
                sha256,
                root: block_cid(Codec::Raw, &sha256),
                size: n,
            },
        )
    };
    let rows: Vec<_> = (0..1000).map(make).collect();
    store
        .index
        .write(|transaction| {
            for row in &rows {
                transaction.execute(
                    "INSERT INTO realisation VALUES (?1, ?2, x'00')",
                    (pkghash.digest().as_bytes(), row.to_bytes()),
                )?;
            }
            Ok(())
        })
        .unwrap();
    assert!(matches!(
        store.put_realisation(&make(1000)).unwrap_err(),
        StoreError::TooLarge {
            size: 1001,
            max: 1000,
            ..
        }
    ));
    store.put_realisation(&rows[5]).unwrap();
}

#[test]
fn pins_are_listed_by_class_and_age() {
    let (_dir, store) = store();
    let package: PackageName = "make".parse().unwrap();
    let pkghash = PkgHash::of_derivation(b"make");
    let source = PinKind::Source {
        file_name: "make-4.4.tar.gz".into(),
    };
    let kinds = [
        PinKind::Other {
            name: "mine".into(),
        },
        source.clone(),
        PinKind::Output { pkghash, package },
        PinKind::Seed {
            name: "tiny".into(),
        },
    ];
    let pins: Vec<_> = kinds
        .into_iter()
        .zip((0..10).rev())
        .map(|(kind, added_unix_secs)| Pin {
            sha256: Sha256::of(b"blob"),
            kind,
            added_unix_secs,
        })
        .collect();
    for pin in &pins {
        store.pin(pin).unwrap();
        store
            .pin(&Pin {
                added_unix_secs: 99,
                ..pin.clone()
            })
            .unwrap();
    }
    let oldest_first: Vec<_> = pins.iter().rev().cloned().collect();
    assert_eq!(
        store.pins(None).unwrap(),
        oldest_first,
        "a second pin keeps the first one's time"
    );
    assert_eq!(
        store.pins(Some(PinClass::Source)).unwrap(),
        [pins[1].clone()]
    );
    assert!(store.unpin(&pins[1].sha256, &source).unwrap());
    assert!(!store.unpin(&pins[1].sha256, &source).unwrap());
    assert_eq!(store.pins(None).unwrap().len(), 3);
}

#[test]
fn keys_are_due_at_once_and_again_when_told() {
    let (_dir, store) = store();
    let key = |n: u8| Multihash::sha2_256(&Sha256::of(&[n]));
    store.provide(&key(1), ProvideKind::Package).unwrap();
    store
        .provide_all(&[(key(2), ProvideKind::Source), (key(3), ProvideKind::Root)])
        .unwrap();
    assert_eq!(store.provides_due(1000, 10).unwrap().len(), 3);
    assert_eq!(store.provides_due(1000, 2).unwrap().len(), 2);
    store.set_provided(&[key(1), key(2)], 1000, 1500).unwrap();
    store.provide(&key(1), ProvideKind::Package).unwrap();
    let due = store.provides_due(1499, 10).unwrap();
    assert_eq!(due.iter().map(|due| due.key).collect::<Vec<_>>(), [key(3)]);
    let due = store.provides_due(1500, 10).unwrap();
    assert_eq!(due[0].key, key(3), "what was never announced comes first");
    assert_eq!(due.len(), 3);
    let again = due.iter().find(|due| due.key == key(1)).unwrap();
    assert_eq!(
        (again.kind, again.provided_unix_secs),
        (ProvideKind::Package, Some(1000))
    );
    let counts = ProvideCounts {
        total: 3,
        never: 1,
        due: 1,
        packages: 1,
        sources: 1,
        roots: 1,
    };
    assert_eq!(store.provide_counts(1499).unwrap(), counts);
    assert!(store.unprovide(&key(3)).unwrap());
    assert!(!store.unprovide(&key(3)).unwrap());
    assert_eq!(store.provide_counts(1499).unwrap().total, 2);
}
