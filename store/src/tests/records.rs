//! Derivations, realisations, pins and the queue of keys.

use base::{
    Codec, Multihash, PackageName, PkgHash, Realisation, SecretKey, SignedRealisation, block_cid,
};

use super::*;
use crate::{
    Block, BlockStore as _, Pin, PinClass, PinKind, Provide, ProvideCounts, ProvideKind,
    ProvideOrigin, ProvideScope, Provided, StoreError,
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
fn a_signed_statement_is_served_as_the_block_that_it_is() {
    let (_dir, store) = store();
    let blob = add(&store, b"output");
    let statement = signed(PkgHash::of_derivation(b"package"), 1, &blob);
    assert_eq!(store.get_cid(&statement.cid()).unwrap(), None);
    store.put_realisation(&statement).unwrap();
    let block = store.get_cid(&statement.cid()).unwrap().unwrap();
    assert_eq!(block.bytes()[..], statement.to_bytes()[..]);
    let hash = Multihash::of(&statement.cid()).unwrap();
    assert_eq!(store.size(&hash).unwrap(), Some(block.len() as u64));
    assert_eq!(store.serve(&hash).unwrap().unwrap(), *block.bytes());
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
                    "INSERT INTO realisation VALUES (?1, ?2, x'00', ?3)",
                    (
                        pkghash.digest().as_bytes(),
                        row.to_bytes(),
                        Sha256::of(&row.to_bytes()).as_bytes(),
                    ),
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

fn provide_key(n: u8) -> Multihash {
    Multihash::sha2_256(&Sha256::of(&[n]))
}

fn provided(n: u8, at_unix_secs: u64, next_unix_secs: u64) -> Provided {
    Provided {
        key: provide_key(n),
        at_unix_secs,
        next_unix_secs,
    }
}

#[test]
fn keys_are_due_at_once_and_again_when_told() {
    let (_dir, store) = store();
    let key = provide_key;
    let due = |now, limit| store.provides_due(ProvideScope::All, now, limit).unwrap();
    store.provide(&key(1), ProvideKind::Package).unwrap();
    store
        .provide_all(&[(key(2), ProvideKind::Source), (key(3), ProvideKind::Root)])
        .unwrap();
    assert_eq!((due(1000, 10).len(), due(1000, 2).len()), (3, 2));
    let rows = [provided(1, 1000, 1500), provided(2, 1000, 6000)];
    store.set_provided(&rows).unwrap();
    store.provide(&key(1), ProvideKind::Package).unwrap();
    let keys = |due: &[Provide]| due.iter().map(|due| due.key).collect::<Vec<_>>();
    assert_eq!(keys(&due(1499, 10)), [key(3)]);
    let then = due(1500, 10);
    assert_eq!(
        keys(&then),
        [key(3), key(1)],
        "first what never was announced"
    );
    let again = (then[1].kind, then[1].provided_unix_secs);
    assert_eq!(again, (ProvideKind::Package, Some(1000)));
    let counts = ProvideCounts {
        total: 3,
        never: 1,
        due: 2,
        overdue: 1,
        packages: 1,
        sources: 1,
        roots: 1,
    };
    let now = 1500 + 3600;
    assert_eq!(
        store.provide_counts(ProvideScope::All, now).unwrap(),
        counts
    );
    assert!(store.unprovide(&key(3)).unwrap());
    assert!(!store.unprovide(&key(3)).unwrap());
    assert_eq!(store.provide_keys(ProvideScope::All).unwrap().len(), 2);
}

#[test]
fn what_was_fetched_is_told_from_what_was_made() {
    let (_dir, store) = store();
    let of = |kind, names: &[u8]| {
        names
            .iter()
            .map(|n| (provide_key(*n), kind))
            .collect::<Vec<_>>()
    };
    store
        .provide_as(ProvideOrigin::Fetched, &of(ProvideKind::Source, &[1, 2]))
        .unwrap();
    store.provide_all(&of(ProvideKind::Package, &[3])).unwrap();
    let made = || {
        let mut keys = store.provide_keys(ProvideScope::Made).unwrap();
        keys.sort_unstable();
        keys
    };
    let sorted = |names: &[u8]| {
        let mut keys: Vec<_> = names.iter().map(|n| provide_key(*n)).collect();
        keys.sort_unstable();
        keys
    };
    assert_eq!(made(), sorted(&[3]));
    let due = store.provides_due(ProvideScope::Made, 0, 10).unwrap();
    assert_eq!(
        due.iter().map(|due| due.key).collect::<Vec<_>>(),
        sorted(&[3])
    );
    assert_eq!(
        store.provide_counts(ProvideScope::Made, 0).unwrap().total,
        1
    );
    // Whoever adds a fetched source by hand means it; whoever fetches again what was made takes nothing away.
    store.provide_all(&of(ProvideKind::Source, &[1])).unwrap();
    store
        .provide_as(ProvideOrigin::Fetched, &of(ProvideKind::Package, &[3]))
        .unwrap();
    assert_eq!(made(), sorted(&[1, 3]));
    assert_eq!(store.provide_counts(ProvideScope::All, 0).unwrap().total, 3);
}

#[test]
fn a_new_address_makes_every_key_due_and_an_old_one_none() {
    let (_dir, store) = store();
    let keys: Vec<_> = (1..=3)
        .map(|n| (provide_key(n), ProvideKind::Source))
        .collect();
    store.provide_all(&keys).unwrap();
    let announce = |at| {
        let rows: Vec<_> = (1..=3).map(|n| provided(n, at, at + 5000)).collect();
        store.set_provided(&rows).unwrap();
    };
    let due = |now| {
        store
            .provides_due(ProvideScope::All, now, 10)
            .unwrap()
            .len()
    };
    let renew = |addresses: &[&[u8]], now| {
        let addresses: Vec<_> = addresses.iter().map(|a| a.to_vec()).collect();
        store.renew_provides(&addresses, now).unwrap()
    };
    assert!(renew(&[b"a", b"b"], 100));
    announce(100);
    assert!(!renew(&[b"b"], 200) && !renew(&[b"b", b"a"], 200) && !renew(&[], 200));
    assert_eq!(due(200), 0);
    assert!(renew(&[b"a", b"c"], 300));
    assert_eq!((due(299), due(300)), (0, 3));
    announce(400);
    assert!(!renew(&[b"c"], 500));
    assert!(renew(&[b"b"], 500), "the records carry it no longer");
}
